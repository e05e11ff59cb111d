#include "codec/model_measure.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>

#include "absl/strings/str_cat.h"
#include "codec/decoder.h"
#include "codec/encoder.h"
#include "codec/float16.h"
#include "codec/profile_data.h"
#include "codec/rope.h"

namespace kvstream {
namespace {

void Must(const absl::Status& status) {
  if (status.ok()) return;
  std::fprintf(stderr, "%s\n", status.ToString().c_str());
  std::abort();
}

// A token's values in one tensor, keys before RoPE.
void ReadRow(const KvGeometry& geometry, const RopeTable& rope, const TestKv& kv, size_t tensor,
             int64_t token, std::vector<float>* row) {
  const int32_t per_tensor = geometry.tensor_channels();
  const uint16_t* bits = &kv.tensors()[tensor][token * per_tensor];
  for (int32_t i = 0; i < per_tensor; ++i) (*row)[i] = FloatFrom16(bits[i], geometry.dtype);
  if (tensor % geometry.planes != 0) return;
  for (int head = 0; head < geometry.kv_heads; ++head)
    rope.Undo(token, row->data() + head * geometry.head_size);
}

// Mean squared error that rounding a value to 16 bits makes.
double RoundingError(float value, KvDtype dtype) {
  const double ulp = std::exp2(std::floor(std::log2(std::max(std::abs(value), 1e-6f)))) *
                     (dtype == KvDtype::kF16 ? 0x1p-10 : 0x1p-7);
  return ulp * ulp / 12;
}

// Mean squared difference of two caches at the same positions, keys before RoPE, in units.
void Compare(const KvGeometry& geometry, const std::vector<float>& unit, const TestKv& original,
             const TestKv& decoded, int64_t first_position, Measured* out) {
  RopeTable rope(geometry.rope);
  rope.Prepare(first_position, kModelChunk);
  const int32_t per_tensor = geometry.tensor_channels();
  std::vector<float> a(per_tensor);
  std::vector<float> b(per_tensor);
  const double values = static_cast<double>(kModelChunk * geometry.values_per_token());
  for (size_t tensor = 0; tensor < original.tensors().size(); ++tensor) {
    const float* of_tensor = &unit[tensor * per_tensor];
    for (int64_t token = 0; token < kModelChunk; ++token) {
      ReadRow(geometry, rope, original, tensor, token, &a);
      ReadRow(geometry, rope, decoded, tensor, token, &b);
      for (int32_t i = 0; i < per_tensor; ++i) {
        const double square = double{of_tensor[i]} * of_tensor[i] * values;
        out->error += std::pow(double{a[i]} - b[i], 2) / square;
        if (token % 16 == 0) out->rounding += 16 * RoundingError(b[i], geometry.dtype) / square;
      }
    }
  }
}

}  // namespace

std::string Llama31Config(int layers, int kv_heads) {
  return absl::StrCat(
      R"({"model_type":"llama","hidden_size":4096,"head_dim":128,"num_attention_heads":32,
          "torch_dtype":"bfloat16","max_position_embeddings":131072,"rope_theta":500000.0,
          "rope_scaling":{"rope_type":"llama3","factor":8.0,"low_freq_factor":1.0,
          "high_freq_factor":4.0,"original_max_position_embeddings":8192},
          "num_hidden_layers":)",
      layers, R"(,"num_key_value_heads":)", kv_heads, "}");
}
std::string Glm4Config(int layers) {
  return absl::StrCat(
      R"({"model_type":"glm4","hidden_size":4096,"head_dim":128,"num_attention_heads":32,
          "num_key_value_heads":2,"torch_dtype":"bfloat16","partial_rotary_factor":0.5,
          "rope_theta":10000.0,"num_hidden_layers":)",
      layers, "}");
}
std::string QwenYarnConfig(int layers) {
  return absl::StrCat(
      R"({"model_type":"qwen3","hidden_size":4096,"head_dim":128,"num_attention_heads":32,
          "num_key_value_heads":4,"torch_dtype":"bfloat16","rope_theta":1000000,
          "max_position_embeddings":131072,"rope_scaling":{"rope_type":"yarn","factor":4.0,
          "original_max_position_embeddings":32768},"num_hidden_layers":)",
      layers, "}");
}
std::string Phi3LongRopeConfig(int layers) {
  std::string factors;
  for (int i = 0; i < 48; ++i) absl::StrAppend(&factors, i == 0 ? "" : ",", 1 + 0.7 * i);
  return absl::StrCat(
      R"({"model_type":"phi3","hidden_size":3072,"num_attention_heads":32,"num_key_value_heads":4,
          "torch_dtype":"float16","rope_theta":10000.0,"max_position_embeddings":131072,
          "original_max_position_embeddings":4096,"rope_scaling":{"type":"longrope","long_factor":[)",
      factors, R"(],"short_factor":[)", factors, R"(]},"num_hidden_layers":)", layers, "}");
}
std::string DeepSeekV3Config(int layers) {
  return absl::StrCat(
      R"({"model_type":"deepseek_v3","num_attention_heads":128,"num_key_value_heads":128,
          "hidden_size":7168,"torch_dtype":"bfloat16","kv_lora_rank":512,"qk_nope_head_dim":128,
          "qk_rope_head_dim":64,"v_head_dim":128,"max_position_embeddings":163840,
          "rope_theta":10000,"rope_scaling":{"type":"yarn","factor":40,"beta_fast":32,"beta_slow":1,
          "mscale":1.0,"mscale_all_dim":1.0,"original_max_position_embeddings":4096},
          "num_hidden_layers":)",
      layers, "}");
}

KvGeometry GeometryOf(const std::string& config) {
  const absl::StatusOr<KvGeometry> geometry = GeometryFromConfigJson(config);
  Must(geometry.status());
  return *geometry;
}

std::shared_ptr<const Profile> CalibrateOn(const ModelKv& model, int64_t tokens,
                                           const CalibrationOptions& options) {
  const TestKv samples[] = {model.Context(tokens / 2, 0, 1), model.Context(tokens / 2, 0, 2)};
  const absl::StatusOr<std::shared_ptr<const Profile>> profile = BuildProfile(
      model.geometry(), std::vector<KvView>{samples[0].view(), samples[1].view()}, {}, options);
  Must(profile.status());
  return *profile;
}

std::vector<Measured> MeasureChunk(const ModelKv& model,
                                   const std::shared_ptr<const Profile>& profile,
                                   const std::vector<float>& unit, int64_t first_position,
                                   absl::Span<const int> wanted) {
  const KvGeometry& geometry = model.geometry();
  std::vector<Measured> measured(kModelLevels);
  const TestKv kv = model.Context(kModelChunk, first_position, 5000);
  const absl::StatusOr<EncodedChunk> encoded =
      (*ChunkEncoder::Create(profile))->Encode(kv.view(), first_position);
  Must(encoded.status());
  auto decoder = *ChunkDecoder::Create(profile);
  size_t bytes = 0;
  std::vector<absl::string_view> segments;
  TestKv decoded(geometry, kModelChunk);
  for (int level = 0; level < kModelLevels; ++level) {
    segments.push_back(encoded->segments[level]);
    bytes += segments.back().size();
    measured[level].bits = 8.0 * bytes / (kModelChunk * geometry.values_per_token());
    if (std::find(wanted.begin(), wanted.end(), level) == wanted.end()) continue;
    Must(decoder->Decode(segments, decoded.mutable_view()));
    Compare(geometry, unit, kv, decoded, first_position, &measured[level]);
  }
  return measured;
}

std::vector<SpectrumTheory> TheoryOfProfile(const ModelKv& model, const Profile& profile) {
  std::vector<SpectrumTheory> theory(kModelLevels);
  const double channels = static_cast<double>(model.geometry().values_per_token());
  int32_t first = 0;
  for (int group = 0; group < profile.groups(); ++group) {
    const std::vector<double> spectrum =
        model.Spectrum(first, profile.group_channels(group), &profile.data().unit[first]);
    first += profile.group_channels(group);
    for (int level = 0; level < kModelLevels; ++level) {
      const SpectrumTheory part = TheoryOf(spectrum, level);
      theory[level].bits += part.bits / channels;
      theory[level].error += part.error / channels;
      theory[level].bound_bits += part.bound_bits / channels;
    }
  }
  return theory;
}

void PrintMeasured(const std::string& name, const std::vector<Measured>& measured,
                   const std::vector<SpectrumTheory>& theory) {
  for (int level = 0; level < kModelLevels; ++level) {
    std::printf("%-24s level %d  %.4f b/v, theory %.4f, bound %.4f  error %.6f, theory %.6f\n",
                name.c_str(), level, measured[level].bits, theory[level].bits,
                theory[level].bound_bits, measured[level].error,
                theory[level].error + measured[level].rounding);
  }
}

}  // namespace kvstream

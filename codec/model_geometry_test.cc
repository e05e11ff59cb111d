// Models in use, from their config.json to the bits and errors of decoded KV, against theory.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "codec/calibration.h"
#include "codec/decoder.h"
#include "codec/encoder.h"
#include "codec/float16.h"
#include "codec/model_kv.h"
#include "codec/profile_data.h"
#include "codec/rope.h"
#include "gtest/gtest.h"

namespace kvstream {
namespace {

using Group = CalibrationOptions::Group;

constexpr int kChunk = 256;
constexpr int kLevels = 4;

// Files as the models have them, cut to the keys that say how their KV looks. LAYERS and HEADS
// stand for what tests vary to stay fast.
std::string Llama31(int layers, int kv_heads) {
  return absl::StrCat(
      R"({"model_type":"llama","hidden_size":4096,"head_dim":128,"num_attention_heads":32,
          "torch_dtype":"bfloat16","max_position_embeddings":131072,"rope_theta":500000.0,
          "rope_scaling":{"rope_type":"llama3","factor":8.0,"low_freq_factor":1.0,
          "high_freq_factor":4.0,"original_max_position_embeddings":8192},
          "num_hidden_layers":)",
      layers, R"(,"num_key_value_heads":)", kv_heads, "}");
}
std::string Glm4(int layers) {  // 64 of 128 channels turn, interleaved
  return absl::StrCat(
      R"({"model_type":"glm4","hidden_size":4096,"head_dim":128,"num_attention_heads":32,
          "num_key_value_heads":2,"torch_dtype":"bfloat16","partial_rotary_factor":0.5,
          "rope_theta":10000.0,"num_hidden_layers":)",
      layers, "}");
}
std::string QwenYarn(int layers) {
  return absl::StrCat(
      R"({"model_type":"qwen3","hidden_size":4096,"head_dim":128,"num_attention_heads":32,
          "num_key_value_heads":4,"torch_dtype":"bfloat16","rope_theta":1000000,
          "max_position_embeddings":131072,"rope_scaling":{"rope_type":"yarn","factor":4.0,
          "original_max_position_embeddings":32768},"num_hidden_layers":)",
      layers, "}");
}
std::string Phi3LongRope(int layers) {  // heads of 96, F16
  std::string factors;
  for (int i = 0; i < 48; ++i) absl::StrAppend(&factors, i == 0 ? "" : ",", 1 + 0.7 * i);
  return absl::StrCat(
      R"({"model_type":"phi3","hidden_size":3072,"num_attention_heads":32,"num_key_value_heads":4,
          "torch_dtype":"float16","rope_theta":10000.0,"max_position_embeddings":131072,
          "original_max_position_embeddings":4096,"rope_scaling":{"type":"longrope","long_factor":[)",
      factors, R"(],"short_factor":[)", factors, R"(]},"num_hidden_layers":)", layers, "}");
}
std::string DeepSeekV3(int layers) {
  return absl::StrCat(
      R"({"model_type":"deepseek_v3","num_attention_heads":128,"num_key_value_heads":128,
          "hidden_size":7168,"torch_dtype":"bfloat16","kv_lora_rank":512,"qk_nope_head_dim":128,
          "qk_rope_head_dim":64,"v_head_dim":128,"max_position_embeddings":163840,
          "rope_theta":10000,"rope_scaling":{"type":"yarn","factor":40,"beta_fast":32,"beta_slow":1,
          "mscale":1.0,"mscale_all_dim":1.0,"original_max_position_embeddings":4096},
          "num_hidden_layers":)",
      layers, "}");
}

KvGeometry Geometry(const std::string& config) {
  const absl::StatusOr<KvGeometry> geometry = GeometryFromConfigJson(config);
  EXPECT_TRUE(geometry.ok()) << geometry.status();
  return *geometry;
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

struct Measured {
  double bits = 0;      // a value, all segments up to the level
  double error = 0;     // mean square in units, a value
  double rounding = 0;  // what of it the original's and the output's rounding to 16 bits explain
};

// Mean squared difference of two caches at the same positions, keys before RoPE, in units.
void Compare(const KvGeometry& geometry, const std::vector<float>& unit, const TestKv& original,
             const TestKv& decoded, int64_t first_position, Measured* out) {
  RopeTable rope(geometry.rope);
  rope.Prepare(first_position, kChunk);
  const int32_t per_tensor = geometry.tensor_channels();
  std::vector<float> a(per_tensor);
  std::vector<float> b(per_tensor);
  const double values = static_cast<double>(kChunk * geometry.values_per_token());
  for (size_t tensor = 0; tensor < original.tensors().size(); ++tensor) {
    const float* of_tensor = &unit[tensor * per_tensor];
    for (int64_t token = 0; token < kChunk; ++token) {
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

// Bits and errors of a chunk at first_position at the levels that `wanted` has.
std::vector<Measured> Measure(const ModelKv& model, const std::shared_ptr<const Profile>& profile,
                              const std::vector<float>& unit, int64_t first_position,
                              const std::vector<int>& wanted) {
  const KvGeometry& geometry = model.geometry();
  std::vector<Measured> measured(kLevels);
  const TestKv kv = model.Context(kChunk, first_position, 5000);
  const absl::StatusOr<EncodedChunk> encoded =
      (*ChunkEncoder::Create(profile))->Encode(kv.view(), first_position);
  EXPECT_TRUE(encoded.ok()) << encoded.status();
  if (!encoded.ok()) return measured;
  auto decoder = *ChunkDecoder::Create(profile);
  size_t bytes = 0;
  std::vector<absl::string_view> segments;
  TestKv decoded(geometry, kChunk);
  for (int level = 0; level < kLevels; ++level) {
    segments.push_back(encoded->segments[level]);
    bytes += segments.back().size();
    measured[level].bits = 8.0 * bytes / (kChunk * geometry.values_per_token());
    if (std::find(wanted.begin(), wanted.end(), level) == wanted.end()) continue;
    const absl::Status status = decoder->Decode(segments, decoded.mutable_view());
    EXPECT_TRUE(status.ok()) << status;
    Compare(geometry, unit, kv, decoded, first_position, &measured[level]);
  }
  return measured;
}

// Theory of the whole model, a value: its groups' spectra.
std::vector<SpectrumTheory> Theory(const ModelKv& model, const Profile& profile) {
  std::vector<SpectrumTheory> theory(kLevels);
  const double channels = static_cast<double>(model.geometry().values_per_token());
  int32_t first = 0;
  for (int group = 0; group < profile.groups(); ++group) {
    const std::vector<double> spectrum =
        model.Spectrum(first, profile.group_channels(group), &profile.data().unit[first]);
    first += profile.group_channels(group);
    for (int level = 0; level < kLevels; ++level) {
      const SpectrumTheory part = TheoryOf(spectrum, level);
      theory[level].bits += part.bits / channels;
      theory[level].error += part.error / channels;
      theory[level].bound_bits += part.bound_bits / channels;
    }
  }
  return theory;
}

// Units of all channels as docs/codec.md has them, from the model's truth: scale of the tensor's
// part (with the means' power where they are known beforehand), step, ratio of values to keys.
std::vector<float> Units(const ModelKv& model, const CalibrationOptions& options, bool with_means) {
  const KvGeometry& geometry = model.geometry();
  const int32_t per_tensor = geometry.tensor_channels();
  std::vector<float> unit(geometry.values_per_token());
  for (int32_t first = 0; first < static_cast<int32_t>(unit.size()); first += per_tensor) {
    for (int part = 0; part < geometry.parts(); ++part) {
      double variance = 0;
      double mean_power = 0;
      int32_t count = 0;
      for (int32_t c = 0; c < per_tensor; ++c) {
        if (geometry.PartOf(c) != part) continue;
        variance += model.variance(first + c);
        mean_power += std::pow(model.mean(first + c), 2);
        ++count;
      }
      if (with_means) variance += std::min(mean_power, 3 * variance);
      const bool values = first / per_tensor % geometry.planes == 1;
      for (int32_t c = 0; c < per_tensor; ++c) {
        if (geometry.PartOf(c) != part) continue;
        unit[first + c] = static_cast<float>(std::sqrt(variance / count) * options.steps[0] *
                                             (values ? options.value_step_ratio : 1));
      }
    }
  }
  return unit;
}

// Rates and errors of all levels side by side; bazel test --test_output=all shows them.
void Print(const std::string& name, const std::vector<Measured>& measured,
           const std::vector<SpectrumTheory>& theory) {
  for (int level = 0; level < kLevels; ++level) {
    std::printf("%-24s level %d  %.4f b/v, theory %.4f, bound %.4f  error %.6f, theory %.6f\n",
                name.c_str(), level, measured[level].bits, theory[level].bits,
                theory[level].bound_bits, measured[level].error,
                theory[level].error + measured[level].rounding);
  }
}

struct Case {
  std::string name;
  std::string config;
  Group group;
  int group_layers;
  int64_t sample_tokens;
  // Above theory, in parts of it. Groups that are wide for their samples lose most: their
  // transforms and tables fit the samples better than the next context.
  double rate_over;
  double error_over;
};

// On two contexts; null after a failure.
std::shared_ptr<const Profile> Calibrate(const ModelKv& model, int64_t tokens,
                                         const CalibrationOptions& options) {
  const TestKv samples[] = {model.Context(tokens / 2, 0, 1), model.Context(tokens / 2, 0, 2)};
  const absl::StatusOr<std::shared_ptr<const Profile>> profile = BuildProfile(
      model.geometry(), std::vector<KvView>{samples[0].view(), samples[1].view()}, {}, options);
  EXPECT_TRUE(profile.ok()) << profile.status();
  return profile.ok() ? *profile : nullptr;
}

class ModelGeometryTest : public testing::TestWithParam<Case> {
 protected:
  ModelGeometryTest() : model_(Geometry(GetParam().config), {}, 11) {
    options_.group = GetParam().group;
    options_.group_layers = GetParam().group_layers;
    // Built once for all tests of a case.
    static auto* const built = new std::map<std::string, std::shared_ptr<const Profile>>;
    profile_ = (*built)[GetParam().name];
    if (profile_ == nullptr) {
      profile_ = Calibrate(model_, GetParam().sample_tokens, options_);
      (*built)[GetParam().name] = profile_;
    }
  }
  void SetUp() override { ASSERT_NE(profile_, nullptr); }

  const ModelKv model_;
  CalibrationOptions options_;
  std::shared_ptr<const Profile> profile_;
};

TEST_P(ModelGeometryTest, RateAndErrorAreThoseOfTheory) {
  const std::vector<float>& unit = profile_->data().unit;
  const std::vector<float> true_unit = Units(model_, options_, /*with_means=*/true);
  for (size_t c = 0; c < unit.size(); ++c) ASSERT_NEAR(unit[c] / true_unit[c], 1, 0.1) << c;

  const std::vector<SpectrumTheory> theory = Theory(model_, *profile_);
  // The rotation of far positions is undone as exactly as that of near ones.
  for (const int64_t position : {int64_t{4096}, int64_t{1000000}, int64_t{1} << 40}) {
    SCOPED_TRACE(position);
    const std::vector<Measured> measured = Measure(model_, profile_, unit, position, {0, 1, 2, 3});
    if (position == 4096) Print(GetParam().name, measured, theory);
    for (int level = 0; level < kLevels; ++level) {
      SCOPED_TRACE(level);
      EXPECT_LT(measured[level].bits, theory[level].bits * (1 + GetParam().rate_over));
      EXPECT_GT(measured[level].bits, theory[level].bits * 0.98);
      EXPECT_GT(measured[level].bits, theory[level].bound_bits);
      EXPECT_LT(measured[level].error,
                theory[level].error * (1 + GetParam().error_over) + measured[level].rounding);
      EXPECT_GT(measured[level].error, theory[level].error * 0.95);
    }
  }
}

TEST_P(ModelGeometryTest, SinksAreExactAtEveryLevel) {
  const TestKv kv = model_.Context(kChunk, 0, 9);
  const EncodedChunk encoded = *(*ChunkEncoder::Create(profile_))->Encode(kv.view(), 0);
  const TestKv later = model_.Context(kChunk, 512, 9);
  const EncodedChunk without = *(*ChunkEncoder::Create(profile_))->Encode(later.view(), 512);
  const double values = static_cast<double>(model_.geometry().values_per_token());
  EXPECT_LT(encoded.segments[0].size(), without.segments[0].size() + 4 * 2 * values);
  auto decoder = *ChunkDecoder::Create(profile_);
  for (int level = 0; level < kLevels; ++level) {
    TestKv decoded(model_.geometry(), kChunk);
    const std::vector<absl::string_view> segments(encoded.segments.begin(),
                                                  encoded.segments.begin() + level + 1);
    ASSERT_TRUE(decoder->Decode(segments, decoded.mutable_view()).ok());
    for (int64_t token = 0; token < 4; ++token) {
      EXPECT_EQ(TokenValues(model_.geometry(), decoded.view(), token),
                TokenValues(model_.geometry(), kv.view(), token));
    }
  }
}

INSTANTIATE_TEST_SUITE_P(
    Models, ModelGeometryTest,
    testing::Values(Case{"Llama8BPerHead", Llama31(2, 8), Group::kHead, 1, 4096, 0.03, 0.02},
                    Case{"Llama8BPerLayer", Llama31(1, 8), Group::kLayers, 1, 8192, 0.07, 0.11},
                    Case{"LlamaTwoHeadsTwoLayers", Llama31(4, 2), Group::kLayers, 2, 6144, 0.06,
                         0.11},
                    Case{"LlamaTwoHeadsModel", Llama31(3, 2), Group::kModel, 1, 6144, 0.07, 0.11},
                    Case{"Glm4PartialRope", Glm4(2), Group::kLayers, 1, 4096, 0.05, 0.06},
                    Case{"QwenYarn", QwenYarn(2), Group::kHead, 1, 4096, 0.03, 0.02},
                    Case{"Phi3LongRope", Phi3LongRope(2), Group::kLayers, 1, 6144, 0.05, 0.06},
                    Case{"DeepSeekPerLayer", DeepSeekV3(3), Group::kLayers, 1, 4096, 0.05, 0.06},
                    Case{"DeepSeekModel", DeepSeekV3(2), Group::kModel, 1, 6144, 0.06, 0.08}),
    [](const testing::TestParamInfo<Case>& info) { return info.param.name; });

// Whole models without calibration: the identity, with means, scales and classes of the chunk.
struct WholeCase {
  std::string name;
  std::string config;
};
class UncalibratedModelTest : public testing::TestWithParam<WholeCase> {};

TEST_P(UncalibratedModelTest, WithoutCalibrationTheRateIsThatOfScalarCells) {
  const ModelKv model(Geometry(GetParam().config), {}, 12);
  const KvGeometry& geometry = model.geometry();
  const CalibrationOptions options;
  const std::shared_ptr<const Profile> profile = *BuildProfile(geometry, {}, {}, options);
  const std::vector<float> unit = Units(model, options, /*with_means=*/false);
  std::vector<double> spectrum(unit.size());
  for (size_t c = 0; c < unit.size(); ++c)
    spectrum[c] = model.variance(static_cast<int32_t>(c)) / (double{unit[c]} * unit[c]);
  std::vector<SpectrumTheory> theory;
  for (int level = 0; level < kLevels; ++level) {
    theory.push_back(TheoryOf(spectrum, level));
    theory.back().bits /= static_cast<double>(unit.size());
    theory.back().bound_bits /= static_cast<double>(unit.size());
    theory.back().error /= static_cast<double>(unit.size());
  }
  const std::vector<Measured> measured = Measure(model, profile, unit, 8192, {0, 3});
  Print(GetParam().name, measured, theory);
  // Means take 16 bits a channel; a class for a channel and level some 5.
  const double side = 16.0 / kChunk;
  for (int level = 0; level < kLevels; ++level) {
    SCOPED_TRACE(level);
    EXPECT_GT(measured[level].bits, theory[level].bits * 0.98 + side);
    EXPECT_LT(measured[level].bits, theory[level].bits * 1.03 + side + (level + 1) * 5.0 / kChunk);
    if (level % 3 != 0) continue;
    EXPECT_LT(measured[level].error, theory[level].error * 1.1 + measured[level].rounding);
    EXPECT_GT(measured[level].error, theory[level].error * 0.95);
  }
}

INSTANTIATE_TEST_SUITE_P(Models, UncalibratedModelTest,
                         testing::Values(WholeCase{"Llama8B", Llama31(32, 8)},
                                         WholeCase{"Llama70B", Llama31(80, 8)},
                                         WholeCase{"DeepSeekV3", DeepSeekV3(61)}),
                         [](const testing::TestParamInfo<WholeCase>& info) {
                           return info.param.name;
                         });

TEST(WholeModelTest, Llama70BCalibratedPerHeadReachesTheory) {
  const ModelKv model(Geometry(Llama31(80, 8)), {}, 13);
  CalibrationOptions options;
  options.group = Group::kHead;
  const std::shared_ptr<const Profile> profile = Calibrate(model, 1024, options);
  ASSERT_NE(profile, nullptr);
  EXPECT_EQ(profile->groups(), 80 * 2 * 8);
  const std::vector<SpectrumTheory> theory = Theory(model, *profile);
  const std::vector<Measured> measured =
      Measure(model, profile, profile->data().unit, 60000, {0, 3});
  Print("Llama70BPerHead", measured, theory);
  for (int level = 0; level < kLevels; ++level) {
    SCOPED_TRACE(level);
    EXPECT_GT(measured[level].bits, theory[level].bits * 0.98);
    EXPECT_LT(measured[level].bits, theory[level].bits * 1.05);
    if (level % 3 != 0) continue;
    EXPECT_LT(measured[level].error, theory[level].error * 1.05 + measured[level].rounding);
    EXPECT_GT(measured[level].error, theory[level].error * 0.95);
  }
}

// How much a wide group loses with few tokens; minutes, by hand (docs/codec.md, "Geometries").
TEST(WholeModelTest, DISABLED_Llama8BAsOneGroupFromFewTokens) {
  const ModelKv model(Geometry(Llama31(32, 8)), {}, 14);
  CalibrationOptions options;
  options.group = Group::kModel;
  const auto start = std::chrono::steady_clock::now();
  const std::shared_ptr<const Profile> profile = Calibrate(model, 2048, options);
  ASSERT_NE(profile, nullptr);
  std::printf("built in %.0f s, rank %d of %d channels\n",
              std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count(),
              profile->group_rank(0), profile->group_channels(0));
  const std::vector<Measured> measured =
      Measure(model, profile, profile->data().unit, 4096, {0, 1, 2, 3});
  Print("Llama8BModel", measured, std::vector<SpectrumTheory>(kLevels));
}

TEST(WholeModelTest, DISABLED_OneLayerFromFewAndManyTokens) {
  const ModelKv model(Geometry(Glm4(1)), {}, 15);
  for (const int64_t tokens : {128, 256, 512, 1024, 2048, 4096, 16384}) {
    const std::shared_ptr<const Profile> profile = Calibrate(model, tokens, {});
    ASSERT_NE(profile, nullptr);
    Print(absl::StrCat("512 channels, ", tokens),
          Measure(model, profile, profile->data().unit, 4096, {0, 1, 2, 3}),
          Theory(model, *profile));
  }
}

}  // namespace
}  // namespace kvstream

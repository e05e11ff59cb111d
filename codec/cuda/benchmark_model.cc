#include "codec/cuda/benchmark_model.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <utility>

#include "codec/class_tables.h"
#include "codec/float16.h"
#include "codec/profile_data.h"
#include "codec/rope.h"

namespace kvstream {
namespace {

// Leading deviation in base steps, and the power by which it falls: some 4 bits a value at a step
// of 1/27, 0.6 at a step of 1, as one-layer groups of the reference model have.
constexpr double kLeading = 30;
constexpr double kFall = 0.8;

uint64_t Mix(uint64_t x) {
  x += 0x9e3779b97f4a7c15u;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

float SignOf(uint64_t channel) { return (Mix(channel * 31 + 7) & 1) != 0 ? -1.0f : 1.0f; }

// Roughly standard normal.
float NormalOf(uint64_t index) {
  const uint64_t bits = Mix(index);
  float sum = -4;
  for (int i = 0; i < 8; ++i) sum += static_cast<float>(bits >> (8 * i) & 255) / 255;
  return sum * 1.2247f;
}

void Hadamard(float* values, int size) {
  for (int half = 1; half < size; half *= 2) {
    for (int i = 0; i < size; i += 2 * half) {
      for (int j = i; j < i + half; ++j) {
        const float a = values[j];
        const float b = values[j + half];
        values[j] = a + b;
        values[j + half] = a - b;
      }
    }
  }
}

template <typename View, typename T>
View MakeView(const KvGeometry& geometry, T* data, int64_t tokens) {
  View view;
  view.tokens = tokens;
  const int64_t row = int64_t{geometry.kv_heads} * geometry.head_size;
  for (int layer = 0; layer < geometry.layers; ++layer) {
    for (auto* tensors : {&view.keys, &view.values}) {
      tensors->push_back({data, row, geometry.head_size});
      data += tokens * row;
    }
  }
  return view;
}

}  // namespace

BenchmarkModel MakeBenchmarkModel(int layers, int kv_heads, int head_size, int group_layers,
                                  int rank) {
  BenchmarkModel model;
  KvGeometry& geometry = model.geometry;
  geometry.layers = layers;
  geometry.kv_heads = kv_heads;
  geometry.head_size = head_size;
  geometry.dtype = KvDtype::kBF16;
  geometry.rope.layout = RopeParameters::Layout::kHalfSplit;
  for (int i = 0; i < head_size / 2; ++i)
    geometry.rope.inverse_frequency.push_back(std::pow(500000.0, -2.0 * i / head_size));

  ProfileFields fields;
  ProfileData& data = fields.data;
  data.geometry = geometry;
  data.chunk_tokens = 256;
  data.sink_tokens = 4;
  data.levels = 4;
  data.steps = {1.08, 0.36, 0.12, 0.04};
  data.calibrated = true;
  data.group_kind = group_layers == layers ? GroupKind::kModel : GroupKind::kLayers;
  data.group_layers = group_layers;
  data.references.resize(4);
  const int32_t channels = static_cast<int32_t>(geometry.values_per_token());
  data.mean.assign(channels, 0.0f);
  data.unit.assign(channels, 0.02f);
  const ParametricLadder ladder = MakeLadder(data.levels);
  data.tables = ParametricTables(ladder, data.levels);
  const int32_t size = group_layers * 2 * kv_heads * head_size;
  const float entry = 1 / std::sqrt(static_cast<float>(size));
  for (int32_t first = 0; first < channels; first += size) {
    ProfileGroup group;
    group.first_channel = first;
    group.channels = size;
    group.rank = rank;
    data.groups.push_back(group);
    std::vector<uint16_t> matrix(static_cast<size_t>(rank) * size);
    for (int i = 0; i < rank; ++i) {
      const double deviation = kLeading * std::pow(i + 1.0, -kFall);
      model.deviation.push_back(static_cast<float>(deviation));
      const auto nearest =
          std::min_element(ladder.scale.begin(), ladder.scale.end(), [&](double a, double b) {
            return std::abs(std::log(a / deviation)) < std::abs(std::log(b / deviation));
          });
      data.classes.push_back(static_cast<uint8_t>(2 * (nearest - ladder.scale.begin()) + 1));
      for (int c = 0; c < size; ++c) {
        const float sign = __builtin_parity(static_cast<unsigned>(i & c)) != 0 ? -1.0f : 1.0f;
        matrix[static_cast<size_t>(i) * size + c] =
            HalfFromFloat(entry * sign * SignOf(static_cast<uint64_t>(c)));
      }
    }
    fields.matrices.push_back(std::move(matrix));
  }
  data.coordinates = static_cast<int32_t>(data.classes.size());
  absl::StatusOr<std::shared_ptr<const Profile>> profile =
      Profile::ParseOwned(SerializeProfile(fields));
  if (!profile.ok()) {
    std::fprintf(stderr, "%s\n", profile.status().ToString().c_str());
    std::abort();
  }
  model.profile = *std::move(profile);
  return model;
}

std::vector<uint16_t> MakeBenchmarkKv(const BenchmarkModel& model, int tokens,
                                      int64_t first_position, uint64_t seed) {
  const KvGeometry& geometry = model.geometry;
  const ProfileData& data = model.profile->data();
  const int64_t row = int64_t{geometry.kv_heads} * geometry.head_size;
  std::vector<uint16_t> out(static_cast<size_t>(tokens * geometry.values_per_token()));
  RopeTable rope(geometry.rope);
  rope.Prepare(first_position, tokens);
  std::vector<float> values;
  for (const ProfileGroup& group : data.groups) {
    const float scale = 1 / std::sqrt(static_cast<float>(group.channels));
    for (int token = 0; token < tokens; ++token) {
      values.assign(static_cast<size_t>(group.channels), 0.0f);
      for (int32_t i = 0; i < group.rank; ++i) {
        const uint64_t coordinate =
            uint64_t{static_cast<uint32_t>(group.first_coordinate)} + static_cast<uint32_t>(i);
        values[i] = model.deviation[coordinate] *
                    NormalOf(Mix(seed) + coordinate * 4099 + static_cast<uint64_t>(token));
      }
      Hadamard(values.data(), group.channels);
      for (int32_t c = 0; c < group.channels; c += geometry.head_size) {
        float* const head = values.data() + c;
        for (int i = 0; i < geometry.head_size; ++i) {
          head[i] *= scale * SignOf(static_cast<uint32_t>(c + i)) * data.unit[c + i];
        }
        const int64_t index = (group.first_channel + c) / geometry.head_size;
        const int64_t tensor = index / geometry.kv_heads;  // [layer][keys, values]
        if (tensor % 2 == 0) rope.Apply(token, head);
        uint16_t* const to = out.data() + (tensor * tokens + token) * row +
                             index % geometry.kv_heads * geometry.head_size;
        for (int i = 0; i < geometry.head_size; ++i) to[i] = BfloatFromFloat(head[i]);
      }
    }
  }
  return out;
}

KvView ViewOfKv(const KvGeometry& geometry, const std::vector<uint16_t>& kv, int64_t tokens) {
  return MakeView<KvView>(geometry, kv.data(), tokens);
}

MutableKvView MutableViewOfKv(const KvGeometry& geometry, std::vector<uint16_t>& kv,
                              int64_t tokens) {
  return MakeView<MutableKvView>(geometry, kv.data(), tokens);
}

}  // namespace kvstream

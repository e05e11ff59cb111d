#include "codec/benchmark_kv.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "codec/float16.h"
#include "codec/rope.h"

namespace kvstream {
namespace {

// Dimensions of the made-up residual stream.
constexpr int kHidden = 2048;
// Hidden dimensions that make up one coordinate of a head.
constexpr int kMixed = 3;
// Standard deviation of coordinate i of a head is (1 + i)^-kDecay.
constexpr double kDecay = 0.62;
// Spread of the tokens' sizes (of the logarithm).
constexpr double kTokenSpread = 0.25;

void Reflect(const std::vector<float>& direction, float* row) {
  float dot = 0;
  for (size_t i = 0; i < direction.size(); ++i) dot += direction[i] * row[i];
  for (size_t i = 0; i < direction.size(); ++i) row[i] -= 2 * dot * direction[i];
}

std::vector<float> Direction(TestRandom& random, int size) {
  std::vector<float> out(size);
  float power = 0;
  for (float& x : out) {
    x = static_cast<float>(random.Normal());
    power += x * x;
  }
  for (float& x : out) x /= std::sqrt(power);
  return out;
}

}  // namespace

TestKv MakeBenchmarkKv(const KvGeometry& geometry, int64_t tokens, uint64_t context_seed) {
  TestRandom model(4711);
  TestRandom context(context_seed * 7919 + 1);
  const int size = geometry.head_size;
  std::vector<float> hidden(tokens * kHidden);
  for (int64_t token = 0; token < tokens; ++token) {
    const double gain = std::exp(kTokenSpread * context.Normal());
    for (int k = 0; k < kHidden; ++k) {
      // Four uniform numbers are normal enough, and quick.
      const uint64_t bits = context.Next();
      const int sum = static_cast<int>((bits & 0xffff) + (bits >> 16 & 0xffff) +
                                       (bits >> 32 & 0xffff) + (bits >> 48)) -
                      2 * 0xffff;
      hidden[token * kHidden + k] = static_cast<float>(gain * sum * (1.732 / 65536));
    }
  }
  double power = 0;
  for (int i = 0; i < size; ++i) power += std::pow(1.0 + i, -2 * kDecay);
  TestKv out(geometry, tokens);
  RopeTable rope(geometry.rope);
  rope.Prepare(0, tokens);
  std::vector<float> row(size);
  for (int layer = 0; layer < geometry.layers; ++layer) {
    for (const bool values : {false, true}) {
      std::vector<uint16_t>& tensor = values ? out.values(layer) : out.keys(layer);
      const double scale = 0.3 + 2 * model.Uniform();
      for (int head = 0; head < geometry.kv_heads; ++head) {
        std::vector<float> mean(size);
        std::vector<int> source(size * kMixed);
        std::vector<float> weight(size * kMixed);
        for (float& x : mean) x = static_cast<float>((values ? 0.1 : 1.0) * scale * model.Normal());
        for (int i = 0; i < size; ++i) {
          const double deviation = std::pow(1.0 + i, -kDecay) * std::sqrt(size / power) * scale;
          for (int j = 0; j < kMixed; ++j) {
            source[i * kMixed + j] =
                static_cast<int>(model.Below(std::min(kHidden, 8 + i * kHidden / size)));
            weight[i * kMixed + j] = static_cast<float>(deviation * std::sqrt(1.0 / kMixed));
          }
        }
        const std::vector<float> first = Direction(model, size);
        const std::vector<float> second = Direction(model, size);
        for (int64_t token = 0; token < tokens; ++token) {
          const float* state = &hidden[token * kHidden];
          for (int i = 0; i < size; ++i) {
            float sum = 0;
            for (int j = 0; j < kMixed; ++j)
              sum += weight[i * kMixed + j] * state[source[i * kMixed + j]];
            row[i] = sum;
          }
          Reflect(first, row.data());
          Reflect(second, row.data());
          for (int i = 0; i < size; ++i) row[i] += mean[i];
          if (!values) rope.Apply(token, row.data());
          uint16_t* target = &tensor[(token * geometry.kv_heads + head) * size];
          for (int i = 0; i < size; ++i) target[i] = Float16From(row[i], geometry.dtype);
        }
      }
    }
  }
  return out;
}

}  // namespace kvstream

#include "codec/test_kv.h"

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <utility>

#include "codec/float16.h"
#include "codec/rope.h"

namespace kvstream {
namespace {

template <typename View, typename Tensors>
View MakeView(const KvGeometry& geometry, int64_t tokens, Tensors& tensors) {
  View view;
  view.tokens = tokens;
  for (size_t i = 0; i < tensors.size(); ++i) {
    typename std::decay<decltype(view.keys[0])>::type tensor;
    tensor.data = tensors[i].data();
    tensor.token_stride = static_cast<ptrdiff_t>(geometry.kv_heads) * geometry.head_size;
    tensor.head_stride = geometry.head_size;
    (i % geometry.planes == 0 ? view.keys : view.values).push_back(tensor);
  }
  return view;
}

}  // namespace

TestKv::TestKv(const KvGeometry& geometry, int64_t tokens)
    : geometry_(geometry),
      tokens_(tokens),
      tensors_(geometry.planes * geometry.layers,
               std::vector<uint16_t>(tokens * geometry.kv_heads * geometry.head_size)) {}

KvView TestKv::view() const { return MakeView<KvView>(geometry_, tokens_, tensors_); }
MutableKvView TestKv::mutable_view() {
  return MakeView<MutableKvView>(geometry_, tokens_, tensors_);
}

std::vector<float> TestKv::Floats() const {
  std::vector<float> out;
  for (const std::vector<uint16_t>& tensor : tensors_) {
    for (uint16_t bits : tensor) out.push_back(FloatFrom16(bits, geometry_.dtype));
  }
  return out;
}

uint64_t TestRandom::Next() {
  uint64_t z = (state_ += 0x9e3779b97f4a7c15u);
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

double TestRandom::Normal() {
  double sum = -6;
  for (int i = 0; i < 12; ++i) sum += Uniform();
  return sum;
}

KvGeometry TestGeometry(int layers, int kv_heads, int head_size, KvDtype dtype,
                        RopeParameters::Layout layout, int rotary_size) {
  KvGeometry geometry;
  geometry.layers = layers;
  geometry.kv_heads = kv_heads;
  geometry.head_size = head_size;
  geometry.dtype = dtype;
  geometry.rope.layout = layout;
  if (layout != RopeParameters::Layout::kNone) {
    const int size = rotary_size < 0 ? head_size / 2 * 2 : rotary_size;
    for (int i = 0; i < size / 2; ++i)
      geometry.rope.inverse_frequency.push_back(std::pow(10000.0, -2.0 * i / size));
  }
  return geometry;
}

KvGeometry TestLatentGeometry(int layers, int latent, int rotated, KvDtype dtype) {
  KvGeometry geometry = TestGeometry(layers, 1, latent + rotated, dtype,
                                     RopeParameters::Layout::kInterleaved, rotated);
  geometry.planes = 1;
  geometry.rope.rotary_offset = latent;
  return geometry;
}

TestKv MakeTestKv(const KvGeometry& geometry, int64_t tokens, uint64_t model_seed,
                  uint64_t context_seed) {
  // A hidden state of a few dimensions with falling variance, seen through a random matrix, plus
  // noise.
  constexpr int kHidden = 24;
  TestRandom model(model_seed);
  TestRandom context(context_seed * 7919 + 1);
  std::vector<float> hidden(tokens * kHidden);
  for (int64_t i = 0; i < tokens * kHidden; ++i) {
    hidden[i] = static_cast<float>(context.Normal() * std::pow(0.85, i % kHidden));
  }
  TestKv out(geometry, tokens);
  RopeTable rope(geometry.rope);
  rope.Prepare(0, tokens);
  std::vector<float> row(geometry.head_size);
  for (int layer = 0; layer < geometry.layers; ++layer) {
    for (int plane = 0; plane < geometry.planes; ++plane) {
      const bool values = plane == 1;
      std::vector<uint16_t>& tensor = values ? out.values(layer) : out.keys(layer);
      const double scale = 0.3 + 2 * model.Uniform();
      for (int head = 0; head < geometry.kv_heads; ++head) {
        std::vector<double> mean(geometry.head_size);
        std::vector<double> matrix(geometry.head_size * kHidden);
        for (double& value : mean) value = (values ? 0.1 : 1.0) * model.Normal();
        for (double& value : matrix) value = 0.5 * model.Normal();
        for (int64_t token = 0; token < tokens; ++token) {
          for (int c = 0; c < geometry.head_size; ++c) {
            double sum = mean[c] + 0.1 * context.Normal();
            for (int k = 0; k < kHidden; ++k)
              sum += matrix[c * kHidden + k] * hidden[token * kHidden + k];
            row[c] = static_cast<float>(scale * sum);
          }
          if (!values) rope.Apply(token, row.data());
          uint16_t* target = &tensor[(token * geometry.kv_heads + head) * geometry.head_size];
          for (int c = 0; c < geometry.head_size; ++c)
            target[c] = Float16From(row[c], geometry.dtype);
        }
      }
    }
  }
  return out;
}

std::shared_ptr<const Profile> MakeTestProfile(const KvGeometry& geometry, uint64_t model_seed,
                                               const CalibrationOptions& options,
                                               int64_t sample_tokens) {
  const TestKv first = MakeTestKv(geometry, sample_tokens, model_seed, 1001);
  const TestKv second = MakeTestKv(geometry, sample_tokens, model_seed, 1002);
  const std::vector<KvView> samples = {first.view(), second.view()};
  absl::StatusOr<std::shared_ptr<const Profile>> profile =
      BuildProfile(geometry, samples, {}, options);
  if (!profile.ok()) {
    std::fprintf(stderr, "%s\n", profile.status().ToString().c_str());
    std::abort();
  }
  return *std::move(profile);
}

}  // namespace kvstream

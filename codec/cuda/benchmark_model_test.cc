// The benchmark's model must be one that the codec takes for real: otherwise its figures mean
// nothing.
#include "codec/cuda/benchmark_model.h"

#include <cmath>

#include "codec/cuda/testing/host_device.h"
#include "codec/decoder.h"
#include "codec/encoder.h"
#include "codec/float16.h"
#include "gtest/gtest.h"

namespace kvstream {
namespace {

double RelativeError(const std::vector<uint16_t>& want, const std::vector<uint16_t>& got) {
  double error = 0;
  double power = 0;
  for (size_t i = 0; i < want.size(); ++i) {
    error += std::pow(double{FloatFromBfloat(want[i])} - FloatFromBfloat(got[i]), 2);
    power += std::pow(double{FloatFromBfloat(want[i])}, 2);
  }
  return std::sqrt(error / power);
}

TEST(BenchmarkModelTest, RatesAndErrorsAreThoseOfARealCodec) {
  constexpr int kTokens = 256;
  constexpr int64_t kPosition = 4096;
  for (const int group_layers : {1, 2}) {
    const BenchmarkModel model = MakeBenchmarkModel(2, 2, 64, group_layers, 256);
    const std::vector<uint16_t> kv = MakeBenchmarkKv(model, kTokens, kPosition, 1);
    const EncodedChunk chunk = *(*ChunkEncoder::Create(model.profile))
                                    ->Encode(ViewOfKv(model.geometry, kv, kTokens), kPosition);
    auto decoder = *ChunkDecoder::Create(model.profile);
    auto device = *CreateHostDeviceDecoder(model.profile);
    std::vector<absl::string_view> segments;
    double last = 0.5;
    double bits = 0;
    for (int level = 0; level < 4; ++level) {
      segments.push_back(chunk.segments[level]);
      std::vector<uint16_t> host(kv.size());
      std::vector<uint16_t> on_device(kv.size());
      ASSERT_TRUE(decoder->Decode(segments, MutableViewOfKv(model.geometry, host, kTokens)).ok());
      DeviceKvView view;
      view.tokens = kTokens;
      for (int tensor = 0; tensor < 4; ++tensor) {
        (tensor % 2 == 0 ? view.keys : view.values)
            .push_back({on_device.data() + tensor * kTokens * 128, 128, 64});
      }
      const DeviceChunk job = {segments, 0};
      ASSERT_TRUE(device->Decode({&job, 1}, view, nullptr).ok());
      EXPECT_LT(RelativeError(host, on_device), 2e-3) << "the benchmark would call it wrong";
      const double error = RelativeError(kv, host);
      EXPECT_LT(error, last);
      last = error * 0.6;
      bits += static_cast<double>(chunk.segments[level].size()) * 8 / kv.size();
    }
    EXPECT_GT(bits, 2);
    EXPECT_LT(bits, 8);
  }
}

}  // namespace
}  // namespace kvstream

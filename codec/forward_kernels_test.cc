// The kernels against the scalar functions that they name, bit for bit, on every target.
#include "codec/forward_kernels.h"

#include <cmath>
#include <limits>
#include <vector>

#include "codec/float16.h"
#include "codec/kernel_targets.h"
#include "codec/panel_multiply.h"
#include "codec/rope.h"
#include "codec/test_kv.h"
#include "gtest/gtest.h"

namespace kvstream {
namespace {

TEST(ForwardKernelsTest, EverySixteenBitFloatWidensAsScalarCodeDoes) {
  for (const KvDtype dtype : {KvDtype::kF16, KvDtype::kBF16}) {
    std::vector<uint16_t> bits;
    for (uint32_t i = 0; i < 65536; ++i) {
      if (IsFinite16(static_cast<uint16_t>(i), dtype)) bits.push_back(static_cast<uint16_t>(i));
    }
    ForEachTarget([&] {
      std::vector<float> values(bits.size());
      ASSERT_TRUE(WidenLine(bits.data(), static_cast<int64_t>(bits.size()), dtype, values.data()));
      for (size_t i = 0; i < bits.size(); ++i)
        ASSERT_EQ(BitsOfFloat(values[i]), BitsOfFloat(FloatFrom16(bits[i], dtype)));
      // One bad value, wherever it stands.
      for (const int count : {1, 7, 16, 33}) {
        for (int bad = 0; bad < count; ++bad) {
          std::vector<uint16_t> line(count, 0x3c00);
          line[bad] = dtype == KvDtype::kF16 ? 0xfc00 : 0x7fc0;
          ASSERT_FALSE(WidenLine(line.data(), count, dtype, values.data()));
        }
      }
    });
  }
}

TEST(ForwardKernelsTest, FourTokensBecomeColumns) {
  TestRandom random(2);
  for (const int channels : {1, 3, 4, 7, 64}) {
    std::vector<float> in(4 * channels);
    std::vector<float> mean(channels);
    std::vector<float> inverse(channels);
    for (std::vector<float>* some : {&in, &mean, &inverse}) {
      for (float& x : *some) x = static_cast<float>(random.Normal());
    }
    ForEachTarget([&] {
      std::vector<float> out(channels * kPanelColumns, 7.0f);
      NormaliseFour(in.data(), channels, channels, mean.data(), inverse.data(), out.data() + 4);
      for (int c = 0; c < channels; ++c) {
        for (int t = 0; t < 4; ++t) {
          ASSERT_EQ(out[c * kPanelColumns + 4 + t], (in[t * channels + c] - mean[c]) * inverse[c]);
        }
        ASSERT_EQ(out[c * kPanelColumns + 3], 7.0f);
        ASSERT_EQ(out[c * kPanelColumns + 8], 7.0f);
      }
    });
  }
}

TEST(ForwardKernelsTest, RotatesAsTheTableDoes) {
  for (const int rotary : {2, 6, 32, 70}) {
    const KvGeometry geometry =
        TestGeometry(1, 1, rotary, KvDtype::kF16, RopeParameters::Layout::kHalfSplit, rotary);
    RopeTable rope(geometry.rope);
    rope.Prepare(5000, 3);
    TestRandom random(rotary);
    std::vector<float> head(rotary);
    for (float& x : head) x = static_cast<float>(random.Normal());
    std::vector<float> expected = head;
    rope.Apply(2, expected.data());
    ForEachTarget([&] {
      std::vector<float> turned = head;
      RotateHalves(rope.Cosines(2), rope.Sines(2), 1, 1, rotary / 2, turned.data(),
                   turned.data() + rotary / 2);
      ASSERT_EQ(turned, expected);
      RotateHalves(rope.Cosines(2), rope.Sines(2), 1, -1, rotary / 2, turned.data(),
                   turned.data() + rotary / 2);
      for (int i = 0; i < rotary; ++i) ASSERT_NEAR(turned[i], head[i], 1e-5);
    });
  }
}

}  // namespace
}  // namespace kvstream

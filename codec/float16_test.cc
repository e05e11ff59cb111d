#include "codec/float16.h"

#include <cmath>
#include <limits>

#include "gtest/gtest.h"

namespace kvstream {
namespace {

TEST(Float16Test, EveryFiniteHalfSurvivesTheRoundTrip) {
  for (uint32_t bits = 0; bits < 65536; ++bits) {
    const uint16_t half = static_cast<uint16_t>(bits);
    if (!IsFinite16(half, KvDtype::kF16)) continue;
    ASSERT_EQ(HalfFromFloat(FloatFromHalf(half)), half);
  }
}

TEST(Float16Test, EveryFiniteBfloatSurvivesTheRoundTrip) {
  for (uint32_t bits = 0; bits < 65536; ++bits) {
    const uint16_t bfloat = static_cast<uint16_t>(bits);
    if (!IsFinite16(bfloat, KvDtype::kBF16)) continue;
    ASSERT_EQ(BfloatFromFloat(FloatFromBfloat(bfloat)), bfloat);
  }
}

TEST(Float16Test, HalvesHaveTheirKnownValues) {
  EXPECT_EQ(FloatFromHalf(0x3c00), 1.0f);
  EXPECT_EQ(FloatFromHalf(0xc000), -2.0f);
  EXPECT_EQ(FloatFromHalf(0x7bff), 65504.0f);
  EXPECT_EQ(FloatFromHalf(0x0001), std::ldexp(1.0f, -24));
  EXPECT_EQ(FloatFromBfloat(0x3f80), 1.0f);
}

TEST(Float16Test, RoundsToNearestWithTiesToEven) {
  EXPECT_EQ(HalfFromFloat(1.0f + 0x1p-11f), 0x3c00);
  EXPECT_EQ(HalfFromFloat(1.0f + 3 * 0x1p-11f), 0x3c02);
  EXPECT_EQ(HalfFromFloat(1.0f + 0x1.1p-11f), 0x3c01);
  EXPECT_EQ(BfloatFromFloat(1.0f + 0x1p-8f), 0x3f80);
  EXPECT_EQ(BfloatFromFloat(1.0f + 3 * 0x1p-8f), 0x3f82);
}

TEST(Float16Test, SaturatesInsteadOfOverflowing) {
  const float infinity = std::numeric_limits<float>::infinity();
  for (float value : {65520.0f, 1e30f, infinity}) {
    EXPECT_EQ(HalfFromFloat(value), 0x7bff);
    EXPECT_EQ(HalfFromFloat(-value), 0xfbff);
  }
  EXPECT_EQ(BfloatFromFloat(infinity), 0x7f7f);
  EXPECT_EQ(BfloatFromFloat(-infinity), 0xff7f);
  EXPECT_EQ(BfloatFromFloat(std::numeric_limits<float>::max()), 0x7f7f);
  EXPECT_TRUE(IsFinite16(HalfFromFloat(std::nanf("")), KvDtype::kF16));
  EXPECT_TRUE(IsFinite16(BfloatFromFloat(std::nanf("")), KvDtype::kBF16));
}

TEST(Float16Test, InfinitiesAndNanAreNotFinite) {
  EXPECT_FALSE(IsFinite16(0x7c00, KvDtype::kF16));
  EXPECT_FALSE(IsFinite16(0xfe01, KvDtype::kF16));
  EXPECT_TRUE(IsFinite16(0x7c00, KvDtype::kBF16));
  EXPECT_FALSE(IsFinite16(0x7f80, KvDtype::kBF16));
  EXPECT_FALSE(IsFinite16(0xffc0, KvDtype::kBF16));
}

}  // namespace
}  // namespace kvstream

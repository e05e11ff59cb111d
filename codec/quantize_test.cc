#include "codec/quantize.h"

#include <cmath>

#include "codec/test_kv.h"
#include "gtest/gtest.h"

namespace kvstream {
namespace {

TEST(QuantizeTest, LevelZeroRoundsWithADeadZone) {
  EXPECT_EQ(CellOf(0.0f, 1), 0);
  EXPECT_EQ(CellOf(0.59f, 1), 0);
  EXPECT_EQ(CellOf(0.61f, 1), 1);
  EXPECT_EQ(CellOf(-0.61f, 1), -1);
  EXPECT_EQ(CellOf(1.49f, 1), 1);
  EXPECT_EQ(CellOf(1.51f, 1), 2);
  EXPECT_EQ(CellOf(-7.4f, 1), -7);
}

TEST(QuantizeTest, CellsNestAndTheErrorFallsByThreePerLevel) {
  TestRandom random(42);
  for (int i = 0; i < 20000; ++i) {
    const float x = static_cast<float>(3 * random.Normal());
    int32_t cell = CellOf(x, static_cast<float>(PowerOf3(5)));
    for (int level = 5; level >= 0; --level) {
      const double power = PowerOf3(level);
      const double centre = Unwarp(std::abs(cell) / power) * (cell < 0 ? -1 : 1);
      ASSERT_LE(std::abs(x - centre), 0.6 / power + 1e-5) << x << " level " << level;
      if (level == 0) {
        ASSERT_EQ(cell, CellOf(x, 1));
        break;
      }
      const int32_t parent = ParentCell(cell);
      ASSERT_LE(std::abs(cell - 3 * parent), 1);
      cell = parent;
    }
  }
}

TEST(QuantizeTest, HugeValuesAreClamped) {
  EXPECT_EQ(CellOf(1e30f, 1), kMaxBaseSymbol);
  EXPECT_EQ(CellOf(-1e30f, 1), -kMaxBaseSymbol);
  EXPECT_GT(CellOf(1e30f, static_cast<float>(PowerOf3(kMaxLevels - 1))), 0);
}

TEST(QuantizeTest, WarpInvertsUnwarp) {
  for (double u = 0; u < 5; u += 0.01) EXPECT_NEAR(Warp(Unwarp(u)), u, 1e-12);
}

}  // namespace
}  // namespace kvstream

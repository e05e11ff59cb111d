// The kernels' arithmetic against the host's.
#include "codec/cuda/internal/lane_math.h"

#include <cmath>
#include <memory>
#include <vector>

#include "codec/cuda/internal/matrix_tile.h"
#include "codec/float16.h"
#include "codec/quantize.h"
#include "codec/test_kv.h"
#include "gtest/gtest.h"

namespace kvstream {
namespace cuda {
namespace {

TEST(LaneMathTest, SixteenBitFloatsAreTheHostsInEveryBit) {
  for (uint32_t bits = 0; bits < 65536; ++bits) {
    const uint16_t value = static_cast<uint16_t>(bits);
    for (const KvDtype dtype : {KvDtype::kF16, KvDtype::kBF16}) {
      ASSERT_EQ(Finite16(value, static_cast<int>(dtype)), IsFinite16(value, dtype));
      if (!IsFinite16(value, dtype)) continue;
      ASSERT_EQ(From16(value, static_cast<int>(dtype)), FloatFrom16(value, dtype)) << bits;
    }
  }
  TestRandom random(3);
  for (int i = 0; i < 200000; ++i) {
    // Every exponent, and the neighbourhood of the largest finite half.
    const float value = i % 2 == 0 ? AsFloat(static_cast<uint32_t>(random.Next()))
                                   : static_cast<float>(60000 + random.Below(10000));
    if (std::isnan(value)) continue;
    ASSERT_EQ(ToHalf(value), HalfFromFloat(value)) << value;
    ASSERT_EQ(ToBfloat(value), BfloatFromFloat(value)) << value;
  }
}

TEST(LaneMathTest, CellsAreTheHosts) {
  for (int32_t v = -3000; v <= 3000; ++v) ASSERT_EQ(Parent(v), ParentCell(v));
  TestRandom random(4);
  for (int i = 0; i < 100000; ++i) {
    const float x = static_cast<float>(random.Normal() * std::pow(10.0, random.Below(8)));
    for (int level = 0; level < 5; ++level) {
      const float power = static_cast<float>(PowerOf3(level));
      ASSERT_EQ(PowerOfThree(level), PowerOf3(level));
      ASSERT_EQ(CellOfValue(x, power), CellOf(x, power)) << x;
    }
  }
}

TEST(LaneMathTest, ValuesLieInTheirCells) {
  const ShrinkDev shrink = {0.05f, 0.01f};
  for (int level = 0; level < 8; ++level) {
    const float power = static_cast<float>(PowerOf3(level));
    EXPECT_EQ(ValueOfCell(0, 1 / power, shrink), 0);
    for (const int32_t cell : {1, 2, 3, 100, 5000}) {
      const float centre = ValueOfCell(cell, 1 / power, {0, 0});
      EXPECT_EQ(centre, Unwarp(static_cast<float>(cell) * (1 / power)));
      EXPECT_EQ(CellOf(centre, power), cell);
      EXPECT_EQ(ValueOfCell(-cell, 1 / power, shrink), -ValueOfCell(cell, 1 / power, shrink));
    }
  }
}

// A value that is split in two halves keeps what the sum in single precision keeps.
TEST(LaneMathTest, TwoHalvesCarryEveryCell) {
  TestRandom random(5);
  for (int i = 0; i < 100000; ++i) {
    const int level = static_cast<int>(random.Below(8));
    const int32_t cell = static_cast<int32_t>(random.Below(uint64_t{1} << (4 + random.Below(15))));
    const float inverse = 1.0f / static_cast<float>(PowerOf3(level));
    const float value = ValueOfCell(cell, inverse, {0, 0}) * kOperandScale;
    const float high = FromHalf(ToHalf(value));
    const float low =
        cell > static_cast<int32_t>(kLargestPlainCell) ? FromHalf(ToHalf(value - high)) : 0;
    const float error = std::abs(value - high - low) / kOperandScale;
    // A 16th of the level's step, or what a float of this size resolves.
    ASSERT_LE(error, std::max(inverse / 16, value / kOperandScale * 0x1p-21f))
        << cell << " of level " << level;
  }
}

// The emulated instructions, used as the kernel uses them, multiply matrices.
TEST(MatrixUnitTest, FragmentsMultiply) {
  TestRandom random(6);
  auto stage = std::make_unique<TileStage>();
  for (int k = 0; k < kTileRows; ++k) {
    for (int i = 0; i < kTileStride; ++i) {
      stage->values[k][i] = ToHalf(static_cast<float>(random.Below(17)) - 8);
      stage->weights[k][i] = ToHalf(static_cast<float>(random.Below(17)) - 8);
    }
  }
  std::vector<float> tile(kTileTokens * kTileStride, -1e9f);
  const HostWarp warp;
  for (int index = 0; index < kTileWarps; ++index) {
    auto sums = std::make_unique<WarpSums>();
    ClearSums(warp, sums.get());
    MultiplyStage(warp, index, *stage, sums.get());
    StoreSums(warp, index, *sums, tile.data());
  }
  for (int token = 0; token < kTileTokens; ++token) {
    for (int slot = 0; slot < kTileSlots; ++slot) {
      float sum = 0;
      for (int k = 0; k < kTileRows; ++k)
        sum += FromHalf(stage->values[k][token]) * FromHalf(stage->weights[k][slot]);
      ASSERT_EQ(tile[token * kTileStride + slot], sum) << token << ", " << slot;
    }
  }
}

}  // namespace
}  // namespace cuda
}  // namespace kvstream

// Every kernel on every target against plain loops; sums of integers must be the same everywhere.
#include "codec/tile_product.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "codec/float16.h"
#include "codec/kernel_targets.h"
#include "codec/test_kv.h"
#include "gtest/gtest.h"

namespace kvstream {
namespace {

struct Product {
  int64_t rows;
  int64_t padded;
  std::vector<int32_t> packed;
  std::vector<int32_t> slab;
  std::vector<int32_t> sums;  // before

  // zeros: of 8 words of a tile's rows, so many are 0, roughly.
  Product(int64_t rows, int64_t padded, int zeros) : rows(rows), padded(padded) {
    TestRandom random(rows * 100 + padded + zeros);
    packed.resize(rows * kTileTokens);
    slab.resize(rows * padded);
    sums.resize(kTileTokens * padded);
    const auto shorts = [&] {
      // Sums stay within 2^31, as the norms of a transform see to.
      const uint32_t limit = static_cast<uint32_t>(30000 / std::sqrt(2.0 * rows));
      const uint16_t low = static_cast<uint16_t>(random.Below(2 * limit) - limit);
      const uint16_t high = static_cast<uint16_t>(random.Below(2 * limit) - limit);
      return static_cast<int32_t>(low | uint32_t{high} << 16);
    };
    for (int32_t& x : packed) x = static_cast<int>(random.Below(8)) < zeros ? 0 : shorts();
    for (int32_t& x : slab) x = shorts();
    for (int32_t& x : sums) x = static_cast<int32_t>(random.Below(100000)) - 50000;
  }

  std::vector<int32_t> Expected(bool add) const {
    std::vector<int32_t> out = sums;
    for (int t = 0; t < kTileTokens; ++t) {
      for (int64_t c = 0; c < padded; ++c) {
        int64_t sum = add ? sums[t * padded + c] : 0;
        for (int64_t row = 0; row < rows; ++row) {
          const int32_t a = packed[row * kTileTokens + t];
          const int32_t b = slab[row * padded + c];
          sum += static_cast<int16_t>(a) * static_cast<int16_t>(b) + (a >> 16) * (b >> 16);
        }
        out[t * padded + c] = static_cast<int32_t>(sum);
      }
    }
    return out;
  }
};

TEST(TileProductTest, IntegersAreExactOnEveryTarget) {
  for (const int64_t rows : {0, 1, 2, 63, 64, 65, 200}) {
    for (const int64_t padded : {32, 64, 160, 256}) {
      for (const int zeros : {0, 1, 5, 8}) {
        for (const bool add : {false, true}) {
          SCOPED_TRACE(testing::Message() << rows << " rows, " << padded << " channels, " << zeros
                                          << " eighths of zeros, add " << add);
          const Product product(rows, padded, zeros);
          const std::vector<int32_t> expected = product.Expected(add);
          ForEachTarget([&] {
            for (const bool vnni : {false, true}) {
              std::vector<int32_t> sums = product.sums;
              PickShortTile(vnni)(product.packed.data(), product.slab.data(), rows, padded, add,
                                  sums.data());
              ASSERT_EQ(sums, expected);
            }
            const SparseTileProduct sparse = PickSparseTile();
            if (sparse == nullptr) return;
            std::vector<int32_t> sums = product.sums;
            const bool done =
                sparse(product.packed.data(), product.slab.data(), rows, padded, add, sums.data());
            if (rows >= 63) {
              ASSERT_EQ(done, zeros >= 5);
            }
            ASSERT_EQ(sums, done ? expected : product.sums);
          });
        }
      }
    }
  }
}

TEST(TileProductTest, FloatsAreRightOnEveryTarget) {
  TestRandom random(3);
  for (const int64_t rows : {1, 70}) {
    const int64_t padded = 96;
    std::vector<float> values(rows * kTileTokens);
    std::vector<float> entries(rows * padded);
    for (float& x : values) x = static_cast<float>(random.Normal());
    for (float& x : entries) x = static_cast<float>(random.Normal());
    std::vector<int32_t> packed(values.size());
    std::vector<int32_t> slab(entries.size());
    std::memcpy(packed.data(), values.data(), values.size() * 4);
    std::memcpy(slab.data(), entries.data(), entries.size() * 4);
    ForEachTarget([&] {
      std::vector<int32_t> sums(kTileTokens * padded);
      for (const bool add : {false, true}) {
        PickFloatTile()(packed.data(), slab.data(), rows, padded, add, sums.data());
        for (int64_t i = 0; i < kTileTokens * padded; ++i) {
          double expected = 0;
          for (int64_t row = 0; row < rows; ++row) {
            expected += static_cast<double>(values[row * kTileTokens + i / padded]) *
                        entries[row * padded + i % padded];
          }
          ASSERT_NEAR(FloatFromBits(static_cast<uint32_t>(sums[i])), expected * (add ? 2 : 1),
                      1e-3);
        }
      }
    });
  }
}

TEST(TileProductTest, SlabRowsAreRoundedAndClamped) {
  const std::vector<float> entries = {0, 1, -1, 1.01f, -1.01f, 0.5f, -0.25f, 0.0001f};
  std::vector<uint16_t> low(32, 0);
  std::vector<uint16_t> high(32, 0);
  for (size_t i = 0; i < entries.size(); ++i) {
    low[i] = HalfFromFloat(entries[i]);
    high[entries.size() - 1 - i] = low[i];
  }
  ForEachTarget([&] {
    std::vector<int32_t> row(32);
    ShortSlabRow(low.data(), high.data(), 32, row.data());
    const auto expected = [](uint16_t half) {
      const double entry = std::nearbyint(double{FloatFromHalf(half)} * 32767);
      return static_cast<int>(std::max(-32767.0, std::min(32767.0, entry)));
    };
    for (int i = 0; i < 32; ++i) {
      ASSERT_EQ(static_cast<int16_t>(row[i]), expected(low[i]));
      ASSERT_EQ(row[i] >> 16, expected(high[i]));
    }
    FloatSlabRow(low.data(), 32, row.data());
    for (int i = 0; i < 32; ++i)
      ASSERT_EQ(FloatFromBits(static_cast<uint32_t>(row[i])), FloatFromHalf(low[i]));
  });
}

}  // namespace
}  // namespace kvstream

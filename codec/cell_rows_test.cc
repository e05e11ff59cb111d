#include "codec/cell_rows.h"

#include <algorithm>
#include <vector>

#include "gtest/gtest.h"

namespace kvstream {
namespace {

constexpr int kLevels = 4;

TEST(CellRowsTest, CellsStandWhereTheyWerePutInNarrowAndWideRows) {
  for (const int tokens : {1, 15, 16, 17, 32, 33, 100}) {
    std::vector<int32_t> cells;
    for (int i = 0; i < 5 * tokens; ++i) {
      // Row 3 has cells of more than 16 bits.
      cells.push_back(i % 41 - 20 + (i / tokens == 3 && i % 7 == 0 ? 100000 : 0));
    }
    CellRows rows;
    rows.Read(cells.data(), 5, tokens, 0, kLevels);
    std::vector<int32_t> read(cells.size());
    rows.Write(read.data());
    EXPECT_EQ(read, cells);
    EXPECT_EQ(rows.stride() % kLanes, 0);
    for (int i = 0; i < 5; ++i) EXPECT_EQ(reinterpret_cast<uintptr_t>(rows.narrow(i)) % 64, 0u);
  }
}

TEST(CellRowsTest, EveryTokenOfAStepHasAPlaceOfItsOwn) {
  std::vector<int64_t> places;
  for (int t = 0; t < 2 * kLanes; ++t) places.push_back(CellRows::Place(t));
  EXPECT_EQ(places[16], places[0] + 1);
  std::sort(places.begin(), places.end());
  for (int t = 0; t < 2 * kLanes; ++t) EXPECT_EQ(places[t], t);
}

TEST(CellRowsTest, RowsStayNarrowAsLongAsTheirFinestCellsFit) {
  for (int level = 0; level < kLevels; ++level) {
    const int32_t most = CellRows::NarrowMax(level, kLevels);
    int32_t finest = most;
    for (int n = level + 1; n < kLevels; ++n) finest = 3 * finest + 1;
    EXPECT_LE(finest, INT16_MAX);
    CellRows rows;
    rows.Reset(2, 40, kLevels);
    rows.Set(0, 33, -most, level);
    EXPECT_EQ(rows.wide(0), nullptr);
    rows.Set(1, 33, -most - 1, level);
    ASSERT_NE(rows.wide(1), nullptr);
    EXPECT_EQ(rows.Get(1, 33), -most - 1);
    EXPECT_EQ(rows.narrow(1)[CellRows::Place(33)], -2);
  }
}

TEST(CellRowsTest, AWidenedRowKeepsItsCellsAndTheNextChunkHasNoWideRows) {
  CellRows rows;
  rows.Reset(3, 20, kLevels);
  for (int t = 0; t < 20; ++t) rows.Set(1, t, t - 10, 0);
  rows.Set(1, 4, 400000, 0);
  for (int t = 0; t < 20; ++t) EXPECT_EQ(rows.Get(1, t), t == 4 ? 400000 : t - 10);
  EXPECT_EQ(rows.wide_rows(), std::vector<int32_t>({1}));
  rows.Reset(3, 20, kLevels);
  EXPECT_EQ(rows.wide(1), nullptr);
}

}  // namespace
}  // namespace kvstream

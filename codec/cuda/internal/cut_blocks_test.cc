#include "codec/cuda/internal/cut_blocks.h"

#include <algorithm>
#include <numeric>

#include "gtest/gtest.h"

namespace kvstream {
namespace cuda {
namespace {

std::vector<EncodeTaskDev> Cut(const std::vector<float>& row_bits, int tokens) {
  // The last coordinate first: cuts follow the coding order.
  std::vector<int32_t> order(row_bits.size());
  std::iota(order.rbegin(), order.rend(), 0);
  std::vector<EncodeTaskDev> tasks;
  uint64_t words = 0;
  CutBlocks(order, row_bits.data(), tokens, 3, 1, &words, &tasks);
  uint32_t next = 0;
  uint64_t offset = 0;
  for (const EncodeTaskDev& task : tasks) {
    EXPECT_EQ(task.first, next);
    EXPECT_EQ(task.offset, offset);
    EXPECT_EQ(task.chunk, 3u);
    EXPECT_EQ(task.level, 1u);
    double bits = 0;
    for (uint32_t i = 0; i < task.coordinates; ++i) bits += row_bits[order[next + i]];
    EXPECT_GE(task.capacity, bits / 16 + 2 * kWarp);
    next += task.coordinates;
    offset += task.capacity;
  }
  EXPECT_EQ(next, tokens == 0 ? 0 : row_bits.size());
  EXPECT_EQ(offset, words);
  return tasks;
}

TEST(CutBlocksTest, BlocksHaveSomeEightKibibytes) {
  const std::vector<EncodeTaskDev> tasks = Cut(std::vector<float>(4096, 500.0f), 256);
  EXPECT_GT(tasks.size(), 20u);
  for (const EncodeTaskDev& task : tasks) {
    EXPECT_GE(task.coordinates * 500.0, kBlockBitsMin / 2);
    EXPECT_LE(task.coordinates * 500.0, 1.6 * kBlockBitsMax);
  }
}

TEST(CutBlocksTest, RowsThatCostNothingStillEndABlock) {
  const std::vector<EncodeTaskDev> tasks = Cut(std::vector<float>(20000, 0.1f), 256);
  EXPECT_EQ(tasks.size(), 10u);
  for (const EncodeTaskDev& task : tasks)
    EXPECT_LE(int64_t{task.coordinates} * 256, kBlockSymbolsMax);
}

TEST(CutBlocksTest, AFewRowsAreOneBlockAndNoTokensNone) {
  EXPECT_EQ(Cut(std::vector<float>(5, 10.0f), 256).size(), 1u);
  EXPECT_EQ(Cut(std::vector<float>(5, 10.0f), 0).size(), 0u);
  EXPECT_EQ(Cut({}, 256).size(), 0u);
}

}  // namespace
}  // namespace cuda
}  // namespace kvstream

#include "storage/hold_table.h"

#include <gtest/gtest.h>

#include <optional>
#include <thread>
#include <vector>

#include "absl/types/optional.h"

namespace kvstream {
namespace {

constexpr ChunkId kA = {1}, kB = {2};

TEST(HoldTableTest, WhatIsHeldIsNotRemoved) {
  HoldTable table;
  {
    const ChunkHold hold = table.Hold({kA, kA});
    EXPECT_TRUE(table.held(kA));
    EXPECT_EQ(table.BeginRemoval({kA, kB}), std::vector<ChunkId>{kB});
    table.EndRemoval({kB});
  }
  EXPECT_FALSE(table.held(kA));
  EXPECT_EQ(table.BeginRemoval({kA}), std::vector<ChunkId>{kA});
  table.EndRemoval({kA});
}

TEST(HoldTableTest, HoldWaitsForARemovalThatHasBegun) {
  HoldTable table;
  ASSERT_EQ(table.BeginRemoval({kA}).size(), 1u);
  bool ended = false;  // under the table's lock, in effect
  std::thread holder([&] {
    const ChunkHold hold = table.Hold({kA});
    EXPECT_TRUE(ended);
  });
  ended = true;
  table.EndRemoval({kA});
  holder.join();
  EXPECT_FALSE(table.held(kA));
}

TEST(HoldTableTest, HoldFromNowOnDoesNotWaitAndOutlivesTheRemoval) {
  HoldTable table;
  ASSERT_EQ(table.BeginRemoval({kA}).size(), 1u);
  absl::optional<ChunkHold> hold(table.HoldFromNowOn({kA, kB}));
  EXPECT_TRUE(table.BeginRemoval({kA, kB}).empty());
  table.EndRemoval({kA});
  EXPECT_TRUE(table.held(kA));
  EXPECT_TRUE(table.BeginRemoval({kA, kB}).empty());
  hold.reset();
  EXPECT_EQ(table.BeginRemoval({kA, kB}).size(), 2u);
  table.EndRemoval({kA, kB});
}

TEST(HoldTableTest, AHoldThatEndsBeforeTheRemovalLeavesItUnderWay) {
  HoldTable table;
  ASSERT_EQ(table.BeginRemoval({kA}).size(), 1u);
  { const ChunkHold hold = table.HoldFromNowOn({kA}); }
  EXPECT_TRUE(table.BeginRemoval({kA}).empty()) << "the first is under way";
  table.EndRemoval({kA});
  EXPECT_EQ(table.BeginRemoval({kA}).size(), 1u);
  table.EndRemoval({kA});
}

}  // namespace
}  // namespace kvstream

#include "server/service/chunk_leases.h"

#include <gtest/gtest.h>

#include <random>
#include <thread>

namespace kvstream {
namespace {

ChunkId Id(uint8_t n) {
  ChunkId id = {};
  id[0] = n;
  return id;
}

class ChunkLeasesTest : public ::testing::Test {
 protected:
  std::vector<ChunkId> deleted_;
  ChunkLeases leases_{[this](std::vector<ChunkId> ids) {
    deleted_.insert(deleted_.end(), ids.begin(), ids.end());
    leases_.EndDelete(ids);
  }};
};

TEST_F(ChunkLeasesTest, ChunksWithoutALeaseAreDeletedNow) {
  const auto plan = leases_.BeginDelete({Id(1), Id(2), Id(1)});
  EXPECT_EQ(plan.now, (std::vector<ChunkId>{Id(1), Id(2)}));
  EXPECT_TRUE(plan.deferred.empty());
  EXPECT_EQ(leases_.Acquire({Id(3), Id(1)}).status().code(), absl::StatusCode::kNotFound);
  leases_.EndDelete(plan.now);
  EXPECT_TRUE(leases_.Acquire({Id(3), Id(1)}).ok());
}

TEST_F(ChunkLeasesTest, LeasedChunksAreHiddenAndDeletedWithTheLastLease) {
  auto first = leases_.Acquire({Id(1), Id(2)});
  auto second = leases_.Acquire({Id(2)});
  const auto plan = leases_.BeginDelete({Id(2), Id(3)});
  EXPECT_EQ(plan.now, std::vector<ChunkId>{Id(3)});
  EXPECT_EQ(plan.deferred, std::vector<ChunkId>{Id(2)});
  EXPECT_TRUE(leases_.EndDefer(plan.deferred, true).empty());
  EXPECT_TRUE(leases_.Hidden(Id(2)));
  EXPECT_FALSE(leases_.Hidden(Id(1)));
  EXPECT_EQ(leases_.VisiblePrefix({Id(1), Id(2)}), 1u);
  EXPECT_TRUE(leases_.BeginDelete({Id(2)}).deferred.empty());
  EXPECT_EQ(leases_.Acquire({Id(2)}).status().code(), absl::StatusCode::kNotFound);
  first->Release();
  EXPECT_TRUE(deleted_.empty());
  second->Release();
  EXPECT_EQ(deleted_, std::vector<ChunkId>{Id(2)});
  EXPECT_FALSE(leases_.Hidden(Id(2)));
}

TEST_F(ChunkLeasesTest, StoringAChunkAgainForgetsItsDeferredDeletion) {
  auto lease = leases_.Acquire({Id(1)});
  leases_.EndDefer(leases_.BeginDelete({Id(1)}).deferred, true);
  leases_.Revive(Id(1));
  EXPECT_FALSE(leases_.Hidden(Id(1)));
  lease->Release();
  EXPECT_TRUE(deleted_.empty());
}

TEST_F(ChunkLeasesTest, AChunkWhoseLastLeaseEndsWhileTheStoreIsToldIsTheTellersToDelete) {
  auto lease = leases_.Acquire({Id(1)});
  const auto plan = leases_.BeginDelete({Id(1)});
  lease->Release();
  EXPECT_TRUE(deleted_.empty());
  std::thread put([&] { leases_.Revive(Id(1)); });  // waits
  const std::vector<ChunkId> due = leases_.EndDefer(plan.deferred, true);
  EXPECT_EQ(due, std::vector<ChunkId>{Id(1)});
  leases_.EndDelete(due);
  put.join();
  EXPECT_TRUE(deleted_.empty());
  EXPECT_FALSE(leases_.Hidden(Id(1)));
}

TEST_F(ChunkLeasesTest, ADeletionThatTheStoreCannotNoteIsForgotten) {
  auto lease = leases_.Acquire({Id(1)});
  auto other = leases_.Acquire({Id(2)});
  const auto plan = leases_.BeginDelete({Id(1), Id(2)});
  other->Release();
  EXPECT_TRUE(leases_.EndDefer(plan.deferred, false).empty());
  EXPECT_FALSE(leases_.Hidden(Id(1)));
  EXPECT_FALSE(leases_.Hidden(Id(2)));
  lease->Release();
  EXPECT_TRUE(deleted_.empty());
}

TEST_F(ChunkLeasesTest, StoringAChunkAgainWaitsForADeletionInProgress) {
  const auto plan = leases_.BeginDelete({Id(1)});
  std::thread put([&] {
    leases_.Revive(Id(1));
    EXPECT_FALSE(leases_.Hidden(Id(1)));
  });
  leases_.EndDelete(plan.now);
  put.join();
}

TEST_F(ChunkLeasesTest, AChunkNamedTwiceByOneLoadIsHeldTwice) {
  auto lease = leases_.Acquire({Id(1), Id(1)});
  leases_.EndDefer(leases_.BeginDelete({Id(1)}).deferred, true);
  EXPECT_TRUE(deleted_.empty());
  lease->Release();
  EXPECT_EQ(deleted_, std::vector<ChunkId>{Id(1)});
}

// Random operations against the invariant that a leased chunk is never deleted and everything
// doomed is, in the end.
TEST_F(ChunkLeasesTest, RandomOperationsKeepLeasedChunks) {
  const uint32_t seed = 20261121;
  SCOPED_TRACE(seed);
  std::mt19937 random(seed);
  std::vector<std::pair<std::vector<ChunkId>, ChunkLeases::Lease>> held;
  const auto leased = [&](const ChunkId& id) {
    for (const auto& [ids, lease] : held) {
      for (const ChunkId& one : ids) {
        if (one == id) return true;
      }
    }
    return false;
  };
  for (int step = 0; step < 20000; ++step) {
    std::vector<ChunkId> ids;
    for (uint32_t i = 0; i <= random() % 4; ++i) ids.push_back(Id(random() % 12));
    switch (random() % 4) {
      case 0: {
        auto lease = leases_.Acquire(ids);
        if (lease.ok()) held.emplace_back(ids, *std::move(lease));
        break;
      }
      case 1: {
        const auto plan = leases_.BeginDelete(ids);
        for (const ChunkId& id : plan.now) ASSERT_FALSE(leased(id));
        for (const ChunkId& id : plan.deferred) ASSERT_TRUE(leased(id));
        leases_.EndDelete(plan.now);
        ASSERT_TRUE(leases_.EndDefer(plan.deferred, random() % 4 != 0).empty());
        break;
      }
      case 2:
        leases_.Revive(ids[0]);
        ASSERT_FALSE(leases_.Hidden(ids[0]));
        break;
      default:
        if (!held.empty()) {
          const size_t victim = random() % held.size();
          deleted_.clear();
          auto moved = std::move(held[victim]);
          held.erase(held.begin() + static_cast<ptrdiff_t>(victim));
          moved.second.Release();
          for (const ChunkId& id : deleted_) ASSERT_FALSE(leased(id));
        }
    }
  }
  held.clear();
  for (uint8_t n = 0; n < 12; ++n) EXPECT_FALSE(leases_.Hidden(Id(n)));
}

}  // namespace
}  // namespace kvstream

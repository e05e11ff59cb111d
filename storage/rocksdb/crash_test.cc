// A process that stores chunks is killed again and again; nothing that it acknowledged may be lost.
#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "storage/chunk_limits.h"
#include "storage/conformance/test_chunks.h"
#include "storage/rocksdb/killed_process.h"
#include "storage/rocksdb/rocksdb_chunk_store.h"
#include "storage/rocksdb/store_audit.h"
#include "storage/rocksdb/temp_dir.h"

namespace kvstream {
namespace {

// Runs the writer until it has acknowledged `enough` chunks, kills it, and returns all that it
// acknowledged.
std::set<uint64_t> StoreAndKill(const std::string& data_dir, uint64_t first, size_t enough,
                                uint64_t capacity_bytes = 0) {
  std::set<uint64_t> acknowledged;
  for (const std::string& line : RunAndKill(
           "crash_writer", {data_dir, absl::StrCat(first), absl::StrCat(capacity_bytes)}, enough)) {
    uint64_t number = 0;
    EXPECT_TRUE(absl::SimpleAtoi(line, &number)) << line;
    acknowledged.insert(number);
  }
  return acknowledged;
}

TEST(CrashTest, NothingAcknowledgedIsLostAndNothingIsPartial) {
  const int rounds = TestRounds(20);
  constexpr uint64_t kNumbersPerRound = 1'000'000;
  std::mt19937_64 random(TestSeed());
  TempDir dir;
  RocksDbChunkStoreOptions options;
  options.data_dir = dir.path();
  std::set<uint64_t> acknowledged;
  for (int round = 0; round < rounds; ++round) {
    SCOPED_TRACE(round);
    const auto now = StoreAndKill(dir.path(), round * kNumbersPerRound, random() % 60);
    acknowledged.insert(now.begin(), now.end());
    {
      const auto store = RocksDbChunkStore::Create(options);
      ASSERT_TRUE(store.ok()) << store.status();
      for (uint64_t number : acknowledged) {
        const TestChunk chunk = MakeTestChunk(number, 20000);
        const auto infos = (*store)->GetInfos({chunk.id});
        ASSERT_TRUE(infos.ok()) << infos.status();
        ASSERT_TRUE(infos->front().has_value()) << "lost chunk " << number;
        EXPECT_TRUE(SameInfo(*infos->front(), chunk.info));
        for (uint32_t level = 0; level < chunk.segments.size(); ++level) {
          const auto segment = (*store)->ReadSegment(chunk.id, level);
          ASSERT_TRUE(segment.ok()) << segment.status();
          EXPECT_TRUE(segment->bytes() == chunk.segments[level]);
        }
      }
    }
    // Also of chunks that were in flight.
    const auto audit = AuditStore(options);
    ASSERT_TRUE(audit.ok()) << audit.status();
    EXPECT_GE(audit->size(), acknowledged.size());
  }
  EXPECT_GT(acknowledged.size(), 100);
}

// Killed amid evictions, trims and compactions: what is left of every chunk is what its info says
// and what was put, and the bound holds.
TEST(CrashTest, WhatEvictionLeavesIsWhole) {
  const int rounds = TestRounds(12);
  constexpr uint64_t kNumbersPerRound = 1'000'000;
  std::mt19937_64 random(TestSeed());
  TempDir dir;
  RocksDbChunkStoreOptions options;
  options.data_dir = dir.path();
  options.capacity_bytes = uint64_t{64} << 20;
  std::set<uint64_t> acknowledged;
  size_t degraded = 0, gone = 0;
  for (int round = 0; round < rounds; ++round) {
    SCOPED_TRACE(round);
    const auto now = StoreAndKill(dir.path(), round * kNumbersPerRound, 20 + random() % 60,
                                  options.capacity_bytes);
    acknowledged.insert(now.begin(), now.end());
    size_t present = 0;
    {
      const auto store = RocksDbChunkStore::Create(options);
      ASSERT_TRUE(store.ok()) << store.status();
      // What was counted stays until the store is closed, though eviction is at work.
      std::vector<ChunkHold> holds;
      for (uint64_t number : acknowledged) {
        const TestChunk chunk = MakeTestChunk(number, 300000);
        holds.push_back((*store)->Hold({chunk.id}));
        const auto infos = (*store)->GetInfos({chunk.id});
        ASSERT_TRUE(infos.ok()) << infos.status();
        if (!infos->front().has_value()) {
          ++gone;
          continue;
        }
        ++present;
        const ChunkInfo& info = *infos->front();
        const size_t levels = info.segment_bytes.size();
        ASSERT_EQ(levels + info.levels_lost, chunk.segments.size());
        degraded += info.levels_lost > 0 ? 1 : 0;
        ChunkInfo expected = chunk.info;
        TrimInfo(&expected, static_cast<uint32_t>(levels));
        EXPECT_TRUE(SameInfo(info, expected));
        for (uint32_t level = 0; level < levels; ++level) {
          const auto segment = (*store)->ReadSegment(chunk.id, level);
          ASSERT_TRUE(segment.ok()) << segment.status();
          EXPECT_TRUE(segment->bytes() == chunk.segments[level]);
        }
      }
      const auto stats = (*store)->Stats();
      ASSERT_TRUE(stats.ok()) << stats.status();
      EXPECT_LE(stats->disk_bytes, options.capacity_bytes);
    }
    const auto audit = AuditStore(options);
    ASSERT_TRUE(audit.ok()) << audit.status();
    EXPECT_GE(audit->size(), present);
  }
  EXPECT_GT(degraded, 0);
  EXPECT_GT(gone, 0) << "nothing was evicted whole";
}

}  // namespace
}  // namespace kvstream

// The power fails while a store with a capacity evicts, whose evictions and records of use are not
// synced: whatever order they reach the disk in, the store opens, and what was acknowledged is
// there or was evicted by rule.
#include <gtest/gtest.h>
#include <rocksdb/env.h>

#include <algorithm>
#include <iostream>
#include <iterator>
#include <memory>
#include <random>
#include <set>
#include <thread>
#include <utility>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "absl/types/optional.h"
#include "storage/chunk_limits.h"
#include "storage/conformance/test_chunks.h"
#include "storage/rocksdb/fault_file_system.h"
#include "storage/rocksdb/rocksdb_chunk_store.h"
#include "storage/rocksdb/store_audit.h"
#include "storage/rocksdb/temp_dir.h"

namespace kvstream {
namespace {

constexpr uint64_t kThreads = 3;
constexpr size_t kSegmentBytesMax = 60000;

// What is left of a chunk is a beginning of what was put; false if nothing is.
bool ExpectBeginning(ChunkStore& store, const TestChunk& chunk) {
  const auto infos = store.GetInfos({chunk.id});
  EXPECT_TRUE(infos.ok()) << infos.status();
  if (!infos.ok() || !infos->front().has_value()) return false;
  const ChunkInfo& info = *infos->front();
  const size_t levels = info.segment_bytes.size();
  EXPECT_EQ(levels + info.levels_lost, chunk.segments.size());
  ChunkInfo expected = chunk.info;
  TrimInfo(&expected, static_cast<uint32_t>(levels));
  EXPECT_TRUE(SameInfo(info, expected));
  for (uint32_t level = 0; level < levels; ++level) {
    const auto segment = store.ReadSegment(chunk.id, level);
    EXPECT_TRUE(segment.ok()) << segment.status();
    EXPECT_TRUE(!segment.ok() || segment->bytes() == chunk.segments[level]);
  }
  return true;
}

TEST(BoundedPowerCutTest, EvictionsThatWereNotSyncedKeepNothingFromOpening) {
  const int rounds = TestRounds(5);
  const uint64_t seed = TestSeed();
  std::mt19937_64 random(seed);
  const auto fs = std::make_shared<FaultFileSystem>(seed);
  const std::unique_ptr<rocksdb::Env> env = rocksdb::NewCompositeEnv(fs);
  TempDir dir;
  RocksDbChunkStoreOptions options;
  options.data_dir = dir.path();
  options.block_cache_bytes = 16 << 20;
  options.capacity_bytes = RocksDbChunkStoreOptions::kCapacityBytesMin;
  options.usage_interval = absl::Milliseconds(2);
  options.resume_interval = absl::ZeroDuration();
  options.resume_wait = absl::InfiniteDuration();
  options.room_timeout = absl::Seconds(2);
  options.env = env.get();

  std::set<uint64_t> acknowledged;
  uint64_t next_number = 0;
  size_t gone = 0, degraded = 0;
  for (int round = 0; round < rounds; ++round) {
    SCOPED_TRACE(round);
    auto opened = RocksDbChunkStore::Create(options);
    ASSERT_TRUE(opened.ok()) << opened.status();
    std::unique_ptr<ChunkStore> store = *std::move(opened);
    // The first round fills the store, which takes as long as it takes; then every Put evicts.
    if (round > 0) fs->CutPowerAfter(random() % 300);
    absl::Mutex mutex;
    std::set<uint64_t> kept;  // acknowledged, and held from before until the power was cut
    std::vector<ChunkHold> holds;
    std::vector<std::thread> threads;
    for (uint64_t t = 0; t < kThreads; ++t) {
      threads.emplace_back([&] {
        while (true) {
          uint64_t number = 0;
          {
            absl::MutexLock lock(&mutex);
            number = next_number++;
          }
          const TestChunk chunk = MakeTestChunk(number, kSegmentBytesMax);
          const bool hold = number % 16 == 0;
          ChunkHold held = hold ? store->Hold({chunk.id}) : ChunkHold();
          const auto put = store->Put(chunk.id, chunk.info, chunk.views());
          if (!put.ok()) {
            if (fs->power_is_cut()) return;
            // On a busy machine room may come free too late.
            EXPECT_TRUE(absl::IsResourceExhausted(put.status())) << put.status();
            continue;
          }
          store->Touch({chunk.id});
          absl::MutexLock lock(&mutex);
          acknowledged.insert(number);
          if (!hold) continue;
          kept.insert(number);
          holds.push_back(std::move(held));
        }
      });
    }
    if (round == 0) {
      // Enough that not all of them come back where the last evictions were not synced.
      size_t evicted = 0;
      while (evicted < 20) {
        absl::SleepFor(absl::Milliseconds(5));
        std::vector<ChunkId> ids;
        {
          absl::MutexLock lock(&mutex);
          for (uint64_t number : acknowledged) ids.push_back(TestId(number));
        }
        const auto infos = store->GetInfos(ids);
        ASSERT_TRUE(infos.ok()) << infos.status();
        evicted = std::count(infos->begin(), infos->end(), absl::nullopt);
      }
      fs->CutPowerAfter(random() % 300);
    }
    for (std::thread& thread : threads) thread.join();
    holds.clear();
    store.reset();
    fs->Restart(/*keep_some=*/true);

    // Before the store is opened, which would evict again.
    const auto found = AuditStore(options);
    ASSERT_TRUE(found.ok()) << found.status();
    for (uint64_t number : kept) EXPECT_EQ(found->count(TestId(number)), 1) << "lost " << number;

    opened = RocksDbChunkStore::Create(options);
    ASSERT_TRUE(opened.ok()) << opened.status();
    store = *std::move(opened);
    for (auto it = acknowledged.begin(); it != acknowledged.end();) {
      // The audits see to all of them; making every byte again every time would take minutes.
      if (*it % 4 != static_cast<uint64_t>(round) % 4 && *it + 40 < next_number) {
        ++it;
        continue;
      }
      const TestChunk chunk = MakeTestChunk(*it, kSegmentBytesMax);
      // Eviction is at work again.
      const ChunkHold hold = store->Hold({chunk.id});
      const bool there = ExpectBeginning(*store, chunk);
      if (there && store->GetInfos({chunk.id})->front()->levels_lost > 0) ++degraded;
      gone += there ? 0 : 1;
      it = there ? std::next(it) : acknowledged.erase(it);
    }
    const auto stats = store->Stats();
    ASSERT_TRUE(stats.ok()) << stats.status();
    EXPECT_LE(stats->disk_bytes, options.capacity_bytes);
    store.reset();
    const auto audit = AuditStore(options);
    ASSERT_TRUE(audit.ok()) << audit.status();
    fs->Restart(/*keep_some=*/true);
  }
  std::cout << next_number << " puts, " << gone << " chunks evicted, " << degraded
            << " times one with levels lost\n";
  EXPECT_GT(gone, 0);
  EXPECT_GT(degraded, 0);
}

}  // namespace
}  // namespace kvstream

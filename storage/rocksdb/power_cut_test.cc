// What RocksDbChunkStore promises when the power fails or the disk refuses writes.
#include <gtest/gtest.h>
#include <rocksdb/env.h>

#include <algorithm>
#include <map>
#include <memory>
#include <random>
#include <set>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "storage/conformance/test_chunks.h"
#include "storage/id_text.h"
#include "storage/rocksdb/fault_file_system.h"
#include "storage/rocksdb/rocksdb_chunk_store.h"
#include "storage/rocksdb/store_audit.h"
#include "storage/rocksdb/temp_dir.h"

namespace kvstream {
namespace {

class PowerCutTest : public testing::Test {
 protected:
  PowerCutTest() : seed_(TestSeed()), fs_(std::make_shared<FaultFileSystem>(seed_)) {
    env_ = rocksdb::NewCompositeEnv(fs_);
    options_.data_dir = dir_.path();
    options_.write_buffer_bytes = 1 << 20;
    options_.max_log_bytes = 1 << 20;
    options_.block_cache_bytes = 16 << 20;
    options_.env = env_.get();
    options_.resume_interval = absl::ZeroDuration();
    options_.resume_wait = absl::InfiniteDuration();
  }

  void Open() {
    auto opened = RocksDbChunkStore::Create(options_);
    ASSERT_TRUE(opened.ok()) << opened.status();
    store_ = *std::move(opened);
  }

  void ExpectWhole(const TestChunk& chunk) {
    const auto infos = store_->GetInfos({chunk.id});
    ASSERT_TRUE(infos.ok()) << infos.status();
    ASSERT_TRUE(infos->front().has_value()) << ShortHex(chunk.id);
    EXPECT_TRUE(SameInfo(*infos->front(), chunk.info));
    for (uint32_t level = 0; level < chunk.segments.size(); ++level) {
      const auto segment = store_->ReadSegment(chunk.id, level);
      ASSERT_TRUE(segment.ok()) << segment.status();
      EXPECT_TRUE(segment->bytes() == chunk.segments[level]);
    }
  }

  const uint64_t seed_;
  TempDir dir_;
  std::shared_ptr<FaultFileSystem> fs_;
  std::unique_ptr<rocksdb::Env> env_;
  RocksDbChunkStoreOptions options_;
  std::unique_ptr<ChunkStore> store_;
};

TEST_F(PowerCutTest, NothingAcknowledgedIsLostAndNothingIsPartial) {
  const int rounds = TestRounds(30);
  constexpr uint64_t kThreads = 4;
  std::mt19937_64 random(seed_);
  std::map<uint64_t, bool> acknowledged;  // chunk number -> stored (else deleted)
  std::set<uint64_t> undecided;           // its last operation was cut off
  uint64_t next_number = 0;
  int cuts = 0;
  for (int round = 0; round < rounds; ++round) {
    SCOPED_TRACE(round);
    ASSERT_NO_FATAL_FAILURE(Open());
    fs_->CutPowerAfter(random() % 400);
    absl::Mutex mutex;
    std::vector<std::thread> threads;
    for (uint64_t t = 0; t < kThreads; ++t) {
      threads.emplace_back([&, t, thread_random = std::mt19937_64(random())]() mutable {
        for (uint64_t i = 0; i < 200; ++i) {
          uint64_t number = 0;
          bool stored = false;
          {
            absl::MutexLock lock(&mutex);
            // One operation in five deletes a chunk that no other thread touches.
            const auto old = acknowledged.lower_bound(thread_random() % (next_number + 1));
            stored = old == acknowledged.end() || !old->second || old->first % kThreads != t ||
                     undecided.count(old->first) > 0 || thread_random() % 5 != 0;
            number = stored ? next_number++ : old->first;
            undecided.insert(number);
          }
          const TestChunk chunk = MakeTestChunk(number, 8000);
          const bool ok = stored ? store_->Put(chunk.id, chunk.info, chunk.views()).ok()
                                 : store_->Delete({chunk.id}).ok();
          if (!ok) return;  // the power is cut
          absl::MutexLock lock(&mutex);
          acknowledged[number] = stored;
          undecided.erase(number);
        }
      });
    }
    for (std::thread& thread : threads) thread.join();
    if (fs_->power_is_cut()) ++cuts;
    store_.reset();
    fs_->Restart(/*keep_some=*/true);

    ASSERT_NO_FATAL_FAILURE(Open());
    for (const auto& [number, stored] : acknowledged) {
      if (undecided.count(number) > 0) continue;
      // The audit below sees to all of them; reading every byte every time would take minutes.
      if (round % 6 != 5 && number + 300 < next_number) continue;
      const TestChunk chunk = MakeTestChunk(number, 8000);
      if (stored) {
        ASSERT_NO_FATAL_FAILURE(ExpectWhole(chunk)) << "chunk " << number;
      } else {
        EXPECT_FALSE(store_->GetInfos({chunk.id})->front().has_value()) << "chunk " << number;
      }
    }
    store_.reset();
    const auto audit = AuditStore(options_);
    ASSERT_TRUE(audit.ok()) << audit.status();
    // What was cut off is decided now, one way or the other.
    for (uint64_t number : undecided) acknowledged[number] = audit->count(TestId(number)) > 0;
    undecided.clear();
    fs_->Restart(/*keep_some=*/true);
  }
  EXPECT_GT(cuts, rounds / 2);
  EXPECT_GT(acknowledged.size(), 100);
}

// RocksDB leaves the file of a log that held nothing intact, and what is written later must not
// look like records behind damage.
TEST_F(PowerCutTest, ATornFirstRecordDoesNotCloseTheStoreAfterLaterWrites) {
  for (uint64_t cut = 0; cut < 40; ++cut) {
    SCOPED_TRACE(cut);
    const TestChunk torn = MakeTestChunk(2 * cut, 8000), stored = MakeTestChunk(2 * cut + 1, 8000);
    ASSERT_NO_FATAL_FAILURE(Open());
    fs_->CutPowerAfter(cut % 4);
    const bool acknowledged = store_->Put(torn.id, torn.info, torn.views()).ok();
    store_.reset();
    fs_->Restart(/*keep_some=*/true);
    ASSERT_NO_FATAL_FAILURE(Open());
    if (acknowledged) ExpectWhole(torn);
    ASSERT_TRUE(store_->Put(stored.id, stored.info, stored.views()).value_or(false));
    fs_->CutPowerAfter(0);
    store_.reset();
    fs_->Restart(/*keep_some=*/true);
    ASSERT_NO_FATAL_FAILURE(Open());
    ExpectWhole(stored);
    store_.reset();
    fs_->Restart(/*keep_some=*/true);
  }
}

TEST_F(PowerCutTest, WithoutSyncTheLastWritesAreLostButWhole) {
  options_.sync_writes = false;
  ASSERT_NO_FATAL_FAILURE(Open());
  constexpr uint64_t kChunks = 200;
  for (uint64_t i = 0; i < kChunks; ++i) {
    const TestChunk chunk = MakeTestChunk(i, 20000);
    ASSERT_TRUE(store_->Put(chunk.id, chunk.info, chunk.views()).ok());
  }
  fs_->CutPowerAfter(0);
  store_.reset();
  fs_->Restart(/*keep_some=*/false);
  ASSERT_NO_FATAL_FAILURE(Open());
  store_.reset();
  const auto audit = AuditStore(options_);
  ASSERT_TRUE(audit.ok()) << audit.status();
  EXPECT_LT(audit->size(), kChunks) << "the simulated power cut does not drop unsynced data";
}

TEST_F(PowerCutTest, AFullDiskRefusesPutsKeepsReadsAndRecovers) {
  ASSERT_NO_FATAL_FAILURE(Open());
  const TestChunk before = MakeTestChunk(1, 20000), refused = MakeTestChunk(2, 20000);
  ASSERT_TRUE(store_->Put(before.id, before.info, before.views()).value_or(false));

  fs_->FailWrites(rocksdb::IOStatus::NoSpace("No space left on device"));
  for (int i = 0; i < 3; ++i) {
    const auto put = store_->Put(refused.id, refused.info, refused.views());
    EXPECT_TRUE(absl::IsResourceExhausted(put.status())) << put.status();
    EXPECT_TRUE(absl::StrContains(put.status().message(), ShortHex(refused.id))) << put.status();
    ExpectWhole(before);
    EXPECT_FALSE(store_->GetInfos({refused.id})->front().has_value());
  }
  EXPECT_FALSE(store_->Put(before.id, before.info, before.views()).value_or(true));
  EXPECT_TRUE(absl::IsResourceExhausted(store_->PutProfile(TestId(9), "p").status()));
  EXPECT_TRUE(absl::IsResourceExhausted(store_->Delete({before.id}).status()));

  fs_->FailWrites(rocksdb::IOStatus::OK());
  const auto put = store_->Put(refused.id, refused.info, refused.views());
  ASSERT_TRUE(put.ok()) << put.status();
  EXPECT_TRUE(*put);
  ExpectWhole(before);
  ExpectWhole(refused);
  EXPECT_EQ(store_->Stats()->chunks, 2);
  fs_->CutPowerAfter(0);
  store_.reset();
  fs_->Restart(/*keep_some=*/true);
  ASSERT_NO_FATAL_FAILURE(Open());
  ExpectWhole(before);
  ExpectWhole(refused);
}

TEST_F(PowerCutTest, TriesToResumeOncePerInterval) {
  absl::Time now = absl::UnixEpoch();
  options_.resume_interval = absl::Seconds(1);
  options_.now = [&now] { return now; };
  ASSERT_NO_FATAL_FAILURE(Open());
  fs_->FailWrites(rocksdb::IOStatus::NoSpace("No space left on device"));
  const TestChunk chunk = MakeTestChunk(1, 100);
  const auto put = [&] { return store_->Put(chunk.id, chunk.info, chunk.views()); };
  EXPECT_FALSE(put().ok());
  EXPECT_FALSE(put().ok());  // tried to resume, in vain
  fs_->FailWrites(rocksdb::IOStatus::OK());
  now += absl::Milliseconds(999);
  const auto early = put();
  now += absl::Milliseconds(1);
  const auto late = put();
  EXPECT_TRUE(late.ok()) << late.status();
  EXPECT_TRUE(absl::IsResourceExhausted(early.status())) << early.status();
}

}  // namespace
}  // namespace kvstream

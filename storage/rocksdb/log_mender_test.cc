// Going on after the log could not be written or synced, without a restart: nothing acknowledged is
// lost, nothing refused comes back, and the power may fail at any moment of it.
#include <gtest/gtest.h>
#include <rocksdb/env.h>

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <random>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "storage/conformance/test_chunks.h"
#include "storage/id_text.h"
#include "storage/rocksdb/fault_file_system.h"
#include "storage/rocksdb/rocksdb_chunk_store.h"
#include "storage/rocksdb/store_audit.h"
#include "storage/rocksdb/temp_dir.h"

namespace kvstream {
namespace {

const rocksdb::IOStatus kIoError = rocksdb::IOStatus::IOError("Input/output error");
const rocksdb::IOStatus kNoSpace = rocksdb::IOStatus::NoSpace("No space left on device");

class LogMenderTest : public testing::Test {
 protected:
  LogMenderTest() : seed_(TestSeed()), fs_(std::make_shared<FaultFileSystem>(seed_)) {
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

  absl::StatusOr<bool> Put(const TestChunk& chunk) {
    return store_->Put(chunk.id, chunk.info, chunk.views());
  }
  bool Stored(const TestChunk& chunk) {
    const auto infos = store_->GetInfos({chunk.id});
    return infos.ok() && infos->front().has_value();
  }

  void ExpectWhole(const TestChunk& chunk) {
    ASSERT_TRUE(Stored(chunk)) << ShortHex(chunk.id);
    for (uint32_t level = 0; level < chunk.segments.size(); ++level) {
      const auto segment = store_->ReadSegment(chunk.id, level);
      ASSERT_TRUE(segment.ok()) << segment.status();
      EXPECT_TRUE(segment->bytes() == chunk.segments[level]);
    }
  }

  void CutPowerAndReopen() {
    fs_->CutPowerAfter(0);
    store_.reset();
    fs_->Restart(/*keep_some=*/true);
    Open();
  }

  void ExpectAuditOk() {
    store_.reset();
    const auto audit = AuditStore(options_);
    EXPECT_TRUE(audit.ok()) << audit.status();
  }

  const uint64_t seed_;
  TempDir dir_;
  std::shared_ptr<FaultFileSystem> fs_;
  std::unique_ptr<rocksdb::Env> env_;
  RocksDbChunkStoreOptions options_;
  std::unique_ptr<ChunkStore> store_;
};

TEST_F(LogMenderTest, WritesGoOnAfterAFailedSyncAndTheRefusedOneIsGone) {
  ASSERT_NO_FATAL_FAILURE(Open());
  const TestChunk before = MakeTestChunk(1, 20000), refused = MakeTestChunk(2, 20000),
                  after = MakeTestChunk(3, 20000);
  ASSERT_TRUE(Put(before).value_or(false));
  fs_->FailSyncs(kIoError);
  for (int i = 0; i < 3; ++i) {
    const auto put = Put(refused);
    EXPECT_TRUE(absl::IsUnavailable(put.status())) << put.status();
    EXPECT_FALSE(absl::StrContains(put.status().message(), "restarted")) << put.status();
    ExpectWhole(before);
    EXPECT_FALSE(Stored(refused));
  }
  fs_->FailSyncs(rocksdb::IOStatus::OK());
  const auto put = Put(after);
  ASSERT_TRUE(put.ok()) << put.status();
  ASSERT_NO_FATAL_FAILURE(CutPowerAndReopen());
  ExpectWhole(before);
  ExpectWhole(after);
  EXPECT_FALSE(Stored(refused));
  EXPECT_EQ(store_->Stats()->chunks, 2);
  ASSERT_TRUE(Put(refused).value_or(false));
  ExpectAuditOk();
}

// Then RocksDB has nothing to flush, and of itself begins no new log.
TEST_F(LogMenderTest, WritesGoOnWhenTheFirstWriteOfAllFails) {
  for (const auto& failure : {kIoError, kNoSpace}) {
    for (const bool syncs : {true, false}) {
      ASSERT_NO_FATAL_FAILURE(Open());  // writes to tables what was in the log
      const TestChunk chunk =
          MakeTestChunk((syncs ? 10 : 20) + (failure.IsNoSpace() ? 1 : 0), 9000);
      (syncs ? fs_->FailSyncs(failure) : fs_->FailWrites(failure));
      EXPECT_FALSE(Put(chunk).ok());
      EXPECT_FALSE(Put(chunk).ok());
      fs_->FailSyncs(rocksdb::IOStatus::OK());
      fs_->FailWrites(rocksdb::IOStatus::OK());
      const auto put = Put(chunk);
      ASSERT_TRUE(put.ok()) << put.status() << ", syncs " << syncs << ", " << failure.ToString();
      ASSERT_NO_FATAL_FAILURE(CutPowerAndReopen());
      ExpectWhole(chunk);
      ExpectAuditOk();
    }
  }
}

// What Expire deletes is written without a sync, so it may be lost where the sync fails.
TEST_F(LogMenderTest, ThePowerMayFailAtAnyMomentOfGoingOn) {
  const absl::Time past = absl::UnixEpoch() + absl::Hours(1);
  std::mt19937_64 random(seed_);
  const int rounds = TestRounds(8);
  uint64_t number = 0;
  for (int round = 0; round < rounds; ++round) {
    const bool disk_full = round % 2 == 0;
    // Going on takes some 70 operations.
    const uint64_t cut = random() % 80;
    SCOPED_TRACE(cut);
    const TestChunk before = MakeTestChunk(++number, 8000), refused = MakeTestChunk(++number, 8000),
                    after = MakeTestChunk(++number, 8000);
    TestChunk expired = MakeTestChunk(++number, 3000);
    expired.info.expires = past;
    ASSERT_NO_FATAL_FAILURE(Open());
    ASSERT_TRUE(Put(expired).value_or(false));
    ASSERT_TRUE(Put(before).value_or(false));
    // With those of before that a power cut brought back.
    ASSERT_GE(store_->Expire(past + absl::Hours(1), 100).value_or(0), 1);
    (disk_full ? fs_->FailWrites(kNoSpace) : fs_->FailSyncs(kIoError));
    EXPECT_FALSE(Put(refused).ok());
    fs_->FailWrites(rocksdb::IOStatus::OK());
    fs_->FailSyncs(rocksdb::IOStatus::OK());
    fs_->CutPowerAfter(cut);
    const bool acknowledged = Put(after).ok();
    store_.reset();
    fs_->Restart(/*keep_some=*/true);
    ASSERT_NO_FATAL_FAILURE(Open());
    ExpectWhole(before);
    if (acknowledged) ExpectWhole(after);
    ExpectAuditOk();
    fs_->Restart(/*keep_some=*/true);
  }
}

// A record that is synced while its log's name is not: whether it was refused or not no restart
// could tell, so nothing but a restart goes on.
TEST_F(LogMenderTest, AFailedSyncOfTheDirectoryNeedsARestart) {
  ASSERT_NO_FATAL_FAILURE(Open());
  const TestChunk refused = MakeTestChunk(2, 20000);
  fs_->FailDirectorySyncs(kIoError);
  store_.reset();
  fs_->FailDirectorySyncs(rocksdb::IOStatus::OK());
  ASSERT_NO_FATAL_FAILURE(Open());  // with a new log, whose directory is synced by the first write
  fs_->FailDirectorySyncs(kIoError);
  EXPECT_FALSE(Put(refused).ok());
  fs_->FailDirectorySyncs(rocksdb::IOStatus::OK());
  const auto later = Put(refused);
  EXPECT_TRUE(absl::IsUnavailable(later.status())) << later.status();
  EXPECT_TRUE(absl::StrContains(later.status().message(), "until the process is restarted"))
      << later.status();
  EXPECT_EQ(store_->Stats()->writes, WriteState::kRefusedForGood);
  store_.reset();
  ASSERT_NO_FATAL_FAILURE(Open());
  EXPECT_TRUE(Put(refused).ok());
  ExpectAuditOk();
}

TEST_F(LogMenderTest, MoreUnsyncedBytesThanAreKeptNeedARestart) {
  options_.sync_writes = false;
  options_.max_log_bytes = 64 << 20;
  ASSERT_NO_FATAL_FAILURE(Open());
  const TestChunk stored = MakeTestChunk(1, 600000), refused = MakeTestChunk(2, 600000);
  ASSERT_TRUE(Put(stored).value_or(false));
  fs_->FailWrites(kIoError);
  EXPECT_FALSE(Put(refused).ok());
  fs_->FailWrites(rocksdb::IOStatus::OK());
  const auto later = Put(refused);
  EXPECT_TRUE(absl::StrContains(later.status().message(), "until the process is restarted"))
      << later.status();
  EXPECT_EQ(store_->Stats()->writes, WriteState::kRefusedForGood);
  ExpectWhole(stored);
  store_.reset();
  ASSERT_NO_FATAL_FAILURE(Open());
  ExpectWhole(stored);
  EXPECT_TRUE(Put(refused).ok());
  ExpectAuditOk();
}

TEST_F(LogMenderTest, ManyWritersAndErrorsThatComeAndGo) {
  const int rounds = TestRounds(2);
  std::mt19937_64 random(seed_);
  std::set<uint64_t> acknowledged;
  bool exact = true;
  uint64_t next_number = 0;
  for (int round = 0; round < rounds; ++round) {
    SCOPED_TRACE(round);
    // Writers that wait for the store, and such as come again and again.
    options_.resume_wait = round % 2 == 0 ? absl::InfiniteDuration() : absl::ZeroDuration();
    ASSERT_NO_FATAL_FAILURE(Open());
    absl::Mutex mutex;
    std::atomic<int> failures{0};
    std::atomic<int> writing{4};
    std::vector<std::thread> threads;
    for (int t = 0; t < 4; ++t) {
      threads.emplace_back([&] {
        for (int i = 0; i < 40; ++i) {
          uint64_t number = 0;
          {
            absl::MutexLock lock(&mutex);
            number = next_number++;
          }
          const TestChunk chunk = MakeTestChunk(number, 8000);
          if (Put(chunk).ok()) {
            absl::MutexLock lock(&mutex);
            acknowledged.insert(number);
          } else {
            ++failures;
          }
        }
        --writing;
      });
    }
    while (writing > 0) {
      switch (random() % 3) {
        case 0:
          fs_->FailSyncs(kIoError);
          break;
        case 1:
          fs_->FailWrites(kIoError);
          break;
        default:
          break;
      }
      std::this_thread::yield();
      fs_->FailSyncs(rocksdb::IOStatus::OK());
      fs_->FailWrites(rocksdb::IOStatus::OK());
      absl::SleepFor(absl::Milliseconds(1));
    }
    for (std::thread& thread : threads) thread.join();
    const TestChunk last = MakeTestChunk(next_number++, 8000);
    auto put = Put(last);
    while (absl::StrContains(put.status().message(), "recovering")) {
      absl::SleepFor(absl::Milliseconds(1));
      put = Put(last);
    }
    // The manifest may have been hit.
    const bool restart =
        absl::StrContains(put.status().message(), "until the process is restarted");
    ASSERT_TRUE(put.ok() || restart) << put.status();
    if (round % 2 == 0) fs_->CutPowerAfter(0);
    store_.reset();
    fs_->Restart(/*keep_some=*/true);
    ASSERT_NO_FATAL_FAILURE(Open());
    for (const uint64_t number : acknowledged) {
      ASSERT_NO_FATAL_FAILURE(ExpectWhole(MakeTestChunk(number, 8000)));
    }
    if (restart) {
      ASSERT_TRUE(Put(last).ok());
      exact = false;
    }
    ExpectWhole(last);
    acknowledged.insert(next_number - 1);
    // What was refused before a restart may be there.
    EXPECT_GE(store_->Stats()->chunks, acknowledged.size());
    if (exact) {
      EXPECT_EQ(store_->Stats()->chunks, acknowledged.size());
    }
    ExpectAuditOk();
    fs_->Restart(/*keep_some=*/true);
  }
}

}  // namespace
}  // namespace kvstream

// While an attempt to take writes again after an error lasts, nobody else waits for it for long:
// writes are refused, and everything that reads is served.
#include <gtest/gtest.h>
#include <rocksdb/env.h>

#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "storage/call_deadline.h"
#include "storage/conformance/test_chunks.h"
#include "storage/id_text.h"
#include "storage/rocksdb/fault_file_system.h"
#include "storage/rocksdb/rocksdb_chunk_store.h"
#include "storage/rocksdb/store_audit.h"
#include "storage/rocksdb/temp_dir.h"

namespace kvstream {
namespace {

using Held = FaultFileSystem::Held;

// With and without a capacity.
class ResumeTest : public testing::TestWithParam<bool> {
 protected:
  ResumeTest() : fs_(std::make_shared<FaultFileSystem>(TestSeed())) {
    env_ = rocksdb::NewCompositeEnv(fs_);
    options_.data_dir = dir_.path();
    options_.write_buffer_bytes = 1 << 20;
    options_.max_log_bytes = 1 << 20;
    options_.block_cache_bytes = 16 << 20;
    options_.env = env_.get();
    options_.resume_interval = absl::ZeroDuration();
    options_.resume_wait = absl::ZeroDuration();
    if (GetParam()) options_.capacity_bytes = RocksDbChunkStoreOptions::kCapacityBytesMin;
    for (uint64_t i = 0; i < 4; ++i) stored_.push_back(MakeTestChunk(i, 20000));
    stored_[1].info.expires = absl::UnixEpoch() + absl::Hours(1);
  }

  void Open() {
    auto opened = RocksDbChunkStore::Create(options_);
    ASSERT_TRUE(opened.ok()) << opened.status();
    store_ = *std::move(opened);
  }
  absl::StatusOr<bool> Put(const TestChunk& chunk) {
    return store_->Put(chunk.id, chunk.info, chunk.views());
  }

  // A store whose disk has failed and is well again, and an attempt to resume that does not end
  // until Held::kNothing.
  void Fail() {
    ASSERT_NO_FATAL_FAILURE(Open());
    for (const TestChunk& chunk : stored_) ASSERT_TRUE(Put(chunk).value_or(false));
    fs_->FailSyncs(rocksdb::IOStatus::IOError("Input/output error"));
    const auto put = Put(refused_);
    ASSERT_TRUE(absl::IsUnavailable(put.status())) << put.status();
    EXPECT_FALSE(absl::StrContains(put.status().message(), "recovering")) << put.status();
    fs_->FailSyncs(rocksdb::IOStatus::OK());
    fs_->Hold(Held::kNewTables);
  }

  static void ExpectRefused(const absl::Status& status) {
    EXPECT_TRUE(absl::IsUnavailable(status)) << status;
    EXPECT_TRUE(absl::StrContains(status.message(), "recovering")) << status;
  }
  void ExpectWhole(const TestChunk& chunk) {
    const auto infos = store_->GetInfos({chunk.id});
    ASSERT_TRUE(infos.ok() && infos->front().has_value()) << ShortHex(chunk.id);
    for (uint32_t level = 0; level < chunk.segments.size(); ++level) {
      const auto segment = store_->ReadSegment(chunk.id, level);
      ASSERT_TRUE(segment.ok()) << segment.status();
      EXPECT_TRUE(segment->bytes() == chunk.segments[level]);
    }
  }

  // Once the disk does what it is told to.
  void ExpectWritable() {
    absl::Status status;
    const absl::Time until = absl::Now() + absl::Minutes(2);
    do {
      status = Put(refused_).status();
      absl::SleepFor(absl::Milliseconds(1));
    } while (!status.ok() && absl::Now() < until);
    EXPECT_TRUE(status.ok()) << status;
    ExpectWhole(refused_);
    for (const TestChunk& chunk : stored_) ExpectWhole(chunk);
    store_.reset();
    const auto audit = AuditStore(options_);
    ASSERT_TRUE(audit.ok()) << audit.status();
    EXPECT_EQ(audit->size(), stored_.size() + 1);
  }

  TempDir dir_;
  const std::shared_ptr<FaultFileSystem> fs_;
  std::unique_ptr<rocksdb::Env> env_;
  RocksDbChunkStoreOptions options_;
  std::vector<TestChunk> stored_;
  const TestChunk refused_ = MakeTestChunk(100, 20000);
  std::unique_ptr<ChunkStore> store_;
};

TEST_P(ResumeTest, WritesAreRefusedWhileAnAttemptLastsAndReadsAreServed) {
  ASSERT_NO_FATAL_FAILURE(Fail());
  const ChunkId id = stored_[0].id;
  const absl::Time later = absl::Now() + absl::Hours(1);
  // The first of them begins the attempt. Each would hang here if it waited for its end.
  for (int i = 0; i < 2; ++i) {
    ExpectRefused(Put(refused_).status());
    fs_->AwaitHeld();
    ExpectRefused(store_->Delete({id}).status());
    ExpectRefused(store_->DeleteSoon({id}).status());
    ExpectRefused(store_->Discard({id}).status());
    ExpectRefused(store_->Pin({id}, "owner", later).status());
    ExpectRefused(store_->Renew({stored_[1].id}, later).status());
    ExpectRefused(store_->PutProfile(TestId(9), "a profile").status());
  }
  const auto trimmed = store_->Trim({id}, 1);
  if (stored_[0].segments.size() > 1) ExpectRefused(trimmed.status());
  // What is due stays, and nobody who holds it waits.
  ExpectRefused(store_->Expire(absl::UnixEpoch() + absl::Hours(2), 100).status());
  {
    const ChunkHold hold = store_->Hold({stored_[1].id});
    for (const TestChunk& chunk : stored_) ExpectWhole(chunk);
  }
  store_->Touch({id});
  EXPECT_EQ(store_->List(absl::nullopt, 100)->size(), stored_.size());
  EXPECT_EQ(store_->PinsOf({id})->size(), 0);
  EXPECT_EQ(store_->Stats()->writes, WriteState::kRefused);
  EXPECT_EQ(store_->Stats()->chunks, stored_.size());
  fs_->Hold(Held::kNothing);
  ExpectWritable();
}

TEST_P(ResumeTest, AWriteWaitsNoLongerThanItsCallMay) {
  options_.resume_wait = absl::InfiniteDuration();
  ASSERT_NO_FATAL_FAILURE(Fail());
  {
    const CallDeadline soon(absl::Now() + absl::Milliseconds(5));
    ExpectRefused(Put(refused_).status());
    ExpectRefused(store_->Delete({stored_[0].id}).status());
  }
  std::thread waits([this] {
    const auto put = Put(refused_);
    EXPECT_TRUE(put.value_or(false)) << put.status();
  });
  fs_->AwaitHeld();
  fs_->Hold(Held::kNothing);
  waits.join();
  ExpectWritable();
}

TEST_P(ResumeTest, ClosesWhileAnAttemptLasts) {
  ASSERT_NO_FATAL_FAILURE(Fail());
  ExpectRefused(Put(refused_).status());
  fs_->AwaitHeld();
  fs_->Hold(Held::kNothing);
  store_.reset();
  ASSERT_NO_FATAL_FAILURE(Open());
  ExpectWritable();
}

INSTANTIATE_TEST_SUITE_P(, ResumeTest, testing::Bool(),
                         [](const auto& info) { return info.param ? "Bounded" : "Unbounded"; });

}  // namespace
}  // namespace kvstream

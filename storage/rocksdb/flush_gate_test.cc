// A flush whose turn comes while the database is stopped by an error is not forgotten.
#include "storage/rocksdb/flush_gate.h"

#include <gtest/gtest.h>
#include <rocksdb/db.h>
#include <rocksdb/env.h>
#include <rocksdb/options.h>

#include <memory>
#include <string>
#include <vector>

#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "storage/conformance/test_chunks.h"
#include "storage/rocksdb/background_errors.h"
#include "storage/rocksdb/damaged_tables.h"
#include "storage/rocksdb/fault_file_system.h"
#include "storage/rocksdb/log_mender.h"
#include "storage/rocksdb/temp_dir.h"

namespace kvstream {
namespace {

void WaitFor(void* notification) {
  static_cast<absl::Notification*>(notification)->WaitForNotification();
}

class FlushGateTest : public testing::Test {
 protected:
  FlushGateTest()
      : fs_(std::make_shared<FaultFileSystem>(TestSeed())),
        logs_(std::make_shared<LogMender>(fs_)),
        gate_(std::make_shared<FlushGate>()),
        ungated_env_(rocksdb::NewCompositeEnv(logs_)),
        env_(gate_->Wrap(ungated_env_.get())) {
    options_.create_if_missing = true;
    options_.create_missing_column_families = true;
    options_.env = env_.get();
    options_.listeners = {
        std::make_shared<BackgroundErrors>(logs_, std::make_shared<DamagedTables>()), gate_};
  }
  ~FlushGateTest() override { Close(); }

  void Open() {
    rocksdb::ColumnFamilyOptions family;
    family.max_write_buffer_number = 8;  // writes must not wait for flushes
    const std::vector<rocksdb::ColumnFamilyDescriptor> families = {
        {rocksdb::kDefaultColumnFamilyName, family}, {"a", family}, {"b", family}};
    rocksdb::DB* db = nullptr;
    const rocksdb::Status status =
        rocksdb::DB::Open(options_, dir_.path(), families, &families_, &db);
    ASSERT_TRUE(status.ok()) << status.ToString();
    db_.reset(db);
  }

  void Close() {
    if (db_ == nullptr) return;
    gate_->OpenForEver();
    for (auto* family : families_) db_->DestroyColumnFamilyHandle(family).PermitUncheckedError();
    db_.reset();
  }

  void PutEverywhere(const std::string& key) {
    for (auto* family : families_) {
      const rocksdb::Status status = db_->Put(rocksdb::WriteOptions(), family, key, key);
      ASSERT_TRUE(status.ok()) << status.ToString();
    }
  }

  TempDir dir_;
  std::shared_ptr<FaultFileSystem> fs_;
  std::shared_ptr<LogMender> logs_;
  std::shared_ptr<FlushGate> gate_;
  std::unique_ptr<rocksdb::Env> ungated_env_, env_;
  rocksdb::Options options_;
  std::vector<rocksdb::ColumnFamilyHandle*> families_;
  std::unique_ptr<rocksdb::DB> db_;
};

TEST_F(FlushGateTest, AFlushWhoseTurnComesWhileWritesAreStoppedIsMadeUpFor) {
  ASSERT_NO_FATAL_FAILURE(Open());
  for (int round = 0; round < TestRounds(1); ++round) {
    ASSERT_NO_FATAL_FAILURE(PutEverywhere("before" + std::to_string(round)));
    absl::Notification let_go;
    env_->Schedule(&WaitFor, &let_go, rocksdb::Env::Priority::HIGH, nullptr, nullptr);
    rocksdb::FlushOptions flush;
    flush.wait = false;
    flush.allow_write_stall = true;
    for (auto* family : families_) db_->Flush(flush, family).PermitUncheckedError();
    fs_->FailSyncs(rocksdb::IOStatus::NoSpace("No space left on device"));
    rocksdb::WriteOptions synced;
    synced.sync = true;
    EXPECT_FALSE(db_->Put(synced, "refused", "refused").ok());
    let_go.Notify();
    // For the flush to begin, if nothing holds it back.
    absl::SleepFor(absl::Milliseconds(100));
    EXPECT_FALSE(gate_->Resume(db_.get()).ok());
    fs_->FailSyncs(rocksdb::IOStatus::OK());
    // Without the gate this call does not end.
    const rocksdb::Status resumed = gate_->Resume(db_.get());
    ASSERT_TRUE(resumed.ok()) << resumed.ToString();
    ASSERT_NO_FATAL_FAILURE(PutEverywhere("after" + std::to_string(round)));
    ASSERT_TRUE(db_->Flush(rocksdb::FlushOptions(), families_).ok());
  }
}

TEST_F(FlushGateTest, ClosesWhileFlushesAreHeldBack) {
  ASSERT_NO_FATAL_FAILURE(Open());
  ASSERT_NO_FATAL_FAILURE(PutEverywhere("key"));
  fs_->FailSyncs(rocksdb::IOStatus::NoSpace("No space left on device"));
  rocksdb::FlushOptions flush;
  flush.wait = false;
  flush.allow_write_stall = true;
  for (auto* family : families_) db_->Flush(flush, family).PermitUncheckedError();
  absl::SleepFor(absl::Milliseconds(200));
  Close();
  fs_->FailSyncs(rocksdb::IOStatus::OK());
  families_.clear();
  ASSERT_NO_FATAL_FAILURE(Open());
  std::string value;
  for (auto* family : families_) {
    EXPECT_TRUE(db_->Get(rocksdb::ReadOptions(), family, "key", &value).ok());
  }
}

TEST_F(FlushGateTest, ResumesWhatIsNotStopped) {
  ASSERT_NO_FATAL_FAILURE(Open());
  EXPECT_TRUE(gate_->Resume(db_.get()).ok());
  ASSERT_NO_FATAL_FAILURE(PutEverywhere("key"));
  EXPECT_TRUE(db_->Flush(rocksdb::FlushOptions(), families_).ok());
}

}  // namespace
}  // namespace kvstream

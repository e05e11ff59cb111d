#include "storage/rocksdb/log_check.h"

#include <gtest/gtest.h>
#include <rocksdb/db.h>
#include <rocksdb/env.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "storage/rocksdb/log_mark.h"
#include "storage/rocksdb/temp_dir.h"

namespace kvstream {
namespace {

namespace fs = std::filesystem;

// Records 1, 2, 3, ... of one entry each, so that record n has sequence number n.
class LogCheckTest : public testing::Test {
 protected:
  // No mark: as older versions wrote.
  using Marks = std::vector<absl::optional<LogMark>>;

  static std::string Value(size_t record) { return absl::StrCat("value of record ", record, "!"); }

  void WriteRecords(const Marks& marks) {
    rocksdb::Options options;
    options.create_if_missing = true;
    rocksdb::DB* opened = nullptr;
    ASSERT_TRUE(rocksdb::DB::Open(options, dir_.path(), &opened).ok());
    const std::unique_ptr<rocksdb::DB> db(opened);
    for (size_t i = 0; i < marks.size(); ++i) {
      rocksdb::WriteBatch batch =
          marks[i].has_value() ? NewMarkedBatch(*marks[i], 0) : rocksdb::WriteBatch();
      ASSERT_TRUE(batch.Put("key", Value(i + 1)).ok());
      ASSERT_TRUE(db->Write(rocksdb::WriteOptions(), &batch).ok());
      ASSERT_EQ(LastSequence(batch), i + 1);
    }
  }

  void Damage(size_t record) {
    for (const auto& entry : fs::directory_iterator(dir_.path())) {
      if (entry.path().extension() != ".log") continue;
      std::ifstream in(entry.path(), std::ios::binary);
      std::string bytes(std::istreambuf_iterator<char>(in), {});
      const size_t at = bytes.find(Value(record));
      ASSERT_NE(at, std::string::npos);
      bytes[at] ^= 1;
      std::ofstream(entry.path(), std::ios::binary | std::ios::trunc) << bytes;
    }
  }

  LogState State() {
    const auto verdict = CheckLogs(rocksdb::Env::Default(), dir_.path());
    EXPECT_TRUE(verdict.ok()) << verdict.status();
    return verdict.ok() ? verdict->state : LogState::kIntact;
  }

  TempDir dir_;
};

TEST_F(LogCheckTest, IntactWhateverTheMarksSay) {
  WriteRecords({absl::nullopt, LogMark{0, 1}, LogMark{0, 1}, absl::nullopt});
  EXPECT_EQ(State(), LogState::kIntact);
}

TEST_F(LogCheckTest, DamageBehindWhichNothingFollowsMayBeATornEnd) {
  WriteRecords({LogMark{0, 0}, LogMark{0, 1}});
  Damage(2);
  EXPECT_EQ(State(), LogState::kTornTail);
}

TEST_F(LogCheckTest, DamageBeforeARecordThatCallsItSyncedIsReal) {
  WriteRecords({LogMark{0, 0}, LogMark{0, 1}, LogMark{0, 2}});
  Damage(2);
  EXPECT_EQ(State(), LogState::kDamagedBeforeEnd);
}

TEST_F(LogCheckTest, DamageBeforeARecordOfAnOlderVersionIsReal) {
  WriteRecords({absl::nullopt, absl::nullopt, absl::nullopt});
  Damage(2);
  EXPECT_EQ(State(), LogState::kDamagedBeforeEnd);
}

TEST_F(LogCheckTest, WhatNobodyCallsSyncedMayBeTorn) {
  WriteRecords({LogMark{0, 0}, LogMark{0, 1}, LogMark{0, 1}, LogMark{0, 1}});
  Damage(2);
  EXPECT_EQ(State(), LogState::kTornTail);
}

TEST_F(LogCheckTest, OneLaterRecordThatCallsItSyncedIsEnough) {
  WriteRecords({LogMark{0, 0}, LogMark{0, 1}, LogMark{0, 1}, LogMark{0, 3}});
  Damage(2);
  EXPECT_EQ(State(), LogState::kDamagedBeforeEnd);
}

TEST_F(LogCheckTest, WhereNothingPrecedesTheDamageOnlyItsEndIsKnown) {
  WriteRecords({LogMark{0, 0}, LogMark{0, 0}, LogMark{0, 1}});
  Damage(1);
  EXPECT_EQ(State(), LogState::kDamagedBeforeEnd);
  Damage(2);  // 1 or 2 may be what was torn
  EXPECT_EQ(State(), LogState::kTornTail);
}

TEST_F(LogCheckTest, WhatWasSettledWhenTheStoreWasOpenedIsNotMissed) {
  WriteRecords({LogMark{0, 0}, LogMark{0, 1}, LogMark{2, 2}, LogMark{2, 3}});
  Damage(1);
  Damage(2);
  EXPECT_EQ(State(), LogState::kIntact);
  Damage(3);
  EXPECT_EQ(State(), LogState::kDamagedBeforeEnd);
}

TEST_F(LogCheckTest, AMarkedBatchIsWhatItWas) {
  rocksdb::WriteBatch batch;
  ASSERT_TRUE(batch.Put("key", "value").ok());
  MarkBatch(LogMark{7, 9}, &batch);
  EXPECT_EQ(batch.Count(), 1);
  const auto mark = DecodeLogMark(batch.Data());
  ASSERT_TRUE(mark.has_value());
  EXPECT_EQ(mark->settled, 7);
  EXPECT_EQ(mark->synced, 9);
  const std::string once = batch.Data();
  MarkBatch(LogMark{8, 10}, &batch);
  EXPECT_EQ(batch.Data(), once);
  EXPECT_FALSE(DecodeLogMark(absl::string_view(once).substr(0, kMarkedHeadBytes - 1)).has_value());
}

}  // namespace
}  // namespace kvstream

// Damaged tables of segments: nothing stops, and they are mended while the store serves.
#include <gtest/gtest.h>
#include <rocksdb/db.h>
#include <rocksdb/env.h>

#include <algorithm>
#include <atomic>
#include <memory>
#include <random>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "storage/chunk_limits.h"
#include "storage/conformance/test_chunks.h"
#include "storage/rocksdb/damage_fixture.h"
#include "storage/rocksdb/fault_file_system.h"
#include "storage/rocksdb/rocksdb_chunk_store.h"
#include "storage/rocksdb/rocksdb_tuning.h"
#include "storage/rocksdb/store_audit.h"

namespace kvstream {
namespace {

// Chunks enough for tables on more than one level, until a compaction has met the damage.
class DamageInTheWayTest : public DamageTest {
 protected:
  DamageInTheWayTest() {
    options_.write_buffer_bytes = 1 << 20;
    options_.max_log_bytes = 1 << 20;
    options_.now = [this] { return absl::Now() + absl::Hours(hours_.load()); };
  }

  // Writes all segments of the closed store that lie above the level to it, in tables of this size.
  void CompactTo(int level, uint64_t table_bytes) {
    const auto cache = NewBlockCache(options_);
    std::vector<rocksdb::ColumnFamilyHandle*> families;
    rocksdb::DB* opened = nullptr;
    rocksdb::Status status = rocksdb::DB::Open(TunedDbOptions(options_), options_.data_dir,
                                               TunedFamilies(options_, cache), &families, &opened);
    ASSERT_TRUE(status.ok()) << status.ToString();
    const std::unique_ptr<rocksdb::DB> db(opened);
    ASSERT_TRUE(db->SetOptions(families[kSegments], {{"disable_auto_compactions", "true"}}).ok());
    rocksdb::ColumnFamilyMetaData tables;
    // One that runs already may have taken some of them.
    const auto compact = [&] {
      db->GetColumnFamilyMetaData(families[kSegments], &tables);
      std::vector<std::string> names;
      for (int above = 0; above < level; ++above) {
        for (const auto& table : tables.levels[above].files) names.push_back(table.name);
      }
      if (names.empty()) return true;
      rocksdb::CompactionOptions how;
      how.compression = rocksdb::kNoCompression;
      how.output_file_size_limit = table_bytes;
      return db->CompactFiles(how, families[kSegments], names, level).ok();
    };
    EXPECT_TRUE(Eventually(compact));
    for (auto* family : families) db->DestroyColumnFamilyHandle(family).PermitUncheckedError();
  }

  void PutUntilACompactionFails() {
    uint64_t next = 100;
    while (store_->Stats()->damaged_files == 0) {
      ASSERT_LT(next, 3000u) << "no compaction has met the damage";
      ASSERT_NO_FATAL_FAILURE(PutMore(next++));
    }
  }
  void PutMore(uint64_t number) {
    chunks_.push_back(MakeTestChunk(number, 200000));
    const TestChunk& chunk = chunks_.back();
    const auto put = store_->Put(chunk.id, chunk.info, chunk.views());
    ASSERT_TRUE(put.value_or(false)) << put.status();
  }

  // Long after the last time, so that a pause between attempts is over.
  void Maintain() {
    hours_ += 2;
    ASSERT_TRUE(store_->Expire(absl::UnixEpoch(), 1).ok());
  }

  std::vector<std::string> DamagedFiles() {
    std::vector<std::string> names;
    const auto files = store_->ScrubFiles("", uint64_t{1} << 40);
    EXPECT_TRUE(files.ok()) << files.status();
    for (const auto& file : files->damaged) names.push_back(file.name);
    return names;
  }

  // With one damaged chunk, which is deleted.
  void ExpectMended() {
    PutAllIntoTables();
    CompactTo(6, 8 << 20);
    FlipBit(".sst", chunks_[3].segments[1].substr(50000, 100));
    Open();
    ASSERT_EQ(store_->Discard({chunks_[3].id}).value_or(0), 1);
    ASSERT_EQ(DamagedFiles().size(), 1);
    EXPECT_EQ(store_->Stats()->damaged_files, 1);
    ASSERT_TRUE(Eventually([&] {
      Maintain();
      return store_->Stats()->damaged_files == 0;
    }));
    EXPECT_EQ(DamagedFiles(), std::vector<std::string>());
    for (size_t i = 0; i < chunks_.size(); ++i) EXPECT_EQ(IsWhole(chunks_[i]), i != 3) << i;
    store_.reset();
    const auto audit = AuditStore(options_);
    ASSERT_TRUE(audit.ok()) << audit.status();
    EXPECT_EQ(audit->size(), chunks_.size() - 1);
  }

  std::atomic<int> hours_{0};
};

TEST_F(DamageInTheWayTest, ACompactionThatMeetsDamageStopsNeitherReadsNorWrites) {
  PutAllIntoTables();
  CompactTo(6, 8 << 20);
  FlipBit(".sst", chunks_[3].segments[1].substr(50000, 100));
  Open();
  ASSERT_NO_FATAL_FAILURE(PutUntilACompactionFails());
  // Nothing can be mended while a chunk there is damaged.
  ASSERT_NO_FATAL_FAILURE(Maintain());
  EXPECT_EQ(store_->Stats()->damaged_files, 1);
  EXPECT_EQ(store_->Stats()->writes, WriteState::kTaken);
  for (uint64_t i = 5000; i < 5100; ++i) ASSERT_NO_FATAL_FAILURE(PutMore(i));
  for (size_t i = 0; i < chunks_.size(); ++i) EXPECT_EQ(IsWhole(chunks_[i]), i != 3) << i;

  ASSERT_EQ(store_->Discard({chunks_[3].id}).value_or(0), 1);
  // What is deleted before the table goes must not come back with it.
  ASSERT_EQ(store_->Delete({chunks_[5].id}).value_or(0), 1);
  ASSERT_EQ(store_->Trim({chunks_[6].id}, 1).value_or(0), 1);
  ASSERT_TRUE(Eventually([&] {
    Maintain();
    return store_->Stats()->damaged_files == 0;
  }));
  EXPECT_EQ(DamagedFiles(), std::vector<std::string>());
  EXPECT_FALSE(IsWhole(chunks_[5]));
  for (const size_t i : {3, 5, 6}) {
    EXPECT_TRUE(store_->Put(chunks_[i].id, chunks_[i].info, chunks_[i].views()).ok());
  }
  for (const TestChunk& chunk : chunks_) EXPECT_TRUE(IsWhole(chunk));
  // Compactions are back, and meet nothing.
  for (uint64_t i = 6000; i < 6100; ++i) ASSERT_NO_FATAL_FAILURE(PutMore(i));
  EXPECT_EQ(store_->Stats()->damaged_files, 0);
  store_.reset();
  const auto audit = AuditStore(options_);
  ASSERT_TRUE(audit.ok()) << audit.status();
  EXPECT_EQ(audit->size(), chunks_.size());
}

TEST_F(DamageInTheWayTest, WhatAScrubOfFilesFindsIsMendedBeforeACompactionMeetsIt) {
  ExpectMended();
}

TEST_F(DamageInTheWayTest, WhatIsWrittenAndDeletedWhileATableIsMendedStaysSo) {
  constexpr uint64_t kThreads = 3, kMax = 300;
  for (uint64_t i = 100; i < 200; ++i) chunks_.push_back(MakeTestChunk(i, 20000));
  PutAllIntoTables();
  ASSERT_NO_FATAL_FAILURE(CompactTo(6, 8 << 20));
  FlipBit(".sst", chunks_[3].segments[1].substr(50000, 100));
  Open();
  ASSERT_EQ(store_->Discard({chunks_[3].id}).value_or(0), 1);
  ASSERT_EQ(DamagedFiles().size(), 1);
  std::atomic<bool> mended{false};
  std::vector<TestChunk> kept[kThreads], deleted[kThreads];
  std::vector<std::thread> threads;
  for (uint64_t t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      // Of the chunks that were there, each thread has its own.
      for (size_t i = 10 + t; i < chunks_.size(); i += kThreads) kept[t].push_back(chunks_[i]);
      std::mt19937_64 random(t);
      for (uint64_t i = 0; i < kMax && (i < 30 || !mended); ++i) {
        const TestChunk chunk = MakeTestChunk(1000 * (t + 1) + i, 20000);
        const auto put = store_->Put(chunk.id, chunk.info, chunk.views());
        ASSERT_TRUE(put.value_or(false)) << put.status();
        kept[t].push_back(chunk);
        std::swap(kept[t][random() % kept[t].size()], kept[t].back());
        ASSERT_EQ(store_->Delete({kept[t].back().id}).value_or(0), 1);
        deleted[t].push_back(kept[t].back());
        kept[t].pop_back();
      }
    });
  }
  EXPECT_TRUE(Eventually([&] {
    Maintain();
    return store_->Stats()->damaged_files == 0;
  }));
  mended = true;
  for (std::thread& thread : threads) thread.join();
  size_t stored = 9;  // of the first ten
  for (uint64_t t = 0; t < kThreads; ++t) {
    for (const TestChunk& chunk : kept[t]) EXPECT_TRUE(IsWhole(chunk));
    for (const TestChunk& chunk : deleted[t]) {
      EXPECT_FALSE(store_->GetInfos({chunk.id})->front().has_value());
    }
    stored += kept[t].size();
  }
  EXPECT_EQ(DamagedFiles(), std::vector<std::string>());
  store_.reset();
  const auto audit = AuditStore(options_);
  ASSERT_TRUE(audit.ok()) << audit.status();
  EXPECT_EQ(audit->size(), stored);
}

// Whether its own compactions come first or the mending.
TEST_F(DamageInTheWayTest, ABoundedStoreIsMendedToo) {
  options_.capacity_bytes = 2 * RocksDbChunkStoreOptions::kCapacityBytesMin;
  ExpectMended();
}

// Tables on two levels whose borders differ; the upper ones hide what is deleted in the lower ones.
TEST_F(DamageInTheWayTest, WhatADamagedTableHidStaysDeletedAndWhatLiesBelowItStays) {
  std::mt19937_64 random(TestSeed());
  for (uint64_t i = 100; i < 200; ++i) {
    chunks_.push_back(MakeTestChunk(i, 1 + random() % 60000));
  }
  PutAll();
  ASSERT_NO_FATAL_FAILURE(CompactTo(6, 4 << 20));
  Open();
  std::set<ChunkId> deleted, trimmed;
  for (uint64_t i = 200; i < 300; ++i) {
    chunks_.push_back(MakeTestChunk(i, 1 + random() % 60000));
    const TestChunk& chunk = chunks_.back();
    ASSERT_TRUE(store_->Put(chunk.id, chunk.info, chunk.views()).value_or(false));
    const TestChunk& old = chunks_[10 + random() % 100];
    if (random() % 2 == 0) {
      ASSERT_TRUE(store_->Delete({old.id}).ok());
      deleted.insert(old.id);
    } else if (old.segments.size() > 1) {
      ASSERT_TRUE(store_->Trim({old.id}, 1).ok());
      trimmed.insert(old.id);
    }
  }
  store_.reset();
  ASSERT_NO_FATAL_FAILURE(CompactTo(5, 300000));
  // The longest segment has a block of its own.
  const auto hit = std::max_element(chunks_.end() - 100, chunks_.end(),
                                    [](const TestChunk& a, const TestChunk& b) {
                                      return a.segments.back().size() < b.segments.back().size();
                                    });
  FlipBit(".sst", hit->segments.back());
  Open();
  const std::vector<std::string> damaged = DamagedFiles();
  ASSERT_EQ(damaged.size(), 1);
  ASSERT_EQ(store_->Discard({hit->id}).value_or(0), 1);
  ASSERT_TRUE(Eventually([&] {
    Maintain();
    return store_->Stats()->damaged_files == 0;
  }));
  EXPECT_EQ(DamagedFiles(), std::vector<std::string>());
  size_t stored = 0;
  for (const TestChunk& chunk : chunks_) {
    const bool gone = deleted.count(chunk.id) > 0 || chunk.id == hit->id;
    const auto infos = store_->GetInfos({chunk.id});
    ASSERT_TRUE(infos.ok()) << infos.status();
    EXPECT_EQ(infos->front().has_value(), !gone);
    if (!gone && trimmed.count(chunk.id) == 0) {
      EXPECT_TRUE(IsWhole(chunk));
    }
    stored += gone ? 0 : 1;
  }
  store_.reset();
  const auto audit = AuditStore(options_);
  ASSERT_TRUE(audit.ok()) << audit.status();
  EXPECT_EQ(audit->size(), stored);
}

// Its first batch is held up in the disk; others may follow, and the table would go at last.
TEST_F(DamageInTheWayTest, MendingThatIsToldToStopEndsAfterItsBatchAndIsBegunAnewLater) {
  for (uint64_t i = 100; i < 160; ++i) chunks_.push_back(MakeTestChunk(i, 200000));
  PutAllIntoTables();
  ASSERT_NO_FATAL_FAILURE(CompactTo(6, 64 << 20));
  FlipBit(".sst", chunks_[3].segments[1].substr(50000, 100));
  const auto fs = std::make_shared<FaultFileSystem>(TestSeed());
  const std::unique_ptr<rocksdb::Env> env = rocksdb::NewCompositeEnv(fs);
  options_.env = env.get();
  Open();
  ASSERT_EQ(store_->Discard({chunks_[3].id}).value_or(0), 1);
  ASSERT_EQ(DamagedFiles().size(), 1);
  fs->Hold(FaultFileSystem::Held::kLogSyncs);
  // Whoever maintains the store does not wait for the mending.
  ASSERT_NO_FATAL_FAILURE(Maintain());
  fs->AwaitHeld();
  static_cast<RocksDbChunkStore&>(*store_).StopMending();
  fs->Hold(FaultFileSystem::Held::kNothing);
  store_.reset();
  Open();
  ASSERT_EQ(DamagedFiles().size(), 1);
  for (size_t i = 0; i < chunks_.size(); ++i) EXPECT_EQ(IsWhole(chunks_[i]), i != 3) << i;
  ASSERT_TRUE(Eventually([&] {
    Maintain();
    return store_->Stats()->damaged_files == 0;
  }));
  EXPECT_EQ(DamagedFiles(), std::vector<std::string>());
  store_.reset();
  const auto audit = AuditStore(options_);
  ASSERT_TRUE(audit.ok()) << audit.status();
  EXPECT_EQ(audit->size(), chunks_.size() - 1);
  options_.env = nullptr;
}

}  // namespace
}  // namespace kvstream

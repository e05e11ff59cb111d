// Backups of a store that is written to, and what a restore refuses.
#include <gtest/gtest.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "storage/chunk_limits.h"
#include "storage/conformance/test_chunks.h"
#include "storage/rocksdb/restore.h"
#include "storage/rocksdb/rocksdb_chunk_store.h"
#include "storage/rocksdb/store_audit.h"
#include "storage/rocksdb/temp_dir.h"

namespace kvstream {
namespace {

namespace fs = std::filesystem;

class BackupTest : public testing::Test {
 protected:
  BackupTest() {
    options_.data_dir = dir_.path() + "/db";
    options_.write_buffer_bytes = 1 << 20;
    options_.max_log_bytes = 4 << 20;
  }

  static std::unique_ptr<ChunkStore> Open(const RocksDbChunkStoreOptions& options) {
    auto opened = RocksDbChunkStore::Create(options);
    EXPECT_TRUE(opened.ok()) << opened.status();
    return opened.ok() ? *std::move(opened) : nullptr;
  }

  static bool IsWhole(ChunkStore& store, const TestChunk& chunk) {
    const auto infos = store.GetInfos({chunk.id});
    if (!infos.ok() || !infos->front() || !SameInfo(*infos->front(), chunk.info)) return false;
    for (uint32_t level = 0; level < chunk.segments.size(); ++level) {
      const auto segment = store.ReadSegment(chunk.id, level);
      if (!segment.ok() || segment->bytes() != chunk.segments[level]) return false;
    }
    return true;
  }

  RocksDbChunkStoreOptions Restored() const {
    RocksDbChunkStoreOptions options = options_;
    options.data_dir = dir_.path() + "/restored";
    return options;
  }

  TempDir dir_;
  RocksDbChunkStoreOptions options_;
};

TEST_F(BackupTest, WhatWasAcknowledgedBeforeIsThereByteForByteAndNothingIsPartial) {
  constexpr int kBackups = 3;
  constexpr uint64_t kThreads = 3;
  constexpr uint64_t kFirst = 50;
  std::unique_ptr<ChunkStore> store = Open(options_);
  ASSERT_NE(store, nullptr);
  ASSERT_TRUE(store->PutProfile(TestId(9), "the profile").value_or(false));
  for (uint64_t i = 0; i < kFirst; ++i) {
    const TestChunk chunk = MakeTestChunk(i, 30000);
    ASSERT_TRUE(store->Put(chunk.id, chunk.info, chunk.views()).value_or(false));
  }
  std::atomic<bool> stop{false};
  std::atomic<uint64_t> acknowledged[kThreads] = {};
  std::vector<std::thread> threads;
  for (uint64_t t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      for (uint64_t i = 0; !stop; ++i) {
        const TestChunk chunk = MakeTestChunk(kFirst + t + kThreads * i, 30000);
        ASSERT_TRUE(store->Put(chunk.id, chunk.info, chunk.views()).value_or(false));
        acknowledged[t] = i + 1;
      }
    });
  }
  std::vector<std::vector<uint64_t>> before(kBackups);
  const auto path = [&](int backup) { return absl::StrCat(dir_.path(), "/backup", backup); };
  for (int backup = 0; backup < kBackups; ++backup) {
    for (const auto& count : acknowledged) before[backup].push_back(count);
    const absl::Status made = store->Backup(path(backup));
    EXPECT_TRUE(made.ok()) << made;
  }
  EXPECT_TRUE(absl::IsFailedPrecondition(store->Backup(path(0))));
  stop = true;
  for (std::thread& thread : threads) thread.join();
  store.reset();
  // What the store does later must not change its backups.
  fs::remove_all(options_.data_dir);

  for (int backup = 0; backup < kBackups; ++backup) {
    SCOPED_TRACE(backup);
    const auto restored = RestoreStore(path(backup), Restored().data_dir);
    ASSERT_TRUE(restored.ok()) << restored.status();
    store = Open(Restored());
    ASSERT_NE(store, nullptr);
    EXPECT_EQ(store->Stats()->chunks, restored->chunks);
    EXPECT_EQ(store->Stats()->payload_bytes, restored->payload_bytes);
    EXPECT_EQ(store->GetProfile(TestId(9)).value_or(""), "the profile");
    for (uint64_t i = 0; i < kFirst; ++i) EXPECT_TRUE(IsWhole(*store, MakeTestChunk(i, 30000)));
    for (uint64_t t = 0; t < kThreads; ++t) {
      for (uint64_t i = 0; i < before[backup][t]; ++i) {
        EXPECT_TRUE(IsWhole(*store, MakeTestChunk(kFirst + t + kThreads * i, 30000)));
      }
    }
    store.reset();
    const auto audit = AuditStore(Restored());
    EXPECT_TRUE(audit.ok()) << audit.status();
    fs::remove_all(Restored().data_dir);
  }
}

TEST_F(BackupTest, ABoundedStoreIsBackedUpAndCountsNoneOfIt) {
  options_.capacity_bytes = RocksDbChunkStoreOptions::kCapacityBytesMin;
  std::unique_ptr<ChunkStore> store = Open(options_);
  ASSERT_NE(store, nullptr);
  for (uint64_t i = 0; i < 40; ++i) {
    const TestChunk chunk = MakeTestChunk(i, 100000);
    ASSERT_TRUE(store->Put(chunk.id, chunk.info, chunk.views()).value_or(false));
  }
  ASSERT_TRUE(store->Backup(dir_.path() + "/backup").ok());
  uint64_t bytes = 0;
  for (const auto& entry : fs::directory_iterator(options_.data_dir)) {
    if (!absl::StartsWith(entry.path().filename().string(), "LOG")) bytes += entry.file_size();
  }
  EXPECT_LE(store->Stats()->disk_bytes, bytes + (1 << 20));
  store.reset();
  const auto restored = RestoreStore(dir_.path() + "/backup", Restored().data_dir);
  ASSERT_TRUE(restored.ok()) << restored.status();
  EXPECT_EQ(restored->chunks, 40);
}

TEST_F(BackupTest, ARestoreRefusesDamageAndLeavesNothing) {
  std::unique_ptr<ChunkStore> store = Open(options_);
  ASSERT_NE(store, nullptr);
  const TestChunk chunk = MakeTestChunk(1, 100000);
  ASSERT_TRUE(store->Put(chunk.id, chunk.info, chunk.views()).value_or(false));
  const std::string backup = dir_.path() + "/backup";
  ASSERT_TRUE(store->Backup(backup).ok());
  for (const auto& entry : fs::directory_iterator(backup)) {
    if (entry.path().extension() != ".sst") continue;
    std::ifstream in(entry.path(), std::ios::binary);
    std::string bytes(std::istreambuf_iterator<char>(in), {});
    const size_t at = bytes.find(chunk.segments[0].substr(0, 50));
    if (at == std::string::npos) continue;
    // A new file: the one here is also the store's.
    fs::remove(entry.path());
    bytes[at] ^= 1;
    std::ofstream(entry.path(), std::ios::binary) << bytes;
  }
  const auto restored = RestoreStore(backup, Restored().data_dir);
  EXPECT_TRUE(absl::IsDataLoss(restored.status())) << restored.status();
  EXPECT_TRUE(absl::StrContains(restored.status().message(), backup)) << restored.status();
  EXPECT_FALSE(fs::exists(Restored().data_dir));
  EXPECT_FALSE(fs::exists(Restored().data_dir + ".restoring"));
  EXPECT_TRUE(IsWhole(*store, chunk));
}

TEST_F(BackupTest, ARestoreOverwritesNothing) {
  std::unique_ptr<ChunkStore> store = Open(options_);
  ASSERT_NE(store, nullptr);
  const std::string backup = dir_.path() + "/backup";
  ASSERT_TRUE(store->Backup(backup).ok());
  EXPECT_TRUE(absl::IsFailedPrecondition(RestoreStore(backup, options_.data_dir).status()));
  EXPECT_TRUE(absl::IsFailedPrecondition(RestoreStore(dir_.path(), dir_.path() + "/x").status()));
  EXPECT_TRUE(absl::IsFailedPrecondition(RestoreStore(backup, dir_.path() + "/none/x").status()));
  fs::create_directory(dir_.path() + "/empty");
  // What an interrupted restore left.
  fs::create_directory(dir_.path() + "/empty.restoring");
  std::ofstream(dir_.path() + "/empty.restoring/000007.sst") << "part of a table";
  EXPECT_TRUE(RestoreStore(backup, dir_.path() + "/empty/").ok());
  EXPECT_FALSE(fs::exists(dir_.path() + "/empty.restoring"));
}

}  // namespace
}  // namespace kvstream

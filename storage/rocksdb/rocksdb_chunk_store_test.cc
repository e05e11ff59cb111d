// What is RocksDB's driver's own: its directory, its options, what it writes into an existing
// store.
#include "storage/rocksdb/rocksdb_chunk_store.h"

#include <gtest/gtest.h>
#include <rocksdb/db.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <functional>
#include <memory>
#include <thread>
#include <utility>

#include "absl/strings/match.h"
#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "storage/call_deadline.h"
#include "storage/conformance/test_chunks.h"
#include "storage/rocksdb/chunk_record_format.h"
#include "storage/rocksdb/rocksdb_tuning.h"
#include "storage/rocksdb/status_mapping.h"
#include "storage/rocksdb/store_audit.h"
#include "storage/rocksdb/temp_dir.h"

namespace kvstream {
namespace {

class RocksDbChunkStoreTest : public testing::Test {
 protected:
  RocksDbChunkStoreTest() { options_.data_dir = dir_.path() + "/store"; }

  void ExpectRefused(absl::StatusCode code, absl::string_view saying) {
    const auto opened = RocksDbChunkStore::Create(options_);
    EXPECT_EQ(opened.status().code(), code) << opened.status();
    EXPECT_TRUE(absl::StrContains(opened.status().message(), saying)) << opened.status();
  }

  // Works on the closed store's families directly.
  void Tamper(const std::function<void(rocksdb::DB*, rocksdb::ColumnFamilyHandle* meta)>& change) {
    rocksdb::DB* opened = nullptr;
    std::vector<rocksdb::ColumnFamilyHandle*> families;
    const rocksdb::Status status =
        rocksdb::DB::Open(TunedDbOptions(options_), options_.data_dir,
                          TunedFamilies(options_, NewBlockCache(options_)), &families, &opened);
    ASSERT_TRUE(status.ok()) << status.ToString();
    const std::unique_ptr<rocksdb::DB> db(opened);
    change(db.get(), families[kMeta]);
    for (auto* family : families) ASSERT_TRUE(db->DestroyColumnFamilyHandle(family).ok());
  }

  TempDir dir_;
  RocksDbChunkStoreOptions options_;
};

// A clock that stands in the middle of a Delete, which has claimed the chunk.
TEST_F(RocksDbChunkStoreTest, APutWaitsForAnotherWriterNoLongerThanItsCaller) {
  const TestChunk chunk = MakeTestChunk(1);
  std::atomic<bool> stands{false};
  absl::Notification standing, go_on;
  options_.now = [&] {
    if (stands.exchange(false)) {
      standing.Notify();
      go_on.WaitForNotification();
    }
    return absl::Now();
  };
  auto store = RocksDbChunkStore::Create(options_);
  ASSERT_TRUE(store.ok()) << store.status();
  ASSERT_TRUE((*store)->Put(chunk.id, chunk.info, chunk.views()).ok());
  stands = true;
  std::thread deletes([&] { EXPECT_EQ((*store)->Delete({chunk.id}).value_or(0), 1u); });
  standing.WaitForNotification();
  for (const absl::Time deadline : {absl::InfinitePast(), absl::Now() + absl::Milliseconds(20)}) {
    const CallDeadline until(deadline);
    const auto put = (*store)->Put(chunk.id, chunk.info, chunk.views());
    EXPECT_EQ(put.status().code(), absl::StatusCode::kUnavailable) << put.status();
  }
  go_on.Notify();
  deletes.join();
  EXPECT_TRUE((*store)->Put(chunk.id, chunk.info, chunk.views()).value_or(false));
}

TEST_F(RocksDbChunkStoreTest, RefusesOptionsOutOfRange) {
  const RocksDbChunkStoreOptions good = options_;
  EXPECT_TRUE(good.Validate().ok());
  const auto expect_refused = [&](absl::string_view name, auto change) {
    options_ = good;
    change(&options_);
    ExpectRefused(absl::StatusCode::kInvalidArgument, name);
  };
  expect_refused("data_dir", [](auto* o) { o->data_dir.clear(); });
  expect_refused("block_cache_bytes", [](auto* o) { o->block_cache_bytes = (8 << 20) - 1; });
  expect_refused("max_open_files", [](auto* o) { o->max_open_files = 63; });
  expect_refused("max_open_files", [](auto* o) { o->max_open_files = -2; });
  expect_refused("write_buffer_bytes", [](auto* o) { o->write_buffer_bytes = 1; });
  expect_refused("write_buffer_bytes", [](auto* o) { o->write_buffer_bytes = uint64_t{1} << 33; });
  expect_refused("max_log_bytes", [](auto* o) { o->max_log_bytes = o->write_buffer_bytes - 1; });
  expect_refused("background_jobs", [](auto* o) { o->background_jobs = 0; });
  expect_refused("resume_interval", [](auto* o) { o->resume_interval = -absl::Seconds(1); });
  expect_refused("resume_wait", [](auto* o) { o->resume_wait = -absl::Seconds(1); });
  expect_refused("now", [](auto* o) { o->now = nullptr; });
}

TEST_F(RocksDbChunkStoreTest, CreatesItsDirectoryButNotTheParent) {
  ASSERT_TRUE(RocksDbChunkStore::Create(options_).ok());
  EXPECT_TRUE(std::filesystem::is_directory(options_.data_dir));
  options_.data_dir = dir_.path() + "/with_slash/";
  EXPECT_TRUE(RocksDbChunkStore::Create(options_).ok());
  options_.data_dir = dir_.path() + "/missing/store";
  ExpectRefused(absl::StatusCode::kFailedPrecondition, "missing is not a directory; create it");
}

TEST_F(RocksDbChunkStoreTest, RefusesAFileAsDirectory) {
  std::ofstream(options_.data_dir) << "a file";
  ExpectRefused(absl::StatusCode::kFailedPrecondition, "is not a directory");
  options_.data_dir += "/store";
  ExpectRefused(absl::StatusCode::kFailedPrecondition, "cannot use");
}

TEST_F(RocksDbChunkStoreTest, RefusesADirectoryThatItCannotCreate) {
  options_.data_dir = "/proc/kvstream";  // not even root can
  ExpectRefused(absl::StatusCode::kFailedPrecondition, "check the permissions of /proc");
}

TEST_F(RocksDbChunkStoreTest, RefusesADirectoryThatAnotherStoreHasOpen) {
  const auto first = RocksDbChunkStore::Create(options_);
  ASSERT_TRUE(first.ok()) << first.status();
  ExpectRefused(absl::StatusCode::kFailedPrecondition, "stop it or choose another data directory");
}

TEST_F(RocksDbChunkStoreTest, RefusesADirectoryThatAnotherProcessHasOpen) {
  ASSERT_TRUE(RocksDbChunkStore::Create(options_).ok());
  int to_child[2], to_parent[2];
  ASSERT_EQ(pipe(to_child), 0);
  ASSERT_EQ(pipe(to_parent), 0);
  const std::string lock = options_.data_dir + "/LOCK";
  const pid_t pid = fork();
  ASSERT_GE(pid, 0);
  if (pid == 0) {
    // Holds the lock as RocksDB does, without RocksDB's threads, which do not survive a fork.
    FILE* file = std::fopen(lock.c_str(), "r+");
    const bool locked = file != nullptr && lockf(fileno(file), F_TLOCK, 0) == 0;
    char byte = locked ? '1' : '0';
    if (write(to_parent[1], &byte, 1) != 1 || read(to_child[0], &byte, 1) != 1) _exit(1);
    _exit(0);
  }
  char byte = '0';
  EXPECT_EQ(read(to_parent[0], &byte, 1), 1);
  EXPECT_EQ(byte, '1');
  ExpectRefused(absl::StatusCode::kFailedPrecondition, "stop it or choose another data directory");
  EXPECT_EQ(write(to_child[1], &byte, 1), 1);
  waitpid(pid, nullptr, 0);
  for (int fd : {to_child[0], to_child[1], to_parent[0], to_parent[1]}) close(fd);
  EXPECT_TRUE(RocksDbChunkStore::Create(options_).ok());
}

TEST_F(RocksDbChunkStoreTest, RefusesAStoreOfANewerVersion) {
  ASSERT_TRUE(RocksDbChunkStore::Create(options_).ok());
  Tamper([](rocksdb::DB* db, rocksdb::ColumnFamilyHandle* meta) {
    ASSERT_TRUE(db->Put({}, meta, rocksdb_format::kVersionKey,
                        rocksdb_format::EncodeVersion(rocksdb_format::kStoreVersion + 1))
                    .ok());
  });
  ExpectRefused(absl::StatusCode::kFailedPrecondition,
                absl::StrCat("it has version ", rocksdb_format::kStoreVersion + 1));
  ExpectRefused(absl::StatusCode::kFailedPrecondition, "run the newer version");
}

// Of a store of version 2, which had no indexes.
TEST_F(RocksDbChunkStoreTest, BuildsTheIndexesOfAnOlderStore) {
  constexpr uint64_t kChunks = 1500;
  const absl::Time due = absl::UnixEpoch();
  ChunkId parent = {};
  size_t children = 0, expiring = 0;
  {
    const auto store = RocksDbChunkStore::Create(options_);
    ASSERT_TRUE(store.ok()) << store.status();
    for (uint64_t i = 0; i < kChunks; ++i) {
      TestChunk chunk = MakeTestChunk(i, 10);
      if (chunk.info.parent.has_value()) parent = *chunk.info.parent;
      if (i % 3 == 0) chunk.info.expires = due;
      expiring += i % 3 == 0 ? 1 : 0;
      ASSERT_TRUE((*store)->Put(chunk.id, chunk.info, chunk.views()).value_or(false));
    }
    children = (*store)->Children(parent, 10)->size();
    ASSERT_EQ(children, 1);
  }
  rocksdb::DB* opened = nullptr;
  std::vector<rocksdb::ColumnFamilyHandle*> families;
  ASSERT_TRUE(rocksdb::DB::Open(TunedDbOptions(options_), options_.data_dir,
                                TunedFamilies(options_, NewBlockCache(options_)), &families,
                                &opened)
                  .ok());
  for (const Family family : {kExpiry, kPins, kDoomed, kChildren}) {
    ASSERT_TRUE(opened->DropColumnFamily(families[family]).ok());
  }
  ASSERT_TRUE(
      opened
          ->Put({}, families[kMeta], rocksdb_format::kVersionKey, rocksdb_format::EncodeVersion(2))
          .ok());
  for (auto* family : families) ASSERT_TRUE(opened->DestroyColumnFamilyHandle(family).ok());
  delete opened;

  {
    const auto store = RocksDbChunkStore::Create(options_);
    ASSERT_TRUE(store.ok()) << store.status();
    EXPECT_EQ((*store)->Children(parent, 10)->size(), children);
    EXPECT_EQ((*store)->Stats()->chunks, kChunks);
  }
  auto audit = AuditStore(options_);
  ASSERT_TRUE(audit.ok()) << audit.status();
  EXPECT_EQ(audit->size(), kChunks);
  {
    const auto store = RocksDbChunkStore::Create(options_);
    ASSERT_TRUE(store.ok()) << store.status();
    EXPECT_EQ((*store)->Expire(due, kChunks).value_or(0), expiring);
  }
  audit = AuditStore(options_);
  ASSERT_TRUE(audit.ok()) << audit.status();
  EXPECT_EQ(audit->size(), kChunks - expiring);
  Tamper([](rocksdb::DB* db, rocksdb::ColumnFamilyHandle* meta) {
    std::string version;
    ASSERT_TRUE(db->Get({}, meta, rocksdb_format::kVersionKey, &version).ok());
    EXPECT_EQ(version, rocksdb_format::EncodeVersion(3));
  });
}

TEST_F(RocksDbChunkStoreTest, WhatPinsHoldOfABoundedStoreIsBounded) {
  options_.pin_bytes_max = 100;
  const auto store = RocksDbChunkStore::Create(options_);
  ASSERT_TRUE(store.ok()) << store.status();
  TestChunk chunk = MakeTestChunk(1);
  chunk.segments = {std::string(60, 'x')};
  chunk.info.segment_bytes = {60};
  for (uint64_t i = 1; i <= 2; ++i) {
    ASSERT_TRUE((*store)->Put(TestId(i), chunk.info, chunk.views()).value_or(false));
  }
  const absl::Time until = absl::Now() + absl::Hours(1);
  EXPECT_EQ((*store)->Pin({TestId(1)}, "a", until).value_or(0), 1);
  EXPECT_TRUE(absl::IsResourceExhausted((*store)->Pin({TestId(2)}, "a", until).status()));
  EXPECT_EQ((*store)->Pin({TestId(1)}, "b", until).value_or(0), 1) << "it counts once";
  EXPECT_EQ((*store)->Delete({TestId(1), TestId(2)}).value_or(9), 1);
}

TEST_F(RocksDbChunkStoreTest, RefusesAStoreWithUnknownFamilies) {
  ASSERT_TRUE(RocksDbChunkStore::Create(options_).ok());
  Tamper([](rocksdb::DB* db, rocksdb::ColumnFamilyHandle* meta) {
    rocksdb::ColumnFamilyHandle* more = nullptr;
    ASSERT_TRUE(db->CreateColumnFamily({}, "hot_chunks", &more).ok());
    ASSERT_TRUE(db->DestroyColumnFamilyHandle(more).ok());
  });
  ExpectRefused(absl::StatusCode::kFailedPrecondition, "column family 'hot_chunks'");
}

TEST_F(RocksDbChunkStoreTest, RefusesAStoreWhoseVersionIsGoneOrDamaged) {
  {
    const auto store = RocksDbChunkStore::Create(options_);
    ASSERT_TRUE(store.ok()) << store.status();
    const TestChunk chunk = MakeTestChunk(1);
    ASSERT_TRUE((*store)->Put(chunk.id, chunk.info, chunk.views()).ok());
  }
  const auto set_version = [this](const std::string& bytes) {
    Tamper([&](rocksdb::DB* db, rocksdb::ColumnFamilyHandle* meta) {
      ASSERT_TRUE(db->Put({}, meta, rocksdb_format::kVersionKey, bytes).ok());
    });
  };
  set_version("12345");
  ExpectRefused(absl::StatusCode::kDataLoss, "version has 5 bytes");
  set_version(rocksdb_format::EncodeVersion(0));
  ExpectRefused(absl::StatusCode::kDataLoss, "version is 0");
  Tamper([](rocksdb::DB* db, rocksdb::ColumnFamilyHandle* meta) {
    ASSERT_TRUE(db->Delete({}, meta, rocksdb_format::kVersionKey).ok());
  });
  ExpectRefused(absl::StatusCode::kDataLoss, "version is missing");
}

TEST_F(RocksDbChunkStoreTest, FinishesACreationThatWasCutShort) {
  rocksdb::DB* opened = nullptr;
  rocksdb::Options create;
  create.create_if_missing = true;
  ASSERT_TRUE(rocksdb::DB::Open(create, options_.data_dir, &opened).ok());
  delete opened;  // only `default` exists
  const auto store = RocksDbChunkStore::Create(options_);
  ASSERT_TRUE(store.ok()) << store.status();
  const TestChunk chunk = MakeTestChunk(1);
  EXPECT_TRUE((*store)->Put(chunk.id, chunk.info, chunk.views()).value_or(false));
}

TEST_F(RocksDbChunkStoreTest, CountsTheDisk) {
  options_.write_buffer_bytes = 1 << 20;
  const auto store = RocksDbChunkStore::Create(options_);
  ASSERT_TRUE(store.ok()) << store.status();
  uint64_t payload_bytes = 0;
  for (uint64_t i = 0; i < 20; ++i) {
    const TestChunk chunk = MakeTestChunk(i, 300000);
    ASSERT_TRUE((*store)->Put(chunk.id, chunk.info, chunk.views()).ok());
    for (const std::string& segment : chunk.segments) payload_bytes += segment.size();
    const auto stats = (*store)->Stats();
    ASSERT_TRUE(stats.ok()) << stats.status();
    EXPECT_EQ(stats->payload_bytes, payload_bytes);
    EXPECT_GE(stats->disk_bytes, payload_bytes);
  }
}

TEST_F(RocksDbChunkStoreTest, ReadsFromTablesWithoutACopy) {
  const TestChunk chunk = MakeTestChunk(1, 100000);
  {
    const auto store = RocksDbChunkStore::Create(options_);
    ASSERT_TRUE(store.ok()) << store.status();
    ASSERT_TRUE((*store)->Put(chunk.id, chunk.info, chunk.views()).ok());
  }
  const auto store = RocksDbChunkStore::Create(options_);
  ASSERT_TRUE(store.ok()) << store.status();
  const auto first = (*store)->ReadSegment(chunk.id, 0);
  const auto second = (*store)->ReadSegment(chunk.id, 0);
  ASSERT_TRUE(first.ok() && second.ok());
  EXPECT_EQ(first->bytes(), chunk.segments[0]);
  // The same block of the cache.
  EXPECT_EQ(first->bytes().data(), second->bytes().data());
}

TEST_F(RocksDbChunkStoreTest, HasAtHandWhatIsInTheBlockCacheOnly) {
  const TestChunk chunk = MakeTestChunk(1, 100000);
  {
    const auto store = RocksDbChunkStore::Create(options_);
    ASSERT_TRUE(store.ok()) << store.status();
    ASSERT_TRUE((*store)->Put(chunk.id, chunk.info, chunk.views()).ok());
  }
  const auto store = RocksDbChunkStore::Create(options_);
  ASSERT_TRUE(store.ok()) << store.status();
  EXPECT_FALSE((*store)->TryReadSegment(chunk.id, 0).has_value());
  const auto read = (*store)->ReadSegment(chunk.id, 0);
  ASSERT_TRUE(read.ok()) << read.status();
  const auto at_hand = (*store)->TryReadSegment(chunk.id, 0);
  ASSERT_TRUE(at_hand.has_value() && at_hand->ok());
  EXPECT_EQ((*at_hand)->bytes().data(), read->bytes().data());
}

// RocksDB answers a read that may not touch the disk with an empty value where a table is not open.
TEST_F(RocksDbChunkStoreTest, HasNothingAtHandOfTablesThatAreNotOpen) {
  options_.capacity_bytes = uint64_t{128} << 20;  // makes many small tables
  options_.max_open_files = 64;
  options_.block_cache_bytes = uint64_t{8} << 20;
  constexpr uint64_t kChunks = 100;
  constexpr size_t kChunkBytes = 400'000;
  {
    const auto store = RocksDbChunkStore::Create(options_);
    ASSERT_TRUE(store.ok()) << store.status();
    for (uint64_t number = 0; number < kChunks; ++number) {
      const TestChunk chunk = MakeTestChunk(number, kChunkBytes);
      const auto put = (*store)->Put(chunk.id, chunk.info, chunk.views());
      ASSERT_TRUE(put.ok()) << put.status();
    }
  }
  const auto store = RocksDbChunkStore::Create(options_);
  ASSERT_TRUE(store.ok()) << store.status();
  size_t absent = 0;
  for (uint64_t number = 0; number < kChunks; ++number) {
    const TestChunk chunk = MakeTestChunk(number, kChunkBytes);
    for (uint32_t level = 0; level < chunk.segments.size(); ++level) {
      const auto at_hand = (*store)->TryReadSegment(chunk.id, level);
      if (!at_hand.has_value()) {
        ++absent;
      } else {
        ASSERT_TRUE(at_hand->ok()) << at_hand->status();
        EXPECT_TRUE((*at_hand)->bytes() == chunk.segments[level]) << (*at_hand)->bytes().size();
      }
      const auto segment = (*store)->ReadSegment(chunk.id, level);
      ASSERT_TRUE(segment.ok()) << segment.status();
      EXPECT_TRUE(segment->bytes() == chunk.segments[level]);
    }
  }
  EXPECT_GT(absent, 0);
}

TEST(StatusMappingTest, MapsEveryKindOnce) {
  using rocksdb::Status;
  const auto code = [](const Status& status) { return FromRocksDb(status, "op").code(); };
  EXPECT_TRUE(FromRocksDb(Status::OK(), "op").ok());
  EXPECT_EQ(code(Status::NotFound()), absl::StatusCode::kNotFound);
  EXPECT_EQ(code(Status::Corruption("x")), absl::StatusCode::kDataLoss);
  EXPECT_EQ(code(Status::PathNotFound("x")), absl::StatusCode::kDataLoss);
  EXPECT_EQ(code(Status::NoSpace()), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(code(Status::SpaceLimit()), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(code(Status::MemoryLimit()), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(code(Status::IOError("x")), absl::StatusCode::kUnavailable);
  EXPECT_EQ(code(Status::Busy()), absl::StatusCode::kUnavailable);
  EXPECT_EQ(code(Status::TimedOut()), absl::StatusCode::kUnavailable);
  EXPECT_EQ(code(Status::Incomplete()), absl::StatusCode::kUnavailable);
  EXPECT_EQ(code(Status::ShutdownInProgress()), absl::StatusCode::kUnavailable);
  EXPECT_EQ(code(Status::NotSupported("x")), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(code(Status::InvalidArgument("x")), absl::StatusCode::kInternal);
  EXPECT_TRUE(absl::StartsWith(FromRocksDb(Status::IOError("x"), "Put of chunk 12").message(),
                               "Put of chunk 12: "));
}

}  // namespace
}  // namespace kvstream

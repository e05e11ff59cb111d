// A store with a capacity stays below it, whatever is put into it.
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <algorithm>
#include <atomic>
#include <filesystem>
#include <map>
#include <memory>
#include <random>
#include <set>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

#include "absl/strings/match.h"
#include "absl/time/clock.h"
#include "storage/chunk_limits.h"
#include "storage/conformance/test_chunks.h"
#include "storage/id_text.h"
#include "storage/rocksdb/rocksdb_chunk_store.h"
#include "storage/rocksdb/store_audit.h"
#include "storage/rocksdb/temp_dir.h"

namespace kvstream {
namespace {

constexpr uint64_t kMiB = uint64_t{1} << 20;

// What the directory has, as the file system says: the larger of sizes and blocks of every file.
uint64_t DirectoryBytes(const std::string& path) {
  uint64_t bytes = 0;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(path, error)) {
    struct stat file = {};
    if (stat(entry.path().c_str(), &file) != 0) continue;  // gone since
    bytes += std::max<uint64_t>(file.st_size, uint64_t{512} * file.st_blocks);
  }
  return bytes;
}

// Looks at the directory all the time, from outside.
class DirectoryWatch {
 public:
  explicit DirectoryWatch(std::string path)
      : path_(std::move(path)), thread_([this] {
          while (!stop_) {
            peak_ = std::max<uint64_t>(peak_, DirectoryBytes(path_));
            absl::SleepFor(absl::Milliseconds(2));
          }
        }) {}
  ~DirectoryWatch() { Stop(); }
  uint64_t Stop() {
    stop_ = true;
    if (thread_.joinable()) thread_.join();
    return peak_;
  }

 private:
  const std::string path_;
  std::atomic<bool> stop_{false};
  uint64_t peak_ = 0;
  std::thread thread_;
};

// Chunk `index` of context `context`: four levels, finer ones larger, as an encoder makes them.
TestChunk ContextChunk(uint64_t context, uint64_t index, size_t base_bytes) {
  TestChunk chunk;
  const uint64_t number = (context << 20) + index;
  chunk.id = TestId(number);
  if (index > 0) chunk.info.parent = TestId(number - 1);
  chunk.info.model = "model@1";
  chunk.info.tokens = 256;
  chunk.info.first_token = 256 * index;
  chunk.info.created = absl::FromUnixSeconds(1700000000);
  for (uint64_t level = 0; level < 4; ++level) {
    const size_t bytes = base_bytes * (level + 2) / 2 + (number * 31 + level) % 97;
    chunk.segments.push_back(TestBytes(number * 4 + level, bytes));
    chunk.info.segment_bytes.push_back(bytes);
  }
  return chunk;
}

class CapacityTest : public testing::Test {
 protected:
  CapacityTest() {
    options_.data_dir = dir_.path() + "/store";
    options_.block_cache_bytes = 16 * kMiB;
    options_.capacity_bytes = 64 * kMiB;
    options_.sync_writes = false;  // the tests write much; crash_test has it on
    options_.room_timeout = absl::Minutes(2);
  }

  void Open() {
    store_.reset();
    auto opened = RocksDbChunkStore::Create(options_);
    ASSERT_TRUE(opened.ok()) << opened.status();
    store_ = *std::move(opened);
  }
  uint64_t peak_disk_bytes() const {
    return static_cast<const RocksDbChunkStore*>(store_.get())->peak_disk_bytes();
  }
  // What is there of a chunk is what was put, and its info tells how much that is. Returns its
  // levels.
  size_t CheckChunk(const TestChunk& chunk) {
    const ChunkHold hold = store_->Hold({chunk.id});
    const auto infos = store_->GetInfos({chunk.id});
    EXPECT_TRUE(infos.ok()) << infos.status();
    if (!infos.ok() || !infos->front().has_value()) return 0;
    const ChunkInfo& info = *infos->front();
    const size_t levels = info.segment_bytes.size();
    EXPECT_EQ(levels + info.levels_lost, chunk.segments.size());
    for (uint32_t level = 0; level < levels; ++level) {
      const auto segment = store_->ReadSegment(chunk.id, level);
      EXPECT_TRUE(segment.ok()) << segment.status();
      EXPECT_TRUE(segment.ok() && segment->bytes() == chunk.segments[level]);
    }
    EXPECT_TRUE(
        absl::IsNotFound(store_->ReadSegment(chunk.id, static_cast<uint32_t>(levels)).status()));
    return levels;
  }

  TempDir dir_;
  RocksDbChunkStoreOptions options_;
  std::unique_ptr<ChunkStore> store_;
};

TEST_F(CapacityTest, NeverExceedsItWhileFiveTimesAsMuchIsPut) {
  ASSERT_NO_FATAL_FAILURE(Open());
  DirectoryWatch watch(options_.data_dir);
  constexpr uint64_t kThreads = 3;
  constexpr uint64_t kChunks = 16;
  constexpr size_t kBaseBytes = 24000;
  std::atomic<uint64_t> put_bytes{0};
  std::atomic<uint64_t> next_context{0};
  std::vector<std::thread> threads;
  for (uint64_t t = 0; t < kThreads; ++t) {
    threads.emplace_back([&] {
      while (put_bytes < 5 * options_.capacity_bytes && !HasFailure()) {
        const uint64_t context = next_context++;
        for (uint64_t i = 0; i < kChunks; ++i) {
          const TestChunk chunk = ContextChunk(context, i, kBaseBytes);
          const auto put = store_->Put(chunk.id, chunk.info, chunk.views());
          ASSERT_TRUE(put.ok()) << put.status();
          put_bytes += PayloadBytes(chunk.info);
        }
        // Somebody uses the first context all the time.
        std::vector<ChunkId> hot;
        for (uint64_t i = 0; i < kChunks; ++i) hot.push_back(TestId(i));
        store_->Touch(hot);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_LE(peak_disk_bytes(), options_.capacity_bytes);
  const auto stats = store_->Stats();
  ASSERT_TRUE(stats.ok()) << stats.status();
  EXPECT_GT(stats->evicted_segments, 0);
  EXPECT_EQ(stats->capacity_bytes, options_.capacity_bytes);
  EXPECT_GE(stats->payload_bytes, options_.capacity_bytes / 4) << "it need not be this empty";
  RecordProperty("payload_bytes", static_cast<int>(stats->payload_bytes));

  // Eviction may go on for a while after the last Put; not of what somebody holds.
  std::vector<ChunkId> all;
  for (uint64_t context = 0; context < next_context; ++context) {
    for (uint64_t i = 0; i < kChunks; ++i) all.push_back(TestId((context << 20) + i));
  }
  ChunkHold hold = store_->Hold(all);
  // What is left is whole, of every context the beginning, and the base outlives the refinements.
  size_t levels_of_hot = 0, chunks = 0, degraded = 0;
  for (uint64_t context = 0; context < next_context; ++context) {
    bool ended = false;
    for (uint64_t i = 0; i < kChunks; ++i) {
      const size_t levels = CheckChunk(ContextChunk(context, i, kBaseBytes));
      if (context == 0) levels_of_hot += levels;
      EXPECT_FALSE(ended && levels > 0) << "context " << context << " lacks a chunk before " << i;
      ended = ended || levels == 0;
      chunks += levels > 0 ? 1 : 0;
      degraded += levels > 0 && levels < 4 ? 1 : 0;
    }
  }
  EXPECT_GT(levels_of_hot, 3 * kChunks) << "what is in use must stay";
  EXPECT_GT(degraded, 0);
  EXPECT_EQ(chunks, store_->Stats()->chunks);
  const uint64_t peak = watch.Stop();
  EXPECT_GT(peak, options_.capacity_bytes / 3);
  EXPECT_LE(peak, options_.capacity_bytes);
  hold = ChunkHold();
  store_.reset();
  EXPECT_LE(DirectoryBytes(options_.data_dir), options_.capacity_bytes);
  const auto audit = AuditStore(options_);
  ASSERT_TRUE(audit.ok()) << audit.status();
  EXPECT_LE(audit->size(), chunks);
  EXPECT_GT(audit->size(), chunks / 2);
}

TEST_F(CapacityTest, DeletingFreesTheDisk) {
  ASSERT_NO_FATAL_FAILURE(Open());
  std::vector<ChunkId> ids;
  // Below what is evicted.
  for (uint64_t i = 0; i < 180; ++i) {
    const TestChunk chunk = ContextChunk(i, 0, 16000);
    ASSERT_TRUE(store_->Put(chunk.id, chunk.info, chunk.views()).ok());
    ids.push_back(chunk.id);
  }
  ASSERT_EQ(store_->Stats()->evicted_segments, 0);
  ASSERT_EQ(store_->Delete(ids).value_or(0), ids.size());
  // As much again and again: that works only if what was deleted leaves the disk.
  for (uint64_t round = 1; round < 12; ++round) {
    ids.clear();
    for (uint64_t i = 0; i < 180; ++i) {
      const TestChunk chunk = ContextChunk(1000 * round + i, 0, 16000);
      const auto put = store_->Put(chunk.id, chunk.info, chunk.views());
      ASSERT_TRUE(put.ok()) << put.status();
      ids.push_back(chunk.id);
    }
    ASSERT_EQ(store_->Delete(ids).value_or(0), ids.size());
  }
  EXPECT_EQ(store_->Stats()->evicted_segments, 0);
  EXPECT_LE(peak_disk_bytes(), options_.capacity_bytes);
}

class ShrinkTest : public CapacityTest, public testing::WithParamInterface<uint64_t> {};

TEST_P(ShrinkTest, AStoreThatIsTooLargeShrinks) {
  options_.capacity_bytes = GetParam();
  ASSERT_NO_FATAL_FAILURE(Open());
  for (uint64_t i = 0; i < 1200; ++i) {
    const TestChunk chunk = ContextChunk(i / 8, i % 8, 16000);
    ASSERT_TRUE(store_->Put(chunk.id, chunk.info, chunk.views()).ok());
  }
  store_.reset();
  ASSERT_GT(DirectoryBytes(options_.data_dir), 100 * kMiB);
  options_.capacity_bytes = 64 * kMiB;
  ASSERT_NO_FATAL_FAILURE(Open());
  // Waits for room.
  const TestChunk chunk = ContextChunk(5000, 0, 16000);
  const auto put = store_->Put(chunk.id, chunk.info, chunk.views());
  ASSERT_TRUE(put.ok()) << put.status();
  EXPECT_LE(DirectoryBytes(options_.data_dir), options_.capacity_bytes);
  EXPECT_EQ(CheckChunk(chunk), 4);
  for (uint64_t i = 0; i < 1200; ++i) CheckChunk(ContextChunk(i / 8, i % 8, 16000));
}

// Without a capacity its tables are as large as all that it may have afterwards.
INSTANTIATE_TEST_SUITE_P(CapacityBefore, ShrinkTest, testing::Values(256 * kMiB, 0));

TEST_F(CapacityTest, RefusesAPutWhenEverythingIsHeld) {
  options_.room_timeout = absl::Milliseconds(300);
  ASSERT_NO_FATAL_FAILURE(Open());
  std::vector<ChunkHold> holds;
  absl::Status refused;
  std::vector<TestChunk> stored;
  for (uint64_t i = 0; i < 2000 && refused.ok(); ++i) {
    const TestChunk chunk = ContextChunk(i, 0, 16000);
    holds.push_back(store_->Hold({chunk.id}));
    refused = store_->Put(chunk.id, chunk.info, chunk.views()).status();
    if (refused.ok()) stored.push_back(chunk);
  }
  EXPECT_TRUE(absl::IsResourceExhausted(refused)) << refused;
  EXPECT_TRUE(absl::StrContains(refused.message(), "the capacity is")) << refused;
  EXPECT_LE(peak_disk_bytes(), options_.capacity_bytes);
  for (const TestChunk& chunk : stored) EXPECT_EQ(CheckChunk(chunk), 4);
  EXPECT_EQ(store_->Stats()->evicted_segments, 0);
  // What is stored needs no room; and once nothing is held there is some.
  EXPECT_FALSE(store_->Put(stored[0].id, stored[0].info, stored[0].views()).value_or(true));
  holds.clear();
  const TestChunk late = ContextChunk(9999, 0, 16000);
  absl::Status put = absl::UnknownError("");
  for (int i = 0; i < 200 && !put.ok(); ++i) {
    put = store_->Put(late.id, late.info, late.views()).status();
  }
  EXPECT_TRUE(put.ok()) << put;
}

TEST_F(CapacityTest, RefusesWhatCanNeverFit) {
  ASSERT_NO_FATAL_FAILURE(Open());
  const TestChunk chunk = ContextChunk(1, 0, 2 * kMiB);
  const auto put = store_->Put(chunk.id, chunk.info, chunk.views());
  EXPECT_TRUE(absl::IsResourceExhausted(put.status())) << put.status();
  EXPECT_TRUE(absl::StrContains(put.status().message(), "at most")) << put.status();
  options_.capacity_bytes = 64 * kMiB - 1;
  store_.reset();
  EXPECT_TRUE(absl::IsInvalidArgument(RocksDbChunkStore::Create(options_).status()));
}

TEST_F(CapacityTest, RestoresWhatEvictionTook) {
  ASSERT_NO_FATAL_FAILURE(Open());
  const auto put = [this](uint64_t context) {
    const TestChunk chunk = ContextChunk(context, 0, 16000);
    const auto stored = store_->Put(chunk.id, chunk.info, chunk.views());
    EXPECT_TRUE(stored.ok()) << stored.status();
    return stored.value_or(false);
  };
  uint64_t contexts = 0;
  while (store_->Stats()->evicted_segments < 100 && contexts < 5000) put(contexts++);
  int restored = 0;
  for (uint64_t i = 0; i < contexts; ++i) {
    const size_t levels = CheckChunk(ContextChunk(i, 0, 16000));
    if (levels == 0 || levels == 4) continue;
    // Unless eviction was faster, it is whole afterwards, and it always is what its info says.
    if (put(i)) ++restored;
    CheckChunk(ContextChunk(i, 0, 16000));
  }
  EXPECT_GT(restored, 0);
}

TEST_F(CapacityTest, RemembersAcrossRestartsWhatIsUsed) {
  options_.usage_interval = absl::Milliseconds(1);
  ASSERT_NO_FATAL_FAILURE(Open());
  std::vector<ChunkId> used;
  for (uint64_t i = 0; i < 100; ++i) {
    const TestChunk chunk = ContextChunk(i, 0, 16000);
    ASSERT_TRUE(store_->Put(chunk.id, chunk.info, chunk.views()).ok());
    if (i % 10 == 0) used.push_back(chunk.id);
  }
  for (int i = 0; i < 20; ++i) store_->Touch(used);
  ASSERT_NO_FATAL_FAILURE(Open());
  for (uint64_t i = 100; i < 700; ++i) {
    const TestChunk chunk = ContextChunk(i, 0, 16000);
    ASSERT_TRUE(store_->Put(chunk.id, chunk.info, chunk.views()).ok());
  }
  size_t of_used = 0, of_others = 0;
  for (uint64_t i = 0; i < 100; ++i) {
    (i % 10 == 0 ? of_used : of_others) += CheckChunk(ContextChunk(i, 0, 16000));
  }
  EXPECT_EQ(of_used, 40);
  EXPECT_LT(of_others, 180);
}

}  // namespace
}  // namespace kvstream

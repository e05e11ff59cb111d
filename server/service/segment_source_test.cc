#include "server/service/segment_source.h"

#include <gtest/gtest.h>

#include <atomic>
#include <map>
#include <string>
#include <thread>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "storage/forwarding_chunk_store.h"
#include "storage/memory/memory_chunk_store.h"

namespace kvstream {
namespace {

constexpr uint32_t kLevels = 3;

// A store without anything at hand; notes what is read and holds reads back while told to.
class DiskLikeStore final : public ForwardingChunkStore {
 public:
  using ForwardingChunkStore::ForwardingChunkStore;

  absl::StatusOr<PinnedBytes> ReadSegment(const ChunkId& id, uint32_t level) override {
    absl::MutexLock lock(&mutex_);
    ++reads_[{id[0], level}];
    mutex_.Await(absl::Condition(
        +[](bool* held) { return !*held; }, &held_));
    return inner().ReadSegment(id, level);
  }
  absl::optional<absl::StatusOr<PinnedBytes>> TryReadSegment(const ChunkId&, uint32_t) override {
    return absl::nullopt;
  }

  void HoldReads(bool held) {
    absl::MutexLock lock(&mutex_);
    held_ = held;
  }
  int reads(int chunk, uint32_t level) {
    absl::MutexLock lock(&mutex_);
    return reads_[{static_cast<uint8_t>(chunk), level}];
  }

 private:
  absl::Mutex mutex_;
  bool held_ ABSL_GUARDED_BY(mutex_) = false;
  std::map<std::pair<uint8_t, uint32_t>, int> reads_ ABSL_GUARDED_BY(mutex_);
};

class SegmentSourceTest : public testing::Test {
 protected:
  void Fill(int chunks, uint64_t segment_bytes) {
    auto memory = MemoryChunkStore::Create(MemoryChunkStoreOptions());
    ASSERT_TRUE(memory.ok());
    store_ = std::make_unique<DiskLikeStore>(*std::move(memory));
    for (int chunk = 0; chunk < chunks; ++chunk) {
      ChunkId id = {};
      id[0] = static_cast<uint8_t>(chunk);
      ids_.push_back(id);
      ChunkInfo info;
      info.tokens = 1;
      info.first_token = static_cast<uint64_t>(chunk);
      std::vector<std::string> segments;
      for (uint32_t level = 0; level < kLevels; ++level) segments.push_back(Bytes(chunk, level));
      for (std::string& segment : segments) segment.resize(segment_bytes, '.');
      info.segment_bytes.assign(kLevels, segment_bytes);
      const std::vector<absl::string_view> views(segments.begin(), segments.end());
      ASSERT_TRUE(store_->Put(id, info, views).ok());
      chunks_.push_back({1, static_cast<uint64_t>(chunk), info.segment_bytes});
    }
    Restart();
  }

  void Restart() {
    source_ = std::make_unique<SegmentSource>(store_.get(), &pool_, &ids_, &chunks_, [this] {
      absl::MutexLock lock(&mutex_);
      ++ready_;
    });
  }

  static std::string Bytes(int chunk, uint32_t level) {
    return std::to_string(chunk) + "/" + std::to_string(level);
  }

  // Asks until it is there, as a load does: once more for each call of `ready`.
  void ExpectSegment(uint32_t chunk, uint32_t level, uint32_t target) {
    auto got = source_->Get(chunk, level, target);
    if (!got.has_value()) {
      absl::MutexLock lock(&mutex_);
      mutex_.Await(absl::Condition(
          +[](int* ready) { return *ready > 0; }, &ready_));
      --ready_;
      got = source_->Get(chunk, level, target);
    }
    ASSERT_TRUE(got.has_value());
    ASSERT_TRUE(got->ok()) << got->status();
    EXPECT_EQ((**got)->bytes().substr(0, Bytes(chunk, level).size()), Bytes(chunk, level));
  }

  std::unique_ptr<DiskLikeStore> store_;
  std::vector<ChunkId> ids_;
  std::vector<StoredChunkSizes> chunks_;
  absl::Mutex mutex_;
  int ready_ ABSL_GUARDED_BY(mutex_) = 0;
  WorkerPool pool_{2};
  std::unique_ptr<SegmentSource> source_;
};

TEST_F(SegmentSourceTest, ReadsEachSegmentOfAForwardLoadOnce) {
  Fill(8, 1000);
  for (uint32_t chunk = 0; chunk < 8; ++chunk) {
    for (uint32_t level = 0; level <= 1; ++level) {
      ExpectSegment(chunk, level, 1);
      ExpectSegment(chunk, level, 1);  // its next frame
    }
  }
  for (int chunk = 0; chunk < 8; ++chunk) {
    EXPECT_EQ(store_->reads(chunk, 0), 1);
    EXPECT_EQ(store_->reads(chunk, 1), 1);
    EXPECT_EQ(store_->reads(chunk, 2), 0) << "not planned";
  }
}

TEST_F(SegmentSourceTest, FollowsALoadThatGoesBackwards) {
  Fill(6, 1000);
  for (int chunk = 5; chunk >= 0; --chunk) ExpectSegment(static_cast<uint32_t>(chunk), 0, 0);
  for (int chunk = 0; chunk < 6; ++chunk) EXPECT_EQ(store_->reads(chunk, 0), 1);
}

TEST_F(SegmentSourceTest, ReadsAheadOnlyWhatAChunkStillHas) {
  Fill(6, 1000);
  // As if the store had trimmed them.
  chunks_[1].segment_bytes.resize(1);
  chunks_[3].segment_bytes.resize(2);
  chunks_[5].segment_bytes.resize(1);
  for (uint32_t chunk = 0; chunk < 6; ++chunk) {
    const auto finest = static_cast<uint32_t>(chunks_[chunk].segment_bytes.size()) - 1;
    for (uint32_t level = 0; level <= finest; ++level) ExpectSegment(chunk, level, finest);
  }
  for (int chunk = 0; chunk < 6; ++chunk) {
    const size_t levels = chunks_[static_cast<size_t>(chunk)].segment_bytes.size();
    for (uint32_t level = 0; level < kLevels; ++level) {
      EXPECT_EQ(store_->reads(chunk, level), level < levels ? 1 : 0) << chunk << "/" << level;
    }
  }
  // A refinement passes over those that have no more, also at the end.
  Restart();
  for (uint32_t chunk : {0, 2, 4}) ExpectSegment(chunk, 2, 2);
  for (int chunk : {1, 3, 5}) EXPECT_EQ(store_->reads(chunk, 2), 0) << chunk;
}

TEST_F(SegmentSourceTest, KeepsNoMoreThanItsBound) {
  Fill(8, SegmentSource::kAheadBytes / 2);
  ExpectSegment(0, 0, 0);
  source_.reset();
  int begun = 0;
  for (int chunk = 1; chunk < 8; ++chunk) begun += store_->reads(chunk, 0);
  EXPECT_LE(begun, 2);
}

TEST_F(SegmentSourceTest, ReadsOneSegmentAheadHoweverLargeItIs) {
  Fill(3, 2 * SegmentSource::kAheadBytes);
  ExpectSegment(0, 0, 0);
  ExpectSegment(1, 0, 0);
  EXPECT_EQ(store_->reads(1, 0), 1);
}

TEST_F(SegmentSourceTest, AnErrorIsReportedAndForgotten) {
  Fill(2, 1000);
  ASSERT_TRUE(store_->Delete({ids_[0]}).ok());
  for (int attempt = 1; attempt <= 2; ++attempt) {
    auto got = source_->Get(0, 0, 0);
    while (!got.has_value()) {
      std::this_thread::yield();
      got = source_->Get(0, 0, 0);
    }
    EXPECT_EQ(got->status().code(), absl::StatusCode::kNotFound);
    EXPECT_EQ(store_->reads(0, 0), attempt);
  }
}

TEST_F(SegmentSourceTest, GoesAwayWhileTheDiskWorks) {
  Fill(8, 1000);
  store_->HoldReads(true);
  EXPECT_FALSE(source_->Get(0, 0, 0).has_value());
  source_.reset();
  store_->HoldReads(
      false);  // the pool's destructor runs the reads, which touch nothing that is gone
}

}  // namespace
}  // namespace kvstream

#include "storage/memory/memory_chunk_store.h"

#include <gtest/gtest.h>

#include <memory>
#include <utility>

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "storage/conformance/chunk_store_conformance.h"
#include "storage/conformance/test_chunks.h"

namespace kvstream {
namespace {

class MemoryTarget final : public ConformanceTarget {
 public:
  explicit MemoryTarget(bool evict) { options_.evict = evict; }
  absl::StatusOr<std::unique_ptr<ChunkStore>> Open() override {
    return MemoryChunkStore::Create(options_);
  }
  bool persistent() const override { return false; }

 private:
  MemoryChunkStoreOptions options_;
};

INSTANTIATE_TEST_SUITE_P(Memory, ChunkStoreConformance,
                         testing::Values(ConformanceParam{
                             "memory", [] { return std::make_unique<MemoryTarget>(false); }}),
                         ConformanceParam::Name);
INSTANTIATE_TEST_SUITE_P(Memory, ChunkStoreLifetimes,
                         testing::Values(ConformanceParam{
                             "memory", [] { return std::make_unique<MemoryTarget>(false); }}),
                         ConformanceParam::Name);
INSTANTIATE_TEST_SUITE_P(EvictingMemory, ChunkStoreConformance,
                         testing::Values(ConformanceParam{
                             "memory", [] { return std::make_unique<MemoryTarget>(true); }}),
                         ConformanceParam::Name);
INSTANTIATE_TEST_SUITE_P(EvictingMemory, ChunkStoreLifetimes,
                         testing::Values(ConformanceParam{
                             "memory", [] { return std::make_unique<MemoryTarget>(true); }}),
                         ConformanceParam::Name);

TEST(MemoryChunkStoreTest, RefusesASizeOfZero) {
  MemoryChunkStoreOptions options;
  options.max_bytes = 0;
  EXPECT_TRUE(absl::IsInvalidArgument(MemoryChunkStore::Create(options).status()));
}

TEST(MemoryChunkStoreTest, RefusesWhatDoesNotFitUntilThereIsRoom) {
  MemoryChunkStoreOptions options;
  options.max_bytes = 100;
  auto store = MemoryChunkStore::Create(options);
  ASSERT_TRUE(store.ok()) << store.status();
  TestChunk chunk = MakeTestChunk(1);
  const auto put = [&](uint64_t number, size_t bytes) {
    chunk.segments = {TestBytes(1, bytes)};
    chunk.info.segment_bytes = {bytes};
    return (*store)->Put(TestId(number), chunk.info, chunk.views());
  };
  EXPECT_TRUE(put(1, 60).value_or(false));
  EXPECT_TRUE(absl::IsResourceExhausted(put(2, 41).status()));
  EXPECT_TRUE(
      absl::IsResourceExhausted((*store)->PutProfile(TestId(9), TestBytes(1, 41)).status()));
  EXPECT_FALSE(put(1, 60).value_or(true)) << "a stored chunk needs no room";
  EXPECT_TRUE((*store)->PutProfile(TestId(9), TestBytes(1, 40)).value_or(false));
  EXPECT_TRUE(absl::IsResourceExhausted(put(2, 1).status()));
  EXPECT_TRUE(put(3, 0).value_or(false));
  EXPECT_EQ((*store)->Delete({TestId(1)}).value_or(0), 1);
  EXPECT_TRUE(put(2, 60).value_or(false));
  EXPECT_EQ((*store)->Stats()->payload_bytes, 60);
}

TEST(MemoryChunkStoreTest, EvictionLeavesWhatIsPinned) {
  MemoryChunkStoreOptions options;
  options.max_bytes = 100;
  options.evict = true;
  auto store = MemoryChunkStore::Create(options);
  ASSERT_TRUE(store.ok()) << store.status();
  TestChunk chunk = MakeTestChunk(1);
  chunk.info.parent.reset();
  chunk.segments = {TestBytes(1, 20), TestBytes(2, 20)};
  chunk.info.segment_bytes = {20, 20};
  const auto put = [&](uint64_t number) {
    return (*store)->Put(TestId(number), chunk.info, chunk.views()).value_or(false);
  };
  const absl::Time until = absl::Now() + absl::Hours(1);
  EXPECT_TRUE(put(0));
  EXPECT_EQ((*store)->Pin({TestId(0)}, "a", until).value_or(0), 1);
  for (uint64_t i = 1; i < 20; ++i) EXPECT_TRUE(put(i));
  EXPECT_EQ((*store)->GetInfos({TestId(0)})->front()->segment_bytes.size(), 2);
  EXPECT_TRUE(absl::IsResourceExhausted((*store)->Pin({TestId(19)}, "a", until).status()))
      << "more than half would be pinned";
  // Ended, and noted.
  EXPECT_TRUE((*store)->Expire(until, 1).ok());
  for (uint64_t i = 20; i < 40; ++i) EXPECT_TRUE(put(i));
  EXPECT_FALSE((*store)->GetInfos({TestId(0)})->front().has_value());
}

TEST(MemoryChunkStoreTest, PinsOutliveTheStore) {
  auto store = MemoryChunkStore::Create({});
  ASSERT_TRUE(store.ok()) << store.status();
  const TestChunk chunk = MakeTestChunk(1);
  ASSERT_TRUE((*store)->Put(chunk.id, chunk.info, chunk.views()).value_or(false));
  auto pin = (*store)->ReadSegment(chunk.id, 0);
  ASSERT_TRUE(pin.ok()) << pin.status();
  store->reset();
  EXPECT_EQ(pin->bytes(), chunk.segments[0]);
}

}  // namespace
}  // namespace kvstream

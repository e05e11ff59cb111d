#include "server/service/open_store.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <memory>

#include "absl/status/status.h"
#include "storage/conformance/test_chunks.h"

namespace kvstream {
namespace {

constexpr uint64_t kBytes = 100000;

TEST(OpenStoreTest, AMemoryStoreWithACapacityEvictsToStayBelowIt) {
  ServerOptions options;
  options.store = StoreKind::kMemory;
  options.capacity_bytes = kBytes;
  const auto store = OpenStore(options);
  ASSERT_TRUE(store.ok()) << store.status();
  for (uint64_t i = 0; i < 20; ++i) {
    const TestChunk chunk = MakeTestChunk(i, 20000);
    const auto put = (*store)->Put(chunk.id, chunk.info, chunk.views());
    ASSERT_TRUE(put.value_or(false)) << put.status();
    const auto stats = (*store)->Stats();
    ASSERT_TRUE(stats.ok());
    EXPECT_LE(stats->payload_bytes, kBytes);
    EXPECT_EQ(stats->capacity_bytes, kBytes);
  }
  EXPECT_GT((*store)->Stats()->evicted_bytes, 0);
}

TEST(OpenStoreTest, AMemoryStoreWithoutRefusesWhatDoesNotFit) {
  ServerOptions options;
  options.store = StoreKind::kMemory;
  options.memory_store_bytes = kBytes;
  const auto store = OpenStore(options);
  ASSERT_TRUE(store.ok()) << store.status();
  absl::StatusOr<bool> put = true;
  for (uint64_t i = 0; i < 20 && put.ok(); ++i) {
    const TestChunk chunk = MakeTestChunk(i, 20000);
    put = (*store)->Put(chunk.id, chunk.info, chunk.views());
  }
  EXPECT_TRUE(absl::IsResourceExhausted(put.status())) << put.status();
  EXPECT_EQ((*store)->Stats()->evicted_bytes, 0);
}

}  // namespace
}  // namespace kvstream

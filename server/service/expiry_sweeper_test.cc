#include "server/service/expiry_sweeper.h"

#include <gtest/gtest.h>

#include <memory>

#include "absl/synchronization/notification.h"
#include "storage/conformance/test_chunks.h"
#include "storage/forwarding_chunk_store.h"
#include "storage/memory/memory_chunk_store.h"

namespace kvstream {
namespace {

constexpr absl::Time kNow = absl::UnixEpoch();

TEST(ExpirySweeperTest, TakesAllThatIsDueInBatches) {
  auto store = MemoryChunkStore::Create({});
  ASSERT_TRUE(store.ok()) << store.status();
  constexpr uint64_t kDue = 3 * ExpirySweeper::kBatch + 5;
  for (uint64_t i = 0; i < kDue + 2; ++i) {
    TestChunk chunk = MakeTestChunk(i, 1);
    chunk.info.expires = i < kDue ? kNow : kNow + absl::Seconds(1);
    ASSERT_TRUE((*store)->Put(chunk.id, chunk.info, chunk.views()).value_or(false));
  }
  absl::Notification done;
  size_t expired = 0, largest = 0;
  ExpirySweeper::Options options;
  options.interval = absl::Hours(1);
  options.now = [] { return kNow; };
  options.report = [&](const absl::StatusOr<size_t>& batch) {
    ASSERT_TRUE(batch.ok()) << batch.status();
    expired += *batch;
    largest = std::max(largest, *batch);
    if (*batch < ExpirySweeper::kBatch) done.Notify();
  };
  ExpirySweeper sweeper(store->get(), options);
  done.WaitForNotification();
  sweeper.Stop();
  EXPECT_EQ(expired, kDue);
  EXPECT_EQ(largest, ExpirySweeper::kBatch);
  EXPECT_EQ((*store)->Stats()->chunks, 2);
}

class FailsOnce final : public ForwardingChunkStore {
 public:
  using ForwardingChunkStore::ForwardingChunkStore;
  absl::StatusOr<size_t> Expire(absl::Time now, size_t limit) override {
    if (!failed_) {
      failed_ = true;
      return absl::UnavailableError("the disk is behind");
    }
    return ForwardingChunkStore::Expire(now, limit);
  }

 private:
  bool failed_ = false;
};

TEST(ExpirySweeperTest, TriesAgainAfterAnError) {
  auto inner = MemoryChunkStore::Create({});
  ASSERT_TRUE(inner.ok()) << inner.status();
  FailsOnce store(*std::move(inner));
  TestChunk chunk = MakeTestChunk(1);
  chunk.info.expires = kNow;
  ASSERT_TRUE(store.Put(chunk.id, chunk.info, chunk.views()).value_or(false));
  absl::Notification done;
  int errors = 0;
  ExpirySweeper::Options options;
  options.interval = absl::Milliseconds(1);
  options.now = [] { return kNow; };
  options.report = [&](const absl::StatusOr<size_t>& batch) {
    errors += batch.ok() ? 0 : 1;
    if (batch.value_or(0) == 1) done.Notify();
  };
  const ExpirySweeper sweeper(&store, options);
  done.WaitForNotification();
  EXPECT_EQ(errors, 1);
}

}  // namespace
}  // namespace kvstream

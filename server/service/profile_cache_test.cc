#include "server/service/profile_cache.h"

#include <gtest/gtest.h>

#include <atomic>
#include <memory>
#include <thread>
#include <utility>

#include "absl/status/status.h"
#include "absl/synchronization/notification.h"
#include "server/service/testing/fake_profile.h"
#include "storage/call_deadline.h"
#include "storage/forwarding_chunk_store.h"
#include "storage/memory/memory_chunk_store.h"

namespace kvstream {
namespace {

class ProfileCacheTest : public ::testing::Test {
 protected:
  ProfileCacheTest() : store_(*MemoryChunkStore::Create()) {}

  ProfileCache Cache(uint64_t max_bytes) {
    return ProfileCache(
        store_.get(),
        [this](absl::string_view bytes) {
          ++parses_;
          return FakeProfileParser()(bytes);
        },
        max_bytes);
  }

  std::unique_ptr<ChunkStore> store_;
  std::atomic<int> parses_{0};
};

TEST_F(ProfileCacheTest, UnknownProfileIsNotFoundByItsId) {
  ProfileCache cache = Cache(1000);
  const StoredProfileId id = FakeProfileId("nothing");
  EXPECT_EQ(cache.Get(id).status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(cache.CheckStored(id).code(), absl::StatusCode::kNotFound);
}

TEST_F(ProfileCacheTest, PutStoresAndTellsWhetherItIsNew) {
  ProfileCache cache = Cache(1000);
  const std::string bytes = FakeProfileBytes(3, 16);
  const auto first = cache.Put(bytes);
  ASSERT_TRUE(first.ok()) << first.status();
  EXPECT_TRUE(first->created);
  EXPECT_FALSE(cache.Put(bytes)->created);
  EXPECT_EQ(*store_->GetProfile(FakeProfileId(bytes)), bytes);
  EXPECT_TRUE(cache.CheckStored(FakeProfileId(bytes)).ok());
  parses_ = 0;
  EXPECT_EQ((*cache.Get(FakeProfileId(bytes)))->levels(), 3);
  EXPECT_EQ(parses_, 0);
}

TEST_F(ProfileCacheTest, BytesThatDoNotParseAreNotStored) {
  ProfileCache cache = Cache(1000);
  EXPECT_EQ(cache.Put("garbage").status().code(), absl::StatusCode::kDataLoss);
  EXPECT_TRUE(store_->ListProfiles()->empty());
}

TEST_F(ProfileCacheTest, DamagedStoredProfileIsDataLoss) {
  ProfileCache cache = Cache(1000);
  const StoredProfileId id = FakeProfileId("x");
  ASSERT_TRUE(store_->PutProfile(id, "garbage").ok());
  EXPECT_EQ(cache.Get(id).status().code(), absl::StatusCode::kDataLoss);
  const StoredProfileId other = FakeProfileId("y");
  ASSERT_TRUE(store_->PutProfile(other, FakeProfileBytes(3, 16)).ok());
  EXPECT_EQ(cache.Get(other).status().code(), absl::StatusCode::kDataLoss);
}

TEST_F(ProfileCacheTest, KeepsThoseUsedLastWithinItsBytesButAlwaysTheNewest) {
  const std::string a = FakeProfileBytes(3, 16, 'a') + "#" + std::string(400, '.');
  const std::string b = FakeProfileBytes(3, 16, 'b') + "#" + std::string(400, '.');
  const std::string c = FakeProfileBytes(3, 16, 'c') + "#" + std::string(2000, '.');
  ProfileCache cache = Cache(1000);
  ASSERT_TRUE(cache.Put(a).ok());
  ASSERT_TRUE(cache.Put(b).ok());
  parses_ = 0;
  ASSERT_TRUE(cache.Get(FakeProfileId(a)).ok());
  ASSERT_TRUE(cache.Get(FakeProfileId(b)).ok());
  EXPECT_EQ(parses_, 0);
  ASSERT_TRUE(cache.Put(c).ok());  // larger than the cache: alone in it
  parses_ = 0;
  ASSERT_TRUE(cache.Get(FakeProfileId(c)).ok());
  EXPECT_EQ(parses_, 0);
  ASSERT_TRUE(cache.Get(FakeProfileId(a)).ok());
  EXPECT_EQ(parses_, 1);
}

TEST_F(ProfileCacheTest, ManyThatMissAtOnceParseOnce) {
  const std::string bytes = FakeProfileBytes(3, 16);
  ASSERT_TRUE(store_->PutProfile(FakeProfileId(bytes), bytes).ok());
  ProfileCache cache = Cache(1000);
  std::vector<std::thread> threads;
  for (int i = 0; i < 8; ++i) {
    threads.emplace_back([&] { EXPECT_TRUE(cache.Get(FakeProfileId(bytes)).ok()); });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(parses_, 1);
}

// The first read of a profile goes on until it is let go, and fails.
class StuckStore final : public ForwardingChunkStore {
 public:
  using ForwardingChunkStore::ForwardingChunkStore;
  absl::StatusOr<std::string> GetProfile(const StoredProfileId& id) override {
    if (reads++ > 0) return inner().GetProfile(id);
    stuck.Notify();
    go_on.WaitForNotification();
    return absl::UnavailableError("stuck");
  }

  std::atomic<int> reads{0};
  absl::Notification stuck, go_on;
};

TEST_F(ProfileCacheTest, NobodyWaitsForTheReadOfAnotherBeyondTheirDeadline) {
  const std::string bytes = FakeProfileBytes(3, 16);
  const StoredProfileId id = FakeProfileId(bytes);
  ASSERT_TRUE(store_->PutProfile(id, bytes).ok());
  auto stuck = std::make_unique<StuckStore>(std::move(store_));
  StuckStore& store = *stuck;
  store_ = std::move(stuck);
  ProfileCache cache = Cache(1000);
  std::thread first([&] { EXPECT_TRUE(absl::IsUnavailable(cache.Get(id).status())); });
  store.stuck.WaitForNotification();
  {
    const CallDeadline passed(absl::InfinitePast());
    EXPECT_TRUE(cache.Get(id).ok()) << "asks the store itself, which may refuse";
  }
  EXPECT_EQ(store.reads, 2);
  store.go_on.Notify();
  first.join();
  EXPECT_TRUE(cache.Get(id).ok());
  EXPECT_EQ(store.reads, 2) << "the failure took nothing from the cache";
}

}  // namespace
}  // namespace kvstream

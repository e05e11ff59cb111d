#include "storage/tenant_view.h"

#include <gtest/gtest.h>

#include <atomic>
#include <memory>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "storage/chunk_limits.h"
#include "storage/conformance/chunk_store_conformance.h"
#include "storage/conformance/test_chunks.h"
#include "storage/forwarding_chunk_store.h"
#include "storage/memory/memory_chunk_store.h"
#include "storage/rocksdb/rocksdb_chunk_store.h"
#include "storage/rocksdb/temp_dir.h"

namespace kvstream {
namespace {

// A view that owns its store, beside another tenant who has stored everything that the suite uses.
class OwningView final : public ForwardingChunkStore {
 public:
  OwningView(std::unique_ptr<ChunkStore> store, std::unique_ptr<ChunkStore> view)
      : ForwardingChunkStore(std::move(view)), store_(std::move(store)) {}

 private:
  std::unique_ptr<ChunkStore> store_;
};

std::unique_ptr<TenantView> ViewOf(ChunkStore* store, const std::string& tenant,
                                   uint64_t quota_bytes = 0) {
  auto view = TenantView::Create(store, {tenant, quota_bytes});
  EXPECT_TRUE(view.ok()) << view.status();
  return *std::move(view);
}

absl::StatusOr<std::unique_ptr<ChunkStore>> Own(absl::StatusOr<std::unique_ptr<ChunkStore>> store) {
  if (!store.ok()) return store.status();
  const auto neighbour = ViewOf(store->get(), "neighbour");
  for (uint64_t number = 0; number < 30; ++number) {
    const TestChunk chunk = MakeTestChunk(number, 50);
    EXPECT_TRUE(neighbour->Put(chunk.id, chunk.info, chunk.views()).ok());
    EXPECT_TRUE(neighbour->PutProfile(chunk.id, "theirs").ok());
  }
  auto view = ViewOf(store->get(), "tenant", uint64_t{1} << 40);
  return std::unique_ptr<ChunkStore>(
      std::make_unique<OwningView>(*std::move(store), std::move(view)));
}

class MemoryTarget final : public ConformanceTarget {
 public:
  absl::StatusOr<std::unique_ptr<ChunkStore>> Open() override {
    return Own(MemoryChunkStore::Create());
  }
  bool persistent() const override { return false; }
  bool of_tenant() const override { return true; }
};

class RocksDbTarget final : public ConformanceTarget {
 public:
  absl::StatusOr<std::unique_ptr<ChunkStore>> Open() override {
    RocksDbChunkStoreOptions options;
    options.data_dir = dir_.path() + "/store";
    options.sync_writes = false;
    return Own(RocksDbChunkStore::Create(options));
  }
  bool persistent() const override { return true; }
  bool of_tenant() const override { return true; }

 private:
  TempDir dir_;
};

INSTANTIATE_TEST_SUITE_P(MemoryView, ChunkStoreConformance,
                         testing::Values(ConformanceParam{
                             "memory", [] { return std::make_unique<MemoryTarget>(); }}),
                         ConformanceParam::Name);
INSTANTIATE_TEST_SUITE_P(MemoryView, ChunkStoreLifetimes,
                         testing::Values(ConformanceParam{
                             "memory", [] { return std::make_unique<MemoryTarget>(); }}),
                         ConformanceParam::Name);
INSTANTIATE_TEST_SUITE_P(RocksDbView, ChunkStoreConformance,
                         testing::Values(ConformanceParam{
                             "rocksdb", [] { return std::make_unique<RocksDbTarget>(); }}),
                         ConformanceParam::Name);
INSTANTIATE_TEST_SUITE_P(RocksDbView, ChunkStoreLifetimes,
                         testing::Values(ConformanceParam{
                             "rocksdb", [] { return std::make_unique<RocksDbTarget>(); }}),
                         ConformanceParam::Name);

class TenantViewTest : public testing::Test {
 protected:
  const std::unique_ptr<ChunkStore> store_ = *MemoryChunkStore::Create();
};

bool PutTo(ChunkStore& store, const TestChunk& chunk) {
  const auto put = store.Put(chunk.id, chunk.info, chunk.views());
  EXPECT_TRUE(put.ok()) << put.status();
  return put.value_or(false);
}

// Nothing that the view answers tells that the id is stored, for whomever.
void ExpectNothing(ChunkStore& view, const ChunkId& id) {
  const auto infos = view.GetInfos({id});
  ASSERT_TRUE(infos.ok()) << infos.status();
  EXPECT_FALSE(infos->front().has_value());
  EXPECT_EQ(view.LongestPrefix({id}).value_or(9), 0);
  EXPECT_TRUE(absl::IsNotFound(view.ReadSegment(id, 0).status()));
  const auto at_hand = view.TryReadSegment(id, 0);
  EXPECT_TRUE(!at_hand.has_value() || absl::IsNotFound(at_hand->status()));
  EXPECT_EQ(view.Trim({id}, 1).value_or(9), 0);
  EXPECT_EQ(view.Delete({id}).value_or(9), 0);
  EXPECT_TRUE(absl::IsNotFound(view.GetProfile(id).status()));
  const ChunkHold hold = view.Hold({id});
  view.Touch({id});
}

// Hashes that are in users' stores: if this fails, their chunks are lost to them.
TEST_F(TenantViewTest, GoldenIds) {
  ChunkId id;
  for (size_t i = 0; i < id.size(); ++i) id[i] = static_cast<uint8_t>(i);
  const auto hex = [](const ChunkId& hashed) {
    return absl::BytesToHexString(
        absl::string_view(reinterpret_cast<const char*>(hashed.data()), hashed.size()));
  };
  EXPECT_EQ(hex(TenantView::StoredId("team", id)),
            "9ffe5bd73b117740302a8b5bed3787614e130b77c64f03735c575bd2b2fb3825");
  EXPECT_EQ(hex(TenantView::StoredProfile("team", id)),
            "1c88b99bf0e548801cf30e6fdbbf9661e0f37691d3020d811ba0280569cadbb4");
}

TEST_F(TenantViewTest, RefusesNamesOutOfRange) {
  for (const std::string& name : {std::string(), std::string(kMaxTenantBytes + 1, 'x')}) {
    EXPECT_TRUE(absl::IsInvalidArgument(TenantView::Create(store_.get(), {name, 0}).status()));
  }
  // Any bytes will do, and names that begin alike are different ones.
  std::vector<std::unique_ptr<TenantView>> views;
  for (const std::string& name :
       {std::string(1, '\0'), std::string(2, '\0'), std::string("\xff\xfe"), std::string("a"),
        std::string("a\0", 2), std::string("ab"), std::string(kMaxTenantBytes, 'x')}) {
    views.push_back(ViewOf(store_.get(), name));
  }
  const TestChunk chunk = MakeTestChunk(1);
  for (const auto& view : views) {
    ExpectNothing(*view, chunk.id);
    EXPECT_TRUE(PutTo(*view, chunk));
  }
  EXPECT_EQ(store_->Stats()->chunks, views.size());
}

TEST_F(TenantViewTest, NeighboursCannotSeeTouchOrGuess) {
  const auto a = ViewOf(store_.get(), "a"), b = ViewOf(store_.get(), "b");
  std::set<ChunkId> ids, profiles;
  TestChunk last;
  for (uint64_t number = 1; number < 40; ++number) {
    last = MakeTestChunk(number);
    EXPECT_TRUE(PutTo(*a, last));
    ids.insert(last.id);
    ids.insert(TenantView::StoredId("a", last.id));
    ids.insert(TenantView::StoredId("b", last.id));
  }
  EXPECT_TRUE(a->PutProfile(last.id, "profile").value_or(false));
  const auto listed = store_->ListProfiles();
  ASSERT_TRUE(listed.ok()) << listed.status();
  ids.insert(listed->begin(), listed->end());
  const StoreStats before = *store_->Stats();
  for (const ChunkId& id : ids) ExpectNothing(*b, id);
  EXPECT_TRUE(b->List(absl::nullopt, 1000)->empty());
  EXPECT_TRUE(b->List(*ids.begin(), 1000)->empty());
  EXPECT_TRUE(b->ListTenant("a", absl::nullopt, 1000)->empty());
  EXPECT_TRUE(b->ListProfiles()->empty());
  EXPECT_EQ(b->Stats()->chunks, 0);
  EXPECT_EQ(b->Stats()->payload_bytes, 0);
  EXPECT_EQ(store_->Stats()->chunks, before.chunks);
  EXPECT_EQ(store_->Stats()->payload_bytes, before.payload_bytes);

  // Even the same bytes are new to it, in its own name and in the stored one; and so is what a
  // lost.
  EXPECT_EQ(a->Trim({last.id}, 1).value_or(9), last.segments.size() > 1 ? 1 : 0);
  const uint64_t of_a = a->Stats()->payload_bytes;
  TestChunk forged = last;
  forged.id = TenantView::StoredId("a", last.id);
  EXPECT_TRUE(PutTo(*b, last));
  EXPECT_TRUE(PutTo(*b, forged));
  EXPECT_TRUE(b->PutProfile(last.id, "profile").value_or(false));
  EXPECT_EQ(a->Stats()->payload_bytes, of_a);
  EXPECT_EQ(b->Delete({last.id, forged.id}).value_or(9), 2);
  EXPECT_EQ(a->Stats()->chunks, before.chunks);
  EXPECT_EQ(a->LongestPrefix({last.id}).value_or(9), 1);
  TestChunk naming = last;
  naming.info.tenant = "a";
  EXPECT_TRUE(absl::IsInvalidArgument(b->Put(naming.id, naming.info, naming.views()).status()));
}

TEST_F(TenantViewTest, DoesNotSeeWhatHasNoTenant) {
  const TestChunk chunk = MakeTestChunk(1);
  EXPECT_TRUE(PutTo(*store_, chunk));
  ExpectNothing(*ViewOf(store_.get(), "a"), chunk.id);
  TestChunk half = MakeTestChunk(2);
  half.info.tenant = "a";
  EXPECT_TRUE(PutTo(*store_, half));
  const auto a = ViewOf(store_.get(), "a");
  EXPECT_TRUE(a->List(absl::nullopt, 10)->empty());
  ExpectNothing(*a, half.id);
}

TEST_F(TenantViewTest, StoresParentsSoThatEvictionFindsThem) {
  TestChunk chunk = MakeTestChunk(1);
  chunk.info.parent = TestId(0);
  const auto a = ViewOf(store_.get(), "a");
  EXPECT_TRUE(PutTo(*a, chunk));
  const auto listed = store_->List(absl::nullopt, 10);
  ASSERT_EQ(listed->size(), 1);
  EXPECT_EQ(listed->front().first, TenantView::StoredId("a", chunk.id));
  EXPECT_EQ(listed->front().second.parent, TenantView::StoredId("a", TestId(0)));
  EXPECT_EQ((*a->GetInfos({chunk.id}))[0]->parent, TestId(0));
}

TEST_F(TenantViewTest, PinsAndLifetimesAreTheTenantsOwn) {
  const auto a = ViewOf(store_.get(), "a"), b = ViewOf(store_.get(), "b");
  const absl::Time soon = absl::Now() + absl::Hours(1), later = soon + absl::Hours(1);
  std::vector<ChunkId> ids;
  for (uint64_t number = 0; number < 20; ++number) {
    TestChunk chunk = MakeTestChunk(number);
    chunk.info.expires = soon;
    chunk.info.parent.reset();
    if (number > 0) chunk.info.parent = TestId(0);
    ids.push_back(chunk.id);
    EXPECT_TRUE(PutTo(*a, chunk));
    if (number < 10) {
      EXPECT_TRUE(PutTo(*b, chunk));
    }
  }
  EXPECT_EQ(a->Pin(ids, "owner", soon).value_or(0), 20);
  EXPECT_EQ(b->Pin(ids, "owner", soon).value_or(0), 10);
  EXPECT_EQ(b->PinsOf(ids)->size(), 10);
  std::set<ChunkId> listed;
  absl::optional<ChunkPin> after;
  while (true) {
    const auto page = a->ListPins(after, 3);
    ASSERT_TRUE(page.ok()) << page.status();
    if (page->empty()) break;
    for (const ChunkPin& pin : *page) EXPECT_TRUE(listed.insert(pin.id).second);
    after = page->back();
  }
  EXPECT_EQ(listed, std::set<ChunkId>(ids.begin(), ids.end()));
  // Neither with the stored ids, nor for what only the other one has.
  std::vector<ChunkId> of_a;
  for (const ChunkId& id : ids) of_a.push_back(TenantView::StoredId("a", id));
  EXPECT_EQ(b->Unpin(of_a, absl::nullopt).value_or(9), 0);
  EXPECT_EQ(b->Renew(of_a, later).value_or(9), 0);
  EXPECT_EQ(b->DeleteSoon(of_a).value_or(9), 0);
  EXPECT_EQ(b->Discard(of_a).value_or(9), 0);
  EXPECT_TRUE(b->PinsOf(of_a)->empty());
  EXPECT_TRUE(b->Children(of_a[0], 100)->empty());
  EXPECT_TRUE(absl::IsNotFound(b->ScrubSegment(of_a[0], 0).status()));

  EXPECT_EQ(b->Unpin(ids, absl::nullopt).value_or(0), 10);
  EXPECT_EQ(b->Renew(ids, later).value_or(0), 10);
  EXPECT_EQ(b->Children(ids[0], 100)->size(), 9);
  EXPECT_EQ(a->Children(ids[0], 100)->size(), 19);
  EXPECT_EQ(std::set<ChunkId>({*a->Children(ids[0], 1)->begin()}).count(ids[0]), 0);
  EXPECT_EQ((*a->GetInfos({ids[1]}))[0]->expires, absl::FromUnixNanos(absl::ToUnixNanos(soon)));
  EXPECT_EQ((*b->GetInfos({ids[1]}))[0]->expires, absl::FromUnixNanos(absl::ToUnixNanos(later)));
  EXPECT_EQ(b->Delete(ids).value_or(0), 10);
  EXPECT_EQ(a->Delete(ids).value_or(9), 0);  // pinned
  EXPECT_EQ(a->Unpin(ids, std::string("owner")).value_or(0), 20);
  EXPECT_EQ(a->Delete(ids).value_or(0), 20);
}

TEST_F(TenantViewTest, APinBudgetIsTheTenantsOwn) {
  const absl::Time soon = absl::Now() + absl::Hours(1);
  const auto sized = [](uint64_t number) {
    TestChunk chunk = MakeTestChunk(number);
    chunk.segments = {TestBytes(number, 100)};
    chunk.info.segment_bytes = {100};
    return chunk;
  };
  auto a = *TenantView::Create(store_.get(), {"a", 0, 250, 3});
  const auto b = *TenantView::Create(store_.get(), {"b", 0, 100, 3});
  for (uint64_t number = 1; number <= 4; ++number) {
    EXPECT_TRUE(PutTo(*a, sized(number)));
    EXPECT_TRUE(PutTo(*b, sized(number)));
  }
  EXPECT_EQ(a->Pin({TestId(1), TestId(2)}, "job", soon).value_or(0), 2);
  const auto refused = a->Pin({TestId(3)}, "job", soon);
  EXPECT_TRUE(absl::IsResourceExhausted(refused.status())) << refused.status();
  EXPECT_TRUE(absl::StrContains(refused.status().message(), "tenant a")) << refused.status();
  // Again, and by a second owner: no bytes more, but a pin.
  EXPECT_EQ(a->Pin({TestId(1), TestId(2)}, "job", soon).value_or(0), 2);
  EXPECT_EQ(a->Pin({TestId(1)}, "other", soon).value_or(0), 1);
  EXPECT_TRUE(absl::IsResourceExhausted(a->Pin({TestId(2)}, "other", soon).status()));
  EXPECT_EQ(a->PinsOf({TestId(1), TestId(2), TestId(3)})->size(), 3);
  // A neighbour has its own.
  EXPECT_EQ(b->Pin({TestId(1)}, "job", soon).value_or(0), 1);
  EXPECT_EQ(store_->GetTenantUse("a")->pinned_bytes, 200);
  EXPECT_EQ(store_->GetTenantUse("b")->pins, 1);
  EXPECT_EQ(a->Unpin({TestId(1)}, absl::nullopt).value_or(0), 2);
  EXPECT_EQ(a->Pin({TestId(3)}, "job", soon).value_or(0), 1);
  ASSERT_TRUE(a->SetLimits({"a", 0, 0, 0}).ok());
  EXPECT_EQ(a->Pin({TestId(1), TestId(4)}, "job", soon).value_or(0), 2);
}

TEST_F(TenantViewTest, ConcurrentPinsNeverExceedTheBudget) {
  const absl::Time soon = absl::Now() + absl::Hours(1);
  const auto view = *TenantView::Create(store_.get(), {"a", 0, 1000, 0});
  std::vector<ChunkId> ids;
  for (uint64_t i = 0; i < 40; ++i) {
    TestChunk chunk = MakeTestChunk(i);
    chunk.segments = {TestBytes(i, 100)};
    chunk.info.segment_bytes = {100};
    EXPECT_TRUE(PutTo(*view, chunk));
    ids.push_back(chunk.id);
  }
  std::vector<std::thread> threads;
  for (size_t t = 0; t < 8; ++t) {
    threads.emplace_back([&, t] {
      for (size_t i = 0; i < 5; ++i) {
        const auto pinned = view->Pin({ids[5 * t + i]}, "job", soon);
        EXPECT_TRUE(pinned.ok() || absl::IsResourceExhausted(pinned.status())) << pinned.status();
        EXPECT_LE(store_->GetTenantUse("a")->pinned_bytes, 1000);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  // Others may have reserved the room when one asked, but never for good.
  for (const ChunkId& id : ids) view->Pin({id}, "job", soon).IgnoreError();
  EXPECT_EQ(store_->GetTenantUse("a")->pinned_bytes, 1000);
}

// A store that looks at nobody's pins but those of the tenant that asks.
class WatchedStore final : public ForwardingChunkStore {
 public:
  using ForwardingChunkStore::ForwardingChunkStore;
  absl::StatusOr<std::vector<ChunkPin>> ListPins(const absl::optional<ChunkPin>& after,
                                                 size_t limit) override {
    ADD_FAILURE() << "the pins of all tenants were listed";
    return ForwardingChunkStore::ListPins(after, limit);
  }
};

TEST_F(TenantViewTest, ListsItsPinsWithoutLookingAtOthers) {
  WatchedStore store(*MemoryChunkStore::Create());
  const absl::Time soon = absl::Now() + absl::Hours(1);
  const auto a = ViewOf(&store, "a"), b = ViewOf(&store, "b");
  for (uint64_t number = 0; number < 30; ++number) {
    EXPECT_TRUE(PutTo(*a, MakeTestChunk(number)));
    EXPECT_EQ(a->Pin({TestId(number)}, "job", soon).value_or(0), 1);
  }
  EXPECT_TRUE(PutTo(*b, MakeTestChunk(3)));
  EXPECT_EQ(b->Pin({TestId(3)}, "job", soon).value_or(0), 1);
  const auto pins = b->ListPins(absl::nullopt, 10);
  ASSERT_TRUE(pins.ok()) << pins.status();
  ASSERT_EQ(pins->size(), 1);
  EXPECT_EQ(pins->front().id, TestId(3));
}

TEST_F(TenantViewTest, APersistentStoreKnowsWhosePinsItHas) {
  const TempDir dir;
  RocksDbChunkStoreOptions options;
  options.data_dir = dir.path() + "/store";
  options.sync_writes = false;
  const absl::Time soon = absl::Now() + absl::Hours(1);
  for (int opened = 0; opened < 3; ++opened) {
    auto store = *RocksDbChunkStore::Create(options);
    const auto a = ViewOf(store.get(), "a"), b = ViewOf(store.get(), "b");
    if (opened == 0) {
      EXPECT_TRUE(PutTo(*a, MakeTestChunk(1)));
      EXPECT_TRUE(PutTo(*b, MakeTestChunk(1)));
      EXPECT_TRUE(PutTo(*store, MakeTestChunk(2)));
      EXPECT_EQ(a->Pin({TestId(1)}, "job", soon).value_or(0), 1);
      EXPECT_EQ(a->Pin({TestId(1)}, "other", soon).value_or(0), 1);
      EXPECT_EQ(store->Pin({TestId(2)}, "job", soon).value_or(0), 1);
    }
    EXPECT_EQ(store->GetTenantUse("a")->pins, 2);
    EXPECT_EQ(store->GetTenantUse("a")->pinned_bytes, a->Stats()->payload_bytes);
    EXPECT_EQ(a->ListPins(absl::nullopt, 10)->size(), 2);
    EXPECT_EQ(store->GetTenantUse("b")->pins, 0);
    EXPECT_TRUE(b->ListPins(absl::nullopt, 10)->empty());
    EXPECT_EQ(store->Stats()->pins, 3);
  }
}

TEST_F(TenantViewTest, QuotaIsForChunksAndProfilesTogether) {
  const auto a = ViewOf(store_.get(), "a", 1000), b = ViewOf(store_.get(), "b");
  const auto chunk_of = [](uint64_t number, size_t bytes) {
    TestChunk chunk = MakeTestChunk(number);
    chunk.segments = {TestBytes(number, bytes / 2), TestBytes(number + 1, bytes - bytes / 2)};
    chunk.info.segment_bytes = {bytes / 2, bytes - bytes / 2};
    return chunk;
  };
  EXPECT_TRUE(PutTo(*b, chunk_of(9, 5000)));
  EXPECT_TRUE(PutTo(*a, chunk_of(1, 600)));
  EXPECT_TRUE(a->PutProfile(TestId(1), std::string(100, 'p')).value_or(false));
  EXPECT_EQ(a->UsedBytes().value_or(0), 700);
  TestChunk large = chunk_of(2, 301);
  const auto refused = a->Put(large.id, large.info, large.views());
  EXPECT_TRUE(absl::IsResourceExhausted(refused.status())) << refused.status();
  for (absl::string_view part : {"301 bytes", "tenant a", "700 of 1000 bytes"}) {
    EXPECT_TRUE(absl::StrContains(refused.status().message(), part)) << refused.status();
  }
  EXPECT_TRUE(absl::IsResourceExhausted(a->PutProfile(TestId(2), std::string(301, 'p')).status()));
  EXPECT_EQ(a->refused(), 2);
  EXPECT_EQ(a->UsedBytes().value_or(0), 700);
  EXPECT_TRUE(PutTo(*a, chunk_of(3, 300)));
  // Full: what is stored may be put again, nothing else.
  EXPECT_FALSE(PutTo(*a, chunk_of(1, 600)));
  EXPECT_FALSE(a->PutProfile(TestId(1), std::string(100, 'p')).value_or(true));
  EXPECT_FALSE(a->Put(TestId(4), chunk_of(4, 1).info, chunk_of(4, 1).views()).ok());
  EXPECT_EQ(a->Stats()->capacity_bytes, 1000);
  // What eviction takes makes room; to restore it needs the room again.
  EXPECT_EQ(store_->Trim({TenantView::StoredId("a", chunk_of(1, 600).id)}, 1).value_or(0), 1);
  EXPECT_TRUE(PutTo(*a, chunk_of(5, 200)));
  const TestChunk degraded = chunk_of(1, 600);
  EXPECT_TRUE(
      absl::IsResourceExhausted(a->Put(degraded.id, degraded.info, degraded.views()).status()));
  EXPECT_EQ(a->Delete({chunk_of(5, 200).id}).value_or(0), 1);
  EXPECT_TRUE(PutTo(*a, degraded));
  EXPECT_EQ(a->UsedBytes().value_or(0), 1000);
  // It counts anew in a view that comes later.
  EXPECT_EQ(ViewOf(store_.get(), "a", 1000)->UsedBytes().value_or(0), 1000);
}

TEST_F(TenantViewTest, ConcurrentPutsNeverExceedTheQuota) {
  constexpr uint64_t kQuota = 100 * 1000;
  const auto view = ViewOf(store_.get(), "a", kQuota);
  std::atomic<uint64_t> stored{0};
  std::vector<std::thread> threads;
  for (uint64_t t = 0; t < 8; ++t) {
    threads.emplace_back([&, t] {
      for (uint64_t i = 0; i < 50; ++i) {
        TestChunk chunk = MakeTestChunk(100 * t + i);
        chunk.segments = {TestBytes(i, 1000)};
        chunk.info.segment_bytes = {1000};
        const auto put = view->Put(chunk.id, chunk.info, chunk.views());
        EXPECT_TRUE(put.ok() || absl::IsResourceExhausted(put.status())) << put.status();
        if (put.value_or(false)) stored += 1000;
        EXPECT_LE(view->UsedBytes().value_or(kQuota + 1), kQuota);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(stored, kQuota);
}

TEST_F(TenantViewTest, ProfilesAreBoundedInNumber) {
  const auto view = ViewOf(store_.get(), "a");
  for (uint64_t i = 0; i < TenantView::kMaxProfiles; ++i) {
    ASSERT_TRUE(view->PutProfile(TestId(i), "p").value_or(false));
  }
  const auto refused = view->PutProfile(TestId(9999), "p");
  EXPECT_TRUE(absl::IsResourceExhausted(refused.status())) << refused.status();
  EXPECT_FALSE(view->PutProfile(TestId(7), "p").value_or(true));
  EXPECT_EQ(view->ListProfiles()->size(), TenantView::kMaxProfiles);
  EXPECT_TRUE(ViewOf(store_.get(), "b")->PutProfile(TestId(9999), "p").value_or(false));
}

// A store that counts nothing.
class CountlessStore final : public ForwardingChunkStore {
 public:
  using ForwardingChunkStore::ForwardingChunkStore;
  absl::StatusOr<TenantUse> GetTenantUse(absl::string_view tenant) override {
    return ChunkStore::GetTenantUse(tenant);
  }
};

TEST_F(TenantViewTest, NeedsCountsForAQuotaOnly) {
  CountlessStore store(*MemoryChunkStore::Create());
  EXPECT_TRUE(absl::IsUnimplemented(TenantView::Create(&store, {"a", 1}).status()));
  const auto view = ViewOf(&store, "a");
  EXPECT_TRUE(PutTo(*view, MakeTestChunk(1)));
}

}  // namespace
}  // namespace kvstream

// What only a store that several daemons share does: over a real Ceph.
#include "storage/rados/rados_chunk_store.h"

#include <gtest/gtest.h>

#include <atomic>
#include <functional>
#include <set>
#include <thread>
#include <tuple>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/blocking_counter.h"
#include "absl/time/clock.h"
#include "storage/call_deadline.h"
#include "storage/chunk_limits.h"
#include "storage/conformance/test_chunks.h"
#include "storage/rados/rados_data.h"
#include "storage/rados/testing/rados_audit.h"
#include "storage/rados/testing/rados_store_test.h"
#include "storage/tenant_view.h"

namespace kvstream {
namespace {

using rados_format::Generation;

class RadosChunkStoreTest : public RadosStoreTest {
 protected:
  // Daemons that have any.
  std::vector<std::string> Leases() {
    std::vector<OmapList> lists = {{rados_format::kLeasesObject, "", "", 100, {}, false}};
    EXPECT_TRUE(pool_->List("test", &lists).ok());
    std::vector<std::string> daemons;
    for (const auto& [daemon, record] : lists[0].entries) daemons.push_back(daemon);
    return daemons;
  }
};

TestChunk Large(uint64_t number) {
  TestChunk chunk = MakeTestChunk(number);
  chunk.segments = {TestBytes(1, 300000), TestBytes(2, 9 << 20), TestBytes(3, 100000)};
  chunk.info.segment_bytes = {300000, 9 << 20, 100000};
  return chunk;
}

TEST_F(RadosChunkStoreTest, DaemonsSeeEachOthersChunks) {
  const auto a = Open(), b = Open();
  const TestChunk chunk = MakeTestChunk(1);
  EXPECT_FALSE(Has(*b, chunk));
  EXPECT_TRUE(Put(*a, chunk));
  EXPECT_TRUE(Has(*b, chunk)) << "absence is not remembered";
  EXPECT_FALSE(Put(*b, chunk));
  for (uint32_t level = 0; level < chunk.segments.size(); ++level) {
    EXPECT_EQ(Read(*b, chunk.id, level), chunk.segments[level]);
  }
  EXPECT_EQ(b->Stats()->chunks, 1);
  EXPECT_TRUE(a->PutProfile(TestId(9), "profile").value_or(false));
  EXPECT_EQ(b->GetProfile(TestId(9)).value_or(""), "profile");
}

TEST_F(RadosChunkStoreTest, ADeletedChunkIsKnownElsewhereUntilItsTimeIsOver) {
  const auto a = Open(), b = Open();
  const TestChunk chunk = Large(1);
  EXPECT_TRUE(Put(*a, chunk));
  EXPECT_TRUE(Has(*b, chunk));
  EXPECT_EQ(a->Delete({chunk.id}).value_or(0), 1);
  EXPECT_FALSE(Has(*a, chunk)) << "who deletes knows at once";
  EXPECT_EQ(a->Stats()->payload_bytes, 0);
  EXPECT_TRUE(Has(*b, chunk));
  Pass(options_.info_max_age);
  // A load of the other daemon goes on even though a new one would not start.
  EXPECT_EQ(Read(*b, chunk.id, 2), chunk.segments[2]);
  EXPECT_EQ(a->CollectGarbage().value_or(9), 0);
  EXPECT_EQ(Read(*b, chunk.id, 1), chunk.segments[1]);
  EXPECT_FALSE(Has(*b, chunk));
  Pass(options_.retire_age);
  EXPECT_EQ(a->CollectGarbage().value_or(9), 1);
  EXPECT_TRUE(DataObjects().empty());
  EXPECT_TRUE(absl::IsNotFound(b->ReadSegment(chunk.id, 0).status()));
}

TEST_F(RadosChunkStoreTest, WhatIsTrimmedStaysReadableForAWhile) {
  const auto a = Open(), b = Open();
  const TestChunk chunk = Large(1);
  EXPECT_TRUE(Put(*a, chunk));
  EXPECT_TRUE(Has(*b, chunk));
  EXPECT_EQ(a->Trim({chunk.id}, 1).value_or(0), 1);
  EXPECT_EQ(Read(*b, chunk.id, 2), chunk.segments[2]);
  Pass(options_.retire_age + absl::Seconds(1));
  EXPECT_EQ(b->CollectGarbage().value_or(0), 1);
  ASSERT_EQ(DataObjects().size(), 1);
  EXPECT_EQ(DataObjects().begin()->second, 300000);
  EXPECT_TRUE(absl::IsNotFound(b->ReadSegment(chunk.id, 2).status()));
  EXPECT_EQ(Read(*b, chunk.id, 0), chunk.segments[0]);
  // Restored under the other's nose: its record is of the data before.
  EXPECT_TRUE(Put(*a, chunk));
  EXPECT_EQ(Read(*b, chunk.id, 2), chunk.segments[2]);
  Pass(options_.retire_age + absl::Seconds(1));
  EXPECT_EQ(a->CollectGarbage().value_or(0), 1);
  EXPECT_EQ(Read(*b, chunk.id, 1), chunk.segments[1]);
  EXPECT_EQ(DataObjects().size(), 2);
  EXPECT_EQ(b->Stats()->payload_bytes, PayloadBytes(chunk.info));
}

TEST_F(RadosChunkStoreTest, ALoadNeverMixesAChunkWithTheOneThatReplacedIt) {
  const auto a = Open(), b = Open();
  const TestChunk chunk = Large(1);
  TestChunk other = chunk;
  for (std::string& segment : other.segments) segment[0] ^= 1;
  EXPECT_TRUE(Put(*a, chunk));
  ChunkHold hold = b->Hold({chunk.id});
  EXPECT_TRUE(Has(*b, chunk));
  EXPECT_EQ(Read(*b, chunk.id, 0), chunk.segments[0]);
  EXPECT_EQ(a->Delete({chunk.id}).value_or(0), 1);
  EXPECT_TRUE(Put(*a, other));
  Pass(options_.info_max_age);
  EXPECT_FALSE(Has(*b, chunk)) << "a new load could not be told apart from the old one";
  EXPECT_EQ(b->LongestPrefix({chunk.id}).value_or(9), 0);
  EXPECT_EQ(Read(*b, chunk.id, 2), chunk.segments[2]);
  EXPECT_EQ(Read(*a, chunk.id, 2), other.segments[2]);
  Pass(options_.retire_age);
  EXPECT_EQ(a->CollectGarbage().value_or(9), 1);
  EXPECT_TRUE(absl::IsNotFound(b->ReadSegment(chunk.id, 1).status()));
  hold = ChunkHold();
  EXPECT_TRUE(Has(*b, chunk));
  EXPECT_EQ(Read(*b, chunk.id, 2), other.segments[2]);
}

TEST_F(RadosChunkStoreTest, ALoadThatTakesLongKeepsItsDataWhateverOthersRemove) {
  const auto a = Open(), b = Open();
  const TestChunk chunk = Large(1), other = Large(2);
  EXPECT_TRUE(Put(*a, chunk));
  EXPECT_TRUE(Put(*a, other));
  ChunkHold hold = b->Hold({chunk.id});
  EXPECT_TRUE(Has(*b, chunk));
  EXPECT_TRUE(b->LeaseHolds().ok());
  EXPECT_TRUE(Leases().empty()) << "most loads are over before anybody need know";
  EXPECT_EQ(a->Delete({chunk.id, other.id}).value_or(0), 2);
  const absl::Duration quarter = options_.pressed_retire_age / 4;
  for (absl::Duration age; age <= options_.retire_age; age += quarter) {
    Pass(quarter);
    ASSERT_TRUE(b->LeaseHolds().ok());
  }
  EXPECT_EQ(Leases().size(), 1);
  EXPECT_EQ(a->CollectGarbage().value_or(9), 1) << "the one that nobody reads";
  EXPECT_EQ(DataObjects().size(), 2);
  for (uint32_t level = 0; level < 3; ++level) {
    EXPECT_EQ(Read(*b, chunk.id, level), chunk.segments[level]);
  }
  hold = ChunkHold();
  ASSERT_TRUE(b->LeaseHolds().ok());
  EXPECT_TRUE(Leases().empty());
  Pass(quarter);
  EXPECT_EQ(a->CollectGarbage().value_or(9), 1);
  EXPECT_TRUE(DataObjects().empty());
}

TEST_F(RadosChunkStoreTest, LeasesOfDeadDaemonsLapseAndNoneLastForEver) {
  const auto a = Open(), b = Open();
  const TestChunk chunk = Large(1);
  EXPECT_TRUE(Put(*a, chunk));
  const ChunkHold hold = b->Hold({chunk.id});
  EXPECT_TRUE(Has(*b, chunk));
  EXPECT_EQ(a->Delete({chunk.id}).value_or(0), 1);
  Pass(options_.retire_age);
  ASSERT_TRUE(b->LeaseHolds().ok());
  // As if it were dead from here on.
  Pass(options_.pressed_retire_age - absl::Seconds(1));
  EXPECT_EQ(a->CollectGarbage().value_or(9), 0);
  EXPECT_EQ(Leases().size(), 1);
  // What is damaged holds nothing up.
  std::vector<OmapWrite> writes(1);
  writes[0].object = rados_format::kLeasesObject;
  writes[0].set = {{"damaged", "nonsense"}};
  ASSERT_TRUE(pool_->Write("test", &writes).ok());
  Pass(absl::Seconds(16));
  EXPECT_EQ(a->CollectGarbage().value_or(9), 1);
  EXPECT_TRUE(Leases().empty());
  EXPECT_TRUE(DataObjects().empty());

  const TestChunk again = Large(2);
  EXPECT_TRUE(Put(*a, again));
  const ChunkHold stuck = b->Hold({again.id});
  EXPECT_EQ(a->Delete({again.id}).value_or(0), 1);
  Pass(options_.upload_age);
  ASSERT_TRUE(b->LeaseHolds().ok());
  EXPECT_EQ(a->CollectGarbage().value_or(9), 0);
  Pass(absl::Seconds(1));
  EXPECT_EQ(a->CollectGarbage().value_or(9), 1) << "its room is wanted";
}

TEST_F(RadosChunkStoreTest, ALoadGoesOnWithTheSameBytesStoredAgain) {
  const auto a = Open(), b = Open();
  const TestChunk chunk = Large(1);
  EXPECT_TRUE(Put(*a, chunk));
  const ChunkHold hold = b->Hold({chunk.id});
  EXPECT_TRUE(Has(*b, chunk));
  EXPECT_EQ(a->Trim({chunk.id}, 1).value_or(0), 1);
  EXPECT_TRUE(Put(*a, chunk));
  Pass(options_.retire_age + absl::Seconds(1));
  EXPECT_EQ(a->CollectGarbage().value_or(9), 2);
  EXPECT_TRUE(Has(*b, chunk));
  for (uint32_t level = 0; level < 3; ++level) {
    EXPECT_EQ(Read(*b, chunk.id, level), chunk.segments[level]);
  }
}

TEST_F(RadosChunkStoreTest, OfRacingPutsOfTwoDaemonsOneStores) {
  const auto a = Open(), b = Open();
  constexpr uint64_t kChunks = 30;
  std::vector<std::atomic<int>> created(kChunks);
  std::vector<std::thread> threads;
  for (RadosChunkStore* store : {a.get(), b.get(), a.get(), b.get()}) {
    threads.emplace_back([&created, store] {
      for (uint64_t i = 0; i < kChunks; ++i) {
        const TestChunk chunk = MakeTestChunk(i);
        created[i] += Put(*store, chunk);
        EXPECT_EQ(Read(*store, chunk.id, 0), chunk.segments[0]);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  uint64_t bytes = 0;
  for (uint64_t i = 0; i < kChunks; ++i) {
    EXPECT_EQ(created[i], 1);
    bytes += PayloadBytes(MakeTestChunk(i).info);
  }
  EXPECT_EQ(a->Stats()->chunks, kChunks);
  EXPECT_EQ(a->Stats()->payload_bytes, bytes);
  // The losers took away what they had written, and its names.
  EXPECT_EQ(DataObjects().size(), kChunks);
  size_t named = 0;
  for (uint64_t i = 0; i < kChunks; ++i) named += MakeTestChunk(i).info.parent.has_value() ? 1 : 0;
  EXPECT_GT(named, 0);
  EXPECT_EQ(Keys(rados_format::kChildPrefix).size(), named);
  Pass(options_.upload_age + absl::Seconds(1));
  EXPECT_EQ(b->CollectGarbage().value_or(9), 0);
}

TEST_F(RadosChunkStoreTest, UploadsOfDaemonsThatDiedAreRemoved) {
  const auto store = Open();
  RadosIndex index(pool_.get(), {rados_format::IndexObject(0)}, 0, options_.clock);
  TestChunk chunk = Large(1);
  chunk.id.fill(0);
  chunk.info.parent = TestId(77);
  rados_format::DataRecord record;
  record.generation.fill(7);
  record.info = chunk.info;
  record.hashes.assign(chunk.segments.size(), 0);
  const RadosDataName name = {chunk.id, record.generation};
  auto seen = index.Look("test", chunk.id, "", "");
  ASSERT_TRUE(seen.ok()) << seen.status();
  std::string upload;
  const auto announced = index.Announce("test", chunk.id, record, &*seen, &upload);
  ASSERT_TRUE(announced.ok()) << announced.status();
  ASSERT_EQ(*announced, RadosAnnounced::kYes);
  const std::vector<absl::string_view> views = chunk.views();
  auto named = index.NameWrite(chunk.id, record);
  ASSERT_TRUE(named.has_value());
  named->object = rados_format::IndexObject(rados_format::ShardOf(*chunk.info.parent, 8));
  ASSERT_TRUE(WriteRadosData(*pool_, "test", name, views, named).ok());
  EXPECT_EQ(Keys(rados_format::kChildPrefix).size(), 1);
  EXPECT_FALSE(Has(*store, chunk)) << "not visible before its record";
  EXPECT_EQ(DataObjects().size(), 2);
  EXPECT_EQ(store->CollectGarbage().value_or(9), 0);
  seen = index.Look("test", chunk.id, upload, "");
  ASSERT_TRUE(seen.ok()) << seen.status();
  EXPECT_TRUE(seen->upload_alive);
  EXPECT_EQ(seen->state.data_bytes, PayloadBytes(chunk.info));

  Pass(options_.upload_age + absl::Seconds(1));
  EXPECT_EQ(store->CollectGarbage().value_or(9), 1);
  EXPECT_TRUE(DataObjects().empty());
  EXPECT_TRUE(Keys(rados_format::kChildPrefix).empty());
  // Should it not have died: it cannot make a chunk of data that is gone.
  EXPECT_FALSE(index.Commit("test", chunk.id, *seen, upload, record, absl::nullopt).value_or(true));
  seen = index.Look("test", chunk.id, upload, "");
  EXPECT_FALSE(seen->upload_alive);
  EXPECT_EQ(seen->state.data_bytes, 0);
  EXPECT_FALSE(Has(*store, chunk));
  EXPECT_TRUE(Put(*store, chunk));
  EXPECT_EQ(Read(*store, chunk.id, 1), chunk.segments[1]);
}

TEST_F(RadosChunkStoreTest, NamesUnderParentsGoWithTheData) {
  const auto store = Open();
  TestChunk parent = Large(1), child = Large(2);
  parent.info.parent.reset();
  child.info.parent = parent.id;
  const auto children = [&] { return store->Children(parent.id, 10).value(); };
  EXPECT_TRUE(Put(*store, parent));
  EXPECT_TRUE(Put(*store, child));
  EXPECT_EQ(Keys(rados_format::kChildPrefix).size(), 1);
  // A second generation of it, which has the name from then on.
  EXPECT_EQ(store->Trim({child.id}, 1).value_or(0), 1);
  EXPECT_TRUE(Put(*store, child));
  EXPECT_EQ(Keys(rados_format::kChildPrefix).size(), 2);
  EXPECT_EQ(children(), std::vector<ChunkId>{child.id}) << "once";
  Pass(options_.retire_age + absl::Seconds(1));
  EXPECT_EQ(store->CollectGarbage().value_or(9), 2);
  EXPECT_EQ(Keys(rados_format::kChildPrefix).size(), 1);
  EXPECT_EQ(children(), std::vector<ChunkId>{child.id});
  EXPECT_EQ(store->Trim({child.id}, 1).value_or(0), 1);
  Pass(options_.retire_age + absl::Seconds(1));
  EXPECT_EQ(store->CollectGarbage().value_or(9), 1);
  EXPECT_EQ(children(), std::vector<ChunkId>{child.id}) << "what is left of it keeps its name";
  EXPECT_EQ(store->Delete({child.id}).value_or(0), 1);
  EXPECT_TRUE(children().empty());
  Pass(options_.retire_age + absl::Seconds(1));
  EXPECT_EQ(store->CollectGarbage().value_or(9), 1);
  EXPECT_TRUE(Keys(rados_format::kChildPrefix).empty());
}

TEST_F(RadosChunkStoreTest, ChunksExpireOverAllDaemons) {
  const auto a = Open(), b = Open();
  const absl::Time start = options_.clock();
  TestChunk soon = MakeTestChunk(1), later = MakeTestChunk(2), never = MakeTestChunk(3),
            past = MakeTestChunk(4), held = MakeTestChunk(5);
  soon.info.expires = start + absl::Seconds(10);
  later.info.expires = start + absl::Seconds(20) + absl::Nanoseconds(1);
  past.info.expires = absl::FromUnixSeconds(-5);
  held.info.expires = start;
  for (const TestChunk& chunk : {soon, later, never, past, held}) EXPECT_TRUE(Put(*b, chunk));
  ChunkHold hold = a->Hold({held.id});
  EXPECT_EQ(a->Expire(start + absl::Seconds(1), 10).value_or(9), 1);
  EXPECT_FALSE(Has(*a, past));
  EXPECT_TRUE(Has(*a, held));
  EXPECT_EQ(b->Expire(start + absl::Seconds(10), 10).value_or(9), 0) << "the other one does it";
  EXPECT_EQ(a->Expire(start + absl::Seconds(10), 10).value_or(9), 1);
  EXPECT_FALSE(Has(*a, soon));
  hold = ChunkHold();
  EXPECT_EQ(a->Expire(start + absl::Seconds(10), 10).value_or(9), 1);

  // Putting again and renewing extend, on any daemon, and never shorten.
  later.info.expires = start + absl::Seconds(30);
  EXPECT_FALSE(Put(*b, later));
  EXPECT_EQ(b->Renew({later.id, TestId(99)}, start + absl::Seconds(25)).value_or(9), 1);
  EXPECT_EQ(a->Expire(start + absl::Seconds(29), 10).value_or(9), 0);
  EXPECT_EQ(a->Renew({later.id, never.id}, start + absl::Seconds(40)).value_or(9), 2);
  EXPECT_EQ(a->Expire(start + absl::Seconds(39), 10).value_or(9), 0);
  EXPECT_TRUE(Has(*a, later));
  EXPECT_EQ(a->GetInfos({later.id})->front()->expires, start + absl::Seconds(40));
  EXPECT_EQ(a->Expire(start + absl::Seconds(40), 0).value_or(9), 0);
  EXPECT_EQ(a->Expire(start + absl::Seconds(40), 10).value_or(9), 1);
  EXPECT_TRUE(Has(*a, never));
  EXPECT_EQ(a->Stats()->chunks, 1);
  EXPECT_EQ(a->Stats()->expired_chunks, 4);
  EXPECT_TRUE(absl::IsInvalidArgument(a->Renew({never.id}, absl::InfinitePast()).status()));
}

TEST_F(RadosChunkStoreTest, APinHoldsOnEveryDaemonAndOutlivesItsOwn) {
  auto a = Open();
  const auto b = Open();
  TestChunk chunk = Large(1);
  chunk.info.expires = options_.clock() + absl::Seconds(1);
  EXPECT_TRUE(Put(*a, chunk));
  EXPECT_EQ(a->Pin({chunk.id}, "job", options_.clock() + absl::Minutes(1)).value_or(0), 1);
  a.reset();
  EXPECT_EQ(b->Delete({chunk.id}).value_or(9), 0);
  EXPECT_EQ(b->Trim({chunk.id}, 1).value_or(9), 0);
  Pass(absl::Seconds(30));
  EXPECT_EQ(b->Expire(options_.clock(), 10).value_or(9), 0);
  EXPECT_EQ(b->Stats()->pins, 1);
  EXPECT_EQ(b->Stats()->pinned_bytes, PayloadBytes(chunk.info));
  EXPECT_EQ(b->Unpin({chunk.id}, std::string("job")).value_or(9), 1);
  EXPECT_EQ(b->Expire(options_.clock(), 10).value_or(9), 1);
  EXPECT_EQ(b->Stats()->pins, 0);
  // At most so many owners.
  EXPECT_TRUE(Put(*b, chunk));
  const absl::Time until = options_.clock() + absl::Minutes(1);
  for (size_t i = 0; i < rados_format::kMaxPinsOfChunk; ++i) {
    EXPECT_EQ(b->Pin({chunk.id}, absl::StrCat("owner", i), until).value_or(0), 1);
  }
  EXPECT_TRUE(absl::IsResourceExhausted(b->Pin({chunk.id}, "one more", until).status()));
  EXPECT_EQ(b->Pin({chunk.id}, "owner7", until).value_or(0), 1) << "which it has";
}

TEST_F(RadosChunkStoreTest, ADeletionThatADaemonPromisedBeforeItDiedIsCompleted) {
  // As if it were dead: it is never closed before the others have looked.
  const auto dead = Open(), other = Open();
  const TestChunk soon = MakeTestChunk(1), renewed = MakeTestChunk(2);
  EXPECT_TRUE(Put(*dead, soon));
  EXPECT_TRUE(Put(*dead, renewed));
  EXPECT_EQ(dead->DeleteSoon({soon.id, renewed.id}).value_or(0), 2);
  Pass(options_.info_max_age);
  EXPECT_TRUE(Has(*other, soon)) << "the loads of the other one go on";
  EXPECT_EQ(other->Renew({renewed.id}, absl::InfiniteFuture()).value_or(0), 1);
  EXPECT_TRUE(other->CollectGarbage().ok());
  EXPECT_TRUE(Has(*other, soon));
  Pass(options_.upload_age + absl::Seconds(1));
  EXPECT_TRUE(other->CollectGarbage().ok());
  EXPECT_FALSE(Has(*other, soon));
  EXPECT_TRUE(Has(*other, renewed)) << "somebody wants it";
}

TEST_F(RadosChunkStoreTest, AQuotaHoldsOverDaemons) {
  options_.info_max_age = absl::ZeroDuration();
  const auto a = Open(), b = Open();
  TenantViewOptions of;
  of.tenant = "t";
  of.quota_bytes = 100000;
  const auto view_a = TenantView::Create(a.get(), of), view_b = TenantView::Create(b.get(), of);
  ASSERT_TRUE(view_a.ok() && view_b.ok());
  const auto put_all = [](ChunkStore* view, uint64_t first) {
    size_t refused = 0;
    for (uint64_t i = first; i < first + 100; ++i) {
      TestChunk chunk = MakeTestChunk(i);
      chunk.segments = {TestBytes(i, 2000)};
      chunk.info.segment_bytes = {2000};
      const auto put = view->Put(chunk.id, chunk.info, chunk.views());
      if (absl::IsResourceExhausted(put.status())) ++refused;
    }
    return refused;
  };
  std::atomic<size_t> refused{0};
  std::thread other([&] { refused += put_all(view_b->get(), 1000); });
  refused += put_all(view_a->get(), 2000);
  other.join();
  const auto use = a->GetTenantUse("t");
  ASSERT_TRUE(use.ok()) << use.status();
  EXPECT_EQ(use->chunks, 200 - refused);
  EXPECT_EQ(use->payload_bytes, 2000 * use->chunks);
  // What each was putting when the other looked.
  EXPECT_LE(use->payload_bytes, of.quota_bytes + 2000);
  EXPECT_GE(use->payload_bytes, of.quota_bytes - 2000);
  EXPECT_EQ(b->GetTenantUse("t")->payload_bytes, use->payload_bytes);
  EXPECT_EQ(b->Stats()->tenant_chunks, use->chunks);
  EXPECT_EQ(b->ListTenant("t", absl::nullopt, 1000)->size(), use->chunks);
  EXPECT_TRUE(b->ListTenant("u", absl::nullopt, 1000)->empty());
}

TEST_F(RadosChunkStoreTest, ABoundOfPinsHoldsOverDaemons) {
  options_.info_max_age = absl::ZeroDuration();
  const auto a = Open(), b = Open();
  TenantViewOptions of;
  of.tenant = "t";
  of.pin_bytes_max = 1000;
  of.pins_max = 6;
  auto view_a = *TenantView::Create(a.get(), of), view_b = *TenantView::Create(b.get(), of);
  of.tenant = "tt";
  const auto neighbour = *TenantView::Create(b.get(), of);
  std::vector<ChunkId> ids;
  for (uint64_t i = 0; i < 8; ++i) {
    TestChunk chunk = MakeTestChunk(i);
    chunk.segments = {TestBytes(i, 200)};
    chunk.info.segment_bytes = {200};
    EXPECT_TRUE(Put(*view_a, chunk));
    EXPECT_TRUE(Put(*neighbour, chunk));
    ids.push_back(chunk.id);
  }
  const absl::Time soon = options_.clock() + absl::Minutes(1), late = soon + absl::Minutes(1);
  EXPECT_EQ(neighbour->Pin({ids[0], ids[1]}, "job", soon).value_or(0), 2);
  EXPECT_EQ(view_a->Pin({ids[0], ids[1], ids[2]}, "job", late).value_or(0), 3);
  EXPECT_EQ(view_b->Pin({ids[3], ids[4]}, "job", soon).value_or(0), 2);
  for (TenantView* view : {view_a.get(), view_b.get()}) {
    const auto refused = view->Pin({ids[5]}, "job", soon);
    EXPECT_TRUE(absl::IsResourceExhausted(refused.status())) << refused.status();
  }
  EXPECT_EQ(view_b->Pin({ids[0]}, "other", late).value_or(0), 1) << "no bytes more, but a pin";
  EXPECT_TRUE(absl::IsResourceExhausted(view_a->Pin({ids[1]}, "other", late).status()));
  for (RadosChunkStore* store : {a.get(), b.get()}) {
    EXPECT_EQ(store->GetTenantUse("t")->pins, 6);
    EXPECT_EQ(store->GetTenantUse("t")->pinned_bytes, 1000);
    EXPECT_EQ(store->GetTenantUse("tt")->pins, 2);
    EXPECT_EQ(store->Stats()->pins, 8);
    // One at a time, as pages.
    absl::optional<ChunkPin> after;
    size_t listed = 0;
    for (;; ++listed) {
      const auto page = store->ListTenantPins("t", after, 1);
      ASSERT_TRUE(page.ok()) << page.status();
      if (page->empty()) break;
      if (after.has_value()) {
        EXPECT_LT(std::tie(after->id, after->owner),
                  std::tie(page->front().id, page->front().owner));
      }
      after = page->front();
    }
    EXPECT_EQ(listed, 6);
    EXPECT_TRUE(store->ListTenantPins("", absl::nullopt, 10)->empty());
    EXPECT_TRUE(store->ListTenantPins("u", absl::nullopt, 10)->empty());
  }
  EXPECT_EQ(neighbour->ListPins(absl::nullopt, 10)->size(), 2);
  // Room comes of pins that end, of chunks that go, and of those that are unpinned elsewhere.
  Pass(absl::Seconds(90));
  EXPECT_EQ(a->Expire(options_.clock(), 10).value_or(9), 0);
  EXPECT_EQ(b->GetTenantUse("t")->pins, 4);
  EXPECT_EQ(b->GetTenantUse("tt")->pins, 0);
  EXPECT_EQ(view_b->Pin({ids[5], ids[6]}, "job", late).value_or(0), 2);
  EXPECT_EQ(view_a->Unpin({ids[0], ids[5]}, absl::nullopt).value_or(0), 3);
  EXPECT_EQ(view_b->Pin({ids[7]}, "job", late).value_or(0), 1);
  EXPECT_EQ(a->GetTenantUse("t")->pinned_bytes, 800);
  Pass(absl::Minutes(1));
  EXPECT_EQ(view_a->Delete(ids).value_or(0), 8);
  EXPECT_EQ(b->GetTenantUse("t")->pins, 0);
  EXPECT_EQ(b->GetTenantUse("t")->pinned_bytes, 0);
  EXPECT_TRUE(Keys(rados_format::kOwnedPinnedPrefix).empty());
}

TEST_F(RadosChunkStoreTest, OnlyOneDaemonSweepsAtATime) {
  const auto store = Open();
  const TestChunk chunk = MakeTestChunk(1);
  EXPECT_TRUE(Put(*store, chunk));
  EXPECT_EQ(store->Delete({chunk.id}).value_or(0), 1);
  Pass(options_.retire_age + absl::Seconds(1));
  timeval seconds = {60, 0};
  ASSERT_EQ(rados_lock_exclusive(pool_->io(), rados_format::kSweepObject, "sweep", "another",
                                 "test", &seconds, 0),
            0);
  EXPECT_EQ(store->CollectGarbage().value_or(9), 0);
  ASSERT_EQ(rados_unlock(pool_->io(), rados_format::kSweepObject, "sweep", "another"), 0);
  EXPECT_EQ(store->CollectGarbage().value_or(9), 1);
}

TEST_F(RadosChunkStoreTest, DamagedMissingAndShortDataIsDataLossOfThatChunkOnly) {
  const auto store = Open();
  std::vector<TestChunk> chunks;
  for (uint64_t i = 0; i < 4; ++i) {
    chunks.push_back(Large(i));
    EXPECT_TRUE(Put(*store, chunks.back()));
  }
  const auto object_of = [&](const TestChunk& chunk, const char* part) {
    for (const auto& [name, bytes] : DataObjects()) {
      if (absl::StrContains(name, absl::StrCat(rados_format::DataKey(chunk.id).substr(1), ".")) &&
          absl::EndsWith(name, part)) {
        return name;
      }
    }
    return std::string();
  };
  ASSERT_EQ(rados_write(pool_->io(), object_of(chunks[0], ".0").c_str(), "damage", 6, 1000), 0);
  ASSERT_EQ(rados_remove(pool_->io(), object_of(chunks[1], ".1").c_str()), 0);
  ASSERT_EQ(rados_trunc(pool_->io(), object_of(chunks[2], ".1").c_str(), 1000), 0);
  const auto loses = [&](const TestChunk& chunk, uint32_t level) {
    return absl::IsDataLoss(store->ReadSegment(chunk.id, level).status());
  };
  EXPECT_TRUE(loses(chunks[0], 0));
  EXPECT_EQ(Read(*store, chunks[0].id, 1), chunks[0].segments[1]);
  EXPECT_EQ(Read(*store, chunks[1].id, 0), chunks[1].segments[0]);
  EXPECT_TRUE(loses(chunks[1], 1));
  EXPECT_TRUE(loses(chunks[1], 2));
  EXPECT_TRUE(loses(chunks[2], 2));
  for (uint32_t level = 0; level < 3; ++level) {
    EXPECT_EQ(Read(*store, chunks[3].id, level), chunks[3].segments[level]);
  }
}

TEST_F(RadosChunkStoreTest, ADamagedIndexIsDataLoss) {
  const auto store = Open();
  const TestChunk chunk = MakeTestChunk(1);
  EXPECT_TRUE(Put(*store, chunk));
  const std::string object = rados_format::IndexObject(rados_format::ShardOf(chunk.id, 8));
  std::vector<OmapWrite> writes(1);
  writes[0].object = object;
  writes[0].set = {{rados_format::DataKey(chunk.id), "nonsense"}};
  ASSERT_TRUE(pool_->Write("test", &writes).ok());
  Pass(options_.info_max_age);
  EXPECT_TRUE(absl::IsDataLoss(store->GetInfos({chunk.id}).status()));
  EXPECT_TRUE(absl::IsDataLoss(store->List(absl::nullopt, 10).status()));
  EXPECT_TRUE(absl::IsDataLoss(store->Put(chunk.id, chunk.info, chunk.views()).status()));
  ASSERT_EQ(rados_remove(pool_->io(), object.c_str()), 0);
  const auto lost = store->GetInfos({chunk.id});
  EXPECT_TRUE(absl::IsDataLoss(lost.status())) << lost.status();
  EXPECT_TRUE(absl::StrContains(lost.status().message(), object));
  EXPECT_TRUE(absl::IsDataLoss(store->Stats().status()));
}

TEST_F(RadosChunkStoreTest, RefusesWhatItCannotOpenWithASentence) {
  ASSERT_NE(Open(), nullptr);
  RadosChunkStoreOptions options = options_;
  options.pool.pool = "no-such-pool";
  auto refused = RadosChunkStore::Create(options).status();
  EXPECT_TRUE(absl::IsFailedPrecondition(refused)) << refused;
  EXPECT_TRUE(absl::StrContains(refused.message(), "ceph osd pool create")) << refused;
  options = options_;
  options.pool.conf_file = "/no/such/ceph.conf";
  refused = RadosChunkStore::Create(options).status();
  EXPECT_TRUE(absl::IsFailedPrecondition(refused)) << refused;
  options = options_;
  options.shards = 100;
  EXPECT_TRUE(absl::IsInvalidArgument(RadosChunkStore::Create(options).status()));
  options.shards = 16;
  refused = RadosChunkStore::Create(options).status();
  EXPECT_TRUE(absl::IsFailedPrecondition(refused)) << refused;
  EXPECT_TRUE(absl::StrContains(refused.message(), "has 8 shards, not 16")) << refused;
  rados_format::StoreHeader header;
  header.version = rados_format::kStoreVersion + 1;
  header.shards = 8;
  const std::string bytes = rados_format::EncodeHeader(header);
  ASSERT_EQ(rados_write_full(pool_->io(), rados_format::kHeaderObject, bytes.data(), bytes.size()),
            0);
  refused = RadosChunkStore::Create(options_).status();
  EXPECT_TRUE(absl::IsFailedPrecondition(refused)) << refused;
}

TEST_F(RadosChunkStoreTest, TheNumberOfShardsIsSettledWhenTheStoreIsMade) {
  const TestChunk chunk = MakeTestChunk(1);
  options_.shards = 2;
  EXPECT_TRUE(Put(*Open(), chunk));
  EXPECT_EQ(Keys(rados_format::kDataPrefix).size(), 1) << "in one of the two";
  uint64_t bytes = 0;
  time_t modified = 0;
  EXPECT_NE(rados_stat(pool_->io(), rados_format::IndexObject(2).c_str(), &bytes, &modified), 0);
  options_.shards = 0;  // as many as there are
  EXPECT_TRUE(Has(*Open(), chunk));
}

TEST_F(RadosChunkStoreTest, AMonitorThatDoesNotAnswerIsUnavailable) {
  RadosChunkStoreOptions options = options_;
  options.pool.settings = {{"mon_host", "[v2:127.0.0.1:1]"}};
  options.pool.connect_timeout = absl::Seconds(1);
  const absl::Status refused = RadosChunkStore::Create(options).status();
  EXPECT_TRUE(absl::IsUnavailable(refused)) << refused;
}

TEST_F(RadosChunkStoreTest, OsdsThatDoNotAnswerAreUnavailableAndComeBack) {
  options_.pool.op_timeout = absl::Seconds(1);
  const auto store = Open();
  const TestChunk chunk = MakeTestChunk(1), other = MakeTestChunk(2);
  EXPECT_TRUE(Put(*store, chunk));
  for (int osd = 0; osd < CephCluster::kOsds; ++osd) rados_test_cluster->StopOsd(osd);
  Pass(options_.info_max_age);
  EXPECT_TRUE(absl::IsUnavailable(store->GetInfos({chunk.id}).status()));
  EXPECT_TRUE(absl::IsUnavailable(store->Put(other.id, other.info, other.views()).status()));
  EXPECT_TRUE(absl::IsUnavailable(store->CollectGarbage().status()));
  // All who ask for the first time have the same answer.
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back(
        [&store] { EXPECT_TRUE(absl::IsUnavailable(store->GetTenantUse("team").status())); });
  }
  for (std::thread& thread : threads) thread.join();
  for (int osd = 0; osd < CephCluster::kOsds; ++osd) rados_test_cluster->ContinueOsd(osd);
  // What timed out may still happen; with more patience everything else is as it was.
  options_.pool.op_timeout = absl::Seconds(60);
  const auto patient = Open();
  EXPECT_TRUE(patient->Put(other.id, other.info, other.views()).ok());
  EXPECT_EQ(Read(*patient, other.id, 0), other.segments[0]);
  EXPECT_TRUE(patient->Put(chunk.id, chunk.info, chunk.views()).ok());
  EXPECT_EQ(Read(*patient, chunk.id, 0), chunk.segments[0]);
  EXPECT_EQ(patient->Stats()->chunks, 2);
}

TEST_F(RadosChunkStoreTest, NothingWaitsForCephBeyondTheCallersDeadline) {
  options_.pool.op_timeout = absl::Hours(1);
  const auto store = Open();
  const TestChunk chunk = MakeTestChunk(1), other = MakeTestChunk(2);
  EXPECT_TRUE(Put(*store, chunk));
  Pass(options_.info_max_age);
  for (int osd = 0; osd < CephCluster::kOsds; ++osd) rados_test_cluster->StopOsd(osd);
  const auto ask_everything = [&](absl::Duration time) {
    const auto in_time = [&](const std::function<absl::Status()>& ask) {
      const CallDeadline until(absl::Now() + time);
      const absl::Status status = ask();
      EXPECT_TRUE(absl::IsUnavailable(status)) << status;
    };
    in_time([&] { return store->GetInfos({chunk.id}).status(); });
    in_time([&] { return store->LongestPrefix({chunk.id}).status(); });
    in_time([&] { return store->ReadSegment(chunk.id, 0).status(); });
    in_time([&] { return store->Version(chunk.id, 0).status(); });
    in_time([&] { return store->Put(other.id, other.info, other.views()).status(); });
    in_time([&] { return store->Delete({chunk.id}).status(); });
    in_time([&] { return store->Trim({chunk.id}, 1).status(); });
    in_time([&] { return store->List(absl::nullopt, 10).status(); });
    in_time([&] { return store->Stats().status(); });
  };
  ask_everything(absl::Milliseconds(50));
  ask_everything(-absl::Seconds(1));
  // Nor for another Put of the chunk, which has more time.
  const TestChunk third = MakeTestChunk(3);
  std::thread patient([&] { EXPECT_TRUE(Put(*store, third)); });
  for (int i = 0; i < 3; ++i) {
    const CallDeadline until(absl::Now() + absl::Milliseconds(20));
    EXPECT_TRUE(absl::IsUnavailable(store->Put(third.id, third.info, third.views()).status()));
  }
  {
    // Ceph would find that it conflicts, but has not said so.
    std::vector<OmapWrite> writes(1);
    writes[0].object = rados_format::IndexObject(0);
    writes[0].expected = {{"no such key", "value"}};
    writes[0].set = {{"no such key", "other value"}};
    const CallDeadline until(absl::Now() + absl::Milliseconds(50));
    EXPECT_TRUE(absl::IsUnavailable(pool_->Write("test", &writes)));
    EXPECT_FALSE(writes[0].conflict);
  }
  // Others are not cut short: several deadlines, and none.
  std::vector<std::thread> threads;
  absl::BlockingCounter cut(4);
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&store, &cut, i] {
      const CallDeadline until(absl::Now() + absl::Milliseconds(40 * (4 - i)));
      EXPECT_TRUE(absl::IsUnavailable(store->Stats().status()));
      cut.DecrementCount();
    });
  }
  threads.emplace_back([&store] { EXPECT_TRUE(store->Stats().ok()); });
  threads.emplace_back([&store] {
    const CallDeadline until(absl::Now() + absl::Hours(1));
    EXPECT_TRUE(store->Stats().ok());
  });
  cut.Wait();
  for (int osd = 0; osd < CephCluster::kOsds; ++osd) rados_test_cluster->ContinueOsd(osd);
  for (std::thread& thread : threads) thread.join();
  patient.join();
  // Every change begins with a question, so none has happened.
  EXPECT_EQ(Read(*store, chunk.id, 0), chunk.segments[0]);
  EXPECT_FALSE(Has(*store, other));
  EXPECT_TRUE(Put(*store, other));
  EXPECT_EQ(store->Stats()->chunks, 3);
  EXPECT_TRUE(AuditRados(*pool_, options_.shards).empty());
}

}  // namespace
}  // namespace kvstream

int main(int argc, char** argv) { return kvstream::RunRadosTests(argc, argv); }

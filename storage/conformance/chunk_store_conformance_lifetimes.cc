// Chunks that expire, are pinned, are to be deleted, and follow one another.
#include <algorithm>
#include <map>
#include <random>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "storage/chunk_limits.h"
#include "storage/conformance/chunk_store_conformance.h"
#include "storage/id_text.h"

namespace kvstream {

TestChunk ChunkStoreLifetimes::Expiring(uint64_t number, absl::Time expires) {
  TestChunk chunk = MakeTestChunk(number);
  chunk.info.expires = expires;
  return chunk;
}

size_t ChunkStoreLifetimes::Expire(absl::Time now, size_t limit) {
  const auto expired = store().Expire(now, limit);
  EXPECT_TRUE(expired.ok()) << expired.status();
  return expired.value_or(0);
}

size_t ChunkStoreLifetimes::Pin(const std::vector<ChunkId>& ids, const std::string& owner,
                                absl::Time until) {
  const auto pinned = store().Pin(ids, owner, until);
  EXPECT_TRUE(pinned.ok()) << pinned.status();
  return pinned.value_or(0);
}

size_t ChunkStoreLifetimes::Delete(const std::vector<ChunkId>& ids) {
  const auto deleted = store().Delete(ids);
  EXPECT_TRUE(deleted.ok()) << deleted.status();
  return deleted.value_or(0);
}

std::vector<std::string> ChunkStoreLifetimes::Owners(const ChunkId& id) {
  const auto pins = store().PinsOf({id});
  EXPECT_TRUE(pins.ok()) << pins.status();
  std::vector<std::string> owners;
  for (const ChunkPin& pin : pins.value_or(std::vector<ChunkPin>())) owners.push_back(pin.owner);
  return owners;
}

// Not every driver has them.
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(ChunkStoreLifetimes);

namespace {

TEST_P(ChunkStoreLifetimes, ExpireTakesWhatIsDueAndNothingElse) {
  const TestChunk due = Expiring(1, In(10)), later = Expiring(2, In(11)),
                  never = Expiring(3, absl::InfiniteFuture()), past = Expiring(4, In(-2000000));
  for (const TestChunk& chunk : {due, later, never, past}) EXPECT_TRUE(Put(chunk));
  for (const TestChunk& chunk : {due, later, never, past}) ExpectStored(chunk);
  EXPECT_EQ(Expire(In(0)), 1);
  ExpectAbsent(past);
  EXPECT_EQ(Expire(In(10) - absl::Nanoseconds(1)), 0);
  EXPECT_EQ(Expire(In(10)), 1);
  ExpectAbsent(due);
  ExpectStored(later);
  Reopen();
  ExpectAbsent(due);
  ExpectStored(later);
  EXPECT_EQ(Expire(In(1000)), 1);
  ExpectAbsent(later);
  ExpectStored(never);
  EXPECT_EQ(Expire(In(100000)), 0);
}

TEST_P(ChunkStoreLifetimes, ExpireKeepsToItsLimit) {
  constexpr uint64_t kChunks = 700;  // more than any driver writes at once
  for (uint64_t i = 0; i < kChunks; ++i) {
    TestChunk chunk = Expiring(i, In(static_cast<int64_t>(i % 3)));
    chunk.segments = {"x"};
    chunk.info.segment_bytes = {1};
    EXPECT_TRUE(Put(chunk));
  }
  EXPECT_EQ(Expire(In(5), 0), 0);
  EXPECT_EQ(Expire(In(5), 10), 10);
  EXPECT_EQ(Expire(In(5), 300), 300);
  EXPECT_EQ(Expire(In(5), 1000), kChunks - 310);
  EXPECT_EQ(Expire(In(5), 1000), 0);
  const auto listed = store().List(absl::nullopt, 10);
  ASSERT_TRUE(listed.ok()) << listed.status();
  EXPECT_TRUE(listed->empty());
}

TEST_P(ChunkStoreLifetimes, AChunkPutWithAPastExpiryAfterASweepStillGoes) {
  EXPECT_TRUE(Put(Expiring(1, In(10))));
  EXPECT_EQ(Expire(In(20)), 1);
  EXPECT_TRUE(Put(Expiring(2, In(5))));
  EXPECT_EQ(Expire(In(20)), 1);
  ExpectAbsent(MakeTestChunk(2));
}

TEST_P(ChunkStoreLifetimes, PuttingAgainExtendsAndNeverShortens) {
  TestChunk chunk = Expiring(1, In(10));
  EXPECT_TRUE(Put(chunk));
  TestChunk again = chunk;
  again.info.expires = In(5);
  EXPECT_FALSE(Put(again));
  ExpectStored(chunk);
  again.info.expires = In(20);
  again.info.created += absl::Seconds(1);  // stays what it was
  EXPECT_FALSE(Put(again));
  chunk.info.expires = In(20);
  ExpectStored(chunk);
  EXPECT_EQ(Expire(In(19)), 0);
  again.info.expires = absl::InfiniteFuture();
  EXPECT_FALSE(Put(again));
  chunk.info.expires = absl::InfiniteFuture();
  Reopen();
  ExpectStored(chunk);
  EXPECT_EQ(Expire(In(100)), 0);
}

TEST_P(ChunkStoreLifetimes, RenewExtendsWhatIsStored) {
  TestChunk a = Expiring(1, In(10)), b = Expiring(2, In(30));
  EXPECT_TRUE(Put(a));
  EXPECT_TRUE(Put(b));
  const auto renewed = store().Renew({a.id, b.id, a.id, TestId(99)}, In(20));
  ASSERT_TRUE(renewed.ok()) << renewed.status();
  EXPECT_EQ(*renewed, 2);
  a.info.expires = In(20);
  ExpectStored(a);
  ExpectStored(b);
  EXPECT_EQ(Expire(In(19)), 0);
  EXPECT_EQ(Expire(In(20)), 1);
  ExpectStored(b);
  EXPECT_TRUE(absl::IsInvalidArgument(store().Renew({b.id}, absl::InfinitePast()).status()));
}

TEST_P(ChunkStoreLifetimes, HeldChunksExpireOnceTheyAreLetGo) {
  const TestChunk chunk = Expiring(1, In(10)), other = Expiring(2, In(11));
  EXPECT_TRUE(Put(chunk));
  EXPECT_TRUE(Put(other));
  ChunkHold hold = store().Hold({chunk.id});
  EXPECT_EQ(Expire(In(20)), 1);
  ExpectStored(chunk);
  EXPECT_EQ(Expire(In(20)), 0);
  hold = ChunkHold();
  EXPECT_EQ(Expire(In(20)), 1);
  ExpectAbsent(chunk);
}

// What Expire puts off until the end of a pin may be forgotten there when the chunk is renewed.
TEST_P(ChunkStoreLifetimes, HeldChunksStayAfterAPinAndARenewal) {
  const TestChunk chunk = Expiring(1, In(10));
  EXPECT_TRUE(Put(chunk));
  EXPECT_EQ(Pin({chunk.id}, "job", In(20)), 1);
  EXPECT_EQ(Expire(In(15)), 0);
  EXPECT_EQ(store().Unpin({chunk.id}, std::string("job")).value_or(99), 1);
  EXPECT_EQ(store().Renew({chunk.id}, In(30)).value_or(99), 1);
  ChunkHold hold = store().Hold({chunk.id});
  EXPECT_EQ(Expire(In(40)), 0);
  EXPECT_EQ(Expire(In(41)), 0);
  const auto infos = store().GetInfos({chunk.id});
  ASSERT_TRUE(infos.ok()) << infos.status();
  EXPECT_TRUE(infos->front().has_value());
  hold = ChunkHold();
  EXPECT_EQ(Expire(In(42)), 1);
  ExpectAbsent(chunk);
}

TEST_P(ChunkStoreLifetimes, PinnedChunksStay) {
  TestChunk chunk = Expiring(1, In(10));
  chunk.segments = {"base", "finer"};
  chunk.info.segment_bytes = {4, 5};
  EXPECT_TRUE(Put(chunk));
  EXPECT_EQ(Pin({chunk.id, TestId(99), chunk.id}, "job", In(50)), 1);
  EXPECT_EQ(Delete({chunk.id}), 0);
  EXPECT_EQ(store().Trim({chunk.id}, 1).value_or(99), 0);
  EXPECT_EQ(store().DeleteSoon({chunk.id}).value_or(99), 0);
  EXPECT_EQ(Expire(In(20)), 0);
  Reopen();
  ExpectStored(chunk);
  EXPECT_EQ(Delete({chunk.id}), 0);
  const auto stats = store().Stats();
  ASSERT_TRUE(stats.ok()) << stats.status();
  // Stats of a tenant's view say nothing of pins.
  EXPECT_EQ(stats->pins, target().of_tenant() ? 0 : 1);
  EXPECT_EQ(stats->pinned_bytes, target().of_tenant() ? 0 : 9);
  EXPECT_EQ(Expire(In(50)), 1) << "the pin has ended, so the chunk goes";
  ExpectAbsent(chunk);
  EXPECT_TRUE(Owners(chunk.id).empty());
}

TEST_P(ChunkStoreLifetimes, UnpinnedChunksExpireAndCanBeDeleted) {
  const TestChunk a = Expiring(1, In(10)), b = Expiring(2, absl::InfiniteFuture());
  EXPECT_TRUE(Put(a));
  EXPECT_TRUE(Put(b));
  EXPECT_EQ(Pin({a.id, b.id}, "job", In(50)), 2);
  EXPECT_EQ(Pin({a.id, b.id}, "other", In(60)), 2);
  EXPECT_EQ(Expire(In(20)), 0);
  EXPECT_EQ(store().Unpin({a.id, b.id, TestId(99)}, std::string("job")).value_or(99), 2);
  EXPECT_EQ(store().Unpin({a.id, b.id}, std::string("job")).value_or(99), 0);
  EXPECT_EQ(Expire(In(20)), 0);
  EXPECT_EQ(Delete({b.id}), 0);
  EXPECT_EQ(store().Unpin({a.id, b.id}, absl::nullopt).value_or(99), 2);
  EXPECT_EQ(Expire(In(20)), 1);
  ExpectAbsent(a);
  EXPECT_EQ(Delete({b.id}), 1);
}

TEST_P(ChunkStoreLifetimes, APinThatIsOverByTheStoresClockHoldsNothing) {
  const TestChunk chunk = MakeTestChunk(1);
  EXPECT_TRUE(Put(chunk));
  EXPECT_EQ(Pin({chunk.id}, "job", absl::Now() - absl::Hours(1)), 1);
  EXPECT_EQ(Delete({chunk.id}), 1);
  ExpectAbsent(chunk);
  EXPECT_TRUE(Owners(chunk.id).empty());
}

TEST_P(ChunkStoreLifetimes, PinsAreListedPageByPage) {
  std::set<std::pair<ChunkId, std::string>> expected;
  for (uint64_t i = 0; i < 9; ++i) {
    EXPECT_TRUE(Put(MakeTestChunk(i)));
    for (uint64_t owner = 0; owner <= i % 3; ++owner) {
      EXPECT_EQ(Pin({TestId(i)}, absl::StrCat("owner", owner), In(7)), 1);
      expected.emplace(TestId(i), absl::StrCat("owner", owner));
    }
  }
  EXPECT_EQ(Pin({TestId(0)}, "owner0", In(8)), 1) << "replaced";
  Reopen();
  std::set<std::pair<ChunkId, std::string>> found;
  absl::optional<ChunkPin> after;
  while (true) {
    const auto page = store().ListPins(after, 4);
    ASSERT_TRUE(page.ok()) << page.status();
    for (const ChunkPin& pin : *page) {
      EXPECT_TRUE(target().of_tenant() || found.empty() ||
                  *found.rbegin() < std::make_pair(pin.id, pin.owner));
      EXPECT_TRUE(found.emplace(pin.id, pin.owner).second) << "listed twice";
      EXPECT_EQ(pin.until, pin.id == TestId(0) ? In(8) : In(7));
    }
    if (page->size() < 4) break;
    after = page->back();
  }
  EXPECT_EQ(found, expected);
  EXPECT_EQ(Owners(TestId(2)), (std::vector<std::string>{"owner0", "owner1", "owner2"}));
}

TEST_P(ChunkStoreLifetimes, RefusesPinsOutOfRange) {
  EXPECT_TRUE(Put(MakeTestChunk(1)));
  for (const std::string& owner : {std::string(), std::string(kMaxPinOwnerBytes + 1, 'o')}) {
    EXPECT_TRUE(absl::IsInvalidArgument(store().Pin({TestId(1)}, owner, In(1)).status()));
  }
  const auto endless = store().Pin({TestId(1)}, "job", absl::InfiniteFuture());
  EXPECT_TRUE(absl::IsInvalidArgument(endless.status())) << "every pin ends";
  EXPECT_TRUE(Owners(TestId(1)).empty());
}

TEST_P(ChunkStoreLifetimes, WhatIsToBeDeletedSoonGoesAtTheNextOpening) {
  const TestChunk soon = MakeTestChunk(1), back = MakeTestChunk(2), renewed = MakeTestChunk(3),
                  other = MakeTestChunk(4), deleted = MakeTestChunk(5);
  for (const TestChunk& chunk : {soon, back, renewed, other, deleted}) EXPECT_TRUE(Put(chunk));
  const auto noted =
      store().DeleteSoon({soon.id, back.id, renewed.id, deleted.id, TestId(99), soon.id});
  ASSERT_TRUE(noted.ok()) << noted.status();
  EXPECT_EQ(*noted, 4);
  ExpectStored(soon);
  EXPECT_FALSE(Put(back)) << "it is there";
  EXPECT_EQ(store().Renew({renewed.id}, In(-2000000)).value_or(0), 1);
  EXPECT_EQ(Delete({deleted.id}), 1);
  EXPECT_TRUE(Put(deleted)) << "a new one, of which nothing was promised";
  if (!target().persistent()) return;
  Reopen();
  ExpectAbsent(soon);
  for (const TestChunk& chunk : {back, renewed, other, deleted}) ExpectStored(chunk);
  Reopen();
  for (const TestChunk& chunk : {back, renewed, other, deleted}) ExpectStored(chunk);
}

TEST_P(ChunkStoreLifetimes, ChildrenAreThoseThatAreStored) {
  const ChunkId parent = TestId(1000);
  std::set<ChunkId> expected;
  for (uint64_t i = 0; i < 5; ++i) {
    TestChunk chunk = MakeTestChunk(i);
    chunk.info.parent = parent;
    chunk.info.first_token = 256;
    EXPECT_TRUE(Put(chunk));
    expected.insert(chunk.id);
  }
  EXPECT_TRUE(Put(Expiring(77, absl::InfiniteFuture())));
  const auto children = [&](size_t limit) {
    const auto found = store().Children(parent, limit);
    EXPECT_TRUE(found.ok()) << found.status();
    std::vector<ChunkId> ids = found.value_or(std::vector<ChunkId>());
    if (target().of_tenant()) std::sort(ids.begin(), ids.end());
    return ids;
  };
  EXPECT_EQ(children(100), std::vector<ChunkId>(expected.begin(), expected.end()));
  EXPECT_EQ(children(2).size(), 2);
  EXPECT_EQ(Delete({TestId(0), TestId(3)}), 2);
  expected.erase(TestId(0));
  expected.erase(TestId(3));
  Reopen();
  EXPECT_EQ(children(100), std::vector<ChunkId>(expected.begin(), expected.end()));
  EXPECT_TRUE(store().Children(TestId(5000), 10)->empty());
}

// Random operations against plain maps. A pin lasts until Expire is told of a later time.
TEST_P(ChunkStoreLifetimes, DoesWhatPlainMapsWouldDo) {
  const uint64_t seed = TestSeed();
  std::mt19937_64 random(seed);
  const auto draw = [&random](uint64_t below) { return random() % below; };
  constexpr uint64_t kIds = 24;
  std::map<ChunkId, TestChunk> model;
  std::map<ChunkId, std::map<std::string, absl::Time>> pins;
  std::set<ChunkId> soon;
  std::map<ChunkId, ChunkHold> holds;
  int64_t clock = 0;
  for (int step = 0; step < 1500 && !HasFailure(); ++step) {
    SCOPED_TRACE(absl::StrCat("seed ", seed, ", step ", step));
    const uint64_t number = draw(kIds);
    const ChunkId id = TestId(number);
    const bool stored = model.count(id) > 0;
    const absl::Time later = In(clock + static_cast<int64_t>(draw(60)) - 10);
    const std::string owner = absl::StrCat("owner", draw(3));
    switch (draw(11)) {
      case 0:
      case 1:
      case 2: {
        TestChunk chunk = Expiring(number, draw(4) == 0 ? absl::InfiniteFuture() : later);
        EXPECT_EQ(Put(chunk), !stored);
        if (stored) {
          model[id].info.expires = std::max(model[id].info.expires, chunk.info.expires);
        } else {
          model[id] = chunk;
        }
        soon.erase(id);
        break;
      }
      case 3:
        EXPECT_EQ(store().Renew({id}, later).value_or(99), stored ? 1 : 0);
        if (stored) model[id].info.expires = std::max(model[id].info.expires, later);
        soon.erase(id);
        break;
      case 4: {
        EXPECT_EQ(Delete({id}), stored && pins.count(id) == 0 ? 1 : 0);
        if (pins.count(id) == 0) {
          model.erase(id);
          soon.erase(id);
        }
        break;
      }
      case 5:
        EXPECT_EQ(Pin({id}, owner, later), stored ? 1 : 0);
        if (stored) pins[id][owner] = later;
        break;
      case 6: {
        const bool there = pins.count(id) > 0 && pins[id].count(owner) > 0;
        EXPECT_EQ(store().Unpin({id}, owner).value_or(99), there ? 1 : 0);
        if (there && pins[id].size() == 1) {
          pins.erase(id);
        } else if (there) {
          pins[id].erase(owner);
        }
        break;
      }
      case 7: {
        if (holds.count(id) > 0) {
          holds.erase(id);
        } else {
          holds[id] = store().Hold({id});
        }
        break;
      }
      case 8: {
        clock += static_cast<int64_t>(draw(15));
        for (auto chunk = pins.begin(); chunk != pins.end();) {
          for (auto pin = chunk->second.begin(); pin != chunk->second.end();) {
            pin = pin->second <= In(clock) ? chunk->second.erase(pin) : std::next(pin);
          }
          chunk = chunk->second.empty() ? pins.erase(chunk) : std::next(chunk);
        }
        size_t due = 0;
        for (auto chunk = model.begin(); chunk != model.end();) {
          const bool goes = chunk->second.info.expires <= In(clock) &&
                            pins.count(chunk->first) == 0 && holds.count(chunk->first) == 0;
          due += goes ? 1 : 0;
          if (goes) soon.erase(chunk->first);
          chunk = goes ? model.erase(chunk) : std::next(chunk);
        }
        EXPECT_EQ(Expire(In(clock)), due);
        break;
      }
      case 9:
        EXPECT_EQ(store().DeleteSoon({id}).value_or(99), stored && pins.count(id) == 0 ? 1 : 0);
        if (stored && pins.count(id) == 0) soon.insert(id);
        break;
      default:
        if (draw(12) != 0 || !target().persistent()) break;
        holds.clear();
        Reopen();
        for (const ChunkId& gone : soon) {
          if (pins.count(gone) == 0) model.erase(gone);
        }
        soon.clear();
    }
    const auto infos = store().GetInfos({id});
    ASSERT_TRUE(infos.ok()) << infos.status();
    ASSERT_EQ(infos->front().has_value(), model.count(id) > 0);
    EXPECT_TRUE(!infos->front() || Same(*infos->front(), model[id].info));
    EXPECT_EQ(Owners(id).size(), pins.count(id) > 0 ? pins[id].size() : 0);
    if (step % 100 != 0) continue;
    const auto listed = store().List(absl::nullopt, 1000);
    ASSERT_TRUE(listed.ok()) << listed.status();
    EXPECT_EQ(listed->size(), model.size());
    std::map<ChunkId, std::set<ChunkId>> children;
    for (const auto& [child, chunk] : model) {
      if (chunk.info.parent) children[*chunk.info.parent].insert(child);
    }
    for (uint64_t i = 0; i < kIds; ++i) {
      const auto found = store().Children(TestId(i), 1000);
      ASSERT_TRUE(found.ok()) << found.status();
      EXPECT_EQ(std::set<ChunkId>(found->begin(), found->end()), children[TestId(i)]);
    }
  }
}

}  // namespace
}  // namespace kvstream

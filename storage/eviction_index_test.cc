#include "storage/eviction_index.h"

#include <gtest/gtest.h>

#include <map>
#include <random>
#include <set>
#include <vector>

#include "storage/conformance/test_chunks.h"

namespace kvstream {
namespace {

const auto kNotHeld = [](const ChunkId&) { return false; };

ChunkInfo Info(std::vector<uint64_t> segment_bytes, uint64_t first_token = 0,
               absl::optional<ChunkId> parent = absl::nullopt) {
  ChunkInfo info;
  info.tokens = 256;
  info.first_token = first_token;
  info.parent = parent;
  info.segment_bytes = std::move(segment_bytes);
  return info;
}

// Everything, one unit at a time, in the order in which it goes.
std::vector<std::pair<ChunkId, uint32_t>> Drain(EvictionIndex* index) {
  std::vector<std::pair<ChunkId, uint32_t>> order;
  while (true) {
    const auto victims = index->Take(1, 1, kNotHeld);
    if (victims.empty()) return order;
    order.emplace_back(victims[0].id, victims[0].keep_levels);
  }
}

TEST(EvictionIndexTest, QualityFallsBeforeContextsVanish) {
  EvictionIndex index;
  for (uint64_t i = 0; i < 4; ++i) index.Put(TestId(i), Info({100, 100, 200, 400}));
  const auto order = Drain(&index);
  ASSERT_EQ(order.size(), 16);
  for (size_t i = 0; i < 16; ++i) EXPECT_EQ(order[i].second, 3 - i / 4) << i;
  EXPECT_EQ(index.chunks(), 0);
  EXPECT_EQ(index.payload_bytes(), 0);
}

TEST(EvictionIndexTest, TheTailGoesBeforeTheHead) {
  EvictionIndex index;
  constexpr uint64_t kChunks = 20;
  for (uint64_t i = 0; i < kChunks; ++i) {
    index.Put(TestId(i),
              Info({100}, 256 * i, i == 0 ? absl::nullopt : absl::make_optional(TestId(i - 1))));
  }
  const auto order = Drain(&index);
  ASSERT_EQ(order.size(), kChunks);
  for (uint64_t i = 0; i < kChunks; ++i) EXPECT_EQ(order[i].first, TestId(kChunks - 1 - i));
}

TEST(EvictionIndexTest, ASharedHeadOutlivesEveryTail) {
  EvictionIndex index;
  index.Put(TestId(0), Info({100}));
  for (uint64_t i = 1; i < 5; ++i) index.Put(TestId(i), Info({100}, 256, TestId(0)));
  const auto order = Drain(&index);
  ASSERT_EQ(order.size(), 5);
  EXPECT_EQ(order.back().first, TestId(0));
}

TEST(EvictionIndexTest, WhatIsUsedStays) {
  EvictionIndex index;
  for (uint64_t i = 0; i < 10; ++i) index.Put(TestId(i), Info({100}));
  index.Touch(TestId(3));
  index.Touch(TestId(3));
  index.Touch(TestId(7));
  const auto order = Drain(&index);
  ASSERT_EQ(order.size(), 10);
  EXPECT_EQ(order[8].first, TestId(7));
  EXPECT_EQ(order[9].first, TestId(3));
}

TEST(EvictionIndexTest, WhatIsPinnedStaysUntilItIsNotAnyMore) {
  EvictionIndex index;
  for (uint64_t i = 0; i < 10; ++i) index.Put(TestId(i), Info({100, 100}));
  index.SetPinned(TestId(3), true);
  index.SetPinned(TestId(99), true);  // not stored
  for (const auto& [id, keep_levels] : Drain(&index)) EXPECT_NE(id, TestId(3));
  EXPECT_EQ(index.chunks(), 1);
  EXPECT_EQ(index.payload_bytes(), 200);
  index.SetPinned(TestId(3), false);
  EXPECT_EQ(Drain(&index).size(), 2);
  // Whoever stores it again is not pinned.
  index.Put(TestId(4), Info({100}));
  index.SetPinned(TestId(4), true);
  index.Remove(TestId(4));
  index.Put(TestId(4), Info({100}));
  EXPECT_EQ(Drain(&index).size(), 1);
}

TEST(EvictionIndexTest, OldFameFades) {
  EvictionIndex index;
  index.Put(TestId(0), Info({100}));
  for (int i = 0; i < 1000; ++i) index.Touch(TestId(0));
  // Each newcomer pushes one out; the famous chunk, never used again, goes in the end.
  int rounds = 0;
  for (uint64_t i = 1; index.value(TestId(0)).has_value() && rounds < 1000; ++i, ++rounds) {
    index.Put(TestId(i), Info({100}));
    if (i > 8) index.Take(1, 1, kNotHeld);
  }
  EXPECT_GT(rounds, 64);
  EXPECT_LT(rounds, 1000);
}

TEST(EvictionIndexTest, WhatIsDearToRecomputeStaysLongerThanItsBytesSay) {
  EvictionIndex index;
  index.Put(TestId(1), Info({100}, 0));
  index.Put(TestId(2), Info({200}, 100 * 256));  // twice the bytes, four times the work
  index.Put(TestId(3), Info({100, 1}));          // one more byte for half of its worth
  const auto order = Drain(&index);
  ASSERT_EQ(order.size(), 4);
  EXPECT_EQ(order[0].first, TestId(1));
  EXPECT_EQ(order[3].first, TestId(3));
}

TEST(EvictionIndexTest, PassesOverWhatIsHeld) {
  EvictionIndex index;
  for (uint64_t i = 0; i < 5; ++i) index.Put(TestId(i), Info({100, 50}));
  const std::set<ChunkId> held = {TestId(1), TestId(2)};
  const auto is_held = [&held](const ChunkId& id) { return held.count(id) > 0; };
  const auto victims = index.Take(10000, 100, is_held);
  EXPECT_EQ(victims.size(), 3);
  for (const auto& victim : victims) {
    EXPECT_EQ(held.count(victim.id), 0);
    EXPECT_EQ(victim.keep_levels, 0);
    EXPECT_EQ(victim.bytes, 150);
  }
  EXPECT_EQ(index.payload_bytes(), 300);
  EXPECT_EQ(index.Take(10000, 100, kNotHeld).size(), 2);
}

TEST(EvictionIndexTest, TakesNoMoreThanItWasAskedFor) {
  EvictionIndex index;
  for (uint64_t i = 0; i < 5; ++i) index.Put(TestId(i), Info({100, 50}));
  const auto some = index.Take(120, 100, kNotHeld);
  uint64_t freed = 0;
  for (const auto& victim : some) freed += victim.bytes;
  EXPECT_EQ(freed, 150);
  EXPECT_EQ(index.Take(10000, 2, kNotHeld).size(), 2);
  EXPECT_TRUE(index.Take(0, 2, kNotHeld).empty());
}

TEST(EvictionIndexTest, LiesAboutParentsCannotMakeChunksImmortal) {
  EvictionIndex index;
  index.Put(TestId(1), Info({100}, 256, TestId(1)));
  index.Put(TestId(2), Info({100}, 256, TestId(3)));
  index.Put(TestId(3), Info({100}, 512, TestId(4)));
  index.Put(TestId(4), Info({100}, 768, TestId(2)));
  index.Put(TestId(5), Info({100}, 256, TestId(6)));
  index.Put(TestId(6), Info({100}, 256, TestId(5)));
  EXPECT_EQ(Drain(&index).size(), 6);
  EXPECT_EQ(index.chunks(), 0);
}

TEST(EvictionIndexTest, KeepsUsageAcrossRestarts) {
  EvictionIndex before;
  for (uint64_t i = 0; i < 50; ++i) before.Put(TestId(i), Info({1000 + i, 51, 203}));
  std::mt19937_64 random(TestSeed());
  for (int i = 0; i < 100; ++i) {
    before.Touch(TestId(random() % 50));
    before.Take(random() % 3, 1, kNotHeld);
  }
  EvictionIndex after;
  after.set_clock(before.clock());
  for (uint64_t i = 0; i < 50; ++i) {
    if (!before.value(TestId(i)).has_value()) continue;
    std::vector<uint64_t> sizes = {1000 + i, 51, 203};
    // As many levels as are left: the cheapest way to find out is the value.
    for (; !sizes.empty(); sizes.pop_back()) {
      after.Put(TestId(i), Info(sizes), before.usage(TestId(i)));
      if (after.value(TestId(i)) == before.value(TestId(i))) break;
    }
    EXPECT_FALSE(sizes.empty());
  }
  EXPECT_EQ(after.payload_bytes(), before.payload_bytes());
  EXPECT_TRUE(Drain(&after) == Drain(&before));
}

// A model that looks at every chunk each time.
TEST(EvictionIndexTest, RandomOperationsAgreeWithAModel) {
  struct Known {
    ChunkInfo info;
    double used_at = 0;
    double uses = 1;
  };
  std::mt19937_64 random(TestSeed());
  const auto draw = [&random](uint64_t below) { return random() % below; };
  EvictionIndex index;
  std::map<ChunkId, Known> model;
  double clock = 0;
  constexpr uint64_t kIds = 60;
  const auto value = [](const Known& known) {
    const double tokens = known.info.tokens;
    const float saved =
        static_cast<float>(tokens * (1 + (known.info.first_token + tokens / 2) / 8192));
    const size_t level = known.info.segment_bytes.size() - 1;
    return known.used_at + known.uses * saved / known.info.segment_bytes[level] / (1 << level);
  };
  const auto has_child = [&model](const ChunkId& id) {
    for (const auto& [other, known] : model) {
      if (known.info.parent == id) return true;
    }
    return false;
  };
  for (int step = 0; step < 20000 && !HasFailure(); ++step) {
    SCOPED_TRACE(step);
    const uint64_t number = draw(kIds);
    const ChunkId id = TestId(number);
    switch (draw(8)) {
      case 0:
      case 1: {
        std::vector<uint64_t> sizes;
        for (uint64_t i = 1 + draw(4); i > 0; --i) sizes.push_back(1 + draw(1000));
        // Trees: the parent has a smaller number.
        const auto info = number == 0 ? Info(sizes) : Info(sizes, 256 * number, TestId(number / 2));
        Known& known = model.emplace(id, Known{info, clock, 1}).first->second;
        known.info = info;
        index.Put(id, info);
        break;
      }
      case 2:
        index.Remove(id);
        model.erase(id);
        break;
      case 3:
      case 4:
        index.Touch(id);
        if (const auto found = model.find(id); found != model.end()) {
          found->second.used_at = clock;
          found->second.uses = std::min(found->second.uses + 1, 64.0);
        }
        break;
      default: {
        const ChunkId held = TestId(draw(kIds));
        const auto victims =
            index.Take(1, 1, [&held](const ChunkId& other) { return other == held; });
        double least = 0;
        const ChunkId* expected = nullptr;
        for (const auto& [other, known] : model) {
          if (other == held || (known.info.segment_bytes.size() == 1 && has_child(other))) continue;
          if (expected != nullptr && value(known) >= least) continue;
          least = value(known);
          expected = &other;
        }
        ASSERT_EQ(victims.empty(), expected == nullptr);
        if (victims.empty()) break;
        Known& known = model.at(victims[0].id);
        // Ties may go either way.
        EXPECT_NE(victims[0].id, held);
        EXPECT_NEAR(value(known), least, 1e-6 * std::max(1.0, least));
        EXPECT_EQ(victims[0].keep_levels, known.info.segment_bytes.size() - 1);
        EXPECT_EQ(victims[0].bytes, known.info.segment_bytes.back());
        clock = std::max(clock, value(known));
        known.info.segment_bytes.pop_back();
        if (known.info.segment_bytes.empty()) {
          EXPECT_FALSE(has_child(victims[0].id));
          model.erase(victims[0].id);
        }
      }
    }
    uint64_t bytes = 0;
    for (const auto& [other, known] : model) {
      for (const uint64_t size : known.info.segment_bytes) bytes += size;
    }
    EXPECT_EQ(index.chunks(), model.size());
    EXPECT_EQ(index.payload_bytes(), bytes);
  }
}

}  // namespace
}  // namespace kvstream

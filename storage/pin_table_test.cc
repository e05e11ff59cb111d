#include "storage/pin_table.h"

#include <gtest/gtest.h>

#include <map>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "storage/conformance/test_chunks.h"

namespace kvstream {
namespace {

constexpr absl::Time kNow = absl::UnixEpoch();

absl::Time In(int64_t seconds) { return kNow + absl::Seconds(seconds); }

TEST(PinTableTest, AChunkIsPinnedUntilItsLastOwnersPinEnds) {
  PinTable table(PinTable::kNoBound);
  PinTable::Before before;
  ASSERT_TRUE(table.Set({{TestId(1), 10}}, "a", In(5), &before).ok());
  ASSERT_TRUE(table.Set({{TestId(1), 10}}, "b", In(9), &before).ok());
  EXPECT_TRUE(table.Pinned(TestId(1), In(8)));
  EXPECT_FALSE(table.Pinned(TestId(1), In(9)));
  EXPECT_FALSE(table.Pinned(TestId(2), In(0)));
  EXPECT_EQ(table.pins(), 2);
  EXPECT_EQ(table.bytes(), 10) << "a chunk counts once";
  EXPECT_TRUE(table.Remove(TestId(1), "b"));
  EXPECT_FALSE(table.Remove(TestId(1), "b"));
  EXPECT_FALSE(table.Pinned(TestId(1), In(5)));
  EXPECT_TRUE(table.Remove(TestId(1), "a"));
  EXPECT_EQ(table.bytes(), 0);
}

TEST(PinTableTest, BeyondItsBytesItTakesNone) {
  PinTable table(100);
  PinTable::Before before;
  ASSERT_TRUE(table.Set({{TestId(1), 60}}, "a", In(5), &before).ok());
  const absl::Status refused = table.Set({{TestId(2), 40}, {TestId(3), 1}}, "a", In(5), &before);
  EXPECT_TRUE(absl::IsResourceExhausted(refused)) << refused;
  EXPECT_FALSE(table.Pinned(TestId(2), In(0)));
  EXPECT_TRUE(table.Set({{TestId(1), 60}, {TestId(2), 40}}, "b", In(5), &before).ok());
  EXPECT_EQ(table.bytes(), 100);
}

TEST(PinTableTest, BeyondItsNumberItTakesNone) {
  PinTable table(PinTable::kNoBound);
  PinTable::Before before;
  std::vector<PinTable::Item> items;
  for (uint64_t i = 0; i < PinTable::kPinsMax; ++i) items.push_back({TestId(i), 1});
  ASSERT_TRUE(table.Set(items, "a", In(5), &before).ok());
  EXPECT_TRUE(table.Set(items, "a", In(6), &before).ok()) << "they are replaced";
  EXPECT_TRUE(absl::IsResourceExhausted(table.Set({{TestId(1), 1}}, "b", In(5), &before)));
  EXPECT_EQ(table.pins(), PinTable::kPinsMax);
}

TEST(PinTableTest, UndoBringsBackWhatWas) {
  PinTable table(PinTable::kNoBound);
  PinTable::Before before;
  ASSERT_TRUE(table.Set({{TestId(1), 10}}, "a", In(5), &before).ok());
  const std::vector<PinTable::Item> items = {{TestId(1), 10}, {TestId(2), 20}};
  ASSERT_TRUE(table.Set(items, "a", In(9), &before).ok());
  EXPECT_EQ(table.bytes(), 30);
  table.Undo(items, "a", before);
  EXPECT_EQ(table.bytes(), 10);
  EXPECT_TRUE(table.Pinned(TestId(1), In(4)));
  EXPECT_FALSE(table.Pinned(TestId(1), In(5)));
  EXPECT_FALSE(table.Pinned(TestId(2), In(4)));
}

TEST(PinTableTest, IsWhatAPlainMapWouldBe) {
  std::mt19937_64 random(TestSeed());
  PinTable table(PinTable::kNoBound);
  std::map<std::pair<ChunkId, std::string>, absl::Time> model;
  const auto tenant_of = [](uint64_t number) {
    return std::vector<std::string>{"", "a", "ab"}[number % 3];
  };
  for (int step = 0; step < 5000; ++step) {
    const uint64_t number = random() % 20;
    const ChunkId id = TestId(number);
    const std::string owner = absl::StrCat("owner ", random() % 4);
    if (random() % 2 == 0) {
      const absl::Time until = In(static_cast<int64_t>(random() % 100));
      PinTable::Before before;
      ASSERT_TRUE(table.Set({{id, number + 1, tenant_of(number)}}, owner, until, &before).ok());
      model[{id, owner}] = until;
    } else {
      EXPECT_EQ(table.Remove(id, owner), model.erase({id, owner}) == 1);
    }
    uint64_t bytes = 0;
    absl::optional<ChunkId> last;
    for (const auto& [key, until] : model) {
      if (last != key.first) {
        for (uint64_t i = 0; i < 20; ++i) bytes += TestId(i) == key.first ? i + 1 : 0;
      }
      last = key.first;
    }
    ASSERT_EQ(table.bytes(), bytes);
    ASSERT_EQ(table.pins(), model.size());
    if (step % 50 != 0) continue;
    for (uint64_t t = 1; t < 3; ++t) {
      PinTable::Use use;
      std::vector<std::pair<ChunkId, std::string>> of_tenant;
      absl::optional<ChunkId> counted;
      for (const auto& [key, until] : model) {
        for (uint64_t i = t; i < 20; i += 3) {
          if (TestId(i) != key.first) continue;
          of_tenant.push_back(key);
          ++use.pins;
          if (counted != key.first) use.bytes += i + 1;
          counted = key.first;
        }
      }
      ASSERT_EQ(table.UseOf(tenant_of(t)).pins, use.pins);
      ASSERT_EQ(table.UseOf(tenant_of(t)).bytes, use.bytes);
      std::vector<std::pair<ChunkId, std::string>> listed;
      absl::optional<ChunkPin> from;
      while (true) {
        const std::vector<ChunkPin> page = table.ListTenant(tenant_of(t), from, 3);
        if (page.empty()) break;
        for (const ChunkPin& pin : page) listed.emplace_back(pin.id, pin.owner);
        from = page.back();
      }
      ASSERT_EQ(listed, of_tenant);
    }
    EXPECT_TRUE(table.ListTenant("", absl::nullopt, 10).empty());
    // In pages.
    absl::optional<ChunkPin> after;
    auto expected = model.begin();
    while (true) {
      const std::vector<ChunkPin> page = table.List(after, 7);
      for (const ChunkPin& pin : page) {
        ASSERT_TRUE(expected != model.end());
        EXPECT_EQ(std::make_pair(pin.id, pin.owner), expected->first);
        EXPECT_EQ(pin.until, expected->second);
        ++expected;
      }
      if (page.size() < 7) break;
      after = page.back();
    }
    EXPECT_TRUE(expected == model.end());
    size_t ended = 0;
    for (const auto& [key, until] : model) ended += until <= In(50) ? 1 : 0;
    EXPECT_EQ(table.Ended(In(50), 1000).size(), ended);
  }
}

}  // namespace
}  // namespace kvstream

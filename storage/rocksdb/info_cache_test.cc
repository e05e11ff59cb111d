#include "storage/rocksdb/info_cache.h"

#include <gtest/gtest.h>

#include <cstring>
#include <map>
#include <random>
#include <string>
#include <vector>

namespace kvstream {
namespace {

ChunkId Id(uint64_t n) {
  ChunkId id = {};
  std::memcpy(id.data(), &n, sizeof(n));
  return id;
}

std::string Record(uint64_t n, size_t bytes = 100) {
  std::string record(bytes, static_cast<char>('a' + n % 26));
  return record + std::to_string(n);
}

// Of one id.
bool Get(InfoCache& cache, const ChunkId& id, std::string* record, uint64_t* ticket) {
  bool is_found = false;
  cache.Get(
      {id},
      [&](size_t i, absl::string_view bytes) {
        is_found = true;
        *record = std::string(bytes);
      },
      [&](size_t i, uint64_t given) { *ticket = given; });
  return is_found;
}

TEST(InfoCacheTest, KeepsWhatWasInserted) {
  InfoCache cache(1 << 20);
  std::string record;
  uint64_t ticket = 0;
  for (uint64_t n = 0; n < 100; ++n) {
    ASSERT_FALSE(Get(cache, Id(n), &record, &ticket));
    cache.Insert(Id(n), Record(n), ticket);
  }
  for (uint64_t n = 0; n < 100; ++n) {
    ASSERT_TRUE(Get(cache, Id(n), &record, &ticket)) << n;
    EXPECT_EQ(record, Record(n));
  }
}

TEST(InfoCacheTest, AnswersForManyIdsInTheirOrder) {
  InfoCache cache(1 << 20);
  std::vector<ChunkId> ids;
  for (uint64_t n = 0; n < 100; ++n) {
    ids.push_back(Id(n % 90));  // some twice
    if (n % 3 != 0) cache.Insert(Id(n), Record(n), 0);
  }
  std::vector<size_t> answered;
  cache.Get(
      ids,
      [&](size_t i, absl::string_view record) {
        EXPECT_EQ(record, Record(i % 90));
        EXPECT_NE(i % 90 % 3, 0);
        answered.push_back(i);
      },
      [&](size_t i, uint64_t ticket) {
        EXPECT_EQ(i % 90 % 3, 0);
        EXPECT_EQ(ticket, 0);
        answered.push_back(i);
      });
  ASSERT_EQ(answered.size(), ids.size());
  for (size_t i = 0; i < answered.size(); ++i) EXPECT_EQ(answered[i], i);
}

TEST(InfoCacheTest, AReaderOvertakenByAnErasureInsertsNothing) {
  InfoCache cache(1 << 20);
  std::string record;
  uint64_t ticket = 0;
  ASSERT_FALSE(Get(cache, Id(1), &record, &ticket));
  cache.Erase(Id(1));  // while the reader was reading the tables
  cache.Insert(Id(1), Record(1), ticket);
  EXPECT_FALSE(Get(cache, Id(1), &record, &ticket));
  cache.Insert(Id(1), Record(1), ticket);
  EXPECT_TRUE(Get(cache, Id(1), &record, &ticket));
  cache.Erase(Id(1));
  EXPECT_FALSE(Get(cache, Id(1), &record, &ticket));
  cache.Insert(Id(1), Record(1), ticket);
  cache.Clear();
  EXPECT_FALSE(Get(cache, Id(1), &record, &ticket));
}

TEST(InfoCacheTest, WithoutBytesKeepsNothing) {
  InfoCache cache(0);
  std::string record;
  uint64_t ticket = 0;
  cache.Insert(Id(1), Record(1), ticket);
  EXPECT_FALSE(Get(cache, Id(1), &record, &ticket));
  cache.Erase(Id(1));
  EXPECT_EQ(cache.bytes(), 0);
}

TEST(InfoCacheTest, NearlyAllThatThereIsMemoryForFindASlot) {
  constexpr uint64_t kRecords = 20000;
  InfoCache cache(kRecords * 230);
  std::string record;
  uint64_t ticket = 0;
  for (uint64_t n = 0; n < kRecords; ++n) cache.Insert(Id(n), Record(n), 0);
  uint64_t found = 0;
  for (uint64_t n = 0; n < kRecords; ++n) found += Get(cache, Id(n), &record, &ticket);
  EXPECT_GT(found, kRecords * 99 / 100);
}

TEST(InfoCacheTest, WhatIsUsedStaysWhereMuchIsReadOnce) {
  constexpr uint64_t kHot = 500;
  InfoCache cache(2000 * 230);
  std::string record;
  uint64_t ticket = 0;
  const auto read = [&](uint64_t n) {
    if (Get(cache, Id(n), &record, &ticket)) return true;
    cache.Insert(Id(n), Record(n), ticket);
    return false;
  };
  uint64_t hits = 0;
  for (uint64_t cold = 0; cold < 20000; ++cold) {
    hits += read(cold % kHot);
    read(1000000 + cold);
  }
  EXPECT_GT(hits, 20000u * 9 / 10);
}

// Never more than its bound, never a wrong record, never one that was erased, whatever comes.
TEST(InfoCacheTest, AgreesWithAModelWithinItsBound) {
  constexpr uint64_t kBytes = 600000;
  InfoCache cache(kBytes);
  std::mt19937 random(7);
  std::map<uint64_t, std::string> stored;
  std::string record;
  size_t hits = 0;
  for (int step = 0; step < 200000; ++step) {
    const uint64_t n = random() % 6000;
    uint64_t ticket = 0;
    if (random() % 10 == 0) {
      if (random() % 2 == 0) {
        stored.erase(n);
      } else {
        stored[n] = Record(random(), 50 + random() % 2000);
      }
      cache.Erase(Id(n));
    } else if (Get(cache, Id(n), &record, &ticket)) {
      ASSERT_EQ(stored.count(n), 1) << n;
      ASSERT_EQ(record, stored[n]) << n;
      ++hits;
    } else if (stored.count(n) > 0) {
      cache.Insert(Id(n), stored[n], ticket);
    }
    ASSERT_TRUE(step % 1000 != 0 || cache.bytes() <= kBytes) << cache.bytes();
  }
  EXPECT_GT(hits, 0);
}

}  // namespace
}  // namespace kvstream

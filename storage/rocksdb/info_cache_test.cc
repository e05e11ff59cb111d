#include "storage/rocksdb/info_cache.h"

#include <gtest/gtest.h>

#include <cstring>
#include <map>
#include <random>

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

TEST(InfoCacheTest, KeepsWhatWasInserted) {
  InfoCache cache(1 << 20);
  std::string record;
  uint64_t ticket = 0;
  for (uint64_t n = 0; n < 100; ++n) {
    ASSERT_FALSE(cache.Get(Id(n), &record, &ticket));
    cache.Insert(Id(n), Record(n), ticket);
  }
  for (uint64_t n = 0; n < 100; ++n) {
    ASSERT_TRUE(cache.Get(Id(n), &record, &ticket)) << n;
    EXPECT_EQ(record, Record(n));
  }
}

TEST(InfoCacheTest, AReaderOvertakenByAnErasureInsertsNothing) {
  InfoCache cache(1 << 20);
  std::string record;
  uint64_t ticket = 0;
  ASSERT_FALSE(cache.Get(Id(1), &record, &ticket));
  cache.Erase(Id(1));  // while the reader was reading the tables
  cache.Insert(Id(1), Record(1), ticket);
  EXPECT_FALSE(cache.Get(Id(1), &record, &ticket));
  cache.Insert(Id(1), Record(1), ticket);
  EXPECT_TRUE(cache.Get(Id(1), &record, &ticket));
  cache.Erase(Id(1));
  EXPECT_FALSE(cache.Get(Id(1), &record, &ticket));
  cache.Insert(Id(1), Record(1), ticket);
  cache.Clear();
  EXPECT_FALSE(cache.Get(Id(1), &record, &ticket));
}

TEST(InfoCacheTest, WithoutBytesKeepsNothing) {
  InfoCache cache(0);
  std::string record;
  uint64_t ticket = 0;
  cache.Insert(Id(1), Record(1), ticket);
  EXPECT_FALSE(cache.Get(Id(1), &record, &ticket));
  cache.Erase(Id(1));
  EXPECT_EQ(cache.bytes(), 0);
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
    } else if (cache.Get(Id(n), &record, &ticket)) {
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

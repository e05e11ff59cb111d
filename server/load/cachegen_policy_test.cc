#include "server/load/cachegen_policy.h"

#include "gtest/gtest.h"
#include "server/load/testing/specs.h"

namespace kvstream {
namespace {

// 4 chunks of 1000, 2000 or 4000 bytes at level 0, 1 or 2.
ChunkTable Table() {
  LoadSpec spec = UniformSpec(4, {1, 1, 1});
  for (StoredChunkSizes& chunk : spec.chunks) chunk.segment_bytes = {1000, 1000, 2000};
  return ChunkTable(spec.chunks);
}

TEST(CacheGenPolicyTest, TextIfAllOfItFitsTheTimeLeft) {
  EXPECT_EQ(DecideCacheGen(Table(), 0, 0, 1e9, 1.0, 0.9), absl::nullopt);
  EXPECT_EQ(DecideCacheGen(Table(), 0, 0, 1e9, 1.0, 1.0), absl::nullopt);
  EXPECT_EQ(DecideCacheGen(Table(), 0, 0, 1e9, 1.0, 1.1), 2);
}

TEST(CacheGenPolicyTest, FinestLevelAtWhichAllThatRemainsFits) {
  // 16,000 bytes remain at level 2, 8,000 at level 1, 4,000 at level 0.
  EXPECT_EQ(DecideCacheGen(Table(), 0, 0, 1000, 16, absl::nullopt), 2);
  EXPECT_EQ(DecideCacheGen(Table(), 0, 0, 1000, 15.9, absl::nullopt), 1);
  EXPECT_EQ(DecideCacheGen(Table(), 0, 0, 1000, 7.9, absl::nullopt), 0);
  // The last chunk has all the time for itself.
  EXPECT_EQ(DecideCacheGen(Table(), 3, 0, 1000, 4, absl::nullopt), 2);
}

TEST(CacheGenPolicyTest, CoarsestIfNothingFits) {
  EXPECT_EQ(DecideCacheGen(Table(), 0, 0, 1000, 0.1, absl::nullopt), 0);
  EXPECT_EQ(DecideCacheGen(Table(), 0, 0, 1000, -3, absl::nullopt), 0);
  EXPECT_EQ(DecideCacheGen(Table(), 0, 1, 1000, 0.1, absl::nullopt), 1);
}

TEST(CacheGenPolicyTest, MediumLevelWithoutThroughput) {
  EXPECT_EQ(DecideCacheGen(Table(), 0, 0, 0, 1, absl::nullopt), 1);
  EXPECT_EQ(DecideCacheGen(Table(), 0, 2, 0, 1, absl::nullopt), 2);
}

TEST(CacheGenThroughputTest, IsThatOfThePreviousChunk) {
  CacheGenThroughput throughput(0);
  throughput.OnChunkStart(0, 10000);
  throughput.OnReport(1000, absl::Seconds(1));
  EXPECT_EQ(throughput.bytes_per_second(), 0);
  throughput.OnReport(4000, absl::Seconds(2));  // not half of it
  EXPECT_EQ(throughput.bytes_per_second(), 0);
  throughput.OnReport(7000, absl::Seconds(3));
  EXPECT_DOUBLE_EQ(throughput.bytes_per_second(), 3000);
  throughput.OnReport(10000, absl::Seconds(5.5));
  EXPECT_DOUBLE_EQ(throughput.bytes_per_second(), 2000);
  throughput.OnChunkStart(10000, 10000);
  throughput.OnReport(14000, absl::Seconds(6));  // of the second, too little yet
  EXPECT_DOUBLE_EQ(throughput.bytes_per_second(), 2000);
  throughput.OnReport(20000, absl::Seconds(6.5));
  EXPECT_DOUBLE_EQ(throughput.bytes_per_second(), 10000);
}

TEST(CacheGenThroughputTest, HintComesFirst) {
  CacheGenThroughput throughput(777);
  EXPECT_EQ(throughput.bytes_per_second(), 777);
}

}  // namespace
}  // namespace kvstream

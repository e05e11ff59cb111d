#include "server/load/prefill_model.h"

#include "gtest/gtest.h"
#include "server/load/recompute_ledger.h"
#include "server/load/testing/specs.h"

namespace kvstream {
namespace {

TEST(ChunkTableTest, AMissingLevelIsASegmentOfNoBytes) {
  LoadSpec spec = UniformSpec(4, {1, 2, 3});
  spec.chunks[1].segment_bytes.resize(1);
  spec.chunks[2].segment_bytes.resize(2);
  const ChunkTable table(spec.chunks);
  EXPECT_EQ(table.levels(), 3);
  const int finest[] = {2, 0, 1, 2};
  for (uint32_t chunk = 0; chunk < 4; ++chunk) EXPECT_EQ(table.finest(chunk), finest[chunk]);
  EXPECT_EQ(table.segment_bytes(1, 1), 0u);
  EXPECT_EQ(table.segment_bytes(2, 2), 0u);
  EXPECT_EQ(table.bytes(0, 4, 2), (6u + 1 + 3 + 6) * 256);
  EXPECT_EQ(table.bytes(1, 3, 2), 4u * 256);
  EXPECT_EQ(table.with_level(0, 4, 0), 4u);
  EXPECT_EQ(table.with_level(0, 4, 1), 3u);
  EXPECT_EQ(table.with_level(1, 3, 1), 1u);
  EXPECT_EQ(table.with_level(0, 3, 2), 1u);
  const ChunkTable whole(UniformSpec(4, {1, 2, 3}).chunks);
  EXPECT_EQ(whole.finest(3), 2);
  EXPECT_EQ(whole.with_level(1, 3, 2), 2u);
}

TEST(ChunkTableTest, SumsRanges) {
  LoadSpec spec = UniformSpec(4, {10, 20, 30});
  spec.chunks[3].tokens = 100;
  spec.chunks[3].segment_bytes = {1, 2, 3};
  const ChunkTable table(spec.chunks);
  EXPECT_EQ(table.size(), 4u);
  EXPECT_EQ(table.levels(), 3);
  EXPECT_EQ(table.segment_bytes(1, 2), 30u * 256);
  EXPECT_EQ(table.segment_bytes(3, 1), 2u);
  EXPECT_EQ(table.bytes(0, 2, 1), 2u * 256 * 30);
  EXPECT_EQ(table.bytes(2, 4, 2), 256u * 60 + 6);
  EXPECT_EQ(table.bytes(2, 2, 2), 0u);
  EXPECT_EQ(table.tokens(1, 4), 612u);
}

TEST(ChunkTableTest, PairsOfAPrefixFollowTheChunks) {
  const ChunkTable table(UniformSpec(4, {1}).chunks);
  EXPECT_DOUBLE_EQ(table.token_pairs(0, 4), 1024.0 * 512);
  EXPECT_DOUBLE_EQ(table.token_pairs_of_first(0, 512), 512.0 * 256);
  EXPECT_DOUBLE_EQ(table.token_pairs_of_first(2, 0), 0);
  EXPECT_DOUBLE_EQ(table.token_pairs_of_first(2, 1 << 30), table.token_pairs(2, 4));
}

TEST(PrefillModelTest, CostOfLaterChunksIsHigher) {
  const ChunkTable table(UniformSpec(10, {1}).chunks);
  const PrefillModel model(1e-4, 1e-7);
  // n * a + n * (p + n / 2) * b
  EXPECT_DOUBLE_EQ(model.seconds(table, 2, 3), 256 * 1e-4 + 256.0 * (512 + 128) * 1e-7);
  EXPECT_GT(model.seconds(table, 9, 10), model.seconds(table, 0, 1));
  EXPECT_EQ(model.seconds(table, 5, 5), 0);
}

TEST(PrefillModelTest, IsUnknownUntilDeclaredOrShown) {
  PrefillModel model;
  EXPECT_FALSE(model.known());
  model.Learn(0, 0, absl::ZeroDuration());
  model.Learn(10, 0, absl::ZeroDuration());
  EXPECT_FALSE(model.known());
  model.Learn(1000, 5e5, absl::Seconds(2));
  EXPECT_TRUE(model.known());
  EXPECT_DOUBLE_EQ(model.seconds(500, 0), 1);
}

TEST(PrefillModelTest, MeasurementOutweighsTheDeclaration) {
  PrefillModel model(1e-3, 1e-6);
  const double safety = model.safety();
  model.Learn(256, 256 * 128, absl::Seconds(2 * (256 * 1e-3 + 256 * 128 * 1e-6)));
  EXPECT_NEAR(model.seconds_per_token(), 1.5e-3, 1e-9);
  model.Learn(25600, 25600.0 * 12800, absl::Seconds(2 * (25.6 + 25600 * 12800 * 1e-6)));
  EXPECT_NEAR(model.seconds_per_token(), 2e-3, 2e-5);
  EXPECT_LT(model.safety(), safety);
}

TEST(PrefillModelTest, AbsurdMeasurementsStayFinite) {
  PrefillModel model(1e-300, 0);
  model.Learn(1, 1, absl::Hours(1000));
  EXPECT_LE(model.seconds_per_token(), 1e-297);
  PrefillModel other(1, 1);
  other.Learn(1000000, 1e15, absl::Nanoseconds(1));
  EXPECT_GT(other.seconds(1, 1), 0);
}

class RecomputeLedgerTest : public testing::Test {
 protected:
  ChunkTable table_{UniformSpec(8, {1}).chunks};
  RecomputeLedger ledger_{&table_, PrefillModel(1e-3, 0)};  // 256 ms a chunk
  bool advanced_ = false;
};

TEST_F(RecomputeLedgerTest, BacklogShrinksWithTimeAndReports) {
  ledger_.OnGiven(0, true, absl::ZeroDuration());
  ledger_.OnGiven(1, false, absl::ZeroDuration());
  EXPECT_NEAR(ledger_.backlog_s(8, ledger_.model(), absl::ZeroDuration()), 0.512, 1e-9);
  EXPECT_NEAR(ledger_.backlog_s(8, ledger_.model(), absl::Milliseconds(100)), 0.412, 1e-9);
  // Only the chunk that it works on is believed without a report.
  EXPECT_NEAR(ledger_.backlog_s(8, ledger_.model(), absl::Seconds(9)), 0.256, 1e-9);
  ASSERT_TRUE(ledger_.OnReport(1, 256, absl::Seconds(0.256), absl::Seconds(0.3), &advanced_).ok());
  EXPECT_TRUE(advanced_);
  EXPECT_NEAR(ledger_.backlog_s(8, ledger_.model(), absl::Seconds(0.4)), 0.156, 1e-9);
  ASSERT_TRUE(ledger_.OnReport(2, 512, absl::Seconds(0.512), absl::Seconds(0.6), &advanced_).ok());
  EXPECT_TRUE(ledger_.idle());
  EXPECT_EQ(ledger_.backlog_s(8, ledger_.model(), absl::Seconds(1)), 0);
}

TEST_F(RecomputeLedgerTest, AClientThatHangsLooksSlowerAndSlower) {
  ledger_.OnGiven(0, true, absl::ZeroDuration());
  const absl::Duration grace = absl::Milliseconds(50);
  EXPECT_EQ(ledger_.model_now(8, grace, absl::Milliseconds(200)).seconds_per_token(), 1e-3);
  const double later = ledger_.model_now(8, grace, absl::Seconds(3)).seconds_per_token();
  EXPECT_GT(later, 8e-3);
  EXPECT_GT(ledger_.model_now(8, grace, absl::Seconds(30)).seconds_per_token(), later);
}

TEST_F(RecomputeLedgerTest, WhatLacksItsPredecessorsIsNoWorkYet) {
  const absl::Duration grace = absl::Milliseconds(50);
  ledger_.OnGiven(6, true, absl::ZeroDuration());  // its bytes were lost
  EXPECT_EQ(ledger_.backlog_s(0, ledger_.model(), absl::ZeroDuration()), 0);
  EXPECT_EQ(ledger_.model_now(0, grace, absl::Seconds(60)).seconds_per_token(), 1e-3);
  ledger_.OnGiven(0, true, absl::Seconds(60));
  EXPECT_NEAR(ledger_.backlog_s(1, ledger_.model(), absl::Seconds(60)), 0.256, 1e-9);
  EXPECT_NEAR(ledger_.outstanding_s(), 0.512, 1e-9);
}

TEST_F(RecomputeLedgerTest, WorkBeginsWhenThePlanHasArrived) {
  ledger_.OnGiven(0, true, absl::Seconds(10));
  EXPECT_NEAR(ledger_.backlog_s(8, ledger_.model(), absl::ZeroDuration()), 10.256, 1e-9);
  ledger_.OnArrivalBy(absl::Seconds(1));
  EXPECT_NEAR(ledger_.backlog_s(8, ledger_.model(), absl::ZeroDuration()), 1.256, 1e-9);
}

TEST_F(RecomputeLedgerTest, RejectsCountersThatGoBackOrTooFar) {
  ledger_.OnGiven(0, true, absl::ZeroDuration());
  const absl::Duration now = absl::Seconds(1);
  ASSERT_TRUE(ledger_.OnReport(1, 256, now, now, &advanced_).ok());
  EXPECT_FALSE(ledger_.OnReport(0, 256, now, now, &advanced_).ok());
  EXPECT_FALSE(ledger_.OnReport(1, 255, now, now, &advanced_).ok());
  EXPECT_FALSE(ledger_.OnReport(1, 256, now / 2, now, &advanced_).ok());
  EXPECT_FALSE(ledger_.OnReport(9, 256, now, now, &advanced_).ok());
  EXPECT_FALSE(ledger_.OnReport(8, 1 << 30, now, now, &advanced_).ok());
  EXPECT_FALSE(ledger_.OnReport(8, 512, absl::InfiniteDuration(), now, &advanced_).ok());
  EXPECT_TRUE(ledger_.OnReport(1, 256, now, now, &advanced_).ok());
  EXPECT_FALSE(advanced_);
}

}  // namespace
}  // namespace kvstream

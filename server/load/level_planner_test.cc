#include "server/load/level_planner.h"

#include <cmath>
#include <random>

#include "gtest/gtest.h"
#include "server/load/testing/specs.h"

namespace kvstream {
namespace {

// 10 chunks; a chunk at level 0 takes 1 s at 256,000 bytes a second, at level 1 2 s.
class LevelPlannerTest : public testing::Test {
 protected:
  LevelPlannerTest() {
    in_.chunks = &table_;
    in_.open = {0, 10, 0};
    in_.view.rate = in_.view.rate_low = in_.view.rate_hoped = 256e3;
  }
  void Recomputes(double seconds_a_chunk) {
    in_.may_recompute = true;
    in_.prefill = PrefillModel(seconds_a_chunk / 256, 0);
  }
  ChunkTable table_{UniformSpec(10, {1000, 1000}).chunks};
  SplitInput in_;
};

TEST_F(LevelPlannerTest, StreamsEverythingToAClientThatCannotRecompute) {
  for (BaseOrder order : {BaseOrder::kForward, BaseOrder::kBackward}) {
    in_.order = order;
    in_.view.time_left_s = 5;
    const Split split = SplitForQuality(in_);
    EXPECT_EQ(split.boundary, order == BaseOrder::kForward ? 10u : 0u);
    EXPECT_DOUBLE_EQ(split.expected_s, 10);
    EXPECT_FALSE(split.in_time);
  }
}

TEST_F(LevelPlannerTest, SuffixRecomputesAllOrNothingWhereTheCostIsLinear) {
  Recomputes(0.9);
  EXPECT_EQ(SplitForSpeed(in_).boundary, 0u);
  EXPECT_NEAR(SplitForSpeed(in_).expected_s, 9, 0.3);
  Recomputes(0.99);  // not worth a decision that is final
  EXPECT_EQ(SplitForSpeed(in_).boundary, 10u);
  Recomputes(1.5);
  EXPECT_EQ(SplitForSpeed(in_).boundary, 10u);
}

TEST_F(LevelPlannerTest, WhatWasSentOfAChunkCountsForStreamingIt) {
  Recomputes(0.9);
  in_.open = {9, 10, 200000};  // 0.22 s are left of it
  EXPECT_EQ(SplitForSpeed(in_).boundary, 10u);
  in_.open.sent_bytes = 1000;
  EXPECT_EQ(SplitForSpeed(in_).boundary, 9u);
}

TEST_F(LevelPlannerTest, BothEndsMeetWhereTheyAreDoneTogether) {
  in_.order = BaseOrder::kBackward;
  Recomputes(1);
  EXPECT_EQ(SplitForSpeed(in_).boundary, 5u);
  EXPECT_DOUBLE_EQ(SplitForSpeed(in_).expected_s, 5);
  Recomputes(0.25);
  EXPECT_EQ(SplitForSpeed(in_).boundary, 8u);
  Recomputes(4);
  EXPECT_EQ(SplitForSpeed(in_).boundary, 2u);
  in_.recompute_backlog_s = 4;
  EXPECT_EQ(SplitForSpeed(in_).boundary, 1u);
}

TEST_F(LevelPlannerTest, AttentionMovesTheMeetingPointForward) {
  in_.order = BaseOrder::kBackward;
  in_.may_recompute = true;
  in_.prefill = PrefillModel(1.0 / 256, 0);
  const uint32_t linear = SplitForSpeed(in_).boundary;
  in_.prefill = PrefillModel(1.0 / 256, 2e-6);
  EXPECT_LT(SplitForSpeed(in_).boundary, linear);
}

TEST_F(LevelPlannerTest, NoRecomputeIfTheFinestLevelIsInTime) {
  Recomputes(0.1);
  in_.view.time_left_s = 20;
  EXPECT_EQ(SplitForQuality(in_).boundary, 10u);
  in_.view.time_left_s = 19.9;
  EXPECT_EQ(SplitForQuality(in_).boundary, 0u);  // exact
  in_.view.time_left_s = 20;
  in_.refinement_bytes = 1000000;  // of chunks sent before
  EXPECT_EQ(SplitForQuality(in_).boundary, 0u);
}

TEST_F(LevelPlannerTest, RecomputesAsMuchAsTheDeadlineAllows) {
  Recomputes(2 / in_.prefill.safety());
  in_.prefill = PrefillModel(2 / in_.prefill.safety() / 256, 0);  // 2 s, safety included
  in_.view.time_left_s = 12.5;
  // Suffix of k chunks: (10 - k) + 2 k <= 12.5.
  EXPECT_EQ(SplitForQuality(in_).boundary, 8u);
  EXPECT_TRUE(SplitForQuality(in_).in_time);
  // From the front: 2 m <= 12.5.
  in_.order = BaseOrder::kBackward;
  in_.view.rate_hoped = 0.6 * in_.view.rate;
  EXPECT_EQ(SplitForQuality(in_).boundary, 6u);
  EXPECT_TRUE(SplitForQuality(in_).in_time);
  // If it is as fast as expected it comes further; what it would come to can wait where the link
  // could bring it in half of the time.
  in_.view.rate_hoped = in_.view.rate;
  EXPECT_EQ(SplitForQuality(in_).boundary, 7u);
}

// What is before the cut has to be decoded again after the recompute, if it is refined meanwhile.
TEST_F(LevelPlannerTest, ASuffixLeavesItsPrefixTimeToBeDecoded) {
  Recomputes(4);
  in_.prefill = PrefillModel(4 / in_.prefill.safety() / 256, 0);
  in_.view.rate = in_.view.rate_low = in_.view.rate_hoped = 2560e3;  // 0.1 s a chunk
  in_.view.time_left_s = 1.95;                                       // not the finest of all
  in_.view.decode_s_per_token = 0.1 / 256;
  // The last chunk would take 4 s.
  EXPECT_EQ(SplitForQuality(in_).boundary, 10u);
  // Two of them are 8 s of 9.5: of eight chunks none could be decoded a second time in the rest.
  in_.view.time_left_s = 9.5;
  in_.refinement_bytes = 1 << 30;
  EXPECT_EQ(SplitForQuality(in_).boundary, 9u);
  EXPECT_TRUE(SplitForQuality(in_).in_time);
}

TEST_F(LevelPlannerTest, ChunksGoWholeWhereRecomputeInsuresThem) {
  Recomputes(1);
  in_.view.time_left_s = 15;
  in_.insurance_s = 15;
  // Not at the finest level by the link alone: begun at once.
  EXPECT_TRUE(SplitForQuality(in_).insured);
  EXPECT_EQ(SplitForQuality(in_).boundary, 0u);
  in_.order = BaseOrder::kBackward;
  EXPECT_TRUE(SplitForQuality(in_).insured);
  EXPECT_FALSE(SplitForQuality(in_).finest);
  in_.insurance_s = 15.1;
  EXPECT_FALSE(SplitForQuality(in_).insured);
  in_.view.time_left_s = 41;
  EXPECT_TRUE(SplitForQuality(in_).insured);
  EXPECT_TRUE(SplitForQuality(in_).finest);
}

TEST_F(LevelPlannerTest, LateButAsLittleAsPossible) {
  in_.order = BaseOrder::kBackward;
  Recomputes(1);
  in_.view.time_left_s = 2;
  const Split split = SplitForQuality(in_);
  EXPECT_FALSE(split.in_time);
  EXPECT_EQ(split.boundary, SplitForSpeed(in_).boundary);
  in_.view.time_left_s = -1;
  EXPECT_EQ(SplitForQuality(in_).boundary, 5u);
}

// Recompute of all would take 9 s and be late for sure; a link that is a quarter faster saves the
// deadline.
TEST_F(LevelPlannerTest, ASuffixThatIsSureToBeLateIsNotBegun) {
  Recomputes(0.9);
  in_.view.time_left_s = 8;
  EXPECT_EQ(SplitForSpeed(in_).boundary, 0u);
  EXPECT_EQ(SplitForQuality(in_).boundary, 10u);
  EXPECT_FALSE(SplitForQuality(in_).in_time);
  // Five times as fast a link is not hoped for.
  in_.view.time_left_s = 2;
  EXPECT_EQ(SplitForQuality(in_).boundary, 0u);
}

TEST_F(LevelPlannerTest, AgreesWithTryingEverySplit) {
  const uint32_t seed = std::random_device{}();
  SCOPED_TRACE(testing::Message() << "seed " << seed);
  std::mt19937_64 random(seed);
  auto uniform = [&](double low, double high) {
    return std::uniform_real_distribution<double>(low, high)(random);
  };
  for (int round = 0; round < 300; ++round) {
    LoadSpec spec = UniformSpec(1 + random() % 40, {1000, 500});
    for (StoredChunkSizes& chunk : spec.chunks) {
      for (uint64_t& bytes : chunk.segment_bytes) bytes = 1 + random() % 500000;
    }
    const ChunkTable table(spec.chunks);
    SplitInput in;
    in.chunks = &table;
    in.order = BaseOrder::kBackward;
    in.open = {0, table.size(), 0};
    in.view.rate = std::pow(10, uniform(4, 8));
    in.view.rate_low = in.view.rate_hoped = in.view.rate * 0.8;
    in.may_recompute = true;
    in.prefill = PrefillModel(std::pow(10, uniform(-5, -2)), std::pow(10, uniform(-10, -6)));
    double best = 1e300;
    for (uint32_t meet = 0; meet <= table.size(); ++meet) {
      best = std::min(best, std::max(table.bytes(meet, table.size(), 0) / in.view.rate,
                                     in.prefill.seconds(table, 0, meet)));
    }
    const Split split = SplitForSpeed(in);
    EXPECT_LE(split.expected_s, best / 0.97 + 1e-9);
    EXPECT_GE(split.expected_s, best - 1e-9);
  }
}

// The best cut where chunks have lost levels, against a sum over the chunks one by one. The
// client's decoder is not in the way.
TEST_F(LevelPlannerTest, TheCutCountsOnlyTheLevelsThatAreThere) {
  const uint32_t seed = std::random_device{}();
  SCOPED_TRACE(testing::Message() << "seed " << seed);
  std::mt19937_64 random(seed);
  auto uniform = [&](double low, double high) {
    return std::uniform_real_distribution<double>(low, high)(random);
  };
  int compared = 0;
  for (int round = 0; round < 500; ++round) {
    const uint32_t n = 1 + random() % 40;
    const std::vector<uint64_t> sizes = {1000, 1000 + random() % 1000, 2000 + random() % 3000};
    LoadSpec spec = UniformSpec(n, sizes);
    for (StoredChunkSizes& chunk : spec.chunks) chunk.segment_bytes.resize(1 + random() % 3);
    const ChunkTable table(spec.chunks);
    SplitInput in;
    in.chunks = &table;
    in.open = {0, n, 0};
    in.view.rate = in.view.rate_low = in.view.rate_hoped = std::pow(10, uniform(5, 7));
    in.may_recompute = true;
    in.prefill = PrefillModel(std::pow(10, uniform(-4, -2)), 0);
    const double stream_s = table.bytes(0, n, table.levels() - 1) / in.view.rate;
    in.view.time_left_s = stream_s * uniform(0.2, 0.99);
    const auto value = [&](uint32_t cut) {
      const double recompute_s = in.prefill.safety() * in.prefill.seconds(table, cut, n);
      double left_s = in.view.time_left_s - recompute_s - table.bytes(0, cut, 0) / in.view.rate;
      if (left_s < 0) return -1.0;
      double bytes = in.view.rate * (recompute_s + left_s);
      double levels = (table.levels() - 1.0) * (n - cut);
      for (int level = 1; level < table.levels() && bytes > 0; ++level) {
        double have = 0;
        for (uint32_t chunk = 0; chunk < cut; ++chunk) {
          have += level < static_cast<int>(spec.chunks[chunk].segment_bytes.size()) ? 1 : 0;
        }
        const double bought = std::min(have, bytes / (sizes[level] * kTestChunkTokens));
        levels += bought;
        bytes -= bought * sizes[level] * kTestChunkTokens;
      }
      return levels;
    };
    double best = -1;
    for (uint32_t cut = 0; cut <= n; ++cut) best = std::max(best, value(cut));
    const Split split = SplitForQuality(in);
    if (best < 0 || !split.in_time) continue;
    ++compared;
    EXPECT_NEAR(value(split.boundary), best, 1e-6) << "round " << round;
  }
  EXPECT_GT(compared, 50);
}

TEST(FitsInTimeTest, CountsFlightTransferDecoderAndDecode) {
  PlannerView view;
  view.rate = 2000;
  view.rate_low = 1000;
  view.latency_low_s = 0.5;
  view.decode_s_per_token = 0.001;
  view.time_left_s = 2;
  EXPECT_TRUE(FitsInTime(view, 1400, 100, 0));
  EXPECT_FALSE(FitsInTime(view, 1401, 100, 0));
  EXPECT_TRUE(FitsInTime(view, 10, 100, 1.9));
  EXPECT_FALSE(FitsInTime(view, 10, 100, 1.95));
  view.time_left_s = -1;
  EXPECT_FALSE(FitsInTime(view, 1, 1, 0));
}

TEST(RefinementStopsTest, EveryLevelWithoutWeights) {
  EXPECT_EQ(RefinementStops({10, 10, 10, 10}, {}, 0), (std::vector<int>{1, 2, 3}));
  EXPECT_EQ(RefinementStops({10, 10, 10, 10}, {}, 2), (std::vector<int>{3}));
  EXPECT_TRUE(RefinementStops({10}, {}, 0).empty());
}

TEST(RefinementStopsTest, MergesLevelsThatBuyLittleAlone) {
  // Level 2 gains more per byte than level 1.
  EXPECT_EQ(RefinementStops({10, 10, 10, 10}, {9, 1, 5, 1}, 0), (std::vector<int>{2, 3}));
  EXPECT_EQ(RefinementStops({10, 10, 10, 10}, {9, 5, 3, 1}, 0), (std::vector<int>{1, 2, 3}));
  EXPECT_EQ(RefinementStops({10, 10, 10, 10}, {9, 1, 2, 3}, 0), (std::vector<int>{3}));
}

}  // namespace
}  // namespace kvstream

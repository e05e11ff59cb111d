// A short link simulation: how close loads come to the clairvoyant, with margins for the few loads.
#include <cstdlib>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "tests/links/report.h"

namespace kvstream {
namespace links {
namespace {

const std::vector<NamedTrace>& Traces() {
  static const auto* traces = [] {
    const char* root = std::getenv("TEST_SRCDIR");
    auto read = ReadTraces(std::string(root ? root : ".") + "/kvstream/tests/links/traces");
    EXPECT_TRUE(read.ok()) << read.status();
    return new std::vector<NamedTrace>(read.ok() ? *std::move(read) : std::vector<NamedTrace>());
  }();
  return *traces;
}

Score FinalScore(RecomputeAbility ability, Prior prior, uint64_t seed) {
  SweepOptions options;
  options.seed = seed;
  options.contexts_per_trace = 1;
  Score score;
  const absl::Status status =
      AddScore(MakeCases(Traces(), options), Ladders()[0], ability, prior, options.session, &score);
  EXPECT_TRUE(status.ok()) << status;
  EXPECT_EQ(score.loads, 49);
  // The simulator's clock counts quarters of nanoseconds, and rounds once a frame.
  EXPECT_GE(score.ratio_min, 1 - 1e-4) << "the clairvoyant was beaten";
  EXPECT_LE(score.level_excess_max, 1e-6) << "the clairvoyant was beaten";
  return score;
}

TEST(TracesTest, EveryFamilyIsThere) {
  int tuning = 0, final = 0;
  for (const NamedTrace& trace : Traces()) {
    (trace.tuning ? tuning : final) += 1;
    EXPECT_LE(trace.rate.max_bytes_per_second(), 10e9 / 8 + 1) << trace.name;
    EXPECT_GE(trace.rtt, absl::Milliseconds(0.1)) << trace.name;
    EXPECT_LE(trace.rtt, absl::Milliseconds(80)) << trace.name;
  }
  EXPECT_EQ(tuning, 25);
  EXPECT_EQ(final, 49);
}

// The margins are those of these few loads (one context a trace): in brackets what they reached
// when this was written.
TEST(SimulateTest, StreamingAloneIsAsFastAsTheClairvoyant) {
  for (Prior prior : {Prior::kNone, Prior::kRecord}) {
    const Score score = FinalScore(RecomputeAbility::kNone, prior, 7);
    EXPECT_LE(score.mean_ratio(), 1.005);  // (1.000)
    EXPECT_LE(score.extra_unusable(), 0);
    EXPECT_GE(score.level_ratio(), prior == Prior::kNone ? 0.90 : 0.94);
  }
}

TEST(SimulateTest, RecomputeComesNearTheClairvoyant) {
  const Score suffix = FinalScore(RecomputeAbility::kSuffix, Prior::kRecord, 7);
  EXPECT_LE(suffix.mean_ratio(), 1.08);     // (1.030)
  EXPECT_LE(suffix.extra_unusable(), 2.8);  // (2.0: three of 147)
  EXPECT_GE(suffix.level_ratio(), 0.92);    // (0.941)
  const Score front = FinalScore(RecomputeAbility::kFront, Prior::kRecord, 7);
  EXPECT_LE(front.mean_ratio(), 1.08);     // (1.037)
  EXPECT_LE(front.extra_unusable(), 1.4);  // (0.7: one)
  EXPECT_GE(front.level_ratio(), 0.94);    // (0.958)
}

TEST(SimulateTest, FasterThanCacheGenAtItsQuality) {
  SweepOptions options;
  options.contexts_per_trace = 1;
  const std::vector<Case> cases = MakeCases(Traces(), options);
  for (int ladder : {0, 1}) {
    CacheGenScore score;
    const absl::Status status =
        AddCacheGen(cases, Ladders()[ladder], Prior::kRecord, options.session, &score);
    ASSERT_TRUE(status.ok()) << status;
    EXPECT_LE(score.mean_ratio(), ladder == 0 ? 0.22 : 0.34);
    EXPECT_LE(score.mean_floor_ratio_sum, score.ratio_sum);
    EXPECT_GE(score.mean_floor_ratio_sum, score.mixed_sum * (1 - 1e-4)) << "the bound was beaten";
    EXPECT_EQ(score.worse, 0);
  }
}

TEST(SimulateTest, SameSeedSameLoads) {
  const Score one = FinalScore(RecomputeAbility::kFront, Prior::kNone, 3);
  const Score other = FinalScore(RecomputeAbility::kFront, Prior::kNone, 3);
  EXPECT_EQ(one.ratio_sum, other.ratio_sum);
  EXPECT_EQ(one.level_sum, other.level_sum);
  EXPECT_EQ(one.unusable, other.unusable);
}

}  // namespace
}  // namespace links
}  // namespace kvstream

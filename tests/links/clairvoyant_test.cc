#include "tests/links/clairvoyant.h"

#include <algorithm>
#include <vector>

#include "gtest/gtest.h"

namespace kvstream {
namespace links {
namespace {

// n chunks of 256 tokens; 100 bytes at level 0, 200 more at level 1, 300 more at level 2.
LoadSpec Spec(int n, RecomputeAbility ability) {
  LoadSpec spec;
  for (int i = 0; i < n; ++i) {
    StoredChunkSizes chunk;
    chunk.tokens = 256;
    chunk.first_token = 256u * i;
    chunk.segment_bytes = {100, 200, 300};
    spec.chunks.push_back(chunk);
  }
  spec.ability = ability;
  return spec;
}

// 100 bytes a second, but nothing from 2 to 5 s.
RateTrace Stalling() { return *RateTrace::Parse("0 100Bps\n2 0\n5 100Bps\n"); }

TEST(ClairvoyantTest, StreamingIsTransferRoundTripAndLastDecode) {
  const RateTrace trace = Stalling();
  LoadSpec spec = Spec(4, RecomputeAbility::kNone);
  spec.decode_seconds_per_token = 0.25 / 256;
  EXPECT_NEAR(ClairvoyantDelay(spec, {&trace, absl::ZeroDuration(), absl::Seconds(1)}),
              7 + 1 + 0.25, 1e-9);
  // Started in the stall.
  EXPECT_NEAR(ClairvoyantDelay(spec, {&trace, absl::Seconds(4), absl::ZeroDuration()}), 5.25, 1e-9);
  // A slow decoder is busy from the first chunk's arrival on.
  spec.decode_seconds_per_token = 4.0 / 256;
  EXPECT_NEAR(ClairvoyantDelay(spec, {&trace, absl::ZeroDuration(), absl::ZeroDuration()}), 17,
              1e-9);
}

TEST(ClairvoyantTest, SuffixCutsBeforeTheStall) {
  const RateTrace trace = Stalling();
  LoadSpec spec = Spec(4, RecomputeAbility::kSuffix);
  spec.prefill_seconds_per_token = 1.2 / 256;
  // Two chunks by 2 s, two recomputed; all recomputed would be 4.8 s, all streamed 7.
  EXPECT_NEAR(ClairvoyantDelay(spec, {&trace, absl::ZeroDuration(), absl::ZeroDuration()}), 4.4,
              1e-9);
}

TEST(ClairvoyantTest, FrontWorksAtBothEnds) {
  const RateTrace trace = Stalling();
  LoadSpec spec = Spec(4, RecomputeAbility::kFront);
  spec.prefill_seconds_per_token = 1.2 / 256;
  EXPECT_NEAR(ClairvoyantDelay(spec, {&trace, absl::ZeroDuration(), absl::Seconds(1)}), 3.4, 1e-9);
}

TEST(ClairvoyantTest, NeverSlowerWithMoreAbility) {
  const RateTrace trace = Stalling();
  for (double prefill_s : {0.1, 0.7, 1.5, 9.0}) {
    for (int n : {1, 2, 7, 30}) {
      for (double start_s : {0.0, 1.3, 3.0, 6.0}) {
        double previous = 1e9;
        for (RecomputeAbility ability :
             {RecomputeAbility::kNone, RecomputeAbility::kSuffix, RecomputeAbility::kFront}) {
          LoadSpec spec = Spec(n, ability);
          spec.prefill_seconds_per_token = prefill_s / 256;
          spec.prefill_seconds_per_token_pair = prefill_s * 1e-6;
          spec.decode_seconds_per_token = 1e-4;
          const double delay =
              ClairvoyantDelay(spec, {&trace, absl::Seconds(start_s), absl::Milliseconds(20)});
          EXPECT_LE(delay, previous + 1e-9);
          previous = delay;
        }
      }
    }
  }
}

TEST(ClairvoyantTest, QualityBuysTheCheapestLevelsFirst) {
  const RateTrace trace = Stalling();
  LoadSpec spec = Spec(2, RecomputeAbility::kNone);
  spec.deadline = absl::Seconds(1.9);
  DeadlineBound bound = ClairvoyantQuality(spec, {&trace, absl::ZeroDuration(), {}});
  EXPECT_FALSE(bound.feasible);
  // 200 bytes by 2 s, 1,000 by 13 s: 200 of base, 400 of level 1, 400 of level 2's 600.
  spec.deadline = absl::Seconds(4);
  bound = ClairvoyantQuality(spec, {&trace, absl::ZeroDuration(), {}});
  EXPECT_TRUE(bound.feasible);
  EXPECT_NEAR(bound.mean_level, 0, 1e-9);
  spec.deadline = absl::Seconds(13);
  bound = ClairvoyantQuality(spec, {&trace, absl::ZeroDuration(), {}});
  EXPECT_NEAR(bound.mean_level, (2 + 400.0 / 300) / 2, 1e-9);
}

TEST(ClairvoyantTest, APrefixIsNotDecodedWhileItsSuffixIsRecomputed) {
  const RateTrace trace = RateTrace::Constant(50);
  LoadSpec spec = Spec(2, RecomputeAbility::kSuffix);
  spec.prefill_seconds_per_token = 10.0 / 256;
  spec.decode_seconds_per_token = 1.0 / 256;
  const LinkView link = {&trace, absl::ZeroDuration(), {}};
  // The first is decoded by 3.5 s, so that the second is done by 13.5 s: 25 bytes of 200 beyond the
  // base have come by 2.5 s.
  spec.deadline = absl::Seconds(13.5);
  DeadlineBound bound = ClairvoyantQuality(spec, link);
  EXPECT_EQ(bound.streamed, 1u);
  EXPECT_NEAR(bound.mean_level, (2 + 0.125) / 2, 1e-9);
  // Another second, and it is decoded again, with all that has come meanwhile.
  spec.deadline = absl::Seconds(14.5);
  EXPECT_NEAR(ClairvoyantQuality(spec, link).mean_level, 2, 1e-9);
}

TEST(ClairvoyantTest, RecomputeCountsAsFinest) {
  const RateTrace trace = Stalling();
  LoadSpec spec = Spec(4, RecomputeAbility::kFront);
  spec.prefill_seconds_per_token = 1.0 / 256;
  spec.deadline = absl::Seconds(2);
  // Two recomputed, and 200 bytes for the two others.
  const DeadlineBound bound = ClairvoyantQuality(spec, {&trace, absl::ZeroDuration(), {}});
  EXPECT_TRUE(bound.feasible);
  EXPECT_NEAR(bound.mean_level, 1, 1e-9);
}

}  // namespace
}  // namespace links
}  // namespace kvstream

#include "tests/links/online_cut.h"

#include <random>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"

namespace kvstream {
namespace links {
namespace {

constexpr CutRule kRules[] = {CutRule::kSoonest, CutRule::kLast, CutRule::kPersist, CutRule::kMean,
                              CutRule::kFutures};

// n chunks of 256 tokens that take a second each to recompute; 100 bytes at level 0, 200 more, 300
// more.
LoadSpec Spec(int n, double deadline_s) {
  LoadSpec spec;
  for (int i = 0; i < n; ++i) {
    StoredChunkSizes chunk;
    chunk.tokens = 256;
    chunk.first_token = 256u * i;
    chunk.segment_bytes = {100, 200, 300};
    spec.chunks.push_back(chunk);
  }
  spec.ability = RecomputeAbility::kSuffix;
  spec.policy = LoadPolicy::kDeadline;
  spec.prefill_seconds_per_token = 1.0 / 256;
  spec.deadline = absl::Seconds(deadline_s);
  return spec;
}

double Level(const LoadSpec& spec, const LinkView& link, uint32_t cut) {
  return LevelOfCut(spec, link.rtt, cut, BaseInPlace(spec, link)[cut],
                    [&link](double seconds) { return link.Bytes(seconds); });
}

TEST(OnlineCutTest, SoonestAndLastOnAConstantLink) {
  // A chunk's base in half a second.
  const RateTrace trace = RateTrace::Constant(200);
  const LinkView link = {&trace, absl::ZeroDuration(), absl::ZeroDuration()};
  // Two have to come first, and then it is the last moment.
  EXPECT_EQ(OnlineCut(Spec(4, 3), link, CutRule::kSoonest, {}, Careful()), 2u);
  EXPECT_EQ(OnlineCut(Spec(4, 3), link, CutRule::kLast, {}, Careful()), 2u);
  // All could be recomputed, and each chunk comes before the last moment for it.
  EXPECT_EQ(OnlineCut(Spec(4, 4.6), link, CutRule::kSoonest, {}, Careful()), 0u);
  EXPECT_EQ(OnlineCut(Spec(4, 4.6), link, CutRule::kLast, {}, Careful()), 4u);
}

TEST(OnlineCutTest, LastBeginsBeforeAStallMakesItTooLate) {
  const RateTrace trace = *RateTrace::Parse("0 200Bps\n1.5 0\n100 200Bps\n");
  const LinkView link = {&trace, absl::ZeroDuration(), absl::ZeroDuration()};
  EXPECT_EQ(OnlineCut(Spec(4, 4.6), link, CutRule::kLast, {}, Careful()), 3u);
  // Nothing helps where not enough comes for any cut.
  const RateTrace dead = *RateTrace::Parse("0 200Bps\n0.4 0\n100 200Bps\n");
  const LinkView dead_link = {&dead, absl::ZeroDuration(), absl::ZeroDuration()};
  EXPECT_FALSE(OnlineCut(Spec(4, 3), dead_link, CutRule::kLast, {}, Careful()).has_value());
  EXPECT_FALSE(CarefulClairvoyant(Spec(4, 3), dead_link, Careful()).has_value());
}

TEST(OnlineCutTest, CarefulLosesWhatIsTight) {
  const RateTrace trace = *RateTrace::Parse("0 200Bps\n1 0\n100 200Bps\n");
  const LinkView link = {&trace, absl::ZeroDuration(), absl::ZeroDuration()};
  // Two chunks at 1 s, two recomputed by 3 s.
  const LoadSpec spec = Spec(4, 3.05);
  EXPECT_TRUE(CarefulClairvoyant(spec, link, {1.02, absl::ZeroDuration()}).has_value());
  EXPECT_FALSE(CarefulClairvoyant(spec, link, {1.03, absl::ZeroDuration()}).has_value());
  EXPECT_FALSE(CarefulClairvoyant(spec, link, {1.0, absl::Milliseconds(60)}).has_value());
}

// What the header proves, on random links, with decoding and round trips.
TEST(OnlineCutTest, EveryRuleIsInTimeWhenTheClairvoyantIsAndNoneIsBetter) {
  std::mt19937_64 bits(20261122);
  const auto unit = [&bits] { return static_cast<double>(bits() >> 11) * 0x1p-53; };
  int feasible = 0;
  for (int round = 0; round < 300; ++round) {
    SCOPED_TRACE(absl::StrCat("round ", round));
    std::string text;
    double at = 0;
    for (int step = 0; step < 30; ++step) {
      absl::StrAppend(&text, at, " ", unit() < 0.2 ? 0 : static_cast<int>(20 + 900 * unit()),
                      "Bps\n");
      at += 0.05 + unit();
    }
    absl::StrAppend(&text, at, " 100Bps\n");
    const RateTrace trace = *RateTrace::Parse(text);
    const LinkView link = {&trace, absl::Seconds(5 * unit()), absl::Seconds(0.3 * unit())};
    LoadSpec spec = Spec(1 + static_cast<int>(bits() % 20), 1 + 8 * unit());
    spec.decode_seconds_per_token = 0.2 * unit() / 256;
    const DeadlineBound bound = ClairvoyantQuality(spec, link);
    feasible += bound.feasible ? 1 : 0;
    const std::vector<Future> futures = {{&trace, absl::Seconds(3)}, {&trace, absl::Seconds(7)}};
    for (CutRule rule : kRules) {
      const absl::optional<uint32_t> cut = OnlineCut(spec, link, rule, futures, Careful());
      ASSERT_EQ(cut.has_value(), bound.feasible);
      if (!cut.has_value()) continue;
      const double level = Level(spec, link, *cut);
      EXPECT_GE(level, 0);
      EXPECT_LE(level, bound.mean_level + 1e-9);
    }
    const absl::optional<double> best = CarefulClairvoyant(spec, link, Careful());
    ASSERT_EQ(best.has_value(), bound.feasible);
    EXPECT_NEAR(best.value_or(0), bound.mean_level, 1e-9);
  }
  EXPECT_GT(feasible, 50);
  EXPECT_LT(feasible, 290);
}

}  // namespace
}  // namespace links
}  // namespace kvstream

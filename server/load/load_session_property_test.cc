// Scans over links, deadlines and clients, each load from scratch: without a hint, and with an
// estimator that knows nothing.
#include <algorithm>
#include <cmath>

#include "gtest/gtest.h"
#include "server/load/load_session.h"
#include "server/load/testing/link_simulator.h"
#include "server/load/testing/specs.h"

namespace kvstream {
namespace {

struct Case {
  LoadSpec spec;
  SimulatedLink link;
  SimulatedClient client;
  double mbit;
  absl::Duration rtt;
};

template <typename Body>
int Scan(LoadPolicy policy, const Body& body) {
  int count = 0;
  for (double mbit : {2, 5, 20, 50, 100, 200, 500, 3000}) {
    for (absl::Duration rtt :
         {absl::Milliseconds(0.1), absl::Milliseconds(20), absl::Milliseconds(80)}) {
      for (double deadline_s : {0.1, 0.25, 0.6, 1.0, 3.0, 10.0}) {
        for (RecomputeAbility ability : {RecomputeAbility::kNone, RecomputeAbility::kSuffix,
                                         RecomputeAbility::kAny, RecomputeAbility::kFront}) {
          for (double prefill_s : {5e-5, 5e-4}) {
            for (bool every_frame : {true, false}) {
              Case one;
              one.spec = UniformSpec(24, {700, 900, 1800, 2600});
              one.spec.policy = policy;
              one.spec.deadline = absl::Seconds(deadline_s);
              SetPrefill(&one.spec, &one.client, ability, prefill_s, prefill_s * 1e-5);
              one.spec.decode_seconds_per_token = one.client.decode_seconds_per_token = 2e-6;
              one.client.report_every_frame = every_frame;
              one.link = ConstantLink(mbit, rtt);
              one.mbit = mbit;
              one.rtt = rtt;
              SCOPED_TRACE(testing::Message()
                           << mbit << " Mbit/s, rtt " << rtt << ", deadline " << deadline_s
                           << " s, ability " << static_cast<int>(ability) << ", prefill "
                           << prefill_s << ", reports " << every_frame);
              body(one);
              ++count;
            }
          }
        }
      }
    }
  }
  return count;
}

double Delay(const SimulationResult& result) {
  return absl::ToDoubleSeconds(result.finish.load_delay);
}

SimulationResult Coarsest(const Case& one) {
  LoadSpec spec = one.spec;
  spec.policy = LoadPolicy::kFixed;
  spec.level = 0;
  return Simulate(spec, {}, one.link, one.client);
}

TEST(LoadPropertyTest, NoDeadlineIsMissedThatTheCoarsestLevelMakes) {
  int made = 0;
  Scan(LoadPolicy::kDeadline, [&](const Case& one) {
    const SimulationResult result = Simulate(one.spec, {}, one.link, one.client);
    ASSERT_TRUE(result.status.ok()) << result.status;
    const SimulationResult coarsest = Coarsest(one);
    ASSERT_TRUE(coarsest.status.ok()) << coarsest.status;
    if (coarsest.finish.deadline_missed) return;
    ++made;
    EXPECT_FALSE(result.finish.deadline_missed)
        << Delay(result) << " s, coarsest " << Delay(coarsest) << " s";
  });
  EXPECT_GT(made, 500);
}

TEST(LoadPropertyTest, NoDeadlineIsMissedThatRecomputeMakesWithRoom) {
  int made = 0;
  Scan(LoadPolicy::kDeadline, [&](const Case& one) {
    if (one.spec.ability == RecomputeAbility::kNone) return;
    LoadSpec spec = one.spec;
    spec.policy = LoadPolicy::kRecompute;
    const double recompute = Delay(Simulate(spec, {}, one.link, one.client));
    // The probe costs a round trip, and what it has put on the link stands before the plan; the
    // client is trusted with 15 % less.
    const double probe = absl::ToDoubleSeconds(one.rtt) + (128 << 10) / (one.mbit * kMbit);
    if (recompute * 1.2 + probe + 0.05 > 0.9 * absl::ToDoubleSeconds(*one.spec.deadline)) return;
    ++made;
    const SimulationResult result = Simulate(one.spec, {}, one.link, one.client);
    EXPECT_FALSE(result.finish.deadline_missed) << Delay(result) << " s, recompute " << recompute;
  });
  EXPECT_GT(made, 500);
}

TEST(LoadPropertyTest, FastestIsHardlySlowerThanTheBetterOfBoth) {
  Scan(LoadPolicy::kFastest, [&](const Case& one) {
    if (*one.spec.deadline != absl::Seconds(1)) return;  // it knows no deadline
    const SimulationResult result = Simulate(one.spec, {}, one.link, one.client);
    ASSERT_TRUE(result.status.ok()) << result.status;
    double best = Delay(Coarsest(one));
    if (one.spec.ability != RecomputeAbility::kNone) {
      LoadSpec spec = one.spec;
      spec.policy = LoadPolicy::kRecompute;
      best = std::min(best, Delay(Simulate(spec, {}, one.link, one.client)));
    }
    // While the window grows, a round trip a step, the link's speed is not known; then it takes
    // some reports.
    const double rtt_s =
        absl::ToDoubleSeconds(one.rtt) + (one.client.report_every_frame ? 0 : 0.02);
    const double rate = one.mbit * kMbit;
    const double probe =
        rtt_s * (1 + std::log2(1 + rate * rtt_s / (64 << 10))) + (128 << 10) / rate;
    EXPECT_LE(Delay(result), 1.1 * best + probe + 0.05);
    EXPECT_LE(result.received_in_vain, 1u);
  });
}

}  // namespace
}  // namespace kvstream

// Loads over chunks of which some have lost their finest levels.
#include <algorithm>

#include "gtest/gtest.h"
#include "server/load/load_session.h"
#include "server/load/testing/link_simulator.h"
#include "server/load/testing/specs.h"

namespace kvstream {
namespace {

using Ability = RecomputeAbility;

SimulationResult RunLoad(const LoadSpec& spec, const SimulatedLink& link,
                         const SimulatedClient& client = {}) {
  SimulationResult result = Simulate(spec, {}, link, client);
  EXPECT_TRUE(result.status.ok()) << result.status;
  return result;
}

LoadSpec Context(LoadPolicy policy) {
  LoadSpec spec = UniformSpec(32, {800, 1200, 2000, 3000});
  spec.policy = policy;
  return spec;
}

// Every third chunk of four levels has two, the last one.
LoadSpec Degraded(LoadPolicy policy) {
  LoadSpec spec = Context(policy);
  for (size_t i = 1; i < spec.chunks.size(); i += 3) spec.chunks[i].segment_bytes.resize(2);
  spec.chunks.back().segment_bytes.resize(1);
  return spec;
}

TEST(UnequalLevelsTest, EachChunkGoesAsDeepAsItCan) {
  for (Ability ability : {Ability::kNone, Ability::kSuffix, Ability::kFront}) {
    for (LoadPolicy policy : {LoadPolicy::kDeadline, LoadPolicy::kFixed, LoadPolicy::kCacheGen}) {
      SCOPED_TRACE(testing::Message() << "ability " << static_cast<int>(ability) << ", policy "
                                      << static_cast<int>(policy));
      LoadSpec spec = Degraded(policy);
      spec.ability = ability;
      spec.deadline = absl::Seconds(4);
      spec.level = 3;
      spec.bandwidth_hint_bytes_per_second = 2000 * kMbit;
      const SimulationResult result = RunLoad(spec, ConstantLink(2000, absl::Milliseconds(10)));
      EXPECT_EQ(result.bytes, TotalBytes(spec, 3));
      EXPECT_EQ(result.recomputed, 0u);
      for (size_t i = 0; i < spec.chunks.size(); ++i) {
        EXPECT_EQ(result.finish.chunks[i].level,
                  static_cast<int>(spec.chunks[i].segment_bytes.size()) - 1)
            << i;
      }
    }
  }
}

TEST(UnequalLevelsTest, FixedSendsTheLevelWhereThereIsOne) {
  LoadSpec spec = Degraded(LoadPolicy::kFixed);
  spec.level = 1;
  const SimulationResult result = RunLoad(spec, ConstantLink(100, absl::Milliseconds(10)));
  for (size_t i = 0; i < spec.chunks.size(); ++i) {
    EXPECT_EQ(result.finish.chunks[i].level, i + 1 == spec.chunks.size() ? 0 : 1) << i;
  }
}

// The link has time for the second level of all, or for more of the few that have more.
TEST(UnequalLevelsTest, RefinesLevelByLevelAmongThoseThatHaveIt) {
  LoadSpec spec = Degraded(LoadPolicy::kDeadline);
  spec.deadline = absl::Seconds(2);
  LoadSpec whole = Context(LoadPolicy::kDeadline);
  whole.deadline = spec.deadline;
  const SimulationResult result = RunLoad(spec, ConstantLink(120, absl::Milliseconds(10)));
  EXPECT_FALSE(result.finish.deadline_missed);
  // What the others do not need is theirs: no byte of the time is lost.
  const SimulationResult other = RunLoad(whole, ConstantLink(120, absl::Milliseconds(10)));
  EXPECT_GT(result.bytes, 0.95 * other.bytes);
  int low = 3, high = 0;
  for (size_t i = 0; i < spec.chunks.size(); ++i) {
    if (spec.chunks[i].segment_bytes.size() < 4) continue;
    low = std::min(low, *result.finish.chunks[i].level);
    high = std::max(high, *result.finish.chunks[i].level);
  }
  EXPECT_GE(low, 1);
  EXPECT_LE(high - low, 1);
}

// That chunks lack levels is no reason to miss a deadline that is met without those levels.
TEST(UnequalLevelsTest, RecomputeIsPlannedAsForWhatIsThere) {
  for (Ability ability : {Ability::kSuffix, Ability::kAny, Ability::kFront}) {
    for (double mbit : {5, 20, 60, 200}) {
      LoadSpec spec = Degraded(LoadPolicy::kDeadline);
      spec.deadline = absl::Seconds(2);
      spec.decode_seconds_per_token = 1e-6;
      SimulatedClient client;
      client.decode_seconds_per_token = 1e-6;
      SetPrefill(&spec, &client, ability, 1e-4, 1e-9);
      const SimulationResult result =
          RunLoad(spec, ConstantLink(mbit, absl::Milliseconds(10)), client);
      EXPECT_TRUE(result.usable_at_deadline) << mbit << ", " << static_cast<int>(ability);
    }
  }
}

// A floor that is a mean: the chunks that are streamed first come a level lower.
TEST(UnequalLevelsTest, AsManyChunksAsAllowedComeBelowTheFloor) {
  for (Ability ability : {Ability::kNone, Ability::kFront}) {
    SCOPED_TRACE(static_cast<int>(ability));
    LoadSpec spec = Context(LoadPolicy::kFastest);
    spec.ability = ability;  // and a prefill that is not known
    spec.floor_level = 2;
    spec.floor_below_share = 0.26;  // 8.3 of 32
    const SimulationResult result = RunLoad(spec, ConstantLink(100, absl::Milliseconds(10)));
    for (uint32_t i = 0; i < 32; ++i) {
      const uint32_t nth = ability == Ability::kNone ? i : 31 - i;
      EXPECT_EQ(result.finish.chunks[i].level, nth < 8 ? 1 : 2) << i;
    }
    LoadSpec whole = spec;
    whole.floor_below_share = 0;
    const SimulationResult other = RunLoad(whole, ConstantLink(100, absl::Milliseconds(10)));
    EXPECT_EQ(other.bytes - result.bytes, uint64_t{8} * 2000 * kTestChunkTokens);
    EXPECT_LT(result.finish.load_delay, other.finish.load_delay);
  }
}

TEST(UnequalLevelsTest, AllChunksMayComeBelowTheFloor) {
  LoadSpec spec = Context(LoadPolicy::kFastest);
  spec.floor_level = 3;
  spec.floor_below_share = 1;
  const SimulationResult result = RunLoad(spec, ConstantLink(100, absl::Milliseconds(10)));
  for (const ChunkDecision& chunk : result.finish.chunks) EXPECT_EQ(chunk.level, 2);
}

// What is recomputed is exact; what is streamed is below the floor first.
TEST(UnequalLevelsTest, RecomputeDividesWithTheLoweredFloor) {
  for (Ability ability : {Ability::kSuffix, Ability::kAny, Ability::kFront}) {
    LoadSpec spec = Context(LoadPolicy::kFastest);
    SimulatedClient client;
    SetPrefill(&spec, &client, ability, 1e-4, 1e-9);
    spec.recompute_can_stop = true;
    spec.floor_level = 2;
    spec.bandwidth_hint_bytes_per_second = 200 * kMbit;
    const SimulatedLink link = ConstantLink(200, absl::Milliseconds(10));
    const SimulationResult whole = RunLoad(spec, link, client);
    spec.floor_below_share = 0.5;
    const SimulationResult lowered = RunLoad(spec, link, client);
    EXPECT_GT(lowered.recomputed, 0u);
    EXPECT_LT(lowered.recomputed, whole.recomputed);
    EXPECT_LT(lowered.finish.load_delay, whole.finish.load_delay);
  }
}

}  // namespace
}  // namespace kvstream

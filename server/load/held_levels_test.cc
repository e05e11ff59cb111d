// Loads that go on from another server: the client holds some levels of some chunks.
#include <algorithm>
#include <cstdlib>
#include <numeric>
#include <random>

#include "gtest/gtest.h"
#include "server/load/load_session.h"
#include "server/load/testing/link_simulator.h"
#include "server/load/testing/specs.h"

namespace kvstream {
namespace {

constexpr uint32_t kChunks = 24;
constexpr int kLevels = 4;

LoadSpec Context(RecomputeAbility ability, double deadline_s) {
  LoadSpec spec = UniformSpec(kChunks, {700, 900, 1800, 2600});
  spec.policy = LoadPolicy::kDeadline;
  spec.deadline = absl::Seconds(deadline_s);
  spec.ability = ability;
  return spec;
}

double HeldBytes(const LoadSpec& spec) {
  double bytes = 0;
  for (size_t i = 0; i < spec.held_levels.size(); ++i) {
    const auto& segments = spec.chunks[i].segment_bytes;
    bytes += static_cast<double>(
        std::accumulate(segments.begin(), segments.begin() + spec.held_levels[i], uint64_t{0}));
  }
  return bytes;
}

// The checks of Simulate() include that no held segment is sent.
SimulationResult RunLoad(const LoadSpec& spec, const SimulatedLink& link,
                         const SimulatedClient& client = {}) {
  SimulationResult result = Simulate(spec, {}, link, client);
  EXPECT_TRUE(result.status.ok()) << result.status;
  for (size_t i = 0; i < spec.held_levels.size() && result.status.ok(); ++i) {
    if (spec.held_levels[i] == 0) continue;
    EXPECT_GE(result.finish.chunks[i].level.value_or(kLevels), spec.held_levels[i] - 1) << i;
  }
  return result;
}

TEST(HeldLevelsTest, ChunksThatAreAllHeldAreRefinedBeforeTheDeadline) {
  for (RecomputeAbility ability : {RecomputeAbility::kNone, RecomputeAbility::kSuffix,
                                   RecomputeAbility::kAny, RecomputeAbility::kFront}) {
    for (bool gated : {false, true}) {
      for (double hint : {0.0, 1000 * kMbit}) {
        LoadSpec spec = Context(ability, 3);
        spec.held_levels.assign(kChunks, 1);
        spec.bandwidth_hint_bytes_per_second = hint;
        SimulatedLink link = ConstantLink(500, absl::Milliseconds(20));
        link.gated = gated;
        const SimulationResult result = RunLoad(spec, link);
        EXPECT_EQ(result.bytes, TotalBytes(spec, kLevels - 1) - HeldBytes(spec));
        EXPECT_EQ(result.min_level, kLevels - 1);
        EXPECT_FALSE(result.finish.deadline_missed);
      }
    }
  }
}

TEST(HeldLevelsTest, NothingIsSentOfWhatIsWhole) {
  LoadSpec spec = Context(RecomputeAbility::kNone, 3);
  spec.held_levels.assign(kChunks, kLevels);
  const SimulationResult result = RunLoad(spec, ConstantLink(500, absl::Milliseconds(20)));
  EXPECT_EQ(result.bytes, 0u);
  EXPECT_EQ(result.min_level, kLevels - 1);
}

TEST(HeldLevelsTest, OtherPoliciesSendWhatIsMissingAndRefineNothing) {
  for (LoadPolicy policy : {LoadPolicy::kFastest, LoadPolicy::kFixed, LoadPolicy::kCacheGen}) {
    LoadSpec spec = Context(RecomputeAbility::kNone, 3);
    spec.policy = policy;
    spec.level = 1;
    spec.held_levels.assign(kChunks, 2);
    for (uint32_t i = 10; i < 14; ++i) spec.held_levels[i] = 0;
    const SimulationResult result = RunLoad(spec, ConstantLink(500, absl::Milliseconds(20)));
    for (uint32_t i = 0; i < kChunks; ++i) {
      if (spec.held_levels[i] == 0) continue;
      EXPECT_EQ(result.finish.chunks[i].level, 1) << i;
    }
    if (policy == LoadPolicy::kFixed) {
      EXPECT_EQ(result.bytes, TotalBytes(spec, 1) - HeldBytes(spec));
    }
  }
}

// The missing ones first, then what is held at the lowest level.
TEST(HeldLevelsTest, MissingChunksComeBeforeRefinement) {
  LoadSpec spec = Context(RecomputeAbility::kNone, 1);
  spec.held_levels.assign(kChunks, 3);
  for (uint32_t i = 8; i < kChunks; ++i) spec.held_levels[i] = 0;
  // Time for the bases of the missing, and the second level of most.
  const SimulationResult result = RunLoad(spec, ConstantLink(45, absl::Milliseconds(10)));
  EXPECT_FALSE(result.finish.deadline_missed);
  for (uint32_t i = 0; i < 8; ++i) EXPECT_EQ(result.finish.chunks[i].level, 2) << i;
  int refined = 0;
  for (uint32_t i = 8; i < kChunks; ++i) refined += result.finish.chunks[i].level.value_or(0) >= 1;
  EXPECT_GT(refined, 8);
}

TEST(HeldLevelsTest, ADamagedRefinementOfAHeldChunkIsRecomputedOrFails) {
  LoadSpec spec = Context(RecomputeAbility::kNone, 3);
  spec.held_levels.assign(kChunks, 1);
  SimulatedStore store;
  store.unreadable = {{5, 1}};
  const SimulatedLink link = ConstantLink(500, absl::Milliseconds(20));
  EXPECT_TRUE(absl::IsDataLoss(Simulate(spec, {}, link, {}, store).status));
  SimulatedClient client;
  for (RecomputeAbility ability : {RecomputeAbility::kAny, RecomputeAbility::kFront}) {
    SetPrefill(&spec, &client, ability, 1e-5, 0);
    const SimulationResult result = Simulate(spec, {}, link, client, store);
    ASSERT_TRUE(result.status.ok()) << result.status;
    EXPECT_EQ(result.finish.chunks[5].level, absl::nullopt);
    EXPECT_EQ(result.recomputed, 1u);
  }
}

// What a first server has sent in part of the time, another goes on from.
TEST(HeldLevelsTest, NoDeadlineIsMissedThatTheSameLoadMakesWithoutHeldChunks) {
  int made = 0;
  for (double mbit : {5, 20, 50, 200, 1000}) {
    for (double deadline_s : {0.25, 1.0, 4.0}) {
      for (RecomputeAbility ability : {RecomputeAbility::kNone, RecomputeAbility::kSuffix,
                                       RecomputeAbility::kAny, RecomputeAbility::kFront}) {
        for (uint32_t missing : {0u, 1u, 8u, 20u}) {
          SCOPED_TRACE(testing::Message()
                       << mbit << " Mbit/s, deadline " << deadline_s << " s, ability "
                       << static_cast<int>(ability) << ", " << missing << " missing");
          LoadSpec spec = Context(ability, deadline_s);
          SimulatedClient client;
          client.decode_seconds_per_token = spec.decode_seconds_per_token = 2e-6;
          if (ability != RecomputeAbility::kNone) {
            SetPrefill(&spec, &client, ability, 2e-4, 2e-9);
          }
          const SimulatedLink link = ConstantLink(mbit, absl::Milliseconds(20));
          const SimulationResult whole = RunLoad(spec, link, client);
          spec.held_levels.assign(kChunks, 1);
          const bool front =
              ability == RecomputeAbility::kAny || ability == RecomputeAbility::kFront;
          for (uint32_t i = 0; i < missing; ++i) {
            spec.held_levels[front ? i : kChunks - 1 - i] = 0;
          }
          const SimulationResult held = RunLoad(spec, link, client);
          if (whole.finish.deadline_missed) continue;
          ++made;
          EXPECT_FALSE(held.finish.deadline_missed)
              << held.finish.load_delay << ", without " << whole.finish.load_delay;
        }
      }
    }
  }
  EXPECT_GT(made, 100);
}

TEST(HeldLevelsTest, WhatNoLoadLeavesIsRefused) {
  LoadSpec spec = Context(RecomputeAbility::kNone, 1);
  const auto refused = [&](const char* what) {
    const absl::Status status = spec.Validate();
    return status.code() == absl::StatusCode::kInvalidArgument &&
           status.message().find(what) != absl::string_view::npos;
  };
  spec.held_levels.assign(kChunks - 1, 1);
  EXPECT_TRUE(refused("held_levels has 23 values"));
  spec.held_levels.assign(kChunks, 1);
  EXPECT_TRUE(spec.Validate().ok());
  spec.held_levels[3] = kLevels + 1;
  EXPECT_TRUE(refused("chunk 3 is 5"));
  spec.held_levels[3] = 1;
  spec.floor_level = 1;
  EXPECT_TRUE(refused("chunk 0 is 1"));
  spec.floor_level = 0;
  spec.held_levels[3] = spec.held_levels[7] = 0;
  EXPECT_TRUE(refused("chunks 3 to 7 of 24 have 2"));
  spec.held_levels[7] = 1;
  EXPECT_TRUE(spec.Validate().ok());
  spec.ability = RecomputeAbility::kSuffix;
  EXPECT_TRUE(refused("chunks 3 to 3"));
  spec.ability = RecomputeAbility::kFront;
  EXPECT_TRUE(refused("chunks 3 to 3"));
  spec.held_levels[3] = 1;
  spec.held_levels[0] = 0;
  EXPECT_TRUE(spec.Validate().ok());
  spec.policy = LoadPolicy::kRecompute;
  EXPECT_TRUE(refused("policy recompute"));
}

}  // namespace
}  // namespace kvstream

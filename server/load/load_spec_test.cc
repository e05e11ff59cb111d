#include <cmath>
#include <limits>

#include "gtest/gtest.h"
#include "server/load/load_session.h"
#include "server/load/testing/specs.h"

namespace kvstream {
namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
constexpr double kInfinity = std::numeric_limits<double>::infinity();

LoadSpec Good() {
  LoadSpec spec = UniformSpec(3, {10, 20});
  spec.deadline = absl::Seconds(1);
  return spec;
}

void ExpectInvalid(const LoadSpec& spec) {
  EXPECT_EQ(spec.Validate().code(), absl::StatusCode::kInvalidArgument) << spec.Validate();
  EXPECT_FALSE(LoadSession::Create(spec, {}, absl::ZeroDuration()).ok());
}

TEST(LoadSpecTest, AcceptsWhatIsRight) { EXPECT_TRUE(Good().Validate().ok()); }

TEST(LoadSpecTest, RejectsImpossibleChunks) {
  LoadSpec spec = Good();
  spec.chunks.clear();
  ExpectInvalid(spec);
  spec = Good();
  spec.chunks[1].tokens = 0;
  ExpectInvalid(spec);
  spec = Good();
  spec.chunks[1].segment_bytes[1] = 0;
  ExpectInvalid(spec);
  spec = Good();
  spec.chunks[1].segment_bytes[0] = ~uint64_t{0};
  ExpectInvalid(spec);
  spec = Good();
  spec.chunks[2].segment_bytes.clear();
  ExpectInvalid(spec);
  spec = Good();
  spec.chunks[2].segment_bytes.resize(65, 1);
  ExpectInvalid(spec);
  spec = Good();
  for (StoredChunkSizes& chunk : spec.chunks) chunk.segment_bytes.clear();
  ExpectInvalid(spec);
  spec = Good();
  spec.chunks[0].first_token = ~uint64_t{0};
  ExpectInvalid(spec);
  spec = Good();
  spec.chunks.resize(65537, spec.chunks[0]);
  ExpectInvalid(spec);
}

TEST(LoadSpecTest, ChunksMayHaveUnequalLevelsButAllTheFloor) {
  LoadSpec spec = Good();
  spec.chunks[1].segment_bytes.pop_back();
  EXPECT_TRUE(spec.Validate().ok());
  EXPECT_EQ(LevelsOf(spec.chunks), 2);
  spec.level = 1;
  EXPECT_TRUE(spec.Validate().ok());
  spec.floor_level = 1;
  ExpectInvalid(spec);
  spec = Good();
  spec.chunks[0].segment_bytes.pop_back();
  LoadSessionOptions options;
  options.level_weights = {1};
  EXPECT_FALSE(LoadSession::Create(spec, options, absl::ZeroDuration()).ok());
  options.level_weights = {1, 1};
  EXPECT_TRUE(LoadSession::Create(spec, options, absl::ZeroDuration()).ok());
}

TEST(LoadSpecTest, RejectsLevelsOutsideTheLadder) {
  LoadSpec spec = Good();
  spec.level = 2;
  ExpectInvalid(spec);
  spec = Good();
  spec.floor_level = 2;
  ExpectInvalid(spec);
  spec = Good();
  spec.floor_level = -1;
  ExpectInvalid(spec);
  spec = Good();
  spec.policy = LoadPolicy::kFixed;
  spec.floor_level = 1;
  ExpectInvalid(spec);
}

TEST(LoadSpecTest, AMeanFloorIsOfFastestAndHasALevelBelow) {
  LoadSpec spec = Good();
  spec.policy = LoadPolicy::kFastest;
  spec.floor_level = 1;
  EXPECT_EQ(spec.lowest_level(), 1);
  for (double good : {0.25, 1.0}) {
    spec.floor_below_share = good;
    EXPECT_TRUE(spec.Validate().ok());
    EXPECT_EQ(spec.lowest_level(), 0);
  }
  for (double bad : {kNan, kInfinity, -0.1, 1.001}) {
    spec.floor_below_share = bad;
    ExpectInvalid(spec);
  }
  spec.floor_below_share = 0.5;
  spec.floor_level = 0;
  ExpectInvalid(spec);
  spec.floor_level = 1;
  spec.policy = LoadPolicy::kDeadline;
  ExpectInvalid(spec);
}

TEST(FloorBelowShareTest, KeepsTheMeanAtOrBelowWhatIsAsked) {
  EXPECT_DOUBLE_EQ(FloorBelowShare(0.002, 0.001, 0.005), 0.25);
  EXPECT_EQ(FloorBelowShare(0.001, 0.001, 0.005), 0);
  EXPECT_EQ(FloorBelowShare(0.0005, 0.001, 0.005), 0);
  EXPECT_EQ(FloorBelowShare(0.9, 0.001, 0.005), 1);
  EXPECT_EQ(FloorBelowShare(0.9, 0.005, 0.005), 0);  // nothing is gained
  EXPECT_EQ(FloorBelowShare(kNan, 0.001, 0.005), 0);
  EXPECT_EQ(FloorBelowShare(0.002, kNan, 0.005), 0);
  EXPECT_EQ(FloorBelowShare(0.002, 0.001, kNan), 0);
}

TEST(LoadSpecTest, RejectsNumbersThatAreNone) {
  for (double bad : {kNan, kInfinity, -kInfinity, -1.0, 1e300}) {
    LoadSpec spec = Good();
    spec.prefill_seconds_per_token = bad;
    ExpectInvalid(spec);
    spec = Good();
    spec.prefill_seconds_per_token_pair = bad;
    ExpectInvalid(spec);
    spec = Good();
    spec.decode_seconds_per_token = bad;
    ExpectInvalid(spec);
    spec = Good();
    spec.bandwidth_hint_bytes_per_second = bad;
    ExpectInvalid(spec);
  }
}

TEST(LoadSpecTest, RejectsPoliciesWithoutWhatTheyNeed) {
  for (absl::Duration bad : {absl::ZeroDuration(), absl::Seconds(-1), absl::InfiniteDuration()}) {
    LoadSpec spec = Good();
    spec.deadline = bad;
    ExpectInvalid(spec);
  }
  for (LoadPolicy policy : {LoadPolicy::kDeadline, LoadPolicy::kCacheGen}) {
    LoadSpec spec = Good();
    spec.policy = policy;
    EXPECT_TRUE(spec.Validate().ok());
    spec.deadline.reset();
    ExpectInvalid(spec);
  }
  LoadSpec spec = Good();
  spec.policy = LoadPolicy::kRecompute;
  ExpectInvalid(spec);
  spec.ability = RecomputeAbility::kSuffix;
  EXPECT_TRUE(spec.Validate().ok());
}

TEST(LoadSessionOptionsTest, RejectsWhatCannotWork) {
  LoadSessionOptions options;
  EXPECT_TRUE(options.Validate().ok());
  options.frame_bytes = 0;
  EXPECT_FALSE(options.Validate().ok());
  options = {};
  options.window_bytes_max = options.window_bytes_min - 1;
  EXPECT_FALSE(options.Validate().ok());
  options = {};
  options.client_idle_limit = absl::ZeroDuration();
  EXPECT_FALSE(options.Validate().ok());
  options = {};
  options.startup_bytes_per_second = kNan;
  EXPECT_FALSE(options.Validate().ok());
  options = {};
  options.level_weights = {1, kNan};
  EXPECT_FALSE(options.Validate().ok());
  options.level_weights = {1, 1, 1};  // the load has two levels
  EXPECT_FALSE(LoadSession::Create(Good(), options, absl::ZeroDuration()).ok());
}

}  // namespace
}  // namespace kvstream

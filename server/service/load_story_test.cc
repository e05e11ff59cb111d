#include "server/service/load_story.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>

namespace kvstream {
namespace {

v1::LoadSummary Told(uint32_t samples_max, int seconds) {
  LoadStory story(samples_max);
  for (int ms = 0; ms <= 1000 * seconds; ++ms) {
    LoadSessionState state;
    state.bandwidth_bytes_per_second = ms;
    state.bytes_sent = static_cast<uint64_t>(ms);
    story.Add(absl::Milliseconds(ms), state);
  }
  v1::LoadSummary summary;
  story.Write(&summary);
  return summary;
}

TEST(LoadStoryTest, KeepsNothingUnlessItWasAskedTo) {
  LoadStory story(0);
  EXPECT_FALSE(story.wants(absl::Seconds(1)));
  EXPECT_EQ(Told(0, 1).story_size(), 0);
}

TEST(LoadStoryTest, KeepsOneSampleEveryFiveMilliseconds) {
  const v1::LoadSummary summary = Told(512, 1);
  ASSERT_EQ(summary.story_size(), 201);
  EXPECT_EQ(summary.story(1).at_ns(), 5000000u);
  EXPECT_EQ(summary.story(1).bandwidth_estimate_bytes_per_second(), 5);
  EXPECT_EQ(summary.story(200).bytes_sent(), 1000u);
}

TEST(LoadStoryTest, StaysEvenlySpreadAndWithinItsLimitOverALongLoad) {
  for (const uint32_t samples_max : {1u, 2u, 3u, 64u, 512u, 4000000000u}) {
    const v1::LoadSummary summary = Told(samples_max, 100);
    ASSERT_GE(summary.story_size(), 1);
    ASSERT_LE(summary.story_size(), static_cast<int>(LoadStory::kSamplesMax));
    if (samples_max >= 2 && samples_max < LoadStory::kSamplesMax) {
      EXPECT_LE(summary.story_size(), static_cast<int>(samples_max));
    }
    EXPECT_EQ(summary.story(0).at_ns(), 0u);
    uint64_t gap_min = UINT64_MAX, gap_max = 0;
    for (int i = 1; i < summary.story_size(); ++i) {
      const uint64_t gap = summary.story(i).at_ns() - summary.story(i - 1).at_ns();
      gap_min = std::min(gap_min, gap);
      gap_max = std::max(gap_max, gap);
    }
    if (summary.story_size() > 2) {
      EXPECT_LE(gap_max, 2 * gap_min);
    }
  }
}

}  // namespace
}  // namespace kvstream

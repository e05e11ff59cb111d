#include "client/progress_pace.h"

#include <gtest/gtest.h>

namespace kvstream {
namespace {

constexpr absl::Duration kNow = absl::Seconds(100);

TEST(ProgressPace, NothingIsReportedBeforeSomethingHappens) {
  ProgressPace pace;
  EXPECT_EQ(pace.Wait(kNow), absl::InfiniteDuration());
  EXPECT_FALSE(pace.MaySend(kNow));
}

// Past the reports that go at once; the last one went at kNow.
ProgressPace Begun() {
  ProgressPace pace;
  for (int i = 0; i < ProgressPace::kAtOnce; ++i) {
    pace.Due();
    EXPECT_TRUE(pace.MaySend(kNow)) << "report " << i;
    pace.Sent(kNow);
  }
  return pace;
}

TEST(ProgressPace, TheFirstReportsGoAtOnce) {
  ProgressPace pace = Begun();
  pace.Due();
  EXPECT_FALSE(pace.MaySend(kNow));
}

TEST(ProgressPace, TheNextFollowsAfterThePause) {
  ProgressPace pace = Begun();
  EXPECT_EQ(pace.Wait(kNow), absl::InfiniteDuration());
  const absl::Duration soon = kNow + ProgressPace::kPause / 4;
  pace.Due();
  EXPECT_FALSE(pace.MaySend(soon));
  EXPECT_EQ(pace.Wait(soon), ProgressPace::kPause * 3 / 4);
  EXPECT_TRUE(pace.MaySend(kNow + ProgressPace::kPause));
  EXPECT_TRUE(pace.MaySend(kNow + absl::Seconds(9)));
}

TEST(ProgressPace, WhatMayChangeTheServersMindDoesNotWait) {
  ProgressPace pace = Begun();
  pace.DueAtOnce();
  pace.Due();
  EXPECT_TRUE(pace.MaySend(kNow));
  pace.Sent(kNow);
  pace.Due();
  EXPECT_FALSE(pace.MaySend(kNow));
}

}  // namespace
}  // namespace kvstream

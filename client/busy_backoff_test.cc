#include "client/busy_backoff.h"

#include <gtest/gtest.h>

namespace kvstream {
namespace {

TEST(BusyBackoffTest, WaitsWhatTheServerSaysAndLongerEachTime) {
  BusyBackoff backoff(absl::Seconds(60));
  absl::Duration before;
  for (int i = 0; i < 4; ++i) {
    const auto wait = backoff.Next("200", 0.5, absl::Seconds(1));
    ASSERT_TRUE(wait.has_value());
    EXPECT_GT(*wait, before);
    before = *wait;
  }
  EXPECT_NEAR(absl::ToDoubleSeconds(before), 0.2 * 1.5 * 1.5 * 1.5 * 1.125, 1e-6);
}

TEST(BusyBackoffTest, SpreadsThoseWhoWereRefusedTogether) {
  EXPECT_EQ(BusyBackoff(absl::Seconds(60)).Next("1000", 0, absl::ZeroDuration()),
            absl::Milliseconds(750));
  EXPECT_EQ(BusyBackoff(absl::Seconds(60)).Next("1000", 1, absl::ZeroDuration()),
            absl::Milliseconds(1500));
}

TEST(BusyBackoffTest, GivesUpWithoutAHintOrTime) {
  BusyBackoff backoff(absl::Seconds(1));
  EXPECT_FALSE(backoff.Next(absl::nullopt, 0.5, absl::ZeroDuration()).has_value());
  EXPECT_FALSE(backoff.Next("-1", 0.5, absl::ZeroDuration()).has_value());
  EXPECT_FALSE(backoff.Next("soon", 0.5, absl::ZeroDuration()).has_value());
  EXPECT_FALSE(backoff.Next("99999999999999999999", 0.5, absl::ZeroDuration()).has_value());
  EXPECT_FALSE(backoff.Next("500", 0.5, absl::Milliseconds(600)).has_value());
}

TEST(BusyBackoffTest, EndsAndNeverWaitsForLong) {
  BusyBackoff backoff(absl::InfiniteDuration());
  int attempts = 0;
  while (const auto wait = backoff.Next("9000000000000000", 0.99, absl::ZeroDuration())) {
    EXPECT_LE(*wait, absl::Seconds(45));
    ++attempts;
  }
  EXPECT_EQ(attempts, BusyBackoff::kAttemptsMax);
  BusyBackoff at_once(absl::InfiniteDuration());
  EXPECT_GT(*at_once.Next("0", 0.5, absl::ZeroDuration()), absl::ZeroDuration());
}

}  // namespace
}  // namespace kvstream

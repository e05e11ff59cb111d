#include "server/load/bandwidth_estimator.h"

#include <algorithm>
#include <cmath>
#include <deque>

#include "gtest/gtest.h"

namespace kvstream {
namespace {

// Keeps `window` bytes in flight over a link of a given rate, with frames of 16 KiB and a report
// per frame.
class Link {
 public:
  Link(BandwidthEstimator* estimator, absl::Duration rtt, uint64_t window)
      : estimator_(estimator), one_way_(rtt / 2), window_(window) {}

  void Run(double rate, absl::Duration time) {
    const absl::Duration end = now_ + time;
    while (true) {
      while (estimator_->unacked_bytes() + kFrame <= window_) {
        estimator_->OnSent(kFrame, now_);
        free_ = std::max(free_, now_) + absl::Seconds(kFrame / rate);
        arrivals_.push_back(free_ + one_way_);
      }
      const absl::Duration reported = arrivals_.front() + one_way_;
      if (reported > end) break;
      now_ = reported;
      received_ += kFrame;
      ASSERT_TRUE(estimator_->OnReport(received_, arrivals_.front(), now_).ok());
      arrivals_.pop_front();
    }
    now_ = end;
  }
  BandwidthEstimate estimate() const { return estimator_->estimate(now_); }
  absl::Duration now() const { return now_; }

 private:
  static constexpr uint64_t kFrame = 16 << 10;
  BandwidthEstimator* estimator_;
  absl::Duration one_way_, now_, free_;
  uint64_t window_, received_ = 0;
  std::deque<absl::Duration> arrivals_;
};

TEST(BandwidthEstimatorTest, KnowsNothingAtFirst) {
  BandwidthEstimator estimator(0);
  const BandwidthEstimate estimate = estimator.estimate(absl::Seconds(1));
  EXPECT_FALSE(estimate.known());
  EXPECT_EQ(estimate.low, 0);
  EXPECT_TRUE(estimate.lower_bound);
  EXPECT_EQ(estimator.measured_rate(), 0);
}

TEST(BandwidthEstimatorTest, TakesTheHintUntilTheLinkSpeaks) {
  BandwidthEstimator estimator(50e6);
  EXPECT_EQ(estimator.estimate(absl::ZeroDuration()).rate, 50e6);
  EXPECT_EQ(estimator.estimate(absl::ZeroDuration()).low, 25e6);
  Link link(&estimator, absl::Milliseconds(10), 256 << 10);
  link.Run(1e6, absl::Milliseconds(400));
  EXPECT_NEAR(link.estimate().rate, 1e6, 1e5);
}

TEST(BandwidthEstimatorTest, MeasuresAConstantLinkAndGrowsSure) {
  for (double rate : {1e5, 6e5, 12e6, 400e6}) {
    BandwidthEstimator estimator(0);
    Link link(&estimator, absl::Milliseconds(20), static_cast<uint64_t>(rate * 0.1) + (64 << 10));
    link.Run(rate, absl::Seconds(2));
    EXPECT_NEAR(link.estimate().rate, rate, rate * 0.02);
    EXPECT_FALSE(link.estimate().lower_bound);
    EXPECT_LE(link.estimate().low, link.estimate().rate);
    EXPECT_GT(link.estimate().low, rate * 0.85);
    EXPECT_NEAR(absl::ToDoubleSeconds(estimator.rtt_min()), 0.02 + (16 << 10) / rate, 1e-3);
  }
}

TEST(BandwidthEstimatorTest, AWindowThatLimitsIsOnlyALowerBound) {
  BandwidthEstimator estimator(0);
  // 64 KiB each 80 ms, over a link that could do 100 MB/s.
  Link link(&estimator, absl::Milliseconds(80), 64 << 10);
  link.Run(100e6, absl::Seconds(1));
  EXPECT_TRUE(link.estimate().lower_bound);
  EXPECT_GT(link.estimate().rate, 0.7e6);
}

TEST(BandwidthEstimatorTest, AnIdleSenderDoesNotLowerTheEstimate) {
  BandwidthEstimator estimator(0);
  Link link(&estimator, absl::Milliseconds(10), 2 << 20);
  link.Run(10e6, absl::Seconds(1));
  // Drains, then one small frame each 100 ms.
  uint64_t bytes = estimator.sent_bytes();
  absl::Duration now = link.now() + absl::Seconds(1);
  ASSERT_TRUE(estimator.OnReport(bytes, now, now).ok());
  const double before = estimator.estimate(now).rate;
  for (int i = 0; i < 20; ++i) {
    now += absl::Milliseconds(100);
    estimator.OnSent(1000, now);
    bytes += 1000;
    ASSERT_TRUE(
        estimator.OnReport(bytes, now + absl::Milliseconds(10), now + absl::Milliseconds(10)).ok());
  }
  EXPECT_GE(estimator.estimate(now).rate, before);
}

TEST(BandwidthEstimatorTest, FallsQuicklyAndRisesSteadily) {
  BandwidthEstimator estimator(0);
  Link link(&estimator, absl::Milliseconds(10), 512 << 10);
  link.Run(20e6, absl::Seconds(1));
  link.Run(2e6, absl::Milliseconds(350));  // what was in flight needs 260 ms of it
  EXPECT_LT(link.estimate().rate, 2.5e6);
  link.Run(2e6, absl::Seconds(1));
  link.Run(20e6, absl::Milliseconds(260 + 100));  // what was in flight still came slowly
  EXPECT_GT(link.estimate().rate, 3e6);
  EXPECT_LT(link.estimate().rate, 16e6);
  link.Run(20e6, absl::Seconds(2));
  EXPECT_NEAR(link.estimate().rate, 20e6, 1e6);
}

TEST(BandwidthEstimatorTest, DoubtsALinkThatVaries) {
  BandwidthEstimator steady(0), moody(0);
  Link a(&steady, absl::Milliseconds(10), 512 << 10), b(&moody, absl::Milliseconds(10), 512 << 10);
  a.Run(10e6, absl::Seconds(4));
  for (int i = 0; i < 10; ++i) {
    b.Run(18e6, absl::Milliseconds(200));
    b.Run(3e6, absl::Milliseconds(200));
  }
  EXPECT_LT(b.estimate().low / b.estimate().rate, a.estimate().low / a.estimate().rate - 0.1);
  EXPECT_GT(moody.mean_square_log_error(), steady.mean_square_log_error());
}

TEST(BandwidthEstimatorTest, SilenceLowersWhatIsBelieved) {
  BandwidthEstimator estimator(0);
  Link link(&estimator, absl::Milliseconds(10), 512 << 10);
  link.Run(10e6, absl::Seconds(1));
  const BandwidthEstimate later = estimator.estimate(link.now() + absl::Seconds(1));
  EXPECT_LT(later.rate, 1e6);
  EXPECT_GT(later.low, 0);
}

TEST(BandwidthEstimatorTest, OneReportOfEverythingGivesABound) {
  BandwidthEstimator estimator(0);
  estimator.OnSent(100000, absl::Seconds(5));
  ASSERT_TRUE(estimator.OnReport(100000, absl::Milliseconds(30), absl::Seconds(5.1)).ok());
  EXPECT_NEAR(estimator.measured_rate(), 1e6, 1);
  EXPECT_TRUE(estimator.estimate(absl::Seconds(6)).lower_bound);
}

TEST(BandwidthEstimatorTest, TakesBackWhatWasNotSent) {
  BandwidthEstimator estimator(0);
  estimator.OnSent(1000, absl::ZeroDuration());
  estimator.OnSent(500, absl::ZeroDuration());
  EXPECT_TRUE(estimator.OnUnsent(500));
  EXPECT_EQ(estimator.unacked_bytes(), 1000u);
  EXPECT_FALSE(estimator.OnReport(1500, absl::Seconds(1), absl::Seconds(1)).ok());
  // A client that has got it nevertheless lies.
  ASSERT_TRUE(estimator.OnReport(999, absl::Seconds(1), absl::Seconds(1)).ok());
  EXPECT_FALSE(estimator.OnUnsent(1000));
}

TEST(BandwidthEstimatorTest, RejectsWhatCannotBeAndKeepsItsState) {
  BandwidthEstimator estimator(0);
  estimator.OnSent(1000, absl::ZeroDuration());
  ASSERT_TRUE(estimator.OnReport(500, absl::Seconds(1), absl::Seconds(1)).ok());
  const absl::Duration now = absl::Seconds(2);
  for (const auto& status : {estimator.OnReport(1001, absl::Seconds(2), now),  // more than was sent
                             estimator.OnReport(499, absl::Seconds(2), now),   // fewer than before
                             estimator.OnReport(600, absl::Seconds(0.5), now),  // clock goes back
                             estimator.OnReport(600, absl::Seconds(-1), now),   // before the load
                             estimator.OnReport(600, absl::InfiniteDuration(), now)}) {  // no time
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  }
  EXPECT_EQ(estimator.acked_bytes(), 500u);
}

TEST(BandwidthEstimatorTest, StaysFiniteWhateverTheClockSays) {
  BandwidthEstimator estimator(1e300);
  absl::Duration clock;
  uint64_t bytes = 0;
  for (int i = 0; i < 1000; ++i) {
    estimator.OnSent(i % 7 == 0 ? 16 << 20 : 1, absl::Milliseconds(i));
    if (i % 3 == 0) bytes = estimator.sent_bytes();
    // Years between two reports, or nothing at all.
    clock += i % 5 == 0 ? absl::Hours(1) : absl::Nanoseconds(i % 2);
    ASSERT_TRUE(estimator.OnReport(bytes, clock, absl::Milliseconds(i)).ok());
    const BandwidthEstimate estimate = estimator.estimate(absl::Milliseconds(i));
    ASSERT_TRUE(std::isfinite(estimate.rate) && std::isfinite(estimate.low));
    ASSERT_GT(estimate.rate, 0);
    ASSERT_GT(estimate.low, 0);
    ASSERT_LE(estimate.low, estimate.rate);
    ASSERT_LE(estimate.rate, 1e12);
  }
}

}  // namespace
}  // namespace kvstream

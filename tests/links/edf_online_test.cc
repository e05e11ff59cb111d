#include "tests/links/edf_online.h"

#include <gtest/gtest.h>

#include <random>

namespace kvstream {
namespace links {
namespace {

EdfJob Job(double release_s, double due_s, double bytes) {
  return {absl::Seconds(release_s), absl::Seconds(due_s), bytes};
}

TEST(EdfOnlineTest, KeepsWhatCanBeKeptOnAConstantLink) {
  const RateTrace trace = RateTrace::Constant(1e6);
  const std::vector<EdfJob> jobs = {Job(0, 1, 4e5), Job(0.1, 0.5, 3e5), Job(0.2, 1.1, 3e5)};
  EXPECT_EQ(ServeOnline(jobs, {}, trace, {}).misses, 0);
  // One that cannot be in time does not sink them, nor do others without a deadline.
  std::vector<EdfJob> more = jobs;
  more.push_back(Job(0, 1.2, 9e6));
  EXPECT_EQ(ServeOnline(more, {Job(0, 0, 5e6)}, trace, {}).misses, 1);
}

TEST(EdfOnlineTest, AFloorForTheOthersCosts) {
  const RateTrace trace = RateTrace::Constant(1e6);
  OnlineSender sender;
  sender.floor = 0.125;
  const std::vector<EdfJob> jobs = {Job(0, 1, 9.5e5)};
  EXPECT_EQ(ServeOnline(jobs, {Job(0, 0, 5e6)}, trace, {}).misses, 0);
  EXPECT_EQ(ServeOnline(jobs, {Job(0, 0, 5e6)}, trace, sender).misses, 1);
}

TEST(EdfOnlineTest, WhoSeesTheLinkOnlyWhenItSendsIsSurprised) {
  // Idle when it becomes ten times slower. The first fills a queue that the second waits behind.
  const auto trace = RateTrace::Parse("0 8Mbit\n0.5 800kbit\n");
  ASSERT_TRUE(trace.ok()) << trace.status();
  const std::vector<EdfJob> jobs = {Job(0.000, 0.2, 1e5), Job(0.605, 0.71, 1e4)};
  const std::vector<EdfJob> others = {Job(0.6, 0, 5e5)};
  OnlineSender sender;
  sender.round_trip = absl::Milliseconds(2);
  EXPECT_EQ(ServeOnline(jobs, others, *trace, sender).misses, 0);
  sender.record = 1e6;
  sender.round_trip = absl::Milliseconds(20);
  EXPECT_EQ(ServeOnline(jobs, others, *trace, sender).misses, 1);
}

TEST(EdfOnlineTest, NeverBeatsTheBound) {
  std::mt19937 random(3);
  const auto draw = [&](double low, double high) {
    return std::uniform_real_distribution<double>(low, high)(random);
  };
  const auto trace = RateTrace::Parse("0 8Mbit\n0.5 1Mbit\n1 8Mbit\n1.2 0\n1.6 16Mbit\n2 loop\n");
  ASSERT_TRUE(trace.ok()) << trace.status();
  for (int round = 0; round < 30; ++round) {
    std::vector<EdfJob> jobs;
    for (int i = 0; i < 8; ++i) {
      const double release = draw(0, 3);
      jobs.push_back(Job(release, release + draw(0.05, 1), draw(1e4, 5e5)));
    }
    OnlineSender sender;
    sender.round_trip = absl::Milliseconds(round % 3 * 20);
    EXPECT_GE(ServeOnline(jobs, {}, *trace, sender).misses, BoundMisses(jobs, *trace).least)
        << round;
    for (EdfJob& job : jobs) job.finer = {job.bytes, 2 * job.bytes};
    const OnlineOutcome fine = ServeOnline(jobs, {}, *trace, sender);
    EXPECT_GE(fine.misses, BoundMisses(jobs, *trace).least) << round;
    // Its steps are of 1 ms.
    EXPECT_LE(fine.levels, BoundLevels(jobs, *trace) * 1.02 + 0.2) << round;
  }
}

}  // namespace
}  // namespace links
}  // namespace kvstream

#include "tests/links/edf_bound.h"

#include <gtest/gtest.h>

#include <random>

namespace kvstream {
namespace links {
namespace {

EdfJob Job(double release_s, double due_s, double bytes) {
  return {absl::Seconds(release_s), absl::Seconds(due_s), bytes};
}

TEST(EdfBoundTest, WhatFitsIsNotMissed) {
  const RateTrace trace = RateTrace::Constant(100);
  const EdfBound bound = BoundMisses({Job(0, 3, 100), Job(0.5, 1, 50), Job(1, 2, 100)}, trace);
  EXPECT_EQ(bound.least, 0);
  EXPECT_EQ(bound.achieved, 0);
}

TEST(EdfBoundTest, TheLargestIsGivenUp) {
  const RateTrace trace = RateTrace::Constant(100);
  const EdfBound bound =
      BoundMisses({Job(0, 1, 500), Job(0, 1, 40), Job(0, 1, 40), Job(0, 1, 30)}, trace);
  EXPECT_EQ(bound.least, 2);
  EXPECT_EQ(bound.achieved, 2);
}

TEST(EdfBoundTest, AStallCounts) {
  const auto trace = RateTrace::Parse("0 800bit\n1 0\n2 800bit\n");
  ASSERT_TRUE(trace.ok()) << trace.status();
  EXPECT_EQ(BoundMisses({Job(0, 1.9, 110)}, *trace).least, 1);
  EXPECT_EQ(BoundMisses({Job(0, 2.1, 110)}, *trace).achieved, 0);
}

TEST(EdfBoundTest, LevelsGoWhereAByteBuysMost) {
  const RateTrace trace = RateTrace::Constant(100);
  EdfJob small = Job(0, 1.5, 50);
  small.finer = {50, 100};
  EXPECT_NEAR(BoundLevels({small}, trace), 1.5, 1e-9);
  EXPECT_NEAR(LevelOf(small, 150), 1.5, 1e-9);
  EXPECT_EQ(LevelOf(small, 40), 0);
  EdfJob large = Job(0, 1.5, 100);
  large.finer = {100};
  EXPECT_NEAR(BoundLevels({large, small}, trace), 1.5, 1e-9);
  // What may leave later, or must leave sooner, does not take from it.
  large.due = absl::Seconds(3.5);
  EXPECT_NEAR(BoundLevels({large, small}, trace), 2.5, 1e-9);
  large.release = absl::Seconds(2.5);
  EXPECT_NEAR(BoundLevels({large, small}, trace), 2, 1e-9);
}

TEST(EdfBoundTest, NobodyBeatsTheBound) {
  std::mt19937 random(7);
  std::uniform_real_distribution<double> draw(0, 1);
  const RateTrace trace = RateTrace::Constant(100);
  for (int round = 0; round < 300; ++round) {
    std::vector<EdfJob> jobs;
    for (int i = 0; i < 8; ++i) {
      const double release = 4 * draw(random);
      jobs.push_back(Job(release, release + 2 * draw(random), 100 * draw(random)));
    }
    const EdfBound bound = BoundMisses(jobs, trace);
    EXPECT_LE(bound.least, bound.achieved);
    EXPECT_LE(bound.achieved, 8);
  }
}

}  // namespace
}  // namespace links
}  // namespace kvstream

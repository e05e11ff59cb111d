#include "server/service/call_tracker.h"

#include <gtest/gtest.h>

#include <thread>

#include "server/service/budget.h"

namespace kvstream {
namespace {

TEST(CallTrackerTest, RefusesBeyondTheLimitUntilACallEnds) {
  CallTracker tracker("loads", "--max-loads", 2);
  auto first = tracker.Enter();
  auto second = tracker.Enter();
  ASSERT_TRUE(first.ok() && second.ok());
  const auto third = tracker.Enter();
  EXPECT_EQ(third.status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_NE(third.status().message().find("--max-loads"), absl::string_view::npos);
  first->Release();
  first->Release();  // harmless
  EXPECT_EQ(tracker.in_flight(), 1);
  EXPECT_TRUE(tracker.Enter().ok());
}

TEST(CallTrackerTest, ClosedRefusesAndAwaitsThoseInFlight) {
  CallTracker tracker("loads", "--max-loads", 2);
  auto ticket = tracker.Enter();
  ASSERT_TRUE(ticket.ok());
  tracker.Close();
  EXPECT_EQ(tracker.Enter().status().code(), absl::StatusCode::kUnavailable);
  EXPECT_FALSE(tracker.AwaitNone(absl::ZeroDuration()));
  std::thread thread([&] { ticket->Release(); });
  EXPECT_TRUE(tracker.AwaitNone(absl::Minutes(1)));
  thread.join();
}

TEST(CallTrackerTest, AbortsEveryCallInFlightAndNoOther) {
  CallTracker tracker("loads", "--max-loads", 3);
  int aborted = 0;
  auto gone = tracker.Enter([&] { aborted += 100; });
  CallTracker::Ticket one;
  auto entered = tracker.Enter([&] {
    ++aborted;
    one.Release();  // no lock is held
  });
  ASSERT_TRUE(entered.ok());
  one = *std::move(entered);
  auto silent = tracker.Enter();
  gone->Release();
  tracker.AbortAll();
  EXPECT_EQ(aborted, 1);
  EXPECT_EQ(tracker.in_flight(), 1);
}

TEST(BudgetTest, SharesNeverExceedTheLimitAndComeBack) {
  Budget budget(100);
  Budget::Share a(&budget);
  EXPECT_TRUE(a.Grow(60));
  {
    Budget::Share b(&budget);
    EXPECT_FALSE(b.Grow(41));
    EXPECT_FALSE(b.Grow(~uint64_t{0}));
    EXPECT_TRUE(b.Grow(40));
    EXPECT_EQ(budget.used(), 100u);
    Budget::Share moved = std::move(b);
    EXPECT_EQ(moved.amount(), 40u);
    EXPECT_EQ(budget.used(), 100u);
  }
  EXPECT_EQ(budget.used(), 60u);
  budget.SetLimit(50);
  EXPECT_FALSE(a.Grow(1));
  EXPECT_FALSE(a.Grow(~uint64_t{0}));
  EXPECT_EQ(budget.used(), 60u);
  a.Clear();
  EXPECT_EQ(budget.used(), 0u);
  EXPECT_TRUE(a.Grow(50));
  EXPECT_FALSE(a.Grow(1));
}

}  // namespace
}  // namespace kvstream

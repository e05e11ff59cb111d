#include "server/load/link_queue.h"

#include "gtest/gtest.h"

namespace kvstream {
namespace {

TEST(LinkQueueTest, ABurstIntoAnEmptyLinkCountsInFull) {
  LinkQueue queue;
  queue.OnSent(1000, 100, absl::Seconds(5));
  // In a steady flow a round trip of 20 s would hold all of it.
  EXPECT_DOUBLE_EQ(queue.bytes(1000, 100, 20, absl::Seconds(5)), 1000);
  EXPECT_DOUBLE_EQ(queue.bytes(1000, 100, 20, absl::Seconds(9)), 600);
  EXPECT_DOUBLE_EQ(queue.bytes(1000, 100, 20, absl::Seconds(30)), 0);
}

TEST(LinkQueueTest, WhatIsAcknowledgedWaitsNoMore) {
  LinkQueue queue;
  queue.OnSent(1000, 100, absl::ZeroDuration());
  EXPECT_DOUBLE_EQ(queue.bytes(300, 100, 1, absl::Seconds(1)), 300);
  EXPECT_DOUBLE_EQ(queue.bytes(0, 100, 1, absl::Seconds(1)), 0);
}

TEST(LinkQueueTest, ALinkThatStallsDoesNotDrain) {
  LinkQueue queue;
  queue.OnSent(1000, 100, absl::ZeroDuration());
  // After 50 s without a report at most what a round trip holds has passed the link.
  EXPECT_DOUBLE_EQ(queue.bytes(1000, 100, 2, absl::Seconds(50)), 800);
}

TEST(LinkQueueTest, UnknownRateDrainsNothing) {
  LinkQueue queue;
  queue.OnSent(1000, 0, absl::ZeroDuration());
  EXPECT_DOUBLE_EQ(queue.bytes(1000, 0, 2, absl::Seconds(50)), 1000);
}

}  // namespace
}  // namespace kvstream

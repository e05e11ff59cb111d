#include "client/link_model.h"

#include <algorithm>
#include <cmath>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"

namespace kvstream {
namespace {

constexpr double kMbit = 1e6 / 8;

struct Arrival {
  absl::Duration time;
  LinkItem item;
};

RateTrace Trace(const std::string& text) {
  const auto trace = RateTrace::Parse(text);
  EXPECT_TRUE(trace.ok()) << trace.status();
  return *trace;
}

// A sender that fills every room at once, and a caller that comes when it is told to, `late` after.
std::vector<Arrival> RunBusy(LinkModel& link, absl::Duration end,
                             absl::Duration late = absl::ZeroDuration()) {
  std::vector<Arrival> arrivals;
  absl::Duration now;
  while (now < end) {
    while (auto item = link.Pop(now)) arrivals.push_back({now, *std::move(item)});
    while (const int64_t room = link.Room(now)) {
      link.Push(now, {1, LinkItem::Kind::kBytes, std::string(std::min<int64_t>(room, 16384), 'x')});
    }
    const absl::Duration next = link.NextEvent();
    EXPECT_GT(next, now - absl::Nanoseconds(1));
    now = std::max(next, now) + late;
  }
  return arrivals;
}

double BytesIn(const std::vector<Arrival>& arrivals, absl::Duration from, absl::Duration to) {
  double bytes = 0;
  for (const Arrival& arrival : arrivals) {
    if (arrival.time >= from && arrival.time < to) bytes += arrival.item.bytes.size();
  }
  return bytes;
}

TEST(LinkModelTest, CarriesItsRateWithinAPercentOverEverySecond) {
  for (const double mbit : {1.0, 5.0, 20.0, 100.0, 500.0, 2000.0}) {
    LinkModel link(RateTrace::Constant(mbit * kMbit), absl::Milliseconds(20));
    const auto arrivals = RunBusy(link, absl::Seconds(2.2));
    for (int second = 0; second < 2; ++second) {
      const absl::Duration from = absl::Milliseconds(100) + absl::Seconds(second);
      EXPECT_NEAR(BytesIn(arrivals, from, from + absl::Seconds(1)) / (mbit * kMbit), 1,
                  std::max(0.01, 1448 / (mbit * kMbit)))
          << mbit << " Mbit/s";
    }
  }
}

TEST(LinkModelTest, ALateCallerLosesNothingUpToTenMilliseconds) {
  for (const double mbit : {0.5, 5.0, 100.0, 1000.0}) {
    LinkModel link(RateTrace::Constant(mbit * kMbit), absl::ZeroDuration());
    const auto arrivals = RunBusy(link, absl::Seconds(2), absl::Milliseconds(7));
    EXPECT_NEAR(
        BytesIn(arrivals, absl::Milliseconds(500), absl::Milliseconds(1500)) / (mbit * kMbit), 1,
        0.03)
        << mbit << " Mbit/s";
  }
}

TEST(LinkModelTest, NeverBurstsMoreThanElevenMillisecondsWorth) {
  const double rate = 100 * kMbit;
  LinkModel link(RateTrace::Constant(rate), absl::ZeroDuration());
  std::mt19937 random(7);
  absl::Duration now;
  for (int i = 0; i < 1000; ++i) {
    double burst = 0;
    while (auto item = link.Pop(now)) burst += item->bytes.size();
    EXPECT_LE(burst, rate * 0.011 + 1);
    while (link.Room(now) > 0) link.Push(now, {1, LinkItem::Kind::kBytes, std::string(4096, 'x')});
    now += absl::Milliseconds(random() % 100);
  }
}

TEST(LinkModelTest, AnIdleLinkSavesNothingUp) {
  LinkModel link(RateTrace::Constant(8 * kMbit), absl::ZeroDuration());  // 1 byte a microsecond
  const absl::Duration start = absl::Seconds(10);
  EXPECT_EQ(link.Pop(start), absl::nullopt);
  link.Push(start, {1, LinkItem::Kind::kBytes, std::string(1000, 'x')});
  EXPECT_EQ(link.Pop(start), absl::nullopt);
  EXPECT_EQ(link.Pop(start + absl::Microseconds(999)), absl::nullopt);
  EXPECT_NEAR(absl::ToDoubleMicroseconds(link.NextEvent() - start), 1000, 0.01);
  ASSERT_NE(link.Pop(start + absl::Microseconds(1000)), absl::nullopt);
  EXPECT_EQ(link.NextEvent(), absl::InfiniteDuration());
}

TEST(LinkModelTest, DelayAddsToTheTimeOfSending) {
  LinkModel link(RateTrace::Constant(8 * kMbit), absl::Milliseconds(20));
  link.Push(absl::ZeroDuration(), {1, LinkItem::Kind::kBytes, std::string(1000, 'x')});
  EXPECT_EQ(link.Pop(absl::Milliseconds(1)), absl::nullopt);  // has left the queue
  EXPECT_EQ(link.NextEvent(), absl::Milliseconds(21));
  EXPECT_EQ(link.Pop(absl::Milliseconds(21) - absl::Nanoseconds(1)), absl::nullopt);
  EXPECT_NE(link.Pop(absl::Milliseconds(21)), absl::nullopt);
}

TEST(LinkModelTest, QueueHoldsFiftyMillisecondsOr64KiB) {
  LinkModel slow(RateTrace::Constant(5 * kMbit), absl::ZeroDuration());
  EXPECT_EQ(slow.Room(absl::ZeroDuration()), 65536);
  slow.Push(absl::ZeroDuration(), {1, LinkItem::Kind::kBytes, std::string(65536, 'x')});
  EXPECT_EQ(slow.Room(absl::ZeroDuration()), 0);
  LinkModel fast(RateTrace::Constant(800 * kMbit), absl::ZeroDuration());
  EXPECT_EQ(fast.Room(absl::ZeroDuration()), 5000000);
  // When the rate falls there is no negative room.
  LinkModel falling(Trace("0 800Mbit\n1 1Mbit"), absl::ZeroDuration());
  falling.Push(absl::Milliseconds(999), {1, LinkItem::Kind::kBytes, std::string(5000000, 'x')});
  EXPECT_EQ(falling.Room(absl::Seconds(1)), 0);
}

TEST(LinkModelTest, BytesAndSignsKeepTheirOrder) {
  LinkModel link(RateTrace::Constant(100 * kMbit), absl::Milliseconds(5));
  std::mt19937 random(11);
  std::string sent[3];
  std::string received[3];
  bool ended[3] = {};
  absl::Duration now;
  const auto receive = [&] {
    while (auto item = link.Pop(now)) {
      EXPECT_FALSE(ended[item->connection]);
      received[item->connection] += item->bytes;
      ended[item->connection] = item->kind == LinkItem::Kind::kEnd;
    }
  };
  for (int i = 0; i < 3000; ++i) {
    std::string bytes;
    for (size_t size = random() % 3000; size > 0; --size) bytes += static_cast<char>(random());
    const uint64_t connection = random() % 3;
    sent[connection] += bytes;
    link.Push(now, {connection, LinkItem::Kind::kBytes, bytes});
    now += absl::Microseconds(random() % 300);
    receive();
  }
  for (const uint64_t connection : {0, 1, 2})
    link.Push(now, {connection, LinkItem::Kind::kEnd, ""});
  while (link.NextEvent() != absl::InfiniteDuration()) {
    now = std::max(now, link.NextEvent());
    receive();
  }
  for (const int connection : {0, 1, 2}) {
    EXPECT_TRUE(ended[connection]);
    EXPECT_EQ(received[connection], sent[connection]);
  }
}

TEST(LinkModelTest, ASignAloneCrossesAfterTheDelay) {
  LinkModel link(RateTrace::Constant(kMbit), absl::Milliseconds(3));
  link.Push(absl::Seconds(1), {4, LinkItem::Kind::kReset, ""});
  EXPECT_EQ(link.Pop(absl::Seconds(1)), absl::nullopt);
  const auto item = link.Pop(absl::Seconds(1) + absl::Milliseconds(3));
  ASSERT_NE(item, absl::nullopt);
  EXPECT_EQ(item->kind, LinkItem::Kind::kReset);
  EXPECT_EQ(item->connection, 4);
}

TEST(LinkModelTest, FollowsATraceWithAnOutage) {
  LinkModel link(Trace("0 80Mbit\n1 0\n2 8Mbit"), absl::ZeroDuration());
  const auto arrivals = RunBusy(link, absl::Seconds(3.5));
  EXPECT_NEAR(BytesIn(arrivals, absl::ZeroDuration(), absl::Seconds(1)), 1e7, 2e5);
  EXPECT_LE(BytesIn(arrivals, absl::Seconds(1.001), absl::Seconds(2)), 0);
  EXPECT_NEAR(BytesIn(arrivals, absl::Seconds(2), absl::Seconds(3)), 1e6, 2e4);
}

TEST(LinkModelTest, CapacityBoundsWhatIsUnderWay) {
  LinkModel link(RateTrace::Constant(100 * kMbit), absl::Milliseconds(200));
  int64_t inside = 0;
  absl::Duration now;
  for (int i = 0; i < 5000; ++i) {
    while (auto item = link.Pop(now)) inside -= item->bytes.size();
    while (const int64_t room = std::min<int64_t>(link.Room(now), 16384)) {
      link.Push(now, {1, LinkItem::Kind::kBytes, std::string(room, 'x')});
      inside += room;
    }
    EXPECT_LE(inside, link.capacity_bytes());
    now += absl::Microseconds(500);
  }
}

}  // namespace
}  // namespace kvstream

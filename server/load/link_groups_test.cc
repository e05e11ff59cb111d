// Loads that share a link, end to end under a virtual clock.
#include "server/load/link_groups.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <random>
#include <thread>
#include <utility>
#include <vector>

#include "server/load/testing/shared_link.h"
#include "server/load/testing/specs.h"

namespace kvstream {
namespace {

// Bytes a token of three levels.
const std::vector<uint64_t> kSegments = {4000, 4000, 8000};

SharedLink Constant(double mbit, absl::Duration rtt) {
  SharedLink link;
  link.one_way = rtt / 2;
  link.carry = [mbit](absl::Duration from, double bytes) {
    return from + absl::Seconds(bytes / (mbit * kMbit));
  };
  return link;
}

SharedLoad Fastest(absl::Duration at, uint32_t chunks) {
  SharedLoad load;
  load.at = at;
  load.spec = UniformSpec(chunks, kSegments);
  load.spec.policy = LoadPolicy::kFastest;
  return load;
}

SharedLoad Deadlined(absl::Duration at, uint32_t chunks, absl::Duration deadline) {
  SharedLoad load = Fastest(at, chunks);
  load.spec.policy = LoadPolicy::kDeadline;
  load.spec.deadline = deadline;
  return load;
}

void ExpectAllEnd(const SharedLinkResult& result) {
  for (size_t i = 0; i < result.loads.size(); ++i) {
    EXPECT_TRUE(result.loads[i].status.ok()) << i << ": " << result.loads[i].status;
  }
}

// A chunk's base is 1 MiB nearly: 8.2 ms at 1 Gbit/s.
class SharedLinkTest : public ::testing::TestWithParam<SharedQueueing> {
 protected:
  static SharedLink Link(double mbit, absl::Duration rtt) {
    SharedLink link = Constant(mbit, rtt);
    link.queueing = GetParam();
    return link;
  }
};
INSTANTIATE_TEST_SUITE_P(Queueing, SharedLinkTest,
                         ::testing::Values(SharedQueueing::kInTurn,
                                           SharedQueueing::kFirstComeFirst));

TEST_P(SharedLinkTest, TheTighterDeadlineGoesFirst) {
  SharedLink link = Link(1000, absl::Milliseconds(2));
  // 100 chunks need 0.82 s; the third load 0.33 s of the 0.6 s that it has.
  const std::vector<SharedLoad> loads = {
      Deadlined(absl::ZeroDuration(), 100, absl::Seconds(3)), Fastest(absl::ZeroDuration(), 100),
      Deadlined(absl::Milliseconds(200), 40, absl::Milliseconds(600))};
  const SharedLinkResult shared = SimulateShared(loads, link);
  ExpectAllEnd(shared);
  EXPECT_TRUE(shared.loads[0].usable_at_deadline);
  EXPECT_TRUE(shared.loads[2].usable_at_deadline);
  // Nobody pays with the link's time.
  link.scheduled = false;
  const SharedLinkResult alone = SimulateShared(loads, link);
  ExpectAllEnd(alone);
  EXPECT_FALSE(alone.loads[2].usable_at_deadline);
  // 1.97 s are all bases; the first load, urgent until it has its own, then refines beside.
  EXPECT_LT(shared.loads[1].ended_at, absl::Milliseconds(2700));
  EXPECT_LT(shared.max_in_flight, 30u << 20);
}

TEST_P(SharedLinkTest, ALateLoadDoesNotSinkTheOthers) {
  const SharedLink link = Link(1000, absl::Milliseconds(10));
  // The first needs 1.6 s of its 0.5 s.
  std::vector<SharedLoad> loads = {
      Deadlined(absl::Milliseconds(100), 200, absl::Milliseconds(500))};
  for (int i = 0; i < 4; ++i) {
    loads.push_back(Deadlined(absl::Milliseconds(150), 15, absl::Milliseconds(900)));
  }
  const SharedLinkResult shared = SimulateShared(loads, link);
  ExpectAllEnd(shared);
  EXPECT_FALSE(shared.loads[0].usable_at_deadline);
  for (size_t i = 1; i < loads.size(); ++i) {
    EXPECT_TRUE(shared.loads[i].usable_at_deadline) << i;
  }
}

TEST_P(SharedLinkTest, WithoutDeadlinesAllGetTheSame) {
  SharedLink link = Link(500, absl::Milliseconds(20));
  std::vector<SharedLoad> loads;
  for (int i = 0; i < 8; ++i) loads.push_back(Fastest(absl::Milliseconds(10 * i), 30));
  std::vector<double> at_two_seconds(loads.size());
  link.on_report = [&](absl::Duration at, size_t load, uint64_t acknowledged) {
    if (at <= absl::Seconds(2)) at_two_seconds[load] = static_cast<double>(acknowledged);
  };
  const SharedLinkResult shared = SimulateShared(loads, link);
  ExpectAllEnd(shared);
  double sum = 0, squares = 0;
  for (const double bytes : at_two_seconds) {
    sum += bytes;
    squares += bytes * bytes;
  }
  // Jain's index; what a load sends before others come is not made up for.
  EXPECT_GT(sum * sum / (8 * squares), 0.97);
  // Work conserving: 8 * 30 chunks in the time that the link needs for them, and a start.
  const double needed_s = 8 * TotalBytes(loads[0].spec, 0) / (500 * kMbit);
  double last_s = 0;
  for (const SharedLoadResult& load : shared.loads) {
    last_s = std::max(last_s, absl::ToDoubleSeconds(load.ended_at));
  }
  EXPECT_LT(last_s, 1.03 * needed_s + 0.1);
}

TEST_P(SharedLinkTest, NobodyStarvesBesideAStreamOfUrgentLoads) {
  const SharedLink link = Link(1000, absl::Milliseconds(2));
  std::vector<SharedLoad> loads = {Fastest(absl::ZeroDuration(), 40)};
  // Together they want 82 % of the link for eight seconds.
  for (int i = 0; i < 80; ++i) {
    loads.push_back(Deadlined(absl::Milliseconds(100 * i), 10, absl::Milliseconds(250)));
  }
  const SharedLinkResult shared = SimulateShared(loads, link);
  ExpectAllEnd(shared);
  // 0.33 s of the link at an eighth, which at most three others share at a time.
  EXPECT_LT(shared.loads[0].ended_at, absl::Seconds(10));
}

TEST_P(SharedLinkTest, AClientThatVanishesHoldsUpNobody) {
  const SharedLink link = Link(200, absl::Milliseconds(5));
  std::vector<SharedLoad> loads = {Fastest(absl::ZeroDuration(), 100),
                                   Fastest(absl::Milliseconds(500), 25)};
  loads[0].client.vanishes_at = absl::Milliseconds(400);
  const SharedLinkResult shared = SimulateShared(loads, link);
  EXPECT_EQ(shared.loads[0].status.code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_TRUE(shared.loads[1].status.ok());
  // 1 s of the link, beside bytes for nobody that wait before it.
  EXPECT_LT(shared.loads[1].ended_at, absl::Seconds(4));
}

TEST_P(SharedLinkTest, ANarrowWayOutIsSharedByDeadline) {
  SharedLink link = Link(10000, absl::Milliseconds(1));
  link.egress_bytes_per_second = 500 * kMbit;
  const std::vector<SharedLoad> loads = {
      Fastest(absl::ZeroDuration(), 100),
      Deadlined(absl::Milliseconds(300), 30, absl::Milliseconds(750))};
  const SharedLinkResult shared = SimulateShared(loads, link);
  ExpectAllEnd(shared);
  EXPECT_TRUE(shared.loads[1].usable_at_deadline);
  double bytes = 0, last_s = 0;
  for (const SharedLoadResult& load : shared.loads) {
    bytes += static_cast<double>(load.bytes);
    last_s = std::max(last_s, absl::ToDoubleSeconds(load.ended_at));
  }
  EXPECT_GE(last_s, bytes / (500 * kMbit) - 0.1);
  EXPECT_LE(last_s, 1.05 * bytes / (500 * kMbit) + 0.1);
}

TEST_P(SharedLinkTest, RandomLoadsAllEnd) {
  for (uint32_t seed = 1; seed <= 15; ++seed) {
    SCOPED_TRACE(seed);
    std::mt19937 random(seed);
    const auto draw = [&](double low, double high) {
      return std::uniform_real_distribution<double>(low, high)(random);
    };
    SharedLink link =
        Link(std::exp(draw(std::log(10), std::log(5000))), absl::Milliseconds(draw(0.1, 80)));
    link.recorded = draw(0, 1) < 0.5;
    if (draw(0, 1) < 0.3) link.egress_bytes_per_second = draw(5, 500) * 1e6;
    std::vector<SharedLoad> loads;
    for (int i = 0; i < 24; ++i) {
      const auto at = absl::Seconds(draw(0, 2));
      const uint32_t chunks = static_cast<uint32_t>(draw(1, 20));
      SharedLoad load = draw(0, 1) < 0.5 ? Deadlined(at, chunks, absl::Seconds(draw(0.01, 5)))
                                         : Fastest(at, chunks);
      const double which = draw(0, 1);
      if (which < 0.6) {
        const RecomputeAbility ability = which < 0.2   ? RecomputeAbility::kSuffix
                                         : which < 0.4 ? RecomputeAbility::kFront
                                                       : RecomputeAbility::kAny;
        SetPrefill(&load.spec, &load.client, ability, draw(1e-5, 1e-3), 0);
      }
      if (draw(0, 1) < 0.1) load.client.vanishes_at = absl::Seconds(draw(0, 2));
      loads.push_back(load);
    }
    const SharedLinkResult shared = SimulateShared(loads, link);
    for (size_t i = 0; i < loads.size(); ++i) {
      const bool vanished = loads[i].client.vanishes_at < absl::InfiniteDuration();
      EXPECT_TRUE(shared.loads[i].status.ok() ||
                  (vanished && absl::IsDeadlineExceeded(shared.loads[i].status)))
          << i << ": " << shared.loads[i].status;
    }
  }
}

TEST(LinkGroupsTest, ALinkIsThereWhileItHasLoads) {
  LinkGroups groups({}, absl::ZeroDuration());
  auto one = groups.Join(
      "a", 0, [] {}, absl::ZeroDuration());
  auto two = groups.Join(
      "a", 0, [] {}, absl::ZeroDuration());
  auto three = groups.Join(
      "", 0, [] {}, absl::ZeroDuration());
  EXPECT_EQ(groups.loads("a"), 2u);
  EXPECT_TRUE(one->shared());
  EXPECT_FALSE(three->shared());
  SendDemand demand;
  demand.bytes = 1000;
  EXPECT_TRUE(one->Admit(1000, demand, absl::Milliseconds(1)));
  EXPECT_TRUE(three->Admit(1000, demand, absl::Milliseconds(1)));
  EXPECT_EQ(groups.in_flight_bytes(), 2000u);
  one.reset();
  EXPECT_EQ(groups.in_flight_bytes(), 1000u);
  EXPECT_FALSE(two->shared());
  two.reset();
  EXPECT_EQ(groups.links(), 0u);
  three->OnAcknowledged(1000, SendDemand(), absl::Milliseconds(2));
  EXPECT_EQ(groups.in_flight_bytes(), 0u);
}

TEST(LinkGroupsTest, TheProcessHasALimitToo) {
  LinkGroups::Options options;
  options.in_flight_bytes_max = 10000;
  LinkGroups groups(options, absl::ZeroDuration());
  auto one = groups.Join(
      "", 0, [] {}, absl::ZeroDuration());
  auto two = groups.Join(
      "", 0, [] {}, absl::ZeroDuration());
  SendDemand demand;
  demand.bytes = 1000000;
  EXPECT_TRUE(one->Admit(9000, demand, absl::Milliseconds(1)));
  EXPECT_FALSE(one->Admit(9000, demand, absl::Milliseconds(1)));
  EXPECT_GT(one->AskAgainAt(), absl::Milliseconds(1));
  // Who has nothing in flight is not stopped by those who have.
  EXPECT_TRUE(two->Admit(9000, demand, absl::Milliseconds(1)));
  one->OnAcknowledged(9000, demand, absl::Milliseconds(2));
  EXPECT_TRUE(one->Admit(1000, demand, absl::Milliseconds(3)));
}

// For the thread sanitizer: loads on threads of their own, each woken by the others.
TEST(LinkGroupsTest, LoadsMayRunOnTheirOwnThreads) {
  LinkGroups groups({}, absl::ZeroDuration());
  constexpr int kThreads = 4;
  std::vector<std::thread> threads;
  std::atomic<int> wakes{0};
  for (int i = 0; i < kThreads; ++i) {
    threads.emplace_back([&, i] {
      for (int round = 0; round < 20; ++round) {
        absl::Duration now = absl::Milliseconds(round);
        auto gate = groups.Join(
            i % 2 ? "a" : "b", 0, [&wakes] { ++wakes; }, now);
        SendDemand demand;
        demand.bytes = 1 << 20;
        if (round % 2) demand.due = absl::Milliseconds(100 + i);
        uint64_t sent = 0;
        for (int step = 0; step < 50; ++step) {
          now += absl::Milliseconds(1);
          if (gate->Admit(10000, demand, now)) sent += 10000;
          gate->Expect(BandwidthEstimate(), now);
          if (step % 3 == 0) gate->OnAcknowledged(std::exchange(sent, 0), demand, now);
          gate->View(now);
          gate->QueueDelay(now);
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(groups.links(), 0u);
  EXPECT_EQ(groups.in_flight_bytes(), 0u);
}

}  // namespace
}  // namespace kvstream

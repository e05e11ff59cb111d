// The scheduler alone, on a link of known speed that serves first come first served.
#include "server/load/link_share.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <deque>
#include <map>
#include <random>
#include <string>

namespace kvstream {
namespace {

constexpr double kRate = 10e6;  // bytes a second
constexpr uint64_t kFrame = 16 << 10;
constexpr absl::Duration kTick = absl::Milliseconds(1);

// Loads that always ask for the next frame of what they need, as soon as they may.
class Bench {
 public:
  explicit Bench(const LinkShareOptions& options = {}, double rate = kRate)
      : share_(options, now_), rate_(rate) {}

  struct Load {
    SendDemand demand;
    bool silent = false;  // acknowledges nothing
    bool deaf = false;    // does not come when woken
    uint64_t sent = 0, acknowledged = 0;
    double before_link = 0;
    absl::Duration ask_at;  // infinite: waits to be woken
    absl::Duration done_at = absl::InfiniteDuration();
  };

  void Add(LinkShare::MemberId id, double bytes, absl::Duration due = absl::InfiniteDuration()) {
    share_.Join(id, now_);
    Load& load = loads_[id];
    load.demand.bytes = static_cast<uint64_t>(bytes);
    load.demand.due = due < absl::InfiniteDuration() ? now_ + due : due;
    load.ask_at = now_;
  }
  void Remove(LinkShare::MemberId id) {
    share_.Leave(id, now_);
    loads_.erase(id);
    Wake();
  }

  void Run(absl::Duration time) {
    for (const absl::Duration end = now_ + time; now_ < end; now_ += kTick) Tick();
  }

  Load& load(LinkShare::MemberId id) { return loads_.at(id); }
  LinkShare& share() { return share_; }
  absl::Duration now() const { return now_; }
  void set_rate(double rate) { rate_ = rate; }
  // What a load's transport takes before the link.
  void set_socket(double bytes) { socket_ = bytes; }
  const std::string& broken() const { return broken_; }

 private:
  struct Piece {
    LinkShare::MemberId id;
    double bytes;
    uint64_t whole;
  };

  void Tick() {
    double carried = rate_ * absl::ToDoubleSeconds(kTick);
    while (!link_.empty() && carried > 0) {
      Piece& piece = link_.front();
      const double part = std::min(carried, piece.bytes);
      piece.bytes -= part;
      carried -= part;
      const auto found = loads_.find(piece.id);
      if (found != loads_.end()) found->second.before_link -= part;
      if (piece.bytes > 0) break;
      Arrive(piece);
      link_.pop_front();
    }
    idle_ += carried;
    for (auto& entry : loads_) {
      if (entry.second.ask_at <= now_) Ask(entry.first);
    }
    Wake();
  }

  void Arrive(const Piece& piece) {
    const auto found = loads_.find(piece.id);
    if (found == loads_.end() || found->second.silent) return;
    Load& load = found->second;
    load.acknowledged += piece.whole;
    if (load.demand.bytes == 0 && load.acknowledged == load.sent) load.done_at = now_;
    share_.OnAcknowledged(piece.id, piece.whole, load.demand, now_);
    Wake();
  }

  void Ask(LinkShare::MemberId id) {
    Load& load = loads_.at(id);
    load.ask_at = absl::InfiniteDuration();
    if (load.deaf) return;
    while (load.demand.bytes > 0) {
      if (load.before_link > socket_) {
        load.ask_at = now_ + kTick;
        return;
      }
      const uint64_t bytes = std::min(kFrame, load.demand.bytes);
      if (!share_.Ask(id, bytes, load.demand, now_)) {
        load.ask_at = share_.AskAgainAt(bytes, now_);
        if (load.ask_at <= now_) broken_ = "asks again in the past";
        return;
      }
      share_.Commit(id, bytes, now_);
      load.demand.bytes -= bytes;
      load.sent += bytes;
      load.before_link += static_cast<double>(bytes);
      link_.push_back({id, static_cast<double>(bytes), bytes});
    }
  }

  void Wake() {
    for (int count = 0; const auto id = share_.NextToWake(now_); ++count) {
      if (count > 100000) {
        broken_ = "wakes for ever";
        return;
      }
      Ask(*id);
    }
  }

  absl::Duration now_ = absl::Seconds(5);
  LinkShare share_;
  double rate_;
  double socket_ = 4 << 20;
  std::map<LinkShare::MemberId, Load> loads_;
  std::deque<Piece> link_;
  double idle_ = 0;
  std::string broken_;
};

TEST(LinkShareTest, LoadsWithoutDeadlinesShareEqually) {
  Bench bench;
  for (int id = 1; id <= 4; ++id) bench.Add(id, 1e9);
  bench.Run(absl::Seconds(4));
  for (int id = 1; id <= 4; ++id) {
    EXPECT_NEAR(static_cast<double>(bench.load(id).acknowledged), kRate * 4 / 4, 1e6) << id;
  }
  EXPECT_EQ(bench.broken(), "");
}

TEST(LinkShareTest, ANewcomerSharesAtOnceAndDoesNotMakeUpForThePast) {
  Bench bench;
  bench.Add(1, 1e9);
  bench.Run(absl::Seconds(2));
  bench.Add(2, 1e9);
  const uint64_t before = bench.load(1).acknowledged;
  bench.Run(absl::Seconds(2));
  EXPECT_NEAR(static_cast<double>(bench.load(2).acknowledged), kRate, 3e6);
  EXPECT_NEAR(static_cast<double>(bench.load(1).acknowledged - before), kRate, 3e6);
}

TEST(LinkShareTest, TheUrgentOneGetsTheLinkButForTheFloor) {
  Bench bench;
  bench.Add(1, 1e9);
  bench.Add(2, 1e9);
  bench.Run(absl::Seconds(1));
  // 10 MB in 1.5 s of a link that carries 15 MB.
  bench.Add(3, 10e6, absl::Milliseconds(1500));
  bench.Run(absl::Milliseconds(500));
  EXPECT_EQ(bench.share().View(3, bench.now()).standing, LinkStanding::kUrgent);
  EXPECT_GT(bench.share().View(3, bench.now()).slack, absl::ZeroDuration());
  const uint64_t urgent = bench.load(3).sent;
  const uint64_t others = bench.load(1).sent + bench.load(2).sent;
  bench.Run(absl::Milliseconds(500));
  EXPECT_NEAR(static_cast<double>(bench.load(3).sent - urgent) / (kRate / 2), 1 - LinkShare::kFloor,
              0.1);
  EXPECT_NEAR(static_cast<double>(bench.load(1).sent + bench.load(2).sent - others) / (kRate / 2),
              LinkShare::kFloor, 0.1);
  bench.Run(absl::Milliseconds(500));
  EXPECT_LT(bench.load(3).done_at - absl::Seconds(5), absl::Milliseconds(2500));
}

TEST(LinkShareTest, RefinementThatWasBegunPausesWhileSomebodysBaseIsUrgent) {
  Bench bench;
  bench.Add(1, 1e9, absl::Seconds(60));
  bench.load(1).demand.refinement = true;
  bench.Add(2, 1e9);
  bench.Run(absl::Seconds(1));
  EXPECT_GT(static_cast<double>(bench.load(1).sent), 0.4 * kRate);
  // 10 MB in 1.5 s of a link that carries 15 MB: urgent for longer than kFloorPatience.
  bench.Add(3, 10e6, absl::Milliseconds(1500));
  bench.Run(absl::Milliseconds(20));
  const uint64_t begun = bench.load(1).sent;
  const uint64_t other = bench.load(2).sent;
  bench.Run(absl::Milliseconds(830));
  ASSERT_EQ(bench.share().View(3, bench.now()).standing, LinkStanding::kUrgent);
  EXPECT_EQ(bench.load(1).sent, begun);
  EXPECT_GT(bench.load(2).sent, other) << "who has no deadline keeps the floor";
  bench.Run(absl::Seconds(1));
  EXPECT_LT(bench.load(3).done_at, absl::Seconds(5 + 1 + 1.5));
  EXPECT_GT(static_cast<double>(bench.load(1).sent - begun), 0.2 * kRate);
  EXPECT_EQ(bench.broken(), "");
}

TEST(LinkShareTest, DeadlinesThatAreFarOffShare) {
  Bench bench;
  bench.Add(1, 1e9);
  bench.Run(absl::Seconds(1));
  bench.Add(2, 10e6, absl::Seconds(60));
  bench.Run(absl::Seconds(1));
  EXPECT_EQ(bench.share().View(2, bench.now()).standing, LinkStanding::kFair);
  EXPECT_NEAR(static_cast<double>(bench.load(2).sent), kRate / 2, 2e6);
}

TEST(LinkShareTest, WhoCannotMakeItDoesNotSinkTheOthers) {
  Bench bench;
  bench.Add(9, 1e9);  // so that the link's speed is known
  bench.Run(absl::Seconds(1));
  const absl::Duration begin = bench.now();
  bench.Add(1, 50e6, absl::Seconds(1));  // five times what the link carries
  bench.Add(2, 5e6, absl::Milliseconds(1200));
  bench.Add(3, 5e6, absl::Milliseconds(1800));
  bench.Run(absl::Milliseconds(100));
  EXPECT_EQ(bench.share().View(1, bench.now()).standing, LinkStanding::kLate);
  EXPECT_LT(bench.share().View(1, bench.now()).slack, absl::ZeroDuration());
  bench.Run(absl::Milliseconds(1900));
  EXPECT_LT(bench.load(2).done_at - begin, absl::Milliseconds(1200));
  EXPECT_LT(bench.load(3).done_at - begin, absl::Milliseconds(1800));
  // And is not starved meanwhile.
  EXPECT_GT(bench.load(1).acknowledged, 0.3 * LinkShare::kFloor * kRate);
}

TEST(LinkShareTest, BytesOfWhoAcknowledgesNothingAreWrittenOff) {
  Bench bench;
  bench.Add(1, 1e9);
  bench.Run(absl::Seconds(1));
  bench.load(1).silent = true;
  bench.Add(2, 1e9);
  bench.Run(absl::Seconds(2));
  const uint64_t before = bench.load(2).acknowledged;
  bench.Run(absl::Seconds(2));
  EXPECT_GT(static_cast<double>(bench.load(2).acknowledged - before), 0.8 * 2 * kRate);
  EXPECT_EQ(bench.broken(), "");
}

TEST(LinkShareTest, WhoDoesNotComeWhenWokenHoldsUpNobody) {
  Bench bench;
  for (int id = 1; id <= 3; ++id) bench.Add(id, 1e9);
  bench.Add(4, 5e6, absl::Milliseconds(600));
  bench.Run(absl::Milliseconds(50));
  bench.load(1).deaf = true;
  bench.load(4).deaf = true;
  bench.Run(absl::Milliseconds(200));
  const uint64_t before = bench.load(2).acknowledged + bench.load(3).acknowledged;
  bench.Run(absl::Seconds(2));
  EXPECT_GT(static_cast<double>(bench.load(2).acknowledged + bench.load(3).acknowledged - before),
            0.85 * 2 * kRate);
}

TEST(LinkShareTest, AStalledLinkIsTriedNowAndThen) {
  Bench bench;
  bench.Add(1, 1e9);
  bench.Run(absl::Seconds(1));
  bench.set_rate(0);
  bench.Run(absl::Seconds(1));
  bench.Add(2, 1e9);
  bench.Run(absl::Seconds(1));
  EXPECT_EQ(bench.load(2).sent, kFrame);
  bench.set_rate(kRate);
  const uint64_t before = bench.load(1).acknowledged;
  bench.Run(absl::Seconds(2));
  EXPECT_GT(static_cast<double>(bench.load(1).acknowledged - before), 0.6 * kRate);
  EXPECT_GT(static_cast<double>(bench.load(2).acknowledged), 0.6 * kRate);
}

TEST(LinkShareTest, LittleWaitsBeforeTheLink) {
  Bench bench;
  for (int id = 1; id <= 4; ++id) bench.Add(id, 1e9);
  bench.Run(absl::Seconds(2));
  EXPECT_LE(static_cast<double>(bench.share().in_flight_bytes()), kRate * 0.025);
}

TEST(LinkShareTest, AFasterLinkIsUsedSoon) {
  Bench bench;
  for (int id = 1; id <= 4; ++id) bench.Add(id, 1e9);
  bench.Run(absl::Seconds(1));
  const auto all = [&] {
    uint64_t bytes = 0;
    for (int id = 1; id <= 4; ++id) bytes += bench.load(id).acknowledged;
    return static_cast<double>(bytes);
  };
  const double before = all();
  bench.set_rate(10 * kRate);
  bench.Run(absl::Milliseconds(200));
  EXPECT_GT(all() - before, 0.8 * 10 * kRate * 0.2);
}

TEST(LinkShareTest, AKnownSpeedIsKept) {
  LinkShareOptions options;
  options.fixed_bytes_per_second = kRate;
  Bench bench(options, 10 * kRate);  // the way behind is faster
  bench.Add(1, 1e9);
  bench.Add(2, 1e9);
  bench.Run(absl::Seconds(2));
  const double sent = static_cast<double>(bench.load(1).sent + bench.load(2).sent);
  EXPECT_LE(sent, kRate * 2.08);
  EXPECT_GE(sent, kRate * 1.95);
  EXPECT_NEAR(static_cast<double>(bench.load(1).sent), sent / 2, 0.5e6);
  BandwidthEstimate own;
  own.rate = own.low = 8e6;
  own.lower_bound = false;
  EXPECT_NEAR(bench.share().Expect(1, own, bench.now()).rate, kRate / 2, 1);
  own.rate = own.low = 1e6;  // its own link is the narrower one
  EXPECT_EQ(bench.share().Expect(1, own, bench.now()).rate, 1e6);
}

TEST(LinkShareTest, TheEstimateIsTheLinksAndTheExpectationAShareOfIt) {
  Bench bench;
  for (int id = 1; id <= 5; ++id) bench.Add(id, 1e9);
  bench.Run(absl::Seconds(2));
  const BandwidthEstimate link = bench.share().estimate(bench.now());
  EXPECT_FALSE(link.lower_bound);
  EXPECT_NEAR(link.rate, kRate, 0.1 * kRate);
  EXPECT_NEAR(bench.share().Expect(1, BandwidthEstimate(), bench.now()).rate, link.rate / 5,
              0.02 * kRate);
  // A newcomer knows at once.
  bench.Add(6, 1e9);
  EXPECT_NEAR(bench.share().Expect(6, BandwidthEstimate(), bench.now()).rate, link.rate / 6,
              0.02 * kRate);
}

TEST(LinkShareTest, WhatDidNotComeToBeSentIsForgotten) {
  LinkShare share({}, absl::ZeroDuration());
  share.Join(1, absl::ZeroDuration());
  SendDemand demand;
  demand.bytes = 100000;
  ASSERT_TRUE(share.Ask(1, 4096, demand, absl::ZeroDuration()));
  share.Commit(1, 4096, absl::ZeroDuration());
  EXPECT_EQ(share.in_flight_bytes(), 4096u);
  share.OnUnsent(1, 4096, absl::Milliseconds(1));
  EXPECT_EQ(share.in_flight_bytes(), 0u);
  share.Leave(1, absl::Milliseconds(2));
  share.Leave(1, absl::Milliseconds(2));
  EXPECT_EQ(share.size(), 0u);
}

// Loads that come, go, stall and have deadlines at random.
TEST(LinkShareTest, RandomLoadsKeepTheLinkBusyAndNobodyStarves) {
  for (uint32_t seed = 1; seed <= 40; ++seed) {
    SCOPED_TRACE(seed);
    std::mt19937 random(seed);
    const auto draw = [&](double low, double high) {
      return std::uniform_real_distribution<double>(low, high)(random);
    };
    Bench bench({}, draw(1e6, 100e6));
    // Two that stay and always have something to send, and a transport that takes it.
    bench.set_socket(1e12);
    bench.Add(1, 1e12);
    bench.Add(2, 1e12);
    std::deque<LinkShare::MemberId> coming;
    LinkShare::MemberId next = 3;
    uint64_t most_over = 0;
    for (int step = 0; step < 150; ++step) {
      if (draw(0, 1) < 0.3) {
        const bool due = draw(0, 1) < 0.5;
        bench.Add(next, draw(1e4, 5e6),
                  due ? absl::Seconds(draw(0.001, 3)) : absl::InfiniteDuration());
        coming.push_back(next++);
      }
      if (!coming.empty() && draw(0, 1) < 0.25) {
        bench.Remove(coming.front());
        coming.pop_front();
      }
      if (!coming.empty() && draw(0, 1) < 0.05) bench.load(coming.back()).silent = true;
      if (!coming.empty() && draw(0, 1) < 0.05) bench.load(coming.back()).deaf = true;
      if (draw(0, 1) < 0.05) bench.set_rate(draw(1e6, 100e6));
      bench.Run(absl::Milliseconds(20));
      const uint64_t window = bench.share().window_bytes(bench.now());
      const uint64_t in_flight = bench.share().in_flight_bytes();
      most_over = std::max(most_over, in_flight > window ? in_flight - window : 0);
      ASSERT_EQ(bench.broken(), "");
    }
    const uint64_t one = bench.load(1).acknowledged;
    const uint64_t two = bench.load(2).acknowledged;
    // The slowest link carries 3 MB in this time; shared by at most some ten loads.
    EXPECT_GT(one, 3e6 * LinkShare::kFloor / 20);
    // Both were there all the time and neither was urgent.
    EXPECT_NEAR(static_cast<double>(one), static_cast<double>(two),
                2 * (LinkShare::kLag + kFrame) + 0.02 * static_cast<double>(one));
  }
}

}  // namespace
}  // namespace kvstream

#include "server/service/load_admission.h"

#include <gtest/gtest.h>

#include <thread>
#include <utility>
#include <vector>

namespace kvstream {
namespace {

TEST(LoadAdmissionTest, LimitsTheLoadsOfOneHostOnly) {
  LoadAdmission admission(2, 1000, [] { return uint64_t{0}; });
  LoadRefusal reason = LoadRefusal::kLoads;
  auto one = admission.Enter("a", nullptr, &reason);
  auto two = admission.Enter("a", nullptr, &reason);
  ASSERT_TRUE(one.ok() && two.ok());
  const auto three = admission.Enter("a", nullptr, &reason);
  EXPECT_EQ(three.status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_NE(three.status().message().find("--max-loads-per-peer"), absl::string_view::npos);
  EXPECT_EQ(reason, LoadRefusal::kLoadsPerPeer);
  EXPECT_TRUE(admission.Enter("b", nullptr, &reason).ok());
  LoadAdmission::Place kept = *std::move(one);
  EXPECT_FALSE(admission.Enter("a", nullptr, &reason).ok());
  kept.Release();
  kept.Release();
  EXPECT_TRUE(admission.Enter("a", nullptr, &reason).ok());
}

TEST(LoadAdmissionTest, LimitsTheLoadsOfOneTenantOnly) {
  LoadAdmission admission(0, 1000, [] { return uint64_t{0}; });
  LoadRefusal reason = LoadRefusal::kLoads;
  TenantLoads a, b;
  a.SetLimit(2);
  auto one = admission.Enter("h", &a, &reason);
  auto two = admission.Enter("h2", &a, &reason);
  ASSERT_TRUE(one.ok() && two.ok());
  const auto three = admission.Enter("h", &a, &reason);
  EXPECT_EQ(three.status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(reason, LoadRefusal::kLoadsPerTenant);
  EXPECT_TRUE(admission.Enter("h", &b, &reason).ok());
  EXPECT_EQ(a.in_flight(), 2);
  LoadAdmission::Place kept = *std::move(one);
  kept.Release();
  kept.Release();
  EXPECT_EQ(a.in_flight(), 1);
  two = admission.Enter("h", &a, &reason);  // lets go of the place before
  EXPECT_EQ(a.in_flight(), 1);
  a.SetLimit(0);
  EXPECT_TRUE(admission.Enter("h", &a, &reason).ok());
}

TEST(LoadAdmissionTest, ManyThreadsNeverExceedATenantsLimit) {
  TenantLoads loads;
  loads.SetLimit(3);
  std::vector<std::thread> threads;
  for (int t = 0; t < 8; ++t) {
    threads.emplace_back([&loads] {
      for (int i = 0; i < 2000; ++i) {
        if (!loads.Enter()) continue;
        EXPECT_LE(loads.in_flight(), 3);
        loads.Leave();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(loads.in_flight(), 0);
}

TEST(LoadAdmissionTest, TakesNobodyWhileTooMuchIsInFlight) {
  uint64_t in_flight = 999;
  LoadAdmission admission(0, 1000, [&] { return in_flight; });
  LoadRefusal reason = LoadRefusal::kLoads;
  EXPECT_TRUE(admission.Enter("a", nullptr, &reason).ok());
  in_flight = 1000;
  const auto refused = admission.Enter("a", nullptr, &reason);
  EXPECT_EQ(refused.status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(reason, LoadRefusal::kInFlightBytes);
}

TEST(LoadAdmissionTest, TheHintGrowsWithThoseWhoWaitAndShrinksWithTheLoadsThatEnd) {
  LoadAdmission admission(0, 1000, [] { return uint64_t{0}; });
  for (int i = 0; i < 200; ++i) admission.OnEnd(absl::Seconds(2));
  const absl::Duration first = admission.RetryAfter(10, absl::Seconds(100));
  EXPECT_NEAR(absl::ToDoubleSeconds(first), 0.2, 0.01);
  absl::Duration last = first;
  for (int i = 0; i < 5; ++i) {
    const absl::Duration next = admission.RetryAfter(10, absl::Seconds(100));
    EXPECT_GT(next, last);
    last = next;
  }
  // Forgotten after a while; and bounded both ways.
  EXPECT_LT(admission.RetryAfter(10, absl::Seconds(200)), absl::Milliseconds(210));
  EXPECT_EQ(admission.RetryAfter(100000, absl::Seconds(300)), absl::Milliseconds(50));
  for (int i = 0; i < 100; ++i) admission.OnEnd(absl::Hours(1));
  EXPECT_EQ(admission.RetryAfter(0, absl::Seconds(1)), absl::Seconds(5));
}

TEST(LoadAdmissionTest, AHostIsThePeerWithoutItsPort) {
  EXPECT_EQ(HostOfPeer("ipv4:192.0.2.7:1234"), "ipv4:192.0.2.7");
  EXPECT_EQ(HostOfPeer("ipv6:[2001:db8::1]:80"), "ipv6:[2001:db8::1]");
  EXPECT_EQ(HostOfPeer("ipv6:%5B::1%5D:80"), "ipv6:%5B::1%5D");
  EXPECT_EQ(HostOfPeer("unix:/run/x"), "unix:/run/x");
  EXPECT_EQ(HostOfPeer(""), "");
}

}  // namespace
}  // namespace kvstream

#include "server/load/link_record.h"

#include <limits>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"

namespace kvstream {
namespace {

constexpr absl::Duration kNow = absl::Seconds(1000);

TEST(LinkRecordTest, UnknownNetworkHasNoPrior) {
  const LinkRecord record(4);
  EXPECT_EQ(record.Expected("a", kNow), 0);
}

TEST(LinkRecordTest, MeanIsWeightedByTime) {
  LinkRecord record(4);
  record.Observe("a", 100, 1, kNow);
  record.Observe("a", 400, 2, kNow);
  EXPECT_NEAR(record.Expected("a", kNow), 300, 1e-9);
  EXPECT_EQ(record.Expected("b", kNow), 0);
}

TEST(LinkRecordTest, OldLoadsFadeAndAreForgotten) {
  LinkRecord record(4);
  record.Observe("a", 100, 1, kNow);
  record.Observe("a", 400, 1, kNow + absl::Minutes(3));
  EXPECT_NEAR(record.Expected("a", kNow + absl::Minutes(3)), 400, 1);
  EXPECT_EQ(record.Expected("a", kNow + absl::Minutes(14)), 0);
  record.Observe("a", 7, 1, kNow + absl::Minutes(20));
  EXPECT_NEAR(record.Expected("a", kNow + absl::Minutes(20)), 7, 1e-9);
}

TEST(LinkRecordTest, OneLongLoadDoesNotOutweighAllLater) {
  LinkRecord record(4);
  record.Observe("a", 100, 3600, kNow);
  record.Observe("a", 400, 10, kNow);
  EXPECT_NEAR(record.Expected("a", kNow), 250, 1e-9);
}

TEST(LinkRecordTest, IgnoresWhatIsNoRate) {
  LinkRecord record(4);
  record.Observe("a", 0, 1, kNow);
  record.Observe("a", 5, 0, kNow);
  record.Observe("", 5, 1, kNow);
  record.Observe("a", std::numeric_limits<double>::infinity(), 1, kNow);
  record.Observe("a", std::numeric_limits<double>::quiet_NaN(), 1, kNow);
  EXPECT_EQ(record.size(), 0u);
}

TEST(LinkRecordTest, KeepsTheNetworksUsedLast) {
  LinkRecord record(3);
  for (int i = 0; i < 5; ++i) {
    record.Observe("kept", 10, 1, kNow + absl::Seconds(i));
    record.Observe(absl::StrCat("n", i), 10, 1, kNow + absl::Seconds(i));
    EXPECT_LE(record.size(), 3u);
  }
  EXPECT_GT(record.Expected("kept", kNow + absl::Seconds(5)), 0);
  EXPECT_GT(record.Expected("n4", kNow + absl::Seconds(5)), 0);
  EXPECT_EQ(record.Expected("n0", kNow + absl::Seconds(5)), 0);
}

TEST(LinkRecordTest, RoundTripFollowsTheNewestLoads) {
  LinkRecord record(4);
  EXPECT_EQ(record.RoundTrip("a", kNow), absl::ZeroDuration());
  record.ObserveRoundTrip("a", absl::Milliseconds(80), kNow);
  EXPECT_EQ(record.RoundTrip("a", kNow), absl::Milliseconds(80));
  EXPECT_EQ(record.Expected("a", kNow), 0);  // nothing is known of its speed
  record.ObserveRoundTrip("a", absl::Milliseconds(20), kNow + absl::Seconds(1));
  record.Observe("a", 100, 1, kNow + absl::Seconds(1));
  EXPECT_EQ(record.RoundTrip("a", kNow + absl::Seconds(2)), absl::Milliseconds(50));
  EXPECT_NEAR(record.Expected("a", kNow + absl::Seconds(2)), 100, 1e-9);
  for (const absl::Duration none :
       {absl::ZeroDuration(), absl::Seconds(-1), absl::InfiniteDuration()}) {
    record.ObserveRoundTrip("b", none, kNow);
  }
  record.ObserveRoundTrip("", absl::Milliseconds(1), kNow);
  EXPECT_EQ(record.size(), 1u);
  EXPECT_EQ(record.RoundTrip("a", kNow + absl::Minutes(12)), absl::ZeroDuration());
  record.ObserveRoundTrip("a", absl::Milliseconds(4), kNow + absl::Minutes(12));
  EXPECT_EQ(record.RoundTrip("a", kNow + absl::Minutes(12)), absl::Milliseconds(4));
}

TEST(NetworkOfPeerTest, CutsAddresses) {
  EXPECT_EQ(NetworkOfPeer("ipv4:192.0.2.7:1234"), "ipv4:192.0.2");
  EXPECT_EQ(NetworkOfPeer("ipv6:[2001:db8:1:2::3]:1234"), "ipv6:2001:db8:1");
  EXPECT_EQ(NetworkOfPeer("ipv6:%5B2001:db8:1:2::3%5D:1234"), "ipv6:2001:db8:1");
  for (const char* none : {"ipv4:127.0.0.1:80", "ipv6:[::1]:1234", "unix:/run/kv.sock",
                           "ipv4:", "ipv4:1.2.3", "ipv6:[", "ipv6:", ""}) {
    EXPECT_EQ(NetworkOfPeer(none), "") << none;
  }
}

}  // namespace
}  // namespace kvstream

#include "client/units.h"

#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace kvstream {
namespace {

using ::testing::HasSubstr;

TEST(UnitsTest, ParsesRatesInBitsAndBytes) {
  const std::pair<const char*, double> cases[] = {
      {"50Mbit", 6.25e6}, {"1.5Gbit", 187.5e6},   {"800kbit", 1e5},
      {"8bit", 1},        {"50Mbps", 6.25e6},     {"50MBps", 50e6},
      {"6.25MB", 6.25e6}, {"100 Mbit/s", 12.5e6}, {"1000Gbit", 125e9},
      {"0", 0},           {"0Mbit", 0},           {"40b", 5},
      {"3B", 3},          {"10GB/s", 10e9},
  };
  for (const auto& [text, expected] : cases) {
    const auto rate = ParseRate(text);
    ASSERT_TRUE(rate.ok()) << text << ": " << rate.status();
    EXPECT_DOUBLE_EQ(*rate, expected) << text;
  }
}

TEST(UnitsTest, RefusesWhatIsNoRate) {
  for (const char* text :
       {"", "50", "Mbit", "-5Mbit", "5Mbits/h", "5 parsec", "1e3Mbit", "nanMbit", "infMbit",
        "1.2.3Mbit", "1001Gbit", "5Tbit", "0x10Mbit", ".", "99999999999999999999999bit"}) {
    EXPECT_EQ(ParseRate(text).status().code(), absl::StatusCode::kInvalidArgument) << text;
  }
}

TEST(UnitsTest, ParsesDurations) {
  EXPECT_EQ(*ParseDuration("500ms"), absl::Milliseconds(500));
  EXPECT_EQ(*ParseDuration("1.5s"), absl::Milliseconds(1500));
  EXPECT_EQ(*ParseDuration("1m30s"), absl::Seconds(90));
  EXPECT_EQ(*ParseDuration("0"), absl::ZeroDuration());
  for (const char* text : {"", "500", "-1s", "inf", "1 s", "1parsec"}) {
    EXPECT_EQ(ParseDuration(text).status().code(), absl::StatusCode::kInvalidArgument) << text;
  }
}

TEST(UnitsTest, ParsesAddresses) {
  EXPECT_EQ(ParseHostPort("127.0.0.1:7411")->host, "127.0.0.1");
  EXPECT_EQ(ParseHostPort("127.0.0.1:7411")->port, 7411);
  EXPECT_EQ(ParseHostPort("[::1]:0")->host, "::1");
  EXPECT_EQ(FormatHostPort(*ParseHostPort("[::1]:80")), "[::1]:80");
  EXPECT_EQ(FormatHostPort(*ParseHostPort("node-3:80")), "node-3:80");
  for (const char* text : {"", "host", "host:", ":80", "host:65536", "host:-1", "host:+1",
                           "host:8o", "::1:80", "[::1:80", "[]:80", "host:100000"}) {
    EXPECT_EQ(ParseHostPort(text).status().code(), absl::StatusCode::kInvalidArgument) << text;
  }
}

TEST(UnitsTest, FormatsForPeople) {
  EXPECT_EQ(FormatBytes(0), "0 B");
  EXPECT_EQ(FormatBytes(812), "812 B");
  EXPECT_EQ(FormatBytes(1500000), "1.50 MB");
  EXPECT_EQ(FormatBytes(999999), "1.00 MB");
  EXPECT_EQ(FormatRate(1.5e6), "12.0 Mbit/s");
  EXPECT_EQ(FormatMillis(absl::Milliseconds(318)), "318 ms");
  EXPECT_EQ(FormatMillis(absl::Milliseconds(1520)), "1.52 s");
  EXPECT_EQ(FormatMillis(absl::Microseconds(840)), "840 us");
}

}  // namespace
}  // namespace kvstream

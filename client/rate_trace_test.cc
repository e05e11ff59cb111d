#include "client/rate_trace.h"

#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace kvstream {
namespace {

using ::testing::HasSubstr;

RateTrace Parsed(const std::string& text) {
  const auto trace = RateTrace::Parse(text);
  EXPECT_TRUE(trace.ok()) << trace.status();
  return *trace;
}

std::string ErrorOf(const std::string& text) {
  const auto trace = RateTrace::Parse(text);
  EXPECT_EQ(trace.status().code(), absl::StatusCode::kInvalidArgument) << text;
  return std::string(trace.status().message());
}

TEST(RateTraceTest, HoldsTheLastRate) {
  const RateTrace trace = Parsed("# office\n0 8Mbit\n\n  2.5\t80Mbit # faster\r\n4 0.8Mbit\n");
  EXPECT_EQ(trace.BytesPerSecondAt(absl::ZeroDuration()), 1e6);
  EXPECT_EQ(trace.BytesPerSecondAt(absl::Seconds(2.499)), 1e6);
  EXPECT_EQ(trace.BytesPerSecondAt(absl::Seconds(2.5)), 1e7);
  EXPECT_EQ(trace.BytesPerSecondAt(absl::Seconds(100)), 1e5);
  EXPECT_EQ(trace.max_bytes_per_second(), 1e7);
  EXPECT_DOUBLE_EQ(trace.BytesBetween(absl::Seconds(2), absl::Seconds(5)), 0.5e6 + 1.5e7 + 1e5);
  EXPECT_EQ(trace.TimeToCarry(absl::Seconds(2), 0.5e6 + 1.5e7 + 1e5), absl::Seconds(5));
}

TEST(RateTraceTest, Loops) {
  const RateTrace trace = Parsed("0 8Mbit\n1 0\n3 loop");
  EXPECT_EQ(trace.BytesPerSecondAt(absl::Seconds(3.5)), 1e6);
  EXPECT_EQ(trace.BytesPerSecondAt(absl::Seconds(4.5)), 0);
  EXPECT_DOUBLE_EQ(trace.BytesBetween(absl::Seconds(0.5), absl::Seconds(300.5)), 1e8);
  EXPECT_DOUBLE_EQ(trace.BytesBetween(absl::Seconds(0.5), absl::Seconds(4)), 1.5e6);
  EXPECT_EQ(trace.TimeToCarry(absl::Seconds(0.5), 0.75e6), absl::Seconds(3.25));
  EXPECT_EQ(trace.TimeToCarry(absl::Seconds(1.5), 0.25e6), absl::Seconds(3.25));
  EXPECT_EQ(trace.TimeToCarry(absl::Seconds(0.5), 100.25e6), absl::Seconds(300.75));
}

TEST(RateTraceTest, TimeToCarryIsTheInverseOfBytesBetween) {
  const RateTrace trace = Parsed("0 10Mbit\n0.3 0\n0.4 200Mbit\n0.45 1Mbit\n2 loop");
  for (const double start : {0.0, 0.29, 0.35, 0.42, 1.99, 7.3}) {
    for (const double bytes : {1.0, 1e3, 1e6, 1e8}) {
      const absl::Duration end = trace.TimeToCarry(absl::Seconds(start), bytes);
      EXPECT_NEAR(trace.BytesBetween(absl::Seconds(start), end) / bytes, 1, 1e-4)
          << start << " " << bytes;
    }
  }
}

TEST(RateTraceTest, NamesTheLineThatIsWrong) {
  EXPECT_THAT(ErrorOf(""), HasSubstr("no line"));
  EXPECT_THAT(ErrorOf("# only\n"), HasSubstr("no line"));
  EXPECT_THAT(ErrorOf("1 5Mbit"), HasSubstr("line 1: the first time must be 0"));
  EXPECT_THAT(ErrorOf("0 5Mbit\n0 6Mbit"), HasSubstr("line 2: times must grow"));
  EXPECT_THAT(ErrorOf("0 5Mbit\n\n2 6\n"), HasSubstr("line 3: \"6\" is no rate"));
  EXPECT_THAT(ErrorOf("0"), HasSubstr("line 1: must be `<seconds> <rate>`"));
  EXPECT_THAT(ErrorOf("x 5Mbit"), HasSubstr("line 1: its time"));
  EXPECT_THAT(ErrorOf("nan 5Mbit"), HasSubstr("line 1: its time"));
  EXPECT_THAT(ErrorOf("0 5Mbit\n1e9 5Mbit"), HasSubstr("line 2: its time"));
  EXPECT_THAT(ErrorOf("0 loop"), HasSubstr("line 1: there is nothing to loop"));
  EXPECT_THAT(ErrorOf("0 5Mbit\n1 loop\n2 5Mbit"), HasSubstr("line 3: nothing may follow"));
  EXPECT_THAT(ErrorOf("0 5Mbit\n1 0"), HasSubstr("down for ever"));
  EXPECT_THAT(ErrorOf("0 0\n1 loop"), HasSubstr("down for ever"));
  EXPECT_THAT(ErrorOf(std::string(2 << 20, '#')), HasSubstr("must be at most"));
}

}  // namespace
}  // namespace kvstream

// A short version of `bazel run //tests/links:share`, with margins.
#include "tests/links/share_report.h"

#include <gtest/gtest.h>

#include <array>

namespace kvstream {
namespace links {
namespace {

TEST(ShareReportTest, SchedulingKeepsDeadlinesThatLoadsOnTheirOwnMiss) {
  const auto traces = ReadTraces("tests/links/traces");
  ASSERT_TRUE(traces.ok()) << traces.status();
  ShareOptions options;
  options.rounds = 1;
  options.loads = {16, 32};
  options.families = {"constant", "walk"};
  for (const ShareRow& row : RunShare(*traces, options).by_loads) {
    SCOPED_TRACE(row.loads);
    for (int queueing : {0, 1}) {
      const ShareOutcome& shared = row.shared[queueing];
      const ShareOutcome& alone = row.alone[queueing];
      EXPECT_EQ(shared.failed, 0);
      ASSERT_GT(shared.deadlines, 0);
      // Reached: at most 6 %.
      EXPECT_LE(shared.misses, row.achieved + 0.1 * shared.deadlines);
      EXPECT_LE(shared.misses, 0.7 * alone.misses);
    }
    EXPECT_LE(row.least, row.achieved);
    EXPECT_LE(row.least, row.online);
  }
}

TEST(ShareReportTest, ALoadAloneIsNotSlowedDown) {
  const auto traces = ReadTraces("tests/links/traces");
  ASSERT_TRUE(traces.ok()) << traces.status();
  const std::array<double, 2> ratios = MeanRatios(RunSolo(*traces, /*tuning=*/true));
  EXPECT_LE(ratios[0], 1.01);
  EXPECT_LE(ratios[1], 1.01);
}

}  // namespace
}  // namespace links
}  // namespace kvstream

#include "server/service/load_stages.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <prometheus/text_serializer.h>

#include <string>

namespace kvstream {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

TEST(LoadStageMetricsTest, AStageThatWasNotReachedIsNotCounted) {
  prometheus::Registry registry;
  LoadStageMetrics metrics(&registry);
  metrics.Observe({}, "none");
  const std::string text = prometheus::TextSerializer().Serialize(registry.Collect());
  for (const char* count :
       {"kvstream_load_first_byte_seconds_count 0", "kvstream_load_round_trip_seconds_count 0",
        "kvstream_load_window_bytes_count 0", "kvstream_deadline_slack_seconds_count 0",
        "kvstream_recompute_told_total 0"}) {
    EXPECT_THAT(text, HasSubstr(count));
  }
  EXPECT_THAT(text, Not(HasSubstr("kvstream_load_all_ready_seconds_count")));
}

TEST(LoadStageMetricsTest, EveryStageIsCountedOnce) {
  prometheus::Registry registry;
  LoadStageMetrics metrics(&registry);
  LoadStages stages;
  stages.first_byte = absl::Milliseconds(2);
  stages.all_ready = absl::Milliseconds(300);
  stages.round_trip = absl::Milliseconds(20);
  stages.window_bytes_max = 1 << 20;
  stages.refinements.assign(256, 1);
  stages.recompute_told = 3;
  stages.recomputed_tokens = 512;
  stages.recompute_time = absl::Seconds(2);
  stages.deadline_slack = absl::Milliseconds(-50);
  metrics.Observe(stages, "deadline");
  const std::string text = prometheus::TextSerializer().Serialize(registry.Collect());
  for (const char* line :
       {"kvstream_load_first_byte_seconds_bucket{le=\"0.0025\"} 1",
        "kvstream_load_all_ready_seconds_count{policy=\"deadline\"} 1",
        "kvstream_load_round_trip_seconds_sum 0.02", "kvstream_load_window_bytes_sum 1048576",
        "kvstream_load_refinements_total{level=\"3\"} 1",
        "kvstream_load_refinements_total{level=\"16+\"} 240", "kvstream_recompute_told_total 3",
        "kvstream_recompute_tokens_total 512", "kvstream_recompute_seconds_total 2",
        "kvstream_deadline_slack_seconds_bucket{le=\"0\"} 1",
        "kvstream_deadline_slack_seconds_bucket{le=\"-0.1\"} 0"}) {
    EXPECT_THAT(text, HasSubstr(line));
  }
}

}  // namespace
}  // namespace kvstream

#include "server/service/load_stages.h"

#include <algorithm>
#include <string>

#include "absl/strings/str_cat.h"

namespace kvstream {
namespace {

using prometheus::BuildCounter;
using prometheus::BuildHistogram;
using prometheus::Counter;
using prometheus::Family;
using prometheus::Histogram;
using prometheus::Registry;

// As metrics.h has them.
constexpr size_t kLevelLabels = 16;

Histogram::BucketBoundaries DelayBuckets() {
  return {0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.4, 0.8, 1.5, 3, 6, 12, 30, 60};
}

Histogram::BucketBoundaries RoundTripBuckets() {
  return {1e-4, 3e-4, 1e-3, 2e-3, 5e-3, 0.01, 0.02, 0.04, 0.08, 0.15, 0.3, 1};
}

Histogram::BucketBoundaries WindowBuckets() {
  Histogram::BucketBoundaries buckets;
  for (double bytes = 64 << 10; bytes <= 128 << 20; bytes *= 2) buckets.push_back(bytes);
  return buckets;
}

// Missed deadlines are below 0.
Histogram::BucketBoundaries SlackBuckets() {
  return {-10, -3, -1, -0.3, -0.1, -0.03, -0.01, 0, 0.01, 0.03, 0.1, 0.3, 1, 3, 10};
}

Family<Histogram>& Histograms(Registry* registry, const char* name, const char* help) {
  return BuildHistogram().Name(name).Help(help).Register(*registry);
}

Family<Counter>& Counters(Registry* registry, const char* name, const char* help) {
  return BuildCounter().Name(name).Help(help).Register(*registry);
}

}  // namespace

LoadStageMetrics::LoadStageMetrics(Registry* registry)
    : first_byte_(Histograms(registry, "kvstream_load_first_byte_seconds",
                             "From the receipt of a load's start to the first payload handed on.")
                      .Add({}, DelayBuckets())),
      all_ready_(Histograms(registry, "kvstream_load_all_ready_seconds",
                            "From the receipt of a load's start to the first report that every "
                            "chunk is ready.")),
      round_trip_(Histograms(registry, "kvstream_load_round_trip_seconds",
                             "The shortest round trip that each load saw.")
                      .Add({}, RoundTripBuckets())),
      window_(Histograms(registry, "kvstream_load_window_bytes",
                         "The largest window of unacknowledged bytes of each load.")
                  .Add({}, WindowBuckets())),
      refinements_(Counters(registry, "kvstream_load_refinements_total",
                            "Plans that raised a chunk to this level.")),
      recompute_told_(Counters(registry, "kvstream_recompute_told_total",
                               "Chunks that clients were told to recompute, unfinished loads too.")
                          .Add({})),
      recompute_tokens_(Counters(registry, "kvstream_recompute_tokens_total",
                                 "Tokens that clients reported as recomputed.")
                            .Add({})),
      recompute_seconds_(Counters(registry, "kvstream_recompute_seconds_total",
                                  "Time that clients reported to have spent on recompute.")
                             .Add({})),
      deadline_slack_(Histograms(registry, "kvstream_deadline_slack_seconds",
                                 "Deadline less load delay of finished loads; below 0: missed.")
                          .Add({}, SlackBuckets())) {}

void LoadStageMetrics::Observe(const LoadStages& stages, absl::string_view policy) {
  if (stages.first_byte.has_value()) {
    first_byte_.Observe(absl::ToDoubleSeconds(*stages.first_byte));
  }
  if (stages.all_ready.has_value()) {
    all_ready_.Add({{"policy", std::string(policy)}}, DelayBuckets())
        .Observe(absl::ToDoubleSeconds(*stages.all_ready));
  }
  if (stages.round_trip > absl::ZeroDuration()) {
    round_trip_.Observe(absl::ToDoubleSeconds(stages.round_trip));
  }
  if (stages.window_bytes_max > 0) window_.Observe(static_cast<double>(stages.window_bytes_max));
  for (size_t level = 0; level < stages.refinements.size(); ++level) {
    if (stages.refinements[level] == 0) continue;
    const std::string label =
        level < kLevelLabels ? absl::StrCat(level) : absl::StrCat(kLevelLabels, "+");
    refinements_.Add({{"level", label}}).Increment(static_cast<double>(stages.refinements[level]));
  }
  recompute_told_.Increment(static_cast<double>(stages.recompute_told));
  recompute_tokens_.Increment(static_cast<double>(stages.recomputed_tokens));
  // A client's word; a counter must not go back.
  recompute_seconds_.Increment(std::max(0.0, absl::ToDoubleSeconds(stages.recompute_time)));
  if (stages.deadline_slack.has_value()) {
    deadline_slack_.Observe(absl::ToDoubleSeconds(*stages.deadline_slack));
  }
}

}  // namespace kvstream

// The tables of the link simulation.
#ifndef KVSTREAM_TESTS_LINKS_REPORT_H_
#define KVSTREAM_TESTS_LINKS_REPORT_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "tests/links/sweep.h"

namespace kvstream {
namespace links {

// Figures of one group of loads against the clairvoyant.
struct Score {
  int loads = 0;
  double ratio_sum = 0;    // of load delay to the clairvoyant's
  double ratio_min = 1e9;  // below 1 the bound would be none
  double ratio_max = 0;
  double recomputed_sum = 0;
  int deadlines = 0;
  int unusable = 0;  // a chunk was not in place
  int clairvoyant_misses = 0;
  double level_sum = 0;
  double clairvoyant_level_sum = 0;
  double level_excess_max = 0;  // mean level above the bound, which must not be

  double mean_ratio() const { return loads > 0 ? ratio_sum / loads : 0; }
  // Points in a hundred by which deadlines are missed more often than by the clairvoyant.
  double extra_unusable() const {
    return deadlines > 0 ? 100.0 * (unusable - clairvoyant_misses) / deadlines : 0;
  }
  double level_ratio() const {
    return clairvoyant_level_sum > 0 ? level_sum / clairvoyant_level_sum : 1;
  }
};

// Every case with `fastest` and with each deadline factor.
absl::Status AddScore(const std::vector<Case>& cases, const Ladder& ladder,
                      RecomputeAbility ability, Prior prior, const LoadSessionOptions& options,
                      Score* score);

// Load delay against CacheGen's policy on CacheGen's sizes, each with the coarsest of our levels
// whose KL is not above the mean KL of what CacheGen brought. Both stream only.
struct CacheGenScore {
  int loads = 0;
  double ratio_sum = 0;
  double delay_sum = 0;
  double cachegen_delay_sum = 0;
  // The same ratio of somebody who knows the link's future: with all chunks at that level, and with
  // as many of them one level lower as the mean KL of what CacheGen brought allows.
  double bound_sum = 0;
  double mixed_sum = 0;
  double bytes_ratio_sum = 0;  // of that level to what CacheGen sent
  // Ours with that mean as floor (LoadSpec::floor_below_share).
  double mean_floor_ratio_sum = 0;
  double mean_floor_delay_sum = 0;
  int worse = 0;  // of those, loads whose mean KL is above CacheGen's; must be none
  double mean_ratio() const { return loads > 0 ? ratio_sum / loads : 0; }
};
absl::Status AddCacheGen(const std::vector<Case>& cases, const Ladder& ladder, Prior prior,
                         const LoadSessionOptions& options, CacheGenScore* score);

// One row per ability and prior, by family: for work on estimator and planner.
absl::StatusOr<std::string> Summary(const std::vector<Case>& cases, const Ladder& ladder,
                                    const LoadSessionOptions& options);

// The loads that are furthest from the clairvoyant, by ratio of delays, or with `deadline` those
// that missed what it makes, with the most time to spare first. One line each.
absl::StatusOr<std::string> Worst(const std::vector<Case>& cases, const Ladder& ladder,
                                  RecomputeAbility ability, Prior prior, bool deadline, int count,
                                  const LoadSessionOptions& options);

// The whole report as Markdown. Counts the loads that were simulated.
absl::StatusOr<std::string> Report(const std::vector<NamedTrace>& traces,
                                   const SweepOptions& options, int64_t* loads);

// Comma-separated rows `model,ability,mbit,delay_s,clairvoyant_s,cachegen_s,eight_bits_s,text_s`
// over constant links, for the picture.
absl::StatusOr<std::string> DelayCurve(const SweepOptions& options);

// `seconds,link_mbit,estimate_mbit,low_mbit,sent_mb,acknowledged_mb,recomputing` of one load.
absl::StatusOr<std::string> Timeline(const std::vector<NamedTrace>& traces,
                                     const SweepOptions& options);

}  // namespace links
}  // namespace kvstream

#endif  // KVSTREAM_TESTS_LINKS_REPORT_H_

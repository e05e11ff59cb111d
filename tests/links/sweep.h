// Loads over traces and workloads, beside the clairvoyant and the baselines.
#ifndef KVSTREAM_TESTS_LINKS_SWEEP_H_
#define KVSTREAM_TESTS_LINKS_SWEEP_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "server/load/load_session.h"
#include "tests/links/clairvoyant.h"
#include "tests/links/trace_set.h"
#include "tests/links/workload.h"

namespace kvstream {
namespace links {

// One context over one trace, from a start on the trace's clock that the seed draws.
struct Case {
  const NamedTrace* trace;
  const Model* model;
  uint32_t tokens;
  LinkView link;
  double prior_bytes_per_second;  // mean rate of the 5 s that began 10 s before the load
  double mean_bytes_per_second;   // of the trace's first 40 s
  bool gated = false;             // behind the server's link scheduler, alone
};

struct SweepOptions {
  uint64_t seed = 1;
  bool tuning = false;         // which traces
  int contexts_per_trace = 0;  // 0: all of them; else so many, drawn by the seed
  bool gated = false;          // see Case
  LoadSessionOptions session;
};

std::vector<Case> MakeCases(const std::vector<NamedTrace>& traces, const SweepOptions& options);

constexpr RecomputeAbility kAbilities[] = {RecomputeAbility::kNone, RecomputeAbility::kSuffix,
                                           RecomputeAbility::kAny, RecomputeAbility::kFront};
const char* AbilityName(RecomputeAbility ability);

// A deadline is this often what the link at its mean rate needs for the coarsest level of all, plus
// the round trip, a chunk's decoding and 50 ms.
constexpr double kDeadlineFactors[] = {1.5, 4, 10};
// For the comparison with CacheGen's policy: how often what its default level needs.
constexpr double kCacheGenDeadlineFactors[] = {0.9, 1.2, 2};
// `fastest` brings this level of each ladder: at least the quality of CacheGen's default.
constexpr int kFastestFloor = 1;

struct LoadResult {
  double delay_s = 0;
  bool unusable = false;  // a chunk was not in place at the deadline
  double mean_level = 0;  // of a load with a deadline: then
  double mean_kl = 0;     // recompute: 0
  double bytes = 0;
  double recomputed = 0;  // share of the chunks
  // With a deadline, then; see SimulationResult.
  double received_bytes = 0;
  double decoded_bytes = 0;
  uint32_t recomputed_chunks = 0;
};

// Runs the real session. INTERNAL if it fails or breaks an invariant.
absl::StatusOr<LoadResult> RunSession(const Case& one, const LoadSpec& spec, const Ladder& ladder,
                                      const LoadSessionOptions& options);

// The round trip, and the mean rate over five seconds that began ten before the load, as a server
// that keeps a record of its clients' networks would know them.
enum class Prior { kNone, kRecord };

LoadSpec FastestSpec(const Case& one, const Ladder& ladder, RecomputeAbility ability, Prior prior,
                     int floor_level = kFastestFloor);
LoadSpec DeadlineSpec(const Case& one, const Ladder& ladder, RecomputeAbility ability, Prior prior,
                      double factor);

}  // namespace links
}  // namespace kvstream

#endif  // KVSTREAM_TESTS_LINKS_SWEEP_H_

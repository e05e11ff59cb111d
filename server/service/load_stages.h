// The stages of a load as metrics, beside what metrics.h counts at its end: when it sent its first
// byte, when every chunk was ready for the first time, what it refined and gave to recompute.
#ifndef KVSTREAM_SERVER_SERVICE_LOAD_STAGES_H_
#define KVSTREAM_SERVER_SERVICE_LOAD_STAGES_H_

#include <prometheus/counter.h>
#include <prometheus/family.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>

#include <cstdint>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "absl/types/optional.h"

namespace kvstream {

// Of one load. Durations count from the receipt of its start.
struct LoadStages {
  absl::optional<absl::Duration> first_byte;      // none: nothing was sent
  absl::optional<absl::Duration> all_ready;       // the first report that every chunk is ready
  absl::Duration round_trip;                      // the shortest that was seen; 0: none was
  uint64_t window_bytes_max = 0;                  // of those at the client's reports
  std::vector<uint64_t> refinements;              // plans that raised a chunk's level; index is it
  uint64_t recompute_told = 0;                    // plans of recompute
  uint64_t recomputed_tokens = 0;                 // as the client reported
  absl::Duration recompute_time;                  // the same
  absl::optional<absl::Duration> deadline_slack;  // deadline less delay, of finished loads with one
};

// Registers its families with `registry`, which must outlive it. Thread-safe.
class LoadStageMetrics {
 public:
  explicit LoadStageMetrics(prometheus::Registry* registry);

  // policy: a value of LoadPolicyLabel() or "none".
  void Observe(const LoadStages& stages, absl::string_view policy);

 private:
  prometheus::Histogram& first_byte_;
  prometheus::Family<prometheus::Histogram>& all_ready_;
  prometheus::Histogram& round_trip_;
  prometheus::Histogram& window_;
  prometheus::Family<prometheus::Counter>& refinements_;
  prometheus::Counter& recompute_told_;
  prometheus::Counter& recompute_tokens_;
  prometheus::Counter& recompute_seconds_;
  prometheus::Histogram& deadline_slack_;
};

}  // namespace kvstream

#endif  // KVSTREAM_SERVER_SERVICE_LOAD_STAGES_H_

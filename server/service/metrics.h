// Every metric of the daemon, in Prometheus' conventions; docs/operations.md lists them.
#ifndef KVSTREAM_SERVER_SERVICE_METRICS_H_
#define KVSTREAM_SERVER_SERVICE_METRICS_H_

#include <prometheus/counter.h>
#include <prometheus/family.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "absl/types/optional.h"
#include "server/load/load_session.h"
#include "server/service/load_admission.h"
#include "server/service/load_stages.h"

namespace kvstream {

// How a load ended: the label `outcome`.
enum class LoadOutcome {
  kOk,
  kRefused,     // before its first plan: bad request, unknown chunk, a limit
  kDataLoss,    // damaged bytes that the client cannot recompute
  kTimedOut,    // the client showed no progress
  kProtocol,    // an illegal or impossible message after the start
  kClientGone,  // cancelled or disconnected
  kDraining,    // the server stopped
  kFailed,      // anything else
};
absl::string_view LoadOutcomeLabel(LoadOutcome outcome);
// "deadline", "fastest", "cachegen", "fixed", "recompute".
absl::string_view LoadPolicyLabel(LoadPolicy policy);
// "faster", "data_loss", "policy".
absl::string_view RecomputeReasonLabel(RecomputeReason reason);

// What one load did. Decisions only of loads that finished.
struct LoadRecord {
  absl::optional<LoadPolicy> policy;  // none: it ended before its start was read
  LoadOutcome outcome = LoadOutcome::kFailed;
  absl::Duration delay;
  std::vector<ChunkDecision> chunks;
  std::vector<uint64_t> bytes_by_level;            // payload sent, index is the segment's level
  absl::optional<bool> deadline_missed;            // none: no deadline, or it did not finish
  double bandwidth_estimate_bytes_per_second = 0;  // 0: none
  // Acknowledged bytes over the time from the first byte sent to the last acknowledgement of new
  // bytes; 0: too few bytes to tell.
  double goodput_bytes_per_second = 0;
  // Root of LoadSessionState::estimate_mean_square_log_error; 0: not measured.
  double estimate_log_error = 0;
  LoadStages stages;

  uint64_t bytes() const;
};

// Sums since the start, for the Stats call.
struct LoadTotals {
  uint64_t finished = 0;
  uint64_t failed = 0;
  uint64_t bytes_sent = 0;
  std::vector<uint64_t> chunks_by_level;
  uint64_t chunks_recomputed = 0;
};

// Of one tenant, read just before a scrape.
struct TenantFigure {
  std::string name;
  uint64_t chunks = 0;
  uint64_t used_bytes = 0;    // of the quota
  uint64_t quota_bytes = 0;   // 0: none
  uint64_t refused_puts = 0;  // by the quota
  int loads_in_flight = 0;
  uint64_t puts_in_flight = 0;
  uint64_t put_buffer_bytes = 0;
};

// Read just before a scrape.
struct GaugeValues {
  int loads_in_flight = 0;
  int puts_in_flight = 0;
  uint64_t in_flight_bytes = 0;
  uint64_t links = 0;
  uint64_t put_buffer_bytes = 0;
  uint64_t store_chunks = 0;
  uint64_t store_payload_bytes = 0;
  uint64_t store_disk_bytes = 0;
  std::vector<TenantFigure> tenants;  // names come, but never go
  uint64_t store_pins = 0;
  uint64_t store_pinned_bytes = 0;
  bool store_writable = true;
  bool store_restart_needed = false;
  uint64_t store_damaged_files = 0;
  uint64_t store_capacity_bytes = 0;  // 0: none
  // Since the store was opened; figures that only grow.
  uint64_t evicted_segments = 0;
  uint64_t evicted_bytes = 0;
  uint64_t evicted_chunks = 0;
};

enum class StoreOperation {
  kPut,
  kGetInfos,
  kLongestPrefix,
  kReadSegment,
  kDelete,
  kList,
  kPutProfile,
  kGetProfile,
  kListProfiles,
  kStats,
  kExpire,
  kRenew,
  kPin,
};
inline constexpr int kStoreOperations = 13;

// Thread-safe.
class Metrics {
 public:
  Metrics(absl::string_view version, absl::string_view store_driver);
  Metrics(const Metrics&) = delete;
  Metrics& operator=(const Metrics&) = delete;

  void ObserveLoad(const LoadRecord& record);
  // A load has begun with so many on its link, itself included. slack: see LinkShareView.
  void ObserveLoadStart(size_t loads_on_link, absl::Duration slack);
  void CountRefusal(LoadRefusal reason);
  void CountReload(bool ok);
  void ObserveLookup(uint64_t hit_tokens, uint64_t miss_tokens);
  void ObserveStore(StoreOperation operation, absl::Duration time);
  void CountPutBytes(uint64_t bytes);
  void CountExpired(uint64_t chunks);
  // `method` is one of the service's: "Load". OK is not counted.
  void CountError(absl::string_view method, absl::StatusCode code);
  void SetGauges(const GaugeValues& values);

  LoadTotals load_totals() const;
  // The text of /metrics.
  std::string Text() const;

 private:
  prometheus::Registry registry_;
  LoadStageMetrics stages_{&registry_};
  prometheus::Family<prometheus::Histogram>& load_delay_;
  prometheus::Histogram& estimate_;
  prometheus::Histogram& goodput_;
  prometheus::Histogram& estimator_error_;
  prometheus::Histogram& estimator_log_error_;
  prometheus::Histogram& link_loads_;
  prometheus::Histogram& start_slack_;
  std::vector<prometheus::Counter*> refusals_;  // index: LoadRefusal
  std::vector<prometheus::Counter*> reloads_;   // failed, ok
  prometheus::Family<prometheus::Counter>& load_bytes_;
  prometheus::Family<prometheus::Counter>& load_chunks_;
  prometheus::Family<prometheus::Counter>& recompute_chunks_;
  prometheus::Counter& deadline_hit_;
  prometheus::Counter& deadline_miss_;
  prometheus::Counter& lookup_hit_;
  prometheus::Counter& lookup_miss_;
  prometheus::Counter& put_bytes_;
  prometheus::Family<prometheus::Counter>& errors_;
  prometheus::Gauge& loads_in_flight_;
  prometheus::Gauge& puts_in_flight_;
  prometheus::Gauge& in_flight_bytes_;
  prometheus::Gauge& links_;
  prometheus::Gauge& put_buffer_bytes_;
  prometheus::Gauge& store_chunks_;
  prometheus::Gauge& store_payload_bytes_;
  prometheus::Gauge& store_disk_bytes_;
  prometheus::Gauge& store_pins_;
  prometheus::Gauge& store_pinned_bytes_;
  prometheus::Gauge& store_capacity_bytes_;
  prometheus::Gauge& store_writable_;
  prometheus::Gauge& store_restart_needed_;
  prometheus::Gauge& store_damaged_files_;
  prometheus::Counter& evicted_segments_;
  prometheus::Counter& evicted_bytes_;
  prometheus::Counter& evicted_chunks_;
  prometheus::Counter& expired_chunks_;
  // Without a series as long as there are no tenants.
  prometheus::Family<prometheus::Gauge>& tenant_chunks_;
  prometheus::Family<prometheus::Gauge>& tenant_bytes_;
  prometheus::Family<prometheus::Gauge>& tenant_quota_bytes_;
  prometheus::Family<prometheus::Gauge>& tenant_loads_;
  prometheus::Family<prometheus::Gauge>& tenant_puts_;
  prometheus::Family<prometheus::Gauge>& tenant_put_buffer_bytes_;
  prometheus::Family<prometheus::Counter>& tenant_refusals_;
  std::vector<prometheus::Histogram*> store_operations_;  // index: StoreOperation

  mutable absl::Mutex mutex_;
  LoadTotals totals_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace kvstream

#endif  // KVSTREAM_SERVER_SERVICE_METRICS_H_

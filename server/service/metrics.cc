#include "server/service/metrics.h"

#include <prometheus/text_serializer.h>

#include <array>
#include <cmath>
#include <numeric>

#include "absl/strings/str_cat.h"
#include "server/service/status_conversion.h"

namespace kvstream {
namespace {

using prometheus::BuildCounter;
using prometheus::BuildGauge;
using prometheus::BuildHistogram;
using prometheus::Counter;
using prometheus::Family;
using prometheus::Gauge;
using prometheus::Histogram;
using prometheus::Registry;

// Profiles have a handful of levels; a store may hold chunks of up to 256. What is above shares one
// label value.
constexpr size_t kLevelLabels = 16;

Histogram::BucketBoundaries DelayBuckets() {
  return {0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.4, 0.8, 1.5, 3, 6, 12, 30, 60};
}

Histogram::BucketBoundaries RateBuckets() {
  Histogram::BucketBoundaries buckets;
  for (double decade = 1e5; decade < 1e10; decade *= 10) {
    for (const double step : {1.0, 2.0, 5.0}) buckets.push_back(decade * step);
  }
  buckets.push_back(1e10);
  return buckets;
}

Histogram::BucketBoundaries ErrorBuckets() {
  return {0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1, 2, 5, 10};
}

Histogram::BucketBoundaries LogErrorBuckets() {
  return {0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1, 1.5, 2, 3};
}

Histogram::BucketBoundaries LinkLoadsBuckets() {
  return {1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024};
}

Histogram::BucketBoundaries SlackBuckets() {
  return {-10, -3, -1, -0.3, -0.1, 0, 0.1, 0.3, 1, 3, 10, 30, 100};
}

Histogram::BucketBoundaries StoreBuckets() {
  return {1e-5, 2.5e-5, 5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3,
          1e-2, 2.5e-2, 5e-2, 0.1,  0.25,   0.5,  1,    5};
}

Family<Counter>& CounterFamily(Registry& registry, const char* name, const char* help) {
  return BuildCounter().Name(name).Help(help).Register(registry);
}

Family<Histogram>& HistogramFamily(Registry& registry, const char* name, const char* help) {
  return BuildHistogram().Name(name).Help(help).Register(registry);
}

Family<Gauge>& GaugeFamily(Registry& registry, const char* name, const char* help) {
  return BuildGauge().Name(name).Help(help).Register(registry);
}

Gauge& OneGauge(Registry& registry, const char* name, const char* help) {
  return BuildGauge().Name(name).Help(help).Register(registry).Add({});
}

std::string LevelLabel(size_t level) {
  return level < kLevelLabels ? absl::StrCat(level) : absl::StrCat(kLevelLabels, "+");
}

constexpr std::array<const char*, kStoreOperations> kStoreOperationLabels = {
    "put",         "get_infos",   "longest_prefix", "read_segment", "delete", "list",
    "put_profile", "get_profile", "list_profiles",  "stats",        "expire", "renew",
    "pin"};

// A counter of what somebody else counts.
void RaiseTo(uint64_t value, Counter* counter) {
  const double more = static_cast<double>(value) - counter->Value();
  if (more > 0) counter->Increment(more);
}

}  // namespace

absl::string_view LoadOutcomeLabel(LoadOutcome outcome) {
  switch (outcome) {
    case LoadOutcome::kOk:
      return "ok";
    case LoadOutcome::kRefused:
      return "refused";
    case LoadOutcome::kDataLoss:
      return "data_loss";
    case LoadOutcome::kTimedOut:
      return "timed_out";
    case LoadOutcome::kProtocol:
      return "protocol";
    case LoadOutcome::kClientGone:
      return "client_gone";
    case LoadOutcome::kDraining:
      return "draining";
    case LoadOutcome::kFailed:
      break;
  }
  return "failed";
}

absl::string_view LoadPolicyLabel(LoadPolicy policy) {
  switch (policy) {
    case LoadPolicy::kDeadline:
      return "deadline";
    case LoadPolicy::kFastest:
      return "fastest";
    case LoadPolicy::kCacheGen:
      return "cachegen";
    case LoadPolicy::kFixed:
      return "fixed";
    case LoadPolicy::kRecompute:
      return "recompute";
  }
  return "unknown";
}

absl::string_view RecomputeReasonLabel(RecomputeReason reason) {
  switch (reason) {
    case RecomputeReason::kFaster:
      return "faster";
    case RecomputeReason::kDataLoss:
      return "data_loss";
    case RecomputeReason::kPolicy:
      return "policy";
  }
  return "unknown";
}

uint64_t LoadRecord::bytes() const {
  return std::accumulate(bytes_by_level.begin(), bytes_by_level.end(), uint64_t{0});
}

Metrics::Metrics(absl::string_view version, absl::string_view store_driver)
    : load_delay_(HistogramFamily(registry_, "kvstream_load_delay_seconds",
                                  "From the receipt of a load's start to its end.")),
      estimate_(HistogramFamily(registry_, "kvstream_load_bandwidth_estimate_bytes_per_second",
                                "The estimator's last value of each load that had a sample.")
                    .Add({}, RateBuckets())),
      goodput_(
          HistogramFamily(registry_, "kvstream_load_goodput_bytes_per_second",
                          "Acknowledged payload bytes over the time of their transfer, per load.")
              .Add({}, RateBuckets())),
      estimator_error_(HistogramFamily(registry_, "kvstream_bandwidth_estimator_error_ratio",
                                       "|estimate - goodput| / goodput of each load.")
                           .Add({}, ErrorBuckets())),
      estimator_log_error_(
          HistogramFamily(registry_, "kvstream_bandwidth_estimator_log_error",
                          "Root mean square of log(rate that came / estimate) of each load.")
              .Add({}, LogErrorBuckets())),
      link_loads_(HistogramFamily(registry_, "kvstream_link_loads",
                                  "Loads on a load's link when it begins, itself included.")
                      .Add({}, LinkLoadsBuckets())),
      start_slack_(HistogramFamily(registry_, "kvstream_load_start_slack_seconds",
                                   "Time to spare of loads with a deadline when they begin.")
                       .Add({}, SlackBuckets())),
      load_bytes_(CounterFamily(registry_, "kvstream_load_bytes_total",
                                "Payload bytes sent by loads, by the level of their segment.")),
      load_chunks_(
          CounterFamily(registry_, "kvstream_load_chunks_total",
                        "Chunks of finished loads, by the level that they were delivered at.")),
      recompute_chunks_(CounterFamily(registry_, "kvstream_recompute_chunks_total",
                                      "Chunks of finished loads that the client recomputed.")),
      deadline_hit_(CounterFamily(registry_, "kvstream_deadline_total",
                                  "Finished loads that had a deadline, by whether it was met.")
                        .Add({{"result", "hit"}})),
      deadline_miss_(CounterFamily(registry_, "kvstream_deadline_total",
                                   "Finished loads that had a deadline, by whether it was met.")
                         .Add({{"result", "miss"}})),
      lookup_hit_(CounterFamily(registry_, "kvstream_lookup_tokens_total",
                                "Tokens of looked-up contexts, by whether they are stored.")
                      .Add({{"result", "hit"}})),
      lookup_miss_(CounterFamily(registry_, "kvstream_lookup_tokens_total",
                                 "Tokens of looked-up contexts, by whether they are stored.")
                       .Add({{"result", "miss"}})),
      put_bytes_(CounterFamily(registry_, "kvstream_put_bytes_total", "Payload bytes newly stored.")
                     .Add({})),
      errors_(CounterFamily(registry_, "kvstream_rpc_errors_total",
                            "Calls that ended with another code than OK.")),
      loads_in_flight_(OneGauge(registry_, "kvstream_loads_in_flight", "Loads now.")),
      puts_in_flight_(OneGauge(registry_, "kvstream_puts_in_flight", "Uploads now.")),
      in_flight_bytes_(OneGauge(registry_, "kvstream_load_in_flight_bytes",
                                "Sent and not acknowledged, of all loads.")),
      links_(OneGauge(registry_, "kvstream_links", "Links that have loads now.")),
      put_buffer_bytes_(OneGauge(registry_, "kvstream_put_buffer_bytes",
                                 "Memory reserved by unfinished uploads.")),
      store_chunks_(OneGauge(registry_, "kvstream_store_chunks", "Stored chunks.")),
      store_payload_bytes_(
          OneGauge(registry_, "kvstream_store_payload_bytes", "Payload of the stored chunks.")),
      store_disk_bytes_(
          OneGauge(registry_, "kvstream_store_disk_bytes", "Disk space of the store.")),
      store_pins_(OneGauge(registry_, "kvstream_store_pins", "Pins, of a chunk by an owner.")),
      store_pinned_bytes_(OneGauge(registry_, "kvstream_store_pinned_bytes",
                                   "Payload of the chunks that are pinned.")),
      store_capacity_bytes_(OneGauge(registry_, "kvstream_store_capacity_bytes",
                                     "What the store may hold at most; 0: no bound.")),
      store_writable_(OneGauge(registry_, "kvstream_store_writable", "1: the store takes writes.")),
      store_restart_needed_(OneGauge(registry_, "kvstream_store_restart_needed",
                                     "1: it takes none until the daemon is restarted.")),
      store_damaged_files_(OneGauge(registry_, "kvstream_store_damaged_files",
                                    "Files that background work leaves as they are.")),
      evicted_segments_(CounterFamily(registry_, "kvstream_store_evicted_segments_total",
                                      "Segments that made room for others.")
                            .Add({})),
      evicted_bytes_(CounterFamily(registry_, "kvstream_store_evicted_bytes_total",
                                   "Bytes of the segments that made room for others.")
                         .Add({})),
      evicted_chunks_(CounterFamily(registry_, "kvstream_store_evicted_chunks_total",
                                    "Chunks of which eviction has left nothing.")
                          .Add({})),
      expired_chunks_(CounterFamily(registry_, "kvstream_store_expired_chunks_total",
                                    "Chunks that have expired.")
                          .Add({})),
      tenant_chunks_(
          GaugeFamily(registry_, "kvstream_tenant_chunks", "Stored chunks of a tenant.")),
      tenant_bytes_(GaugeFamily(registry_, "kvstream_tenant_bytes",
                                "Payload and profiles of a tenant, which its quota bounds.")),
      tenant_quota_bytes_(
          GaugeFamily(registry_, "kvstream_tenant_quota_bytes", "Quota of a tenant that has one.")),
      tenant_loads_(GaugeFamily(registry_, "kvstream_tenant_loads_in_flight",
                                "Loads of a tenant in flight.")),
      tenant_puts_(GaugeFamily(registry_, "kvstream_tenant_puts_in_flight",
                               "Uploads of a tenant in flight.")),
      tenant_put_buffer_bytes_(GaugeFamily(registry_, "kvstream_tenant_put_buffer_bytes",
                                           "Reserved by unfinished uploads of a tenant.")),
      tenant_refusals_(CounterFamily(registry_, "kvstream_tenant_quota_refusals_total",
                                     "Puts of a tenant that did not fit its quota.")) {
  BuildGauge()
      .Name("kvstream_build_info")
      .Help("1; the labels say what runs.")
      .Register(registry_)
      .Add({{"version", std::string(version)}, {"store", std::string(store_driver)}})
      .Set(1);
  Family<Histogram>& operations =
      HistogramFamily(registry_, "kvstream_store_operation_seconds", "Time of the store's calls.");
  for (const char* label : kStoreOperationLabels) {
    store_operations_.push_back(&operations.Add({{"operation", label}}, StoreBuckets()));
  }
  Family<Counter>& refusals = CounterFamily(registry_, "kvstream_load_refusals_total",
                                            "Loads refused for want of room, by the limit.");
  for (const LoadRefusal reason :
       {LoadRefusal::kLoads, LoadRefusal::kLoadsPerPeer, LoadRefusal::kLoadsPerTenant,
        LoadRefusal::kInFlightBytes, LoadRefusal::kChunks}) {
    refusals_.push_back(&refusals.Add({{"reason", std::string(LoadRefusalLabel(reason))}}));
  }
  Family<Counter>& reloads = CounterFamily(registry_, "kvstream_reloads_total",
                                           "Files of tenants and TLS read again, by how it went.");
  for (const char* result : {"failed", "ok"}) {
    reloads_.push_back(&reloads.Add({{"result", result}}));
  }
  for (const RecomputeReason reason :
       {RecomputeReason::kFaster, RecomputeReason::kDataLoss, RecomputeReason::kPolicy}) {
    recompute_chunks_.Add({{"reason", std::string(RecomputeReasonLabel(reason))}});
  }
}

void Metrics::ObserveLoad(const LoadRecord& record) {
  const std::string policy =
      record.policy.has_value() ? std::string(LoadPolicyLabel(*record.policy)) : "none";
  load_delay_
      .Add({{"policy", policy}, {"outcome", std::string(LoadOutcomeLabel(record.outcome))}},
           DelayBuckets())
      .Observe(absl::ToDoubleSeconds(record.delay));
  stages_.Observe(record.stages, policy);
  for (size_t level = 0; level < record.bytes_by_level.size(); ++level) {
    if (record.bytes_by_level[level] == 0) continue;
    load_bytes_.Add({{"level", LevelLabel(level)}})
        .Increment(static_cast<double>(record.bytes_by_level[level]));
  }
  const double estimate = record.bandwidth_estimate_bytes_per_second;
  if (estimate > 0) estimate_.Observe(estimate);
  if (record.goodput_bytes_per_second > 0) {
    goodput_.Observe(record.goodput_bytes_per_second);
    if (estimate > 0) {
      estimator_error_.Observe(std::abs(estimate - record.goodput_bytes_per_second) /
                               record.goodput_bytes_per_second);
    }
  }
  if (record.estimate_log_error > 0) estimator_log_error_.Observe(record.estimate_log_error);
  if (record.deadline_missed.has_value()) {
    (*record.deadline_missed ? deadline_miss_ : deadline_hit_).Increment();
  }
  std::vector<uint64_t> by_level;
  uint64_t recomputed = 0;
  for (const ChunkDecision& decision : record.chunks) {
    if (!decision.level.has_value()) {
      ++recomputed;
      recompute_chunks_.Add({{"reason", std::string(RecomputeReasonLabel(decision.reason))}})
          .Increment();
      continue;
    }
    const size_t level = static_cast<size_t>(*decision.level);
    if (by_level.size() <= level) by_level.resize(level + 1);
    ++by_level[level];
  }
  for (size_t level = 0; level < by_level.size(); ++level) {
    if (by_level[level] == 0) continue;
    load_chunks_.Add({{"level", LevelLabel(level)}})
        .Increment(static_cast<double>(by_level[level]));
  }
  absl::MutexLock lock(&mutex_);
  ++(record.outcome == LoadOutcome::kOk ? totals_.finished : totals_.failed);
  totals_.bytes_sent += record.bytes();
  totals_.chunks_recomputed += recomputed;
  if (totals_.chunks_by_level.size() < by_level.size()) {
    totals_.chunks_by_level.resize(by_level.size());
  }
  for (size_t level = 0; level < by_level.size(); ++level) {
    totals_.chunks_by_level[level] += by_level[level];
  }
}

void Metrics::ObserveLoadStart(size_t loads_on_link, absl::Duration slack) {
  link_loads_.Observe(static_cast<double>(loads_on_link));
  if (slack < absl::InfiniteDuration()) start_slack_.Observe(absl::ToDoubleSeconds(slack));
}

void Metrics::CountReload(bool ok) { reloads_[ok ? 1 : 0]->Increment(); }

void Metrics::CountRefusal(LoadRefusal reason) {
  refusals_[static_cast<size_t>(reason)]->Increment();
}

void Metrics::ObserveLookup(uint64_t hit_tokens, uint64_t miss_tokens) {
  lookup_hit_.Increment(static_cast<double>(hit_tokens));
  lookup_miss_.Increment(static_cast<double>(miss_tokens));
}

void Metrics::ObserveStore(StoreOperation operation, absl::Duration time) {
  store_operations_[static_cast<size_t>(operation)]->Observe(absl::ToDoubleSeconds(time));
}

void Metrics::CountPutBytes(uint64_t bytes) { put_bytes_.Increment(static_cast<double>(bytes)); }

void Metrics::CountExpired(uint64_t chunks) {
  expired_chunks_.Increment(static_cast<double>(chunks));
}

void Metrics::CountError(absl::string_view method, absl::StatusCode code) {
  if (code == absl::StatusCode::kOk) return;
  errors_.Add({{"method", std::string(method)}, {"code", StatusCodeLabel(code)}}).Increment();
}

void Metrics::SetGauges(const GaugeValues& values) {
  loads_in_flight_.Set(values.loads_in_flight);
  puts_in_flight_.Set(values.puts_in_flight);
  in_flight_bytes_.Set(static_cast<double>(values.in_flight_bytes));
  links_.Set(static_cast<double>(values.links));
  put_buffer_bytes_.Set(static_cast<double>(values.put_buffer_bytes));
  store_chunks_.Set(static_cast<double>(values.store_chunks));
  store_payload_bytes_.Set(static_cast<double>(values.store_payload_bytes));
  store_disk_bytes_.Set(static_cast<double>(values.store_disk_bytes));
  store_pins_.Set(static_cast<double>(values.store_pins));
  store_writable_.Set(values.store_writable ? 1 : 0);
  store_restart_needed_.Set(values.store_restart_needed ? 1 : 0);
  store_damaged_files_.Set(static_cast<double>(values.store_damaged_files));
  store_pinned_bytes_.Set(static_cast<double>(values.store_pinned_bytes));
  store_capacity_bytes_.Set(static_cast<double>(values.store_capacity_bytes));
  absl::MutexLock lock(&mutex_);  // scrapes at the same time must not count anything twice
  RaiseTo(values.evicted_segments, &evicted_segments_);
  RaiseTo(values.evicted_bytes, &evicted_bytes_);
  RaiseTo(values.evicted_chunks, &evicted_chunks_);
  for (const TenantFigure& tenant : values.tenants) {
    const std::map<std::string, std::string> label = {{"tenant", tenant.name}};
    tenant_chunks_.Add(label).Set(static_cast<double>(tenant.chunks));
    tenant_bytes_.Add(label).Set(static_cast<double>(tenant.used_bytes));
    tenant_loads_.Add(label).Set(tenant.loads_in_flight);
    tenant_puts_.Add(label).Set(static_cast<double>(tenant.puts_in_flight));
    tenant_put_buffer_bytes_.Add(label).Set(static_cast<double>(tenant.put_buffer_bytes));
    Gauge& quota = tenant_quota_bytes_.Add(label);
    if (tenant.quota_bytes > 0) {
      quota.Set(static_cast<double>(tenant.quota_bytes));
    } else {
      tenant_quota_bytes_.Remove(&quota);
    }
    RaiseTo(tenant.refused_puts, &tenant_refusals_.Add(label));
  }
}

LoadTotals Metrics::load_totals() const {
  absl::MutexLock lock(&mutex_);
  return totals_;
}

std::string Metrics::Text() const {
  return prometheus::TextSerializer().Serialize(registry_.Collect());
}

}  // namespace kvstream

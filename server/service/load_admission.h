// Which loads may begin, and when a refused client should come again.
#ifndef KVSTREAM_SERVER_SERVICE_LOAD_ADMISSION_H_
#define KVSTREAM_SERVER_SERVICE_LOAD_ADMISSION_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <string>
#include <unordered_map>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

namespace kvstream {

// Why a load was refused for want of room: the label `reason` of kvstream_load_refusals_total.
enum class LoadRefusal { kLoads, kLoadsPerPeer, kLoadsPerTenant, kInFlightBytes, kChunks };
absl::string_view LoadRefusalLabel(LoadRefusal reason);

// The loads of one tenant, of which there may be so many. Thread-safe.
class TenantLoads {
 public:
  // 0: no limit. Loads that are above a new limit go on.
  void SetLimit(int limit) { limit_.store(limit, std::memory_order_relaxed); }
  int limit() const { return limit_.load(std::memory_order_relaxed); }
  int in_flight() const { return in_flight_.load(std::memory_order_relaxed); }
  // Whether there was room for one more.
  bool Enter();
  void Leave() { in_flight_.fetch_sub(1, std::memory_order_relaxed); }

 private:
  std::atomic<int> limit_{0};
  std::atomic<int> in_flight_{0};
};

// Limits on loads beyond the server's number of them (CallTracker) and their chunks (Budget).
// Thread-safe; must outlive its places. Memory: one entry per host that has a load.
class LoadAdmission {
 public:
  // A host's load, and its tenant's; given back on destruction. Move only.
  class Place {
   public:
    Place() = default;
    ~Place() { Release(); }
    Place(Place&& other) noexcept { *this = std::move(other); }
    Place& operator=(Place&& other) noexcept;
    void Release();

   private:
    friend class LoadAdmission;
    Place(LoadAdmission* admission, std::string host, TenantLoads* tenant)
        : admission_(admission), host_(std::move(host)), tenant_(tenant) {}

    LoadAdmission* admission_ = nullptr;
    std::string host_;
    TenantLoads* tenant_ = nullptr;
  };

  // per_peer: loads of one host, 0: no limit. in_flight_bytes_max: see in_flight_bytes, which tells
  // what all loads have in flight.
  LoadAdmission(int per_peer, uint64_t in_flight_bytes_max,
                std::function<uint64_t()> in_flight_bytes);
  LoadAdmission(const LoadAdmission&) = delete;
  LoadAdmission& operator=(const LoadAdmission&) = delete;

  // `host` is HostOfPeer's; `tenant` (null: there are none) outlives the place. RESOURCE_EXHAUSTED
  // naming the option; then `reason` is set.
  absl::StatusOr<Place> Enter(absl::string_view host, TenantLoads* tenant, LoadRefusal* reason);

  // A load has ended that took so long.
  void OnEnd(absl::Duration took);

  // What to tell a load that is refused now, with so many in flight. Places become free once in
  // mean duration / loads, and whoever was refused within a mean duration wants one of them:
  //     (1 + refused) * mean / loads,
  // from 50 ms to 5 s. Counts as a refusal.
  absl::Duration RetryAfter(int loads_in_flight, absl::Duration now);

 private:
  void Leave(const std::string& host);

  const int per_peer_;
  const uint64_t in_flight_bytes_max_;
  const std::function<uint64_t()> in_flight_bytes_;
  absl::Mutex mutex_;
  std::unordered_map<std::string, int> loads_ ABSL_GUARDED_BY(mutex_);
  absl::Duration mean_ ABSL_GUARDED_BY(mutex_) = absl::Seconds(1);
  double refused_ ABSL_GUARDED_BY(mutex_) = 0;  // fading with mean_
  absl::Duration refused_at_ ABSL_GUARDED_BY(mutex_);
};

// "ipv4:192.0.2.7:1234" is of host "ipv4:192.0.2.7"; the same for IPv6, and what is neither, such
// as a Unix socket, is its own host.
std::string HostOfPeer(absl::string_view peer);

}  // namespace kvstream

#endif  // KVSTREAM_SERVER_SERVICE_LOAD_ADMISSION_H_

// What each tenant has, over all daemons, as one of them knows it.
#ifndef KVSTREAM_STORAGE_RADOS_RADOS_TENANTS_H_
#define KVSTREAM_STORAGE_RADOS_RADOS_TENANTS_H_

#include <cstdint>
#include <functional>
#include <map>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "storage/chunk_store.h"

namespace kvstream {

// What a write adds; negative numbers are two's complement.
using TenantChange = TenantUse;

// Thread-safe; never blocks for the pool. What this process changes is counted at once, what others
// change with the next refresh. A change that is made while counters are read may be in them or
// not: what was added then counts twice until they are read again, what was removed still counts.
// So a use is never too small by what this process did.
class RadosTenants {
 public:
  // To be taken before a change is written.
  uint64_t Ticket() const;
  void Apply(const std::map<std::string, TenantChange>& changes, uint64_t ticket);

  // Before counters are read, and with what was read, or nothing if that failed. One at a time.
  void BeginRefresh();
  void EndRefresh(const std::map<std::string, TenantUse>* read);

  // Nothing if the tenant is not known.
  TenantUse Use(absl::string_view tenant) const;

 private:
  mutable absl::Mutex mutex_;
  std::map<std::string, TenantUse, std::less<>> uses_ ABSL_GUARDED_BY(mutex_);
  bool refreshing_ ABSL_GUARDED_BY(mutex_) = false;
  uint64_t epoch_ ABSL_GUARDED_BY(mutex_) = 0;  // refreshes that have begun, and that have ended
  std::map<std::string, TenantUse> added_ ABSL_GUARDED_BY(mutex_);  // since BeginRefresh
};

}  // namespace kvstream

#endif  // KVSTREAM_STORAGE_RADOS_RADOS_TENANTS_H_

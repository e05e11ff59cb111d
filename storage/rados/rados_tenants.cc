#include "storage/rados/rados_tenants.h"

namespace kvstream {
namespace {

constexpr uint64_t TenantUse::*kFields[] = {&TenantUse::chunks, &TenantUse::payload_bytes,
                                            &TenantUse::pins, &TenantUse::pinned_bytes};

}  // namespace

uint64_t RadosTenants::Ticket() const {
  absl::MutexLock lock(&mutex_);
  return epoch_;
}

void RadosTenants::Apply(const std::map<std::string, TenantChange>& changes, uint64_t ticket) {
  if (changes.empty()) return;
  absl::MutexLock lock(&mutex_);
  for (const auto& [tenant, change] : changes) {
    TenantUse& use = uses_[tenant];
    for (uint64_t TenantUse::*field : kFields) {
      const uint64_t added = change.*field;
      const bool less = static_cast<int64_t>(added) < 0;
      if (less && ticket != epoch_) continue;
      use.*field += added;
      // A change of something that another daemon put and that was not counted yet.
      if (static_cast<int64_t>(use.*field) < 0) use.*field = 0;
      if (!less && refreshing_) added_[tenant].*field += added;
    }
  }
}

void RadosTenants::BeginRefresh() {
  absl::MutexLock lock(&mutex_);
  ++epoch_;
  refreshing_ = true;
  added_.clear();
}

void RadosTenants::EndRefresh(const std::map<std::string, TenantUse>* read) {
  absl::MutexLock lock(&mutex_);
  ++epoch_;
  refreshing_ = false;
  if (read == nullptr) return;
  uses_.clear();
  uses_.insert(read->begin(), read->end());
  for (const auto& [tenant, use] : added_) {
    for (uint64_t TenantUse::*field : kFields) uses_[tenant].*field += use.*field;
  }
}

TenantUse RadosTenants::Use(absl::string_view tenant) const {
  absl::MutexLock lock(&mutex_);
  const auto found = uses_.find(tenant);
  return found == uses_.end() ? TenantUse() : found->second;
}

}  // namespace kvstream

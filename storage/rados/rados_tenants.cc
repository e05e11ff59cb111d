#include "storage/rados/rados_tenants.h"

namespace kvstream {

uint64_t RadosTenants::Ticket() const {
  absl::MutexLock lock(&mutex_);
  return epoch_;
}

void RadosTenants::Apply(const std::map<std::string, TenantChange>& changes, uint64_t ticket) {
  if (changes.empty()) return;
  absl::MutexLock lock(&mutex_);
  for (const auto& [tenant, change] : changes) {
    const bool less =
        static_cast<int64_t>(change.payload_bytes) < 0 || static_cast<int64_t>(change.chunks) < 0;
    if (less && ticket != epoch_) continue;
    TenantUse& use = uses_[tenant];
    use.chunks += change.chunks;
    use.payload_bytes += change.payload_bytes;
    // A change of something that another daemon put and that was not counted yet.
    if (static_cast<int64_t>(use.chunks) < 0) use.chunks = 0;
    if (static_cast<int64_t>(use.payload_bytes) < 0) use.payload_bytes = 0;
    if (less || !refreshing_) continue;
    added_[tenant].chunks += change.chunks;
    added_[tenant].payload_bytes += change.payload_bytes;
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
    uses_[tenant].chunks += use.chunks;
    uses_[tenant].payload_bytes += use.payload_bytes;
  }
}

TenantUse RadosTenants::Use(absl::string_view tenant) const {
  absl::MutexLock lock(&mutex_);
  const auto found = uses_.find(tenant);
  return found == uses_.end() ? TenantUse() : found->second;
}

}  // namespace kvstream

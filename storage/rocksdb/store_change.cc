#include "storage/rocksdb/store_change.h"

namespace kvstream {
namespace {

using rocksdb_format::Counters;

void AddTo(Counters* sum, const Counters& change) {
  sum->chunks += change.chunks;
  sum->payload_bytes += change.payload_bytes;
}

}  // namespace

void StoreChange::Add(const ChunkInfo& info, uint64_t chunks, uint64_t payload_bytes) {
  const Counters change{chunks, payload_bytes};
  AddTo(&total_, change);
  if (!info.tenant.empty()) AddTo(&tenants_[info.tenant], change);
}

rocksdb::Status StoreChange::MergeInto(rocksdb::WriteBatch* batch,
                                       rocksdb::ColumnFamilyHandle* meta) const {
  rocksdb::Status status;
  const auto merge = [&](const std::string& key, const Counters& change) {
    if (!status.ok() || (change.chunks == 0 && change.payload_bytes == 0)) return;
    status = batch->Merge(meta, key, rocksdb_format::EncodeCounters(change));
  };
  merge(rocksdb_format::kCountersKey, total_);
  for (const auto& [tenant, change] : tenants_) {
    merge(rocksdb_format::TenantCountersKey(tenant), change);
  }
  return status;
}

void StoreCounters::SetTotal(const Counters& total) {
  absl::MutexLock lock(&mutex_);
  total_ = total;
}

void StoreCounters::SetTenant(absl::string_view tenant, const Counters& counters) {
  absl::MutexLock lock(&mutex_);
  if (counters.chunks != 0) tenants_[tenant] = counters;
}

void StoreCounters::Apply(const StoreChange& change) {
  absl::MutexLock lock(&mutex_);
  AddTo(&total_, change.total());
  for (const auto& [tenant, of_tenant] : change.tenants()) {
    Counters& counters = tenants_[tenant];
    AddTo(&counters, of_tenant);
    if (counters.chunks == 0 && counters.payload_bytes == 0) tenants_.erase(tenant);
  }
}

Counters StoreCounters::total() const {
  absl::MutexLock lock(&mutex_);
  return total_;
}

TenantUse StoreCounters::tenant(absl::string_view tenant) const {
  absl::MutexLock lock(&mutex_);
  const auto found = tenants_.find(tenant);
  if (found == tenants_.end()) return TenantUse();
  return TenantUse{found->second.chunks, found->second.payload_bytes};
}

uint64_t StoreCounters::tenant_chunks() const {
  absl::MutexLock lock(&mutex_);
  uint64_t chunks = 0;
  for (const auto& [tenant, counters] : tenants_) chunks += counters.chunks;
  return chunks;
}

}  // namespace kvstream

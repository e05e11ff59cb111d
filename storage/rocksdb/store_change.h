// What a write batch adds to the store's counters: in all, and for each tenant.
#ifndef KVSTREAM_STORAGE_ROCKSDB_STORE_CHANGE_H_
#define KVSTREAM_STORAGE_ROCKSDB_STORE_CHANGE_H_

#include <rocksdb/write_batch.h>

#include <cstdint>
#include <map>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "storage/chunk_store.h"
#include "storage/rocksdb/chunk_record_format.h"

namespace kvstream {

// A value. Negative numbers are two's complement, as stored.
class StoreChange {
 public:
  // `chunks` chunks and `payload_bytes` more of the tenant that `info` names.
  void Add(const ChunkInfo& info, uint64_t chunks, uint64_t payload_bytes);

  bool empty() const { return total_.chunks == 0 && total_.payload_bytes == 0; }
  const rocksdb_format::Counters& total() const { return total_; }
  const std::map<std::string, rocksdb_format::Counters>& tenants() const { return tenants_; }

  // Puts the change into a batch, to be added to what the family `meta` holds.
  rocksdb::Status MergeInto(rocksdb::WriteBatch* batch, rocksdb::ColumnFamilyHandle* meta) const;

 private:
  rocksdb_format::Counters total_;
  std::map<std::string, rocksdb_format::Counters> tenants_;
};

// The counters in memory, as the written batches have made them. Thread-safe.
class StoreCounters {
 public:
  // While the store is opened: what is stored.
  void SetTotal(const rocksdb_format::Counters& total);
  void SetTenant(absl::string_view tenant, const rocksdb_format::Counters& counters);

  void Apply(const StoreChange& change);

  rocksdb_format::Counters total() const;
  TenantUse tenant(absl::string_view tenant) const;
  // Chunks that have a tenant.
  uint64_t tenant_chunks() const;

 private:
  mutable absl::Mutex mutex_;
  rocksdb_format::Counters total_ ABSL_GUARDED_BY(mutex_);
  absl::flat_hash_map<std::string, rocksdb_format::Counters> tenants_
      ABSL_GUARDED_BY(mutex_);  // that have chunks
};

}  // namespace kvstream

#endif  // KVSTREAM_STORAGE_ROCKSDB_STORE_CHANGE_H_

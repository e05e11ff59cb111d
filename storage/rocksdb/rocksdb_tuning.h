// RocksDB's own options for this workload, and why; docs/storage.md has the measurements.
#ifndef KVSTREAM_STORAGE_ROCKSDB_ROCKSDB_TUNING_H_
#define KVSTREAM_STORAGE_ROCKSDB_ROCKSDB_TUNING_H_

#include <rocksdb/cache.h>
#include <rocksdb/db.h>
#include <rocksdb/options.h>

#include <memory>
#include <vector>

#include "storage/rocksdb/rocksdb_options.h"

namespace kvstream {

// The block cache that all families share. Its capacity is a target: pinned blocks may exceed it.
std::shared_ptr<rocksdb::Cache> NewBlockCache(const RocksDbChunkStoreOptions& options);

rocksdb::DBOptions TunedDbOptions(const RocksDbChunkStoreOptions& options);

// `default` and the families of chunk_record_format.h and lifetime_format.h, in the order of the
// Family enumerators.
enum Family : int {
  kDefault,
  kChunks,
  kSegments,
  kProfiles,
  kMeta,
  kUsage,
  kTenants,
  kExpiry,
  kPins,
  kDoomed,
  kChildren,
  kFamilies
};
std::vector<rocksdb::ColumnFamilyDescriptor> TunedFamilies(
    const RocksDbChunkStoreOptions& options, const std::shared_ptr<rocksdb::Cache>& cache);

}  // namespace kvstream

#endif  // KVSTREAM_STORAGE_ROCKSDB_ROCKSDB_TUNING_H_

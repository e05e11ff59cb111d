// The directory of a tier.
#ifndef KVSTREAM_STORAGE_TIERED_OPEN_TIER_H_
#define KVSTREAM_STORAGE_TIERED_OPEN_TIER_H_

#include <rocksdb/env.h>

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "storage/chunk_store.h"

namespace kvstream {

struct TierOptions {
  // The tier is its subdirectory "tier", so that a directory with another store is never taken for
  // one. Made if only it is missing.
  std::string data_dir;
  uint64_t capacity_bytes = 0;  // at least 64 MiB
  uint64_t block_cache_bytes = uint64_t{256} << 20;
  uint64_t info_cache_bytes = uint64_t{64} << 20;
  // For tests: the file system, borrowed for the store's life (null: the machine's).
  rocksdb::Env* env = nullptr;
};

// Opens the RocksDB store there, without syncs. One that is damaged is removed and begun anew:
// nothing is lost but time. Other errors (a directory that cannot be written, that another process
// uses or a newer program wrote) are the driver's.
absl::StatusOr<std::unique_ptr<ChunkStore>> OpenTier(const TierOptions& options);

// Of an error of OpenTier: whether the disk is at fault (full, read-only, failing), so that one
// serves without a tier rather than not at all; else the operator is to be asked.
bool DiskIsAtFault(const absl::Status& error);

}  // namespace kvstream

#endif  // KVSTREAM_STORAGE_TIERED_OPEN_TIER_H_

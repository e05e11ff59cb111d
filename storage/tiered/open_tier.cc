#include "storage/tiered/open_tier.h"

#include <filesystem>
#include <system_error>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "storage/rocksdb/rocksdb_chunk_store.h"
#include "storage/rocksdb/rocksdb_options.h"

namespace kvstream {

absl::StatusOr<std::unique_ptr<ChunkStore>> OpenTier(const TierOptions& options) {
  RocksDbChunkStoreOptions rocksdb;
  rocksdb.data_dir = absl::StrCat(options.data_dir, "/tier");
  rocksdb.capacity_bytes = options.capacity_bytes;
  rocksdb.block_cache_bytes = options.block_cache_bytes;
  rocksdb.info_cache_bytes = options.info_cache_bytes;
  rocksdb.env = options.env;
  rocksdb.sync_writes = false;
  rocksdb.drop_damaged_log = true;
  // A fill that would have to wait is better not made.
  rocksdb.room_timeout = absl::Milliseconds(100);
  std::error_code error;
  std::filesystem::create_directory(options.data_dir, error);  // the driver says if it is missing
  absl::StatusOr<std::unique_ptr<ChunkStore>> store = RocksDbChunkStore::Create(rocksdb);
  if (!absl::IsDataLoss(store.status())) return store;
  std::filesystem::remove_all(rocksdb.data_dir, error);
  if (error) {
    return absl::UnavailableError(absl::StrCat("the damaged tier ", rocksdb.data_dir,
                                               " cannot be removed: ", error.message()));
  }
  return RocksDbChunkStore::Create(rocksdb);
}

bool DiskIsAtFault(const absl::Status& error) {
  return absl::IsUnavailable(error) || absl::IsResourceExhausted(error) || absl::IsDataLoss(error);
}

}  // namespace kvstream

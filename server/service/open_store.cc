#include "server/service/open_store.h"

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "storage/memory/memory_chunk_store.h"
#include "storage/rocksdb/restore.h"
#include "storage/rocksdb/rocksdb_chunk_store.h"
#include "storage/rocksdb/rocksdb_options.h"

namespace kvstream {
namespace {

absl::StatusOr<std::unique_ptr<ChunkStore>> OpenRocksDb(const ServerOptions& options) {
  RocksDbChunkStoreOptions rocksdb;
  rocksdb.data_dir = options.data_dir;
  rocksdb.block_cache_bytes = options.block_cache_bytes;
  rocksdb.info_cache_bytes = options.info_cache_bytes;
  rocksdb.capacity_bytes = options.capacity_bytes;
  rocksdb.sync_writes = options.sync_writes;
  rocksdb.drop_damaged_log = options.drop_damaged_log;
  return RocksDbChunkStore::Create(rocksdb);
}

}  // namespace

absl::StatusOr<std::unique_ptr<ChunkStore>> OpenStore(const ServerOptions& options) {
  if (options.store == StoreKind::kMemory) {
    MemoryChunkStoreOptions memory;
    memory.max_bytes = options.memory_store_bytes;
    return MemoryChunkStore::Create(memory);
  }
  absl::StatusOr<std::unique_ptr<ChunkStore>> store = OpenRocksDb(options);
  if (store.ok()) return store;
  return absl::Status(
      store.status().code(),
      absl::StrCat("cannot open --data-dir ", options.data_dir, ": ", store.status().message()));
}

absl::StatusOr<std::string> RestoreFromBackup(const ServerOptions& options) {
  const absl::StatusOr<RestoredStore> restored =
      RestoreStore(options.restore_from, options.data_dir);
  if (!restored.ok()) {
    return absl::Status(restored.status().code(),
                        absl::StrCat("cannot restore: ", restored.status().message()));
  }
  return absl::StrCat("restored ", restored->chunks, " chunks, ", restored->payload_bytes,
                      " bytes of payload, from ", options.restore_from, " to ", options.data_dir,
                      "\n");
}

}  // namespace kvstream

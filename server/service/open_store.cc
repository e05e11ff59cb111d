#include "server/service/open_store.h"

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "storage/memory/memory_chunk_store.h"
#include "storage/rados/rados_chunk_store.h"
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

absl::StatusOr<std::unique_ptr<ChunkStore>> OpenRados(const ServerOptions& options) {
  RadosChunkStoreOptions rados;
  rados.pool.conf_file = options.rados_conf;
  rados.pool.user = options.rados_user;
  rados.pool.pool = options.rados_pool;
  rados.pool.name_space = options.rados_namespace;
  rados.pool.op_timeout = options.rados_timeout;
  rados.pool.connect_timeout = options.rados_timeout;
  rados.info_cache_bytes = options.info_cache_bytes;
  rados.info_max_age = options.rados_staleness;
  absl::StatusOr<std::unique_ptr<RadosChunkStore>> store = RadosChunkStore::Create(rados);
  if (!store.ok()) return store.status();
  return std::unique_ptr<ChunkStore>(*std::move(store));
}

}  // namespace

absl::StatusOr<std::unique_ptr<ChunkStore>> OpenStore(const ServerOptions& options) {
  if (options.store == StoreKind::kMemory) {
    MemoryChunkStoreOptions memory;
    memory.max_bytes = options.memory_store_bytes;
    return MemoryChunkStore::Create(memory);
  }
  if (options.store == StoreKind::kRados) {
    absl::StatusOr<std::unique_ptr<ChunkStore>> store = OpenRados(options);
    if (store.ok()) return store;
    return absl::Status(store.status().code(),
                        absl::StrCat("cannot open --rados-pool ", options.rados_pool, ": ",
                                     store.status().message()));
  }
  absl::StatusOr<std::unique_ptr<ChunkStore>> store = OpenRocksDb(options);
  if (store.ok()) return store;
  return absl::Status(
      store.status().code(),
      absl::StrCat("cannot open --data-dir ", options.data_dir, ": ", store.status().message()));
}

}  // namespace kvstream

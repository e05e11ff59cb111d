#include "server/service/open_store.h"

#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "storage/memory/memory_chunk_store.h"
#include "storage/rados/rados_chunk_store.h"
#include "storage/rocksdb/restore.h"
#include "storage/rocksdb/rocksdb_chunk_store.h"
#include "storage/rocksdb/rocksdb_options.h"
#include "storage/rocksdb/salvage.h"
#include "storage/tiered/open_tier.h"
#include "storage/tiered/tiered_chunk_store.h"

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

absl::StatusOr<std::unique_ptr<RadosChunkStore>> OpenRados(const ServerOptions& options) {
  RadosChunkStoreOptions rados;
  rados.pool.conf_file = options.rados_conf;
  rados.pool.user = options.rados_user;
  rados.pool.pool = options.rados_pool;
  rados.pool.name_space = options.rados_namespace;
  rados.pool.op_timeout = options.rados_timeout;
  rados.pool.connect_timeout = options.rados_timeout;
  rados.info_cache_bytes = options.info_cache_bytes;
  rados.info_max_age = options.rados_staleness;
  rados.shards = options.rados_shards;
  rados.capacity_bytes = options.rados_capacity_bytes;
  if (options.store == StoreKind::kRados && rados.capacity_bytes == 0) {
    rados.capacity_bytes = options.capacity_bytes;
  }
  absl::StatusOr<std::unique_ptr<RadosChunkStore>> store = RadosChunkStore::Create(rados);
  if (store.ok()) return store;
  return absl::Status(store.status().code(),
                      absl::StrCat("cannot open --rados-pool ", options.rados_pool, ": ",
                                   store.status().message()));
}

absl::StatusOr<std::unique_ptr<ChunkStore>> OpenLocalTier(const ServerOptions& options) {
  TierOptions tier;
  tier.data_dir = options.data_dir;
  tier.capacity_bytes = options.capacity_bytes;
  tier.block_cache_bytes = options.block_cache_bytes;
  tier.info_cache_bytes = options.info_cache_bytes;
  return OpenTier(tier);
}

}  // namespace

absl::StatusOr<std::unique_ptr<ChunkStore>> OpenStore(
    const ServerOptions& options, const std::function<void(const absl::Status&)>& no_tier) {
  if (options.store == StoreKind::kMemory) {
    MemoryChunkStoreOptions memory;
    memory.max_bytes = options.memory_store_bytes;
    if (options.capacity_bytes > 0) {
      memory.max_bytes = options.capacity_bytes;
      memory.evict = true;
    }
    return MemoryChunkStore::Create(memory);
  }
  std::unique_ptr<RadosChunkStore> rados;
  if (options.store == StoreKind::kRados || options.store == StoreKind::kTiered) {
    absl::StatusOr<std::unique_ptr<RadosChunkStore>> opened = OpenRados(options);
    if (!opened.ok()) return opened.status();
    if (options.store == StoreKind::kRados) return std::unique_ptr<ChunkStore>(*std::move(opened));
    rados = *std::move(opened);
  }
  absl::StatusOr<std::unique_ptr<ChunkStore>> local =
      rados == nullptr ? OpenRocksDb(options) : OpenLocalTier(options);
  if (!local.ok()) {
    const absl::Status error(
        local.status().code(),
        absl::StrCat("cannot open --data-dir ", options.data_dir, ": ", local.status().message()));
    if (rados == nullptr || !DiskIsAtFault(error)) return error;
    if (no_tier) no_tier(error);
    return std::unique_ptr<ChunkStore>(std::move(rados));
  }
  if (rados == nullptr) return local;
  absl::StatusOr<std::unique_ptr<TieredChunkStore>> tiered =
      TieredChunkStore::Create(std::move(rados), *std::move(local));
  if (!tiered.ok()) return tiered.status();
  return std::unique_ptr<ChunkStore>(*std::move(tiered));
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

absl::StatusOr<std::string> SalvageFromDamaged(const ServerOptions& options,
                                               const std::function<void(absl::string_view)>& lost) {
  const absl::StatusOr<SalvagedStore> salvaged =
      SalvageStore(options.salvage_from, options.data_dir, lost);
  if (!salvaged.ok()) {
    return absl::Status(salvaged.status().code(),
                        absl::StrCat("cannot salvage: ", salvaged.status().message()));
  }
  return absl::StrCat("salvaged ", salvaged->chunks, " chunks (", salvaged->chunks_cut,
                      " of them at fewer levels), ", salvaged->payload_bytes, " bytes of payload, ",
                      salvaged->profiles, " profiles, ", salvaged->pins, " pins, from ",
                      options.salvage_from, " to ", options.data_dir, "; lost ",
                      salvaged->chunks_lost, " chunks, ", salvaged->profiles_lost, " profiles\n");
}

}  // namespace kvstream

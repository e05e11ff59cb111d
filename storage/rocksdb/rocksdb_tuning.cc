#include "storage/rocksdb/rocksdb_tuning.h"

#include <rocksdb/env.h>
#include <rocksdb/filter_policy.h>
#include <rocksdb/table.h>

#include <algorithm>

#include "storage/rocksdb/chunk_record_format.h"
#include "storage/rocksdb/counter_merge.h"
#include "storage/rocksdb/lifetime_format.h"

namespace kvstream {
namespace {

// Infos and counters are some hundred bytes a chunk, so their families need little memory.
constexpr uint64_t kSmallWriteBufferBytes = uint64_t{8} << 20;

// Infos are read at random, hundreds by one Lookup: few files, whose indexes and filters are in
// memory.
constexpr uint64_t kInfoFileBytes = uint64_t{64} << 20;

rocksdb::BlockBasedTableOptions TunedTable(const std::shared_ptr<rocksdb::Cache>& cache) {
  rocksdb::BlockBasedTableOptions table;
  // RocksDB's default, CRC32C, is computed in software by Debian's portable build and costs four
  // fifths of a read.
  table.checksum = rocksdb::kXXH3;
  table.block_cache = cache;
  // Large segments get a block each whatever this says; smaller ones and infos share one.
  table.block_size = 4096;
  table.filter_policy.reset(rocksdb::NewBloomFilterPolicy(10));
  return table;
}

// Some 3 bytes a chunk, held by the open tables: a read of an info costs one access to the cache,
// that of its block, instead of four.
rocksdb::BlockBasedTableOptions InfoTable(const std::shared_ptr<rocksdb::Cache>& cache) {
  rocksdb::BlockBasedTableOptions table = TunedTable(cache);
  table.cache_index_and_filter_blocks = false;
  table.data_block_index_type = rocksdb::BlockBasedTableOptions::kDataBlockBinaryAndHash;
  return table;
}

rocksdb::BlockBasedTableOptions SegmentTable(const std::shared_ptr<rocksdb::Cache>& cache) {
  rocksdb::BlockBasedTableOptions table = TunedTable(cache);
  // With a block a segment the indexes of a large store do not fit in memory: they and the filters
  // are cut into blocks and compete for the cache, and only their top level stays.
  table.index_type = rocksdb::BlockBasedTableOptions::kTwoLevelIndexSearch;
  table.partition_filters = true;
  table.cache_index_and_filter_blocks = true;
  table.cache_index_and_filter_blocks_with_high_priority = true;
  table.pin_l0_filter_and_index_blocks_in_cache = true;
  table.pin_top_level_index_and_filter = true;
  return table;
}

rocksdb::ColumnFamilyOptions TunedFamily(const rocksdb::BlockBasedTableOptions& table,
                                         uint64_t write_buffer_bytes) {
  rocksdb::ColumnFamilyOptions family;
  family.table_factory.reset(rocksdb::NewBlockBasedTableFactory(table));
  // Segments are entropy coded already, infos are small.
  family.compression = rocksdb::kNoCompression;
  family.bottommost_compression = rocksdb::kNoCompression;
  family.write_buffer_size = write_buffer_bytes;
  family.max_write_buffer_number = 4;
  // Few, large files and levels: ids are hashes, so every compaction rewrites what it overlaps.
  family.target_file_size_base = std::max<uint64_t>(write_buffer_bytes, uint64_t{8} << 20);
  family.max_bytes_for_level_base = 8 * family.target_file_size_base;
  family.level_compaction_dynamic_level_bytes = true;
  return family;
}

}  // namespace

std::shared_ptr<rocksdb::Cache> NewBlockCache(const RocksDbChunkStoreOptions& options) {
  rocksdb::LRUCacheOptions cache;
  cache.capacity = options.block_cache_bytes;
  // A block larger than its shard is not kept, and segments can be many MiB: few, large shards.
  cache.num_shard_bits = options.block_cache_bytes >= (uint64_t{256} << 20) ? 3 : 1;
  cache.strict_capacity_limit = false;
  return rocksdb::NewLRUCache(cache);
}

rocksdb::DBOptions TunedDbOptions(const RocksDbChunkStoreOptions& options) {
  rocksdb::DBOptions db;
  if (options.env != nullptr) db.env = options.env;
  db.create_if_missing = true;
  // A crash while the store was created may have left only some of them.
  db.create_missing_column_families = true;
  db.max_open_files = options.max_open_files;
  db.max_total_wal_size = options.max_log_bytes;
  db.max_background_jobs = options.background_jobs;
  db.paranoid_checks = true;
  // Opens whatever a crash left. What it drops was never acknowledged: OpenDb has made sure of that
  // (log_check.h).
  db.wal_recovery_mode = rocksdb::WALRecoveryMode::kPointInTimeRecovery;
  // After an open no log of before is needed, see OpenDb.
  db.avoid_flush_during_recovery = false;
  // Its files are written when the options say so, not whenever the kernel likes, so that a flush
  // does not stall reads.
  db.bytes_per_sync = uint64_t{1} << 20;
  db.keep_log_file_num = 4;
  db.max_log_file_size = size_t{16} << 20;
  return db;
}

std::vector<rocksdb::ColumnFamilyDescriptor> TunedFamilies(
    const RocksDbChunkStoreOptions& options, const std::shared_ptr<rocksdb::Cache>& cache) {
  const uint64_t small_bytes = std::min(kSmallWriteBufferBytes, options.write_buffer_bytes);
  const rocksdb::ColumnFamilyOptions small = TunedFamily(SegmentTable(cache), small_bytes);
  rocksdb::ColumnFamilyOptions infos = TunedFamily(InfoTable(cache), small_bytes);
  infos.target_file_size_base = kInfoFileBytes;
  rocksdb::ColumnFamilyOptions meta = small;
  meta.merge_operator = NewCounterMergeOperator();

  std::vector<rocksdb::ColumnFamilyDescriptor> families(kFamilies);
  families[kDefault] = {rocksdb::kDefaultColumnFamilyName, small};
  families[kChunks] = {rocksdb_format::kChunksFamily, infos};
  families[kSegments] = {rocksdb_format::kSegmentsFamily,
                         TunedFamily(SegmentTable(cache), options.write_buffer_bytes)};
  families[kProfiles] = {rocksdb_format::kProfilesFamily, small};
  families[kMeta] = {rocksdb_format::kMetaFamily, meta};
  families[kUsage] = {rocksdb_format::kUsageFamily, small};
  families[kExpiry] = {rocksdb_format::kExpiryFamily, small};
  families[kPins] = {rocksdb_format::kPinsFamily, small};
  families[kDoomed] = {rocksdb_format::kDoomedFamily, small};
  families[kChildren] = {rocksdb_format::kChildrenFamily, small};
  families[kTenants] = {rocksdb_format::kTenantsFamily, small};
  return families;
}

}  // namespace kvstream

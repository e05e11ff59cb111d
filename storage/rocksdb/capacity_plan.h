// How a capacity is shared out, so that the directory never exceeds it whatever RocksDB does.
#ifndef KVSTREAM_STORAGE_ROCKSDB_CAPACITY_PLAN_H_
#define KVSTREAM_STORAGE_ROCKSDB_CAPACITY_PLAN_H_

#include <rocksdb/db.h>
#include <rocksdb/options.h>

#include <cstdint>
#include <vector>

#include "storage/rocksdb/rocksdb_options.h"

namespace kvstream {

// With C the capacity and w the write buffer, at most C / 128:
//
//   logs_max     the log that RocksDB flushes at, C / 32 at most, and 2 w for what comes meanwhile
//   other_max    manifests, RocksDB's text logs and small files
//   tables_max   C - logs_max - other_max: tables, also those that a compaction is writing
//   buffers_max  4 w: what is in memory and becomes a table while the log still has it
//   reserve      the largest compaction, and buffers_max. The largest is that of level 0, of at
//   most
//                10 tables of w, into the level below it, of at most 2 x the base size; those of
//                deeper levels take one table and some 12 that it overlaps, which is less.
//   tables_high  tables_max - reserve - buffers_max: above it, dead segments are compacted away
//   payload_high 85 % of tables_high: above it, segments are evicted
//
// So 15 % of tables_high may be segments that are deleted but not yet compacted away. Of a capacity
// of 1 GiB 62 % can be payload, of 100 GiB 83 %: the reserve has fixed parts.
struct CapacityPlan {
  uint64_t write_buffer_bytes = 0;
  uint64_t flush_log_bytes = 0;  // RocksDB's max_total_wal_size
  uint64_t target_file_bytes = 0;
  uint64_t level_base_bytes = 0;
  uint64_t logs_max = 0;
  uint64_t other_max = 0;
  uint64_t tables_max = 0;
  uint64_t buffers_max = 0;
  uint64_t reserve = 0;
  uint64_t tables_high = 0;
  uint64_t payload_high = 0;
  uint64_t payload_low = 0;  // eviction goes on to here, 1 % below payload_high
  uint64_t put_max = 0;      // bytes of one Put

  // `options` are valid and have a capacity.
  static CapacityPlan Of(const RocksDbChunkStoreOptions& options);

  // Changes what TunedDbOptions and TunedFamilies gave.
  void Apply(rocksdb::DBOptions* db, std::vector<rocksdb::ColumnFamilyDescriptor>* families) const;
};

}  // namespace kvstream

#endif  // KVSTREAM_STORAGE_ROCKSDB_CAPACITY_PLAN_H_

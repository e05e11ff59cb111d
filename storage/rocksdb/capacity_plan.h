// How a capacity is shared out, so that the directory never exceeds it whatever RocksDB does.
#ifndef KVSTREAM_STORAGE_ROCKSDB_CAPACITY_PLAN_H_
#define KVSTREAM_STORAGE_ROCKSDB_CAPACITY_PLAN_H_

#include <rocksdb/db.h>
#include <rocksdb/options.h>

#include <cstdint>
#include <vector>

#include "storage/rocksdb/rocksdb_options.h"

namespace kvstream {

// What there is and what may come, as far as it decides about room.
struct CapacityUse {
  uint64_t tables = 0;          // bytes of all tables, finished or not
  uint64_t logs = 0;            // of the write-ahead log
  uint64_t buffered = 0;        // in memory, not in tables yet
  uint64_t pending = 0;         // admitted, perhaps not buffered yet
  uint64_t running_input = 0;   // what the compactions that are running read
  uint64_t running_output = 0;  // what they have written in whole tables
  uint64_t upper = 0;           // of the levels that the next compaction of level 0 would read
};

// What a write has to wait for.
enum class CapacityLimit { kNone, kTables, kBuffers, kLogs };

// With C the capacity, u the write buffer of the options, at most C / 128, and w that of the plan,
// at most C / 256:
//
//   put_max      2 u: bytes of one Put
//   logs_max     the log that RocksDB flushes at, C / 32 at most, and 2 u for what comes meanwhile
//   other_max    manifests, RocksDB's text logs and small files
//   tables_max   C - logs_max - other_max: tables, also those that a compaction is writing
//   buffers_max  put_max + 2 w: what is in memory, or admitted, and becomes a table while the log
//                still has it. RocksDB starts a compaction only if so much is left beside what it
//                may write.
//   pick_max     12 w: what a compaction of the keeper's may read (compaction_pick.h)
//   tables_high  above it, deleted segments are compacted away
//   payload_high above it, segments are evicted: 85 % of what tables_max leaves beside 26 u
//
// Limit() keeps free what the next compaction needs; see there. The tables are payload, what was
// deleted but is not compacted away yet, and what is on its way down to the last level; the more
// there may be of the latter two, the less is written again for each Put. Between tables_high and
// where Limit() holds Puts back a compaction can run to its end while others put: it frees what it
// frees only then. Of a capacity of 1 GiB 62 % can be payload, of 100 GiB 83 %: the rest has fixed
// parts.
struct CapacityPlan {
  uint64_t write_buffer_bytes = 0;
  uint64_t flush_log_bytes = 0;  // RocksDB's max_total_wal_size
  uint64_t target_file_bytes = 0;
  uint64_t level_base_bytes = 0;
  uint64_t put_max = 0;
  uint64_t logs_max = 0;
  uint64_t other_max = 0;
  uint64_t tables_max = 0;
  uint64_t buffers_max = 0;
  uint64_t pick_max = 0;
  uint64_t tables_high = 0;
  uint64_t payload_high = 0;
  uint64_t payload_low = 0;  // eviction goes on to here, 1 % below payload_high

  // `options` are valid and have a capacity.
  static CapacityPlan Of(const RocksDbChunkStoreOptions& options);

  // Changes what TunedDbOptions and TunedFamilies gave.
  void Apply(rocksdb::DBOptions* db, std::vector<rocksdb::ColumnFamilyDescriptor>* families) const;

  // Why a write of `bytes`, at most put_max, must wait; kNone if it need not. With p what is
  // buffered, pending and `bytes`, and t the tables without what running compactions have written:
  //
  //   kBuffers  p <= buffers_max. So the tables stay below tables_max whatever RocksDB starts.
  //   kTables   t + p + running_input <= tables_max: what is running can write all that it reads.
  //             t + p + max(pick_max, upper + p) + buffers_max <= tables_max: when it has ended,
  //             and p has become tables of level 0, RocksDB can start a compaction of level 0, and
  //             the keeper one of its own. Without that no Put would ever fit again.
  //   kLogs     logs + pending + bytes <= logs_max
  CapacityLimit Limit(const CapacityUse& use, uint64_t bytes) const;
  // What Limit() compares with tables_max.
  uint64_t TablesAhead(const CapacityUse& use, uint64_t bytes) const;
};

}  // namespace kvstream

#endif  // KVSTREAM_STORAGE_ROCKSDB_CAPACITY_PLAN_H_

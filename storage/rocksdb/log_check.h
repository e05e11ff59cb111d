// Tells a log whose end was torn off by a crash, which is normal, from a log that is damaged before
// its end, which loses acknowledged writes.
//
// None of RocksDB's recovery modes can: kPointInTimeRecovery drops everything after the first
// damage without a word, and kTolerateCorruptedTailRecords refuses a store whose last, never
// acknowledged record reached the disk in part and out of order, and skips zeroed pages in silence.
// With synced writes, though, RocksDB appends a record only after the one before it was synced. So
// damage that another record follows hit something synced, unless an earlier recovery has already
// cut it off; then the record's sequence number continues where the intact ones before the damage
// ended.
#ifndef KVSTREAM_STORAGE_ROCKSDB_LOG_CHECK_H_
#define KVSTREAM_STORAGE_ROCKSDB_LOG_CHECK_H_

#include <rocksdb/env.h>

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"

namespace kvstream {

enum class LogState {
  kIntact,
  kTornTail,          // only the end of the newest log is damaged or incomplete
  kDamagedBeforeEnd,  // records follow the damage, and what lay between is missing
};

struct LogVerdict {
  LogState state = LogState::kIntact;
  // Of the damage: file name within the directory, and the first byte that is not an intact record.
  std::string file;
  uint64_t offset = 0;
};

// Numbers and file names of RocksDB's logs in `data_dir`, oldest first.
absl::StatusOr<std::vector<std::pair<uint64_t, std::string>>> ListLogs(rocksdb::Env* env,
                                                                       const std::string& data_dir);

// Reads all of RocksDB's logs in `data_dir`, which no store may have open. Cost: reads them once
// and computes CRC32C at some 400 MB/s; so it is for after a failed open. UNAVAILABLE or what
// FromRocksDb says if a file cannot be read. Hostile bytes can only give a wrong verdict.
absl::StatusOr<LogVerdict> CheckLogs(rocksdb::Env* env, const std::string& data_dir);

}  // namespace kvstream

#endif  // KVSTREAM_STORAGE_ROCKSDB_LOG_CHECK_H_

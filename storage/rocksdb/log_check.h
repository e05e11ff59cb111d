// Tells a log whose end was torn off by a crash, which is normal, from a log that is damaged before
// its end, which loses acknowledged writes.
//
// None of RocksDB's recovery modes can: kPointInTimeRecovery drops everything after the first
// damage without a word, and kTolerateCorruptedTailRecords refuses a store whose last, never
// acknowledged record reached the disk in part and out of order, and skips zeroed pages in silence.
// So each record says in a mark (log_mark.h) what was synced when it was written. Damage to
// something that a later record calls synced is real, unless an earlier recovery has already cut
// it off; then the later record's sequence number says so. Records without a mark are of versions
// that synced each before they wrote the next.
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
  kTornTail,          // what is damaged or incomplete may never have been on the disk
  kDamagedBeforeEnd,  // something that was synced is missing, and records follow
};

struct LogVerdict {
  LogState state = LogState::kIntact;
  // Of the damage: file name within the directory, and the first byte that is not an intact record.
  std::string file;
  uint64_t offset = 0;
};

// Reads RocksDB's logs in `data_dir` from number `first_log` on; no store may have it open. Cost:
// reads them once and computes CRC32C at some 400 MB/s; UNAVAILABLE or what FromRocksDb says if a
// file cannot be read. Hostile bytes can only give a wrong verdict.
absl::StatusOr<LogVerdict> CheckLogs(rocksdb::Env* env, const std::string& data_dir,
                                     uint64_t first_log = 0);

}  // namespace kvstream

#endif  // KVSTREAM_STORAGE_ROCKSDB_LOG_CHECK_H_

// What every record of the log says about those before it, so that after a crash damage can be told
// from what had never reached the disk (log_check.h). RocksDB keeps it in the log and ignores it.
#ifndef KVSTREAM_STORAGE_ROCKSDB_LOG_MARK_H_
#define KVSTREAM_STORAGE_ROCKSDB_LOG_MARK_H_

#include <rocksdb/write_batch.h>

#include <cstddef>
#include <cstdint>

#include "absl/strings/string_view.h"
#include "absl/types/optional.h"

namespace kvstream {

// Sequence numbers as RocksDB gives them out. Both are lower bounds: claiming less is always true,
// and only makes less damage provable.
struct LogMark {
  // Everything up to here was in tables when the store was opened: what a log lacks of it was
  // flushed, or cut off by that opening.
  uint64_t settled = 0;
  // Everything up to here was synced when the record was built.
  uint64_t synced = 0;
};

// In a record's bytes (a write batch): sequence number (8), count (4), then the entries, of which
// the first is the mark: tag 3 (RocksDB's for data that only the log carries), length 20 (1 byte
// each), "KVSM", settled (8), synced (8). Numbers are little-endian.
inline constexpr size_t kLogMarkBytes = 20;
inline constexpr size_t kBatchHeaderBytes = 12;
inline constexpr size_t kMarkedHeadBytes = kBatchHeaderBytes + 2 + kLogMarkBytes;

// A batch that begins with the mark, with room for `reserved_bytes`.
rocksdb::WriteBatch NewMarkedBatch(const LogMark& mark, size_t reserved_bytes);

// Gives the batch a mark if it has none, at the price of a copy.
void MarkBatch(const LogMark& mark, rocksdb::WriteBatch* batch);

// The mark of a record of which these are the first bytes, if it has one and they suffice.
absl::optional<LogMark> DecodeLogMark(absl::string_view record);

// The last sequence number of a batch that was written.
uint64_t LastSequence(const rocksdb::WriteBatch& written);

}  // namespace kvstream

#endif  // KVSTREAM_STORAGE_ROCKSDB_LOG_MARK_H_

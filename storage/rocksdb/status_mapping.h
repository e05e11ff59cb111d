// The one place where RocksDB's statuses become ours.
#ifndef KVSTREAM_STORAGE_ROCKSDB_STATUS_MAPPING_H_
#define KVSTREAM_STORAGE_ROCKSDB_STATUS_MAPPING_H_

#include <rocksdb/status.h>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace kvstream {

// `what` opens the message: the operation and its chunk.
//   corruption, a file that is gone            DATA_LOSS
//   no space, memory or size limits            RESOURCE_EXHAUSTED
//   other I/O errors, busy, shutting down      UNAVAILABLE
//   the data directory's lock is held,
//   a feature that this RocksDB does not know  FAILED_PRECONDITION
//   not found                                  NOT_FOUND
//   the rest (our bugs)                        INTERNAL
absl::Status FromRocksDb(const rocksdb::Status& status, absl::string_view what);

}  // namespace kvstream

#endif  // KVSTREAM_STORAGE_ROCKSDB_STATUS_MAPPING_H_

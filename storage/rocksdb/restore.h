// From a backup (ChunkStore::Backup) back to a store.
#ifndef KVSTREAM_STORAGE_ROCKSDB_RESTORE_H_
#define KVSTREAM_STORAGE_ROCKSDB_RESTORE_H_

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"

namespace kvstream {

struct RestoredStore {
  uint64_t chunks = 0;
  uint64_t payload_bytes = 0;
};

// Copies the backup into `data_dir`, which must be missing (its parent not) or an empty directory,
// and checks the copy: its log, every block of its tables, every chunk's segments. The directory
// appears whole, durable and checked, or not at all; the copy is made beside it, as
// `data_dir`.restoring, which an earlier, interrupted restore may have left. The backup is only
// read. FAILED_PRECONDITION: one of the directories is not as it must be. DATA_LOSS: the backup is
// damaged. Cost: reads all three times, of which two come from the page cache if it is large
// enough.
absl::StatusOr<RestoredStore> RestoreStore(const std::string& backup_dir,
                                           const std::string& data_dir);

}  // namespace kvstream

#endif  // KVSTREAM_STORAGE_ROCKSDB_RESTORE_H_

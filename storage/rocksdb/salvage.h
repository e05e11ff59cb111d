// From a damaged store to a new one that holds what can still be read.
#ifndef KVSTREAM_STORAGE_ROCKSDB_SALVAGE_H_
#define KVSTREAM_STORAGE_ROCKSDB_SALVAGE_H_

#include <cstdint>
#include <functional>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace kvstream {

struct SalvagedStore {
  uint64_t chunks = 0;  // in the new store, with their bytes
  uint64_t payload_bytes = 0;
  uint64_t chunks_cut = 0;  // of these: have lost levels now
  uint64_t chunks_lost = 0;
  uint64_t profiles = 0;
  uint64_t profiles_lost = 0;
  uint64_t pins = 0;
};

// Copies every chunk of the store in `damaged_dir` into a new one in `data_dir`, which must be
// missing (its parent not) or an empty directory: up to the last level before the first that cannot
// be read, as if the others had been evicted, so that a Put brings them back. Profiles and pins
// that last come along; records of use do not. The new store appears whole and durable, or not at
// all; it has no damaged block, as all of it is written anew. `lost` is told of each chunk and
// profile that lost something, one line each.
//
// The old store is opened, so the end of its log goes to tables; damage in its log is passed over
// (drop_damaged_log). Nothing else is changed. It must be closed. FAILED_PRECONDITION: one of the
// directories is not as it must be. DATA_LOSS: the old store cannot be opened at all, as when a
// table or the manifest is gone; restore a backup. Cost: reads all, writes all twice.
absl::StatusOr<SalvagedStore> SalvageStore(const std::string& damaged_dir,
                                           const std::string& data_dir,
                                           const std::function<void(absl::string_view)>& lost);

}  // namespace kvstream

#endif  // KVSTREAM_STORAGE_ROCKSDB_SALVAGE_H_

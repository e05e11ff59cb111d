// Which tables of a store are known to be damaged.
#ifndef KVSTREAM_STORAGE_ROCKSDB_DAMAGED_TABLES_H_
#define KVSTREAM_STORAGE_ROCKSDB_DAMAGED_TABLES_H_

#include <cstddef>
#include <cstdint>
#include <map>

#include "absl/base/thread_annotations.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "absl/types/optional.h"

namespace kvstream {

// By the numbers of their files. Thread-safe. In memory only: after a restart they are found again.
class DamagedTables {
 public:
  // `in_the_way`: a compaction has met the damage. That stays when it is noted without it later.
  void Note(uint64_t number, bool in_the_way) {
    absl::MutexLock lock(&mutex_);
    in_the_way_[number] |= in_the_way;
  }
  void Forget(uint64_t number) {
    absl::MutexLock lock(&mutex_);
    in_the_way_.erase(number);
  }
  size_t size() const {
    absl::MutexLock lock(&mutex_);
    return in_the_way_.size();
  }
  // The number of each, and whether it is in the way.
  std::map<uint64_t, bool> all() const {
    absl::MutexLock lock(&mutex_);
    return in_the_way_;
  }

  // Of the table whose path is in a message of RocksDB's: the last name of the form "000012.sst".
  static absl::optional<uint64_t> NumberIn(absl::string_view message);

 private:
  mutable absl::Mutex mutex_;
  std::map<uint64_t, bool> in_the_way_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace kvstream

#endif  // KVSTREAM_STORAGE_ROCKSDB_DAMAGED_TABLES_H_

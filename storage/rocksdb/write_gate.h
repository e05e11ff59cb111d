// Keeps writes out of the store while its log is put in order.
#ifndef KVSTREAM_STORAGE_ROCKSDB_WRITE_GATE_H_
#define KVSTREAM_STORAGE_ROCKSDB_WRITE_GATE_H_

#include <cstddef>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

namespace kvstream {

// Any number of writes are in at a time; one thread at a time shuts them out. Unlike with a
// reader-writer lock, those outside choose how long they wait, and one thread may shut the gate for
// another that waits until everybody has left. Thread-safe.
class ABSL_LOCKABLE WriteGate {
 public:
  WriteGate() = default;
  WriteGate(const WriteGate&) = delete;
  WriteGate& operator=(const WriteGate&) = delete;

  // False: it is shut, and stays so until then; with a time that has passed it does not wait. Who
  // is in must leave, and must not enter again before.
  bool EnterBy(absl::Time deadline) ABSL_SHARED_TRYLOCK_FUNCTION(true);
  void Leave() ABSL_UNLOCK_FUNCTION();

  // Nobody enters from here on. The gate must be open.
  void Shut();
  // Waits until everybody has left. After Shut.
  void AwaitEmpty() ABSL_EXCLUSIVE_LOCK_FUNCTION();
  void Open() ABSL_UNLOCK_FUNCTION();

 private:
  bool Empty() const ABSL_SHARED_LOCKS_REQUIRED(mutex_) { return inside_ == 0; }

  absl::Mutex mutex_;
  bool open_ ABSL_GUARDED_BY(mutex_) = true;
  size_t inside_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace kvstream

#endif  // KVSTREAM_STORAGE_ROCKSDB_WRITE_GATE_H_

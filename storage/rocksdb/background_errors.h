// Learns from RocksDB that it has stopped taking writes, and keeps it from deciding on its own when
// to go on.
#ifndef KVSTREAM_STORAGE_ROCKSDB_BACKGROUND_ERRORS_H_
#define KVSTREAM_STORAGE_ROCKSDB_BACKGROUND_ERRORS_H_

#include <rocksdb/listener.h>
#include <rocksdb/status.h>

#include <atomic>

namespace kvstream {

// Thread-safe. RocksDB calls it from any of its threads and from writers' threads.
class BackgroundErrors final : public rocksdb::EventListener {
 public:
  // Whether a flush, compaction or write has failed since the last Clear.
  bool failed() const { return failed_.load(std::memory_order_acquire); }
  void Set() { failed_.store(true, std::memory_order_release); }
  void Clear() { failed_.store(false, std::memory_order_release); }

  void OnBackgroundError(rocksdb::BackgroundErrorReason reason, rocksdb::Status* error) override {
    Set();
  }
  // RocksDB's own recovery from a full disk polls in a thread of its own, and while it does
  // DB::Resume is refused. The store resumes when it is written to instead
  // (RocksDbChunkStore::MaybeResume).
  void OnErrorRecoveryBegin(rocksdb::BackgroundErrorReason reason, rocksdb::Status error,
                            bool* auto_recovery) override {
    *auto_recovery = false;
  }

 private:
  std::atomic<bool> failed_{false};
};

}  // namespace kvstream

#endif  // KVSTREAM_STORAGE_ROCKSDB_BACKGROUND_ERRORS_H_

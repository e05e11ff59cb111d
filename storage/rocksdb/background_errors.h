// Learns from RocksDB that it has stopped taking writes, decides from which errors it may go on,
// and keeps it from deciding on its own when.
#ifndef KVSTREAM_STORAGE_ROCKSDB_BACKGROUND_ERRORS_H_
#define KVSTREAM_STORAGE_ROCKSDB_BACKGROUND_ERRORS_H_

#include <rocksdb/listener.h>
#include <rocksdb/status.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <utility>

#include "storage/chunk_store.h"
#include "storage/rocksdb/damaged_tables.h"
#include "storage/rocksdb/log_mender.h"

namespace kvstream {

// Thread-safe. RocksDB calls it from any of its threads and from writers' threads.
class BackgroundErrors final : public rocksdb::EventListener {
 public:
  // `logs`: through which RocksDB writes its files. `damaged`: told which tables compactions could
  // not read.
  BackgroundErrors(std::shared_ptr<const LogMender> logs, std::shared_ptr<DamagedTables> damaged)
      : logs_(std::move(logs)), damaged_(std::move(damaged)) {}

  // Whether a flush, compaction or write has failed since the last Clear.
  bool failed() const { return failed_.load(std::memory_order_acquire); }
  void Set() {
    errors_.fetch_add(1);
    failed_.store(true, std::memory_order_release);
  }
  void Clear() { failed_.store(false, std::memory_order_release); }
  // How often one has.
  uint64_t errors() const { return errors_.load(); }
  // An error from which only opening the store again leads back.
  void SetLasting() { lasting_.store(true, std::memory_order_release); }
  WriteState state() const {
    if (lasting_.load(std::memory_order_acquire)) return WriteState::kRefusedForGood;
    return failed() ? WriteState::kRefused : WriteState::kTaken;
  }

  void OnBackgroundError(rocksdb::BackgroundErrorReason reason, rocksdb::Status* error) override {
    // A table that cannot be compacted is no reason to refuse writes: the store lets it rest until
    // it is mended (rocksdb_mend.cc).
    if (reason == rocksdb::BackgroundErrorReason::kCompaction && error->IsCorruption()) {
      const absl::optional<uint64_t> table = DamagedTables::NumberIn(error->ToString());
      if (table.has_value()) {
        damaged_->Note(*table, /*in_the_way=*/true);
        *error = rocksdb::Status::OK();
        return;
      }
    }
    Set();
    Judge(reason, error);
    if (error->severity() >= rocksdb::Status::kFatalError) SetLasting();
  }
  // RocksDB's own recovery from a full disk polls in a thread of its own, and while it does
  // DB::Resume is refused. The store resumes when it is written to instead
  // (RocksDbChunkStore::MaybeResume).
  void OnErrorRecoveryBegin(rocksdb::BackgroundErrorReason reason, rocksdb::Status error,
                            bool* auto_recovery) override {
    *auto_recovery = false;
  }

 private:
  // Sets the severity, which decides whether DB::Resume may be tried.
  void Judge(rocksdb::BackgroundErrorReason reason, rocksdb::Status* error) const {
    using Severity = rocksdb::Status::Severity;
    // RocksDB takes an I/O error other than a full disk for fatal, since it cannot tell what the
    // log's file holds then. LogMender sees to that. What a failed flush or compaction was to write
    // is written anew, to other files.
    if (!error->IsIOError() || error->severity() >= Severity::kUnrecoverableError) return;
    // A manifest stays RocksDB's own decision: what of it has reached the disk nobody knows.
    if (reason == rocksdb::BackgroundErrorReason::kManifestWrite ||
        reason == rocksdb::BackgroundErrorReason::kManifestWriteNoWAL) {
      return;
    }
    // A record that is whole and synced in a log of which nobody knows whether its name is durable
    // was refused nevertheless: it could be replayed for some families only.
    const bool named = reason != rocksdb::BackgroundErrorReason::kWriteCallback ||
                       logs_->log_failed() || !logs_->directory_failed();
    const Severity severity =
        named && !logs_->lost() ? Severity::kHardError : Severity::kFatalError;
    if (error->severity() >= Severity::kHardError) *error = rocksdb::Status(*error, severity);
  }

  const std::shared_ptr<const LogMender> logs_;
  const std::shared_ptr<DamagedTables> damaged_;
  std::atomic<bool> failed_{false};
  std::atomic<uint64_t> errors_{0};
  std::atomic<bool> lasting_{false};
};

}  // namespace kvstream

#endif  // KVSTREAM_STORAGE_ROCKSDB_BACKGROUND_ERRORS_H_

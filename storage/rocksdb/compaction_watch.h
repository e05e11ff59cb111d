// How much more the tables may grow because of compactions that are running.
#ifndef KVSTREAM_STORAGE_ROCKSDB_COMPACTION_WATCH_H_
#define KVSTREAM_STORAGE_ROCKSDB_COMPACTION_WATCH_H_

#include <rocksdb/listener.h>

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "storage/rocksdb/counted_file_system.h"

namespace kvstream {

// Thread-safe. RocksDB calls it from its own threads, without a lock.
class CompactionWatch final : public rocksdb::EventListener {
 public:
  explicit CompactionWatch(std::shared_ptr<const CountedFileSystem> files)
      : files_(std::move(files)) {}

  // Of all compactions that are running: what they read, which bounds what they write, and what
  // they have written in whole tables.
  struct Running {
    uint64_t input_bytes = 0;
    uint64_t output_bytes = 0;
  };
  Running running() const {
    absl::MutexLock lock(&mutex_);
    Running sum;
    for (const auto& [job, bytes] : jobs_) {
      sum.input_bytes += bytes.input_bytes;
      sum.output_bytes += bytes.output_bytes;
    }
    return sum;
  }

  // Bytes of the tables that were written from buffers, of all families, since the construction.
  uint64_t flushed_bytes() const { return flushed_bytes_; }
  // Compactions that have ended since.
  uint64_t ended() const { return ended_; }

  // For DB::CompactFiles, which RocksDB does not announce.
  void BeginOwn(uint64_t input_bytes) {
    absl::MutexLock lock(&mutex_);
    jobs_[kOwnJob] = {input_bytes, 0};
  }
  void EndOwn() {
    ++ended_;
    absl::MutexLock lock(&mutex_);
    jobs_.erase(kOwnJob);
  }

  void OnCompactionBegin(rocksdb::DB* db, const rocksdb::CompactionJobInfo& job) override {
    Running bytes;
    for (const std::string& path : job.input_files) bytes.input_bytes += files_->file_bytes(path);
    absl::MutexLock lock(&mutex_);
    jobs_[job.job_id] = bytes;
  }
  void OnCompactionCompleted(rocksdb::DB* db, const rocksdb::CompactionJobInfo& job) override {
    ++ended_;
    absl::MutexLock lock(&mutex_);
    jobs_.erase(job.job_id);
  }
  void OnTableFileCreated(const rocksdb::TableFileCreationInfo& table) override {
    if (table.reason == rocksdb::TableFileCreationReason::kFlush) flushed_bytes_ += table.file_size;
    if (table.reason != rocksdb::TableFileCreationReason::kCompaction) return;
    absl::MutexLock lock(&mutex_);
    const auto job = jobs_.find(table.job_id);
    if (job != jobs_.end()) job->second.output_bytes += table.file_size;
  }

 private:
  static constexpr int kOwnJob = -1;

  const std::shared_ptr<const CountedFileSystem> files_;
  mutable absl::Mutex mutex_;
  std::atomic<uint64_t> flushed_bytes_{0};
  std::atomic<uint64_t> ended_{0};
  std::map<int, Running> jobs_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace kvstream

#endif  // KVSTREAM_STORAGE_ROCKSDB_COMPACTION_WATCH_H_

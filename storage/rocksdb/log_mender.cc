#include "storage/rocksdb/log_mender.h"

#include <algorithm>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/strings/match.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "storage/rocksdb/log_records.h"

namespace kvstream {

using rocksdb::FileOptions;
using rocksdb::IODebugContext;
using rocksdb::IOOptions;
using rocksdb::IOStatus;

// RocksDB uses a log from one thread at a time, but hands it over by means that ThreadSanitizer
// cannot see, hence the lock. The disk is used without it.
class LogMender::Log final : public rocksdb::FSWritableFileOwnerWrapper {
 public:
  Log(LogMender* owner, std::string path, FileOptions options,
      std::unique_ptr<rocksdb::FSWritableFile> file)
      : FSWritableFileOwnerWrapper(std::move(file)),
        owner_(owner),
        path_(std::move(path)),
        options_(std::move(options)),
        number_(++owner->logs_created_) {}
  ~Log() override {
    absl::MutexLock lock(&mutex_);
    if (failed_) --owner_->failed_logs_;
  }

  IOStatus Append(const rocksdb::Slice& data, const IOOptions& options,
                  IODebugContext* debug) override {
    if (failed()) return Refusal();
    return Note({data.data(), data.size()}, target()->Append(data, options, debug));
  }
  IOStatus Append(const rocksdb::Slice& data, const IOOptions& options,
                  const rocksdb::DataVerificationInfo& verification,
                  IODebugContext* debug) override {
    if (failed()) return Refusal();
    return Note({data.data(), data.size()}, target()->Append(data, options, verification, debug));
  }
  // Only with direct I/O, which the store does not use.
  IOStatus PositionedAppend(const rocksdb::Slice& data, uint64_t offset, const IOOptions& options,
                            IODebugContext* debug) override {
    return IOStatus::NotSupported("LogMender: PositionedAppend");
  }
  IOStatus PositionedAppend(const rocksdb::Slice& data, uint64_t offset, const IOOptions& options,
                            const rocksdb::DataVerificationInfo& verification,
                            IODebugContext* debug) override {
    return PositionedAppend(data, offset, options, debug);
  }

  IOStatus Sync(const IOOptions& options, IODebugContext* debug) override {
    return SyncBy([&](rocksdb::FSWritableFile* file) { return file->Sync(options, debug); },
                  options, debug);
  }
  IOStatus Fsync(const IOOptions& options, IODebugContext* debug) override {
    return SyncBy([&](rocksdb::FSWritableFile* file) { return file->Fsync(options, debug); },
                  options, debug);
  }

 private:
  bool failed() const {
    absl::MutexLock lock(&mutex_);
    return failed_;
  }
  static IOStatus Refusal() { return IOStatus::IOError("an earlier write to this log has failed"); }

  IOStatus Note(absl::string_view data, IOStatus status) {
    absl::MutexLock lock(&mutex_);
    if (!status.ok()) {
      // What is there of the record that was being written is refused.
      Fail(records_.end());
      return status;
    }
    records_.Append(data);
    unsynced_.append(data.data(),
                     std::min<uint64_t>(data.size(), kKeptBytesMax - unsynced_.size()));
    return status;
  }

  void Fail(uint64_t kept_bytes) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    failed_ = true;
    mended_ = false;
    kept_bytes_ = kept_bytes;
    ++owner_->failed_logs_;
    // With a restart the log is read as far as it goes, for all families.
    if (records_.lost() || kept_bytes - synced_bytes_ > unsynced_.size()) {
      owner_->lost_.store(true);
      unmendable_ = true;
    }
  }

  template <typename SyncCall>
  IOStatus SyncBy(const SyncCall& sync, const IOOptions& options, IODebugContext* debug) {
    {
      absl::MutexLock lock(&mutex_);
      if (failed_ && unmendable_) return Refusal();
      if (failed_ && mended_) return IOStatus::OK();
    }
    if (failed()) return Mend(sync, options, debug);
    IOStatus status = sync(target());
    absl::MutexLock lock(&mutex_);
    if (status.ok()) {
      synced_bytes_ = records_.size();
      unsynced_.clear();
    } else {
      // The newest log is synced by those who wrote the last record, which is refused then. An
      // older one is synced for what was acknowledged without a sync: all of it counts.
      const bool newest = number_ == owner_->logs_created_;
      Fail(newest ? std::max(records_.last_begin(), synced_bytes_) : records_.end());
    }
    return status;
  }

  template <typename SyncCall>
  IOStatus Mend(const SyncCall& sync, const IOOptions& options, IODebugContext* debug) {
    std::string again;
    uint64_t synced_bytes = 0;
    uint64_t kept_bytes = 0;
    {
      absl::MutexLock lock(&mutex_);
      synced_bytes = synced_bytes_;
      kept_bytes = kept_bytes_;
      again = unsynced_.substr(0, kept_bytes - synced_bytes);
    }
    IOStatus status = target()->Truncate(synced_bytes, options, debug);
    if (status.ok() && !again.empty()) {
      // Another handle: this one would write where it stood before.
      std::unique_ptr<rocksdb::FSWritableFile> end;
      status = owner_->target()->ReopenWritableFile(path_, options_, &end, debug);
      if (status.ok()) status = end->Append(again, options, debug);
      if (status.ok()) status = sync(end.get());
      if (end != nullptr) {
        const IOStatus closed = end->Close(options, debug);
        if (status.ok()) status = closed;
      }
      // Changes nothing but what this handle takes for the size, to which it cuts the file when it
      // is closed.
      if (status.ok()) status = target()->Truncate(kept_bytes, options, debug);
    }
    if (status.ok()) status = sync(target());
    absl::MutexLock lock(&mutex_);
    mended_ = status.ok();
    return status;
  }

  LogMender* const owner_;
  const std::string path_;
  const FileOptions options_;
  const uint64_t number_;  // 1 for the first that was created
  mutable absl::Mutex mutex_;
  LogRecords records_ ABSL_GUARDED_BY(mutex_);
  uint64_t synced_bytes_ ABSL_GUARDED_BY(mutex_) = 0;
  std::string unsynced_ ABSL_GUARDED_BY(mutex_);  // from there on, the first kKeptBytesMax
  bool failed_ ABSL_GUARDED_BY(mutex_) = false;
  // Of a log that has failed.
  bool mended_ ABSL_GUARDED_BY(mutex_) = false;
  bool unmendable_ ABSL_GUARDED_BY(mutex_) = false;
  uint64_t kept_bytes_ ABSL_GUARDED_BY(mutex_) = 0;  // what was acknowledged
};

class LogMender::Directory final : public rocksdb::FSDirectoryWrapper {
 public:
  Directory(LogMender* owner, std::unique_ptr<rocksdb::FSDirectory> directory)
      : FSDirectoryWrapper(std::move(directory)), owner_(owner) {}

  IOStatus Fsync(const IOOptions& options, IODebugContext* debug) override {
    return Note(FSDirectoryWrapper::Fsync(options, debug));
  }
  IOStatus FsyncWithDirOptions(const IOOptions& options, IODebugContext* debug,
                               const rocksdb::DirFsyncOptions& how) override {
    return Note(FSDirectoryWrapper::FsyncWithDirOptions(options, debug, how));
  }

 private:
  IOStatus Note(IOStatus status) {
    if (!status.ok()) owner_->directory_failed_.store(true);
    return status;
  }

  LogMender* const owner_;
};

IOStatus LogMender::NewWritableFile(const std::string& path, const FileOptions& options,
                                    std::unique_ptr<rocksdb::FSWritableFile>* file,
                                    IODebugContext* debug) {
  IOStatus status = target()->NewWritableFile(path, options, file, debug);
  if (!status.ok() || !absl::EndsWith(path, ".log")) return status;
  *file = std::make_unique<Log>(this, path, options, std::move(*file));
  return status;
}

IOStatus LogMender::NewDirectory(const std::string& path, const IOOptions& options,
                                 std::unique_ptr<rocksdb::FSDirectory>* directory,
                                 IODebugContext* debug) {
  IOStatus status = target()->NewDirectory(path, options, directory, debug);
  if (status.ok()) *directory = std::make_unique<Directory>(this, std::move(*directory));
  return status;
}

}  // namespace kvstream

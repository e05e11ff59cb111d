#include "storage/rocksdb/fault_file_system.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <utility>
#include <vector>

#include "absl/strings/match.h"

namespace kvstream {

using rocksdb::FileOptions;
using rocksdb::IODebugContext;
using rocksdb::IOOptions;
using rocksdb::IOStatus;

// Delegates to the real file, under the file system's lock so that the cut falls between two
// operations.
class FaultFileSystem::File final : public rocksdb::FSWritableFileOwnerWrapper {
 public:
  File(FaultFileSystem* owner, std::string path, std::unique_ptr<rocksdb::FSWritableFile> file)
      : FSWritableFileOwnerWrapper(std::move(file)), owner_(owner), path_(std::move(path)) {}

  IOStatus Append(const rocksdb::Slice& data, const IOOptions& options,
                  IODebugContext* debug) override {
    absl::MutexLock lock(&owner_->mutex_);
    const IOStatus failure = owner_->Step(true, false);
    rocksdb::Slice written = data;
    if (!failure.ok()) {
      if (owner_->power_is_cut_ || data.empty()) return failure;
      written = rocksdb::Slice(data.data(), owner_->random_() % data.size());
    }
    IOStatus status = target()->Append(written, options, debug);
    if (status.ok()) owner_->files_[path_].bytes += written.size();
    return failure.ok() ? status : failure;
  }
  IOStatus Append(const rocksdb::Slice& data, const IOOptions& options,
                  const rocksdb::DataVerificationInfo& verification,
                  IODebugContext* debug) override {
    return Append(data, options, debug);
  }
  IOStatus PositionedAppend(const rocksdb::Slice& data, uint64_t offset, const IOOptions& options,
                            IODebugContext* debug) override {
    return IOStatus::NotSupported("FaultFileSystem: PositionedAppend");
  }
  IOStatus Truncate(uint64_t size, const IOOptions& options, IODebugContext* debug) override {
    absl::MutexLock lock(&owner_->mutex_);
    if (IOStatus status = owner_->Step(true, false); !status.ok()) return status;
    IOStatus status = target()->Truncate(size, options, debug);
    if (status.ok()) {
      FileState& state = owner_->files_[path_];
      state.bytes = size;
      state.synced_bytes = std::min(state.synced_bytes, size);
      state.tried_bytes = std::min(state.tried_bytes, size);
      while (!state.lost.empty() && state.lost.back().first >= size) state.lost.pop_back();
      if (!state.lost.empty()) state.lost.back().second = std::min(state.lost.back().second, size);
    }
    return status;
  }
  IOStatus Sync(const IOOptions& options, IODebugContext* debug) override {
    absl::MutexLock lock(&owner_->mutex_);
    if (absl::EndsWith(path_, ".log")) owner_->WaitWhileHeld(Held::kLogSyncs);
    IOStatus status = owner_->Step(true, true);
    FileState& state = owner_->files_[path_];
    if (status.ok()) {
      state.synced_bytes = state.bytes;
    } else if (!owner_->power_is_cut_ && state.bytes > state.tried_bytes) {
      state.lost.emplace_back(state.tried_bytes, state.bytes);
    }
    state.tried_bytes = state.bytes;
    return status;
  }
  IOStatus Fsync(const IOOptions& options, IODebugContext* debug) override {
    return Sync(options, debug);
  }
  // Starts writing back, promises nothing.
  IOStatus RangeSync(uint64_t offset, uint64_t bytes, const IOOptions& options,
                     IODebugContext* debug) override {
    return IOStatus::OK();
  }

 private:
  FaultFileSystem* const owner_;
  const std::string path_;
};

class FaultFileSystem::Directory final : public rocksdb::FSDirectory {
 public:
  Directory(FaultFileSystem* owner, std::string path) : owner_(owner), path_(std::move(path)) {}

  IOStatus Fsync(const IOOptions& options, IODebugContext* debug) override {
    absl::MutexLock lock(&owner_->mutex_);
    if (IOStatus status = owner_->Step(true, true); !status.ok()) return status;
    if (!owner_->directory_failure_.ok()) return owner_->directory_failure_;
    owner_->MarkDirectorySynced(path_);
    return IOStatus::OK();
  }
  size_t GetUniqueId(char* id, size_t max_size) const override { return 0; }

 private:
  FaultFileSystem* const owner_;
  const std::string path_;
};

FaultFileSystem::FaultFileSystem(uint64_t seed)
    : FileSystemWrapper(rocksdb::FileSystem::Default()), random_(seed) {}

IOStatus FaultFileSystem::Step(bool writes, bool syncs) {
  if (operations_left_ == 0) power_is_cut_ = true;
  if (power_is_cut_) return IOStatus::IOError("the power is cut");
  if (operations_left_ != UINT64_MAX) --operations_left_;
  if (writes && !write_failure_.ok()) return write_failure_;
  if (syncs && !sync_failure_.ok()) return sync_failure_;
  return IOStatus::OK();
}

void FaultFileSystem::CutPowerAfter(uint64_t operations) {
  absl::MutexLock lock(&mutex_);
  operations_left_ = operations;
}

bool FaultFileSystem::power_is_cut() const {
  absl::MutexLock lock(&mutex_);
  return power_is_cut_;
}

void FaultFileSystem::FailWrites(const IOStatus& status) {
  absl::MutexLock lock(&mutex_);
  write_failure_ = status;
}

void FaultFileSystem::FailSyncs(const IOStatus& status) {
  absl::MutexLock lock(&mutex_);
  sync_failure_ = status;
}

void FaultFileSystem::FailDirectorySyncs(const IOStatus& status) {
  absl::MutexLock lock(&mutex_);
  directory_failure_ = status;
}

void FaultFileSystem::Hold(Held what) {
  absl::MutexLock lock(&mutex_);
  held_ = what;
}

void FaultFileSystem::AwaitHeld() const {
  absl::MutexLock lock(&mutex_);
  const auto somebody_waits = [this]() ABSL_SHARED_LOCKS_REQUIRED(mutex_) { return waiting_ > 0; };
  mutex_.Await(absl::Condition(&somebody_waits));
}

void FaultFileSystem::WaitWhileHeld(Held what) {
  const auto let_go = [this, what]() ABSL_SHARED_LOCKS_REQUIRED(mutex_) { return held_ != what; };
  ++waiting_;
  mutex_.Await(absl::Condition(&let_go));
  --waiting_;
}

void FaultFileSystem::Restart(bool keep_some) {
  constexpr uint64_t kPageBytes = 4096;
  absl::MutexLock lock(&mutex_);
  power_is_cut_ = false;
  operations_left_ = UINT64_MAX;
  for (auto& [path, state] : files_) {
    std::error_code ignored;
    if (!std::filesystem::exists(path, ignored)) continue;
    if (!state.in_synced_directory) {
      std::filesystem::remove(path, ignored);
      continue;
    }
    const uint64_t unsynced_bytes = state.bytes - state.synced_bytes;
    if (unsynced_bytes == 0 && state.lost.empty()) continue;
    const uint64_t kept_bytes = keep_some ? random_() % (unsynced_bytes + 1) : 0;
    std::filesystem::resize_file(path, state.synced_bytes + kept_bytes, ignored);
    // Pages reach the disk in any order; one that did not reads as zeros.
    std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
    const auto zero = [&file](uint64_t begin, uint64_t end) {
      file.seekp(static_cast<std::streamoff>(begin));
      std::fill_n(std::ostreambuf_iterator<char>(file), end - begin, '\0');
    };
    for (const auto& [begin, end] : state.lost) {
      const uint64_t kept_end = std::min(end, state.synced_bytes + kept_bytes);
      if (begin < kept_end && (!keep_some || random_() % 2 == 0)) zero(begin, kept_end);
    }
    for (uint64_t begin = state.synced_bytes; begin < state.synced_bytes + kept_bytes;) {
      const uint64_t next_page = (begin / kPageBytes + 1) * kPageBytes;
      const uint64_t end = std::min(next_page, state.synced_bytes + kept_bytes);
      if (random_() % 4 == 0) zero(begin, end);
      begin = end;
    }
  }
  files_.clear();
}

IOStatus FaultFileSystem::NewWritableFile(const std::string& path, const FileOptions& options,
                                          std::unique_ptr<rocksdb::FSWritableFile>* file,
                                          IODebugContext* debug) {
  absl::MutexLock lock(&mutex_);
  if (absl::EndsWith(path, ".sst")) WaitWhileHeld(Held::kNewTables);
  if (IOStatus status = Step(true, false); !status.ok()) return status;
  std::unique_ptr<rocksdb::FSWritableFile> real;
  if (IOStatus status = target()->NewWritableFile(path, options, &real, debug); !status.ok()) {
    return status;
  }
  files_[path] = FileState();
  *file = std::make_unique<File>(this, path, std::move(real));
  return IOStatus::OK();
}

IOStatus FaultFileSystem::ReopenWritableFile(const std::string& path, const FileOptions& options,
                                             std::unique_ptr<rocksdb::FSWritableFile>* file,
                                             IODebugContext* debug) {
  absl::MutexLock lock(&mutex_);
  if (IOStatus status = Step(true, false); !status.ok()) return status;
  // What it is at must be known: a file that was written through this file system.
  if (files_.count(path) == 0) return IOStatus::NotSupported("FaultFileSystem: another's file");
  std::unique_ptr<rocksdb::FSWritableFile> real;
  IOStatus status = target()->ReopenWritableFile(path, options, &real, debug);
  if (status.ok()) *file = std::make_unique<File>(this, path, std::move(real));
  return status;
}

IOStatus FaultFileSystem::ReuseWritableFile(const std::string& path, const std::string& old_path,
                                            const FileOptions& options,
                                            std::unique_ptr<rocksdb::FSWritableFile>* file,
                                            IODebugContext* debug) {
  return IOStatus::NotSupported("FaultFileSystem: ReuseWritableFile");
}

IOStatus FaultFileSystem::NewDirectory(const std::string& path, const IOOptions& options,
                                       std::unique_ptr<rocksdb::FSDirectory>* directory,
                                       IODebugContext* debug) {
  *directory = std::make_unique<Directory>(this, path);
  return IOStatus::OK();
}

void FaultFileSystem::MarkDirectorySynced(const std::string& directory) {
  const auto synced = std::filesystem::path(directory + "/").lexically_normal();
  for (auto& [path, state] : files_) {
    const auto parent = std::filesystem::path(path).lexically_normal().parent_path() / "";
    if (parent == synced) state.in_synced_directory = true;
  }
}

IOStatus FaultFileSystem::RenameFile(const std::string& from, const std::string& to,
                                     const IOOptions& options, IODebugContext* debug) {
  absl::MutexLock lock(&mutex_);
  if (IOStatus status = Step(true, false); !status.ok()) return status;
  IOStatus status = target()->RenameFile(from, to, options, debug);
  if (!status.ok()) return status;
  if (const auto found = files_.find(from); found != files_.end()) {
    const FileState state = found->second;
    files_.erase(found);
    files_[to] = state;
  }
  MarkDirectorySynced(std::filesystem::path(to).parent_path());
  return status;
}

IOStatus FaultFileSystem::DeleteFile(const std::string& path, const IOOptions& options,
                                     IODebugContext* debug) {
  absl::MutexLock lock(&mutex_);
  // A full disk lets go of files.
  if (IOStatus status = Step(false, false); !status.ok()) return status;
  IOStatus status = target()->DeleteFile(path, options, debug);
  if (status.ok()) files_.erase(path);
  return status;
}

IOStatus FaultFileSystem::GetFreeSpace(const std::string& path, const IOOptions& options,
                                       uint64_t* bytes, IODebugContext* debug) {
  {
    absl::MutexLock lock(&mutex_);
    if (write_failure_.IsNoSpace()) {
      *bytes = 0;
      return IOStatus::OK();
    }
  }
  return target()->GetFreeSpace(path, options, bytes, debug);
}

}  // namespace kvstream

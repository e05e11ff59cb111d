#include "storage/rocksdb/counted_file_system.h"

#include <algorithm>
#include <filesystem>
#include <system_error>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace kvstream {

using rocksdb::FileOptions;
using rocksdb::IODebugContext;
using rocksdb::IOOptions;
using rocksdb::IOStatus;

// Counts what has reached the target; the size of a failed write is unknown, so it counts as
// written.
class CountedFileSystem::File final : public rocksdb::FSWritableFileOwnerWrapper {
 public:
  File(CountedFileSystem* owner, std::string name, std::unique_ptr<rocksdb::FSWritableFile> file)
      : FSWritableFileOwnerWrapper(std::move(file)), owner_(owner), name_(std::move(name)) {}

  IOStatus Append(const rocksdb::Slice& data, const IOOptions& options,
                  IODebugContext* debug) override {
    owner_->Grow(name_, data.size());
    return target()->Append(data, options, debug);
  }
  IOStatus Append(const rocksdb::Slice& data, const IOOptions& options,
                  const rocksdb::DataVerificationInfo& verification,
                  IODebugContext* debug) override {
    owner_->Grow(name_, data.size());
    return target()->Append(data, options, verification, debug);
  }
  // Only with direct I/O, which the store does not use.
  IOStatus PositionedAppend(const rocksdb::Slice& data, uint64_t offset, const IOOptions& options,
                            IODebugContext* debug) override {
    return IOStatus::NotSupported("CountedFileSystem: PositionedAppend");
  }
  IOStatus PositionedAppend(const rocksdb::Slice& data, uint64_t offset, const IOOptions& options,
                            const rocksdb::DataVerificationInfo& verification,
                            IODebugContext* debug) override {
    return PositionedAppend(data, offset, options, debug);
  }
  IOStatus Truncate(uint64_t size, const IOOptions& options, IODebugContext* debug) override {
    IOStatus status = target()->Truncate(size, options, debug);
    if (status.ok()) owner_->SetSize(name_, size);
    return status;
  }

 private:
  CountedFileSystem* const owner_;
  const std::string name_;
};

CountedFileSystem::CountedFileSystem(const std::shared_ptr<rocksdb::FileSystem>& target,
                                     std::string directory)
    : FileSystemWrapper(target),
      directory_(absl::EndsWith(directory, "/") ? std::move(directory)
                                                : absl::StrCat(directory, "/")) {
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(directory_, error)) {
    const std::string name = entry.path().filename().string();
    if (absl::StartsWith(name, "LOG")) continue;
    const uint64_t bytes = entry.is_regular_file(error) ? entry.file_size(error) : 0;
    if (!error) SetSize(name, bytes);
  }
}

std::string CountedFileSystem::NameOf(const std::string& path) const {
  const std::filesystem::path normal = std::filesystem::path(path).lexically_normal();
  const auto parent = std::filesystem::path(directory_).lexically_normal();
  return normal.parent_path() / "" == parent ? normal.filename().string() : std::string();
}

CountedFileSystem::Bytes CountedFileSystem::bytes() const {
  absl::MutexLock lock(&mutex_);
  return bytes_;
}

uint64_t CountedFileSystem::file_bytes(const std::string& path) const {
  const std::string name = NameOf(path);
  absl::MutexLock lock(&mutex_);
  const auto found = sizes_.find(name);
  return found == sizes_.end() ? 0 : found->second;
}

uint64_t CountedFileSystem::peak_bytes() const {
  absl::MutexLock lock(&mutex_);
  return peak_bytes_;
}

void CountedFileSystem::Change(const std::string& name, uint64_t from, uint64_t to) {
  uint64_t& kind = absl::EndsWith(name, ".sst")   ? bytes_.tables
                   : absl::EndsWith(name, ".log") ? bytes_.logs
                                                  : bytes_.other;
  kind += to - from;  // modulo 2^64
  peak_bytes_ = std::max(peak_bytes_, bytes_.total());
}

void CountedFileSystem::SetSize(const std::string& name, uint64_t bytes) {
  absl::MutexLock lock(&mutex_);
  uint64_t& size = sizes_[name];
  Change(name, size, bytes);
  size = bytes;
}

void CountedFileSystem::Grow(const std::string& name, uint64_t bytes) {
  absl::MutexLock lock(&mutex_);
  uint64_t& size = sizes_[name];
  Change(name, size, size + bytes);
  size += bytes;
}

void CountedFileSystem::Forget(const std::string& name) {
  absl::MutexLock lock(&mutex_);
  const auto found = sizes_.find(name);
  if (found == sizes_.end()) return;
  Change(name, found->second, 0);
  sizes_.erase(found);
}

IOStatus CountedFileSystem::NewWritableFile(const std::string& path, const FileOptions& options,
                                            std::unique_ptr<rocksdb::FSWritableFile>* file,
                                            IODebugContext* debug) {
  IOStatus status = target()->NewWritableFile(path, options, file, debug);
  const std::string name = NameOf(path);
  if (!status.ok() || name.empty()) return status;
  SetSize(name, 0);
  *file = std::make_unique<File>(this, name, std::move(*file));
  return status;
}

IOStatus CountedFileSystem::ReopenWritableFile(const std::string& path, const FileOptions& options,
                                               std::unique_ptr<rocksdb::FSWritableFile>* file,
                                               IODebugContext* debug) {
  IOStatus status = target()->ReopenWritableFile(path, options, file, debug);
  const std::string name = NameOf(path);
  if (!status.ok() || name.empty()) return status;
  *file = std::make_unique<File>(this, name, std::move(*file));
  return status;
}

// Reusing keeps the old bytes until they are overwritten, which sizes cannot follow.
IOStatus CountedFileSystem::ReuseWritableFile(const std::string& path, const std::string& old_path,
                                              const FileOptions& options,
                                              std::unique_ptr<rocksdb::FSWritableFile>* file,
                                              IODebugContext* debug) {
  return IOStatus::NotSupported("CountedFileSystem: ReuseWritableFile");
}

IOStatus CountedFileSystem::RenameFile(const std::string& from, const std::string& to,
                                       const IOOptions& options, IODebugContext* debug) {
  IOStatus status = target()->RenameFile(from, to, options, debug);
  if (!status.ok()) return status;
  const std::string old_name = NameOf(from);
  const std::string new_name = NameOf(to);
  uint64_t size = 0;
  if (!old_name.empty()) {
    absl::MutexLock lock(&mutex_);
    const auto found = sizes_.find(old_name);
    if (found == sizes_.end()) return status;
    size = found->second;
    Change(old_name, size, 0);
    sizes_.erase(found);
  }
  if (!new_name.empty()) SetSize(new_name, size);
  return status;
}

IOStatus CountedFileSystem::DeleteFile(const std::string& path, const IOOptions& options,
                                       IODebugContext* debug) {
  IOStatus status = target()->DeleteFile(path, options, debug);
  if (status.ok()) Forget(NameOf(path));
  return status;
}

IOStatus CountedFileSystem::Truncate(const std::string& path, size_t size, const IOOptions& options,
                                     IODebugContext* debug) {
  IOStatus status = target()->Truncate(path, size, options, debug);
  if (const std::string name = NameOf(path); status.ok() && !name.empty()) SetSize(name, size);
  return status;
}

}  // namespace kvstream

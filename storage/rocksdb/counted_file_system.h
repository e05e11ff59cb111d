// Knows at every moment how many bytes the store's files have, without asking the disk.
#ifndef KVSTREAM_STORAGE_ROCKSDB_COUNTED_FILE_SYSTEM_H_
#define KVSTREAM_STORAGE_ROCKSDB_COUNTED_FILE_SYSTEM_H_

#include <rocksdb/file_system.h>

#include <cstdint>
#include <memory>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/synchronization/mutex.h"

namespace kvstream {

// Passes everything on and counts the sizes of files in one directory as RocksDB writes, renames
// and deletes them. RocksDB's own text log (LOG) does not pass here and is not counted.
// Thread-safe. A write costs a mutex and a hash lookup more.
class CountedFileSystem final : public rocksdb::FileSystemWrapper {
 public:
  // Bytes by kind of file.
  struct Bytes {
    uint64_t tables = 0;
    uint64_t logs = 0;  // the write-ahead log
    uint64_t other = 0;

    uint64_t total() const { return tables + logs + other; }
  };

  // Counts what is in `directory` already; files elsewhere are none of its business.
  CountedFileSystem(const std::shared_ptr<rocksdb::FileSystem>& target, std::string directory);

  const char* Name() const override { return "CountedFileSystem"; }

  Bytes bytes() const;
  // Of one file; 0 if it is not known.
  uint64_t file_bytes(const std::string& path) const;
  // The largest total() since the construction.
  uint64_t peak_bytes() const;

  rocksdb::IOStatus NewWritableFile(const std::string& path, const rocksdb::FileOptions& options,
                                    std::unique_ptr<rocksdb::FSWritableFile>* file,
                                    rocksdb::IODebugContext* debug) override;
  rocksdb::IOStatus ReopenWritableFile(const std::string& path, const rocksdb::FileOptions& options,
                                       std::unique_ptr<rocksdb::FSWritableFile>* file,
                                       rocksdb::IODebugContext* debug) override;
  rocksdb::IOStatus ReuseWritableFile(const std::string& path, const std::string& old_path,
                                      const rocksdb::FileOptions& options,
                                      std::unique_ptr<rocksdb::FSWritableFile>* file,
                                      rocksdb::IODebugContext* debug) override;
  rocksdb::IOStatus RenameFile(const std::string& from, const std::string& to,
                               const rocksdb::IOOptions& options,
                               rocksdb::IODebugContext* debug) override;
  rocksdb::IOStatus DeleteFile(const std::string& path, const rocksdb::IOOptions& options,
                               rocksdb::IODebugContext* debug) override;
  rocksdb::IOStatus Truncate(const std::string& path, size_t size,
                             const rocksdb::IOOptions& options,
                             rocksdb::IODebugContext* debug) override;

 private:
  class File;

  // The name within the directory; empty if the file is elsewhere.
  std::string NameOf(const std::string& path) const;
  void SetSize(const std::string& name, uint64_t bytes) ABSL_LOCKS_EXCLUDED(mutex_);
  void Grow(const std::string& name, uint64_t bytes) ABSL_LOCKS_EXCLUDED(mutex_);
  void Forget(const std::string& name) ABSL_LOCKS_EXCLUDED(mutex_);
  void Change(const std::string& name, uint64_t from, uint64_t to)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const std::string directory_;  // ends with a slash
  mutable absl::Mutex mutex_;
  absl::flat_hash_map<std::string, uint64_t> sizes_ ABSL_GUARDED_BY(mutex_);
  Bytes bytes_ ABSL_GUARDED_BY(mutex_);
  uint64_t peak_bytes_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace kvstream

#endif  // KVSTREAM_STORAGE_ROCKSDB_COUNTED_FILE_SYSTEM_H_

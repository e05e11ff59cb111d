// A file system that loses power, or fails writes, when a test says so.
#ifndef KVSTREAM_STORAGE_ROCKSDB_FAULT_FILE_SYSTEM_H_
#define KVSTREAM_STORAGE_ROCKSDB_FAULT_FILE_SYSTEM_H_

#include <rocksdb/file_system.h>

#include <cstdint>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"

namespace kvstream {

// Wraps the machine's file system and remembers for each file what was synced. At a power cut every
// later write fails; once the store is closed, Restart() leaves on disk what a machine may find
// after it: all that was synced, and of the rest a random beginning with random pages zeroed. Files
// whose directory was not synced since their creation are gone. Renames, deletions and truncations
// count as durable at once, and with a rename the creations in its directory before it, as in a
// file system's journal; nothing is really synced. As with Linux's page cache, what a failed
// sync was to write is never written by a later one. Thread-safe; writes are serialised, which a
// test can afford.
class FaultFileSystem final : public rocksdb::FileSystemWrapper {
 public:
  explicit FaultFileSystem(uint64_t seed);

  const char* Name() const override { return "FaultFileSystem"; }

  // Cuts the power at the `operations`-th write, sync, creation, rename or deletion from now.
  void CutPowerAfter(uint64_t operations);
  bool power_is_cut() const;
  // Call while no file is open. `keep_some` false: nothing unsynced survives.
  void Restart(bool keep_some);

  // Until the next call every write, sync and creation of a file fails with `status`; OK ends it.
  // Of a failed write a random beginning is written.
  void FailWrites(const rocksdb::IOStatus& status);
  // Likewise, but only syncs of files, and of directories.
  void FailSyncs(const rocksdb::IOStatus& status);
  void FailDirectorySyncs(const rocksdb::IOStatus& status);

  // Until the next call whoever does this waits, before it counts as an operation.
  enum class Held {
    kNothing,
    kNewTables,  // creates a file "*.sst"
    kLogSyncs,   // syncs a file "*.log"
  };
  void Hold(Held what);
  // Waits until somebody waits.
  void AwaitHeld() const;

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
  rocksdb::IOStatus NewDirectory(const std::string& path, const rocksdb::IOOptions& options,
                                 std::unique_ptr<rocksdb::FSDirectory>* directory,
                                 rocksdb::IODebugContext* debug) override;
  rocksdb::IOStatus RenameFile(const std::string& from, const std::string& to,
                               const rocksdb::IOOptions& options,
                               rocksdb::IODebugContext* debug) override;
  rocksdb::IOStatus DeleteFile(const std::string& path, const rocksdb::IOOptions& options,
                               rocksdb::IODebugContext* debug) override;
  // None while writes fail for lack of space.
  rocksdb::IOStatus GetFreeSpace(const std::string& path, const rocksdb::IOOptions& options,
                                 uint64_t* bytes, rocksdb::IODebugContext* debug) override;

 private:
  class File;
  class Directory;

  struct FileState {
    uint64_t bytes = 0;
    uint64_t synced_bytes = 0;
    std::vector<std::pair<uint64_t, uint64_t>> lost;  // begin and end: what syncs failed to write
    uint64_t tried_bytes = 0;                         // up to where syncs have tried
    bool in_synced_directory = false;
  };

  // Its entries are durable from now on.
  void MarkDirectorySynced(const std::string& directory) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void WaitWhileHeld(Held what) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Counts an operation. An error if the power is cut or, for `writes` and `syncs`, if those are to
  // fail.
  rocksdb::IOStatus Step(bool writes, bool syncs) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  mutable absl::Mutex mutex_;
  std::mt19937_64 random_ ABSL_GUARDED_BY(mutex_);
  bool power_is_cut_ ABSL_GUARDED_BY(mutex_) = false;
  uint64_t operations_left_ ABSL_GUARDED_BY(mutex_) = UINT64_MAX;
  rocksdb::IOStatus write_failure_ ABSL_GUARDED_BY(mutex_);
  rocksdb::IOStatus sync_failure_ ABSL_GUARDED_BY(mutex_);
  rocksdb::IOStatus directory_failure_ ABSL_GUARDED_BY(mutex_);
  Held held_ ABSL_GUARDED_BY(mutex_) = Held::kNothing;
  int waiting_ ABSL_GUARDED_BY(mutex_) = 0;
  std::map<std::string, FileState> files_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace kvstream

#endif  // KVSTREAM_STORAGE_ROCKSDB_FAULT_FILE_SYSTEM_H_

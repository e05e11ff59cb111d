// Makes the log fit for going on after a write or sync of it has failed.
#ifndef KVSTREAM_STORAGE_ROCKSDB_LOG_MENDER_H_
#define KVSTREAM_STORAGE_ROCKSDB_LOG_MENDER_H_

#include <rocksdb/file_system.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>

namespace kvstream {

// When a write to the log fails, DB::Resume begins a new log and writes what the buffers hold to
// tables, one family after the other. A crash amid that must find the old log in order: a refused
// record that is in it after all would be replayed for some families only, a torn one makes RocksDB
// refuse the store ("SST file is ahead of WALs"), and what was written without a sync before may be
// gone without a trace, since the kernel forgets pages that it could not write.
//
// So a log that has failed takes nothing more, and the next sync of it, which RocksDB makes before
// it lets any table count, first cuts off the refused record and writes again what was not synced.
// Only if that has reached the disk the sync succeeds; else the next attempt begins anew.
//
// A wrapper for the files "*.log" that RocksDB writes; everything else is passed on. Thread-safe.
// A log costs 256 KiB of memory, and each byte up to so many after a sync a copy.
class LogMender final : public rocksdb::FileSystemWrapper {
 public:
  // What is written without a sync in between and can be written again. More cannot be mended.
  static constexpr uint64_t kKeptBytesMax = uint64_t{256} << 10;

  explicit LogMender(const std::shared_ptr<rocksdb::FileSystem>& target)
      : FileSystemWrapper(target) {}

  const char* Name() const override { return "LogMender"; }

  // An open log has failed. It takes no more records, also when it is mended.
  bool log_failed() const { return failed_logs_.load() > 0; }
  // A log cannot be mended: only a restart helps.
  bool lost() const { return lost_.load(); }
  // A sync of a directory has failed since the last ForgetDirectory. Whether that was meant for a
  // new log and what it holds, nobody can tell.
  bool directory_failed() const { return directory_failed_.load(); }
  void ForgetDirectory() { directory_failed_.store(false); }

  rocksdb::IOStatus NewWritableFile(const std::string& path, const rocksdb::FileOptions& options,
                                    std::unique_ptr<rocksdb::FSWritableFile>* file,
                                    rocksdb::IODebugContext* debug) override;
  rocksdb::IOStatus NewDirectory(const std::string& path, const rocksdb::IOOptions& options,
                                 std::unique_ptr<rocksdb::FSDirectory>* directory,
                                 rocksdb::IODebugContext* debug) override;

 private:
  class Log;
  class Directory;

  std::atomic<uint64_t> logs_created_{0};
  std::atomic<int64_t> failed_logs_{0};
  std::atomic<bool> lost_{false};
  std::atomic<bool> directory_failed_{false};
};

}  // namespace kvstream

#endif  // KVSTREAM_STORAGE_ROCKSDB_LOG_MENDER_H_

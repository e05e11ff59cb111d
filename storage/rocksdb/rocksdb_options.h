// What an operator may set of the RocksDB driver.
#ifndef KVSTREAM_STORAGE_ROCKSDB_ROCKSDB_OPTIONS_H_
#define KVSTREAM_STORAGE_ROCKSDB_ROCKSDB_OPTIONS_H_

#include <cstdint>
#include <functional>
#include <string>

#include "absl/status/status.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"

namespace rocksdb {
class Env;
}  // namespace rocksdb

namespace kvstream {

struct RocksDbChunkStoreOptions {
  static constexpr uint64_t kCapacityBytesMin = uint64_t{64} << 20;

  // The store's directory, owned by one process at a time. Created if it does not exist; its parent
  // must.
  std::string data_dir;
  // Memory for segments, indexes and filters read from disk; at least 8 MiB. Pinned segments may
  // exceed it.
  uint64_t block_cache_bytes = uint64_t{512} << 20;
  // Memory for infos of chunks, some 200 bytes each; beside the block cache. 0: none.
  uint64_t info_cache_bytes = uint64_t{64} << 20;
  // Every Put, Delete and PutProfile waits until the disk has it. Without, a crash of the process
  // still loses nothing, but a crash of the machine may lose the last writes, each of them whole.
  bool sync_writes = true;
  // Table files held open, at least 64; -1: all of them. Each takes a descriptor and a little
  // memory.
  int max_open_files = 1024;
  // Memory that collects segments before they are written to a table file, 1 MiB to 4 GiB. Up to 4
  // times that is used when the disk is slower than the writers.
  uint64_t write_buffer_bytes = uint64_t{64} << 20;
  // Log on disk beyond which buffered writes are flushed to tables, at least write_buffer_bytes.
  // Bounds the time to open after a crash.
  uint64_t max_log_bytes = uint64_t{256} << 20;
  // Threads that flush and compact, 1 to 64.
  int background_jobs = 2;
  // Opens a store whose log is damaged before its end and drops what follows the damage, instead of
  // refusing. What was acknowledged after it is lost, so an operator decides, once.
  bool drop_damaged_log = false;
  // Bytes that all files in data_dir together may have; 0: no bound. At least 64 MiB, else
  // INVALID_ARGUMENT. The store evicts to stay below it, RocksDB's compactions included. For that
  // it makes write_buffer_bytes and max_log_bytes smaller where the capacity is small, and a part
  // of the capacity is kept free (capacity_plan.h). A store that is larger when it is opened
  // shrinks in the background.
  uint64_t capacity_bytes = 0;
  // What all pinned chunks together may have; 0: half of what the capacity leaves for payload, no
  // bound without a capacity.
  uint64_t pin_bytes_max = 0;
  // A Put waits so long for room before it fails.
  absl::Duration room_timeout = absl::Seconds(10);
  // How often records of use are written.
  absl::Duration usage_interval = absl::Seconds(60);
  // At most one attempt in this time to make a store writable again after an error in the
  // background, such as a full disk.
  absl::Duration resume_interval = absl::Seconds(1);
  // A write that meets such an attempt waits so long for its end before it fails; some never wait.
  absl::Duration resume_wait = absl::Milliseconds(500);

  // For tests. The clock of resume_interval and of pins; and the file system, borrowed for the
  // store's life (null: the machine's).
  std::function<absl::Time()> now = absl::Now;
  rocksdb::Env* env = nullptr;

  // INVALID_ARGUMENT naming the first option that is out of its range.
  absl::Status Validate() const;
};

}  // namespace kvstream

#endif  // KVSTREAM_STORAGE_ROCKSDB_ROCKSDB_OPTIONS_H_

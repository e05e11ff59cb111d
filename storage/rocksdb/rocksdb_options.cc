#include "storage/rocksdb/rocksdb_options.h"

#include "absl/strings/str_cat.h"

namespace kvstream {
namespace {

constexpr uint64_t kMiB = uint64_t{1} << 20;

template <typename... What>
absl::Status Invalid(const What&... what) {
  return absl::InvalidArgumentError(absl::StrCat("RocksDB store: ", what...));
}

}  // namespace

absl::Status RocksDbChunkStoreOptions::Validate() const {
  if (data_dir.empty()) return Invalid("data_dir must be given");
  if (block_cache_bytes < 8 * kMiB) {
    return Invalid("block_cache_bytes is ", block_cache_bytes, "; it must be at least 8 MiB");
  }
  if (max_open_files != -1 && max_open_files < 64) {
    return Invalid("max_open_files is ", max_open_files, "; it must be -1 or at least 64");
  }
  if (write_buffer_bytes < kMiB || write_buffer_bytes > 4096 * kMiB) {
    return Invalid("write_buffer_bytes is ", write_buffer_bytes, "; it must be 1 MiB to 4 GiB");
  }
  if (max_log_bytes < write_buffer_bytes) {
    return Invalid("max_log_bytes is ", max_log_bytes, "; it must be at least write_buffer_bytes, ",
                   write_buffer_bytes);
  }
  if (background_jobs < 1 || background_jobs > 64) {
    return Invalid("background_jobs is ", background_jobs, "; it must be 1 to 64");
  }
  if (capacity_bytes != 0 && capacity_bytes < kCapacityBytesMin) {
    return Invalid("capacity_bytes is ", capacity_bytes, "; it must be 0 or at least 64 MiB");
  }
  if (room_timeout < absl::ZeroDuration()) return Invalid("room_timeout is negative");
  if (usage_interval <= absl::ZeroDuration()) return Invalid("usage_interval must be positive");
  if (resume_interval < absl::ZeroDuration()) return Invalid("resume_interval is negative");
  if (resume_wait < absl::ZeroDuration()) return Invalid("resume_wait is negative");
  if (now == nullptr) return Invalid("now must be a clock");
  return absl::OkStatus();
}

}  // namespace kvstream

// Where the records of a log begin and end, told from its bytes as they are written.
#ifndef KVSTREAM_STORAGE_ROCKSDB_LOG_RECORDS_H_
#define KVSTREAM_STORAGE_ROCKSDB_LOG_RECORDS_H_

#include <array>
#include <cstddef>
#include <cstdint>

#include "absl/strings/string_view.h"

namespace kvstream {

// Follows RocksDB's log format: blocks of 32 KiB; in each, fragments of a header (checksum, 4
// bytes; payload length, 2 bytes; type, 1 byte) and payload; a block's last 6 bytes or fewer are
// filler. Looks at headers only, some 50 ns each. Not thread-safe.
class LogRecords {
 public:
  // The next bytes of the log, cut anywhere.
  void Append(absl::string_view bytes);

  uint64_t size() const { return size_; }
  // Of the last complete record, 0 if there is none.
  uint64_t end() const { return end_; }
  uint64_t last_begin() const { return last_begin_; }
  // Something else than such a log was appended; then end() and last_begin() stand still.
  bool lost() const { return lost_; }

 private:
  static constexpr size_t kHeaderBytes = 7;

  void TakeHeader();

  uint64_t size_ = 0;
  uint64_t end_ = 0;
  uint64_t last_begin_ = 0;
  bool lost_ = false;
  std::array<char, kHeaderBytes> header_ = {};
  size_t header_bytes_ = 0;   // of the fragment, as far as it is there
  size_t payload_bytes_ = 0;  // of the fragment, still to come
  bool ends_record_ = false;
};

}  // namespace kvstream

#endif  // KVSTREAM_STORAGE_ROCKSDB_LOG_RECORDS_H_

// RocksDB's views of bytes and ours.
#ifndef KVSTREAM_STORAGE_ROCKSDB_SLICES_H_
#define KVSTREAM_STORAGE_ROCKSDB_SLICES_H_

#include <rocksdb/slice.h>

#include "absl/strings/string_view.h"

namespace kvstream {

// Both borrow the bytes.
inline rocksdb::Slice ToSlice(absl::string_view bytes) { return {bytes.data(), bytes.size()}; }
inline absl::string_view ToView(const rocksdb::Slice& slice) {
  return {slice.data(), slice.size()};
}

}  // namespace kvstream

#endif  // KVSTREAM_STORAGE_ROCKSDB_SLICES_H_

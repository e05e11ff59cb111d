// Reading on behind damage.
#ifndef KVSTREAM_STORAGE_ROCKSDB_SKIP_DAMAGE_H_
#define KVSTREAM_STORAGE_ROCKSDB_SKIP_DAMAGE_H_

#include <rocksdb/iterator.h>

#include "absl/strings/string_view.h"

namespace kvstream {

// Puts an iterator that damage has stopped, behind `last` (empty: the beginning), on the first key
// that can be read again. False if there is none. Tells keys apart by their first 8 bytes: made for
// keys that begin with an id, which is a hash, or a time. Two damaged places with intact keys in
// between may pass for one. Some 130 seeks at most.
bool SkipDamage(absl::string_view last, rocksdb::Iterator* it);

}  // namespace kvstream

#endif  // KVSTREAM_STORAGE_ROCKSDB_SKIP_DAMAGE_H_

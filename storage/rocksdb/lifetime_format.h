// Keys and values of the families that came with format version 3: when chunks expire, who has
// pinned them, which are to be deleted, and which chunk follows which. docs/storage.md specifies
// the same for people.
#ifndef KVSTREAM_STORAGE_ROCKSDB_LIFETIME_FORMAT_H_
#define KVSTREAM_STORAGE_ROCKSDB_LIFETIME_FORMAT_H_

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "storage/chunk_store.h"

namespace kvstream::rocksdb_format {

// ExpiryKey -> nothing. Every chunk that expires has at least one key, none later than both its
// `expires` and the end of its pins. Others may be left over; whoever meets one removes it.
inline constexpr char kExpiryFamily[] = "expiry";
// PinKey -> EncodePin. Only of stored chunks.
inline constexpr char kPinsFamily[] = "pins";
// Chunk id -> nothing: stored, and to be deleted when the store is opened.
inline constexpr char kDoomedFamily[] = "doomed";
// ChildKey -> nothing, of every stored chunk that has a parent.
inline constexpr char kChildrenFamily[] = "children";

// A key of `meta` -> nothing: `tenants`, `expiry` and `children`, which can be made from the chunk
// records, are damaged, and are made anew when the store is opened.
inline constexpr char kRebuildKey[] = "rebuild_indexes";

// 8 bytes of time, in the order of times: nanoseconds since the Unix epoch plus 2^63, big-endian;
// then the id. `at` must fit (ValidateExpires) and be finite.
struct Expiry {
  absl::Time at;
  ChunkId id = {};
};
std::string ExpiryKey(absl::Time at, const ChunkId& id);
// The Decode functions: DATA_LOSS unless the bytes are exactly what the Encode function makes.
absl::StatusOr<Expiry> DecodeExpiryKey(absl::string_view key);

// The id, then the owner, 1 to kMaxPinOwnerBytes bytes.
std::string PinKey(const ChunkId& id, absl::string_view owner);
// `until` as signed nanoseconds since the Unix epoch, 8 bytes, and the bytes of the chunk's
// segments when it was written, 8 bytes; little-endian.
struct StoredPin {
  ChunkPin pin;
  uint64_t payload_bytes = 0;
};
std::string EncodePin(absl::Time until, uint64_t payload_bytes);
absl::StatusOr<StoredPin> DecodePin(absl::string_view key, absl::string_view value);

// The parent's id, then the chunk's.
std::string ChildKey(const ChunkId& parent, const ChunkId& child);
// The child.
absl::StatusOr<ChunkId> DecodeChildKey(absl::string_view key);

}  // namespace kvstream::rocksdb_format

#endif  // KVSTREAM_STORAGE_ROCKSDB_LIFETIME_FORMAT_H_

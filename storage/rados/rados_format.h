// What the RADOS driver stores: names of objects, keys and records of format version 1, which
// docs/storage.md specifies for people. All numbers are little-endian.
//
// Objects, all in one namespace of one replicated pool:
//   kvstream             StoreHeader
//   kvstream.sweep       empty; who holds its lock sweeps
//   index.<shard>        omap, the keys below, of the chunks whose ids begin with the shard's bits
//   index.profiles       the same for profiles
//   data.<id>.<generation>.<part>   payload bytes: all segments of a chunk one after the other
// Keys of an index object:
//   c<id>                a stored chunk or profile: DataRecord
//   n                    Counters of the chunks of this shard (chunk_record_format.h)
//   g<time><id><generation><keep bytes>   data that is not, or no longer, needed: GarbageRecord
// Ids, generations and numbers in names are hexadecimal of fixed width, so that names sort as they
// do.
#ifndef KVSTREAM_STORAGE_RADOS_RADOS_FORMAT_H_
#define KVSTREAM_STORAGE_RADOS_RADOS_FORMAT_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "storage/chunk_store.h"

namespace kvstream::rados_format {

// Of the store as a whole; a program refuses a newer one.
inline constexpr uint32_t kStoreVersion = 1;
inline constexpr char kHeaderObject[] = "kvstream";
inline constexpr char kSweepObject[] = "kvstream.sweep";
inline constexpr char kProfilesIndex[] = "index.profiles";
inline constexpr char kCountersKey[] = "n";
inline constexpr char kDataPrefix[] = "c";
inline constexpr char kGarbagePrefix[] = "g";

// A payload is cut into objects of this many bytes, the last shorter: below Ceph's limits for an
// object and a write, and few enough that most chunks are one object.
inline constexpr uint64_t kPartBytes = uint64_t{8} << 20;

// Names one write of a chunk's data: no two writes, of whatever daemon, share an object.
using Generation = std::array<uint8_t, 16>;

// 4 bytes magic "KVSR", 4 bytes version, 4 bytes shards: a power of two up to 4096.
struct StoreHeader {
  uint32_t version = kStoreVersion;
  uint32_t shards = 0;
};
inline constexpr uint32_t kMaxShards = 4096;
std::string EncodeHeader(const StoreHeader& header);
// DATA_LOSS for bytes that are none; FAILED_PRECONDITION for a newer version.
absl::StatusOr<StoreHeader> DecodeHeader(absl::string_view bytes);

// A stored chunk or profile:
//   offset size
//        0    1  record version, 1
//        1    1  0
//        2    2  i, bytes of the info
//        4   16  generation
//       20    i  info: a chunk record (storage/rocksdb/chunk_record_format.h); of a profile one
//                with a single level
//        .  8*n  XXH3-64 of each level's segment, level 0 first
//        .    8  XXH3-64 of everything before
struct DataRecord {
  Generation generation = {};
  ChunkInfo info;
  std::vector<uint64_t> hashes;  // one for each of info.segment_bytes
};
// The info must have passed ValidateChunk.
std::string EncodeData(const DataRecord& record);
// DATA_LOSS unless the bytes are exactly one valid record.
absl::StatusOr<DataRecord> DecodeData(absl::string_view bytes);
uint64_t HashBytes(absl::string_view bytes);

// Data that goes, or is cut to `keep_bytes`, some time after the time in its key: 1 byte state,
// 8 bytes keep_bytes, 8 bytes total_bytes.
enum class GarbageState : uint8_t {
  kPending = 1,  // being written; of use as soon as the chunk's record names it
  kRetired = 2,  // no record names it any more, or only its first keep_bytes
};
struct GarbageRecord {
  GarbageState state = GarbageState::kPending;
  uint64_t keep_bytes = 0;
  uint64_t total_bytes = 0;
};
std::string EncodeGarbage(const GarbageRecord& record);
absl::StatusOr<GarbageRecord> DecodeGarbage(absl::string_view bytes);

struct GarbageKey {
  absl::Time since;  // whole nanoseconds after 1970
  ChunkId id;
  Generation generation;
  uint64_t keep_bytes = 0;  // tells apart what was cut off one generation at the same time
};
std::string EncodeGarbageKey(const GarbageKey& key);
absl::StatusOr<GarbageKey> DecodeGarbageKey(absl::string_view key);

std::string DataKey(const ChunkId& id);
absl::StatusOr<ChunkId> DecodeDataKey(absl::string_view key);

// `shards` as in StoreHeader.
uint32_t ShardOf(const ChunkId& id, uint32_t shards);
std::string IndexObject(uint32_t shard);
std::string DataObject(const ChunkId& id, const Generation& generation, uint64_t part);

}  // namespace kvstream::rados_format

#endif  // KVSTREAM_STORAGE_RADOS_RADOS_FORMAT_H_

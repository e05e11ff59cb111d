// What the RocksDB driver stores: column families, keys and records of format version 3; those that
// came with it are in lifetime_format.h.
// docs/storage.md specifies the same for people. All numbers are little-endian. RocksDB checksums
// every block (XXH3) and every log record (CRC32C), so records carry none of their own.
#ifndef KVSTREAM_STORAGE_ROCKSDB_CHUNK_RECORD_FORMAT_H_
#define KVSTREAM_STORAGE_ROCKSDB_CHUNK_RECORD_FORMAT_H_

#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "storage/chunk_store.h"
#include "storage/eviction_index.h"

namespace kvstream::rocksdb_format {

// Version of the store as a whole: the set of column families, their keys and their records. A
// program refuses stores of a newer version; raise it with every change that an older program would
// misread.
// 1: the first. 2: chunk records of version 2, the family `usage`. 3: chunk records of version 3,
// the family `tenants` and counters of tenants, the families of lifetime_format.h.
inline constexpr uint32_t kStoreVersion = 3;

// Column families. RocksDB's own `default` stays empty.
inline constexpr char kChunksFamily[] = "chunks";      // chunk id -> chunk record
inline constexpr char kSegmentsFamily[] = "segments";  // chunk id, level (1 byte) -> segment
inline constexpr char kProfilesFamily[] = "profiles";  // profile id -> profile
inline constexpr char kMetaFamily[] = "meta";          // the keys below
inline constexpr char kUsageFamily[] = "usage";        // chunk id -> Usage, where it is known
// TenantKey -> nothing, for chunks that have a tenant: lists one tenant's without looking at
// others'.
inline constexpr char kTenantsFamily[] = "tenants";

// Keys of `meta`.
inline constexpr char kVersionKey[] = "store_version";    // -> EncodeVersion
inline constexpr char kCountersKey[] = "store_counters";  // -> Counters, merged by addition
inline constexpr char kClockKey[] = "usage_clock";        // -> EncodeClock
// Followed by a profile id -> nothing: lists profiles without reading them.
inline constexpr char kProfileListPrefix[] = "profile:";
// Followed by a tenant's name -> Counters of its chunks, merged by addition.
inline constexpr char kTenantCountersPrefix[] = "tenant:";

inline constexpr size_t kIdBytes = 32;
inline constexpr size_t kSegmentKeyBytes = kIdBytes + 1;

// Chunk record, version 3 (version 2 has no fields at the end and is written where there are none;
// version 1 also lacks levels_lost and expires, and is read, no longer written):
//   offset size
//        0    1  record version, 3
//        1    1  flags: bit 0 a parent follows; bit 1, always in version 3, fields follow; the
//                others are 0
//        2    2  model_bytes, 0 to kMaxModelBytes
//        4    4  tokens
//        8    8  first_token
//       16    8  created, signed nanoseconds since the Unix epoch
//       24   32  profile id
//       56    2  levels, 1 to kMaxChunkLevels
//       58    2  levels_lost; with levels at most kMaxChunkLevels
//       60    8  expires, signed nanoseconds since the Unix epoch; the largest number: never
//       68   32  parent id, only with flag bit 0
//        .  8*n  segment bytes of each level, level 0 first; their sum is at most kMaxChunkBytes
//        .    m  model
//        .    .  fields, at least one, to the end of the record: tag, 1 byte, ascending; size n, 2
//                bytes; n bytes
// Fields: 1 the tenant, 1 to kMaxTenantBytes; only with it: 2 its id of the chunk, 32 bytes; 3 its
// id of the parent, 32 bytes.
inline constexpr uint8_t kChunkRecordVersion = 3;
inline constexpr uint8_t kChunkRecordVersionWithoutFields = 2;
inline constexpr size_t kChunkRecordHeaderBytes = 68;
inline constexpr size_t kChunkRecordHeaderBytesV1 = 58;

// `info` must have passed ValidateChunk.
std::string EncodeChunkRecord(const ChunkInfo& info);
// DATA_LOSS, saying what is wrong, unless the bytes are exactly one valid record. Never reads
// outside of them; allocates at most their size. FAILED_PRECONDITION for a record version or field
// that this program does not know.
absl::StatusOr<ChunkInfo> DecodeChunkRecord(absl::string_view bytes);

std::string SegmentKey(const ChunkId& id, uint32_t level);
// The id that a key of `chunks` or `profiles` is; DATA_LOSS unless it has kIdBytes.
absl::StatusOr<ChunkId> DecodeIdKey(absl::string_view key);
absl::string_view IdKey(const ChunkId& id);
std::string ProfileListKey(const StoredProfileId& id);

// The size of the tenant's name, 1 byte; the name; and, for a chunk of it, the id.
std::string TenantKey(absl::string_view tenant);
std::string TenantKey(absl::string_view tenant, const ChunkId& id);
std::string TenantCountersKey(absl::string_view tenant);

// Four bytes. DATA_LOSS for another size.
std::string EncodeVersion(uint32_t version);
absl::StatusOr<uint32_t> DecodeVersion(absl::string_view bytes);

// Totals of the store, or what a write batch adds to them; negative numbers are two's complement.
struct Counters {
  uint64_t chunks = 0;
  uint64_t payload_bytes = 0;
};
inline constexpr size_t kCountersBytes = 16;

// How a chunk was used (storage/eviction_index.h): the clock as IEEE 754 double, 8 bytes, and the
// number of uses, 4 bytes. DATA_LOSS for another size or a clock that is not finite.
std::string EncodeUsage(const EvictionIndex::Usage& usage);
absl::StatusOr<EvictionIndex::Usage> DecodeUsage(absl::string_view bytes);
// The clock alone.
std::string EncodeClock(double clock);
absl::StatusOr<double> DecodeClock(absl::string_view bytes);

// `chunks`, then `payload_bytes`, 8 bytes each. DATA_LOSS for another size.
std::string EncodeCounters(const Counters& counters);
absl::StatusOr<Counters> DecodeCounters(absl::string_view bytes);

}  // namespace kvstream::rocksdb_format

#endif  // KVSTREAM_STORAGE_ROCKSDB_CHUNK_RECORD_FORMAT_H_

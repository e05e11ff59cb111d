// What the RADOS driver stores: names of objects, keys and records of format version 3, which
// docs/storage.md specifies for people. All numbers are little-endian.
//
// Objects, all in one namespace of one replicated pool:
//   kvstream             StoreHeader
//   kvstream.sweep       empty; who holds one of its locks sweeps, expires, or keeps the room
//   kvstream.capacity    omap: kClockKey, the clock of eviction
//   kvstream.leases      omap: for each daemon whose loads hold chunks for long, a name that it
//                        has drawn: LeaseRecord
//   index.<shard>        omap, the keys below, of the chunks whose ids begin with the shard's bits
//   index.profiles       the same for profiles
//   data.<id>.<generation>.<part>   payload bytes: all segments of a chunk one after the other
// Keys of an index object:
//   n                    ShardState; every change of a record, or of what data there is,
//                        compares it
//   c<id>                a stored chunk or profile: DataRecord
//   d<time><id>          a stored chunk whose deletion was promised then: "1"
//   e<time><id>          a stored chunk that may expire then (DueTime): "1"
//   g<time><id><generation><keep bytes>
//                        data that is not, or no longer, needed: GarbageRecord
//   k<parent><id><generation>
//                        data of this generation, stored or not, is of a chunk, of any shard, that
//                        names the parent: "1". Lies in the shard of the parent, and goes with the
//                        data
//   o<tenant>.<id>       a stored chunk of the tenant: "1"
//   p<id>                a stored chunk that has pins: "1"
//   q<time><id>          a stored chunk whose first pin ends then: "1"
//   r<tenant>.<id>       a stored chunk of the tenant that has pins: "1"
//   t<tenant>            TenantUse of the tenant's chunks, where it has any
//   u<id>                a stored chunk's Usage (chunk_record_format.h), where it is known
// Ids, generations, tenants and numbers in names are hexadecimal, all but tenants of fixed width,
// so that names sort as they do.
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
#include "absl/types/optional.h"
#include "storage/chunk_store.h"

namespace kvstream::rados_format {

// Of the store as a whole; a program refuses a newer one.
// 1 and 2 were never part of a release and are read no more. 3: this.
inline constexpr uint32_t kStoreVersion = 3;
inline constexpr char kHeaderObject[] = "kvstream";
inline constexpr char kSweepObject[] = "kvstream.sweep";
inline constexpr char kCapacityObject[] = "kvstream.capacity";
inline constexpr char kLeasesObject[] = "kvstream.leases";
inline constexpr char kClockKey[] = "clock";
inline constexpr char kProfilesIndex[] = "index.profiles";
inline constexpr char kStateKey[] = "n";
inline constexpr char kDataPrefix[] = "c";
inline constexpr char kDoomPrefix[] = "d";
inline constexpr char kExpiryPrefix[] = "e";
inline constexpr char kGarbagePrefix[] = "g";
inline constexpr char kChildPrefix[] = "k";
inline constexpr char kOwnedPrefix[] = "o";
inline constexpr char kPinnedPrefix[] = "p";
inline constexpr char kPinEndPrefix[] = "q";
inline constexpr char kOwnedPinnedPrefix[] = "r";
inline constexpr char kTenantPrefix[] = "t";
inline constexpr char kUsagePrefix[] = "u";
// Locks of kSweepObject.
inline constexpr char kSweepLock[] = "sweep";
inline constexpr char kExpiryLock[] = "expiry";
inline constexpr char kKeeperLock[] = "keeper";

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
// DATA_LOSS for bytes that are none; FAILED_PRECONDITION for another version.
absl::StatusOr<StoreHeader> DecodeHeader(absl::string_view bytes);

// What a shard has, and what it may have. 1 byte version, 2; then the fields, 8 bytes each.
struct ShardState {
  uint64_t chunks = 0;
  uint64_t payload_bytes = 0;  // of stored chunks
  uint64_t tenant_chunks = 0;  // of those, chunks that have a tenant
  uint64_t pins = 0;
  uint64_t pinned_bytes = 0;  // of chunks that have pins
  // Of data objects: announced, stored, and retired until it is removed.
  uint64_t data_bytes = 0;
  // Who allots room to the shards; 0: nobody, the store is not bounded.
  uint64_t keeper = 0;
  // What data_bytes may grow to.
  uint64_t allotted_bytes = 0;
  uint64_t wanted_bytes = 0;  // an upload found no room for so much

  bool operator==(const ShardState& other) const;
};
inline constexpr size_t kShardStateBytes = 73;
std::string EncodeState(const ShardState& state);
// No bytes are those of a shard that nothing was ever done to. DATA_LOSS for others that are none.
absl::StatusOr<ShardState> DecodeState(absl::string_view bytes);

// A stored chunk or profile:
//   offset size
//        0    1  record version: 2 with pins or a promise of deletion, else 1
//        1    1  0
//        2    2  i, bytes of the info
//        4   16  generation
//       20    i  info: a chunk record (storage/rocksdb/chunk_record_format.h); of a profile one
//                with a single level
//        .  8*n  XXH3-64 of each level's segment, level 0 first
//        .    8  version 2: when deletion was promised, nanoseconds after 1970; the largest: never
//        .    2  version 2: pins
//        .    .  version 2: each pin, in the order of owners: 1 byte size of the owner, the owner,
//                8 bytes end, nanoseconds after 1970
//        .    8  XXH3-64 of everything before
struct DataPin {
  std::string owner;  // 1 to kMaxPinOwnerBytes
  absl::Time until;   // whole nanoseconds
};
inline constexpr size_t kMaxPinsOfChunk = 64;
struct DataRecord {
  Generation generation = {};
  ChunkInfo info;
  std::vector<uint64_t> hashes;  // one for each of info.segment_bytes
  absl::Time doomed = absl::InfiniteFuture();
  std::vector<DataPin> pins;  // also such as have ended, until somebody takes note
};
// Whether a pin lasts longer than `now`.
bool Pinned(const DataRecord& record, absl::Time now);
// When Expire has to look at the chunk: not before it expires, nor while it is pinned.
absl::Time DueTime(const DataRecord& record);
// InfiniteFuture without pins.
absl::Time FirstPinEnd(const DataRecord& record);

// The info must have passed ValidateChunk.
std::string EncodeData(const DataRecord& record);
// DATA_LOSS unless the bytes are exactly one valid record.
absl::StatusOr<DataRecord> DecodeData(absl::string_view bytes);
uint64_t HashBytes(absl::string_view bytes);

// Data that goes, or is cut to `keep_bytes`, some time after the time in its key: 1 byte state,
// 8 bytes keep_bytes, 8 bytes total_bytes, and 32 bytes parent where there is one.
enum class GarbageState : uint8_t {
  kPending = 1,  // being written; of use as soon as the chunk's record names it
  kRetired = 2,  // no record names it any more, or only its first keep_bytes
};
struct GarbageRecord {
  GarbageState state = GarbageState::kPending;
  uint64_t keep_bytes = 0;
  uint64_t total_bytes = 0;
  // Under which the data has a name that goes with it: none if the chunk had no parent, or goes on
  // with what is kept.
  absl::optional<ChunkId> parent = absl::nullopt;
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

// What the loads of a daemon still read, by LeaseName; data of these chunks stays until then:
//   offset size
//        0    1  version, 1
//        1    8  until, nanoseconds after 1970
//        9    4  n, number of chunks, at most kMaxLeasedChunks
//       13  8*n  their names
//        .    8  XXH3-64 of everything before
struct LeaseRecord {
  absl::Time until;  // whole nanoseconds
  std::vector<uint64_t> chunks;
};
inline constexpr size_t kMaxLeasedChunks = 65536;
// The first eight bytes of the id.
uint64_t LeaseName(const ChunkId& id);
std::string EncodeLease(const LeaseRecord& record);
// DATA_LOSS unless the bytes are exactly one record.
absl::StatusOr<LeaseRecord> DecodeLease(absl::string_view bytes);

// Keys of a time and an id, of kDoomPrefix, kExpiryPrefix and kPinEndPrefix. Sorts by time, then
// id. The time is whole nanoseconds of 64 bits.
struct TimeKey {
  absl::Time time;
  ChunkId id;
};
std::string EncodeTimeKey(absl::string_view prefix, const TimeKey& key);
absl::StatusOr<TimeKey> DecodeTimeKey(absl::string_view prefix, absl::string_view key);

// Keys of an id: kDataPrefix, kPinnedPrefix, kUsagePrefix, and what ends with an id: OwnedPrefix,
// OwnedPinnedPrefix.
std::string IdKey(absl::string_view prefix, const ChunkId& id);
absl::StatusOr<ChunkId> DecodeIdKey(absl::string_view prefix, absl::string_view key);
std::string OwnedPrefix(absl::string_view tenant);
std::string OwnedPinnedPrefix(absl::string_view tenant);
std::string TenantKey(absl::string_view tenant);
absl::StatusOr<std::string> DecodeTenantKey(absl::string_view key);

// What a shard has of a tenant: chunks, payload_bytes, pins, pinned_bytes, 8 bytes each.
inline constexpr size_t kTenantUseBytes = 32;
std::string EncodeTenantUse(const TenantUse& use);
// DATA_LOSS for another size.
absl::StatusOr<TenantUse> DecodeTenantUse(absl::string_view bytes);

// The data of a chunk that names a parent. Sorts by parent, then id.
struct ChildName {
  ChunkId id;
  Generation generation;
};
std::string ChildrenPrefix(const ChunkId& parent);
std::string ChildKey(const ChunkId& parent, const ChildName& name);
// `prefix`: ChildrenPrefix of the parent.
absl::StatusOr<ChildName> DecodeChildKey(absl::string_view prefix, absl::string_view key);

std::string DataKey(const ChunkId& id);
absl::StatusOr<ChunkId> DecodeDataKey(absl::string_view key);

// `shards` as in StoreHeader.
uint32_t ShardOf(const ChunkId& id, uint32_t shards);
std::string IndexObject(uint32_t shard);
std::string DataObject(const ChunkId& id, const Generation& generation, uint64_t part);

}  // namespace kvstream::rados_format

#endif  // KVSTREAM_STORAGE_RADOS_RADOS_FORMAT_H_

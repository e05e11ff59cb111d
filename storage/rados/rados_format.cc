#include "storage/rados/rados_format.h"

#include <xxhash.h>

#include <algorithm>
#include <limits>

#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/strip.h"
#include "storage/chunk_limits.h"
#include "storage/rocksdb/chunk_record_format.h"

namespace kvstream::rados_format {
namespace {

constexpr char kMagic[] = "KVSR";
constexpr size_t kHeaderBytes = 12;
constexpr uint8_t kPlainDataVersion = 1;
constexpr uint8_t kDataVersion = 2;
constexpr uint8_t kStateVersion = 2;
constexpr size_t kDataHeaderBytes = 20;
constexpr size_t kGarbageBytes = 17;
constexpr uint8_t kLeaseVersion = 1;
constexpr size_t kLeaseHeaderBytes = 13;
constexpr uint64_t kSignBit = uint64_t{1} << 63;
constexpr int64_t kNever = std::numeric_limits<int64_t>::max();

void Append(uint64_t value, size_t bytes, std::string* out) {
  for (size_t i = 0; i < bytes; ++i) out->push_back(static_cast<char>(value >> (8 * i)));
}

// The caller has checked that the bytes are there.
uint64_t Take(size_t bytes, absl::string_view* from) {
  uint64_t value = 0;
  for (size_t i = 0; i < bytes; ++i) {
    value |= static_cast<uint64_t>(static_cast<uint8_t>((*from)[i])) << (8 * i);
  }
  from->remove_prefix(bytes);
  return value;
}

template <typename Bytes>
std::string Hex(const Bytes& bytes) {
  return absl::BytesToHexString(
      absl::string_view(reinterpret_cast<const char*>(bytes.data()), bytes.size()));
}

std::string Hex(uint64_t number) { return absl::StrFormat("%016x", number); }

// Takes two characters a byte off `from`; false if they are not there or not lower-case digits.
template <typename Bytes>
bool TakeHex(absl::string_view* from, Bytes* bytes) {
  const size_t digits = 2 * bytes->size();
  if (from->size() < digits) return false;
  const auto digit = [](char c) {
    if (c >= '0' && c <= '9') return c - '0';
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
  };
  for (size_t i = 0; i < bytes->size(); ++i) {
    const int high = digit((*from)[2 * i]), low = digit((*from)[2 * i + 1]);
    if (high < 0 || low < 0) return false;
    (*bytes)[i] = static_cast<uint8_t>(16 * high + low);
  }
  from->remove_prefix(digits);
  return true;
}

bool TakeHexNumber(absl::string_view* from, uint64_t* number) {
  std::array<uint8_t, 8> bytes;
  if (!TakeHex(from, &bytes)) return false;
  *number = 0;
  for (uint8_t byte : bytes) *number = *number << 8 | byte;
  return true;
}

absl::Status Damaged(absl::string_view what, absl::string_view how) {
  return absl::DataLossError(absl::StrCat(what, ": ", how));
}

}  // namespace

std::string EncodeHeader(const StoreHeader& header) {
  std::string bytes(kMagic, 4);
  Append(header.version, 4, &bytes);
  Append(header.shards, 4, &bytes);
  return bytes;
}

absl::StatusOr<StoreHeader> DecodeHeader(absl::string_view bytes) {
  if (bytes.size() < 8 || bytes.substr(0, 4) != absl::string_view(kMagic, 4)) {
    return Damaged("store header", "it is not one of KVStream");
  }
  bytes.remove_prefix(4);
  StoreHeader header;
  header.version = static_cast<uint32_t>(Take(4, &bytes));
  if (header.version > kStoreVersion) {
    return absl::FailedPreconditionError(
        absl::StrCat("the pool holds a store of version ", header.version,
                     ", but this program reads up to ", kStoreVersion, ": use a newer one"));
  }
  if (header.version == 1 || header.version == 2) {
    return absl::FailedPreconditionError(absl::StrCat(
        "the namespace holds a store of version ", header.version,
        ", which this program reads no more: give the daemons another one (--rados-namespace), "
        "put contexts there, and remove the objects of the old one (rados purge, or rados rm of "
        "each)"));
  }
  if (header.version == 0 || bytes.size() != kHeaderBytes - 8) {
    return Damaged("store header", "its version or size is wrong");
  }
  header.shards = static_cast<uint32_t>(Take(4, &bytes));
  if (header.shards == 0 || header.shards > kMaxShards ||
      (header.shards & (header.shards - 1)) != 0) {
    return Damaged("store header", absl::StrCat("it announces ", header.shards, " shards"));
  }
  return header;
}

uint64_t HashBytes(absl::string_view bytes) { return XXH3_64bits(bytes.data(), bytes.size()); }

bool ShardState::operator==(const ShardState& other) const {
  return EncodeState(*this) == EncodeState(other);
}

std::string EncodeState(const ShardState& state) {
  std::string bytes;
  bytes.reserve(kShardStateBytes);
  Append(kStateVersion, 1, &bytes);
  for (uint64_t field :
       {state.chunks, state.payload_bytes, state.tenant_chunks, state.pins, state.pinned_bytes,
        state.data_bytes, state.keeper, state.allotted_bytes, state.wanted_bytes}) {
    Append(field, 8, &bytes);
  }
  return bytes;
}

absl::StatusOr<ShardState> DecodeState(absl::string_view bytes) {
  constexpr absl::string_view kWhat = "state of an index object";
  ShardState state;
  if (bytes.empty()) return state;
  if (bytes.size() != kShardStateBytes) return Damaged(kWhat, "its size is wrong");
  if (Take(1, &bytes) != kStateVersion) return Damaged(kWhat, "its version is wrong");
  for (uint64_t* field :
       {&state.chunks, &state.payload_bytes, &state.tenant_chunks, &state.pins, &state.pinned_bytes,
        &state.data_bytes, &state.keeper, &state.allotted_bytes, &state.wanted_bytes}) {
    *field = Take(8, &bytes);
  }
  return state;
}

bool Pinned(const DataRecord& record, absl::Time now) {
  return std::any_of(record.pins.begin(), record.pins.end(),
                     [now](const DataPin& pin) { return pin.until > now; });
}

absl::Time DueTime(const DataRecord& record) {
  absl::Time due = record.info.expires;
  for (const DataPin& pin : record.pins) due = std::max(due, pin.until);
  return record.info.expires == absl::InfiniteFuture() ? absl::InfiniteFuture() : due;
}

absl::Time FirstPinEnd(const DataRecord& record) {
  absl::Time first = absl::InfiniteFuture();
  for (const DataPin& pin : record.pins) first = std::min(first, pin.until);
  return first;
}

std::string EncodeData(const DataRecord& record) {
  const std::string info = rocksdb_format::EncodeChunkRecord(record.info);
  const bool plain = record.pins.empty() && record.doomed == absl::InfiniteFuture();
  std::string bytes;
  bytes.reserve(kDataHeaderBytes + info.size() + 8 * record.hashes.size() + 8);
  Append(plain ? kPlainDataVersion : kDataVersion, 1, &bytes);
  Append(0, 1, &bytes);
  Append(info.size(), 2, &bytes);
  bytes.append(record.generation.begin(), record.generation.end());
  bytes.append(info);
  for (uint64_t hash : record.hashes) Append(hash, 8, &bytes);
  if (!plain) {
    const bool never = record.doomed == absl::InfiniteFuture();
    Append(static_cast<uint64_t>(never ? kNever : absl::ToUnixNanos(record.doomed)), 8, &bytes);
    Append(record.pins.size(), 2, &bytes);
    for (const DataPin& pin : record.pins) {
      Append(pin.owner.size(), 1, &bytes);
      bytes.append(pin.owner);
      Append(static_cast<uint64_t>(absl::ToUnixNanos(pin.until)), 8, &bytes);
    }
  }
  Append(HashBytes(bytes), 8, &bytes);
  return bytes;
}

absl::StatusOr<DataRecord> DecodeData(absl::string_view bytes) {
  constexpr absl::string_view kWhat = "index record";
  if (bytes.size() < kDataHeaderBytes + 8) return Damaged(kWhat, "it is too short");
  absl::string_view hash = bytes.substr(bytes.size() - 8);
  bytes.remove_suffix(8);
  if (Take(8, &hash) != HashBytes(bytes)) return Damaged(kWhat, "its checksum does not match");
  const auto version = Take(1, &bytes);
  const auto reserved = Take(1, &bytes);
  if ((version != kPlainDataVersion && version != kDataVersion) || reserved != 0) {
    return absl::FailedPreconditionError(absl::StrCat("index record: has version ", version, ".",
                                                      reserved,
                                                      ", which this program does not read"));
  }
  const auto info_bytes = static_cast<size_t>(Take(2, &bytes));
  DataRecord record;
  std::copy_n(bytes.begin(), record.generation.size(), record.generation.begin());
  bytes.remove_prefix(record.generation.size());
  if (bytes.size() < info_bytes) return Damaged(kWhat, "its info is cut off");
  absl::StatusOr<ChunkInfo> info = rocksdb_format::DecodeChunkRecord(bytes.substr(0, info_bytes));
  if (!info.ok()) return info.status();
  record.info = *std::move(info);
  bytes.remove_prefix(info_bytes);
  const size_t levels = record.info.segment_bytes.size();
  if (bytes.size() < 8 * levels) return Damaged(kWhat, "it has not one checksum a level");
  record.hashes.reserve(levels);
  for (size_t level = 0; level < levels; ++level) record.hashes.push_back(Take(8, &bytes));
  if (version == kDataVersion) {
    if (bytes.size() < 10) return Damaged(kWhat, "it is cut off before its pins");
    const auto doomed = static_cast<int64_t>(Take(8, &bytes));
    if (doomed != kNever) record.doomed = absl::FromUnixNanos(doomed);
    const auto pins = static_cast<size_t>(Take(2, &bytes));
    if (pins > kMaxPinsOfChunk) return Damaged(kWhat, "it has too many pins");
    for (size_t i = 0; i < pins; ++i) {
      const size_t owner_bytes = bytes.empty() ? 0 : static_cast<size_t>(Take(1, &bytes));
      if (owner_bytes == 0 || owner_bytes > kMaxPinOwnerBytes || bytes.size() < owner_bytes + 8) {
        return Damaged(kWhat, "a pin is cut off");
      }
      DataPin pin;
      pin.owner = std::string(bytes.substr(0, owner_bytes));
      bytes.remove_prefix(owner_bytes);
      pin.until = absl::FromUnixNanos(static_cast<int64_t>(Take(8, &bytes)));
      if (i > 0 && record.pins.back().owner >= pin.owner) {
        return Damaged(kWhat, "its pins are not in order");
      }
      record.pins.push_back(std::move(pin));
    }
  }
  if (!bytes.empty()) return Damaged(kWhat, "it is longer than what it holds");
  return record;
}

std::string EncodeGarbage(const GarbageRecord& record) {
  std::string bytes;
  Append(static_cast<uint8_t>(record.state), 1, &bytes);
  Append(record.keep_bytes, 8, &bytes);
  Append(record.total_bytes, 8, &bytes);
  if (record.parent.has_value()) bytes.append(record.parent->begin(), record.parent->end());
  return bytes;
}

absl::StatusOr<GarbageRecord> DecodeGarbage(absl::string_view bytes) {
  constexpr absl::string_view kWhat = "garbage record";
  GarbageRecord record;
  if (bytes.size() == kGarbageBytes + sizeof(ChunkId)) {
    std::copy_n(bytes.end() - sizeof(ChunkId), sizeof(ChunkId), record.parent.emplace().begin());
  } else if (bytes.size() != kGarbageBytes) {
    return Damaged(kWhat, "its size is wrong");
  }
  const auto state = Take(1, &bytes);
  if (state != static_cast<uint8_t>(GarbageState::kPending) &&
      state != static_cast<uint8_t>(GarbageState::kRetired)) {
    return Damaged(kWhat, "its state is unknown");
  }
  record.state = static_cast<GarbageState>(state);
  record.keep_bytes = Take(8, &bytes);
  record.total_bytes = Take(8, &bytes);
  // No payload is larger than 1 GiB: bounds the objects that a sweep asks for.
  if (record.keep_bytes > record.total_bytes || record.total_bytes > uint64_t{1} << 30) {
    return Damaged(kWhat, "its sizes make no sense");
  }
  return record;
}

std::string EncodeGarbageKey(const GarbageKey& key) {
  return absl::StrCat(kGarbagePrefix, Hex(static_cast<uint64_t>(absl::ToUnixNanos(key.since))),
                      Hex(key.id), Hex(key.generation), Hex(key.keep_bytes));
}

absl::StatusOr<GarbageKey> DecodeGarbageKey(absl::string_view key) {
  GarbageKey decoded;
  uint64_t nanos = 0;
  const bool good = key.substr(0, 1) == kGarbagePrefix &&
                    (key.remove_prefix(1), TakeHexNumber(&key, &nanos)) &&
                    TakeHex(&key, &decoded.id) && TakeHex(&key, &decoded.generation) &&
                    TakeHexNumber(&key, &decoded.keep_bytes) && key.empty() &&
                    nanos <= static_cast<uint64_t>(std::numeric_limits<int64_t>::max());
  if (!good) return Damaged("garbage key", "it is not one");
  decoded.since = absl::FromUnixNanos(static_cast<int64_t>(nanos));
  return decoded;
}

uint64_t LeaseName(const ChunkId& id) {
  absl::string_view bytes(reinterpret_cast<const char*>(id.data()), id.size());
  return Take(8, &bytes);
}

std::string EncodeLease(const LeaseRecord& record) {
  std::string bytes;
  bytes.reserve(kLeaseHeaderBytes + 8 * record.chunks.size() + 8);
  Append(kLeaseVersion, 1, &bytes);
  Append(static_cast<uint64_t>(absl::ToUnixNanos(record.until)), 8, &bytes);
  Append(record.chunks.size(), 4, &bytes);
  for (uint64_t chunk : record.chunks) Append(chunk, 8, &bytes);
  Append(HashBytes(bytes), 8, &bytes);
  return bytes;
}

absl::StatusOr<LeaseRecord> DecodeLease(absl::string_view bytes) {
  constexpr absl::string_view kWhat = "lease";
  if (bytes.size() < kLeaseHeaderBytes + 8) return Damaged(kWhat, "it is too short");
  absl::string_view hash = bytes.substr(bytes.size() - 8);
  bytes.remove_suffix(8);
  if (Take(8, &hash) != HashBytes(bytes)) return Damaged(kWhat, "its checksum does not match");
  if (Take(1, &bytes) != kLeaseVersion) return Damaged(kWhat, "its version is wrong");
  LeaseRecord record;
  record.until = absl::FromUnixNanos(static_cast<int64_t>(Take(8, &bytes)));
  const uint64_t chunks = Take(4, &bytes);
  if (chunks > kMaxLeasedChunks || bytes.size() != 8 * chunks) {
    return Damaged(kWhat, "its number of chunks is wrong");
  }
  record.chunks.reserve(chunks);
  while (!bytes.empty()) record.chunks.push_back(Take(8, &bytes));
  return record;
}

std::string EncodeTimeKey(absl::string_view prefix, const TimeKey& key) {
  // Times before 1970 come before the others.
  const uint64_t nanos = static_cast<uint64_t>(absl::ToUnixNanos(key.time)) ^ kSignBit;
  return absl::StrCat(prefix, Hex(nanos), Hex(key.id));
}

absl::StatusOr<TimeKey> DecodeTimeKey(absl::string_view prefix, absl::string_view key) {
  TimeKey decoded;
  uint64_t nanos = 0;
  const bool good = absl::ConsumePrefix(&key, prefix) && TakeHexNumber(&key, &nanos) &&
                    TakeHex(&key, &decoded.id) && key.empty();
  if (!good) return Damaged("index key", "it is not a time and an id");
  decoded.time = absl::FromUnixNanos(static_cast<int64_t>(nanos ^ kSignBit));
  return decoded;
}

std::string IdKey(absl::string_view prefix, const ChunkId& id) {
  return absl::StrCat(prefix, Hex(id));
}

absl::StatusOr<ChunkId> DecodeIdKey(absl::string_view prefix, absl::string_view key) {
  ChunkId id;
  const bool good = absl::ConsumePrefix(&key, prefix) && TakeHex(&key, &id) && key.empty();
  if (!good) return Damaged("index key", "it is not an id");
  return id;
}

std::string OwnedPrefix(absl::string_view tenant) {
  return absl::StrCat(kOwnedPrefix, absl::BytesToHexString(tenant), ".");
}

std::string OwnedPinnedPrefix(absl::string_view tenant) {
  return absl::StrCat(kOwnedPinnedPrefix, absl::BytesToHexString(tenant), ".");
}

std::string ChildrenPrefix(const ChunkId& parent) {
  return absl::StrCat(kChildPrefix, Hex(parent));
}

std::string ChildKey(const ChunkId& parent, const ChildName& name) {
  return absl::StrCat(ChildrenPrefix(parent), Hex(name.id), Hex(name.generation));
}

absl::StatusOr<ChildName> DecodeChildKey(absl::string_view prefix, absl::string_view key) {
  ChildName name;
  const bool good = absl::ConsumePrefix(&key, prefix) && TakeHex(&key, &name.id) &&
                    TakeHex(&key, &name.generation) && key.empty();
  if (!good) return Damaged("index key", "it is not an id and a generation");
  return name;
}

std::string TenantKey(absl::string_view tenant) {
  return absl::StrCat(kTenantPrefix, absl::BytesToHexString(tenant));
}

absl::StatusOr<std::string> DecodeTenantKey(absl::string_view key) {
  // HexStringToBytes does not say what is wrong with its argument.
  const bool good = absl::ConsumePrefix(&key, kTenantPrefix) && key.size() % 2 == 0 &&
                    key.size() <= 2 * kMaxTenantBytes &&
                    std::all_of(key.begin(), key.end(), absl::ascii_isxdigit);
  if (!good) return Damaged("index key", "it is not a tenant");
  return absl::HexStringToBytes(key);
}

std::string EncodeTenantUse(const TenantUse& use) {
  std::string bytes;
  for (uint64_t field : {use.chunks, use.payload_bytes, use.pins, use.pinned_bytes}) {
    Append(field, 8, &bytes);
  }
  return bytes;
}

absl::StatusOr<TenantUse> DecodeTenantUse(absl::string_view bytes) {
  if (bytes.size() != kTenantUseBytes) return Damaged("what a tenant has", "its size is wrong");
  TenantUse use;
  for (uint64_t* field : {&use.chunks, &use.payload_bytes, &use.pins, &use.pinned_bytes}) {
    *field = Take(8, &bytes);
  }
  return use;
}

std::string DataKey(const ChunkId& id) { return IdKey(kDataPrefix, id); }

absl::StatusOr<ChunkId> DecodeDataKey(absl::string_view key) {
  return DecodeIdKey(kDataPrefix, key);
}

uint32_t ShardOf(const ChunkId& id, uint32_t shards) {
  const uint32_t first = uint32_t{id[0]} << 8 | id[1];
  return static_cast<uint32_t>(uint64_t{first} * shards >> 16);
}

std::string IndexObject(uint32_t shard) { return absl::StrFormat("index.%04x", shard); }

std::string DataObject(const ChunkId& id, const Generation& generation, uint64_t part) {
  return absl::StrCat("data.", Hex(id), ".", Hex(generation), ".", part);
}

}  // namespace kvstream::rados_format

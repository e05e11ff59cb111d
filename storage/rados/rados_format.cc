#include "storage/rados/rados_format.h"

#include <xxhash.h>

#include <algorithm>
#include <limits>

#include "absl/status/status.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "storage/rocksdb/chunk_record_format.h"

namespace kvstream::rados_format {
namespace {

constexpr char kMagic[] = "KVSR";
constexpr size_t kHeaderBytes = 12;
constexpr uint8_t kDataVersion = 1;
constexpr size_t kDataHeaderBytes = 20;
constexpr size_t kGarbageBytes = 17;

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

std::string EncodeData(const DataRecord& record) {
  const std::string info = rocksdb_format::EncodeChunkRecord(record.info);
  std::string bytes;
  bytes.reserve(kDataHeaderBytes + info.size() + 8 * record.hashes.size() + 8);
  Append(kDataVersion, 1, &bytes);
  Append(0, 1, &bytes);
  Append(info.size(), 2, &bytes);
  bytes.append(record.generation.begin(), record.generation.end());
  bytes.append(info);
  for (uint64_t hash : record.hashes) Append(hash, 8, &bytes);
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
  if (version != kDataVersion || reserved != 0) {
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
  if (bytes.size() != 8 * levels) return Damaged(kWhat, "it has not one checksum a level");
  record.hashes.reserve(levels);
  for (size_t level = 0; level < levels; ++level) record.hashes.push_back(Take(8, &bytes));
  return record;
}

std::string EncodeGarbage(const GarbageRecord& record) {
  std::string bytes;
  Append(static_cast<uint8_t>(record.state), 1, &bytes);
  Append(record.keep_bytes, 8, &bytes);
  Append(record.total_bytes, 8, &bytes);
  return bytes;
}

absl::StatusOr<GarbageRecord> DecodeGarbage(absl::string_view bytes) {
  constexpr absl::string_view kWhat = "garbage record";
  if (bytes.size() != kGarbageBytes) return Damaged(kWhat, "its size is wrong");
  const auto state = Take(1, &bytes);
  GarbageRecord record;
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

std::string DataKey(const ChunkId& id) { return absl::StrCat(kDataPrefix, Hex(id)); }

absl::StatusOr<ChunkId> DecodeDataKey(absl::string_view key) {
  ChunkId id;
  const bool good =
      key.substr(0, 1) == kDataPrefix && (key.remove_prefix(1), TakeHex(&key, &id)) && key.empty();
  if (!good) return Damaged("index key", "it is not an id");
  return id;
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

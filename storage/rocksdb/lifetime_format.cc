#include "storage/rocksdb/lifetime_format.h"

#include <algorithm>
#include <cstddef>

#include "absl/strings/str_cat.h"
#include "storage/chunk_limits.h"
#include "storage/rocksdb/chunk_record_format.h"

namespace kvstream::rocksdb_format {
namespace {

constexpr size_t kTimeBytes = 8;
constexpr uint64_t kSign = uint64_t{1} << 63;

absl::Status WrongSize(absl::string_view what, size_t bytes) {
  return absl::DataLossError(absl::StrCat(what, " has ", bytes, " bytes"));
}

ChunkId IdAt(absl::string_view bytes, size_t offset) {
  ChunkId id;
  std::copy_n(bytes.begin() + static_cast<std::ptrdiff_t>(offset), kIdBytes, id.begin());
  return id;
}

void AppendLittle(uint64_t value, std::string* out) {
  for (size_t i = 0; i < 8; ++i) out->push_back(static_cast<char>(value >> (8 * i)));
}

uint64_t LittleAt(absl::string_view bytes, size_t offset) {
  uint64_t value = 0;
  for (size_t i = 0; i < 8; ++i) {
    value |= static_cast<uint64_t>(static_cast<uint8_t>(bytes[offset + i])) << (8 * i);
  }
  return value;
}

}  // namespace

std::string ExpiryKey(absl::Time at, const ChunkId& id) {
  const uint64_t bits = static_cast<uint64_t>(absl::ToUnixNanos(at)) ^ kSign;
  std::string key;
  key.reserve(kTimeBytes + kIdBytes);
  for (size_t i = 0; i < kTimeBytes; ++i) {
    key.push_back(static_cast<char>(bits >> (8 * (kTimeBytes - 1 - i))));
  }
  key.append(IdKey(id).data(), kIdBytes);
  return key;
}

absl::StatusOr<Expiry> DecodeExpiryKey(absl::string_view key) {
  if (key.size() != kTimeBytes + kIdBytes) return WrongSize("a key of expiry", key.size());
  uint64_t bits = 0;
  for (size_t i = 0; i < kTimeBytes; ++i) bits = bits << 8 | static_cast<uint8_t>(key[i]);
  Expiry expiry;
  expiry.at = absl::FromUnixNanos(static_cast<int64_t>(bits ^ kSign));
  expiry.id = IdAt(key, kTimeBytes);
  return expiry;
}

std::string PinKey(const ChunkId& id, absl::string_view owner) {
  return absl::StrCat(IdKey(id), owner);
}

std::string EncodePin(absl::Time until, uint64_t payload_bytes) {
  std::string bytes;
  AppendLittle(static_cast<uint64_t>(absl::ToUnixNanos(until)), &bytes);
  AppendLittle(payload_bytes, &bytes);
  return bytes;
}

absl::StatusOr<StoredPin> DecodePin(absl::string_view key, absl::string_view value) {
  if (key.size() <= kIdBytes || key.size() > kIdBytes + kMaxPinOwnerBytes) {
    return WrongSize("a key of a pin", key.size());
  }
  if (value.size() != 16) return WrongSize("a pin", value.size());
  StoredPin stored;
  stored.pin.id = IdAt(key, 0);
  stored.pin.owner = std::string(key.substr(kIdBytes));
  stored.pin.until = absl::FromUnixNanos(static_cast<int64_t>(LittleAt(value, 0)));
  stored.payload_bytes = LittleAt(value, 8);
  if (stored.payload_bytes > kMaxChunkBytes) {
    return absl::DataLossError(absl::StrCat("a pin names ", stored.payload_bytes, " bytes"));
  }
  return stored;
}

std::string ChildKey(const ChunkId& parent, const ChunkId& child) {
  return absl::StrCat(IdKey(parent), IdKey(child));
}

absl::StatusOr<ChunkId> DecodeChildKey(absl::string_view key) {
  if (key.size() != 2 * kIdBytes) return WrongSize("a key of children", key.size());
  return IdAt(key, kIdBytes);
}

}  // namespace kvstream::rocksdb_format

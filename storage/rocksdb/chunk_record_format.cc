#include "storage/rocksdb/chunk_record_format.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <type_traits>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "storage/chunk_limits.h"

namespace kvstream::rocksdb_format {
namespace {

constexpr uint8_t kHasParent = 1;
constexpr uint8_t kHasFields = 2;

enum FieldTag : uint8_t { kTenant = 1, kOuterId = 2, kOuterParent = 3 };
constexpr size_t kFieldHeaderBytes = 3;

template <typename T>
void Append(T value, std::string* out) {
  static_assert(std::is_unsigned_v<T>);
  for (size_t i = 0; i < sizeof(T); ++i) {
    out->push_back(static_cast<char>(static_cast<uint64_t>(value) >> (8 * i)));
  }
}

void Append(const ChunkId& id, std::string* out) { out->append(id.begin(), id.end()); }

// The caller has checked that sizeof(T) bytes are there.
template <typename T>
T Take(absl::string_view* bytes) {
  static_assert(std::is_unsigned_v<T>);
  static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the format's order of bytes");
  T value;
  std::memcpy(&value, bytes->data(), sizeof(T));
  bytes->remove_prefix(sizeof(T));
  return value;
}

ChunkId TakeId(absl::string_view* bytes) {
  ChunkId id;
  std::copy_n(bytes->begin(), kIdBytes, id.begin());
  bytes->remove_prefix(kIdBytes);
  return id;
}

template <typename... What>
absl::Status Damaged(const What&... what) {
  return absl::DataLossError(absl::StrCat("chunk record: ", what...));
}

void AppendField(FieldTag tag, absl::string_view bytes, std::string* out) {
  Append<uint8_t>(tag, out);
  Append(static_cast<uint16_t>(bytes.size()), out);
  out->append(bytes.data(), bytes.size());
}

absl::Status TakeId(FieldTag tag, absl::string_view bytes, absl::optional<ChunkId>* id) {
  if (bytes.size() != kIdBytes) {
    return Damaged("has a field ", static_cast<int>(tag), " of ", bytes.size(), " bytes");
  }
  id->emplace();
  std::copy_n(bytes.begin(), kIdBytes, (*id)->begin());
  return absl::OkStatus();
}

absl::Status TakeFields(absl::string_view bytes, ChunkInfo* info) {
  int last_tag = 0;
  do {
    if (bytes.size() < kFieldHeaderBytes) return Damaged("ends amid a field");
    const auto tag = Take<uint8_t>(&bytes);
    const auto size = Take<uint16_t>(&bytes);
    if (size > bytes.size()) return Damaged("ends amid field ", tag);
    if (tag <= last_tag) return Damaged("has field ", tag, " after field ", last_tag);
    last_tag = tag;
    const absl::string_view value = bytes.substr(0, size);
    bytes.remove_prefix(size);
    absl::Status status;
    if (tag == kTenant) {
      if (value.empty() || value.size() > kMaxTenantBytes) {
        return Damaged("has a tenant of ", value.size(), " bytes");
      }
      info->tenant = std::string(value);
    } else if (tag == kOuterId) {
      status = TakeId(kOuterId, value, &info->outer_id);
    } else if (tag == kOuterParent) {
      status = TakeId(kOuterParent, value, &info->outer_parent);
    } else {
      return absl::FailedPreconditionError(
          absl::StrCat("chunk record: has a field ", tag,
                       ", which this program does not know: use a newer one"));
    }
    if (!status.ok()) return status;
    if (info->tenant.empty()) return Damaged("has field ", tag, " but no tenant");
  } while (!bytes.empty());
  return absl::OkStatus();
}

}  // namespace

std::string EncodeChunkRecord(const ChunkInfo& info) {
  const bool has_fields = !info.tenant.empty();
  std::string record;
  record.reserve(kChunkRecordHeaderBytes + 3 * (kIdBytes + kFieldHeaderBytes) +
                 8 * info.segment_bytes.size() + info.model.size() + info.tenant.size());
  Append<uint8_t>(has_fields ? kChunkRecordVersion : kChunkRecordVersionWithoutFields, &record);
  Append<uint8_t>((info.parent.has_value() ? kHasParent : 0) | (has_fields ? kHasFields : 0),
                  &record);
  Append(static_cast<uint16_t>(info.model.size()), &record);
  Append<uint32_t>(info.tokens, &record);
  Append<uint64_t>(info.first_token, &record);
  Append(static_cast<uint64_t>(absl::ToUnixNanos(info.created)), &record);
  Append(info.profile_id, &record);
  Append(static_cast<uint16_t>(info.segment_bytes.size()), &record);
  Append(static_cast<uint16_t>(info.levels_lost), &record);
  Append(static_cast<uint64_t>(absl::ToUnixNanos(info.expires)), &record);
  if (info.parent.has_value()) Append(*info.parent, &record);
  for (uint64_t bytes : info.segment_bytes) Append(bytes, &record);
  record.append(info.model);
  if (!has_fields) return record;
  AppendField(kTenant, info.tenant, &record);
  if (info.outer_id.has_value()) AppendField(kOuterId, IdKey(*info.outer_id), &record);
  if (info.outer_parent.has_value()) AppendField(kOuterParent, IdKey(*info.outer_parent), &record);
  return record;
}

absl::StatusOr<ChunkInfo> DecodeChunkRecord(absl::string_view bytes) {
  if (bytes.empty()) return Damaged("is empty");
  const auto version = static_cast<uint8_t>(bytes[0]);
  if (version == 0 || version > kChunkRecordVersion) {
    if (version == 0) return Damaged("has version 0, which never was");
    return absl::FailedPreconditionError(absl::StrCat("chunk record: has version ", version,
                                                      ", but this program reads up to ",
                                                      kChunkRecordVersion, ": use a newer one"));
  }
  const size_t header_bytes = version == 1 ? kChunkRecordHeaderBytesV1 : kChunkRecordHeaderBytes;
  if (bytes.size() < header_bytes) {
    return Damaged("has ", bytes.size(), " bytes; its header alone has ", header_bytes);
  }
  const size_t total_bytes = bytes.size();
  ChunkInfo info;
  Take<uint8_t>(&bytes);
  const auto flags = Take<uint8_t>(&bytes);
  if ((flags & ~(kHasParent | kHasFields)) != 0) return Damaged("has unknown flags ", flags);
  if (((flags & kHasFields) != 0) != (version >= 3)) {
    return Damaged("of version ", version, " has flags ", flags);
  }
  const auto model_bytes = Take<uint16_t>(&bytes);
  if (model_bytes > kMaxModelBytes) return Damaged("announces a model of ", model_bytes, " bytes");
  info.tokens = Take<uint32_t>(&bytes);
  info.first_token = Take<uint64_t>(&bytes);
  info.created = absl::FromUnixNanos(static_cast<int64_t>(Take<uint64_t>(&bytes)));
  info.profile_id = TakeId(&bytes);
  const auto levels = Take<uint16_t>(&bytes);
  if (levels == 0 || levels > kMaxChunkLevels) return Damaged("announces ", levels, " levels");
  if (version >= 2) {
    info.levels_lost = Take<uint16_t>(&bytes);
    const auto expires = static_cast<int64_t>(Take<uint64_t>(&bytes));
    if (expires != std::numeric_limits<int64_t>::max()) info.expires = absl::FromUnixNanos(expires);
  }
  if (info.levels_lost > kMaxChunkLevels - levels) {
    return Damaged("announces ", info.levels_lost, " levels lost of ", levels);
  }

  const size_t parent_bytes = (flags & kHasParent) != 0 ? kIdBytes : 0;
  const size_t expected_bytes = header_bytes + parent_bytes + size_t{8} * levels + model_bytes;
  // Fields say themselves where they end.
  if (version >= 3 ? total_bytes < expected_bytes : total_bytes != expected_bytes) {
    return Damaged("has ", total_bytes, " bytes; its header announces ", expected_bytes);
  }
  if (parent_bytes > 0) info.parent = TakeId(&bytes);
  info.segment_bytes.reserve(levels);
  uint64_t payload_bytes = 0;
  for (size_t level = 0; level < levels; ++level) {
    const auto segment_bytes = Take<uint64_t>(&bytes);
    // Checked term by term: the sum of two numbers within the limit cannot wrap.
    if (segment_bytes > kMaxChunkBytes || (payload_bytes += segment_bytes) > kMaxChunkBytes) {
      return Damaged("announces more than ", kMaxChunkBytes, " bytes of segments");
    }
    info.segment_bytes.push_back(segment_bytes);
  }
  info.model = std::string(bytes.substr(0, model_bytes));
  bytes.remove_prefix(model_bytes);
  if (version >= 3) {
    if (absl::Status status = TakeFields(bytes, &info); !status.ok()) return status;
  }
  return info;
}

std::string SegmentKey(const ChunkId& id, uint32_t level) {
  std::string key;
  key.reserve(kSegmentKeyBytes);
  Append(id, &key);
  Append(static_cast<uint8_t>(level), &key);
  return key;
}

absl::StatusOr<ChunkId> DecodeIdKey(absl::string_view key) {
  if (key.size() != kIdBytes) {
    return absl::DataLossError(absl::StrCat("an id has ", key.size(), " bytes, not ", kIdBytes));
  }
  return TakeId(&key);
}

absl::string_view IdKey(const ChunkId& id) {
  return absl::string_view(reinterpret_cast<const char*>(id.data()), id.size());
}

std::string ProfileListKey(const StoredProfileId& id) {
  return absl::StrCat(kProfileListPrefix, IdKey(id));
}

std::string TenantKey(absl::string_view tenant) {
  std::string key;
  key.reserve(1 + tenant.size() + kIdBytes);
  Append(static_cast<uint8_t>(tenant.size()), &key);
  key.append(tenant.data(), tenant.size());
  return key;
}

std::string TenantKey(absl::string_view tenant, const ChunkId& id) {
  std::string key = TenantKey(tenant);
  Append(id, &key);
  return key;
}

std::string TenantCountersKey(absl::string_view tenant) {
  return absl::StrCat(kTenantCountersPrefix, tenant);
}

std::string EncodeVersion(uint32_t version) {
  std::string bytes;
  Append(version, &bytes);
  return bytes;
}

absl::StatusOr<uint32_t> DecodeVersion(absl::string_view bytes) {
  if (bytes.size() != sizeof(uint32_t)) {
    return absl::DataLossError(
        absl::StrCat("the store's version has ", bytes.size(), " bytes, not 4"));
  }
  return Take<uint32_t>(&bytes);
}

std::string EncodeClock(double clock) {
  uint64_t bits = 0;
  static_assert(sizeof(bits) == sizeof(clock));
  std::memcpy(&bits, &clock, sizeof(bits));
  std::string bytes;
  Append(bits, &bytes);
  return bytes;
}

absl::StatusOr<double> DecodeClock(absl::string_view bytes) {
  if (bytes.size() != sizeof(uint64_t)) {
    return absl::DataLossError(absl::StrCat("a clock has ", bytes.size(), " bytes, not 8"));
  }
  const auto bits = Take<uint64_t>(&bytes);
  double clock = 0;
  std::memcpy(&clock, &bits, sizeof(clock));
  if (!std::isfinite(clock)) return absl::DataLossError("a clock is not a finite number");
  return clock;
}

std::string EncodeUsage(const EvictionIndex::Usage& usage) {
  std::string bytes = EncodeClock(usage.clock);
  Append(usage.uses, &bytes);
  return bytes;
}

absl::StatusOr<EvictionIndex::Usage> DecodeUsage(absl::string_view bytes) {
  constexpr size_t kBytes = sizeof(uint64_t) + sizeof(uint32_t);
  if (bytes.size() != kBytes) {
    return absl::DataLossError(
        absl::StrCat("a usage record has ", bytes.size(), " bytes, not ", kBytes));
  }
  const absl::StatusOr<double> clock = DecodeClock(bytes.substr(0, sizeof(uint64_t)));
  if (!clock.ok()) return clock.status();
  bytes.remove_prefix(sizeof(uint64_t));
  return EvictionIndex::Usage{*clock, Take<uint32_t>(&bytes)};
}

std::string EncodeCounters(const Counters& counters) {
  std::string bytes;
  Append(counters.chunks, &bytes);
  Append(counters.payload_bytes, &bytes);
  return bytes;
}

absl::StatusOr<Counters> DecodeCounters(absl::string_view bytes) {
  if (bytes.size() != kCountersBytes) {
    return absl::DataLossError(
        absl::StrCat("the store's counters have ", bytes.size(), " bytes, not ", kCountersBytes));
  }
  Counters counters;
  counters.chunks = Take<uint64_t>(&bytes);
  counters.payload_bytes = Take<uint64_t>(&bytes);
  return counters;
}

}  // namespace kvstream::rocksdb_format

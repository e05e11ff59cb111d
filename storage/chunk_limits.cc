#include "storage/chunk_limits.h"

#include <algorithm>
#include <cstdint>
#include <limits>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "storage/id_text.h"

namespace kvstream {
namespace {

bool FitsUnixNanos(absl::Time time) {
  // The outermost nanoseconds are left out, so that infinite times, which saturate to them, are
  // refused.
  const int64_t nanos = absl::ToUnixNanos(time);
  return nanos != std::numeric_limits<int64_t>::min() &&
         nanos != std::numeric_limits<int64_t>::max();
}

}  // namespace

absl::Status ValidateChunk(const ChunkId& id, const ChunkInfo& info,
                           absl::Span<const absl::string_view> segments) {
  const auto invalid = [&id](const auto&... what) {
    return absl::InvalidArgumentError(absl::StrCat("Put of chunk ", ShortHex(id), ": ", what...));
  };
  if (segments.empty() || segments.size() > kMaxChunkLevels) {
    return invalid("has ", segments.size(), " segments; a chunk has 1 to ", kMaxChunkLevels);
  }
  if (segments.size() != info.segment_bytes.size()) {
    return invalid("its info announces ", info.segment_bytes.size(), " segments, but ",
                   segments.size(), " were given");
  }
  uint64_t total_bytes = 0;
  for (size_t level = 0; level < segments.size(); ++level) {
    if (segments[level].size() != info.segment_bytes[level]) {
      return invalid("its info announces ", info.segment_bytes[level], " bytes for level ", level,
                     ", but ", segments[level].size(), " were given");
    }
    total_bytes += segments[level].size();  // cannot overflow: these bytes are in memory
  }
  if (total_bytes > kMaxChunkBytes) {
    return invalid("its segments have ", total_bytes, " bytes; the limit is ", kMaxChunkBytes);
  }
  if (info.model.size() > kMaxModelBytes) {
    return invalid("its model name has ", info.model.size(), " bytes; the limit is ",
                   kMaxModelBytes);
  }
  if (info.tenant.size() > kMaxTenantBytes) {
    return invalid("its tenant's name has ", info.tenant.size(), " bytes; the limit is ",
                   kMaxTenantBytes);
  }
  if (info.tenant.empty() && (info.outer_id.has_value() || info.outer_parent.has_value())) {
    return invalid("has a tenant's ids, but no tenant");
  }
  if (info.levels_lost != 0) return invalid("a chunk has lost no levels when it is put");
  if (!FitsUnixNanos(info.created)) {
    return invalid("its time of creation is outside the years 1678 to 2262");
  }
  if (info.expires != absl::InfiniteFuture() && !FitsUnixNanos(info.expires)) {
    return invalid("its time of expiry is outside the years 1678 to 2262");
  }
  return absl::OkStatus();
}

absl::Status ValidateProfile(const StoredProfileId& id, absl::string_view bytes) {
  if (bytes.size() <= kMaxProfileBytes) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("PutProfile of profile ", ShortHex(id), ": has ",
                                                 bytes.size(), " bytes; the limit is ",
                                                 kMaxProfileBytes));
}

bool RestoresLevels(const ChunkInfo& stored, const ChunkInfo& given) {
  const size_t common = stored.segment_bytes.size();
  return stored.levels_lost > 0 && given.segment_bytes.size() > common &&
         given.segment_bytes.size() <= common + stored.levels_lost &&
         std::equal(stored.segment_bytes.begin(), stored.segment_bytes.end(),
                    given.segment_bytes.begin()) &&
         stored.parent == given.parent && stored.profile_id == given.profile_id &&
         stored.first_token == given.first_token && stored.tokens == given.tokens;
}

absl::Status ValidateTrim(uint32_t keep_levels) {
  if (keep_levels > 0) return absl::OkStatus();
  return absl::InvalidArgumentError("Trim: at least one level must be kept; Delete removes chunks");
}

absl::Status ValidateExpires(absl::string_view what, absl::Time expires) {
  if (expires == absl::InfiniteFuture() || FitsUnixNanos(expires)) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(what, ": the time of expiry is outside the years 1678 to 2262"));
}

absl::Status ValidatePin(absl::string_view owner, absl::Time until) {
  if (owner.empty() || owner.size() > kMaxPinOwnerBytes) {
    return absl::InvalidArgumentError(absl::StrCat(
        "Pin: the owner has ", owner.size(), " bytes; it must have 1 to ", kMaxPinOwnerBytes));
  }
  if (FitsUnixNanos(until)) return absl::OkStatus();
  return absl::InvalidArgumentError("Pin: its end is outside the years 1678 to 2262");
}

absl::Time WholeNanos(absl::Time time) {
  if (time == absl::InfiniteFuture()) return time;
  return absl::FromUnixNanos(absl::ToUnixNanos(time));
}

uint64_t TrimInfo(ChunkInfo* info, uint32_t keep_levels) {
  uint64_t bytes = 0;
  while (info->segment_bytes.size() > keep_levels) {
    bytes += info->segment_bytes.back();
    info->segment_bytes.pop_back();
    ++info->levels_lost;
  }
  return bytes;
}

uint64_t PayloadBytes(const ChunkInfo& info) {
  uint64_t sum = 0;
  for (uint64_t bytes : info.segment_bytes) sum += bytes;
  return sum;
}

}  // namespace kvstream

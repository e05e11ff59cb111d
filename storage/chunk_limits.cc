#include "storage/chunk_limits.h"

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
  if (!FitsUnixNanos(info.created)) {
    return invalid("its time of creation is outside the years 1678 to 2262");
  }
  return absl::OkStatus();
}

absl::Status ValidateProfile(const StoredProfileId& id, absl::string_view bytes) {
  if (bytes.size() <= kMaxProfileBytes) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("PutProfile of profile ", ShortHex(id), ": has ",
                                                 bytes.size(), " bytes; the limit is ",
                                                 kMaxProfileBytes));
}

uint64_t PayloadBytes(const ChunkInfo& info) {
  uint64_t sum = 0;
  for (uint64_t bytes : info.segment_bytes) sum += bytes;
  return sum;
}

}  // namespace kvstream

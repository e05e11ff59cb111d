#include "server/load/cachegen_policy.h"

#include <algorithm>

namespace kvstream {

absl::optional<int> DecideCacheGen(const ChunkTable& chunks, uint32_t next, int floor_level,
                                   double throughput, double time_left_s,
                                   absl::optional<double> recompute_s) {
  if (recompute_s.has_value() && *recompute_s <= time_left_s) return absl::nullopt;
  if (!(throughput > 0)) return std::max(floor_level, (chunks.levels() - 1) / 2);
  for (int level = chunks.levels() - 1; level > floor_level; --level) {
    const double bytes = static_cast<double>(chunks.bytes(next, chunks.size(), level));
    if (bytes / throughput <= time_left_s) return level;
  }
  return floor_level;
}

void CacheGenThroughput::OnReport(uint64_t bytes_received, absl::Duration client_clock) {
  if (!have_mark_) {
    have_mark_ = bytes_received > 0;
    mark_bytes_ = bytes_received;
    mark_clock_ = client_clock;
    return;
  }
  if (starts_.empty() || bytes_received <= mark_bytes_ || client_clock <= mark_clock_) return;
  const Start& front = starts_.front();
  const uint64_t arrived = bytes_received - mark_bytes_;
  const bool whole = bytes_received >= front.offset + front.bytes;
  if (whole || arrived >= front.bytes / 2) {
    throughput_ = static_cast<double>(arrived) / absl::ToDoubleSeconds(client_clock - mark_clock_);
  }
  if (!whole) return;
  while (!starts_.empty() && bytes_received >= starts_.front().offset + starts_.front().bytes) {
    starts_.pop_front();
  }
  mark_bytes_ = bytes_received;
  mark_clock_ = client_clock;
}

}  // namespace kvstream

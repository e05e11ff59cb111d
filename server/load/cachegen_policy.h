// CacheGen's adaptation, kept as the baseline: Algorithm 1 of "CacheGen: KV Cache Compression and
// Streaming for Fast Large Language Model Serving" (SIGCOMM 2024), section 5.3.
#ifndef KVSTREAM_SERVER_LOAD_CACHEGEN_POLICY_H_
#define KVSTREAM_SERVER_LOAD_CACHEGEN_POLICY_H_

#include <cstdint>
#include <deque>

#include "absl/time/time.h"
#include "absl/types/optional.h"
#include "server/load/chunk_table.h"

namespace kvstream {

// The decision for chunk `next`, all chunks before it being decided. In order:
//   text, if recomputing all remaining chunks fits the remaining time (recompute_s; none: the
//   client cannot); else the finest level at which all remaining chunks fit, at `throughput`; else
//   the coarsest that the floor allows. Throughput 0 (first chunk, no hint): the default medium
//   level, (levels - 1) / 2.
// Returns the level, or nothing for text. O(levels^2).
absl::optional<int> DecideCacheGen(const ChunkTable& chunks, uint32_t next, int floor_level,
                                   double throughput, double time_left_s,
                                   absl::optional<double> recompute_s);

// The throughput of the chunk that was sent last, on the client's clock. The sender does not stop
// for the report of a chunk's last byte (that would cost a round trip a chunk and slow the baseline
// down): once half of the newest chunk has arrived, what arrived of it counts; before that, the
// chunk before it.
class CacheGenThroughput {
 public:
  explicit CacheGenThroughput(double hint_bytes_per_second) : throughput_(hint_bytes_per_second) {}

  // A chunk of `bytes` begins at this offset of all bytes sent. Ascending.
  void OnChunkStart(uint64_t offset, uint64_t bytes) { starts_.push_back({offset, bytes}); }
  // bytes_received as in ClientProgress.
  void OnReport(uint64_t bytes_received, absl::Duration client_clock);
  // Bytes a second; the hint before the first measurement, 0 without one.
  double bytes_per_second() const { return throughput_; }

 private:
  struct Start {
    uint64_t offset;
    uint64_t bytes;
  };
  std::deque<Start> starts_;  // of chunks not yet received whole
  bool have_mark_ = false;
  uint64_t mark_bytes_ = 0;  // report at or after the start of starts_.front()
  absl::Duration mark_clock_;
  double throughput_;
};

}  // namespace kvstream

#endif  // KVSTREAM_SERVER_LOAD_CACHEGEN_POLICY_H_

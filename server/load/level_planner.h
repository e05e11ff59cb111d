// What to send at which level and what to leave to the client's prefill: pure functions of what is
// known at one moment.
#ifndef KVSTREAM_SERVER_LOAD_LEVEL_PLANNER_H_
#define KVSTREAM_SERVER_LOAD_LEVEL_PLANNER_H_

#include <cstdint>
#include <limits>
#include <vector>

#include "absl/types/span.h"
#include "server/load/chunk_table.h"
#include "server/load/prefill_model.h"

namespace kvstream {

// The order in which chunks arrive at their base level.
//   kForward  chunk 0 first. What is recomputed is a suffix, after all chunks before it are in
//   place. kBackward last chunk first, while the client recomputes from the first one on. Both ends
//   work at the same time.
enum class BaseOrder { kForward, kBackward };

// The link and the client as the planner sees them. All times in seconds from now, all rates in
// bytes a second and positive.
struct PlannerView {
  double rate = 0;        // expected; if only lower bounds are known, what the link may well do
  double rate_low = 0;    // what a promise may count on; at most `rate`
  double rate_hoped = 0;  // what decides whether the link is good enough without recompute:
                          // rate_low of a link that was measured, `rate` of one that was not
  // Until a byte sent now would be acknowledged, beside its own transfer: the round trip, and what
  // waits before the link.
  double latency_s = 0;
  double latency_low_s = 0;  // the same with rate_low
  double rtt_s = 0;
  double decode_s_per_token = 0;
  // Until the deadline, less the margin; infinity: none. May be negative.
  double time_left_s = std::numeric_limits<double>::infinity();
};

// Chunks [begin, end) are undecided: neither sent at the base level nor left to the client.
struct OpenRange {
  uint32_t begin = 0;
  uint32_t end = 0;
  // Of the chunk that is sent next (first or last of the range by the order): bytes already sent.
  uint64_t sent_bytes = 0;
};

// How the open range is divided at `boundary`: kForward streams [begin, boundary) and leaves the
// rest to the client, kBackward streams [boundary, end).
struct Split {
  uint32_t boundary = 0;
  double expected_s = 0;  // until all chunks of the range are in place, with `rate`
  bool in_time =
      false;  // promised before the deadline, with rate_low and the prefill's safety factor
  bool finest = false;  // all of it streamed, and even the finest level is promised in time
  // Whatever the link does, recompute of what has not arrived is in time: chunks are sent whole, at
  // the finest level.
  bool insured = false;
};

struct SplitInput {
  const ChunkTable* chunks = nullptr;
  BaseOrder order = BaseOrder::kForward;
  int base_level = 0;
  OpenRange open;
  PlannerView view;
  // False: the client cannot recompute, or nothing is known about its speed; everything is
  // streamed.
  bool may_recompute = false;
  PrefillModel prefill;
  // The client needs no further word to go on with it.
  bool ordered = false;
  double recompute_backlog_s = 0;  // work that was already given to the client
  // Promised time that the client needs to recompute all that has not arrived, from now on;
  // infinity: it cannot.
  double insurance_s = std::numeric_limits<double>::infinity();
  // Bytes that would bring the chunks already streamed to the finest level.
  uint64_t refinement_bytes = 0;
};

// The split with the shortest expected time; streaming wins what is within 3 % (a decision to
// recompute is final). O(open chunks) for kForward, O(log) for kBackward.
Split SplitForSpeed(const SplitInput& input);

// The split for the best quality before the deadline:
// 1. where recompute of all that has not arrived would be in time: all of it streamed, insured; for
//    kForward, if the link does not promise the finest level of all, SplitForSpeed at that level;
// 2. else all of it streamed, if the finest level is promised in time (kBackward: in half of it);
// 3. else kBackward: as much recomputed (exact KV) as the deadline allows, so that the fewest
// chunks
//    share the link's time for refinement; a little more while the link could bring that in half
//    of the time. kForward: the cut with the highest expected mean level, of those promised in
//    time. What is before it can only be decoded again when the suffix is done;
// 4. else kForward: the cut that would be in time on the slowest link, if that is at most four
// times
//    as fast as expected: recompute is final, and begun in vain where it is sure to be late;
// 5. else, where no split is in time, SplitForSpeed: late, but as little as possible.
// kForward looks at some 70 cuts, O(1), but for SplitForSpeed; kBackward is O(log open chunks).
Split SplitForQuality(const SplitInput& input);

// Whether `bytes` more for a chunk of `tokens`, sent now, are promised to be received, decoded and
// acknowledged in time. decoder_busy_s: until the client's decoder has finished what it was sent
// before.
bool FitsInTime(const PlannerView& view, uint64_t bytes, uint32_t tokens, double decoder_busy_s);

// The levels at which refinement stops to let the other chunks catch up, ascending, from above
// base_level to the finest. Without weights each level is a stop. With weights (quality gained by
// each level over the one below, one value per level) levels are merged until the gain per byte
// falls from stop to stop (the upper convex hull), so that a level that buys little alone is not
// waited at. level_bytes: bytes of each level's segments over all chunks. weights: empty, or as
// many as levels, finite and not negative.
std::vector<int> RefinementStops(absl::Span<const uint64_t> level_bytes,
                                 absl::Span<const double> weights, int base_level);

}  // namespace kvstream

#endif  // KVSTREAM_SERVER_LOAD_LEVEL_PLANNER_H_

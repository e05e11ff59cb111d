// What nobody can beat: bounds on a load by someone who knows the link's whole future.
#ifndef KVSTREAM_TESTS_LINKS_CLAIRVOYANT_H_
#define KVSTREAM_TESTS_LINKS_CLAIRVOYANT_H_

#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/time/time.h"
#include "client/rate_trace.h"
#include "server/load/load_session.h"

namespace kvstream {
namespace links {

// The link as a load meets it: `start` is when, on the trace's clock, the load begins. `trace` is
// borrowed.
struct LinkView {
  const RateTrace* trace;
  absl::Duration start;
  absl::Duration rtt;

  // Seconds since the load's beginning at which a busy link has carried so many bytes.
  double CarryS(double bytes) const {
    return absl::ToDoubleSeconds(trace->TimeToCarry(start, bytes) - start);
  }
  // Bytes that it carries in the first `seconds`.
  double Bytes(double seconds) const {
    return seconds > 0 ? trace->BytesBetween(start, start + absl::Seconds(seconds)) : 0;
  }
};

// Preconditions of both bounds, which are checked: all chunks have the same tokens and the same
// segments, and from level 1 on their sizes grow from level to level.
//
// Time runs from the session's creation to the report that everything is ready, as in
// Finish::load_delay, so both contain one round trip: half for what is sent (bytes or the plan to
// recompute), half for the report. Let C(B) be when the link has carried B bytes, R(i, j) the
// prefill of chunks i..j-1, d the decoding of one chunk, n the chunks, b a chunk's bytes at the
// floor level.
//
// Streaming k chunks takes at least
//     S(k) = rtt + max over j in 1..k of C(j b) + (k - j + 1) d:
// the j-th chunk to arrive is complete no sooner than C(j b), since only whole chunks can be
// decoded, and it and the k - j after it are still to be decoded, one after another. Sending the
// chunks whole, one after another, achieves it, so it is exact.

// The shortest load delay with every chunk at spec.floor_level or recomputed, in seconds.
//   NONE         S(n).
//   SUFFIX       min over k of S(k) + R(k, n), where S(0) = rtt: recompute of a suffix can only
//                begin when all k chunks before it are in place. Exact.
//   FRONT, ANY   min over m of max(S(n - m), rtt + R(0, m)) with S(0) = 0: whichever m chunks are
//                recomputed, they cost at least as much as the first m, since the cost of a chunk
//                grows with its position; link and GPU each do at least their share. Achieved where
//                the m chunks are the first ones. Exact.
// O(n) steps of the trace.
double ClairvoyantDelay(const LoadSpec& spec, const LinkView& link);

struct DeadlineBound {
  bool feasible = false;  // every chunk can be there by the deadline, at spec.floor_level at least
  double mean_level = 0;  // the highest possible, recompute counting as the finest; 0 if infeasible
  uint32_t streamed = 0;  // chunks that are streamed for it
};

// The best mean level by spec.deadline D. An upper bound, not always reached: segments count
// by the byte.
// k chunks that are streamed get at most B = bytes carried by D - rtt - d, as the last segment must
// be decoded; and S(k), plus R(k, n) with SUFFIX, must be in time. Given B, the sum of levels is at
// most that of the fractional knapsack which buys level by level for all k chunks: a level's
// segments cost the same for all chunks and less than those of any higher level, so no byte can buy
// more elsewhere. Then the maximum over k, the others counting as finest; with FRONT and ANY they
// must satisfy rtt + R(0, n - k) <= D, by the same argument as above.
//
// With SUFFIX and 0 < k < n the recompute reads all k chunks, so none of them is decoded meanwhile,
// and each is decoded once before. Let j of them be decoded again after it began. These decodes and
// the recompute follow one another, so it began by D - R(k, n) - j d; the other k - j chunks were
// complete a decode before, and the j had their floor. So all of that is at most
//     A(j) = bytes carried by D - R(k, n) - (j + 1) d - rtt.
// The k - j chunks share x <= A(j) - j b bytes, the j chunks B - x. That is best for the largest x,
// or for equal shares if those are allowed, since the knapsack is concave; then the maximum over j.
// (Blocks of up to k / 64 values of j are bounded together, by the A of the first and the j of the
// last.)
DeadlineBound ClairvoyantQuality(const LoadSpec& spec, const LinkView& link);

// The same for SUFFIX with the first `cut` chunks streamed and no other number, on a link that may
// be imagined: their base is in place and reported after stream_s = S(cut), and bytes_by(s) is what
// the link carries in the first s seconds, which never falls. Negative if that is not in time.
// O(64) calls of bytes_by.
double LevelOfCut(const LoadSpec& spec, absl::Duration rtt, uint32_t cut, double stream_s,
                  absl::FunctionRef<double(double)> bytes_by);

// S(k) at [k], with S(0) = rtt.
std::vector<double> BaseInPlace(const LoadSpec& spec, const LinkView& link);
// R(begin, end).
double RecomputeSeconds(const LoadSpec& spec, uint32_t begin, uint32_t end);

// The highest sum of levels of `streamed` chunks that `bytes` can buy, if they buy the floor.
double MostLevels(const LoadSpec& spec, uint32_t streamed, double bytes);

}  // namespace links
}  // namespace kvstream

#endif  // KVSTREAM_TESTS_LINKS_CLAIRVOYANT_H_

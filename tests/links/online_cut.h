// The cut of a SUFFIX load by somebody who does not know the link's future: what a rule can reach
// that is told of the link a round trip late, everything else being ideal.
#ifndef KVSTREAM_TESTS_LINKS_ONLINE_CUT_H_
#define KVSTREAM_TESTS_LINKS_ONLINE_CUT_H_

#include <cstdint>
#include <vector>

#include "absl/time/time.h"
#include "absl/types/optional.h"
#include "client/rate_trace.h"
#include "server/load/load_session.h"
#include "tests/links/clairvoyant.h"

namespace kvstream {
namespace links {

// The model. The base is streamed in order at the link's own speed, and the client itself decides
// when to begin: S(j) of clairvoyant.h is when j chunks are in place, R(j, n) the recompute of the
// rest, D the deadline. At time u it knows what the link carried up to u - rtt. What it holds at
// the moment that it begins is the cut; the refinement of what is before it is then the best that
// any refinement could make of that cut on the real link (LevelOfCut), which is the same for all
// rules, so only the choice of the cut tells them apart.
//
// What is proven: every rule here, with careful == Careful(), is in time whenever the clairvoyant
// is. For that is in time only if S(k) + R(k, n) <= D for some k, and every rule begins at the
// latest at the last moment at which what it has allows it: with j chunks in place at u and
// u + R(j, n) <= D it begins before that turns false, or another chunk comes and it holds for j + 1
// with more to spare. So what a rule without knowledge of the link has to lose is the level, not
// the deadline. It takes for granted that the client knows its own prefill exactly.
//
// What is only a yardstick: the levels. No rule is claimed to be the best one.
enum class CutRule {
  kSoonest,  // begins as soon as the rest can be recomputed in time
  kLast,     // as late as possible
  kPersist,  // where the level would be highest if the link stayed as it was seen last
  kMean,     // ... if it carried from now on what it has carried on the mean since the load began
  kFutures,  // ... on the mean over the futures it is given, each scaled to the speed seen last
};

// A piece of a trace that may be the future.
struct Future {
  const RateTrace* trace;
  absl::Duration from;
};

// What is kept in hand: recompute is taken as `safety` times as long, and to end `margin` before
// the deadline. What is streamed without a suffix has until the deadline.
struct Careful {
  double safety = 1;
  absl::Duration margin;
};

// Chunks that are streamed; none: not in time. Preconditions: those of ClairvoyantQuality, ability
// SUFFIX, a deadline. O((n + 64) log n) calls of LevelOfCut for each future.
absl::optional<uint32_t> OnlineCut(const LoadSpec& spec, const LinkView& link, CutRule rule,
                                   const std::vector<Future>& futures, const Careful& careful);

// The highest level of all cuts that are in time with so much in hand, by somebody who knows the
// link; none: no cut is. A proven bound for every rule that begins no recompute which would be late
// if it took `safety` times as long, or would not end `margin` before the deadline.
absl::optional<double> CarefulClairvoyant(const LoadSpec& spec, const LinkView& link,
                                          const Careful& careful);

}  // namespace links
}  // namespace kvstream

#endif  // KVSTREAM_TESTS_LINKS_ONLINE_CUT_H_

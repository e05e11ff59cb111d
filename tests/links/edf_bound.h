// How many deadlines on one link nobody could keep, knowing its future.
#ifndef KVSTREAM_TESTS_LINKS_EDF_BOUND_H_
#define KVSTREAM_TESTS_LINKS_EDF_BOUND_H_

#include <vector>

#include "absl/time/time.h"
#include "client/rate_trace.h"

namespace kvstream {
namespace links {

// So many bytes that may leave no sooner than `release` and must have left by `due`, on the trace's
// clock.
struct EdfJob {
  absl::Duration release;
  absl::Duration due;
  double bytes = 0;
};

// Let C(t) be the bytes that the link carries by t. Measured in C instead of seconds the link is
// one machine of speed 1, jobs have releases C(r), deadlines C(d) and lengths b, and C is monotone,
// so that a job is in time in the one sense exactly if it is in the other. On one machine,
// preemptive earliest deadline first keeps all deadlines if any schedule does: take a schedule that
// keeps them and the first moment at which it works on j while i, released and due sooner, is
// unfinished; exchange the next pieces of i for those of j: i only ends sooner, and j ends no later
// than i did, which was before its own deadline. Repeating this gives EDF. (EDF does not use C: not
// even the future has to be known.)
//
// Where not all can be kept:
//   least     No schedule misses fewer: of the jobs that are released and due within an interval,
//             so many must be left out, the largest first, until the rest fits it; the maximum over
//             all intervals.
//   achieved  What someone does who knows C: EDF, and whenever a job arrives Moore and Hodgson's
//             rule gives up as few of those present as possible. A schedule, so no bound.
// O(n^3 log n).
struct EdfBound {
  int least = 0;
  int achieved = 0;
};
EdfBound BoundMisses(const std::vector<EdfJob>& jobs, const RateTrace& trace);

}  // namespace links
}  // namespace kvstream

#endif  // KVSTREAM_TESTS_LINKS_EDF_BOUND_H_

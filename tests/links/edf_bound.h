// How many deadlines on one link nobody could keep, knowing its future, and what levels nobody
// could reach.
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
  // Of each level above the base, which is `bytes`; by the same deadline. A level that is whole is
  // worth one, the base nothing.
  std::vector<double> finer = {};
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

// At least the sum of the jobs' levels that any schedule reaches.
// In C, amounts x of bytes can be carried in time exactly if those of the jobs released and due
// within an interval fit it, for every interval (as EDF shows). So the amounts that can be carried
// are a polymatroid, and a sum of concave functions of them is largest if the pieces are taken in
// order of falling slope, as much of each as fits beside those taken before. A job's level as a
// function of its bytes is bounded by the hull of (bytes, 0), (bytes + finer[0], 1), ... and the
// origin, which is concave. O(levels n^3).
double BoundLevels(const std::vector<EdfJob>& jobs, const RateTrace& trace);

// The level that so many bytes of the job buy, level by level; 0 if not even the base.
double LevelOf(const EdfJob& job, double bytes);

}  // namespace links
}  // namespace kvstream

#endif  // KVSTREAM_TESTS_LINKS_EDF_BOUND_H_

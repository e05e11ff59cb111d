// The cuts that SUFFIX loads make, beside those of rules that know the link a round trip late.
#ifndef KVSTREAM_TESTS_LINKS_SUFFIX_BOUND_H_
#define KVSTREAM_TESTS_LINKS_SUFFIX_BOUND_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "tests/links/sweep.h"

namespace kvstream {
namespace links {

// One row per family, as Markdown: each cell has the deadlines missed that the clairvoyant makes,
// in points of all, and the mean level over the clairvoyant's, of the loads that it makes; a missed
// one counts 0, but for the first column, which is what the session really brought.
//   ours, our cut   the session; and the best that refinement could make of its cut
//   then            the rules of online_cut.h, their futures drawn from the tuning traces of the
//                   same family, or of all where it has none
//   in hand         the last rule with what the planner keeps in hand: its margin before the
//                   deadline, and 3 % of the recompute where that is the last resort or 15 % where
//                   it is promised
//   clairvoyant     CarefulClairvoyant with the same: a bound
absl::StatusOr<std::string> SuffixBound(const std::vector<NamedTrace>& traces,
                                        const std::vector<Case>& cases, const Ladder& ladder,
                                        Prior prior, const LoadSessionOptions& options);

}  // namespace links
}  // namespace kvstream

#endif  // KVSTREAM_TESTS_LINKS_SUFFIX_BOUND_H_

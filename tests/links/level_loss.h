// Where loads lose levels to the clairvoyant.
#ifndef KVSTREAM_TESTS_LINKS_LEVEL_LOSS_H_
#define KVSTREAM_TESTS_LINKS_LEVEL_LOSS_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "tests/links/sweep.h"

namespace kvstream {
namespace links {

// One row per family and deadline factor, as Markdown. All but the counts are mean levels per load.
// What a load loses to the clairvoyant's level is split, each part given the ones before:
//   missed   loads that were not in place in time: all of it
//   cut      another number of chunks was recomputed than the clairvoyant's
//   idle     the link could have carried more until the last useful moment
//   vain     bytes arrived that were not decoded in time, or of chunks that were recomputed
//   order    what was decoded buys less than the same bytes, level by level for all chunks
absl::StatusOr<std::string> LevelLoss(const std::vector<Case>& cases, const Ladder& ladder,
                                      RecomputeAbility ability, Prior prior,
                                      const LoadSessionOptions& options);

}  // namespace links
}  // namespace kvstream

#endif  // KVSTREAM_TESTS_LINKS_LEVEL_LOSS_H_

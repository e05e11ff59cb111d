// What others would do, on an ideal transport: no slow start, no gaps, no decoding. Each is at
// least as fast here as it could be in fact.
#ifndef KVSTREAM_TESTS_LINKS_BASELINES_H_
#define KVSTREAM_TESTS_LINKS_BASELINES_H_

#include <cstdint>

#include "tests/links/clairvoyant.h"
#include "tests/links/workload.h"

namespace kvstream {
namespace links {

struct BaselineResult {
  double delay_s = 0;  // as Finish::load_delay
  double mean_kl = 0;  // over chunks
  double mean_level = 0;
  double bytes = 0;
};

// All of the context in one format of so many bits a value.
BaselineResult FixedBits(const Model& model, uint32_t tokens, double bits, const LinkView& link);

// No bytes: the whole prefill.
BaselineResult RecomputeAll(const Model& model, uint32_t tokens, const LinkView& link);

// Algorithm 1 of CacheGen (server/load/cachegen_policy.h) on its own sizes, without text: before
// each chunk of 1,536 tokens the finest level at which all that remains fits the time left, at the
// throughput of the chunk before, which is known exactly and at once; the medium level first.
BaselineResult CacheGen(const Model& model, uint32_t tokens, double deadline_s,
                        const LinkView& link);

}  // namespace links
}  // namespace kvstream

#endif  // KVSTREAM_TESTS_LINKS_BASELINES_H_

// The loads of the link simulation: models, contexts, prefill speeds and sizes.
#ifndef KVSTREAM_TESTS_LINKS_WORKLOAD_H_
#define KVSTREAM_TESTS_LINKS_WORKLOAD_H_

#include <cstdint>
#include <vector>

#include "server/load/load_session.h"
#include "server/load/testing/link_simulator.h"

namespace kvstream {
namespace links {

// A model on its GPUs. Prefill of n tokens takes n * a + n^2 / 2 * b seconds. docs/links.md names
// the sources.
struct Model {
  const char* name;
  double values_per_token;         // elements of KV
  double seconds_per_token;        // a
  double seconds_per_pair;         // b
  double decode_s_per_token;       // of our codec
  std::vector<uint32_t> contexts;  // tokens, multiples of 256
};
const std::vector<Model>& Models();

// A ladder of cumulative levels: bits per value up to and including each level, and the mean KL
// divergence on prose that the codec's evaluation measured at it.
struct Ladder {
  const char* name;
  std::vector<double> bits;
  std::vector<double> kl;
};
// Those of docs/codec.md, of profiles with sensitivities, each also at twice its bits.
const std::vector<Ladder>& Ladders();

// CacheGen's levels, not cumulative: its released coder's payload without the tables that it sends
// beside (another 2.2 bits), as measured in the same evaluation. Coarsest first.
const Ladder& CacheGenLadder();
constexpr uint32_t kCacheGenChunkTokens = 1536;

// Vector-wise 8 bits with a 16-bit scale per 128 values.
constexpr double kEightBits = 8.125;

constexpr uint32_t kChunkTokens = 256;

// A context of `tokens` in chunks of kChunkTokens; without policy. Declares the model's prefill and
// decoding, which is also what the client takes.
LoadSpec MakeSpec(const Model& model, uint32_t tokens, const Ladder& ladder);
SimulatedClient MakeClient(const Model& model);

double PrefillSeconds(const Model& model, uint32_t begin_token, uint32_t end_token);

}  // namespace links
}  // namespace kvstream

#endif  // KVSTREAM_TESTS_LINKS_WORKLOAD_H_

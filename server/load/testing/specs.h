// Loads for tests: contexts of equal chunks.
#ifndef KVSTREAM_SERVER_LOAD_TESTING_SPECS_H_
#define KVSTREAM_SERVER_LOAD_TESTING_SPECS_H_

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "server/load/load_session.h"
#include "server/load/testing/link_simulator.h"

namespace kvstream {

constexpr uint32_t kTestChunkTokens = 256;

// `chunks` chunks of 256 tokens whose segments have these bytes per token, level 0 first.
inline LoadSpec UniformSpec(uint32_t chunks, const std::vector<uint64_t>& bytes_per_token) {
  LoadSpec spec;
  for (uint32_t i = 0; i < chunks; ++i) {
    StoredChunkSizes chunk;
    chunk.tokens = kTestChunkTokens;
    chunk.first_token = uint64_t{kTestChunkTokens} * i;
    for (uint64_t bytes : bytes_per_token) chunk.segment_bytes.push_back(bytes * kTestChunkTokens);
    spec.chunks.push_back(chunk);
  }
  return spec;
}

// Bytes of all chunks at the levels 0..level, as far as they have them.
inline double TotalBytes(const LoadSpec& spec, int level) {
  double bytes = 0;
  for (const StoredChunkSizes& chunk : spec.chunks) {
    const size_t end = std::min(chunk.segment_bytes.size(), static_cast<size_t>(level) + 1);
    for (size_t i = 0; i < end; ++i) bytes += static_cast<double>(chunk.segment_bytes[i]);
  }
  return bytes;
}

// Gives the load an ability, and declares and models the same prefill.
inline void SetPrefill(LoadSpec* spec, SimulatedClient* client, RecomputeAbility ability,
                       double seconds_per_token, double seconds_per_token_pair) {
  spec->ability = ability;
  spec->prefill_seconds_per_token = client->prefill_seconds_per_token = seconds_per_token;
  spec->prefill_seconds_per_token_pair = client->prefill_seconds_per_token_pair =
      seconds_per_token_pair;
}

constexpr double kMbit = 125e3;  // bytes a second

inline SimulatedLink ConstantLink(double mbit, absl::Duration rtt) {
  return {{{absl::ZeroDuration(), mbit * kMbit}}, rtt / 2, {}};
}

}  // namespace kvstream

#endif  // KVSTREAM_SERVER_LOAD_TESTING_SPECS_H_

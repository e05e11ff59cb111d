// KV caches made up for benchmarks, with the statistics of a real model's: within a head the
// variance of the KLT's coordinates falls like a power of their number, strong directions are
// shared between heads and layers, tokens differ in size, key channels have means.
#ifndef KVSTREAM_CODEC_BENCHMARK_KV_H_
#define KVSTREAM_CODEC_BENCHMARK_KV_H_

#include <cstdint>

#include "codec/geometry.h"
#include "codec/test_kv.h"

namespace kvstream {

// BF16 KV of `tokens` tokens from position 0. Contexts of one model differ in context_seed alone.
// Cost: some 10 ns a value.
TestKv MakeBenchmarkKv(const KvGeometry& geometry, int64_t tokens, uint64_t context_seed);

}  // namespace kvstream

#endif  // KVSTREAM_CODEC_BENCHMARK_KV_H_

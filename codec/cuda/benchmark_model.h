// A model and its KV, made up in seconds at the sizes of real ones: transforms are Hadamard
// matrices with random signs, so that KV with a given spectrum comes from a fast transform.
#ifndef KVSTREAM_CODEC_CUDA_BENCHMARK_MODEL_H_
#define KVSTREAM_CODEC_CUDA_BENCHMARK_MODEL_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "codec/geometry.h"
#include "codec/kv_view.h"
#include "codec/profile.h"

namespace kvstream {

struct BenchmarkModel {
  KvGeometry geometry;
  std::shared_ptr<const Profile> profile;
  std::vector<float> deviation;  // [coordinate], base steps
};

// rank: of each group, at most its channels; group_layers: layers of a group, whose channels must
// be a power of two. The spectrum of a group falls as a power of the coordinate's index.
BenchmarkModel MakeBenchmarkModel(int layers, int kv_heads, int head_size, int group_layers,
                                  int rank);

// KV of one chunk, [layer][keys, values][token][head][channel] in bfloat16.
std::vector<uint16_t> MakeBenchmarkKv(const BenchmarkModel& model, int tokens,
                                      int64_t first_position, uint64_t seed);

KvView ViewOfKv(const KvGeometry& geometry, const std::vector<uint16_t>& kv, int64_t tokens);
MutableKvView MutableViewOfKv(const KvGeometry& geometry, std::vector<uint16_t>& kv,
                              int64_t tokens);

}  // namespace kvstream

#endif  // KVSTREAM_CODEC_CUDA_BENCHMARK_MODEL_H_

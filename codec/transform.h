// Karhunen-Loeve transform of a group of channels, estimated from samples.
#ifndef KVSTREAM_CODEC_TRANSFORM_H_
#define KVSTREAM_CODEC_TRANSFORM_H_

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"

namespace kvstream {

// samples: [channel][token] floats with zero mean. Returns orthonormal rows, [rank][channels]
// halves, by falling variance: the eigenvectors of the samples' covariance. rank is channels, or
// less where the samples span less; at most rank_max. Errors: INTERNAL if LAPACK fails. Cost: one
// eigendecomposition of size min(channels, tokens); the matrix of that size is held in double. Uses
// BLAS, which may start threads of its own (OPENBLAS_NUM_THREADS).
absl::StatusOr<std::vector<uint16_t>> EstimateKlt(const std::vector<float>& samples,
                                                  int64_t channels, int64_t tokens,
                                                  int64_t rank_max);

}  // namespace kvstream

#endif  // KVSTREAM_CODEC_TRANSFORM_H_

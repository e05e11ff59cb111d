// Karhunen-Loeve transform of a group of channels, estimated from samples.
#ifndef KVSTREAM_CODEC_TRANSFORM_H_
#define KVSTREAM_CODEC_TRANSFORM_H_

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"

namespace kvstream {

// Above this dimension the Gram matrix of the tokens is decomposed instead of the covariance of the
// channels, if it is smaller.
constexpr int64_t kCovarianceChannelsMax = 4096;

// samples: [channel][token] floats with zero mean. Returns orthonormal rows, [rank][channels]
// halves, by falling variance: the eigenvectors of the samples' covariance. rank is the smaller of
// channels and rank_max; where the Gram matrix is decomposed, it is at most the dimension that the
// samples span, and what lies outside of that span is lost to the transform. Errors: INTERNAL if
// LAPACK fails. Cost: one eigendecomposition of size channels, or of size tokens with the Gram
// matrix; the matrix of that size is held in double. Uses BLAS, which may start threads of its own
// (OPENBLAS_NUM_THREADS). Tests may set a lower covariance_channels_max.
absl::StatusOr<std::vector<uint16_t>> EstimateKlt(
    const std::vector<float>& samples, int64_t channels, int64_t tokens, int64_t rank_max,
    int64_t covariance_channels_max = kCovarianceChannelsMax);

}  // namespace kvstream

#endif  // KVSTREAM_CODEC_TRANSFORM_H_

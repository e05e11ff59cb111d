// KV caches made up for tests with the statistics that those of large models have, of which the
// truth is known: means, covariance, and hence the rate and the error that a codec should reach.
//
// Per token there is a Gaussian hidden vector, a part of it shared by all layers and a part of each
// layer's own, whose dimensions have variances that fall as a power of their index. Every channel
// (keys before RoPE) is its mean plus a random direction through that vector plus noise of its own,
// times the scale of its tensor and its gain. A few channels of every key head stand out in mean
// and gain, as they do once RoPE is undone. The first tokens of a context are sinks: keys of a
// large norm and values near zero.
#ifndef KVSTREAM_CODEC_MODEL_KV_H_
#define KVSTREAM_CODEC_MODEL_KV_H_

#include <cstdint>
#include <vector>

#include "codec/geometry.h"
#include "codec/profile.h"
#include "codec/test_kv.h"

namespace kvstream {

struct ModelStatistics {
  int shared_hidden = 96;
  int layer_hidden = 96;
  double spectrum_power = 1.2;
  // Part of a channel's variance that is its own.
  double noise = 0.02;
  int outliers_per_head = 4;
  double outlier_mean = 8;  // in standard deviations of a plain channel
  double outlier_gain = 4;
  int sinks = 4;
};

class ModelKv {
 public:
  ModelKv(const KvGeometry& geometry, const ModelStatistics& statistics, uint64_t seed);

  // `tokens` tokens from first_position on; the model's sinks stand at positions 0, 1, ...
  TestKv Context(int64_t tokens, int64_t first_position, uint64_t seed) const;

  const KvGeometry& geometry() const { return geometry_; }
  // Of channel c, numbered as in profile_data.h, before RoPE.
  double mean(int32_t c) const { return mean_[c]; }
  double variance(int32_t c) const;
  // Eigenvalues of the covariance of channels [first, first + count) divided by `unit`, which has
  // an entry for each of them. Cost: a symmetric eigenvalue problem of that size.
  std::vector<double> Spectrum(int32_t first, int32_t count, const float* unit) const;

 private:
  // Channel c's direction in the hidden vector of its layer: shared dimensions, then the layer's.
  const float* Direction(int32_t c) const {
    return &directions_[static_cast<size_t>(c) * Hidden()];
  }
  int Hidden() const { return statistics_.shared_hidden + statistics_.layer_hidden; }

  const KvGeometry geometry_;
  const ModelStatistics statistics_;
  std::vector<float> mean_;
  std::vector<float> noise_;       // standard deviation
  std::vector<float> directions_;  // [channel][hidden], scaled by the hidden variances
};

// What the embedded quantiser (quantize.h) makes of a Gaussian variable of a standard deviation in
// base steps: the entropy of its cell at a level in bits, and the mean squared error in squared
// base steps of a decoder that knows the mean of every cell.
struct CellTheory {
  double bits = 0;
  double error = 0;
};
CellTheory GaussCells(double deviation, int level);

// Both summed up over a spectrum (variances in squared base steps), and the bits that any code
// needs for the same error (reverse water-filling).
struct SpectrumTheory {
  double bits = 0;
  double error = 0;
  double bound_bits = 0;
};
SpectrumTheory TheoryOf(const std::vector<double>& spectrum, int level);

}  // namespace kvstream

#endif  // KVSTREAM_CODEC_MODEL_KV_H_

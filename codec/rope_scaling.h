// Inverse frequencies of rotary position embeddings and their scalings, as pure functions of the
// numbers in a model's configuration.
#ifndef KVSTREAM_CODEC_ROPE_SCALING_H_
#define KVSTREAM_CODEC_ROPE_SCALING_H_

#include <vector>

#include "absl/types/optional.h"

namespace kvstream {

// The unscaled embedding of Su et al. (RoFormer, 2104.09864): pair i of `size` rotated channels
// turns by base^(-2 i / size) radians a token. Precondition for all below: size is even and
// positive, base > 1.
std::vector<double> DefaultInverseFrequency(int size, double base);

// LLaMA 3.1's scaling. Pairs whose wavelength is under original_positions / high_frequency_factor
// stay, those above original_positions / low_frequency_factor turn `factor` times slower, and
// between them the two are mixed, linearly in original_positions / wavelength. Precondition:
// high_frequency_factor > low_frequency_factor > 0, factor > 0.
struct Llama3Scaling {
  double factor = 1;
  double low_frequency_factor = 1;
  double high_frequency_factor = 4;
  double original_positions = 0;
};
std::vector<double> Llama3InverseFrequency(int size, double base, const Llama3Scaling& scaling);

// YaRN (Peng et al., 2309.00071): pairs that turn more than beta_fast times over the original
// context stay, those that turn less than beta_slow times are slowed by `factor`, with a linear
// ramp over the pair's index between.
struct YarnScaling {
  double factor = 1;
  double original_positions = 0;
  double beta_fast = 32;
  double beta_slow = 1;
  // Whether the ramp's ends are rounded outwards to whole pairs.
  bool truncate = true;
};
std::vector<double> YarnInverseFrequency(int size, double base, const YarnScaling& scaling);

// What YaRN multiplies cos and sin with: `attention_factor` where it is given; else the quotient of
// the two mscales where both are given and not zero (DeepSeek); else 0.1 ln(factor) + 1, and 1
// where factor <= 1.
double YarnAttentionFactor(double factor, absl::optional<double> attention_factor,
                           absl::optional<double> mscale, absl::optional<double> mscale_all_dim);

// The same for latent attention, as vLLM and SGLang have it for DeepSeek: the quotient with the
// defaults mscale 1 and mscale_all_dim 0, whatever is given. This is all of YaRN's temperature that
// is in the cached key; the rest (the square of mscale_all_dim's) they put into the softmax's
// scale.
double LatentYarnAttentionFactor(double factor, absl::optional<double> mscale,
                                 absl::optional<double> mscale_all_dim);

// LongRoPE (Ding et al., 2402.13753): pair i is slowed by factors[i]. Precondition: size / 2
// factors, all positive.
std::vector<double> LongRopeInverseFrequency(int size, double base,
                                             const std::vector<double>& factors);

// sqrt(1 + ln(max_positions / original_positions) / ln(original_positions)), and 1 where
// max_positions is not larger. Precondition: original_positions > 1.
double LongRopeAttentionFactor(double max_positions, double original_positions);

}  // namespace kvstream

#endif  // KVSTREAM_CODEC_ROPE_SCALING_H_

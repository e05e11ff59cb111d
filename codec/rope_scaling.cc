#include "codec/rope_scaling.h"

#include <algorithm>
#include <cmath>
#include <cstddef>

namespace kvstream {
namespace {

constexpr double kTwoPi = 6.283185307179586476925286766559;

// The (fractional) index of the pair that turns `rotations` times over `positions` tokens.
double PairOfRotations(double rotations, int size, double base, double positions) {
  return size * std::log(positions / (rotations * kTwoPi)) / (2 * std::log(base));
}

double Mscale(double factor, double mscale) {
  return factor <= 1 ? 1 : 0.1 * mscale * std::log(factor) + 1;
}

}  // namespace

std::vector<double> DefaultInverseFrequency(int size, double base) {
  std::vector<double> frequency(static_cast<size_t>(size / 2));
  for (size_t i = 0; i < frequency.size(); ++i) {
    frequency[i] = std::pow(base, -2.0 * static_cast<double>(i) / size);
  }
  return frequency;
}

std::vector<double> Llama3InverseFrequency(int size, double base, const Llama3Scaling& scaling) {
  std::vector<double> frequency = DefaultInverseFrequency(size, base);
  const double low = scaling.low_frequency_factor;
  const double high = scaling.high_frequency_factor;
  for (double& f : frequency) {
    // How often the pair turns within the original context.
    const double rotations = scaling.original_positions * f / kTwoPi;
    const double keep = std::clamp((rotations - low) / (high - low), 0.0, 1.0);
    f = (1 - keep) * f / scaling.factor + keep * f;
  }
  return frequency;
}

std::vector<double> YarnInverseFrequency(int size, double base, const YarnScaling& scaling) {
  std::vector<double> frequency = DefaultInverseFrequency(size, base);
  double low = PairOfRotations(scaling.beta_fast, size, base, scaling.original_positions);
  double high = PairOfRotations(scaling.beta_slow, size, base, scaling.original_positions);
  if (scaling.truncate) {
    low = std::floor(low);
    high = std::ceil(high);
  }
  low = std::max(low, 0.0);
  high = std::min(high, size - 1.0);
  // A ramp of no width would divide by zero; this one switches between two neighbouring pairs.
  if (low == high) high += 0.001;
  for (size_t i = 0; i < frequency.size(); ++i) {
    const double slow = std::clamp((static_cast<double>(i) - low) / (high - low), 0.0, 1.0);
    frequency[i] = slow * frequency[i] / scaling.factor + (1 - slow) * frequency[i];
  }
  return frequency;
}

double YarnAttentionFactor(double factor, absl::optional<double> attention_factor,
                           absl::optional<double> mscale, absl::optional<double> mscale_all_dim) {
  if (attention_factor.has_value()) return *attention_factor;
  if (mscale.value_or(0) != 0 && mscale_all_dim.value_or(0) != 0) {
    return Mscale(factor, *mscale) / Mscale(factor, *mscale_all_dim);
  }
  return Mscale(factor, 1);
}

double LatentYarnAttentionFactor(double factor, absl::optional<double> mscale,
                                 absl::optional<double> mscale_all_dim) {
  return Mscale(factor, mscale.value_or(1)) / Mscale(factor, mscale_all_dim.value_or(0));
}

std::vector<double> LongRopeInverseFrequency(int size, double base,
                                             const std::vector<double>& factors) {
  std::vector<double> frequency = DefaultInverseFrequency(size, base);
  for (size_t i = 0; i < frequency.size(); ++i) frequency[i] /= factors[i];
  return frequency;
}

double LongRopeAttentionFactor(double max_positions, double original_positions) {
  const double factor = max_positions / original_positions;
  return factor <= 1 ? 1 : std::sqrt(1 + std::log(factor) / std::log(original_positions));
}

}  // namespace kvstream

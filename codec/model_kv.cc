#include "codec/model_kv.h"

#include <cblas.h>
#include <lapacke.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>

#include "codec/float16.h"
#include "codec/quantize.h"
#include "codec/rope.h"

namespace kvstream {
namespace {

double Density(double x) { return std::exp(-0.5 * x * x) / 2.506628274631000502; }
double Tail(double x) { return 0.5 * std::erfc(x / 1.414213562373095049); }

// Theory by the logarithm of the deviation, since a model has many channels.
constexpr int kTableSteps = 64;  // a doubling of the deviation
constexpr int kTableLow = -12;   // log2 of the smallest and largest deviation
constexpr int kTableHigh = 10;
// Beyond this deviation cells of one width are so narrow that the limit of many cells holds.
constexpr double kManyCells = 16;
constexpr double kTwoPiE = 17.07946844534713;

std::vector<CellTheory> MakeTable(int level) {
  std::vector<CellTheory> table;
  for (int i = 0; i <= (kTableHigh - kTableLow) * kTableSteps; ++i)
    table.push_back(GaussCells(std::exp2(kTableLow + i / static_cast<double>(kTableSteps)), level));
  return table;
}

}  // namespace

ModelKv::ModelKv(const KvGeometry& geometry, const ModelStatistics& statistics, uint64_t seed)
    : geometry_(geometry), statistics_(statistics) {
  const int32_t channels = static_cast<int32_t>(geometry.values_per_token());
  const int32_t per_tensor = geometry.tensor_channels();
  TestRandom random(seed);
  std::vector<double> amplitude(Hidden());
  double power = 0;
  for (int k = 0; k < Hidden(); ++k) {
    // Both parts begin with their strongest dimension.
    const int rank = k < statistics.shared_hidden ? k : k - statistics.shared_hidden;
    amplitude[k] = std::pow(rank + 1.0, -statistics.spectrum_power);
    power += amplitude[k];
  }
  for (double& value : amplitude) value = std::sqrt(value / power * (1 - statistics.noise));
  mean_.resize(channels);
  noise_.resize(channels);
  directions_.resize(static_cast<size_t>(channels) * Hidden());
  for (int32_t tensor = 0; tensor * per_tensor < channels; ++tensor) {
    const bool values = tensor % geometry.planes == 1;
    // Keys are larger than values, and layers differ.
    const double scale = (values ? 0.2 : 1.5) * std::exp(0.4 * random.Normal());
    for (int32_t first = tensor * per_tensor; first < (tensor + 1) * per_tensor;
         first += geometry.head_size) {
      std::vector<bool> outlier(geometry.head_size, false);
      for (int i = 0; i < statistics.outliers_per_head && !values; ++i)
        outlier[random.Below(geometry.head_size)] = true;
      for (int32_t i = 0; i < geometry.head_size; ++i) {
        const int32_t c = first + i;
        // The rotated part of a latent is no normalised vector and far larger.
        const double part = geometry.PartOf(c % per_tensor) == 1 ? 6 : 1;
        const double gain = part * scale * (outlier[i] ? statistics.outlier_gain : 1) *
                            std::exp(0.3 * random.Normal());
        mean_[c] = static_cast<float>(
            part * scale *
            ((values ? 0.1 : 0.7) * random.Normal() + (outlier[i] ? statistics.outlier_mean : 0)));
        noise_[c] = static_cast<float>(gain * std::sqrt(statistics.noise));
        for (int k = 0; k < Hidden(); ++k) {
          directions_[static_cast<size_t>(c) * Hidden() + k] =
              static_cast<float>(gain * amplitude[k] * random.Normal());
        }
      }
    }
  }
}

double ModelKv::variance(int32_t c) const {
  const double of_hidden = cblas_sdot(Hidden(), Direction(c), 1, Direction(c), 1);
  return of_hidden + double{noise_[c]} * noise_[c];
}

TestKv ModelKv::Context(int64_t tokens, int64_t first_position, uint64_t seed) const {
  TestRandom random(seed * 1000003 + 17);
  const int32_t per_layer = geometry_.planes * geometry_.tensor_channels();
  const int hidden_size = Hidden();
  std::vector<float> shared(tokens * statistics_.shared_hidden);
  for (float& value : shared) value = static_cast<float>(random.Normal());
  std::vector<float> hidden(tokens * hidden_size);
  std::vector<float> rows(tokens * per_layer);  // [token][channel of the layer]
  TestKv out(geometry_, tokens);
  RopeTable rope(geometry_.rope);
  rope.Prepare(first_position, tokens);
  for (int layer = 0; layer < geometry_.layers; ++layer) {
    const int32_t first = layer * per_layer;
    for (int64_t token = 0; token < tokens; ++token) {
      float* of_token = &hidden[token * hidden_size];
      std::copy_n(&shared[token * statistics_.shared_hidden], statistics_.shared_hidden, of_token);
      for (int k = statistics_.shared_hidden; k < hidden_size; ++k)
        of_token[k] = static_cast<float>(random.Normal());
    }
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, static_cast<int>(tokens), per_layer,
                hidden_size, 1.0f, hidden.data(), hidden_size, Direction(first), hidden_size, 0.0f,
                rows.data(), per_layer);
    for (int64_t token = 0; token < tokens; ++token) {
      float* row = &rows[token * per_layer];
      const bool sink = first_position + token < statistics_.sinks;
      for (int32_t i = 0; i < per_layer; ++i) {
        row[i] += mean_[first + i] + noise_[first + i] * static_cast<float>(random.Normal());
        if (sink) row[i] *= i < geometry_.tensor_channels() ? 12.0f : 0.02f;
      }
      for (int head = 0; head < geometry_.kv_heads; ++head)
        rope.Apply(token, row + head * geometry_.head_size);
      for (int plane = 0; plane < geometry_.planes; ++plane) {
        const float* from = row + plane * geometry_.tensor_channels();
        uint16_t* to = (plane == 0 ? out.keys(layer) : out.values(layer)).data() +
                       token * geometry_.tensor_channels();
        for (int32_t i = 0; i < geometry_.tensor_channels(); ++i)
          to[i] = Float16From(from[i], geometry_.dtype);
      }
    }
  }
  return out;
}

std::vector<double> ModelKv::Spectrum(int32_t first, int32_t count, const float* unit) const {
  const int32_t per_layer = geometry_.planes * geometry_.tensor_channels();
  std::vector<double> covariance(static_cast<size_t>(count) * count, 0.0);
  for (int32_t i = 0; i < count; ++i) {
    for (int32_t j = 0; j <= i; ++j) {
      // Only the shared part of the hidden vector joins layers.
      const bool same_layer = (first + i) / per_layer == (first + j) / per_layer;
      double sum = cblas_sdot(same_layer ? Hidden() : statistics_.shared_hidden,
                              Direction(first + i), 1, Direction(first + j), 1);
      if (i == j) sum += double{noise_[first + i]} * noise_[first + i];
      covariance[static_cast<size_t>(i) * count + j] = sum / unit[i] / unit[j];
    }
  }
  std::vector<double> eigenvalues(count);
  // Row-major lower is column-major upper.
  if (LAPACKE_dsyevd(LAPACK_COL_MAJOR, 'N', 'U', count, covariance.data(), count,
                     eigenvalues.data()) != 0) {
    std::abort();
  }
  return eigenvalues;
}

CellTheory GaussCells(double deviation, int level) {
  const double power = PowerOf3(level);
  CellTheory theory;
  if (deviation > kManyCells) {
    theory.bits = 0.5 * std::log2(kTwoPiE) + std::log2(deviation * power);
    theory.error = 1 / (12 * power * power);
    return theory;
  }
  // The cell of 0 is symmetric, the others come in pairs.
  for (int64_t cell = 0;; ++cell) {
    const double low =
        cell == 0 ? 0 : Unwarp((static_cast<double>(cell) - 0.5) / power) / deviation;
    const double high = Unwarp((static_cast<double>(cell) + 0.5) / power) / deviation;
    if (low > 9) break;
    const double half = Tail(low) - Tail(high);
    if (half < 1e-300) continue;
    const double square = half + low * Density(low) - high * Density(high);
    const double first = Density(low) - Density(high);
    const double inside = cell == 0 ? square : square - first * first / half;
    theory.error += 2 * std::max(0.0, inside) * deviation * deviation;
    theory.bits -= cell == 0 ? 2 * half * std::log2(2 * half) : 2 * half * std::log2(half);
  }
  return theory;
}

SpectrumTheory TheoryOf(const std::vector<double>& spectrum, int level) {
  static const std::vector<std::vector<CellTheory>>* const tables = [] {
    auto* made = new std::vector<std::vector<CellTheory>>;
    for (int i = 0; i < 4; ++i) made->push_back(MakeTable(i));
    return made;
  }();
  SpectrumTheory theory;
  for (const double variance : spectrum) {
    const double at = (0.5 * std::log2(std::max(variance, 1e-300)) - kTableLow) * kTableSteps;
    if (at <= 0) {
      theory.error += std::max(0.0, variance);
      continue;
    }
    const std::vector<CellTheory>& table = (*tables)[level];
    const size_t index = std::min(static_cast<size_t>(at), table.size() - 2);
    const double part = at - static_cast<double>(index);
    theory.bits += (1 - part) * table[index].bits + part * table[index + 1].bits;
    theory.error += (1 - part) * table[index].error + part * table[index + 1].error;
  }
  // The water level under which all lie that are not coded, by bisection.
  double low = 0;
  double high = 1 + *std::max_element(spectrum.begin(), spectrum.end());
  for (int i = 0; i < 100; ++i) {
    const double water = (low + high) / 2;
    double error = 0;
    for (const double variance : spectrum) error += std::min(std::max(variance, 0.0), water);
    (error < theory.error ? low : high) = water;
  }
  for (const double variance : spectrum)
    theory.bound_bits += variance > low && low > 0 ? 0.5 * std::log2(variance / low) : 0;
  return theory;
}

}  // namespace kvstream

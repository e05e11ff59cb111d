#include "codec/transform.h"

#include <cblas.h>
#include <lapacke.h>

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "codec/float16.h"

namespace kvstream {
namespace {

// Samples are multiplied in runs of this many columns or rows.
constexpr int64_t kRun = 1024;
// Directions of the Gram matrix whose variance is below this part of the largest are rounding
// noise.
constexpr double kRelativeVarianceMin = 1e-11;

// [channels][channels], lower triangle: sum over tokens of x x^T. Single precision within a run is
// enough, since whatever comes out, its eigenvectors are orthonormal.
std::vector<double> Covariance(const std::vector<float>& samples, int64_t channels,
                               int64_t tokens) {
  std::vector<double> sum(static_cast<size_t>(channels) * channels, 0.0);
  std::vector<float> run(sum.size());
  for (int64_t first = 0; first < tokens; first += kRun) {
    const int64_t count = std::min(kRun, tokens - first);
    cblas_ssyrk(CblasRowMajor, CblasLower, CblasNoTrans, static_cast<int>(channels),
                static_cast<int>(count), 1.0f, samples.data() + first, static_cast<int>(tokens),
                0.0f, run.data(), static_cast<int>(channels));
    for (int64_t i = 0; i < channels; ++i) {
      for (int64_t j = 0; j <= i; ++j) sum[i * channels + j] += run[i * channels + j];
    }
  }
  return sum;
}

// [tokens][tokens], lower triangle: sum over channels of x x^T. This and what follows from it is in
// double precision: an error turns weak directions towards the strongest by as much as that is
// stronger than they are, and a transform that is not orthonormal errs at every level.
std::vector<double> Gram(const std::vector<float>& samples, int64_t channels, int64_t tokens) {
  std::vector<double> sum(static_cast<size_t>(tokens) * tokens, 0.0);
  std::vector<double> run;
  for (int64_t first = 0; first < channels; first += kRun) {
    const int64_t count = std::min(kRun, channels - first);
    run.assign(samples.begin() + first * tokens, samples.begin() + (first + count) * tokens);
    cblas_dsyrk(CblasRowMajor, CblasLower, CblasTrans, static_cast<int>(tokens),
                static_cast<int>(count), 1.0, run.data(), static_cast<int>(tokens), 1.0, sum.data(),
                static_cast<int>(tokens));
  }
  return sum;
}

// Eigenvectors of the symmetric matrix (lower triangle) in rows, by rising eigenvalue.
absl::Status Decompose(int64_t size, std::vector<double>* matrix, std::vector<double>* values) {
  values->resize(size);
  // Row-major lower is column-major upper, whose eigenvectors come out in columns: rows for us.
  const lapack_int info =
      LAPACKE_dsyevd(LAPACK_COL_MAJOR, 'V', 'U', static_cast<lapack_int>(size), matrix->data(),
                     static_cast<lapack_int>(size), values->data());
  if (info != 0) return absl::InternalError(absl::StrCat("calibration: dsyevd failed with ", info));
  return absl::OkStatus();
}

// Directions in channels of the Gram matrix's strongest eigenvectors: the samples' product with
// each, normalised.
std::vector<uint16_t> Directions(const std::vector<float>& samples, int64_t channels,
                                 int64_t tokens, int64_t rank_max,
                                 const std::vector<double>& vectors,
                                 const std::vector<double>& values) {
  int64_t rank = 0;
  while (rank < std::min(tokens, rank_max) &&
         values[tokens - 1 - rank] > values[tokens - 1] * kRelativeVarianceMin) {
    ++rank;
  }
  std::vector<uint16_t> out(static_cast<size_t>(rank) * channels);
  if (rank == 0) return out;
  const double* weakest = vectors.data() + (tokens - rank) * tokens;
  std::vector<double> run;
  std::vector<double> product;  // [channel of the run][rank], weakest first
  for (int64_t first = 0; first < channels; first += kRun) {
    const int64_t count = std::min(kRun, channels - first);
    run.assign(samples.begin() + first * tokens, samples.begin() + (first + count) * tokens);
    product.resize(count * rank);
    cblas_dgemm(CblasRowMajor, CblasNoTrans, CblasTrans, static_cast<int>(count),
                static_cast<int>(rank), static_cast<int>(tokens), 1.0, run.data(),
                static_cast<int>(tokens), weakest, static_cast<int>(tokens), 0.0, product.data(),
                static_cast<int>(rank));
    for (int64_t row = 0; row < rank; ++row) {
      // The product's squared length is the eigenvalue.
      const double scale = 1 / std::sqrt(values[tokens - 1 - row]);
      for (int64_t c = 0; c < count; ++c) {
        out[row * channels + first + c] =
            HalfFromFloat(static_cast<float>(product[c * rank + rank - 1 - row] * scale));
      }
    }
  }
  return out;
}

}  // namespace

absl::StatusOr<std::vector<uint16_t>> EstimateKlt(const std::vector<float>& samples,
                                                  int64_t channels, int64_t tokens,
                                                  int64_t rank_max,
                                                  int64_t covariance_channels_max) {
  const bool gram = channels > covariance_channels_max && tokens < channels;
  std::vector<double> matrix =
      gram ? Gram(samples, channels, tokens) : Covariance(samples, channels, tokens);
  std::vector<double> values;
  absl::Status status = Decompose(gram ? tokens : channels, &matrix, &values);
  if (!status.ok()) return status;
  if (gram) return Directions(samples, channels, tokens, rank_max, matrix, values);

  std::vector<uint16_t> out;
  for (int64_t k = channels - 1; k >= 0 && channels - k <= rank_max; --k) {
    for (int64_t i = 0; i < channels; ++i)
      out.push_back(HalfFromFloat(static_cast<float>(matrix[k * channels + i])));
  }
  return out;
}

}  // namespace kvstream

#include "codec/transform.h"

#include <cblas.h>
#include <lapacke.h>

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "codec/float16.h"

namespace kvstream {
namespace {

// Above this dimension the Gram matrix of the tokens is decomposed instead of the covariance of the
// channels, if it is smaller.
constexpr int64_t kCovarianceChannelsMax = 4096;
// Samples are multiplied in single precision in runs of this many and summed up in double.
constexpr int64_t kRun = 1024;
// Directions whose variance is below this part of the largest are rounding noise of the samples.
constexpr double kRelativeVarianceMin = 1e-12;

// size x size, lower triangle: sum over columns of x x^T, where x is [size][columns] with row
// stride `stride` (or its transpose).
void AddOuter(CBLAS_TRANSPOSE transpose, int64_t size, int64_t columns, const float* x,
              int64_t stride, std::vector<float>* run, std::vector<double>* sum) {
  cblas_ssyrk(CblasRowMajor, CblasLower, transpose, static_cast<int>(size),
              static_cast<int>(columns), 1.0f, x, static_cast<int>(stride), 0.0f, run->data(),
              static_cast<int>(size));
  for (int64_t i = 0; i < size; ++i) {
    for (int64_t j = 0; j <= i; ++j) (*sum)[i * size + j] += (*run)[i * size + j];
  }
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

}  // namespace

absl::StatusOr<std::vector<uint16_t>> EstimateKlt(const std::vector<float>& samples,
                                                  int64_t channels, int64_t tokens,
                                                  int64_t rank_max) {
  const bool gram = channels > kCovarianceChannelsMax && tokens < channels;
  const int64_t size = gram ? tokens : channels;
  std::vector<double> matrix(static_cast<size_t>(size) * size, 0.0);
  {
    std::vector<float> run(static_cast<size_t>(size) * size);
    const int64_t length = gram ? channels : tokens;
    for (int64_t first = 0; first < length; first += kRun) {
      const int64_t count = std::min(kRun, length - first);
      if (gram) {
        AddOuter(CblasTrans, size, count, samples.data() + first * tokens, tokens, &run, &matrix);
      } else {
        AddOuter(CblasNoTrans, size, count, samples.data() + first, tokens, &run, &matrix);
      }
    }
  }
  std::vector<double> values;
  absl::Status status = Decompose(size, &matrix, &values);
  if (!status.ok()) return status;

  std::vector<uint16_t> out;
  std::vector<float> row(channels);
  std::vector<float> weights(size);
  for (int64_t k = size - 1; k >= 0 && size - k <= rank_max; --k) {
    if (gram && !(values[k] > values[size - 1] * kRelativeVarianceMin)) break;
    const double* vector = matrix.data() + k * size;
    if (gram) {
      // Direction in channels: samples * vector, normalised.
      for (int64_t i = 0; i < size; ++i) weights[i] = static_cast<float>(vector[i]);
      cblas_sgemv(CblasRowMajor, CblasNoTrans, static_cast<int>(channels), static_cast<int>(tokens),
                  1.0f, samples.data(), static_cast<int>(tokens), weights.data(), 1, 0.0f,
                  row.data(), 1);
      double power = 0;
      for (float value : row) power += double{value} * value;
      for (float& value : row) value = static_cast<float>(value / std::sqrt(power));
    } else {
      for (int64_t i = 0; i < channels; ++i) row[i] = static_cast<float>(vector[i]);
    }
    for (float value : row) out.push_back(HalfFromFloat(value));
  }
  return out;
}

}  // namespace kvstream

// Single-threaded matrix product of a half-precision matrix with a few hundred columns of floats:
// the KLT (its inverse is inverse_transform.h).
//
// Columns (tokens) come in panels of 32: element (row k, column t) of a panel matrix with K rows
// lies at [t / 32][k][t % 32], so that a panel row fills two AVX-512 or four AVX2 registers. Own
// code rather than BLAS, so that a decoder starts no threads of its own and depends on no library's
// configuration; the best of AVX-512, AVX2 and plain C++ is picked at run time.
#ifndef KVSTREAM_CODEC_PANEL_MULTIPLY_H_
#define KVSTREAM_CODEC_PANEL_MULTIPLY_H_

#include <cstdint>
#include <vector>

#include "absl/types/span.h"

namespace kvstream {

constexpr int kPanelColumns = 32;

inline int64_t PanelCount(int64_t columns) { return (columns + kPanelColumns - 1) / kPanelColumns; }
inline int64_t PanelFloats(int64_t rows, int64_t columns) {
  return PanelCount(columns) * rows * kPanelColumns;
}

// Borrowed half-precision matrix, row-major [rows][columns], little-endian, any alignment.
struct HalfMatrix {
  const char* data = nullptr;
  int64_t rows = 0;
  int64_t columns = 0;
};

// Reused between calls; not shared between threads.
struct PanelScratch {
  std::vector<float> packed;
};

// out = matrix[rows, :] * in. in: panels of matrix.columns rows; out: panels of rows.size() rows.
void MultiplyRows(const HalfMatrix& matrix, absl::Span<const int32_t> rows, const float* in,
                  int64_t panels, float* out, PanelScratch& scratch);

}  // namespace kvstream

#endif  // KVSTREAM_CODEC_PANEL_MULTIPLY_H_

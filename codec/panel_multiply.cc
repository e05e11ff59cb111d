#include "codec/panel_multiply.h"

#include <algorithm>
#include <cstring>

#include "codec/float16.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace kvstream {
namespace {

constexpr int kRowBlock = 12;     // rows of `out` that a kernel keeps in registers
constexpr int kDepthBlock = 512;  // terms added per pass: a packed block of 24 KiB stays in L1

// out[12][32] (row stride 32) += a[depth][12] * b[depth][32].
using Kernel = void (*)(const float* a, const float* b, int64_t depth, float* out);

void KernelPortable(const float* a, const float* b, int64_t depth, float* out) {
  for (int half = 0; half < kPanelColumns; half += 16) {
    for (int first = 0; first < kRowBlock; first += 2) {
      float sum[2][16];
      for (int i = 0; i < 2; ++i)
        std::memcpy(sum[i], out + (first + i) * kPanelColumns + half, sizeof(sum[i]));
      for (int64_t k = 0; k < depth; ++k) {
        const float* row = b + k * kPanelColumns + half;
        const float x = a[k * kRowBlock + first];
        const float y = a[k * kRowBlock + first + 1];
        for (int j = 0; j < 16; ++j) {
          sum[0][j] += x * row[j];
          sum[1][j] += y * row[j];
        }
      }
      for (int i = 0; i < 2; ++i)
        std::memcpy(out + (first + i) * kPanelColumns + half, sum[i], sizeof(sum[i]));
    }
  }
}

#if defined(__x86_64__)
__attribute__((target("avx2,fma"))) void KernelAvx2(const float* a, const float* b, int64_t depth,
                                                    float* out) {
  for (int half = 0; half < kPanelColumns; half += 16) {
    for (int first = 0; first < kRowBlock; first += 6) {
      __m256 sum[6][2];
      for (int i = 0; i < 6; ++i) {
        for (int j = 0; j < 2; ++j)
          sum[i][j] = _mm256_loadu_ps(out + (first + i) * kPanelColumns + half + 8 * j);
      }
      for (int64_t k = 0; k < depth; ++k) {
        const __m256 b0 = _mm256_loadu_ps(b + k * kPanelColumns + half);
        const __m256 b1 = _mm256_loadu_ps(b + k * kPanelColumns + half + 8);
        for (int i = 0; i < 6; ++i) {
          const __m256 x = _mm256_broadcast_ss(a + k * kRowBlock + first + i);
          sum[i][0] = _mm256_fmadd_ps(x, b0, sum[i][0]);
          sum[i][1] = _mm256_fmadd_ps(x, b1, sum[i][1]);
        }
      }
      for (int i = 0; i < 6; ++i) {
        for (int j = 0; j < 2; ++j)
          _mm256_storeu_ps(out + (first + i) * kPanelColumns + half + 8 * j, sum[i][j]);
      }
    }
  }
}

__attribute__((target("avx512f"))) void KernelAvx512(const float* a, const float* b, int64_t depth,
                                                     float* out) {
  __m512 sum[kRowBlock][2];
  for (int i = 0; i < kRowBlock; ++i) {
    for (int j = 0; j < 2; ++j) sum[i][j] = _mm512_loadu_ps(out + i * kPanelColumns + 16 * j);
  }
  for (int64_t k = 0; k < depth; ++k) {
    const __m512 b0 = _mm512_loadu_ps(b + k * kPanelColumns);
    const __m512 b1 = _mm512_loadu_ps(b + k * kPanelColumns + 16);
    for (int i = 0; i < kRowBlock; ++i) {
      const __m512 x = _mm512_set1_ps(a[k * kRowBlock + i]);
      sum[i][0] = _mm512_fmadd_ps(x, b0, sum[i][0]);
      sum[i][1] = _mm512_fmadd_ps(x, b1, sum[i][1]);
    }
  }
  for (int i = 0; i < kRowBlock; ++i) {
    for (int j = 0; j < 2; ++j) _mm512_storeu_ps(out + i * kPanelColumns + 16 * j, sum[i][j]);
  }
}
#endif

Kernel PickKernel() {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx512f")) return KernelAvx512;
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return KernelAvx2;
#endif
  return KernelPortable;
}

inline float LoadHalf(const char* at) {
  uint16_t bits;
  std::memcpy(&bits, at, sizeof(bits));
  return FloatFromHalf(bits);
}

// pack(first_row, count, first_k, depth, packed): packed[depth][12], absent rows zero.
template <typename Pack>
void Multiply(int64_t out_rows, int64_t depth, const float* in, int64_t panels, float* out,
              PanelScratch& scratch, Pack pack) {
  static const Kernel kernel = PickKernel();
  scratch.packed.resize(size_t{kDepthBlock} * kRowBlock);
  std::fill(out, out + panels * out_rows * kPanelColumns, 0.0f);
  float tail[kRowBlock * kPanelColumns];
  for (int64_t first_k = 0; first_k < depth; first_k += kDepthBlock) {
    const int64_t block_depth = std::min<int64_t>(kDepthBlock, depth - first_k);
    for (int64_t row = 0; row < out_rows; row += kRowBlock) {
      const int64_t count = std::min<int64_t>(kRowBlock, out_rows - row);
      pack(row, count, first_k, block_depth, scratch.packed.data());
      for (int64_t panel = 0; panel < panels; ++panel) {
        const float* b = in + (panel * depth + first_k) * kPanelColumns;
        float* target = out + (panel * out_rows + row) * kPanelColumns;
        if (count == kRowBlock) {
          kernel(scratch.packed.data(), b, block_depth, target);
        } else {
          std::fill(tail, tail + kRowBlock * kPanelColumns, 0.0f);
          std::copy(target, target + count * kPanelColumns, tail);
          kernel(scratch.packed.data(), b, block_depth, tail);
          std::copy(tail, tail + count * kPanelColumns, target);
        }
      }
    }
  }
}

}  // namespace

void MultiplyRows(const HalfMatrix& matrix, absl::Span<const int32_t> rows, const float* in,
                  int64_t panels, float* out, PanelScratch& scratch) {
  Multiply(rows.size(), matrix.columns, in, panels, out, scratch,
           [&](int64_t row, int64_t count, int64_t first_k, int64_t depth, float* packed) {
             if (count < kRowBlock) std::fill(packed, packed + depth * kRowBlock, 0.0f);
             for (int64_t i = 0; i < count; ++i) {
               const char* source = matrix.data + (rows[row + i] * matrix.columns + first_k) * 2;
               for (int64_t k = 0; k < depth; ++k)
                 packed[k * kRowBlock + i] = LoadHalf(source + 2 * k);
             }
           });
}

void MultiplyTransposed(const HalfMatrix& matrix, absl::Span<const int32_t> rows, const float* in,
                        int64_t panels, float* out, PanelScratch& scratch) {
  Multiply(matrix.columns, rows.size(), in, panels, out, scratch,
           [&](int64_t row, int64_t count, int64_t first_k, int64_t depth, float* packed) {
             for (int64_t k = 0; k < depth; ++k) {
               const char* source = matrix.data + (rows[first_k + k] * matrix.columns + row) * 2;
               float* target = packed + k * kRowBlock;
               for (int64_t i = 0; i < count; ++i) target[i] = LoadHalf(source + 2 * i);
               for (int64_t i = count; i < kRowBlock; ++i) target[i] = 0;
             }
           });
}

}  // namespace kvstream

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

// Rows packed at once, so that whole cache lines of the matrix are used: 192 KiB, which stay in L2.
constexpr int kPackRows = 8 * kRowBlock;

// out[12][32] (row stride 32) (+)= a[depth][12] * b[depth][32]; what was there counts if `add`.
using Kernel = void (*)(const float* a, const float* b, int64_t depth, bool add, float* out);

void KernelPortable(const float* a, const float* b, int64_t depth, bool add, float* out) {
  if (!add) std::fill(out, out + kRowBlock * kPanelColumns, 0.0f);
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
// Unrolled by pragma: only then do the sums live in registers.
__attribute__((target("avx2,fma"))) void KernelAvx2(const float* a, const float* b, int64_t depth,
                                                    bool add, float* out) {
  for (int half = 0; half < kPanelColumns; half += 16) {
    for (int first = 0; first < kRowBlock; first += 6) {
      __m256 sum[6][2];
#pragma GCC unroll 12
      for (int i = 0; i < 6; ++i) {
#pragma GCC unroll 2
        for (int j = 0; j < 2; ++j) {
          sum[i][j] = add ? _mm256_loadu_ps(out + (first + i) * kPanelColumns + half + 8 * j)
                          : _mm256_setzero_ps();
        }
      }
      for (int64_t k = 0; k < depth; ++k) {
        const __m256 b0 = _mm256_loadu_ps(b + k * kPanelColumns + half);
        const __m256 b1 = _mm256_loadu_ps(b + k * kPanelColumns + half + 8);
#pragma GCC unroll 12
        for (int i = 0; i < 6; ++i) {
          const __m256 x = _mm256_broadcast_ss(a + k * kRowBlock + first + i);
          sum[i][0] = _mm256_fmadd_ps(x, b0, sum[i][0]);
          sum[i][1] = _mm256_fmadd_ps(x, b1, sum[i][1]);
        }
      }
#pragma GCC unroll 12
      for (int i = 0; i < 6; ++i) {
#pragma GCC unroll 2
        for (int j = 0; j < 2; ++j)
          _mm256_storeu_ps(out + (first + i) * kPanelColumns + half + 8 * j, sum[i][j]);
      }
    }
  }
}

__attribute__((target("avx512f"))) void KernelAvx512(const float* a, const float* b, int64_t depth,
                                                     bool add, float* out) {
  __m512 sum[kRowBlock][2];
#pragma GCC unroll 12
  for (int i = 0; i < kRowBlock; ++i) {
#pragma GCC unroll 2
    for (int j = 0; j < 2; ++j) {
      sum[i][j] = add ? _mm512_loadu_ps(out + i * kPanelColumns + 16 * j) : _mm512_setzero_ps();
    }
  }
  for (int64_t k = 0; k < depth; ++k) {
    const __m512 b0 = _mm512_loadu_ps(b + k * kPanelColumns);
    const __m512 b1 = _mm512_loadu_ps(b + k * kPanelColumns + 16);
#pragma GCC unroll 12
    for (int i = 0; i < kRowBlock; ++i) {
      const __m512 x = _mm512_set1_ps(a[k * kRowBlock + i]);
      sum[i][0] = _mm512_fmadd_ps(x, b0, sum[i][0]);
      sum[i][1] = _mm512_fmadd_ps(x, b1, sum[i][1]);
    }
  }
#pragma GCC unroll 12
  for (int i = 0; i < kRowBlock; ++i) {
#pragma GCC unroll 2
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

// Halves, unaligned -> floats.
using Converter = void (*)(const char* in, int64_t count, float* out);

void ConvertPortable(const char* in, int64_t count, float* out) {
  for (int64_t i = 0; i < count; ++i) {
    uint16_t bits;
    std::memcpy(&bits, in + 2 * i, sizeof(bits));
    out[i] = FloatFromHalf(bits);
  }
}

#if defined(__x86_64__)
__attribute__((target("avx,f16c"))) void ConvertF16c(const char* in, int64_t count, float* out) {
  int64_t i = 0;
  for (; i + 8 <= count; i += 8) {
    const __m128i halves = _mm_loadu_si128(reinterpret_cast<const __m128i*>(in + 2 * i));
    _mm256_storeu_ps(out + i, _mm256_cvtph_ps(halves));
  }
  ConvertPortable(in + 2 * i, count - i, out + i);
}
#endif

Converter PickConverter() {
#if defined(__x86_64__)
  // Clang 14 cannot ask for F16C; every processor with AVX2 has it.
  if (__builtin_cpu_supports("avx2")) return ConvertF16c;
#endif
  return ConvertPortable;
}

// pack(row, count, first_k, depth, packed): packed[block of 12 rows][depth][12], absent rows zero.
template <typename Pack>
void Multiply(int64_t out_rows, int64_t depth, const float* in, int64_t panels, float* out,
              PanelScratch& scratch, Pack pack) {
  static const Kernel kernel = PickKernel();
  scratch.packed.resize(size_t{kDepthBlock} * kPackRows);
  if (depth == 0) std::fill(out, out + panels * out_rows * kPanelColumns, 0.0f);
  float tail[kRowBlock * kPanelColumns];
  for (int64_t first_k = 0; first_k < depth; first_k += kDepthBlock) {
    const int64_t block_depth = std::min<int64_t>(kDepthBlock, depth - first_k);
    for (int64_t first_row = 0; first_row < out_rows; first_row += kPackRows) {
      const int64_t pack_rows = std::min<int64_t>(kPackRows, out_rows - first_row);
      pack(first_row, pack_rows, first_k, block_depth, scratch.packed.data());
      for (int64_t panel = 0; panel < panels; ++panel) {
        const float* b = in + (panel * depth + first_k) * kPanelColumns;
        for (int64_t row = 0; row < pack_rows; row += kRowBlock) {
          const float* a = scratch.packed.data() + row * block_depth;
          const int64_t count = std::min<int64_t>(kRowBlock, pack_rows - row);
          float* target = out + (panel * out_rows + first_row + row) * kPanelColumns;
          if (count == kRowBlock) {
            kernel(a, b, block_depth, first_k > 0, target);
          } else {
            std::fill(tail, tail + kRowBlock * kPanelColumns, 0.0f);
            if (first_k > 0) std::copy(target, target + count * kPanelColumns, tail);
            kernel(a, b, block_depth, true, tail);
            std::copy(tail, tail + count * kPanelColumns, target);
          }
        }
      }
    }
  }
}

}  // namespace

void MultiplyRows(const HalfMatrix& matrix, absl::Span<const int32_t> rows, const float* in,
                  int64_t panels, float* out, PanelScratch& scratch) {
  static const Converter convert = PickConverter();
  float source[kDepthBlock];
  Multiply(rows.size(), matrix.columns, in, panels, out, scratch,
           [&](int64_t row, int64_t count, int64_t first_k, int64_t depth, float* packed) {
             std::fill(packed, packed + (count + kRowBlock - 1) / kRowBlock * kRowBlock * depth,
                       0.0f);
             for (int64_t i = 0; i < count; ++i) {
               convert(matrix.data + (rows[row + i] * matrix.columns + first_k) * 2, depth, source);
               float* target = packed + i / kRowBlock * kRowBlock * depth + i % kRowBlock;
               for (int64_t k = 0; k < depth; ++k) target[k * kRowBlock] = source[k];
             }
           });
}

}  // namespace kvstream

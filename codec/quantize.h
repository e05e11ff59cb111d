// The embedded quantiser.
//
// All in units of the base step. Level 0 rounds |x| to the nearest integer, but to 0 below the dead
// zone's edge 0.6. Its cells are
//   0: (-0.6, 0.6)    +-1: (0.6, 1.5)    +-k: (k - 0.5, k + 0.5)
// and each further level cuts every cell into three equal parts, so cells nest exactly and the
// error falls by 3 per level everywhere. A cell of level n is one integer v: v(n+1) = 3 v(n) + r
// with r in {-1, 0, 1}, and v / 3^n rounds to the level-0 symbol. Cell centres follow from the
// piecewise linear map below.
#ifndef KVSTREAM_CODEC_QUANTIZE_H_
#define KVSTREAM_CODEC_QUANTIZE_H_

#include <cstdint>
#include <cstdlib>

namespace kvstream {

constexpr double kDeadZone = 0.6;
constexpr int kMaxLevels = 8;
// Level-0 symbols are clamped to this magnitude: far beyond any calibrated model, and every v fits
// int32 (3^7 * 2^19 < 2^31).
constexpr int32_t kMaxBaseSymbol = 1 << 19;

constexpr int32_t PowerOf3(int n) { return n == 0 ? 1 : 3 * PowerOf3(n - 1); }

// Nearest integer to v / 3 (no ties).
inline int32_t ParentCell(int32_t v) { return (v + (v >= 0 ? 1 : -1)) / 3; }

// Position u = v / 3^n (or a cell's edge (v +- 0.5) / 3^n) on the uniform axis -> value on the
// warped one, both non-negative.
template <typename T>
inline T Unwarp(T u) {
  return u < T(0.5) ? T(1.2) * u : (u < T(1.5) ? T(0.9) * u + T(0.15) : u);
}

// Inverse of Unwarp.
template <typename T>
inline T Warp(T x) {
  return x < T(0.6) ? x * T(1 / 1.2) : (x < T(1.5) ? (x - T(0.15)) * T(1 / 0.9) : x);
}

// Cell of x (in base steps) at the level whose 3^n is `power`.
inline int32_t CellOf(float x, float power) {
  const float magnitude = x < 0 ? -x : x;
  float u = Warp(magnitude);
  u = u < static_cast<float>(kMaxBaseSymbol) ? u : static_cast<float>(kMaxBaseSymbol);
  const float rounded_up = u * power + 0.5f;
  const int32_t cell = static_cast<int32_t>(rounded_up);
  return x < 0 ? -cell : cell;
}

}  // namespace kvstream

#endif  // KVSTREAM_CODEC_QUANTIZE_H_

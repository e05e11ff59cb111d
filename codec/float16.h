// 16-bit floats of KV caches and of stored transforms <-> float. Everything here is branch-free so
// that loops over it vectorise.
#ifndef KVSTREAM_CODEC_FLOAT16_H_
#define KVSTREAM_CODEC_FLOAT16_H_

#include <cstdint>
#include <cstring>

#include "codec/geometry.h"

namespace kvstream {

inline float FloatFromBits(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}

inline uint32_t BitsOfFloat(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  return bits;
}

// Exact for every finite half; infinities and NaN become finite values of 65536 and more (callers
// reject them first).
inline float FloatFromHalf(uint16_t half) {
  const float magnitude =
      FloatFromBits(uint32_t{half & 0x7fffu} << 13) * FloatFromBits(0x77800000);  // * 2^112
  return FloatFromBits(BitsOfFloat(magnitude) | uint32_t{half & 0x8000u} << 16);
}

// Nearest half, ties to even; magnitudes beyond 65504 (and NaN) saturate to 65504, so that the
// result is always finite.
inline uint16_t HalfFromFloat(float value) {
  const uint32_t sign = BitsOfFloat(value) >> 16 & 0x8000u;
  float magnitude = FloatFromBits(BitsOfFloat(value) & 0x7fffffffu);
  magnitude = magnitude < 65504.0f ? magnitude : 65504.0f;
  const uint32_t bits = BitsOfFloat(magnitude * FloatFromBits(0x07800000));  // * 2^-112
  return static_cast<uint16_t>(sign | (bits + 0xfffu + (bits >> 13 & 1u)) >> 13);
}

inline float FloatFromBfloat(uint16_t bfloat) { return FloatFromBits(uint32_t{bfloat} << 16); }

// Nearest bfloat16, ties to even; beyond the largest finite one (and NaN) saturates to it.
inline uint16_t BfloatFromFloat(float value) {
  constexpr uint32_t kLargest = 0x7f7f0000;
  const uint32_t sign = BitsOfFloat(value) >> 16 & 0x8000u;
  uint32_t magnitude = BitsOfFloat(value) & 0x7fffffffu;
  magnitude = magnitude < kLargest ? magnitude : kLargest;
  return static_cast<uint16_t>(sign | (magnitude + 0x7fffu + (magnitude >> 16 & 1u)) >> 16);
}

inline bool IsFinite16(uint16_t bits, KvDtype dtype) {
  const uint16_t exponent = dtype == KvDtype::kF16 ? 0x7c00 : 0x7f80;
  return (bits & exponent) != exponent;
}

inline float FloatFrom16(uint16_t bits, KvDtype dtype) {
  return dtype == KvDtype::kF16 ? FloatFromHalf(bits) : FloatFromBfloat(bits);
}

inline uint16_t Float16From(float value, KvDtype dtype) {
  return dtype == KvDtype::kF16 ? HalfFromFloat(value) : BfloatFromFloat(value);
}

}  // namespace kvstream

#endif  // KVSTREAM_CODEC_FLOAT16_H_

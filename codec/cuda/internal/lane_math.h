// The codec's arithmetic for one value, in a form that nvcc compiles too. The host's own code is
// the oracle (codec/float16.h, codec/quantize.h, codec/decoder.cc); lane_math_test compares.
#ifndef KVSTREAM_CODEC_CUDA_INTERNAL_LANE_MATH_H_
#define KVSTREAM_CODEC_CUDA_INTERNAL_LANE_MATH_H_

#include <cstdint>
#include <cstring>

#include "codec/cuda/internal/kernel_types.h"
#include "codec/cuda/internal/warp.h"

namespace kvstream {
namespace cuda {

KVSTREAM_KERNEL_CODE float AsFloat(uint32_t bits) {
#ifdef __CUDACC__
  return __uint_as_float(bits);
#else
  float value;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
#endif
}

KVSTREAM_KERNEL_CODE uint32_t AsBits(float value) {
#ifdef __CUDACC__
  return __float_as_uint(value);
#else
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  return bits;
#endif
}

// Nearest half, ties to even, saturating at 65504.
KVSTREAM_KERNEL_CODE uint16_t ToHalf(float value) {
  const uint32_t sign = AsBits(value) >> 16 & 0x8000u;
  float magnitude = AsFloat(AsBits(value) & 0x7fffffffu);
  magnitude = magnitude < 65504.0f ? magnitude : 65504.0f;
#ifdef __CUDACC__
  uint16_t half;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(half) : "f"(magnitude));
  return static_cast<uint16_t>(sign | half);
#else
  const uint32_t bits = AsBits(magnitude * AsFloat(0x07800000u));  // * 2^-112
  return static_cast<uint16_t>(sign | (bits + 0xfffu + (bits >> 13 & 1u)) >> 13);
#endif
}

KVSTREAM_KERNEL_CODE float FromHalf(uint16_t half) {
  const float magnitude = AsFloat((half & 0x7fffu) << 13) * AsFloat(0x77800000u);  // * 2^112
  return AsFloat(AsBits(magnitude) | (half & 0x8000u) << 16);
}

// Nearest bfloat16, ties to even, saturating at the largest finite one.
KVSTREAM_KERNEL_CODE uint16_t ToBfloat(float value) {
  const uint32_t sign = AsBits(value) >> 16 & 0x8000u;
  uint32_t magnitude = AsBits(value) & 0x7fffffffu;
  magnitude = magnitude < 0x7f7f0000u ? magnitude : 0x7f7f0000u;
  return static_cast<uint16_t>(sign | (magnitude + 0x7fffu + (magnitude >> 16 & 1u)) >> 16);
}

KVSTREAM_KERNEL_CODE uint16_t To16(float value, int dtype) {
  return dtype == 0 ? ToHalf(value) : ToBfloat(value);
}

KVSTREAM_KERNEL_CODE float From16(uint16_t bits, int dtype) {
  return dtype == 0 ? FromHalf(bits) : AsFloat(static_cast<uint32_t>(bits) << 16);
}

KVSTREAM_KERNEL_CODE bool Finite16(uint16_t bits, int dtype) {
  const uint32_t exponent = dtype == 0 ? 0x7c00u : 0x7f80u;
  return (bits & exponent) != exponent;
}

KVSTREAM_KERNEL_CODE int32_t Parent(int32_t cell) { return (cell + (cell >= 0 ? 1 : -1)) / 3; }

KVSTREAM_KERNEL_CODE int32_t PowerOfThree(int n) {
  int32_t power = 1;
  for (int i = 0; i < n; ++i) power *= 3;
  return power;
}

// Value of a cell of level n in base steps; inverse_power = 1 / 3^n.
KVSTREAM_KERNEL_CODE float ValueOfCell(int32_t cell, float inverse_power, ShrinkDev shrink) {
  const float magnitude = static_cast<float>(cell < 0 ? -cell : cell);
  const float u = magnitude * inverse_power;
  const float centre = u < 0.5f ? 1.2f * u : (u < 1.5f ? 0.9f * u + 0.15f : u);
  float value = centre - (magnitude < 2 ? shrink.near : shrink.far);
  value = value > 0 && cell != 0 ? value : 0;
  return cell < 0 ? -value : value;
}

// Cell of x (base steps) at the level whose 3^n is `power`.
KVSTREAM_KERNEL_CODE int32_t CellOfValue(float x, float power) {
  const float magnitude = x < 0 ? -x : x;
  float u = magnitude < 0.6f ? magnitude * static_cast<float>(1 / 1.2)
                             : (magnitude < 1.5f ? (magnitude - 0.15f) * static_cast<float>(1 / 0.9)
                                                 : magnitude);
  u = u < 524288.0f ? u : 524288.0f;
  const float rounded_up = u * power + 0.5f;
  const int32_t cell = static_cast<int32_t>(rounded_up);
  return x < 0 ? -cell : cell;
}

}  // namespace cuda
}  // namespace kvstream

#endif  // KVSTREAM_CODEC_CUDA_INTERNAL_LANE_MATH_H_

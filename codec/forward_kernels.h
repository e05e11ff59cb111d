// Loops of the codec over values, vectorised with Highway; equal to the scalar functions that they
// name, bit for bit.
#ifndef KVSTREAM_CODEC_FORWARD_KERNELS_H_
#define KVSTREAM_CODEC_FORWARD_KERNELS_H_

#include <cstdint>

#include "codec/geometry.h"

namespace kvstream {

// 16-bit floats -> floats, as FloatFrom16. False if one is not finite.
bool WidenLine(const uint16_t* in, int64_t count, KvDtype dtype, float* out);

// Four tokens' channels (in: [4][stride], at least `channels` of each) -> columns of a panel:
// out[c * 32 + t] = (in[t][c] - mean[c]) * inverse[c] for t < 4.
void NormaliseFour(const float* in, int64_t stride, int64_t channels, const float* mean,
                   const float* inverse, float* out);

// RoPE of the half-split layout, first and second holding `pairs` floats each:
// first = first * c - second * s, second = second * c + first * s, with c and s scaled.
void RotateHalves(const float* cosine, const float* sine, float cosine_scale, float sine_scale,
                  int64_t pairs, float* first, float* second);

}  // namespace kvstream

#endif  // KVSTREAM_CODEC_FORWARD_KERNELS_H_

#include "codec/forward_kernels.h"

#include "codec/float16.h"
#include "codec/panel_multiply.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "codec/forward_kernels.cc"
// foreach_target.h must come before highway.h.
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace kvstream {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;
using FloatTag = hn::CappedTag<float, 16>;
using IntTag = hn::RebindToSigned<FloatTag>;
using Floats = hn::Vec<FloatTag>;
constexpr int kVector = static_cast<int>(hn::MaxLanes(FloatTag()));

bool Widen(const uint16_t* in, int64_t count, KvDtype dtype, float* out) {
  const FloatTag d;
  const IntTag di;
  const hn::Rebind<uint16_t, FloatTag> d16;
  const bool half = dtype == KvDtype::kF16;
  const auto exponent = hn::Set(di, half ? 0x7c00 : 0x7f80);
  auto infinite = hn::Zero(di);  // all ones where a value is not finite
  int64_t i = 0;
  for (; i + kVector <= count; i += kVector) {
    const auto bits = hn::PromoteTo(di, hn::LoadU(d16, in + i));
    infinite = hn::Or(infinite, hn::VecFromMask(di, hn::Eq(hn::And(bits, exponent), exponent)));
    if (half) {
      const auto magnitude =
          hn::Mul(hn::BitCast(d, hn::ShiftLeft<13>(hn::And(bits, hn::Set(di, 0x7fff)))),
                  hn::BitCast(d, hn::Set(di, 0x77800000)));  // * 2^112
      const auto sign = hn::ShiftLeft<16>(hn::And(bits, hn::Set(di, 0x8000)));
      hn::StoreU(hn::Or(magnitude, hn::BitCast(d, sign)), d, out + i);
    } else {
      hn::StoreU(hn::BitCast(d, hn::ShiftLeft<16>(bits)), d, out + i);
    }
  }
  bool finite = hn::AllTrue(di, hn::Eq(infinite, hn::Zero(di)));
  for (; i < count; ++i) {
    finite &= IsFinite16(in[i], dtype);
    out[i] = FloatFrom16(in[i], dtype);
  }
  return finite;
}

void Normalise(const float* in, int64_t stride, int64_t channels, const float* mean,
               const float* inverse, float* out) {
  int64_t c = 0;
#if HWY_TARGET != HWY_SCALAR
  const hn::FixedTag<float, 4> d;
  const hn::Repartition<uint64_t, decltype(d)> dw;
  for (; c + 4 <= channels; c += 4) {
    const auto means = hn::LoadU(d, mean + c);
    const auto factors = hn::LoadU(d, inverse + c);
    const auto row = [&](int t) {
      return hn::Mul(hn::Sub(hn::LoadU(d, in + t * stride + c), means), factors);
    };
    const auto r0 = row(0);
    const auto r1 = row(1);
    const auto r2 = row(2);
    const auto r3 = row(3);
    const auto low01 = hn::BitCast(dw, hn::InterleaveLower(d, r0, r1));
    const auto low23 = hn::BitCast(dw, hn::InterleaveLower(d, r2, r3));
    const auto high01 = hn::BitCast(dw, hn::InterleaveUpper(d, r0, r1));
    const auto high23 = hn::BitCast(dw, hn::InterleaveUpper(d, r2, r3));
    float* const at = out + c * kPanelColumns;
    hn::StoreU(hn::BitCast(d, hn::InterleaveLower(dw, low01, low23)), d, at);
    hn::StoreU(hn::BitCast(d, hn::InterleaveUpper(dw, low01, low23)), d, at + kPanelColumns);
    hn::StoreU(hn::BitCast(d, hn::InterleaveLower(dw, high01, high23)), d, at + 2 * kPanelColumns);
    hn::StoreU(hn::BitCast(d, hn::InterleaveUpper(dw, high01, high23)), d, at + 3 * kPanelColumns);
  }
#endif
  for (; c < channels; ++c) {
    for (int t = 0; t < 4; ++t)
      out[c * kPanelColumns + t] = (in[t * stride + c] - mean[c]) * inverse[c];
  }
}

void Rotate(const float* cosine, const float* sine, float cosine_scale, float sine_scale,
            int64_t pairs, float* first, float* second) {
  const FloatTag d;
  const auto cosine_factor = hn::Set(d, cosine_scale);
  const auto sine_factor = hn::Set(d, sine_scale);
  int64_t i = 0;
  for (; i + kVector <= pairs; i += kVector) {
    const Floats c = hn::Mul(hn::LoadU(d, cosine + i), cosine_factor);
    const Floats s = hn::Mul(hn::LoadU(d, sine + i), sine_factor);
    const Floats a = hn::LoadU(d, first + i);
    const Floats b = hn::LoadU(d, second + i);
    hn::StoreU(hn::Sub(hn::Mul(a, c), hn::Mul(b, s)), d, first + i);
    hn::StoreU(hn::Add(hn::Mul(b, c), hn::Mul(a, s)), d, second + i);
  }
  for (; i < pairs; ++i) {
    const float c = cosine[i] * cosine_scale;
    const float s = sine[i] * sine_scale;
    const float a = first[i];
    const float b = second[i];
    first[i] = a * c - b * s;
    second[i] = b * c + a * s;
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace kvstream
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace kvstream {

HWY_EXPORT(Widen);
HWY_EXPORT(Normalise);
HWY_EXPORT(Rotate);

bool WidenLine(const uint16_t* in, int64_t count, KvDtype dtype, float* out) {
  return HWY_DYNAMIC_DISPATCH(Widen)(in, count, dtype, out);
}

void NormaliseFour(const float* in, int64_t stride, int64_t channels, const float* mean,
                   const float* inverse, float* out) {
  HWY_DYNAMIC_DISPATCH(Normalise)(in, stride, channels, mean, inverse, out);
}

void RotateHalves(const float* cosine, const float* sine, float cosine_scale, float sine_scale,
                  int64_t pairs, float* first, float* second) {
  HWY_DYNAMIC_DISPATCH(Rotate)(cosine, sine, cosine_scale, sine_scale, pairs, first, second);
}

}  // namespace kvstream
#endif

#include "codec/inverse_transform.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "codec/float16.h"
#include "codec/forward_kernels.h"
#include "codec/kv_panels.h"
#include "codec/quantize.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "codec/inverse_transform.cc"
// foreach_target.h must come before highway.h.
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

#ifndef KVSTREAM_CODEC_INVERSE_TRANSFORM_ONCE
#define KVSTREAM_CODEC_INVERSE_TRANSFORM_ONCE
namespace kvstream {

constexpr int kTileTokens = 8;
// Rows of a slab are padded to this many channels: two vectors of any target.
constexpr int kSlabStep = 32;
// Rows of `values`, and tokens of `norm`, are padded to this many.
constexpr int kTokenStep = 16;
// Depth of a slab, so that it stays in L2 with heads of up to 256.
constexpr int64_t kSlabDepth = 512;
constexpr float kShortOne = 32767.0f;

// How a decoder places values within cells.
struct Placement {
  float inverse_power;  // 3^-level
  float near;           // shrink of cells of magnitude 1
  float far;            // and beyond
};

}  // namespace kvstream
#endif

HWY_BEFORE_NAMESPACE();
namespace kvstream {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;
using FloatTag = hn::CappedTag<float, 16>;
using IntTag = hn::RebindToSigned<FloatTag>;
using Floats = hn::Vec<FloatTag>;
constexpr int kVector = static_cast<int>(hn::MaxLanes(FloatTag()));

// A row of cells -> values, and adds their squares. Reads up to 15 cells beyond the row. False if
// every cell is 0.
bool DequantiseRow(const int32_t* cells, int64_t tokens, const Placement& placement, float* values,
                   float* squares) {
  const FloatTag d;
  const IntTag di;
  const auto zero = hn::Zero(d);
  auto any = hn::Zero(di);
  for (int64_t t = 0; t < tokens; t += kVector) {
    __builtin_prefetch(cells + tokens + t);  // the next row
    auto cell = hn::LoadU(di, cells + t);
    if (t + kVector > tokens)
      cell = hn::IfThenElseZero(hn::FirstN(di, static_cast<size_t>(tokens - t)), cell);
    any = hn::Or(any, cell);
    const Floats magnitude = hn::ConvertTo(d, hn::Abs(cell));
    const Floats u = hn::Mul(magnitude, hn::Set(d, placement.inverse_power));
    const Floats centre =
        hn::IfThenElse(hn::Lt(u, hn::Set(d, 0.5f)), hn::Mul(u, hn::Set(d, 1.2f)),
                       hn::IfThenElse(hn::Lt(u, hn::Set(d, 1.5f)),
                                      hn::Add(hn::Mul(u, hn::Set(d, 0.9f)), hn::Set(d, 0.15f)), u));
    const Floats shrink = hn::IfThenElse(hn::Lt(magnitude, hn::Set(d, 2.0f)),
                                         hn::Set(d, placement.near), hn::Set(d, placement.far));
    Floats value = hn::Max(hn::Sub(centre, shrink), zero);
    value = hn::IfThenZeroElse(hn::Eq(magnitude, zero), value);
    hn::StoreU(hn::CopySignToAbs(value, hn::BitCast(d, cell)), d, values + t);
    hn::StoreU(hn::Add(hn::LoadU(d, squares + t), hn::Mul(value, value)), d, squares + t);
  }
  return !hn::AllTrue(di, hn::Eq(any, hn::Zero(di)));
}

// values: [row][stride]. out: [token / 8][rows][8], as they are.
void PackFloats(const float* values, int64_t stride, int64_t rows, int64_t tokens, int32_t* out) {
  for (int64_t t = 0; t < tokens; t += kTileTokens) {
    for (int64_t row = 0; row < rows; ++row, out += kTileTokens)
      std::memcpy(out, values + row * stride + t, kTileTokens * sizeof(float));
  }
}

// out: [token / 8][pair of rows][8], row 2i in the low and row 2i + 1 in the high half; scaled by
// token. A last odd row is paired with zeros.
void PackShorts(const float* values, int64_t stride, int64_t rows, int64_t tokens,
                const float* scale, int32_t* out) {
  const hn::CappedTag<float, kTileTokens> d;
  const hn::RebindToSigned<decltype(d)> di;
  const int64_t step = static_cast<int64_t>(hn::MaxLanes(d));
  const int64_t pairs = (rows + 1) / 2;
  for (int64_t pair = 0; pair < pairs; ++pair) {
    const float* const low = values + 2 * pair * stride;
    const bool both = 2 * pair + 1 < rows;
    for (int64_t t = 0; t < tokens; t += step) {
      const auto factor = hn::LoadU(d, scale + t);
      const auto a = hn::NearestInt(hn::Mul(hn::LoadU(d, low + t), factor));
      auto b = hn::Zero(di);
      if (both) b = hn::NearestInt(hn::Mul(hn::LoadU(d, low + stride + t), factor));
      hn::StoreU(hn::Or(hn::And(a, hn::Set(di, 0xffff)), hn::ShiftLeft<16>(b)), di,
                 out + (t / kTileTokens * pairs + pair) * kTileTokens + t % kTileTokens);
    }
  }
}

// Half-precision entries, `padded` of them.
HWY_INLINE Floats LoadHalves(const uint16_t* in) {
  const FloatTag d;
  const hn::Rebind<hwy::float16_t, FloatTag> dh;
  const hn::Rebind<uint16_t, FloatTag> du;
  return hn::PromoteTo(d, hn::BitCast(dh, hn::LoadU(du, in)));
}

void FloatSlabRow(const uint16_t* halves, int64_t padded, int32_t* out) {
  for (int64_t c = 0; c < padded; c += kVector)
    hn::StoreU(hn::BitCast(IntTag(), LoadHalves(halves + c)), IntTag(), out + c);
}

void ShortSlabRow(const uint16_t* low, const uint16_t* high, int64_t padded, int32_t* out) {
  const FloatTag d;
  const IntTag di;
  const auto one = hn::Set(d, kShortOne);
  const auto bound = hn::Set(di, static_cast<int32_t>(kShortOne));
  const auto round = [&](const uint16_t* in) {
    const auto entry = hn::NearestInt(hn::Mul(LoadHalves(in), one));
    return hn::Max(hn::Min(entry, bound), hn::Neg(bound));
  };
  for (int64_t c = 0; c < padded; c += kVector) {
    hn::StoreU(
        hn::Or(hn::And(round(low + c), hn::Set(di, 0xffff)), hn::ShiftLeft<16>(round(high + c))),
        di, out + c);
  }
}

// Vectors of channels that a tile's sums take up: with 8 tokens, half of the registers.
constexpr int kTileVectors = kVector == 8 || kVector == 1 ? 1 : 2;

// sums[8][padded] (+)= sum over rows of packed[row][8] * slab[row][padded].
void FloatTile(const int32_t* packed, const int32_t* slab, int64_t rows, int64_t padded, bool add,
               int32_t* sums) {
  const FloatTag d;
  for (int64_t c = 0; c < padded; c += kTileVectors * kVector) {
    Floats sum[kTileTokens][kTileVectors];
#pragma GCC unroll 8
    for (int t = 0; t < kTileTokens; ++t) {
#pragma GCC unroll 2
      for (int v = 0; v < kTileVectors; ++v) {
        sum[t][v] = add ? hn::BitCast(d, hn::LoadU(IntTag(), sums + t * padded + c + v * kVector))
                        : hn::Zero(d);
      }
    }
    for (int64_t row = 0; row < rows; ++row) {
      Floats entry[kTileVectors];
#pragma GCC unroll 2
      for (int v = 0; v < kTileVectors; ++v) {
        entry[v] = hn::BitCast(d, hn::LoadU(IntTag(), slab + row * padded + c + v * kVector));
      }
#pragma GCC unroll 8
      for (int t = 0; t < kTileTokens; ++t) {
        const Floats value = hn::BitCast(d, hn::Set(IntTag(), packed[row * kTileTokens + t]));
#pragma GCC unroll 2
        for (int v = 0; v < kTileVectors; ++v) sum[t][v] = hn::MulAdd(value, entry[v], sum[t][v]);
      }
    }
#pragma GCC unroll 8
    for (int t = 0; t < kTileTokens; ++t) {
#pragma GCC unroll 2
      for (int v = 0; v < kTileVectors; ++v) {
        hn::StoreU(hn::BitCast(IntTag(), sum[t][v]), IntTag(), sums + t * padded + c + v * kVector);
      }
    }
  }
}

// The same with pairs of 16-bit integers and 32-bit sums, which wrap.
void ShortTile(const int32_t* packed, const int32_t* slab, int64_t pairs, int64_t padded, bool add,
               int32_t* sums) {
#if HWY_TARGET == HWY_SCALAR
  if (!add) std::fill(sums, sums + kTileTokens * padded, 0);
  for (int64_t pair = 0; pair < pairs; ++pair) {
    for (int t = 0; t < kTileTokens; ++t) {
      const int32_t value = packed[pair * kTileTokens + t];
      for (int64_t c = 0; c < padded; ++c) {
        const int32_t entry = slab[pair * padded + c];
        const int32_t low = static_cast<int16_t>(value) * static_cast<int16_t>(entry);
        const int32_t high = (value >> 16) * (entry >> 16);
        uint32_t sum = static_cast<uint32_t>(sums[t * padded + c]);
        sum += static_cast<uint32_t>(low);
        sum += static_cast<uint32_t>(high);
        sums[t * padded + c] = static_cast<int32_t>(sum);
      }
    }
  }
#else
  const IntTag d;
  const hn::Repartition<int16_t, IntTag> d16;
  using Ints = hn::Vec<IntTag>;
  for (int64_t c = 0; c < padded; c += kTileVectors * kVector) {
    // Some targets add the halves of a product to sums of their own.
    Ints sum[kTileTokens][kTileVectors];
    Ints other[kTileTokens][kTileVectors];
#pragma GCC unroll 8
    for (int t = 0; t < kTileTokens; ++t) {
#pragma GCC unroll 2
      for (int v = 0; v < kTileVectors; ++v) sum[t][v] = other[t][v] = hn::Zero(d);
    }
    for (int64_t pair = 0; pair < pairs; ++pair) {
      Ints entry[kTileVectors];
#pragma GCC unroll 2
      for (int v = 0; v < kTileVectors; ++v)
        entry[v] = hn::LoadU(d, slab + pair * padded + c + v * kVector);
#pragma GCC unroll 8
      for (int t = 0; t < kTileTokens; ++t) {
        const Ints value = hn::Set(d, packed[pair * kTileTokens + t]);
#pragma GCC unroll 2
        for (int v = 0; v < kTileVectors; ++v) {
          sum[t][v] = hn::ReorderWidenMulAccumulate(
              d, hn::BitCast(d16, value), hn::BitCast(d16, entry[v]), sum[t][v], other[t][v]);
        }
      }
    }
#pragma GCC unroll 8
    for (int t = 0; t < kTileTokens; ++t) {
#pragma GCC unroll 2
      for (int v = 0; v < kTileVectors; ++v) {
        int32_t* const at = sums + t * padded + c + v * kVector;
        Ints total = hn::RearrangeToOddPlusEven(sum[t][v], other[t][v]);
        if (add) total = hn::Add(total, hn::LoadU(d, at));
        hn::StoreU(total, d, at);
      }
    }
  }
#endif
}

// Sums of one token -> values of the model before RoPE: sum * scale * unit + mean.
void ScaleLine(const int32_t* sums, bool shorts, float scale, const float* unit, const float* mean,
               int64_t channels, float* line) {
  const FloatTag d;
  const IntTag di;
  int64_t c = 0;
  const auto factor = hn::Set(d, scale);
  for (; c + kVector <= channels; c += kVector) {
    const auto bits = hn::LoadU(di, sums + c);
    const Floats sum = shorts ? hn::ConvertTo(d, bits) : hn::BitCast(d, bits);
    hn::StoreU(
        hn::Add(hn::Mul(hn::Mul(sum, factor), hn::LoadU(d, unit + c)), hn::LoadU(d, mean + c)), d,
        line + c);
  }
  for (; c < channels; ++c) {
    const float sum =
        shorts ? static_cast<float>(sums[c]) : FloatFromBits(static_cast<uint32_t>(sums[c]));
    line[c] = sum * scale * unit[c] + mean[c];
  }
}

// As Float16From, of a line.
void NarrowLine(const float* line, int64_t channels, KvDtype dtype, uint16_t* out) {
  const FloatTag d;
  const IntTag di;
  const hn::Rebind<uint16_t, FloatTag> d16;
  const auto sign_mask = hn::Set(di, 0x8000);
  const auto magnitude_mask = hn::Set(di, 0x7fffffff);
  const auto one = hn::Set(di, 1);
  int64_t c = 0;
  for (; c + kVector <= channels; c += kVector) {
    const auto bits = hn::LoadU(di, reinterpret_cast<const int32_t*>(line + c));
    const auto sign = hn::And(hn::ShiftRight<16>(bits), sign_mask);
    auto magnitude = hn::And(bits, magnitude_mask);
    if (dtype == KvDtype::kBF16) {
      magnitude = hn::Min(magnitude, hn::Set(di, 0x7f7f0000));
      const auto odd = hn::And(hn::ShiftRight<16>(magnitude), one);
      magnitude = hn::ShiftRight<16>(hn::Add(magnitude, hn::Add(hn::Set(di, 0x7fff), odd)));
    } else {
      const auto largest = hn::Set(d, 65504.0f);
      const auto value = hn::BitCast(d, magnitude);
      const auto clamped = hn::IfThenElse(hn::Lt(value, largest), value, largest);
      const auto scaled =
          hn::BitCast(di, hn::Mul(clamped, hn::BitCast(d, hn::Set(di, 0x07800000))));  // * 2^-112
      const auto odd = hn::And(hn::ShiftRight<13>(scaled), one);
      magnitude = hn::ShiftRight<13>(hn::Add(scaled, hn::Add(hn::Set(di, 0xfff), odd)));
    }
    hn::StoreU(hn::DemoteTo(d16, hn::Or(sign, magnitude)), d16, out + c);
  }
  for (; c < channels; ++c) out[c] = Float16From(line[c], dtype);
}

}  // namespace HWY_NAMESPACE
}  // namespace kvstream
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace kvstream {

HWY_EXPORT(DequantiseRow);
HWY_EXPORT(PackFloats);
HWY_EXPORT(PackShorts);
HWY_EXPORT(FloatSlabRow);
HWY_EXPORT(ShortSlabRow);
HWY_EXPORT(FloatTile);
HWY_EXPORT(ShortTile);
HWY_EXPORT(ScaleLine);
HWY_EXPORT(NarrowLine);

InverseTransform::InverseTransform(const ProfileData& profile)
    : profile_(profile), rope_(profile.geometry.rope) {}

bool InverseTransform::Dequantise(const ProfileGroup& group, int level, const int32_t* cells,
                                  const std::vector<uint8_t>& classes, int64_t tokens) {
  const int64_t stride = (tokens + kTokenStep - 1) / kTokenStep * kTokenStep;
  const auto dequantise = HWY_DYNAMIC_DISPATCH(DequantiseRow);
  rows_.clear();
  rows_.reserve(group.rank);
  values_.resize(static_cast<size_t>(group.rank) * stride);
  norm_.assign(stride, 0.0f);
  Placement placement;
  placement.inverse_power = 1.0f / static_cast<float>(PowerOf3(level));
  for (int32_t i = 0; i < group.rank; ++i) {
    const int32_t coordinate = group.first_coordinate + i;
    const Shrink& shrink = profile_.tables.ShrinkOf(level, classes[coordinate]);
    placement.near = shrink[0];
    placement.far = shrink[1];
    const bool any = dequantise(cells + static_cast<int64_t>(coordinate) * tokens, tokens,
                                placement, &values_[rows_.size() * stride], norm_.data());
    if (any || !profile_.calibrated) rows_.push_back(i);
  }
  float largest = 0;
  for (float& norm : norm_) {
    norm = std::sqrt(norm);
    largest = std::max(largest, norm);
  }
  return largest * kShortProductError <= kShortProductShare * placement.inverse_power;
}

void InverseTransform::Pack(int64_t tokens, bool shorts) {
  const int64_t stride = static_cast<int64_t>(norm_.size());
  const int64_t rows = static_cast<int64_t>(rows_.size());
  packed_.resize((shorts ? (rows + 1) / 2 : rows) * stride);
  if (!shorts) {
    std::fill(norm_.begin(), norm_.end(), 1.0f);
    HWY_DYNAMIC_DISPATCH(PackFloats)(values_.data(), stride, rows, tokens, packed_.data());
    return;
  }
  // `line_` holds the factors of the values, norm_ those of the sums.
  line_.resize(std::max<size_t>(line_.size(), stride));
  for (int64_t t = 0; t < stride; ++t) {
    line_[t] = norm_[t] > 0 ? kShortOne / norm_[t] : 0.0f;
    norm_[t] /= kShortOne * kShortOne;
  }
  HWY_DYNAMIC_DISPATCH(PackShorts)
  (values_.data(), stride, rows, tokens, line_.data(), packed_.data());
}

void InverseTransform::MakeSlab(const ProfileGroup& group, int32_t first_channel, int64_t first,
                                int64_t count, bool shorts) {
  const HalfMatrix matrix = profile_.Matrix(group);
  const int64_t size = profile_.geometry.head_size;
  const int64_t padded = (size + kSlabStep - 1) / kSlabStep * kSlabStep;
  const int64_t rows = static_cast<int64_t>(rows_.size());
  slab_.resize(kSlabDepth * padded);
  halves_.assign(2 * padded, 0);
  const auto load = [&](int64_t row, uint16_t* out) {
    if (row < rows) {
      std::memcpy(out, matrix.data + (rows_[row] * matrix.columns + first_channel) * 2, size * 2);
    } else {
      std::fill(out, out + size, uint16_t{0});
    }
  };
  const auto float_row = HWY_DYNAMIC_DISPATCH(FloatSlabRow);
  const auto short_row = HWY_DYNAMIC_DISPATCH(ShortSlabRow);
  for (int64_t k = 0; k < count; ++k) {
    int32_t* const out = slab_.data() + k * padded;
    if (shorts) {
      load(2 * (first + k), halves_.data());
      load(2 * (first + k) + 1, halves_.data() + padded);
      short_row(halves_.data(), halves_.data() + padded, padded, out);
    } else {
      load(first + k, halves_.data());
      float_row(halves_.data(), padded, out);
    }
  }
}

void InverseTransform::Finish(int64_t first_token, int64_t count, const int32_t* sums, bool shorts,
                              const HeadPlace& place, const float* unit, const float* mean,
                              const MutableKvView& out) {
  const KvGeometry& geometry = profile_.geometry;
  const int64_t size = geometry.head_size;
  const int64_t padded = (size + kSlabStep - 1) / kSlabStep * kSlabStep;
  const MutableKvTensor& tensor = place.values ? out.values[place.layer] : out.keys[place.layer];
  const auto scale = HWY_DYNAMIC_DISPATCH(ScaleLine);
  const auto narrow = HWY_DYNAMIC_DISPATCH(NarrowLine);
  const bool half_split = geometry.rope.layout == RopeParameters::Layout::kHalfSplit;
  const int64_t pairs = geometry.rope.rotary_size() / 2;
  const float factor = static_cast<float>(geometry.rope.attention_factor);
  line_.resize(std::max<size_t>(line_.size(), size));
  for (int64_t t = 0; t < count; ++t) {
    const int64_t token = first_token + t;
    if (token + kTileTokens < out.tokens) {
      const uint16_t* const ahead = tensor.at(token + kTileTokens, place.head);
      for (int64_t c = 0; c < size; c += 32) __builtin_prefetch(ahead + c, 1);
    }
    scale(sums + t * padded, shorts, norm_[token], unit, mean, size, line_.data());
    if (!place.values && half_split) {
      float* const first = line_.data() + geometry.rope.rotary_offset;
      RotateHalves(rope_.Cosines(token), rope_.Sines(token), factor, factor, pairs, first,
                   first + pairs);
    } else if (!place.values) {
      rope_.Apply(token, line_.data());
    }
    narrow(line_.data(), size, geometry.dtype, tensor.at(token, place.head));
  }
}

void InverseTransform::Run(const ProfileGroup& group, int level, const int32_t* cells,
                           const std::vector<uint8_t>& classes, const std::vector<float>& mean,
                           const std::vector<float>& unit, int64_t position,
                           const MutableKvView& out, ProductKind kind) {
  const int64_t tokens = out.tokens;
  const int64_t size = profile_.geometry.head_size;
  const int64_t padded = (size + kSlabStep - 1) / kSlabStep * kSlabStep;
  rope_.Prepare(position, tokens);
  const bool fine =
      Dequantise(group, level, cells, classes, tokens) && profile_.geometry.dtype == KvDtype::kBF16;
  const bool shorts =
      profile_.calibrated && (kind == ProductKind::kAuto ? fine : kind == ProductKind::kShort);
  Pack(tokens, shorts);
  const int64_t depth = static_cast<int64_t>(shorts ? (rows_.size() + 1) / 2 : rows_.size());
  // All tokens' sums if the depth takes several slabs, else those of a tile, which stay in L1.
  const bool once = depth <= kSlabDepth || !profile_.calibrated;
  const int64_t stride = static_cast<int64_t>(norm_.size());
  sums_.resize((once ? kTileTokens : stride) * padded);
  const auto multiply = shorts ? HWY_DYNAMIC_DISPATCH(ShortTile) : HWY_DYNAMIC_DISPATCH(FloatTile);
  for (int32_t offset = 0; offset < group.channels; offset += size) {
    const int32_t channel = group.first_channel + offset;
    const HeadPlace place = PlaceOf(profile_.geometry, channel / size);
    const auto finish = [&](int64_t token, const int32_t* sums) {
      Finish(token, std::min<int64_t>(kTileTokens, tokens - token), sums, shorts, place,
             &unit[channel], &mean[channel], out);
    };
    for (int64_t first = 0; first == 0 || first < depth; first += kSlabDepth) {
      const int64_t count = std::min<int64_t>(kSlabDepth, depth - first);
      if (profile_.calibrated) MakeSlab(group, offset, first, count, shorts);
      for (int64_t token = 0; token < tokens; token += kTileTokens) {
        const int32_t* const packed =
            packed_.data() + (token / kTileTokens * depth + first) * kTileTokens;
        int32_t* const sums = sums_.data() + (once ? 0 : token * padded);
        if (profile_.calibrated) {
          multiply(packed, slab_.data(), count, padded, first > 0, sums);
        } else {
          for (int t = 0; t < kTileTokens; ++t) {
            for (int64_t c = 0; c < size; ++c)
              sums[t * padded + c] = packed[(offset + c) * kTileTokens + t];
          }
        }
        if (once) finish(token, sums);
      }
      if (once) break;
    }
    for (int64_t token = 0; !once && token < tokens; token += kTileTokens)
      finish(token, sums_.data() + token * padded);
  }
}

}  // namespace kvstream
#endif

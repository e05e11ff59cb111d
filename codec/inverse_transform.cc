#include "codec/inverse_transform.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "codec/float16.h"
#include "codec/forward_kernels.h"
#include "codec/kv_panels.h"
#include "codec/quantize.h"
#include "codec/rans.h"
#include "codec/tile_product.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "codec/inverse_transform.cc"
// foreach_target.h must come before highway.h.
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

#ifndef KVSTREAM_CODEC_INVERSE_TRANSFORM_ONCE
#define KVSTREAM_CODEC_INVERSE_TRANSFORM_ONCE
namespace kvstream {

// Depth of a slab, so that it stays in L2 with heads of up to 256.
constexpr int64_t kSlabDepth = 512;
constexpr int kHalfStep = kLanes / 2;
// Cells up to here are placed by a table in integers; beyond, every level that they can be used for
// has its cells evenly spaced.
constexpr int kPlaced = 64;
constexpr int kPlacedLevels = 4;  // 1.5 * 3^3 < 63

// How a decoder places values within cells.
struct Placement {
  float inverse_power;  // 3^-level
  float near;           // shrink of cells of magnitude 1
  float far;            // and beyond
};

// The same in integers: a cell v means sign(v) * (|v| * factor + offset[min(|v|, 63)]).
struct ShortPlacement {
  alignas(64) int16_t offset[kPlaced];
  int16_t factor;
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

// Cells of one step from a narrow row (wide null) or a wide one: tokens [16 half, 16 half + 16)
// from lane `at` of it on.
HWY_INLINE hn::Vec<IntTag> LoadCells(const int16_t* narrow, const int32_t* wide, int64_t t,
                                     int half, int at) {
  const IntTag di;
  if (wide != nullptr) return hn::LoadU(di, wide + t + half * kHalfStep + at);
  const auto pairs = hn::LoadU(di, reinterpret_cast<const int32_t*>(narrow + t) + at);
  return half == 0 ? hn::ShiftRight<16>(hn::ShiftLeft<16>(pairs)) : hn::ShiftRight<16>(pairs);
}

// Adds the squares of a row's cells to those of the tokens. False if every cell is 0.
bool AddSquares(const int16_t* narrow, const int32_t* wide, int64_t stride, float* squares) {
  const FloatTag d;
  auto any = hn::Zero(IntTag());
  for (int64_t t = 0; t < stride; t += kLanes) {
    for (int half = 0; half < 2; ++half) {
      for (int at = 0; at < kHalfStep; at += kVector) {
        const auto cells = LoadCells(narrow, wide, t, half, at);
        any = hn::Or(any, cells);
        const Floats value = hn::ConvertTo(d, cells);
        float* const sum = squares + t + half * kHalfStep + at;
        hn::StoreU(hn::Add(hn::LoadU(d, sum), hn::Mul(value, value)), d, sum);
      }
    }
  }
  return !hn::AllTrue(IntTag(), hn::Eq(any, hn::Zero(IntTag())));
}

// A row of cells -> values in base steps, in plain order.
void PlaceFloats(const int16_t* narrow, const int32_t* wide, int64_t stride,
                 const Placement& placement, float* values) {
  const FloatTag d;
  const auto zero = hn::Zero(d);
  for (int64_t t = 0; t < stride; t += kLanes) {
    for (int half = 0; half < 2; ++half) {
      for (int at = 0; at < kHalfStep; at += kVector) {
        const auto cell = LoadCells(narrow, wide, t, half, at);
        const Floats magnitude = hn::ConvertTo(d, hn::Abs(cell));
        const Floats u = hn::Mul(magnitude, hn::Set(d, placement.inverse_power));
        const Floats centre = hn::IfThenElse(
            hn::Lt(u, hn::Set(d, 0.5f)), hn::Mul(u, hn::Set(d, 1.2f)),
            hn::IfThenElse(hn::Lt(u, hn::Set(d, 1.5f)),
                           hn::Add(hn::Mul(u, hn::Set(d, 0.9f)), hn::Set(d, 0.15f)), u));
        const Floats shrink = hn::IfThenElse(hn::Lt(magnitude, hn::Set(d, 2.0f)),
                                             hn::Set(d, placement.near), hn::Set(d, placement.far));
        Floats value = hn::Max(hn::Sub(centre, shrink), zero);
        value = hn::IfThenZeroElse(hn::Eq(magnitude, zero), value);
        hn::StoreU(hn::CopySignToAbs(value, hn::BitCast(d, cell)), d,
                   values + t + half * kHalfStep + at);
      }
    }
  }
}

// Values in plain order, times `scale` -> rounded, in the order of a narrow row.
void RoundShorts(const float* values, int64_t stride, float scale, int16_t* out) {
  const FloatTag d;
  const IntTag di;
  const auto factor = hn::Set(d, scale);
  for (int64_t t = 0; t < stride; t += kLanes) {
    for (int at = 0; at < kHalfStep; at += kVector) {
      const auto low = hn::NearestInt(hn::Mul(hn::LoadU(d, values + t + at), factor));
      const auto high = hn::NearestInt(hn::Mul(hn::LoadU(d, values + t + kHalfStep + at), factor));
      hn::StoreU(hn::Or(hn::And(low, hn::Set(di, 0xffff)), hn::ShiftLeft<16>(high)), di,
                 reinterpret_cast<int32_t*>(out + t) + at);
    }
  }
}

// A narrow row of cells -> values as integers, in the same order.
void PlaceShorts(const int16_t* cells, int64_t stride, const ShortPlacement& placement,
                 int16_t* out) {
#if HWY_TARGET <= HWY_AVX3
  const __m512i low = _mm512_load_si512(placement.offset);
  const __m512i high = _mm512_load_si512(placement.offset + 32);
  const __m512i factor = _mm512_set1_epi16(placement.factor);
  for (int64_t t = 0; t < stride; t += kLanes) {
    const __m512i cell = _mm512_load_si512(cells + t);
    const __m512i magnitude = _mm512_abs_epi16(cell);
    const __m512i place = _mm512_min_epu16(magnitude, _mm512_set1_epi16(kPlaced - 1));
    const __m512i value = _mm512_add_epi16(_mm512_mullo_epi16(magnitude, factor),
                                           _mm512_permutex2var_epi16(low, place, high));
    _mm512_storeu_si512(out + t, _mm512_mask_sub_epi16(value, _mm512_movepi16_mask(cell),
                                                       _mm512_setzero_si512(), value));
  }
#else
  const IntTag di;
  int32_t offset[kPlaced];
  std::copy(placement.offset, placement.offset + kPlaced, offset);
  const auto factor = hn::Set(di, placement.factor);
  for (int64_t t = 0; t < stride; t += kLanes) {
    for (int at = 0; at < kHalfStep; at += kVector) {
      const auto place = [&](int half) {
        const auto cell = LoadCells(cells, nullptr, t, half, at);
        const auto magnitude = hn::Abs(cell);
        const auto index = hn::Min(magnitude, hn::Set(di, kPlaced - 1));
        const auto value = hn::Add(hn::Mul(magnitude, factor), hn::GatherIndex(di, offset, index));
        return hn::IfThenElse(hn::Lt(cell, hn::Zero(di)), hn::Neg(value), value);
      };
      hn::StoreU(hn::Or(hn::And(place(0), hn::Set(di, 0xffff)), hn::ShiftLeft<16>(place(1))), di,
                 reinterpret_cast<int32_t*>(out + t) + at);
    }
  }
#endif
}

// Stores 16 tokens' words, from lane `at` on, to their tiles; `tile` words lie between tiles.
HWY_INLINE void StoreTiles(hn::Vec<IntTag> words, int at, int64_t tile, int32_t* out) {
#if HWY_TARGET <= HWY_AVX3
  static_assert(kVector == 2 * kTileTokens, "a vector fills two tiles");
  const hn::Half<IntTag> half;
  hn::StoreU(hn::LowerHalf(half, words), half, out);
  hn::StoreU(hn::UpperHalf(half, words), half, out + tile);
  (void)at;
#else
  hn::StoreU(words, IntTag(), out + at / kTileTokens * tile + at % kTileTokens);
#endif
}

// Two rows of integers in the order of narrow rows -> the pair's words of every tile: the first row
// in the low half. out: [token / 8][tile], this pair's 8 words of each.
void PackPair(const int16_t* first, const int16_t* second, int64_t stride, int64_t tile,
              int32_t* out) {
  const IntTag di;
  const auto low = hn::Set(di, 0xffff);
  for (int64_t t = 0; t < stride; t += kLanes, out += kLanes / kTileTokens * tile) {
    for (int at = 0; at < kHalfStep; at += kVector) {
      const auto a = hn::LoadU(di, reinterpret_cast<const int32_t*>(first + t) + at);
      const auto b = hn::LoadU(di, reinterpret_cast<const int32_t*>(second + t) + at);
      StoreTiles(hn::Or(hn::And(a, low), hn::ShiftLeft<16>(b)), at, tile, out);
      StoreTiles(hn::Or(hn::And(hn::ShiftRight<16>(a), low), hn::AndNot(low, b)), at, tile,
                 out + kHalfStep / kTileTokens * tile);
    }
  }
}

// Sums of one token -> values of the model before RoPE: sum * factor + mean.
void ScaleLine(const int32_t* sums, bool shorts, const float* factor, const float* mean,
               int64_t channels, float* line) {
  const FloatTag d;
  const IntTag di;
  int64_t c = 0;
  for (; c + kVector <= channels; c += kVector) {
    const auto bits = hn::LoadU(di, sums + c);
    const Floats sum = shorts ? hn::ConvertTo(d, bits) : hn::BitCast(d, bits);
    hn::StoreU(hn::Add(hn::Mul(sum, hn::LoadU(d, factor + c)), hn::LoadU(d, mean + c)), d,
               line + c);
  }
  for (; c < channels; ++c) {
    const float sum =
        shorts ? static_cast<float>(sums[c]) : FloatFromBits(static_cast<uint32_t>(sums[c]));
    line[c] = sum * factor[c] + mean[c];
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

// Sums of a tile -> BF16, for heads that are rotated whole (half-split) or not at all; as
// ScaleLine, Rotate and NarrowLine, of values far from BF16's largest. pairs: 0 or half of the
// channels; cosine and sine: [token][pair].
void FinishTile(const int32_t* sums, int64_t padded, int64_t tokens, const float* factor,
                const float* mean, int64_t channels, int64_t pairs, const float* cosine,
                const float* sine, float rotation, uint16_t* out, int64_t token_stride) {
  const FloatTag d;
  const IntTag di;
  const hn::Rebind<uint16_t, FloatTag> d16;
  const auto value = [&](const int32_t* at, Floats scale, Floats centre) {
    return hn::Add(hn::Mul(hn::ConvertTo(d, hn::LoadU(di, at)), scale), centre);
  };
  const auto store = [&](Floats x, uint16_t* to) {
    const auto bits = hn::BitCast(hn::RebindToUnsigned<FloatTag>(), x);
    const auto one = hn::Set(hn::RebindToUnsigned<FloatTag>(), 1);
    const auto odd = hn::And(hn::ShiftRight<16>(bits), one);
    const auto half = hn::Set(hn::RebindToUnsigned<FloatTag>(), 0x7fff);
    const auto rounded = hn::ShiftRight<16>(hn::Add(bits, hn::Add(half, odd)));
    hn::StoreU(hn::DemoteTo(d16, hn::BitCast(di, rounded)), d16, to);
  };
  const auto turn = hn::Set(d, rotation);
  for (int64_t c = 0; c < (pairs > 0 ? pairs : channels); c += kVector) {
    const Floats factor0 = hn::LoadU(d, factor + c);
    const Floats mean0 = hn::LoadU(d, mean + c);
    if (pairs == 0) {
      for (int64_t t = 0; t < tokens; ++t)
        store(value(sums + t * padded + c, factor0, mean0), out + t * token_stride + c);
      continue;
    }
    const Floats factor1 = hn::LoadU(d, factor + pairs + c);
    const Floats mean1 = hn::LoadU(d, mean + pairs + c);
    for (int64_t t = 0; t < tokens; ++t) {
      const Floats a = value(sums + t * padded + c, factor0, mean0);
      const Floats b = value(sums + t * padded + pairs + c, factor1, mean1);
      const Floats cosines = hn::Mul(hn::LoadU(d, cosine + t * pairs + c), turn);
      const Floats sines = hn::Mul(hn::LoadU(d, sine + t * pairs + c), turn);
      uint16_t* const to = out + t * token_stride + c;
      store(hn::Sub(hn::Mul(a, cosines), hn::Mul(b, sines)), to);
      store(hn::Add(hn::Mul(b, cosines), hn::Mul(a, sines)), to + pairs);
    }
  }
}

bool CanFinishTile(int64_t channels) { return channels % (2 * kVector) == 0; }

}  // namespace HWY_NAMESPACE
}  // namespace kvstream
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace kvstream {

HWY_EXPORT(AddSquares);
HWY_EXPORT(PlaceFloats);
HWY_EXPORT(RoundShorts);
HWY_EXPORT(PlaceShorts);
HWY_EXPORT(PackPair);
HWY_EXPORT(FinishTile);
HWY_EXPORT(CanFinishTile);
HWY_EXPORT(ScaleLine);
HWY_EXPORT(NarrowLine);

InverseTransform::InverseTransform(const ProfileData& profile)
    : profile_(profile), rope_(profile.geometry.rope) {}

float InverseTransform::Measure(const ProfileGroup& group, int level, const CellRows& cells,
                                const std::vector<uint8_t>& classes) {
  const auto add_squares = HWY_DYNAMIC_DISPATCH(AddSquares);
  rows_.clear();
  rows_.reserve(group.rank);
  norm_.assign(cells.stride(), 0.0f);
  float outwards = 0;  // of the decoder's placement, in base steps
  for (int32_t i = 0; i < group.rank; ++i) {
    const int32_t coordinate = group.first_coordinate + i;
    const bool any =
        add_squares(cells.narrow(coordinate), cells.wide(coordinate), cells.stride(), norm_.data());
    if (!any && profile_.calibrated) continue;
    rows_.push_back(i);
    const Shrink& shrink = profile_.tables.ShrinkOf(level, classes[coordinate]);
    outwards = std::max(outwards, std::max(-shrink[0], -shrink[1]));
  }
  const float squares = *std::max_element(norm_.begin(), norm_.begin() + cells.tokens());
  const float power = static_cast<float>(PowerOf3(level));
  const float norm = std::sqrt(squares);
  const float root = std::sqrt(static_cast<float>(rows_.size()));
  // The warped axis lies at most a fifth, and at most a tenth of a base step, further out.
  return 1.0001f * (std::min(1.2f * norm, norm + 0.1f * power * root) + outwards * power * root);
}

void InverseTransform::Place(const ProfileGroup& group, int level, const CellRows& cells,
                             const std::vector<uint8_t>& classes, int factor) {
  const int64_t stride = cells.stride();
  const int64_t rows = static_cast<int64_t>(rows_.size());
  const int64_t depth = factor > 0 ? (rows + 1) / 2 : rows;
  const int32_t power = PowerOf3(level);
  const float scale = static_cast<float>(factor) * static_cast<float>(power);
  const auto place_floats = HWY_DYNAMIC_DISPATCH(PlaceFloats);
  const auto place_shorts = HWY_DYNAMIC_DISPATCH(PlaceShorts);
  packed_.resize(depth * stride);
  values_.resize(stride);
  shorts_.resize(2 * stride);
  // Offsets of cells before shrinking, and the least that keep values from changing sign.
  int32_t warped[kPlaced];
  for (int v = 0; v < kPlaced && factor > 0; ++v) {
    const float u = static_cast<float>(v) / static_cast<float>(power);
    warped[v] = static_cast<int32_t>(std::lround((Unwarp(u) - u) * scale));
  }
  for (int64_t k = 0; k < rows; ++k) {
    const int32_t coordinate = group.first_coordinate + rows_[k];
    const Shrink& shrink = profile_.tables.ShrinkOf(level, classes[coordinate]);
    const int16_t* const narrow = cells.narrow(coordinate);
    const int32_t* const wide = cells.wide(coordinate);
    int16_t* const shorts = shorts_.data() + k % 2 * stride;
    if (factor > 0 && level < kPlacedLevels && wide == nullptr) {
      ShortPlacement placement;
      placement.factor = static_cast<int16_t>(factor);
      const int32_t far = static_cast<int32_t>(std::lround(shrink[1] * scale));
      for (int32_t v = 0; v < kPlaced; ++v)
        placement.offset[v] = static_cast<int16_t>(std::max(warped[v] - far, -v * factor));
      placement.offset[0] = 0;
      placement.offset[1] = static_cast<int16_t>(
          std::max(warped[1] - static_cast<int32_t>(std::lround(shrink[0] * scale)), -factor));
      place_shorts(narrow, stride, placement, shorts);
    } else {
      const Placement placement = {1.0f / static_cast<float>(power), shrink[0], shrink[1]};
      place_floats(narrow, wide, stride, placement, values_.data());
      if (factor > 0) {
        HWY_DYNAMIC_DISPATCH(RoundShorts)(values_.data(), stride, scale, shorts);
      } else {
        for (int64_t t = 0; t < stride; t += kTileTokens) {
          std::memcpy(&packed_[t * depth + k * kTileTokens], &values_[t],
                      kTileTokens * sizeof(float));
        }
      }
    }
    if (factor == 0 || (k % 2 == 0 && k + 1 < rows)) continue;
    if (k % 2 == 0) std::fill(shorts_.begin() + stride, shorts_.end(), int16_t{0});
    HWY_DYNAMIC_DISPATCH(PackPair)
    (shorts_.data(), shorts_.data() + stride, stride, depth * kTileTokens,
     &packed_[k / 2 * kTileTokens]);
  }
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
  for (int64_t k = 0; k < count; ++k) {
    int32_t* const out = slab_.data() + k * padded;
    if (shorts) {
      load(2 * (first + k), halves_.data());
      load(2 * (first + k) + 1, halves_.data() + padded);
      ShortSlabRow(halves_.data(), halves_.data() + padded, padded, out);
    } else {
      load(first + k, halves_.data());
      FloatSlabRow(halves_.data(), padded, out);
    }
  }
}

void InverseTransform::Finish(int64_t first_token, int64_t count, const int32_t* sums, bool shorts,
                              const HeadPlace& place, const float* mean, const MutableKvView& out) {
  const KvGeometry& geometry = profile_.geometry;
  const int64_t size = geometry.head_size;
  const int64_t padded = (size + kSlabStep - 1) / kSlabStep * kSlabStep;
  const MutableKvTensor& tensor = place.values ? out.values[place.layer] : out.keys[place.layer];
  const auto scale = HWY_DYNAMIC_DISPATCH(ScaleLine);
  const auto narrow = HWY_DYNAMIC_DISPATCH(NarrowLine);
  const bool half_split = geometry.rope.layout == RopeParameters::Layout::kHalfSplit;
  const int64_t pairs = geometry.rope.rotary_size() / 2;
  const float factor = static_cast<float>(geometry.rope.attention_factor);
  for (int64_t token = first_token; token < first_token + count; ++token) {
    if (token + kTileTokens >= out.tokens) break;
    const uint16_t* const ahead = tensor.at(token + kTileTokens, place.head);
    for (int64_t c = 0; c < size; c += 32) __builtin_prefetch(ahead + c, 1);
  }
  const bool rotated = !place.values && geometry.rope.layout != RopeParameters::Layout::kNone;
  // Integer sums are bounded, as are means, units and attention_factor: no value saturates BF16.
  if (shorts && geometry.dtype == KvDtype::kBF16 && HWY_DYNAMIC_DISPATCH(CanFinishTile)(size) &&
      (!rotated || (half_split && 2 * pairs == size))) {
    HWY_DYNAMIC_DISPATCH(FinishTile)
    (sums, padded, count, factor_.data(), mean, size, rotated ? pairs : 0,
     rotated ? rope_.Cosines(first_token) : nullptr, rotated ? rope_.Sines(first_token) : nullptr,
     factor, tensor.at(first_token, place.head), tensor.token_stride);
    return;
  }
  line_.resize(size);
  for (int64_t t = 0; t < count; ++t) {
    const int64_t token = first_token + t;
    scale(sums + t * padded, shorts, factor_.data(), mean, size, line_.data());
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

void InverseTransform::Run(const ProfileGroup& group, int level, const CellRows& cells,
                           const std::vector<uint8_t>& classes, const std::vector<float>& mean,
                           const std::vector<float>& unit, int64_t position,
                           const MutableKvView& out, ProductKind kind) {
  const int64_t tokens = out.tokens;
  const int64_t size = profile_.geometry.head_size;
  const int64_t padded = (size + kSlabStep - 1) / kSlabStep * kSlabStep;
  rope_.Prepare(position, tokens);
  const float norm = Measure(group, level, cells, classes);
  // Values are multiplied by factor * 3^level; 0: they are multiplied in floats.
  int factor = ShortFactor(norm, kind == ProductKind::kShort);
  if (!profile_.calibrated || kind == ProductKind::kFloat ||
      (kind == ProductKind::kAuto && profile_.geometry.dtype != KvDtype::kBF16)) {
    factor = 0;
  }
  const bool shorts = factor > 0;
  Place(group, level, cells, classes, factor);
  const float scale =
      shorts ? 1.0f / (kShortOne * static_cast<float>(factor) * static_cast<float>(PowerOf3(level)))
             : 1.0f;
  const int64_t depth = static_cast<int64_t>(shorts ? (rows_.size() + 1) / 2 : rows_.size());
  // All tokens' sums if the depth takes several slabs, else those of a tile, which stay in L1.
  const bool once = depth <= kSlabDepth || !profile_.calibrated;
  sums_.resize((once ? kTileTokens : cells.stride()) * padded);
  factor_.resize(size);
  const TileProduct multiply = shorts ? PickShortTile() : PickFloatTile();
  const SparseTileProduct multiply_sparse = PickSparseTile();
  bool sparse = shorts && multiply_sparse != nullptr;
  for (int32_t offset = 0; offset < group.channels; offset += size) {
    const int32_t channel = group.first_channel + offset;
    const HeadPlace place = PlaceOf(profile_.geometry, channel / size);
    for (int64_t c = 0; c < size; ++c) factor_[c] = unit[channel + c] * scale;
    const auto finish = [&](int64_t token, const int32_t* sums) {
      Finish(token, std::min<int64_t>(kTileTokens, tokens - token), sums, shorts, place,
             &mean[channel], out);
    };
    for (int64_t first = 0; first == 0 || first < depth; first += kSlabDepth) {
      const int64_t count = std::min<int64_t>(kSlabDepth, depth - first);
      if (profile_.calibrated) MakeSlab(group, offset, first, count, shorts);
      for (int64_t token = 0; token < tokens; token += kTileTokens) {
        const int32_t* const packed =
            packed_.data() + (token / kTileTokens * depth + first) * kTileTokens;
        int32_t* const sums = sums_.data() + (once ? 0 : token * padded);
        if (profile_.calibrated) {
          // Tiles of a group are alike: the first dense one ends the trials.
          sparse = sparse && multiply_sparse(packed, slab_.data(), count, padded, first > 0, sums);
          if (!sparse) multiply(packed, slab_.data(), count, padded, first > 0, sums);
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

int InverseTransform::ShortFactor(float norm, bool always) {
  // A norm of 0 is that of a group without rows, of which any factor is right.
  const double factor = std::floor(kShortOne / std::max(1.0, static_cast<double>(norm)));
  if (always) return static_cast<int>(factor);
  if (factor < 1) return 0;
  // Both roundings' variances in squared steps of the level.
  const double error = std::sqrt((1 / (factor * factor) + std::pow(norm / kShortOne, 2)) / 12);
  return error <= kShortProductShare ? static_cast<int>(factor) : 0;
}

}  // namespace kvstream
#endif

#include "codec/rans_encode_kernels.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "codec/quantize.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "codec/rans_encode_kernels.cc"
// foreach_target.h must come before highway.h and before what includes it.
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
// clang-format off
#include "codec/rans_vectors-inl.h"
// clang-format on

#ifndef KVSTREAM_CODEC_RANS_ENCODE_KERNELS_ONCE
#define KVSTREAM_CODEC_RANS_ENCODE_KERNELS_ONCE
namespace kvstream {}  // namespace kvstream
#endif

HWY_BEFORE_NAMESPACE();
namespace kvstream {
namespace HWY_NAMESPACE {

// Puts one symbol in each active lane; words go to *next in falling order of lanes. Writes
// kStateLanes words, whatever is used of them.
HWY_INLINE State PutSymbols(State x, State start, State frequency, hn::Mask<StateTag> active,
                            uint16_t** next) {
  const StateTag d;
  const hn::RebindToSigned<StateTag> di;
  const hn::Rebind<float, StateTag> df;
  const hn::Rebind<uint16_t, StateTag> d16;
  // Lanes in which x >= frequency * 2^20, as the highest first.
  const State limit = hn::ShiftLeft<20>(frequency);
  const auto full = hn::AndNot(hn::Lt(x, limit), active);
  const State backwards = hn::Reverse(d, hn::IfThenElse(full, x, hn::Zero(d)));
  // A full state is at least 2^20, so that no other lane looks like one.
  const auto taken = hn::Ne(backwards, hn::Zero(d));
  const State words = hn::Compress(hn::And(backwards, hn::Set(d, 0xffff)), taken);
  hn::StoreU(hn::DemoteTo(d16, hn::BitCast(di, words)), d16, *next);
  *next += hn::CountTrue(d, taken);
  x = hn::IfThenElse(full, hn::ShiftRight<16>(x), x);
  // The quotient is below 2^20, hence at most one off in single precision.
  const auto high = hn::ConvertTo(df, hn::BitCast(di, hn::ShiftRight<16>(x)));
  const auto low = hn::ConvertTo(df, hn::BitCast(di, hn::And(x, hn::Set(d, 0xffff))));
  const auto whole = hn::MulAdd(high, hn::Set(df, 65536.0f), low);
  const auto divisor = hn::BitCast(di, frequency);
  auto quotient = hn::ConvertTo(di, hn::Div(whole, hn::ConvertTo(df, divisor)));
  auto rest = hn::Sub(hn::BitCast(di, x), hn::Mul(quotient, divisor));
  const auto under = hn::Lt(rest, hn::Zero(di));
  quotient = hn::IfThenElse(under, hn::Sub(quotient, hn::Set(di, 1)), quotient);
  rest = hn::IfThenElse(under, hn::Add(rest, divisor), rest);
  const auto over = hn::Not(hn::Lt(rest, divisor));
  quotient = hn::IfThenElse(over, hn::Add(quotient, hn::Set(di, 1)), quotient);
  rest = hn::IfThenElse(over, hn::Sub(rest, divisor), rest);
  const State grown = hn::Add(hn::ShiftLeft<kProbabilityBits>(hn::BitCast(d, quotient)),
                              hn::Add(hn::BitCast(d, rest), start));
  return hn::IfThenElse(active, grown, x);
}

HWY_INLINE State PutPlainBits(State x, State value, int bits, hn::Mask<StateTag> active,
                              uint16_t** next) {
  const StateTag d;
  const hn::RebindToSigned<StateTag> di;
  const hn::Rebind<uint16_t, StateTag> d16;
  const auto full = hn::AndNot(hn::Lt(x, hn::Set(d, 1u << (32 - bits))), active);
  const State backwards = hn::Reverse(d, hn::IfThenElse(full, x, hn::Zero(d)));
  const auto taken = hn::Ne(backwards, hn::Zero(d));
  const State words = hn::Compress(hn::And(backwards, hn::Set(d, 0xffff)), taken);
  hn::StoreU(hn::DemoteTo(d16, hn::BitCast(di, words)), d16, *next);
  *next += hn::CountTrue(d, taken);
  x = hn::IfThenElse(full, hn::ShiftRight<16>(x), x);
  return hn::IfThenElse(active, hn::Or(hn::ShiftLeftSame(x, bits), value), x);
}

// Vector v of a step of `count` tokens; lanes beyond are 0.
template <bool kAll>
HWY_INLINE Cells LoadStep(const int32_t* in, int v, int count) {
  const hn::RebindToSigned<StateTag> d;
  if constexpr (kAll) return hn::LoadU(d, in + v * kStateLanes);
  alignas(64) int32_t copy[kStateLanes] = {};
  const int left = std::min(count - v * kStateLanes, kStateLanes);
  if (left > 0) std::memcpy(copy, in + v * kStateLanes, left * sizeof(int32_t));
  return hn::Load(d, copy);
}

// Not inlined: it is large, and the way of few rows where the fast steps below exist.
template <bool kAll>
HWY_NOINLINE void BaseStep(const BaseEncodeTable& table, const int32_t* cells, int count, State* x,
                           uint16_t** next) {
  const StateTag d;
  const hn::RebindToSigned<StateTag> di;
  Cells index[kStates];
  for (int v = 0; v < kStates; ++v) {
    Cells cell = LoadStep<kAll>(cells, v, count);
    const Cells symbol = hn::ShiftRightSame(cell, table.shift);
    const auto out = hn::Gt(hn::Abs(symbol), hn::Set(di, table.max_symbol));
    cell = hn::IfThenZeroElse(out, cell);
    index[v] = hn::Add(hn::ShiftRightSame(cell, table.shift), hn::Set(di, table.max_symbol));
    if (table.shift > 0) {
      // The bits are decoded after the symbols, hence put before; vectors go from last to first
      // below, and these words must all come first.
      index[v] =
          hn::Or(index[v], hn::ShiftLeft<16>(hn::And(cell, hn::Set(di, (1 << table.shift) - 1))));
    }
  }
  if (table.shift > 0) {
    for (int v = kStates - 1; v >= 0; --v) {
      x[v] = PutPlainBits(x[v], hn::ShiftRight<16>(hn::BitCast(d, index[v])), table.shift,
                          ActiveLanes(v, kAll ? kLanes : count), next);
      index[v] = hn::And(index[v], hn::Set(di, 0xffff));
    }
  }
  State start[kStates];
  State frequency[kStates];
#if HWY_TARGET <= HWY_AVX3
  if (table.symbols <= 64) {
    const __m512i both = _mm512_or_si512(index[0].raw, _mm512_slli_epi32(index[1].raw, 16));
    const __m512i starts = Lookup16<6>(table.start, both);
    const __m512i frequencies = Lookup16<6>(table.frequency, both);
    const __m512i low = _mm512_set1_epi32(0xffff);
    start[0] = State{_mm512_and_si512(starts, low)};
    start[1] = State{_mm512_srli_epi32(starts, 16)};
    frequency[0] = State{_mm512_and_si512(frequencies, low)};
    frequency[1] = State{_mm512_srli_epi32(frequencies, 16)};
  } else
#endif
  {
    for (int v = 0; v < kStates; ++v) {
      const State entry = hn::BitCast(
          d, hn::GatherIndex(di, reinterpret_cast<const int32_t*>(table.entry), index[v]));
      start[v] = hn::And(entry, hn::Set(d, 0xffff));
      frequency[v] = hn::ShiftRight<16>(entry);
    }
  }
  for (int v = kStates - 1; v >= 0; --v) {
    x[v] = PutSymbols(x[v], start[v], frequency[v], ActiveLanes(v, kAll ? kLanes : count), next);
  }
}

uint16_t* BaseRow(const BaseEncodeTable& table, const int32_t* cells, int tokens, uint32_t* state,
                  uint16_t* next) {
  const StateTag d;
  State x[kStates];
  for (int v = 0; v < kStates; ++v) x[v] = hn::Load(d, state + v * kStateLanes);
  const int whole = tokens / kLanes * kLanes;
  if (whole < tokens) BaseStep<false>(table, cells + whole, tokens - whole, x, &next);
  for (int t = whole - kLanes; t >= 0; t -= kLanes)
    BaseStep<true>(table, cells + t, kLanes, x, &next);
  for (int v = 0; v < kStates; ++v) hn::Store(x[v], d, state + v * kStateLanes);
  return next;
}

// A step of a narrow row in plain order.
HWY_INLINE void PlainStep(const int16_t* step, int32_t* cells) {
  const hn::RebindToSigned<StateTag> di;
  for (int at = 0; at < kLanes / 2; at += kStateLanes) {
    const Cells pairs = hn::LoadU(di, reinterpret_cast<const int32_t*>(step) + at);
    hn::StoreU(hn::ShiftRight<16>(hn::ShiftLeft<16>(pairs)), di, cells + at);
    hn::StoreU(hn::ShiftRight<16>(pairs), di, cells + kLanes / 2 + at);
  }
}

template <bool kAll>
HWY_NOINLINE void RefineStep(const RefineEncodeTable& table, const int16_t* cells,
                             const int16_t* parents, int count, State* x, uint16_t** next) {
  const StateTag d;
  alignas(64) int32_t cell[kLanes];
  alignas(64) int32_t parent[kLanes];
  PlainStep(cells, cell);
  PlainStep(parents, parent);
  alignas(64) uint32_t start[kLanes];
  alignas(64) uint32_t frequency[kLanes];
  for (int lane = 0; lane < kLanes; ++lane) {
    const int clamped = std::max(-2, std::min(2, parent[lane]));
    const int key = (clamped + 5 * (cell[lane] - 3 * parent[lane])) & 31;
    start[lane] = table.start[key];
    frequency[lane] = std::max<uint32_t>(1, table.frequency[key]);
  }
  for (int v = kStates - 1; v >= 0; --v) {
    x[v] = PutSymbols(x[v], hn::Load(d, start + v * kStateLanes),
                      hn::Load(d, frequency + v * kStateLanes),
                      ActiveLanes(v, kAll ? kLanes : count), next);
  }
}

#if HWY_TARGET <= HWY_AVX3

// States of a step with the lanes reversed: 31 to 16, then 15 to 0, the order of their words.
struct Reversed {
  __m512i high;
  __m512i low;

  static HWY_INLINE __m512i Reverse(__m512i x) {
    return _mm512_permutexvar_epi32(
        _mm512_setr_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0), x);
  }
  HWY_INLINE explicit Reversed(const State* x) : high(Reverse(x[1].raw)), low(Reverse(x[0].raw)) {}
  HWY_INLINE void Store(State* x) const {
    x[0] = State{Reverse(low)};
    x[1] = State{Reverse(high)};
  }
};

// PutSymbols of 16 reversed lanes. A reciprocal that is a little too small gives a quotient that is
// right or one too small: 14 bits of it and a step of Newton's are within 2^-23 of 2 - 2^-21 for 2,
// which takes off 2^-22; quotients are below 2^20.
HWY_INLINE __m512i PutReversed(__m512i x, __m512i start, __m512i frequency, uint16_t** next) {
  const __mmask16 full = _mm512_cmpge_epu32_mask(x, _mm512_slli_epi32(frequency, 20));
  const __m512i words = _mm512_maskz_compress_epi32(full, x);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(*next), _mm512_cvtepi32_epi16(words));
  *next += __builtin_popcount(full);
  x = _mm512_mask_srli_epi32(x, full, x, 16);
  const __m512 divisor = _mm512_cvtepi32_ps(frequency);
  const __m512 rough = _mm512_rcp14_ps(divisor);
  const __m512 reciprocal =
      _mm512_mul_ps(rough, _mm512_fnmadd_ps(divisor, rough, _mm512_set1_ps(2.0f - 0x1p-21f)));
  const __m512i quotient = _mm512_cvttps_epi32(_mm512_mul_ps(_mm512_cvtepu32_ps(x), reciprocal));
  const __m512i rest = _mm512_sub_epi32(x, _mm512_mullo_epi32(quotient, frequency));
  const __m512i grown = _mm512_add_epi32(_mm512_slli_epi32(quotient, kProbabilityBits),
                                         _mm512_add_epi32(rest, start));
  return _mm512_mask_add_epi32(grown, _mm512_cmpge_epi32_mask(rest, frequency), grown,
                               _mm512_sub_epi32(_mm512_set1_epi32(kProbabilityScale), frequency));
}

// starts and frequencies: of lanes i and i + 16 in pairs, from the last to the first.
HWY_INLINE void PutPairs(__m512i starts, __m512i frequencies, Reversed* x, uint16_t** next) {
  const __m512i low = _mm512_set1_epi32(0xffff);
  x->high =
      PutReversed(x->high, _mm512_srli_epi32(starts, 16), _mm512_srli_epi32(frequencies, 16), next);
  x->low =
      PutReversed(x->low, _mm512_and_si512(starts, low), _mm512_and_si512(frequencies, low), next);
}

#endif

uint16_t* NarrowBaseRow(const BaseEncodeTable& table, const int16_t* cells, int tokens,
                        uint32_t* state, uint16_t* next) {
  const StateTag d;
  State x[kStates];
  for (int v = 0; v < kStates; ++v) x[v] = hn::Load(d, state + v * kStateLanes);
  const int whole = tokens / kLanes * kLanes;
  alignas(64) int32_t plain[kLanes];
  if (whole < tokens) {
    PlainStep(cells + whole, plain);
    BaseStep<false>(table, plain, tokens - whole, x, &next);
  }
  int t = whole - kLanes;
#if HWY_TARGET <= HWY_AVX3
  if (table.symbols <= 64 && table.shift == 0) {
    Reversed states(x);
    const __m512i middle = _mm512_set1_epi16(table.max_symbol);
    for (; t >= 0; t -= kLanes) {
      const __m512i cell = Reversed::Reverse(_mm512_loadu_si512(cells + t));
      const __mmask32 coded = _mm512_cmple_epi16_mask(_mm512_abs_epi16(cell), middle);
      const __m512i index = _mm512_mask_add_epi16(middle, coded, middle, cell);
      PutPairs(Lookup16<6>(table.start, index), Lookup16<6>(table.frequency, index), &states,
               &next);
    }
    states.Store(x);
  }
#endif
  for (; t >= 0; t -= kLanes) {
    PlainStep(cells + t, plain);
    BaseStep<true>(table, plain, kLanes, x, &next);
  }
  for (int v = 0; v < kStates; ++v) hn::Store(x[v], d, state + v * kStateLanes);
  return next;
}

uint16_t* RefineRow(const RefineEncodeTable& table, const int16_t* cells, const int16_t* parents,
                    int tokens, uint32_t* state, uint16_t* next) {
  const StateTag d;
  State x[kStates];
  for (int v = 0; v < kStates; ++v) x[v] = hn::Load(d, state + v * kStateLanes);
  const int whole = tokens / kLanes * kLanes;
  if (whole < tokens)
    RefineStep<false>(table, cells + whole, parents + whole, tokens - whole, x, &next);
  int t = whole - kLanes;
#if HWY_TARGET <= HWY_AVX3
  Reversed states(x);
  for (; t >= 0; t -= kLanes) {
    const __m512i parent = _mm512_loadu_si512(parents + t);
    const __m512i symbol = _mm512_sub_epi16(
        _mm512_loadu_si512(cells + t), _mm512_add_epi16(parent, _mm512_add_epi16(parent, parent)));
    const __m512i context =
        _mm512_max_epi16(_mm512_min_epi16(parent, _mm512_set1_epi16(2)), _mm512_set1_epi16(-2));
    const __m512i key = Reversed::Reverse(
        _mm512_add_epi16(context, _mm512_add_epi16(symbol, _mm512_slli_epi16(symbol, 2))));
    PutPairs(Lookup16<5>(table.start, key), Lookup16<5>(table.frequency, key), &states, &next);
  }
  states.Store(x);
#endif
  for (; t >= 0; t -= kLanes) RefineStep<true>(table, cells + t, parents + t, kLanes, x, &next);
  for (int v = 0; v < kStates; ++v) hn::Store(x[v], d, state + v * kStateLanes);
  return next;
}

// Adding and taking off 1.5 * 2^23 rounds a float of less than 2^22 to the nearest integer.
constexpr float kRounder = 12582912.0f;

void Parents(const int32_t* in, int64_t count, int steps, int32_t* out, int32_t* last) {
  const hn::RebindToSigned<StateTag> di;
  const hn::Rebind<float, StateTag> df;
  // Below this, v / 3 is so exact in single precision that it rounds right: there are no ties.
  const auto bound = hn::Set(di, 1 << 21);
  const auto third = hn::Set(df, 1.0f / 3.0f);
  const auto rounder = hn::Set(df, kRounder);
  const auto parent = [&](hn::Vec<decltype(df)> v) {
    return hn::Sub(hn::Add(hn::Mul(v, third), rounder), rounder);
  };
  const auto store = [&](hn::Vec<decltype(df)> v, int32_t* to) {
    hn::StoreU(hn::Sub(hn::BitCast(di, hn::Add(v, rounder)), hn::BitCast(di, rounder)), di, to);
  };
  const auto slow = [&](int64_t i) {
    int32_t cell = in[i];
    for (int step = 0; step < steps; ++step) cell = ParentCell(cell);
    out[i] = cell;
    if (last != nullptr) last[i] = ParentCell(cell);
  };
  int64_t i = 0;
  for (; i + kStateLanes <= count; i += kStateLanes) {
    const Cells cells = hn::LoadU(di, in + i);
    if (HWY_UNLIKELY(!hn::AllTrue(di, hn::Lt(hn::Abs(cells), bound)))) {
      for (int lane = 0; lane < kStateLanes; ++lane) slow(i + lane);
      continue;
    }
    auto v = hn::ConvertTo(df, cells);
    for (int step = 0; step < steps; ++step) v = parent(v);
    store(v, out + i);
    if (last != nullptr) store(parent(v), last + i);
  }
  for (; i < count; ++i) slow(i);
}

using ShortTag = hn::CappedTag<int16_t, kLanes>;
using Shorts = hn::Vec<ShortTag>;
constexpr int kShortLanes = static_cast<int>(hn::MaxLanes(ShortTag()));

// round(v / 3) = floor((v + 1) / 3); the multiple of three that is added keeps it positive.
HWY_INLINE Shorts ShortParents(Shorts cells) {
#if HWY_TARGET <= HWY_AVX3
  // A third of 2^15, rounded up: the product is off by less than the sixth that rounding may be.
  return Shorts{_mm512_mulhrs_epi16(cells.raw, _mm512_set1_epi16(10923))};
#else
  const ShortTag d;
  const hn::RebindToUnsigned<ShortTag> du;
  constexpr int16_t kOffset = 5461;
  const auto positive = hn::BitCast(du, hn::Add(cells, hn::Set(d, 3 * kOffset + 1)));
  // floor(65536 / 3) + 1: of numbers below 2^15 the product's upper half is the third.
  const auto third = hn::MulHigh(positive, hn::Set(du, 21846));
  return hn::Sub(hn::BitCast(d, third), hn::Set(d, kOffset));
#endif
}

void NarrowParents(const int16_t* in, int64_t count, int16_t* out) {
  const ShortTag d;
  for (int64_t t = 0; t < count; t += kShortLanes)
    hn::StoreU(ShortParents(hn::LoadU(d, in + t)), d, out + t);
}

void Quantise(const float* in, int64_t rows, float power, int16_t* out, int64_t stride,
              uint8_t* fits) {
  const hn::RebindToSigned<StateTag> di;
  const hn::Rebind<float, StateTag> d;
  const auto largest = hn::Set(d, static_cast<float>(kMaxBaseSymbol));
  const auto cell_of = [&](const float* at) {
    const auto x = hn::LoadU(d, at);
    const auto magnitude = hn::Abs(x);
    auto u = hn::IfThenElse(
        hn::Lt(magnitude, hn::Set(d, 0.6f)), hn::Mul(magnitude, hn::Set(d, float(1 / 1.2))),
        hn::IfThenElse(hn::Lt(magnitude, hn::Set(d, 1.5f)),
                       hn::Mul(hn::Sub(magnitude, hn::Set(d, 0.15f)), hn::Set(d, float(1 / 0.9))),
                       magnitude));
    u = hn::IfThenElse(hn::Lt(u, largest), u, largest);
    const auto cell = hn::ConvertTo(di, hn::Add(hn::Mul(u, hn::Set(d, power)), hn::Set(d, 0.5f)));
    const auto negative = hn::RebindMask(di, hn::Lt(x, hn::Zero(d)));
    return hn::IfThenElse(negative, hn::Neg(cell), cell);
  };
  for (int64_t row = 0; row < rows; ++row, in += kLanes, out += stride) {
    auto most = hn::Zero(di);
    for (int at = 0; at < kLanes / 2; at += kStateLanes) {
      const Cells low = cell_of(in + at);
      const Cells high = cell_of(in + kLanes / 2 + at);
      most = hn::Max(most, hn::Max(hn::Abs(low), hn::Abs(high)));
      hn::StoreU(hn::Or(hn::And(low, hn::Set(di, 0xffff)), hn::ShiftLeft<16>(high)), di,
                 reinterpret_cast<int32_t*>(out) + at);
    }
    fits[row] = hn::AllTrue(di, hn::Lt(most, hn::Set(di, CellRows::kFinestMax + 1))) ? 1 : 0;
  }
}

void RefineCounts(const int16_t* cells, const int16_t* parents, int64_t tokens,
                  int32_t (*count)[3]) {
  const ShortTag d;
  const auto zero = hn::Zero(d);
  size_t total[kRefineContexts] = {};
  size_t minus[kRefineContexts] = {};
  size_t plus[kRefineContexts] = {};
  const int64_t stride = (tokens + kLanes - 1) / kLanes * kLanes;
  for (int64_t t = 0; t < stride; t += kShortLanes) {
    const Shorts parent = hn::LoadU(d, parents + t);
    const Shorts r = hn::Sub(hn::LoadU(d, cells + t), hn::Add(parent, hn::Add(parent, parent)));
    const Shorts mirrored = hn::IfThenElse(hn::Lt(parent, zero), hn::Sub(zero, r), r);
    const auto below = hn::Lt(mirrored, zero);
    const auto above = hn::Gt(mirrored, zero);
    const auto is_zero = hn::Eq(parent, zero);
    const auto is_one = hn::Eq(hn::Abs(parent), hn::Set(d, 1));
    total[0] += hn::CountTrue(d, is_zero);
    total[1] += hn::CountTrue(d, is_one);
    minus[0] += hn::CountTrue(d, hn::And(below, is_zero));
    minus[1] += hn::CountTrue(d, hn::And(below, is_one));
    minus[2] += hn::CountTrue(d, below);
    plus[0] += hn::CountTrue(d, hn::And(above, is_zero));
    plus[1] += hn::CountTrue(d, hn::And(above, is_one));
    plus[2] += hn::CountTrue(d, above);
  }
  total[2] = static_cast<size_t>(stride) - total[0] - total[1];
  total[0] -= static_cast<size_t>(stride - tokens);  // padding
  minus[2] -= minus[0] + minus[1];
  plus[2] -= plus[0] + plus[1];
  for (int context = 0; context < kRefineContexts; ++context) {
    count[context][0] += static_cast<int32_t>(minus[context]);
    count[context][1] += static_cast<int32_t>(total[context] - minus[context] - plus[context]);
    count[context][2] += static_cast<int32_t>(plus[context]);
  }
}

void Range(const int16_t* cells, int64_t stride, int32_t* low, int32_t* high) {
  const ShortTag d;
  auto smallest = hn::LoadU(d, cells);
  auto largest = smallest;
  for (int64_t t = kShortLanes; t < stride; t += kShortLanes) {
    const Shorts cell = hn::LoadU(d, cells + t);
    smallest = hn::Min(smallest, cell);
    largest = hn::Max(largest, cell);
  }
  alignas(64) int16_t lanes[2 * kShortLanes];
  hn::Store(smallest, d, lanes);
  hn::Store(largest, d, lanes + kShortLanes);
  *low = *std::min_element(lanes, lanes + kShortLanes);
  *high = *std::max_element(lanes + kShortLanes, lanes + 2 * kShortLanes);
}

void Histogram(const int16_t* cells, int64_t stride, int32_t low, int values, int32_t* count) {
  const ShortTag d;
  for (int value = 0; value < values; ++value) {
    const auto wanted = hn::Set(d, static_cast<int16_t>(low + value));
    size_t found = 0;
    for (int64_t t = 0; t < stride; t += kShortLanes)
      found += hn::CountTrue(d, hn::Eq(hn::LoadU(d, cells + t), wanted));
    count[value] += static_cast<int32_t>(found);
  }
}

void Costs(const float* const* lengths, const float* counts, int64_t terms, int64_t width,
           float* costs) {
  const hn::Rebind<float, StateTag> d;
  for (int64_t k = 0; k < width; k += kStateLanes) {
    auto sum = hn::Zero(d);
    for (int64_t i = 0; i < terms; ++i)
      sum = hn::Add(sum, hn::Mul(hn::Set(d, counts[i]), hn::LoadU(d, lengths[i] + k)));
    hn::StoreU(sum, d, costs + k);
  }
}

HWY_INLINE int Cheapest(const float* row, const float* prices, int width, int reference) {
  const hn::Rebind<float, StateTag> d;
  const float own = row[reference] + prices[reference];
  // width is a multiple of 16.
  auto cheapest = hn::Set(d, own);
  for (int k = 0; k < width; k += kStateLanes)
    cheapest = hn::Min(cheapest, hn::Add(hn::LoadU(d, row + k), hn::LoadU(d, prices + k)));
  const float least = hn::GetLane(hn::MinOfLanes(d, cheapest));
  if (least == own) return reference;
  for (int k = 0; k < width; k += kStateLanes) {
    const auto cost = hn::Add(hn::LoadU(d, row + k), hn::LoadU(d, prices + k));
    const intptr_t found = hn::FindFirstTrue(d, hn::Eq(cost, hn::Set(d, least)));
    if (found >= 0) return k + static_cast<int>(found);
  }
  return reference;
}

void CheapestOfRows(const float* costs, int64_t rows, const float* prices, int width, int reference,
                    int16_t* chosen) {
  for (int64_t i = 0; i < rows; ++i, costs += width)
    chosen[i] = static_cast<int16_t>(Cheapest(costs, prices, width, reference));
}

}  // namespace HWY_NAMESPACE
}  // namespace kvstream
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace kvstream {

HWY_EXPORT(BaseRow);
HWY_EXPORT(NarrowBaseRow);
HWY_EXPORT(RefineRow);
HWY_EXPORT(Parents);
HWY_EXPORT(NarrowParents);
HWY_EXPORT(Quantise);
HWY_EXPORT(RefineCounts);
HWY_EXPORT(Range);
HWY_EXPORT(Histogram);
HWY_EXPORT(Costs);
HWY_EXPORT(CheapestOfRows);

void PrepareBaseTable(const BaseTable& table, BaseEncodeTable* out) {
  std::memset(static_cast<void*>(out), 0, sizeof(*out));
  out->symbols = static_cast<int>(table.frequency.size());
  out->shift = table.shift;
  out->max_symbol = table.max_symbol;
  uint32_t start = 0;
  for (int i = 0; i < out->symbols; ++i) {
    if (i < 64) {
      out->start[i] = static_cast<uint16_t>(start);
      out->frequency[i] = table.frequency[i];
    }
    out->entry[i] = start | uint32_t{table.frequency[i]} << 16;
    start += table.frequency[i];
  }
}

void PrepareRefineTable(const RefineTable& table, RefineEncodeTable* out) {
  std::memset(static_cast<void*>(out), 0, sizeof(*out));
  for (int parent = -2; parent <= 2; ++parent) {
    const auto& frequency = table.frequency[std::abs(parent)];
    uint32_t start = 0;
    for (int index = 0; index < 3; ++index) {
      const int r = parent < 0 ? 1 - index : index - 1;
      const int key = (parent + 5 * r) & 31;
      out->start[key] = static_cast<uint16_t>(start);
      out->frequency[key] = frequency[index];
      start += frequency[index];
    }
  }
}

void RansRowEncoder::Reset() {
  used_ = 0;
  std::fill(state_, state_ + kLanes, kRansLow);
}

void RansRowEncoder::MakeRoom(size_t words) {
  if (words_.size() < used_ + words) words_.resize(2 * (used_ + words));
}

void RansRowEncoder::PutBase(const BaseEncodeTable& table, const int32_t* cells, int tokens) {
  // A symbol and its bits emit a word each at most; stores write whole vectors.
  MakeRoom(2 * static_cast<size_t>(tokens) + kLanes);
  used_ = HWY_DYNAMIC_DISPATCH(BaseRow)(table, cells, tokens, state_, words_.data() + used_) -
          words_.data();
}

void RansRowEncoder::PutBase(const BaseEncodeTable& table, const int16_t* cells, int tokens) {
  MakeRoom(2 * static_cast<size_t>(tokens) + kLanes);
  used_ = HWY_DYNAMIC_DISPATCH(NarrowBaseRow)(table, cells, tokens, state_, words_.data() + used_) -
          words_.data();
}

void RansRowEncoder::PutRefine(const RefineEncodeTable& table, const int16_t* cells,
                               const int16_t* parents, int tokens) {
  MakeRoom(static_cast<size_t>(tokens) + kLanes);
  used_ = HWY_DYNAMIC_DISPATCH(RefineRow)(table, cells, parents, tokens, state_,
                                          words_.data() + used_) -
          words_.data();
}

void RansRowEncoder::Finish(int lanes, std::string* out) {
  const size_t begin = out->size();
  out->resize(begin + lanes * 4 + used_ * 2);
  char* at = &(*out)[begin];
  std::memcpy(at, state_, lanes * 4);
  at += lanes * 4;
  for (size_t i = used_; i > 0; --i, at += 2) std::memcpy(at, &words_[i - 1], 2);
  Reset();
}

void ParentRow(const int32_t* in, int64_t count, int steps, int32_t* out, int32_t* last) {
  HWY_DYNAMIC_DISPATCH(Parents)(in, count, steps, out, last);
}

void ParentRow(const int16_t* in, int64_t count, int16_t* out) {
  HWY_DYNAMIC_DISPATCH(NarrowParents)(in, count, out);
}

void QuantisePanel(const float* in, int64_t rows, float power, int16_t* out, int64_t stride,
                   uint8_t* fits) {
  HWY_DYNAMIC_DISPATCH(Quantise)(in, rows, power, out, stride, fits);
}

void CountRefine(const int16_t* cells, const int16_t* parents, int64_t tokens,
                 int32_t (*count)[3]) {
  HWY_DYNAMIC_DISPATCH(RefineCounts)(cells, parents, tokens, count);
}

void CellRange(const int16_t* cells, int64_t stride, int32_t* low, int32_t* high) {
  HWY_DYNAMIC_DISPATCH(Range)(cells, stride, low, high);
}

void CountCells(const int16_t* cells, int64_t stride, int32_t low, int values, int32_t* count) {
  HWY_DYNAMIC_DISPATCH(Histogram)(cells, stride, low, values, count);
}

void ClassCosts(const float* const* lengths, const float* counts, int64_t terms, int64_t width,
                float* costs) {
  HWY_DYNAMIC_DISPATCH(Costs)(lengths, counts, terms, width, costs);
}

void CheapestIndices(const float* costs, int64_t rows, const float* prices, int width,
                     int reference, int16_t* chosen) {
  HWY_DYNAMIC_DISPATCH(CheapestOfRows)(costs, rows, prices, width, reference, chosen);
}

}  // namespace kvstream
#endif

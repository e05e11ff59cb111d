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
namespace kvstream {

// Ends of the slots of r = -1 and of r = 0, by context.
struct TernaryEnds {
  uint32_t first[kRefineContexts];
  uint32_t second[kRefineContexts];
};

}  // namespace kvstream
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

template <bool kAll>
HWY_INLINE void BaseStep(const BaseEncodeTable& table, const int32_t* cells, int count, State* x,
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

template <bool kAll>
HWY_INLINE void RefineStep(const TernaryEnds& ends, const int32_t* cells, const int32_t* parents,
                           int count, State* x, uint16_t** next) {
  const StateTag d;
  const hn::RebindToSigned<StateTag> di;
  const auto zero = hn::Zero(di);
  for (int v = kStates - 1; v >= 0; --v) {
    const Cells parent = LoadStep<kAll>(parents, v, count);
    const Cells r =
        hn::Sub(LoadStep<kAll>(cells, v, count), hn::Add(parent, hn::Add(parent, parent)));
    const Cells mirrored = hn::IfThenElse(hn::Lt(parent, zero), hn::Sub(zero, r), r);
    const auto is_zero = hn::RebindMask(d, hn::Eq(parent, zero));
    const auto is_one = hn::RebindMask(d, hn::Eq(hn::Abs(parent), hn::Set(di, 1)));
    const State first = hn::IfThenElse(
        is_zero, hn::Set(d, ends.first[0]),
        hn::IfThenElse(is_one, hn::Set(d, ends.first[1]), hn::Set(d, ends.first[2])));
    const State second = hn::IfThenElse(
        is_zero, hn::Set(d, ends.second[0]),
        hn::IfThenElse(is_one, hn::Set(d, ends.second[1]), hn::Set(d, ends.second[2])));
    const auto minus = hn::RebindMask(d, hn::Lt(mirrored, zero));
    const auto plus = hn::RebindMask(d, hn::Gt(mirrored, zero));
    const State start = hn::IfThenElse(plus, second, hn::IfThenZeroElse(minus, first));
    const State end =
        hn::IfThenElse(plus, hn::Set(d, kProbabilityScale), hn::IfThenElse(minus, first, second));
    x[v] =
        PutSymbols(x[v], start, hn::Sub(end, start), ActiveLanes(v, kAll ? kLanes : count), next);
  }
}

uint16_t* RefineRow(const TernaryEnds& ends, const int32_t* cells, const int32_t* parents,
                    int tokens, uint32_t* state, uint16_t* next) {
  const StateTag d;
  State x[kStates];
  for (int v = 0; v < kStates; ++v) x[v] = hn::Load(d, state + v * kStateLanes);
  const int whole = tokens / kLanes * kLanes;
  if (whole < tokens)
    RefineStep<false>(ends, cells + whole, parents + whole, tokens - whole, x, &next);
  for (int t = whole - kLanes; t >= 0; t -= kLanes)
    RefineStep<true>(ends, cells + t, parents + t, kLanes, x, &next);
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

int Cheapest(const float* row, const float* prices, int width, int reference) {
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

void RefineCounts(const int32_t* cells, const int32_t* parents, int64_t tokens,
                  int32_t (*count)[3]) {
  const hn::RebindToSigned<StateTag> di;
  const auto zero = hn::Zero(di);
  size_t total[kRefineContexts] = {};
  size_t minus[kRefineContexts] = {};
  size_t plus[kRefineContexts] = {};
  int64_t t = 0;
  for (; t + kStateLanes <= tokens; t += kStateLanes) {
    const Cells parent = hn::LoadU(di, parents + t);
    const Cells r = hn::Sub(hn::LoadU(di, cells + t), hn::Add(parent, hn::Add(parent, parent)));
    const Cells mirrored = hn::IfThenElse(hn::Lt(parent, zero), hn::Sub(zero, r), r);
    const auto below = hn::Lt(mirrored, zero);
    const auto above = hn::Gt(mirrored, zero);
    const auto is_zero = hn::Eq(parent, zero);
    const auto is_one = hn::Eq(hn::Abs(parent), hn::Set(di, 1));
    total[0] += hn::CountTrue(di, is_zero);
    total[1] += hn::CountTrue(di, is_one);
    minus[0] += hn::CountTrue(di, hn::And(below, is_zero));
    minus[1] += hn::CountTrue(di, hn::And(below, is_one));
    minus[2] += hn::CountTrue(di, below);
    plus[0] += hn::CountTrue(di, hn::And(above, is_zero));
    plus[1] += hn::CountTrue(di, hn::And(above, is_one));
    plus[2] += hn::CountTrue(di, above);
  }
  total[2] = static_cast<size_t>(t) - total[0] - total[1];
  minus[2] -= minus[0] + minus[1];
  plus[2] -= plus[0] + plus[1];
  for (int context = 0; context < kRefineContexts; ++context) {
    count[context][0] += static_cast<int32_t>(minus[context]);
    count[context][1] += static_cast<int32_t>(total[context] - minus[context] - plus[context]);
    count[context][2] += static_cast<int32_t>(plus[context]);
  }
  for (; t < tokens; ++t) {
    const int32_t parent = parents[t];
    const int32_t r = (cells[t] - 3 * parent) * (parent < 0 ? -1 : 1);
    ++count[std::min(std::abs(parent), 2)][r + 1];
  }
}

void Range(const int32_t* cells, int64_t tokens, int32_t* low, int32_t* high) {
  const hn::RebindToSigned<StateTag> di;
  auto smallest = hn::Set(di, cells[0]);
  auto largest = smallest;
  int64_t t = 0;
  for (; t + kStateLanes <= tokens; t += kStateLanes) {
    const Cells cell = hn::LoadU(di, cells + t);
    smallest = hn::Min(smallest, cell);
    largest = hn::Max(largest, cell);
  }
  *low = hn::GetLane(hn::MinOfLanes(di, smallest));
  *high = hn::GetLane(hn::MaxOfLanes(di, largest));
  for (; t < tokens; ++t) {
    *low = std::min(*low, cells[t]);
    *high = std::max(*high, cells[t]);
  }
}

void Histogram(const int32_t* cells, int64_t tokens, int32_t low, int values, int32_t* count) {
  const hn::RebindToSigned<StateTag> di;
  for (int value = 0; value < values; ++value) {
    const auto wanted = hn::Set(di, low + value);
    size_t found = 0;
    int64_t t = 0;
    for (; t + kStateLanes <= tokens; t += kStateLanes)
      found += hn::CountTrue(di, hn::Eq(hn::LoadU(di, cells + t), wanted));
    for (; t < tokens; ++t) found += cells[t] == low + value ? 1 : 0;
    count[value] += static_cast<int32_t>(found);
  }
}

void AddLengths(double count, const float* lengths, int64_t classes, double* bits) {
  const hn::CappedTag<double, 8> d;
  const hn::Rebind<float, decltype(d)> df;
  const auto factor = hn::Set(d, count);
  int64_t k = 0;
  for (; k + static_cast<int64_t>(hn::Lanes(d)) <= classes; k += hn::Lanes(d)) {
    const auto length = hn::PromoteTo(d, hn::LoadU(df, lengths + k));
    hn::StoreU(hn::Add(hn::LoadU(d, bits + k), hn::Mul(factor, length)), d, bits + k);
  }
  for (; k < classes; ++k) bits[k] += count * static_cast<double>(lengths[k]);
}

}  // namespace HWY_NAMESPACE
}  // namespace kvstream
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace kvstream {

HWY_EXPORT(BaseRow);
HWY_EXPORT(RefineRow);
HWY_EXPORT(Parents);
HWY_EXPORT(Cheapest);
HWY_EXPORT(RefineCounts);
HWY_EXPORT(Range);
HWY_EXPORT(Histogram);
HWY_EXPORT(AddLengths);

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

void RansRowEncoder::PutRefine(const RefineTable& table, const int32_t* cells,
                               const int32_t* parents, int tokens) {
  MakeRoom(static_cast<size_t>(tokens) + kLanes);
  TernaryEnds ends;
  for (int context = 0; context < kRefineContexts; ++context) {
    ends.first[context] = table.frequency[context][0];
    ends.second[context] = ends.first[context] + table.frequency[context][1];
  }
  used_ =
      HWY_DYNAMIC_DISPATCH(RefineRow)(ends, cells, parents, tokens, state_, words_.data() + used_) -
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

int CheapestIndex(const float* row, const float* prices, int width, int reference) {
  return HWY_DYNAMIC_DISPATCH(Cheapest)(row, prices, width, reference);
}

void CountRefine(const int32_t* cells, const int32_t* parents, int64_t tokens,
                 int32_t (*count)[3]) {
  HWY_DYNAMIC_DISPATCH(RefineCounts)(cells, parents, tokens, count);
}

void CellRange(const int32_t* cells, int64_t tokens, int32_t* low, int32_t* high) {
  HWY_DYNAMIC_DISPATCH(Range)(cells, tokens, low, high);
}

void CountCells(const int32_t* cells, int64_t tokens, int32_t low, int values, int32_t* count) {
  HWY_DYNAMIC_DISPATCH(Histogram)(cells, tokens, low, values, count);
}

void AddBits(double count, const float* lengths, int64_t classes, double* bits) {
  HWY_DYNAMIC_DISPATCH(AddLengths)(count, lengths, classes, bits);
}

}  // namespace kvstream
#endif

#include "codec/rans_kernels.h"

#include <algorithm>
#include <cstring>

#include "codec/rans.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "codec/rans_kernels.cc"
// foreach_target.h must come before highway.h and before what includes it.
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
// clang-format off
#include "codec/rans_vectors-inl.h"
// clang-format on

#ifndef KVSTREAM_CODEC_RANS_KERNELS_ONCE
#define KVSTREAM_CODEC_RANS_KERNELS_ONCE
namespace kvstream {

// A block under way. A step reads at most 64 bytes from `next` on; while it may run next <= limit,
// and behind limit lie 64 bytes that can be read. The last words of a block move to `tail`, so that
// no step needs a check of every word.
struct RansStream {
  static constexpr int kStepBytes = 2 * kLanes;

  alignas(64) uint32_t state[kLanes];
  const char* next;
  const char* limit;
  const char* end;
  bool in_tail;
  bool failed;
  char tail[2 * kStepBytes];
  const int32_t* coordinates;
  size_t rows;

  void Start(const RansBlock& block, int lanes) {
    RansDecoder start;
    failed = !start.Init({block.data, block.bytes}, lanes);
    if (failed) {
      std::fill(start.state, start.state + kLanes, kRansLow);
      start.next = start.end = tail;
    }
    std::copy(start.state, start.state + kLanes, state);
    next = start.next;
    end = start.end;
    limit = end - next >= kStepBytes ? end - kStepBytes : nullptr;
    in_tail = false;
    if (limit == nullptr) MoveToTail();
    coordinates = block.coordinates;
    rows = block.count;
  }

  // next > limit: makes room for another step.
  void Refill() {
    if (!in_tail) {
      MoveToTail();
      return;
    }
    // More words were taken than there are. What follows is garbage, within the tail.
    failed = true;
    next = end = limit = tail;
  }

  bool Finished() const {
    return !failed && next == end &&
           std::all_of(state, state + kLanes, [](uint32_t x) { return x == kRansLow; });
  }

 private:
  void MoveToTail() {
    const size_t left = static_cast<size_t>(end - next);  // below kStepBytes
    std::memset(tail, 0, sizeof(tail));
    if (next != tail) std::memcpy(tail, next, left);
    next = tail;
    end = limit = tail + left;
    in_tail = true;
  }
};

}  // namespace kvstream
#endif

HWY_BEFORE_NAMESPACE();
namespace kvstream {
namespace HWY_NAMESPACE {

// The states of one stream, in registers for the length of a row.
struct Lanes {
  State x[kStates];
  const char* next;

  HWY_INLINE explicit Lanes(const RansStream& stream) : next(stream.next) {
    for (int v = 0; v < kStates; ++v) x[v] = hn::Load(StateTag(), stream.state + v * kStateLanes);
  }
  HWY_INLINE void Save(RansStream& stream) const {
    for (int v = 0; v < kStates; ++v) hn::Store(x[v], StateTag(), stream.state + v * kStateLanes);
    stream.next = next;
  }
  HWY_INLINE void MakeRoom(RansStream& stream) {
    if (HWY_LIKELY(next <= stream.limit)) return;
    stream.next = next;
    stream.Refill();
    next = stream.next;
  }
};

// Cells of one vector of a step. Only the first `count` of its lanes lie within the row: masked
// loads and stores of some targets would touch what is behind.
template <bool kAll>
HWY_INLINE Cells LoadCells(const int32_t* in, int count) {
  const hn::RebindToSigned<StateTag> d;
  if constexpr (kAll) return hn::LoadU(d, in);
  alignas(64) int32_t copy[kStateLanes] = {};
  if (count > 0) std::memcpy(copy, in, std::min(count, kStateLanes) * sizeof(int32_t));
  return hn::Load(d, copy);
}

template <bool kAll>
HWY_INLINE void StoreCells(Cells cells, int count, int32_t* out) {
  const hn::RebindToSigned<StateTag> d;
  if constexpr (kAll) {
    hn::StoreU(cells, d, out);
  } else {
    alignas(64) int32_t copy[kStateLanes];
    hn::Store(cells, d, copy);
    if (count > 0) std::memcpy(out, copy, std::min(count, kStateLanes) * sizeof(int32_t));
  }
}

// Rows of a block lie scattered: fetches those of the next coordinate while this one's are at work.
HWY_INLINE void FetchAhead(const int32_t* next_row, int t) {
  constexpr int kLine = 64 / sizeof(int32_t);
  __builtin_prefetch(next_row + t, 1);
  __builtin_prefetch(next_row + t + kLine, 1);
}

// One step by a table of all slots, any number of lanes.
template <bool kAll>
HWY_INLINE void SlotStep(const BaseDecodeTable& table, Lanes& lanes, int count, int32_t* out) {
  const StateTag d;
  const hn::RebindToSigned<StateTag> di;
  const State slot_mask = hn::Set(d, kProbabilityScale - 1);
  for (int v = 0; v < kStates; ++v) {
    const auto active = ActiveLanes(v, kAll ? kLanes : count);
    const State x = lanes.x[v];
    const auto slot = hn::BitCast(di, hn::And(x, slot_mask));
    const State entry =
        hn::BitCast(d, hn::GatherIndex(di, reinterpret_cast<const int32_t*>(table.slots), slot));
    StoreCells<kAll>(hn::Sub(hn::BitCast(di, hn::And(entry, hn::Set(d, 255))), hn::Set(di, 128)),
                     count - v * kStateLanes, out + v * kStateLanes);
    const State grown = hn::Add(
        hn::Mul(hn::And(hn::ShiftRight<8>(entry), slot_mask), hn::ShiftRight<kProbabilityBits>(x)),
        hn::ShiftRight<20>(entry));
    lanes.x[v] = Renormalise(kAll ? grown : hn::IfThenElse(active, grown, x), active, &lanes.next);
  }
}

// The low bits of cells of a class with a shift.
HWY_NOINLINE void BitsStep(int shift, Lanes& lanes, int count, int32_t* out) {
  const StateTag d;
  const hn::RebindToSigned<StateTag> di;
  for (int v = 0; v < kStates; ++v) {
    const auto active = ActiveLanes(v, count);
    const State x = lanes.x[v];
    int32_t* const at = out + v * kStateLanes;
    const int left = count - v * kStateLanes;
    const auto low = hn::BitCast(di, hn::And(x, hn::Set(d, (1u << shift) - 1)));
    StoreCells<false>(hn::Add(hn::ShiftLeftSame(LoadCells<false>(at, left), shift), low), left, at);
    lanes.x[v] =
        Renormalise(hn::IfThenElse(active, hn::ShiftRightSame(x, shift), x), active, &lanes.next);
  }
}

#if HWY_TARGET <= HWY_AVX3

// One step of all lanes with a table of at most 2^kRounds symbols, searched in registers. Lane i of
// the first vector and of the second share a pair of 16-bit lanes, so that one search serves both.
template <int kRounds>
HWY_INLINE void SearchStep(const BaseDecodeTable& table, Lanes& lanes, int32_t* out) {
  const __m512i slot_mask = _mm512_set1_epi32(kProbabilityScale - 1);
  const __m512i low_mask = _mm512_set1_epi32(0xffff);
  const __m512i x0 = lanes.x[0].raw;
  const __m512i x1 = lanes.x[1].raw;
  const __m512i slot = _mm512_or_si512(_mm512_and_si512(x0, slot_mask),
                                       _mm512_slli_epi32(_mm512_and_si512(x1, slot_mask), 16));
  constexpr int kHalf = 1 << (kRounds - 1);
  __m512i index = _mm512_maskz_set1_epi16(
      _mm512_cmpge_epu16_mask(slot, _mm512_set1_epi16(static_cast<int16_t>(table.start[kHalf]))),
      kHalf);
#pragma GCC unroll 6
  for (int step = kHalf / 2; step > 0; step /= 2) {
    const __m512i probe = _mm512_add_epi16(index, _mm512_set1_epi16(static_cast<int16_t>(step)));
    index = _mm512_mask_mov_epi16(
        index, _mm512_cmpge_epu16_mask(slot, Lookup16<kRounds>(table.start, probe)), probe);
  }
  const __m512i frequency = Lookup16<kRounds>(table.frequency, index);
  const __m512i offset = _mm512_sub_epi16(slot, Lookup16<kRounds>(table.start, index));
  const __m512i middle = _mm512_set1_epi32(table.max_symbol);
  _mm512_storeu_si512(out, _mm512_sub_epi32(_mm512_and_si512(index, low_mask), middle));
  _mm512_storeu_si512(out + 16, _mm512_sub_epi32(_mm512_srli_epi32(index, 16), middle));
  const __m512i y0 = _mm512_add_epi32(_mm512_mullo_epi32(_mm512_and_si512(frequency, low_mask),
                                                         _mm512_srli_epi32(x0, kProbabilityBits)),
                                      _mm512_and_si512(offset, low_mask));
  const __m512i y1 = _mm512_add_epi32(
      _mm512_mullo_epi32(_mm512_srli_epi32(frequency, 16), _mm512_srli_epi32(x1, kProbabilityBits)),
      _mm512_srli_epi32(offset, 16));
  const auto all = ActiveLanes(0, kLanes);
  lanes.x[0] = Renormalise(State{y0}, all, &lanes.next);
  lanes.x[1] = Renormalise(State{y1}, all, &lanes.next);
}

// Whole steps of a row in each of two streams.
template <int kRounds>
void SearchRows(RansStream& a, const BaseDecodeTable& table_a, int32_t* row_a, RansStream& b,
                const BaseDecodeTable& table_b, int32_t* row_b, const int32_t* next_a,
                const int32_t* next_b, int whole) {
  Lanes lanes_a(a);
  Lanes lanes_b(b);
  for (int t = 0; t < whole; t += kLanes) {
    FetchAhead(next_a, t);
    FetchAhead(next_b, t);
    lanes_a.MakeRoom(a);
    lanes_b.MakeRoom(b);
    SearchStep<kRounds>(table_a, lanes_a, row_a + t);
    SearchStep<kRounds>(table_b, lanes_b, row_b + t);
  }
  lanes_a.Save(a);
  lanes_b.Save(b);
}

template <int kRounds>
void SearchRow(RansStream& a, const BaseDecodeTable& table, int32_t* row, int whole) {
  Lanes lanes(a);
  for (int t = 0; t < whole; t += kLanes) {
    lanes.MakeRoom(a);
    SearchStep<kRounds>(table, lanes, row + t);
  }
  lanes.Save(a);
}

#endif

// Steps from token `first` on, one stream, any table.
HWY_NOINLINE void BaseRow(RansStream& stream, const BaseDecodeTable& table, int first, int tokens,
                          int32_t* row) {
  Lanes lanes(stream);
  for (int t = first; t < tokens; t += kLanes) {
    const int count = std::min(kLanes, tokens - t);
    lanes.MakeRoom(stream);
    if (count == kLanes) {
      SlotStep<true>(table, lanes, count, row + t);
    } else {
      SlotStep<false>(table, lanes, count, row + t);
    }
    if (table.shift == 0) continue;
    lanes.MakeRoom(stream);
    BitsStep(table.shift, lanes, count, row + t);
  }
  lanes.Save(stream);
}

// The coordinate after the one at work, which is itself if it is the last.
HWY_INLINE int32_t Next(const RansStream& stream) {
  return stream.coordinates[stream.rows > 1 ? 1 : 0];
}

// What the streams of a level need.
struct BaseLevel {
  const BaseDecodeTable* tables;
  const uint8_t* classes;
  int tokens;
  int32_t* cells;

  int32_t* Row(int32_t coordinate) const {
    return cells + static_cast<int64_t>(coordinate) * tokens;
  }

  HWY_INLINE void One(RansStream& a) const {
    const int32_t coordinate = *a.coordinates;
    const BaseDecodeTable& table = tables[classes[coordinate]];
    int32_t* const row = Row(coordinate);
    int whole = 0;
#if HWY_TARGET <= HWY_AVX3
    if (table.rounds <= 6 && table.shift == 0) {
      whole = tokens / kLanes * kLanes;
      switch (table.rounds) {
        case 2:
          SearchRow<2>(a, table, row, whole);
          break;
        case 3:
          SearchRow<3>(a, table, row, whole);
          break;
        case 4:
          SearchRow<4>(a, table, row, whole);
          break;
        case 5:
          SearchRow<5>(a, table, row, whole);
          break;
        default:
          SearchRow<6>(a, table, row, whole);
      }
    }
#endif
    if (whole < tokens) BaseRow(a, table, whole, tokens, row);
  }

  HWY_INLINE void Two(RansStream& a, RansStream& b) const {
#if HWY_TARGET <= HWY_AVX3
    const BaseDecodeTable& table_a = tables[classes[*a.coordinates]];
    const BaseDecodeTable& table_b = tables[classes[*b.coordinates]];
    const int rounds = std::max(table_a.rounds, table_b.rounds);
    if (rounds <= 6 && table_a.shift + table_b.shift == 0) {
      int32_t* const row_a = Row(*a.coordinates);
      int32_t* const row_b = Row(*b.coordinates);
      const int32_t* const next_a = Row(Next(a));
      const int32_t* const next_b = Row(Next(b));
      const int whole = tokens / kLanes * kLanes;
      switch (rounds) {
        case 2:
          SearchRows<2>(a, table_a, row_a, b, table_b, row_b, next_a, next_b, whole);
          break;
        case 3:
          SearchRows<3>(a, table_a, row_a, b, table_b, row_b, next_a, next_b, whole);
          break;
        case 4:
          SearchRows<4>(a, table_a, row_a, b, table_b, row_b, next_a, next_b, whole);
          break;
        case 5:
          SearchRows<5>(a, table_a, row_a, b, table_b, row_b, next_a, next_b, whole);
          break;
        default:
          SearchRows<6>(a, table_a, row_a, b, table_b, row_b, next_a, next_b, whole);
      }
      if (whole < tokens) {
        BaseRow(a, table_a, whole, tokens, row_a);
        BaseRow(b, table_b, whole, tokens, row_b);
      }
      return;
    }
#endif
    One(a);
    One(b);
  }
};

// Tables of one class for a refinement step: by context, ends of r = -1 and of r = 0.
struct Ternary {
  State first[kRefineContexts];
  State second[kRefineContexts];

  HWY_INLINE explicit Ternary(const RefineTable& table) {
    const StateTag d;
    for (int context = 0; context < kRefineContexts; ++context) {
      const auto& frequency = table.frequency[context];
      first[context] = hn::Set(d, frequency[0]);
      second[context] = hn::Set(d, uint32_t{frequency[0]} + frequency[1]);
    }
  }
};

template <bool kAll>
HWY_INLINE void RefineStep(const Ternary& table, Lanes& lanes, int count, int32_t* row) {
  const StateTag d;
  const hn::RebindToSigned<StateTag> di;
  const auto zero = hn::Zero(di);
  const auto one = hn::Set(di, 1);
  for (int v = 0; v < kStates; ++v) {
    const auto active = ActiveLanes(v, kAll ? kLanes : count);
    int32_t* const at = row + v * kStateLanes;
    const Cells parent = LoadCells<kAll>(at, count - v * kStateLanes);
    const auto is_zero = hn::RebindMask(d, hn::Eq(parent, zero));
    const auto is_one = hn::RebindMask(d, hn::Eq(hn::Abs(parent), one));
    const State first = hn::IfThenElse(is_zero, table.first[0],
                                       hn::IfThenElse(is_one, table.first[1], table.first[2]));
    const State second = hn::IfThenElse(is_zero, table.second[0],
                                        hn::IfThenElse(is_one, table.second[1], table.second[2]));
    const State x = lanes.x[v];
    const State slot = hn::And(x, hn::Set(d, kProbabilityScale - 1));
    const auto in_first = hn::Lt(slot, first);
    const auto in_two = hn::Lt(slot, second);
    const State start = hn::IfThenElse(in_two, hn::IfThenZeroElse(in_first, first), second);
    const State end = hn::IfThenElse(in_first, first,
                                     hn::IfThenElse(in_two, second, hn::Set(d, kProbabilityScale)));
    const auto r = hn::IfThenElse(hn::RebindMask(di, in_first), hn::Set(di, -1),
                                  hn::IfThenZeroElse(hn::RebindMask(di, in_two), one));
    const auto mirrored = hn::IfThenElse(hn::Lt(parent, zero), hn::Sub(zero, r), r);
    StoreCells<kAll>(hn::Add(hn::Add(parent, parent), hn::Add(parent, mirrored)),
                     count - v * kStateLanes, at);
    const State grown = hn::Add(hn::Mul(hn::Sub(end, start), hn::ShiftRight<kProbabilityBits>(x)),
                                hn::Sub(slot, start));
    lanes.x[v] = Renormalise(kAll ? grown : hn::IfThenElse(active, grown, x), active, &lanes.next);
  }
}

HWY_NOINLINE void RefineRow(RansStream& stream, const RefineTable& refine, int first, int tokens,
                            int32_t* row) {
  const Ternary table(refine);
  Lanes lanes(stream);
  for (int t = first; t < tokens; t += kLanes) {
    const int count = std::min(kLanes, tokens - t);
    lanes.MakeRoom(stream);
    if (count == kLanes) {
      RefineStep<true>(table, lanes, count, row + t);
    } else {
      RefineStep<false>(table, lanes, count, row + t);
    }
  }
  lanes.Save(stream);
}

struct RefineLevel {
  const RefineTable* tables;
  const uint8_t* classes;
  int tokens;
  int32_t* cells;

  int32_t* Row(int32_t coordinate) const {
    return cells + static_cast<int64_t>(coordinate) * tokens;
  }
  HWY_INLINE void One(RansStream& a) const {
    const int32_t coordinate = *a.coordinates;
    RefineRow(a, tables[classes[coordinate]], 0, tokens, Row(coordinate));
  }
  HWY_INLINE void Two(RansStream& a, RansStream& b) const {
    if (kStates > 2) {  // too few registers
      One(a);
      One(b);
      return;
    }
    const RefineTable& refine_a = tables[classes[*a.coordinates]];
    const RefineTable& refine_b = tables[classes[*b.coordinates]];
    int32_t* const row_a = Row(*a.coordinates);
    int32_t* const row_b = Row(*b.coordinates);
    const int32_t* const next_a = Row(Next(a));
    const int32_t* const next_b = Row(Next(b));
    const int whole = tokens / kLanes * kLanes;
    {
      const Ternary table_a(refine_a);
      const Ternary table_b(refine_b);
      Lanes lanes_a(a);
      Lanes lanes_b(b);
      for (int t = 0; t < whole; t += kLanes) {
        FetchAhead(next_a, t);
        FetchAhead(next_b, t);
        lanes_a.MakeRoom(a);
        lanes_b.MakeRoom(b);
        RefineStep<true>(table_a, lanes_a, kLanes, row_a + t);
        RefineStep<true>(table_b, lanes_b, kLanes, row_b + t);
      }
      lanes_a.Save(a);
      lanes_b.Save(b);
    }
    if (whole == tokens) return;
    RefineRow(a, refine_a, whole, tokens, row_a);
    RefineRow(b, refine_b, whole, tokens, row_b);
  }
};

// Runs all blocks through two streams.
template <typename Level>
bool DecodeAll(const RansBlock* blocks, size_t count, const Level& level) {
  RansStream streams[2];
  bool running[2] = {false, false};
  const int lanes = std::min(kLanes, level.tokens);
  const RansBlock* const end = blocks + count;
  bool good = true;
  while (true) {
    for (int i = 0; i < 2; ++i) {
      if (running[i] && streams[i].rows == 0) {
        good &= streams[i].Finished();
        running[i] = false;
      }
      if (!running[i] && blocks != end) {
        streams[i].Start(*blocks++, lanes);
        running[i] = true;
      }
    }
    if (running[0] && running[1]) {
      for (size_t rows = std::min(streams[0].rows, streams[1].rows); rows > 0; --rows) {
        level.Two(streams[0], streams[1]);
        for (RansStream& stream : streams) {
          ++stream.coordinates;
          --stream.rows;
        }
      }
    } else if (running[0] || running[1]) {
      RansStream& stream = streams[running[0] ? 0 : 1];
      for (; stream.rows > 0; --stream.rows, ++stream.coordinates) level.One(stream);
    } else {
      return good;
    }
  }
}

bool DecodeBase(const RansBlock* blocks, size_t count, const BaseDecodeTable* tables,
                const uint8_t* classes, int tokens, int32_t* cells) {
  return DecodeAll(blocks, count, BaseLevel{tables, classes, tokens, cells});
}

bool DecodeRefine(const RansBlock* blocks, size_t count, const RefineTable* tables,
                  const uint8_t* classes, int tokens, int32_t* cells) {
  return DecodeAll(blocks, count, RefineLevel{tables, classes, tokens, cells});
}

}  // namespace HWY_NAMESPACE
}  // namespace kvstream
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace kvstream {

HWY_EXPORT(DecodeBase);
HWY_EXPORT(DecodeRefine);

void PrepareBaseTable(const BaseTable& table, uint32_t* slots, BaseDecodeTable* out) {
  const int symbols = static_cast<int>(table.frequency.size());
  std::fill(out->start, out->start + kSearchSymbolsMax, uint16_t{0xffff});
  std::fill(out->frequency, out->frequency + kSearchSymbolsMax, uint16_t{0});
  uint32_t slot = 0;
  for (int i = 0; i < symbols; ++i) {
    const uint32_t frequency = table.frequency[i];
    if (i < kSearchSymbolsMax) {
      out->start[i] = static_cast<uint16_t>(slot);
      out->frequency[i] = static_cast<uint16_t>(frequency);
    }
    const uint32_t symbol = static_cast<uint32_t>(i - table.max_symbol + 128);
    for (uint32_t offset = 0; offset < frequency; ++offset)
      slots[slot++] = symbol | frequency << 8 | offset << 20;
  }
  out->slots = slots;
  out->rounds = 2;
  while (1 << out->rounds < symbols && out->rounds < 7) ++out->rounds;
  out->shift = table.shift;
  out->max_symbol = table.max_symbol;
}

bool DecodeBaseBlocks(const RansBlock* blocks, size_t count, const BaseDecodeTable* tables,
                      const uint8_t* classes, int tokens, int32_t* cells) {
  return HWY_DYNAMIC_DISPATCH(DecodeBase)(blocks, count, tables, classes, tokens, cells);
}

bool DecodeRefineBlocks(const RansBlock* blocks, size_t count, const RefineTable* tables,
                        const uint8_t* classes, int tokens, int32_t* cells) {
  return HWY_DYNAMIC_DISPATCH(DecodeRefine)(blocks, count, tables, classes, tokens, cells);
}

}  // namespace kvstream
#endif

#include "codec/rans_kernels.h"

#include <algorithm>
#include <cstdlib>
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
  size_t rows = 0;

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

  // other is not used any more.
  void MoveFrom(const RansStream& other) {
    const bool tailed = other.in_tail;
    *this = other;
    if (!tailed) return;
    next = tail + (other.next - other.tail);
    end = limit = tail + (other.end - other.tail);
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

  HWY_INLINE void Load(const RansStream& stream) {
    next = stream.next;
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

// Words of a step of cells: token i in the low half, token i + 16 in the high half.
using Pairs = Cells;
constexpr int kHalfStates = kStates / 2;

HWY_INLINE Cells LowCells(Pairs pairs) { return hn::ShiftRight<16>(hn::ShiftLeft<16>(pairs)); }
HWY_INLINE Cells HighCells(Pairs pairs) { return hn::ShiftRight<16>(pairs); }
HWY_INLINE Pairs JoinCells(Cells low, Cells high) {
  return hn::Or(hn::And(low, hn::Set(hn::RebindToSigned<StateTag>(), 0xffff)),
                hn::ShiftLeft<16>(high));
}
HWY_INLINE Pairs LoadPairs(const int16_t* step, int v) {
  return hn::LoadU(hn::RebindToSigned<StateTag>(),
                   reinterpret_cast<const int32_t*>(step) + v * kStateLanes);
}
HWY_INLINE void StorePairs(Pairs pairs, int v, int16_t* step) {
  hn::StoreU(pairs, hn::RebindToSigned<StateTag>(),
             reinterpret_cast<int32_t*>(step) + v * kStateLanes);
}

// Steps of 32 lanes, of which the first `count` are coded: the others keep their states, and what
// is stored for them is padding.
HWY_INLINE void Advance(const State* grown, int count, Lanes& lanes) {
  for (int v = 0; v < kStates; ++v) {
    const auto active = ActiveLanes(v, count);
    lanes.x[v] = Renormalise(hn::IfThenElse(active, grown[v], lanes.x[v]), active, &lanes.next);
  }
}

// One step by a table of all slots.
HWY_INLINE void SlotStep(const BaseDecodeTable& table, Lanes& lanes, int count, int16_t* out) {
  const StateTag d;
  const hn::RebindToSigned<StateTag> di;
  const State slot_mask = hn::Set(d, kProbabilityScale - 1);
  State grown[kStates];
  Cells symbol[kStates];
  for (int v = 0; v < kStates; ++v) {
    const State x = lanes.x[v];
    const auto slot = hn::BitCast(di, hn::And(x, slot_mask));
    const State entry =
        hn::BitCast(d, hn::GatherIndex(di, reinterpret_cast<const int32_t*>(table.slots), slot));
    symbol[v] = hn::Sub(hn::BitCast(di, hn::And(entry, hn::Set(d, 255))), hn::Set(di, 128));
    grown[v] = hn::Add(
        hn::Mul(hn::And(hn::ShiftRight<8>(entry), slot_mask), hn::ShiftRight<kProbabilityBits>(x)),
        hn::ShiftRight<20>(entry));
  }
  for (int v = 0; v < kHalfStates; ++v)
    StorePairs(JoinCells(symbol[v], symbol[v + kHalfStates]), v, out);
  Advance(grown, count, lanes);
}

// The low bits of cells of a class with a shift. symbols: the step's; replaced by the cells unless
// `wide`, the step's place in a wide row, takes them.
HWY_NOINLINE void BitsStep(int shift, Lanes& lanes, int count, int16_t* symbols, int32_t* wide) {
  const StateTag d;
  const hn::RebindToSigned<StateTag> di;
  const State mask = hn::Set(d, (1u << shift) - 1);
  State grown[kStates];
  for (int v = 0; v < kHalfStates; ++v) {
    const int w = v + kHalfStates;
    const Pairs pairs = LoadPairs(symbols, v);
    const Cells low = hn::Add(hn::ShiftLeftSame(LowCells(pairs), shift),
                              hn::BitCast(di, hn::And(lanes.x[v], mask)));
    const Cells high = hn::Add(hn::ShiftLeftSame(HighCells(pairs), shift),
                               hn::BitCast(di, hn::And(lanes.x[w], mask)));
    grown[v] = hn::ShiftRightSame(lanes.x[v], shift);
    grown[w] = hn::ShiftRightSame(lanes.x[w], shift);
    if (wide == nullptr) {
      StorePairs(JoinCells(low, high), v, symbols);
    } else {
      hn::StoreU(low, di, wide + v * kStateLanes);
      hn::StoreU(high, di, wide + w * kStateLanes);
    }
  }
  Advance(grown, count, lanes);
}

// One refinement step.
HWY_INLINE void PlainRefineStep(const RefineDecodeTable& table, Lanes& lanes, int count,
                                int16_t* row) {
  const StateTag d;
  const hn::RebindToSigned<StateTag> di;
  const auto zero = hn::Zero(di);
  const auto one = hn::Set(di, 1);
  State grown[kStates];
  const auto step = [&](int v, Cells parent) {
    const auto is_zero = hn::RebindMask(d, hn::Eq(parent, zero));
    const auto is_one = hn::RebindMask(d, hn::Eq(hn::Abs(parent), one));
    const auto of_context = [&](const uint16_t* ends) {
      return hn::IfThenElse(is_zero, hn::Set(d, ends[0]),
                            hn::IfThenElse(is_one, hn::Set(d, ends[1]), hn::Set(d, ends[2])));
    };
    const State first = of_context(table.first);
    const State second = of_context(table.second);
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
    grown[v] = hn::Add(hn::Mul(hn::Sub(end, start), hn::ShiftRight<kProbabilityBits>(x)),
                       hn::Sub(slot, start));
    return hn::Add(hn::Add(parent, parent), hn::Add(parent, mirrored));
  };
  for (int v = 0; v < kHalfStates; ++v) {
    const Pairs pairs = LoadPairs(row, v);
    const Cells low = step(v, LowCells(pairs));
    StorePairs(JoinCells(low, step(v + kHalfStates, HighCells(pairs))), v, row);
  }
  Advance(grown, count, lanes);
}

// Rows of a block lie scattered: fetches a step of the next coordinate while this one is at work.
HWY_INLINE void FetchAhead(const int16_t* next_row, int64_t t) {
  __builtin_prefetch(next_row + t, 1);
}

#if HWY_TARGET <= HWY_AVX3

// Lanes i and i + 16 share a pair of 16-bit lanes, in states' slots as in cells, so that one search
// serves both vectors.
HWY_INLINE __m512i Slots(__m512i x0, __m512i x1) {
  return _mm512_and_si512(_mm512_mask_blend_epi16(0xaaaaaaaa, x0, _mm512_slli_epi32(x1, 16)),
                          _mm512_set1_epi16(kProbabilityScale - 1));
}

HWY_INLINE __m512i RenormaliseAll(__m512i x, const char** next) {
  const __mmask16 need = _mm512_cmplt_epu32_mask(x, _mm512_set1_epi32(kRansLow));
  const __m512i words =
      _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(*next)));
  *next += 2 * __builtin_popcount(need);
  return _mm512_or_si512(_mm512_mask_slli_epi32(x, need, x, 16),
                         _mm512_maskz_expand_epi32(need, words));
}

HWY_INLINE void AdvanceAll(__m512i frequency, __m512i offset, Lanes& lanes) {
  const __m512i low = _mm512_set1_epi32(0xffff);
  const __m512i high0 = _mm512_srli_epi32(lanes.x[0].raw, kProbabilityBits);
  const __m512i high1 = _mm512_srli_epi32(lanes.x[1].raw, kProbabilityBits);
  const __m512i y0 = _mm512_add_epi32(_mm512_mullo_epi32(_mm512_and_si512(frequency, low), high0),
                                      _mm512_and_si512(offset, low));
  const __m512i y1 = _mm512_add_epi32(_mm512_mullo_epi32(_mm512_srli_epi32(frequency, 16), high1),
                                      _mm512_srli_epi32(offset, 16));
  lanes.x[0] = State{RenormaliseAll(y0, &lanes.next)};
  lanes.x[1] = State{RenormaliseAll(y1, &lanes.next)};
}

// One step of all lanes with a table of at most 2^kRounds symbols, searched in registers.
template <int kRounds>
HWY_INLINE void SearchStep(const BaseDecodeTable& table, Lanes& lanes, int16_t* out) {
  const __m512i slot = Slots(lanes.x[0].raw, lanes.x[1].raw);
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
  _mm512_storeu_si512(
      out, _mm512_sub_epi16(index, _mm512_set1_epi16(static_cast<int16_t>(table.max_symbol))));
  AdvanceAll(frequency, offset, lanes);
}

// One refinement step of all lanes.
HWY_INLINE void RefineStep(const RefineDecodeTable& table, Lanes& lanes, int16_t* row) {
  // What a symbol adds to three parents, as RefineDecodeTable orders it.
  alignas(64) static constexpr int16_t kDelta[32] = {-1, -1, -1, 0,  0,  0, 0, 0, 0, 0, 0,
                                                     0,  0,  0,  -1, -1, 1, 1, 1, 0, 0, 0,
                                                     0,  0,  0,  0,  0,  0, 0, 0, 1, 1};
  const __m512i parent = _mm512_loadu_si512(row);
  const __m512i context =
      _mm512_max_epi16(_mm512_min_epi16(parent, _mm512_set1_epi16(2)), _mm512_set1_epi16(-2));
  const __m512i first = Lookup16<5>(table.first, context);
  const __m512i second = Lookup16<5>(table.second, context);
  const __m512i slot = Slots(lanes.x[0].raw, lanes.x[1].raw);
  const __mmask32 past_first = _mm512_cmpge_epu16_mask(slot, first);
  const __mmask32 past_second = _mm512_cmpge_epu16_mask(slot, second);
  const __m512i eight = _mm512_set1_epi16(8);
  __m512i key = _mm512_mask_add_epi16(context, past_first, context, eight);
  key = _mm512_mask_add_epi16(key, past_second, key, eight);
  const __m512i start =
      _mm512_mask_mov_epi16(_mm512_maskz_mov_epi16(past_first, first), past_second, second);
  const __m512i delta = _mm512_permutexvar_epi16(key, _mm512_load_si512(kDelta));
  _mm512_storeu_si512(
      row, _mm512_add_epi16(_mm512_add_epi16(parent, parent), _mm512_add_epi16(parent, delta)));
  AdvanceAll(Lookup16<5>(table.frequency, key), _mm512_sub_epi16(slot, start), lanes);
}

// Rows at work in kStreams streams.
template <int kStreams>
struct RowSet {
  int16_t* row[kStreams];
  const int16_t* next[kStreams];  // of the coordinates after
};

// Whole steps of a row in each of some streams.
template <int kRounds, int kStreams>
void SearchRows(RansStream* streams, const BaseDecodeTable* const* tables,
                const RowSet<kStreams>& rows, int whole) {
  Lanes lanes[kStreams];
#pragma GCC unroll 4
  for (int i = 0; i < kStreams; ++i) lanes[i].Load(streams[i]);
  for (int t = 0; t < whole; t += kLanes) {
#pragma GCC unroll 4
    for (int i = 0; i < kStreams; ++i) {
      FetchAhead(rows.next[i], t);
      lanes[i].MakeRoom(streams[i]);
    }
#pragma GCC unroll 4
    for (int i = 0; i < kStreams; ++i) SearchStep<kRounds>(*tables[i], lanes[i], rows.row[i] + t);
  }
#pragma GCC unroll 4
  for (int i = 0; i < kStreams; ++i) lanes[i].Save(streams[i]);
}

template <int kStreams>
void RefineRows(RansStream* streams, const RefineDecodeTable* const* tables,
                const RowSet<kStreams>& rows, int whole) {
  Lanes lanes[kStreams];
#pragma GCC unroll 4
  for (int i = 0; i < kStreams; ++i) lanes[i].Load(streams[i]);
  for (int t = 0; t < whole; t += kLanes) {
#pragma GCC unroll 4
    for (int i = 0; i < kStreams; ++i) {
      FetchAhead(rows.next[i], t);
      lanes[i].MakeRoom(streams[i]);
    }
#pragma GCC unroll 4
    for (int i = 0; i < kStreams; ++i) RefineStep(*tables[i], lanes[i], rows.row[i] + t);
  }
#pragma GCC unroll 4
  for (int i = 0; i < kStreams; ++i) lanes[i].Save(streams[i]);
}

#endif

// Steps from token `first` on, one stream, any table. wide: the row in 32 bits, or null.
HWY_NOINLINE void BaseRow(RansStream& stream, const BaseDecodeTable& table, int first, int tokens,
                          int16_t* row, int32_t* wide) {
  Lanes lanes;
  lanes.Load(stream);
  for (int t = first; t < tokens; t += kLanes) {
    const int count = std::min(kLanes, tokens - t);
    lanes.MakeRoom(stream);
    SlotStep(table, lanes, count, row + t);
    if (table.shift == 0) continue;
    lanes.MakeRoom(stream);
    BitsStep(table.shift, lanes, count, row + t, wide == nullptr ? nullptr : wide + t);
  }
  lanes.Save(stream);
}

HWY_NOINLINE void RefineRow(RansStream& stream, const RefineDecodeTable& table, int first,
                            int tokens, int16_t* row) {
  Lanes lanes;
  lanes.Load(stream);
  for (int t = first; t < tokens; t += kLanes) {
    lanes.MakeRoom(stream);
    PlainRefineStep(table, lanes, std::min(kLanes, tokens - t), row + t);
  }
  lanes.Save(stream);
}

// The coordinate after the one at work, which is itself if it is the last.
HWY_INLINE int32_t Next(const RansStream& stream) {
  return stream.coordinates[stream.rows > 1 ? 1 : 0];
}

// What the streams of a level need. Rows(streams) decodes a row in each of kStreams of them.
struct BaseLevel {
  const BaseDecodeTable* tables;
  const uint8_t* classes;
  CellRows* cells;

  template <int kStreams>
  HWY_INLINE void Rows(RansStream* streams) const {
    const int tokens = cells->tokens();
    int whole = 0;
#if HWY_TARGET <= HWY_AVX3
    const BaseDecodeTable* used[kStreams];
    RowSet<kStreams> rows;
    int rounds = 0;
    for (int i = 0; i < kStreams; ++i) {
      const int32_t coordinate = *streams[i].coordinates;
      used[i] = &tables[classes[coordinate]];
      rows.row[i] = cells->narrow(coordinate);
      rows.next[i] = cells->narrow(Next(streams[i]));
      rounds = std::max(rounds, used[i]->shift == 0 ? used[i]->rounds : 7);
    }
    if (rounds <= 6) whole = tokens / kLanes * kLanes;
    switch (rounds) {
      case 2:
        SearchRows<2, kStreams>(streams, used, rows, whole);
        break;
      case 3:
        SearchRows<3, kStreams>(streams, used, rows, whole);
        break;
      case 4:
        SearchRows<4, kStreams>(streams, used, rows, whole);
        break;
      case 5:
        SearchRows<5, kStreams>(streams, used, rows, whole);
        break;
      case 6:
        SearchRows<6, kStreams>(streams, used, rows, whole);
        break;
      default:
        if (kStreams == 1) break;
        // Each with what its own table allows.
        for (int i = 0; i < kStreams; ++i) Rows<1>(streams + i);
        return;
    }
    if (whole == tokens) return;
#endif
    for (int i = 0; i < kStreams; ++i) {
      const int32_t coordinate = *streams[i].coordinates;
      BaseRow(streams[i], tables[classes[coordinate]], whole, tokens, cells->narrow(coordinate),
              cells->wide(coordinate));
    }
  }
};

struct RefineLevel {
  const RefineDecodeTable* tables;
  const uint8_t* classes;
  CellRows* cells;

  template <int kStreams>
  HWY_INLINE void Rows(RansStream* streams) const {
    const int tokens = cells->tokens();
    int whole = 0;
#if HWY_TARGET <= HWY_AVX3
    const RefineDecodeTable* used[kStreams];
    RowSet<kStreams> rows;
    for (int i = 0; i < kStreams; ++i) {
      const int32_t coordinate = *streams[i].coordinates;
      used[i] = &tables[classes[coordinate]];
      rows.row[i] = cells->narrow(coordinate);
      rows.next[i] = cells->narrow(Next(streams[i]));
    }
    whole = tokens / kLanes * kLanes;
    RefineRows<kStreams>(streams, used, rows, whole);
    if (whole == tokens) return;
#endif
    for (int i = 0; i < kStreams; ++i) {
      const int32_t coordinate = *streams[i].coordinates;
      RefineRow(streams[i], tables[classes[coordinate]], whole, tokens, cells->narrow(coordinate));
    }
  }
};

// Rows of kStreams streams until one of them has no more.
template <int kStreams, typename Level>
HWY_INLINE void RunStreams(RansStream* streams, const Level& level) {
  size_t rows = streams[0].rows;
  for (int i = 1; i < kStreams; ++i) rows = std::min(rows, streams[i].rows);
  for (; rows > 0; --rows) {
    level.template Rows<kStreams>(streams);
    for (int i = 0; i < kStreams; ++i) {
      ++streams[i].coordinates;
      --streams[i].rows;
    }
  }
}

// Streams at a time: a step waits some 45 cycles for the one before, and takes the vector units for
// half as many. Fewer registers have no room for more than one.
constexpr int kStreamsMax = kStates <= 2 ? 4 : 1;

// Runs all blocks, several at a time.
template <typename Level>
bool DecodeAll(const RansBlock* blocks, size_t count, const Level& level) {
  RansStream streams[kStreamsMax];
  const int lanes = std::min(kLanes, level.cells->tokens());
  const RansBlock* const end = blocks + count;
  bool good = true;
  int running = 0;
  while (true) {
    for (int i = 0; i < running;) {
      if (streams[i].rows > 0) {
        ++i;
        continue;
      }
      good &= streams[i].Finished();
      if (blocks != end) {
        streams[i].Start(*blocks++, lanes);
      } else if (i != --running) {
        streams[i].MoveFrom(streams[running]);
      }
    }
    for (; running < kStreamsMax && blocks != end; ++running)
      streams[running].Start(*blocks++, lanes);
    switch (running) {
      case 0:
        return good;
      case 1:
        RunStreams<1>(streams, level);
        break;
      case 2:
      case 3:
        RunStreams < kStreamsMax<2 ? 1 : 2>(streams, level);
        break;
      default:
        RunStreams<kStreamsMax>(streams, level);
    }
  }
}

bool DecodeBase(const RansBlock* blocks, size_t count, const BaseDecodeTable* tables,
                const uint8_t* classes, CellRows* cells) {
  return DecodeAll(blocks, count, BaseLevel{tables, classes, cells});
}

bool DecodeRefine(const RansBlock* blocks, size_t count, const RefineDecodeTable* tables,
                  const uint8_t* classes, CellRows* cells) {
  return DecodeAll(blocks, count, RefineLevel{tables, classes, cells});
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

void PrepareRefineTable(const RefineTable& table, RefineDecodeTable* out) {
  std::memset(static_cast<void*>(out), 0, sizeof(*out));
  for (int parent = -2; parent <= 2; ++parent) {
    const auto& frequency = table.frequency[std::abs(parent)];
    const auto at = [&](int index) { return static_cast<size_t>((parent + 8 * index) & 31); };
    out->first[at(0)] = frequency[0];
    out->second[at(0)] = static_cast<uint16_t>(frequency[0] + frequency[1]);
    for (int index = 0; index < 3; ++index) out->frequency[at(index)] = frequency[index];
  }
}

bool DecodeBaseBlocks(const RansBlock* blocks, size_t count, const BaseDecodeTable* tables,
                      const uint8_t* classes, CellRows* cells) {
  return HWY_DYNAMIC_DISPATCH(DecodeBase)(blocks, count, tables, classes, cells);
}

bool DecodeRefineBlocks(const RansBlock* blocks, size_t count, const RefineDecodeTable* tables,
                        const uint8_t* classes, CellRows* cells) {
  return HWY_DYNAMIC_DISPATCH(DecodeRefine)(blocks, count, tables, classes, cells);
}

}  // namespace kvstream
#endif

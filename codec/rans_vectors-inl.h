// Vectors of rANS states, per Highway target: what decoder and encoder share. Included once for
// every target.
#include "codec/rans.h"
#include "hwy/highway.h"

#if defined(KVSTREAM_CODEC_RANS_VECTORS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef KVSTREAM_CODEC_RANS_VECTORS_INL_H_
#undef KVSTREAM_CODEC_RANS_VECTORS_INL_H_
#else
#define KVSTREAM_CODEC_RANS_VECTORS_INL_H_
#endif

HWY_BEFORE_NAMESPACE();
namespace kvstream {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

using StateTag = hn::CappedTag<uint32_t, 16>;
using State = hn::Vec<StateTag>;
using Cells = hn::Vec<hn::RebindToSigned<StateTag>>;
constexpr int kStateLanes = static_cast<int>(hn::MaxLanes(StateTag()));
constexpr int kStates = kLanes / kStateLanes;  // vectors of a step

#if HWY_TARGET <= HWY_AVX3

// Entries of a table of 2^kRounds uint16 (at least 32 in memory).
template <int kRounds>
HWY_INLINE __m512i Lookup16(const uint16_t* table, __m512i index) {
  if constexpr (kRounds <= 5) {
    return _mm512_permutexvar_epi16(index, _mm512_load_si512(table));
  } else {
    return _mm512_permutex2var_epi16(_mm512_load_si512(table), index,
                                     _mm512_load_si512(table + 32));
  }
}

// Spreads the first lanes of `words` over the lanes where the mask is true; the others are 0.
HWY_INLINE State ExpandLanes(State words, hn::Mask<StateTag> mask) {
  return State{_mm512_maskz_expand_epi32(mask.raw, words.raw)};
}

#else

// [mask][lane]: which word a lane takes.
struct ExpandTable {
  alignas(32) uint32_t index[1 << kStateLanes][kStateLanes];
  constexpr ExpandTable() : index() {
    for (int mask = 0; mask < 1 << kStateLanes; ++mask) {
      uint32_t next = 0;
      for (int lane = 0; lane < kStateLanes; ++lane) {
        index[mask][lane] = next;
        if ((mask >> lane & 1) != 0) ++next;
        if (next == kStateLanes) next = kStateLanes - 1;
      }
    }
  }
};

HWY_INLINE State ExpandLanes(State words, hn::Mask<StateTag> mask) {
  static constexpr ExpandTable table;
  uint8_t bits[8] = {};
  const StateTag d;
  hn::StoreMaskBits(d, mask, bits);
  return hn::TableLookupLanes(words, hn::SetTableIndices(d, table.index[bits[0]]));
}

#endif

// States below 2^16 take a word each from *next, which moves on. Reads 2 * kStateLanes bytes.
HWY_INLINE State Renormalise(State x, hn::Mask<StateTag> active, const char** next) {
  const StateTag d;
  const hn::Rebind<uint16_t, StateTag> d16;
  const auto need = hn::And(active, hn::Lt(x, hn::Set(d, kRansLow)));
  const State words = hn::PromoteTo(d, hn::LoadU(d16, reinterpret_cast<const uint16_t*>(*next)));
  *next += 2 * hn::CountTrue(d, need);
  return hn::IfThenElse(need, hn::Or(hn::ShiftLeft<16>(x), ExpandLanes(words, need)), x);
}

// The first `lanes` of the 32 lanes, for vector number `v` of a step.
HWY_INLINE hn::Mask<StateTag> ActiveLanes(int v, int lanes) {
  return hn::FirstN(StateTag(),
                    static_cast<size_t>(lanes > v * kStateLanes ? lanes - v * kStateLanes : 0));
}

}  // namespace HWY_NAMESPACE
}  // namespace kvstream
HWY_AFTER_NAMESPACE();

#endif

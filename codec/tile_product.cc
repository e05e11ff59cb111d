#include "codec/tile_product.h"

#include <algorithm>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "codec/tile_product.cc"
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

// Half-precision entries, `padded` of them.
HWY_INLINE Floats LoadHalves(const uint16_t* in) {
  const FloatTag d;
  const hn::Rebind<hwy::float16_t, FloatTag> dh;
  const hn::Rebind<uint16_t, FloatTag> du;
  return hn::PromoteTo(d, hn::BitCast(dh, hn::LoadU(du, in)));
}

void MakeFloatSlabRow(const uint16_t* halves, int64_t padded, int32_t* out) {
  for (int64_t c = 0; c < padded; c += kVector)
    hn::StoreU(hn::BitCast(IntTag(), LoadHalves(halves + c)), IntTag(), out + c);
}

void MakeShortSlabRow(const uint16_t* low, const uint16_t* high, int64_t padded, int32_t* out) {
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

#if HWY_TARGET <= HWY_AVX3

// Bits of pairs at a time.
constexpr int64_t kMaskPairs = 64;
// A pair and token costs a little more alone than in a dense tile.
constexpr double kSparseShare = 0.75;

// Sums of one token and 16 * kVectors channels. mask: the pairs that are not 0, of those from
// `packed` and `slab` on; packed points to the token's.
template <int kVectors>
HWY_INLINE void SparseSums(const int32_t* packed, const int32_t* slab, uint64_t mask,
                           int64_t padded, bool add, int32_t* sums) {
  __m512i sum[kVectors];
#pragma GCC unroll 8
  for (int v = 0; v < kVectors; ++v)
    sum[v] = add ? _mm512_loadu_si512(sums + 16 * v) : _mm512_setzero_si512();
  for (; mask != 0; mask &= mask - 1) {
    const int64_t pair = __builtin_ctzll(mask);
    const __m512i value = _mm512_set1_epi32(packed[pair * kTileTokens]);
    const int32_t* const entries = slab + pair * padded;
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) {
      sum[v] =
          _mm512_add_epi32(sum[v], _mm512_madd_epi16(value, _mm512_loadu_si512(entries + 16 * v)));
    }
  }
#pragma GCC unroll 8
  for (int v = 0; v < kVectors; ++v) _mm512_storeu_si512(sums + 16 * v, sum[v]);
}

bool SparseTile(const int32_t* packed, const int32_t* slab, int64_t pairs, int64_t padded, bool add,
                int32_t* sums) {
  constexpr int64_t kMasksMax = 8;  // of the deepest slab
  if (pairs > kMasksMax * kMaskPairs) return false;
  uint64_t masks[kMasksMax][kTileTokens];
  int64_t count = 0;
  for (int64_t first = 0; first < pairs; first += kMaskPairs) {
    // Bit t of byte i: pair i of token t is not 0.
    alignas(64) uint8_t bytes[kMaskPairs] = {};
    const int64_t some = std::min(kMaskPairs, pairs - first);
    for (int64_t i = 0; i < some; ++i) {
      const __m256i words =
          _mm256_loadu_si256(reinterpret_cast<const __m256i*>(packed + (first + i) * kTileTokens));
      bytes[i] = static_cast<uint8_t>(_mm256_test_epi32_mask(words, words));
    }
    __m512i bits = _mm512_load_si512(bytes);
    for (int t = kTileTokens - 1; t >= 0; --t) {
      const uint64_t mask = _mm512_movepi8_mask(bits);
      masks[first / kMaskPairs][t] = mask;
      count += __builtin_popcountll(mask);
      bits = _mm512_add_epi8(bits, bits);
    }
  }
  if (static_cast<double>(count) > kSparseShare * static_cast<double>(pairs * kTileTokens))
    return false;
  for (int t = 0; t < kTileTokens; ++t) {
    for (int64_t first = 0; first == 0 || first < pairs; first += kMaskPairs) {
      const uint64_t mask = pairs == 0 ? 0 : masks[first / kMaskPairs][t];
      const int32_t* const values = packed + first * kTileTokens + t;
      const int32_t* const entries = slab + first * padded;
      int32_t* const out = sums + t * padded;
      int64_t c = 0;
      for (; c + 128 <= padded; c += 128)
        SparseSums<8>(values, entries + c, mask, padded, add || first > 0, out + c);
      for (; c < padded; c += 32)
        SparseSums<2>(values, entries + c, mask, padded, add || first > 0, out + c);
    }
  }
  return true;
}

// ShortTile with an instruction that multiplies and adds at once. Highway has no target between
// AVX3 and one that also wants AVX-VNNI, which not every machine with AVX-512 VNNI has.
__attribute__((target("avx512vnni"))) void VnniTile(const int32_t* packed, const int32_t* slab,
                                                    int64_t pairs, int64_t padded, bool add,
                                                    int32_t* sums) {
  for (int64_t c = 0; c < padded; c += 32) {
    __m512i sum[kTileTokens][2];
#pragma GCC unroll 8
    for (int t = 0; t < kTileTokens; ++t) {
#pragma GCC unroll 2
      for (int v = 0; v < 2; ++v) {
        sum[t][v] =
            add ? _mm512_loadu_si512(sums + t * padded + c + v * 16) : _mm512_setzero_si512();
      }
    }
    for (int64_t pair = 0; pair < pairs; ++pair) {
      const __m512i low = _mm512_loadu_si512(slab + pair * padded + c);
      const __m512i high = _mm512_loadu_si512(slab + pair * padded + c + 16);
#pragma GCC unroll 8
      for (int t = 0; t < kTileTokens; ++t) {
        const __m512i value = _mm512_set1_epi32(packed[pair * kTileTokens + t]);
        sum[t][0] = _mm512_dpwssd_epi32(sum[t][0], value, low);
        sum[t][1] = _mm512_dpwssd_epi32(sum[t][1], value, high);
      }
    }
#pragma GCC unroll 8
    for (int t = 0; t < kTileTokens; ++t) {
#pragma GCC unroll 2
      for (int v = 0; v < 2; ++v) _mm512_storeu_si512(sums + t * padded + c + v * 16, sum[t][v]);
    }
  }
}

SparseTileProduct SparseTilePointer() { return SparseTile; }
TileProduct ShortTilePointer(bool vnni) {
  return vnni && __builtin_cpu_supports("avx512vnni") ? VnniTile : ShortTile;
}

#else

SparseTileProduct SparseTilePointer() { return nullptr; }
TileProduct ShortTilePointer(bool /*vnni*/) { return ShortTile; }

#endif

TileProduct FloatTilePointer() { return FloatTile; }

}  // namespace HWY_NAMESPACE
}  // namespace kvstream
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace kvstream {

HWY_EXPORT(FloatTilePointer);
HWY_EXPORT(ShortTilePointer);
HWY_EXPORT(SparseTilePointer);
HWY_EXPORT(MakeFloatSlabRow);
HWY_EXPORT(MakeShortSlabRow);

TileProduct PickFloatTile() { return HWY_DYNAMIC_DISPATCH(FloatTilePointer)(); }
TileProduct PickShortTile(bool vnni) { return HWY_DYNAMIC_DISPATCH(ShortTilePointer)(vnni); }
SparseTileProduct PickSparseTile() { return HWY_DYNAMIC_DISPATCH(SparseTilePointer)(); }

void FloatSlabRow(const uint16_t* halves, int64_t padded, int32_t* out) {
  HWY_DYNAMIC_DISPATCH(MakeFloatSlabRow)(halves, padded, out);
}

void ShortSlabRow(const uint16_t* low, const uint16_t* high, int64_t padded, int32_t* out) {
  HWY_DYNAMIC_DISPATCH(MakeShortSlabRow)(low, high, padded, out);
}

}  // namespace kvstream
#endif

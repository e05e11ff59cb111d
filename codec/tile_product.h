// Products of tiles of tokens with a slab of the transform: the kernels of inverse_transform.h.
//
// A tile holds 8 tokens, [row][8]; rows are floats or pairs of 16-bit integers, the first of a pair
// in the low half. A slab holds the transform's entries for the same rows and some channels,
// [row][padded], padded to a multiple of 32. Sums are [8][padded], floats or integers that wrap.
#ifndef KVSTREAM_CODEC_TILE_PRODUCT_H_
#define KVSTREAM_CODEC_TILE_PRODUCT_H_

#include <cstdint>

namespace kvstream {

constexpr int kTileTokens = 8;
// Rows of a slab are padded to this many channels: two vectors of any target.
constexpr int kSlabStep = 32;
// What 1 is in integers.
constexpr float kShortOne = 32767.0f;

// sums (+)= sum over rows of packed[row][8] * slab[row][padded]; the old sums count if `add`.
using TileProduct = void (*)(const int32_t* packed, const int32_t* slab, int64_t rows,
                             int64_t padded, bool add, int32_t* sums);
TileProduct PickFloatTile();
// vnni: with that instruction set where the machine has it; false is for tests.
TileProduct PickShortTile(bool vnni = true);

// The product of pairs of integers, token by token, without those that are 0. False, and nothing
// done, if so few are 0 that it would not pay. Null where the machine has no kernel for it.
using SparseTileProduct = bool (*)(const int32_t* packed, const int32_t* slab, int64_t pairs,
                                   int64_t padded, bool add, int32_t* sums);
SparseTileProduct PickSparseTile();

// Rows of a slab from half-precision entries, `padded` of them.
void FloatSlabRow(const uint16_t* halves, int64_t padded, int32_t* out);
// Of a pair; entries beyond 1 are clamped.
void ShortSlabRow(const uint16_t* low, const uint16_t* high, int64_t padded, int32_t* out);

}  // namespace kvstream

#endif  // KVSTREAM_CODEC_TILE_PRODUCT_H_

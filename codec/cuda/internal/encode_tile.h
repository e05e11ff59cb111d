// From KV to cells of the finest level, in tiles: undo RoPE and the mean, transform, quantise.
#ifndef KVSTREAM_CODEC_CUDA_INTERNAL_ENCODE_TILE_H_
#define KVSTREAM_CODEC_CUDA_INTERNAL_ENCODE_TILE_H_

#include <cstdint>

#include "codec/cuda/internal/encode_types.h"
#include "codec/cuda/internal/epilogue.h"
#include "codec/cuda/internal/matrix_tile.h"

namespace kvstream {
namespace cuda {

// Tokens of a tile of KV that is normalised.
constexpr int kLoadTokens = 32;

KVSTREAM_KERNEL_CODE uint16_t* EncodeOperand(const EncodeDev& encode, uint32_t chunk, int row) {
  return encode.operands +
         (static_cast<uint64_t>(chunk) * 2 * encode.batch.profile.slot_count + row) *
             encode.batch.stride;
}

// A 16-bit value of the KV; 0 (and the reason in the status) if the block table leads astray.
// token: of the view.
KVSTREAM_KERNEL_CODE uint16_t LoadValue(const EncodeDev& encode, const ChunkDev& info,
                                        const SlotDev& slot, int64_t token) {
  const TensorDev& tensor = encode.batch.out.tensors[slot.tensor];
  uint32_t* const status = &encode.batch.status[info.status];
  const uint16_t* const at = TokenAddress(encode.batch.out, tensor, token, status);
  if (at == nullptr) return 0;
  const uint16_t bits = at[slot.head * tensor.head_stride + slot.place];
  if (!Finite16(bits, encode.batch.profile.dtype)) {
    OrInto(status, kNotFinite);
    return 0;
  }
  return bits;
}

// One thread's share of loading kLoadTokens tokens of one tile of slots.
KVSTREAM_KERNEL_CODE void LoadKvTile(const EncodeDev& encode, const TilePlace& place, int thread,
                                     float* tile) {
  const ChunkDev& info = encode.batch.chunks[place.chunk];
  const int slot = thread % kTileSlots;
  const SlotDev& from = encode.batch.profile.slots[place.first_slot + slot];
  for (int token = thread / kTileSlots; token < kLoadTokens; token += kTileThreads / kTileSlots) {
    float value = 0;
    if (from.channel >= 0 && place.first_token + token < info.tokens) {
      value = From16(LoadValue(encode, info, from, info.first_token + place.first_token + token),
                     encode.batch.profile.dtype);
    }
    tile[token * kTileStride + slot] = value;
  }
}

// One thread's share of turning that tile into halves, 8 tokens of a slot at a time.
KVSTREAM_KERNEL_CODE void NormaliseTile(const EncodeDev& encode, const TilePlace& place, int thread,
                                        const float* tile) {
  const ProfileDev& profile = encode.batch.profile;
  const ChunkDev& info = encode.batch.chunks[place.chunk];
  struct alignas(16) Halves {
    uint16_t half[8];
  };
  const float factor = static_cast<float>(profile.attention_factor);
  const float undo = 1 / (factor * factor);  // the table holds the factor once
  const SlotDev* const slots = profile.slots + place.first_slot;
  for (int task = thread; task < kTileSlots * kLoadTokens / 8; task += kTileThreads) {
    const int slot = task / (kLoadTokens / 8);
    const int first = task % (kLoadTokens / 8) * 8;
    if (place.first_token + first >= encode.batch.stride) continue;
    const SlotDev& from = slots[slot];
    Halves high;
    Halves low;
    for (int i = 0; i < 8; ++i) {
      const int token = place.first_token + first + i;
      float x = 0;
      if (from.channel >= 0 && token < info.tokens) {
        const float* const row = tile + (first + i) * kTileStride;
        x = row[slot];
        if (from.pair >= 0) {
          const float* const rotation =
              encode.batch.rotation +
              2 * ((static_cast<uint64_t>(place.chunk) * encode.batch.stride + token) *
                       profile.pairs +
                   from.pair);
          const float other = row[from.partner];
          x = (from.second != 0 ? x * rotation[0] - other * rotation[1]
                                : x * rotation[0] + other * rotation[1]) *
              undo;
        }
        x = (x - profile.mean[from.channel]) * (1.0f / profile.unit[from.channel]) * kOperandScale;
      }
      high.half[i] = ToHalf(x);
      low.half[i] = ToHalf(x - FromHalf(high.half[i]));
    }
    const int column = place.first_token + first;
    *reinterpret_cast<Halves*>(EncodeOperand(encode, place.chunk, place.first_slot + slot) +
                               column) = high;
    *reinterpret_cast<Halves*>(
        EncodeOperand(encode, place.chunk, profile.slot_count + place.first_slot + slot) + column) =
        low;
  }
}

KVSTREAM_KERNEL_CODE void GatherExact(const EncodeDev& encode, uint32_t chunk, int sink, int slot) {
  const ChunkDev& info = encode.batch.chunks[chunk];
  const SlotDev& from = encode.batch.profile.slots[slot];
  if (from.channel < 0) return;
  encode.exact[(static_cast<uint64_t>(chunk) * encode.sinks_stride + sink) *
                   encode.batch.profile.channels +
               from.channel] = LoadValue(encode, info, from, info.first_token - info.sinks + sink);
}

// Halves between two rows of weights in fast memory: rows start 20 banks apart.
constexpr int kForwardStride = kTileRows + 8;

struct alignas(16) ForwardStage {
  uint16_t values[kTileRows][kTileStride];       // [k = slot][token]
  uint16_t weights[kTileSlots][kForwardStride];  // [coordinate][k]
};

union ForwardMemory {
  ForwardStage stages[kTileStages];
  float tile[kTileTokens * kTileStride];
};

// The tile of kTileTokens tokens x kTileSlots coordinates of a group: first_slot is the tile's
// first coordinate within the group. k runs over the slots of the group, high parts, then low
// parts.
KVSTREAM_KERNEL_CODE void LoadForwardStage(const EncodeDev& encode, const TilePlace& place, int k,
                                           int thread, ForwardStage* stage) {
  const GroupDev& group = encode.batch.profile.groups[place.group];
  const bool low = k >= group.slots;
  const int slot = low ? k - group.slots : k;
  const int base = (low ? encode.batch.profile.slot_count : 0) + group.first_slot + slot;
  const int column = thread % 16 * 8;
  const bool inside = place.first_token + column < encode.batch.chunks[place.chunk].tokens;
  for (int j = 0; j < 2; ++j) {
    const int row = thread / 16 + 16 * j;
    const uint16_t* const values = EncodeOperand(encode, place.chunk, base + row);
    CopyAsync16(&stage->values[row][column], inside ? values + place.first_token + column : values,
                inside);
    const int coordinate = thread / 4 + 64 * j;
    const int weight = thread % 4 * 8;
    const bool valid = place.first_slot + coordinate < group.rank;
    const uint16_t* const weights =
        encode.batch.profile.matrices + group.matrix_offset +
        static_cast<uint64_t>(valid ? place.first_slot + coordinate : 0) * group.slots + slot +
        weight;
    CopyAsync16(&stage->weights[coordinate][weight], weights, valid);
  }
}

KVSTREAM_KERNEL_CODE void MultiplyForwardStage(const MatrixUnit::W& warp, int index,
                                               const ForwardStage& stage, WarpSums* sums) {
  const int token = index % 4 * kWarpTokens;
  const int slot = index / 4 * kWarpSlots;
  MatrixUnit::W::Lanes<const uint16_t*> address;
#ifdef __CUDACC__
#pragma unroll
#endif
  for (int k = 0; k < kTileRows; k += 16) {
    MatrixUnit::W::Lanes<uint32_t> a[kFragmentsM][4];
    MatrixUnit::W::Lanes<uint32_t> b[kFragmentsN / 2][4];
#ifdef __CUDACC__
#pragma unroll
#endif
    for (int m = 0; m < kFragmentsM; ++m) {
      warp.Each([&](int lane) {
        address[lane] =
            &stage.values[k + lane / 16 * 8 + lane % 8][token + m * 16 + lane / 8 % 2 * 8];
      });
      MatrixUnit::LoadTransposed(address, a[m]);
    }
#ifdef __CUDACC__
#pragma unroll
#endif
    for (int n = 0; n < kFragmentsN / 2; ++n) {
      warp.Each([&](int lane) {
        address[lane] =
            &stage.weights[slot + n * 16 + lane / 16 * 8 + lane % 8][k + lane / 8 % 2 * 8];
      });
      MatrixUnit::Load(address, b[n]);
    }
#ifdef __CUDACC__
#pragma unroll
#endif
    for (int m = 0; m < kFragmentsM; ++m) {
#ifdef __CUDACC__
#pragma unroll
#endif
      for (int n = 0; n < kFragmentsN; ++n)
        MatrixUnit::Multiply(a[m], b[n / 2] + n % 2 * 2, sums->sum[m][n]);
    }
  }
}

// One thread's share of a finished tile.
KVSTREAM_KERNEL_CODE void QuantiseTile(const EncodeDev& encode, const TilePlace& place, int thread,
                                       const float* tile) {
  const GroupDev& group = encode.batch.profile.groups[place.group];
  const int tokens = encode.batch.chunks[place.chunk].tokens;
  const float power = static_cast<float>(PowerOfThree(encode.levels - 1));
  for (int i = thread; i < kTileTokens * kTileSlots; i += kTileThreads) {
    const int token = i % kTileTokens;
    const int coordinate = i / kTileTokens;
    if (place.first_token + token >= tokens || place.first_slot + coordinate >= group.rank)
      continue;
    RowOf<int32_t>(
        encode.batch, place.chunk,
        group.first_coordinate + place.first_slot + coordinate)[place.first_token + token] =
        CellOfValue(tile[token * kTileStride + coordinate] * (1 / kOperandScale), power);
  }
}

}  // namespace cuda
}  // namespace kvstream

#endif  // KVSTREAM_CODEC_CUDA_INTERNAL_ENCODE_TILE_H_

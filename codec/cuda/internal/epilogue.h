// From a tile of transformed values in fast memory to the KV in its place: mean and unit, RoPE, the
// dtype, the address.
#ifndef KVSTREAM_CODEC_CUDA_INTERNAL_EPILOGUE_H_
#define KVSTREAM_CODEC_CUDA_INTERNAL_EPILOGUE_H_

#include <cstdint>

#include "codec/cuda/internal/kernel_types.h"
#include "codec/cuda/internal/lane_math.h"
#include "codec/cuda/internal/warp.h"

namespace kvstream {
namespace cuda {

// Floats (or halves) between two rows of a tile in fast memory: rows start 16 bytes, or 8 banks,
// apart.
constexpr int kTileStride = kTileSlots + 8;

// The first element of a token's heads in a tensor, null (with the reason in the status) if the
// block table leads out of the cache. token: of the view.
KVSTREAM_KERNEL_CODE uint16_t* TokenAddress(const OutputDev& out, const TensorDev& tensor,
                                            int64_t token, uint32_t* status) {
  if (out.block_size == 0) return tensor.data + token * tensor.token_stride;
  const int64_t entry = token / out.block_size;
  const int64_t place = token - entry * out.block_size;
  const int64_t block = entry < out.block_table_entries ? out.block_table[entry] : -1;
  if (block < 0 || block >= out.num_blocks) {
    OrInto(status, kBadBlockTable);
    return nullptr;
  }
  return tensor.data + block * tensor.block_stride + place * tensor.token_stride;
}

// Writes two neighbouring 16-bit values, at once where their address allows it.
KVSTREAM_KERNEL_CODE void StorePair(uint16_t* at, uint16_t first, uint16_t second) {
#ifdef __CUDACC__
  if ((reinterpret_cast<uintptr_t>(at) & 3) == 0) {
    *reinterpret_cast<uint32_t*>(at) = first | static_cast<uint32_t>(second) << 16;
    return;
  }
#endif
  at[0] = first;
  at[1] = second;
}

// What the epilogue needs of one slot, loaded once for all tokens.
struct SlotValue {
  SlotDev slot;
  float scale;  // unit, and the operands' scale undone
  float mean;
  float partner_scale;
  float partner_mean;
};

// tile_slots: the slots of the tile, `slot` one of them. scale: of the tile's values.
KVSTREAM_KERNEL_CODE SlotValue LoadSlot(const BatchDev& batch, uint32_t chunk,
                                        const SlotDev* tile_slots, int slot, float scale) {
  SlotValue out;
  out.slot = tile_slots[slot];
  out.scale = out.mean = out.partner_scale = out.partner_mean = 0;
  if (out.slot.channel < 0) return out;
  const ChunkDev& info = batch.chunks[chunk];
  out.scale = info.unit[out.slot.channel] * scale;
  out.mean = info.mean[out.slot.channel];
  if (out.slot.pair >= 0) {
    const int partner = tile_slots[out.slot.partner].channel;
    out.partner_scale = info.unit[partner] * scale;
    out.partner_mean = info.mean[partner];
  }
  return out;
}

// One value. row: the token's values of the tile.
KVSTREAM_KERNEL_CODE uint16_t FinishValue(const BatchDev& batch, uint32_t chunk, int token,
                                          const SlotValue& value, int slot, const float* row) {
  float x = row[slot] * value.scale + value.mean;
  if (value.slot.pair >= 0) {
    const float other = row[value.slot.partner] * value.partner_scale + value.partner_mean;
    const float* const rotation =
        batch.rotation +
        2 * ((static_cast<uint64_t>(chunk) * batch.stride + token) * batch.profile.pairs +
             value.slot.pair);
    x = value.slot.second != 0 ? x * rotation[0] + other * rotation[1]
                               : x * rotation[0] - other * rotation[1];
  }
  return To16(x, batch.profile.dtype);
}

// Stores slots `slot` and `slot + 1` (slot even) of one token. token: coded ones are counted from
// 0.
KVSTREAM_KERNEL_CODE void StoreSlots(const BatchDev& batch, uint32_t chunk, int token,
                                     const SlotValue& first, const SlotValue& second, int slot,
                                     const float* row) {
  if (first.slot.channel < 0) return;  // padding is at the end of tiles
  const ChunkDev& info = batch.chunks[chunk];
  const TensorDev& tensor = batch.out.tensors[first.slot.tensor];
  uint16_t* const at =
      TokenAddress(batch.out, tensor, info.first_token + token, &batch.status[info.status]);
  if (at == nullptr) return;
  uint16_t* const target = at + first.slot.head * tensor.head_stride + first.slot.place;
  const uint16_t value = FinishValue(batch, chunk, token, first, slot, row);
  if (second.slot.channel < 0) {
    *target = value;
    return;
  }
  const uint16_t next = FinishValue(batch, chunk, token, second, slot + 1, row);
  if (second.slot.channel == first.slot.channel + 1 && second.slot.place == first.slot.place + 1) {
    StorePair(target, value, next);
    return;
  }
  *target = value;
  const TensorDev& other = batch.out.tensors[second.slot.tensor];
  uint16_t* const other_at =
      TokenAddress(batch.out, other, info.first_token + token, &batch.status[info.status]);
  if (other_at == nullptr) return;
  other_at[second.slot.head * other.head_stride + second.slot.place] = next;
}

// Copies one value of an exact token. sink: 0 is the chunk's first token.
KVSTREAM_KERNEL_CODE void StoreExact(const BatchDev& batch, uint32_t chunk, int sink, int slot) {
  const ChunkDev& info = batch.chunks[chunk];
  const SlotDev& to = batch.profile.slots[slot];
  if (to.channel < 0) return;
  const TensorDev& tensor = batch.out.tensors[to.tensor];
  uint16_t* const at = TokenAddress(batch.out, tensor, info.first_token - info.sinks + sink,
                                    &batch.status[info.status]);
  if (at == nullptr) return;
  at[to.head * tensor.head_stride + to.place] =
      info.exact[static_cast<int64_t>(sink) * batch.profile.channels + to.channel];
}

}  // namespace cuda
}  // namespace kvstream

#endif  // KVSTREAM_CODEC_CUDA_INTERNAL_EPILOGUE_H_

// Between the entropy code and the transform: which rows are worth multiplying, and cells as
// halves.
#ifndef KVSTREAM_CODEC_CUDA_INTERNAL_ROWS_H_
#define KVSTREAM_CODEC_CUDA_INTERNAL_ROWS_H_

#include <cstdint>

#include "codec/cuda/internal/entropy_warp.h"
#include "codec/cuda/internal/kernel_types.h"
#include "codec/cuda/internal/lane_math.h"
#include "codec/cuda/internal/warp.h"

namespace kvstream {
namespace cuda {

KVSTREAM_KERNEL_CODE uint32_t* RowListOf(const BatchDev& batch, uint32_t chunk, int group) {
  return batch.rows + 2 * (static_cast<uint64_t>(chunk) * batch.profile.coordinates +
                           batch.profile.groups[group].first_coordinate);
}

KVSTREAM_KERNEL_CODE uint16_t* OperandOf(const BatchDev& batch, uint32_t chunk, int group) {
  return batch.operands + 2 *
                              (static_cast<uint64_t>(chunk) * batch.profile.coordinates +
                               batch.profile.groups[group].first_coordinate) *
                              batch.stride;
}

// One warp lists the rows of one group of one chunk that are not all zero, in order; a row that one
// half cannot carry is followed by its low part.
template <typename W>
KVSTREAM_KERNEL_CODE void ListRows(const W& warp, const BatchDev& batch, uint32_t chunk,
                                   int group) {
  const GroupDev& info = batch.profile.groups[group];
  const uint32_t* const row_max = RowMaxOf(batch, chunk) + info.first_coordinate;
  uint32_t* const list = RowListOf(batch, chunk, group);
  int count = 0;
  for (int first = 0; first < info.rank; first += kWarp) {
    typename W::template Lanes<bool> active;
    typename W::template Lanes<bool> split;
    warp.Each([&](int lane) {
      const uint32_t max = first + lane < info.rank ? row_max[first + lane] : 0;
      active[lane] = max > 0;
      split[lane] = max > kLargestPlainCell;
    });
    const uint32_t actives = warp.Ballot(active);
    const uint32_t splits = warp.Ballot(split);
    warp.Each([&](int lane) {
      if (!active[lane]) return;
      const int at = count + CountBelow(actives, lane) + CountBelow(splits, lane);
      list[at] = static_cast<uint32_t>(first + lane) * 2;
      if (split[lane]) list[at + 1] = static_cast<uint32_t>(first + lane) * 2 + 1;
    });
    count += CountBits(actives) + CountBits(splits);
  }
  warp.Each([&](int lane) {
    if (lane == 0)
      batch.row_counts[static_cast<uint64_t>(chunk) * batch.profile.group_count + group] =
          static_cast<uint32_t>(count);
  });
}

// Halves of 8 tokens of one listed row, from token `first` (a multiple of 8); 0 beyond the last
// token.
template <typename Cell>
KVSTREAM_KERNEL_CODE void Dequantise8(const BatchDev& batch, uint32_t chunk, int group,
                                      uint32_t row, int first) {
  const ChunkDev& info = batch.chunks[chunk];
  const uint32_t entry = RowListOf(batch, chunk, group)[row];
  const uint32_t coordinate = batch.profile.groups[group].first_coordinate + (entry >> 1);
  const Cell* const cells = RowOf<Cell>(batch, chunk, coordinate) + first;
  const ShrinkDev shrink =
      batch.profile.shrink[info.level * batch.profile.classes + info.classes[coordinate]];
  const float inverse_power = 1.0f / static_cast<float>(PowerOfThree(info.level));
  struct alignas(sizeof(Cell) * 8) Cells {
    Cell cell[8];
  };
  struct alignas(16) Halves {
    uint16_t half[8];
  };
  const Cells in = *reinterpret_cast<const Cells*>(cells);
  Halves out;
#ifdef __CUDACC__
#pragma unroll
#endif
  for (int i = 0; i < 8; ++i) {
    const int32_t cell = first + i < info.tokens ? in.cell[i] : 0;
    const float value = ValueOfCell(cell, inverse_power, shrink) * kOperandScale;
    const uint16_t high = ToHalf(value);
    out.half[i] = (entry & 1) == 0 ? high : ToHalf(value - FromHalf(high));
  }
  uint16_t* const target =
      OperandOf(batch, chunk, group) + static_cast<uint64_t>(row) * batch.stride + first;
  *reinterpret_cast<Halves*>(target) = out;
}

// cos and sin of one token and pair of one chunk, times the attention factor. In double: positions
// reach 2^40, and the product's rounding must be the one of codec/rope.cc.
KVSTREAM_KERNEL_CODE void Rotation(const BatchDev& batch, uint32_t chunk, int token, int pair) {
  const double angle = static_cast<double>(batch.chunks[chunk].first_position + token) *
                       batch.profile.inverse_frequency[pair];
  double sine;
  double cosine;
  sincos(angle, &sine, &cosine);
  float* const out =
      batch.rotation +
      2 * ((static_cast<uint64_t>(chunk) * batch.stride + token) * batch.profile.pairs + pair);
  const float factor = static_cast<float>(batch.profile.attention_factor);
  out[0] = static_cast<float>(cosine) * factor;
  out[1] = static_cast<float>(sine) * factor;
}

}  // namespace cuda
}  // namespace kvstream

#endif  // KVSTREAM_CODEC_CUDA_INTERNAL_ROWS_H_

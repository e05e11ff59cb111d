// What the encoder's kernels read and write (kernel_types.h for the rest).
#ifndef KVSTREAM_CODEC_CUDA_INTERNAL_ENCODE_TYPES_H_
#define KVSTREAM_CODEC_CUDA_INTERNAL_ENCODE_TYPES_H_

#include <cstdint>

#include "codec/cuda/internal/kernel_types.h"

namespace kvstream {
namespace cuda {

// A tile of kTileSlots coordinates of a group; `first` counts within the group.
struct CoordinateTileDev {
  int32_t group;
  int32_t first;
};

// One batch of chunks to encode. batch.out is the KV that is read; batch.cells are int32, of the
// finest level; the other workspace of `batch` but `rotation` is unused.
struct EncodeDev {
  BatchDev batch;
  const uint8_t* classes;  // [coordinate], the profile's
  uint16_t* operands;  // halves [chunk][2 * slots][stride]: high parts of all slots, then low parts
  uint16_t* exact;     // [chunk][sink][channel]
  float* bits;         // [chunk][level][coordinate]: code length of the row
  uint32_t* exceptions;  // [chunk][level][coordinate]: how many the row has
  const CoordinateTileDev* tiles;
  int32_t tile_count;
  int32_t levels;
  int32_t sinks_stride;  // exact tokens for which `exact` has room, per chunk
};

// A block that a warp encodes into words [offset, offset + capacity) of the payload, at their end.
struct EncodeTaskDev {
  uint32_t chunk;
  uint32_t level;
  uint32_t first;  // index into the level's order
  uint32_t coordinates;
  uint64_t offset;
  uint32_t capacity;
};

// What follows once the host has cut the blocks.
struct EncodeBlocksDev {
  const int32_t* const* orders;  // [level]: coordinates in coding order
  const EncodeTaskDev* tasks;
  uint32_t task_count;
  uint16_t* payload;
  uint32_t* words;                  // [task]: words of the block, states included; 0: did not fit
  const uint32_t* exception_first;  // [chunk][level][coordinate]: index of the row's first
  ExceptionDev* exceptions;
};

}  // namespace cuda
}  // namespace kvstream

#endif  // KVSTREAM_CODEC_CUDA_INTERNAL_ENCODE_TYPES_H_

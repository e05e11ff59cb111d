// What kernels read and write: plain structs, the same for nvcc and the host's compiler. Pointers
// are to device memory (host memory under the host backend). Nothing in here owns anything.
//
// Coordinates, channels, groups, levels, cells: docs/format.md. A *slot* is a column of a packed
// transform: the channels of this device's shard, in an order in which both channels of every
// rotated pair lie in one tile of kTileSlots slots; groups are padded to whole tiles with empty
// slots.
#ifndef KVSTREAM_CODEC_CUDA_INTERNAL_KERNEL_TYPES_H_
#define KVSTREAM_CODEC_CUDA_INTERNAL_KERNEL_TYPES_H_

#include <cstdint>

namespace kvstream {
namespace cuda {

constexpr int kWarp = 32;
constexpr int kTileSlots = 128;
constexpr int kTileTokens = 128;
// Cells of a larger magnitude lose more than a 16th of the level's step when their value is rounded
// to half precision (11 bits): such rows are multiplied as the sum of two halves.
constexpr uint32_t kLargestPlainCell = 128;
// Values are multiplied by it before they become halves, so that 2^19 base steps do not overflow
// and a step of level 7 stays far above the smallest half.
constexpr float kOperandScale = 1.0f / 32;

constexpr int kSlotsOfTable = 4096;
constexpr int kEntriesOfTable = 256;

// Level 0 of a class: slot -> symbol index -> frequency (low 16 bits) and start (high 16).
struct alignas(16) BaseTableDev {
  uint8_t symbol[kSlotsOfTable];
  uint32_t entry[kEntriesOfTable];
  int32_t max_symbol;
  int32_t shift;
  int32_t unused[2];
};

// A refinement level of a class: frequencies of r = -1, 0, 1 by context (0, +-1, beyond).
struct alignas(8) RefineTableDev {
  uint16_t frequency[3][4];
};

struct ShrinkDev {
  float near;  // |v| == 1
  float far;   // |v| >= 2
};

struct GroupDev {
  int32_t first_coordinate;
  int32_t rank;
  int32_t first_slot;
  int32_t slots;           // a multiple of kTileSlots
  uint64_t matrix_offset;  // in halves: [rank][slots]
};

// Where the value of a slot goes.
struct SlotDev {
  int32_t channel;  // of the model; -1: padding
  int32_t tensor;   // [layer of the shard][plane]
  int32_t head;     // of the shard
  int32_t place;    // channel of the head
  int32_t pair;     // of the rotary embedding; -1: not rotated
  int32_t partner;  // the pair's other slot within the tile
  int32_t second;   // 1: the pair's second channel
};

// The profile on the device.
struct ProfileDev {
  const BaseTableDev* base;      // [class]
  const RefineTableDev* refine;  // [level - 1][class]
  const ShrinkDev* shrink;       // [level][class]
  const uint16_t* matrices;      // halves, see GroupDev
  const GroupDev* groups;
  const SlotDev* slots;
  const int32_t* tile_group;  // [tile of slots]
  const float* mean;          // [channel]
  const float* unit;          // [channel]
  const double* inverse_frequency;
  double attention_factor;
  int32_t classes;
  int32_t coordinates;
  int32_t channels;
  int32_t group_count;
  int32_t slot_count;
  int32_t pairs;
  int32_t planes;
  int32_t dtype;  // 0 F16, 1 BF16
};

// One tensor of the output: element [block][place][head][channel] or, unpaged,
// [token][head][channel].
struct TensorDev {
  uint16_t* data;
  int64_t block_stride;
  int64_t token_stride;
  int64_t head_stride;
};

struct OutputDev {
  const TensorDev* tensors;  // [layer of the shard][plane]
  const int32_t* block_table;
  int64_t block_table_entries;
  int64_t num_blocks;
  int32_t block_size;  // 0: not paged
};

struct ChunkDev {
  int64_t first_position;  // of the first coded token
  int64_t first_token;     // of the view, of the first coded token
  int32_t tokens;          // coded ones
  int32_t sinks;           // exact tokens, before them
  int32_t level;           // of the output
  int32_t status;          // index into BatchDev::status
  const uint16_t* exact;   // [sink][channel of the model]
  const uint8_t* classes;  // [coordinate], of the last level
  const float* mean;       // [channel], the profile's or the chunk's
  const float* unit;       // [channel]
};

// A chunk at one level.
struct ChunkLevelDev {
  const int32_t* order;    // coordinates in coding order, then those that are not coded
  const uint8_t* classes;  // [coordinate]
};

enum TaskKind : uint32_t { kCodedBlock = 0, kNullRows = 1 };

// A warp's work at one level: a block of the entropy code, or some coordinates that are not coded.
struct TaskDev {
  uint32_t chunk;
  uint32_t kind;
  uint32_t first;  // index into the order
  uint32_t coordinates;
  uint64_t offset;  // of the block's states, in 16-bit words from BatchDev::payload
  uint64_t words;   // after the states
};

struct ExceptionDev {
  uint32_t chunk;
  uint32_t coordinate;
  uint32_t token;
  int32_t symbol;
};

// Bits of a chunk's status word.
enum StatusBits : uint32_t { kDamagedBlock = 1, kBadBlockTable = 2, kNotFinite = 4 };

// One batch of chunks. Workspace arrays have a part for every chunk of the batch, in order.
struct BatchDev {
  ProfileDev profile;
  OutputDev out;
  const ChunkDev* chunks;
  const uint16_t* payload;
  uint32_t* status;
  void* cells;        // int16 or int32 [chunk][coordinate][stride]
  uint32_t* row_max;  // [chunk][coordinate]: largest magnitude of the row's cells, or more
  uint32_t* rows;     // [chunk][2 * coordinates], from 2 * first_coordinate of each group: its rows
                      // that are not all zero, index in the group * 2, + 1 for the low half
  uint32_t* row_counts;  // [chunk][group]
  uint16_t* operands;    // halves [chunk][2 * coordinates][stride]
  float* rotation;       // [chunk][token][pair][cos, sin]
  int32_t stride;        // tokens of a full chunk, rounded up to a multiple of 32
  int32_t chunk_count;
  int32_t tokens_max;  // coded, of the batch's longest chunk
  int32_t sinks_max;   // exact, of the chunk that has most
  int32_t calibrated;  // 0: the transform is the identity, no operands
  int32_t wide;        // cells are int32
};

struct LevelDev {
  const ChunkLevelDev* chunks;  // [chunk]
  const TaskDev* tasks;
  const ExceptionDev* exceptions;
  uint32_t task_count;
  uint32_t exception_count;
  int32_t level;
};

}  // namespace cuda
}  // namespace kvstream

#endif  // KVSTREAM_CODEC_CUDA_INTERNAL_KERNEL_TYPES_H_

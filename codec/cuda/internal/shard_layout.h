// Which channels a device holds, and their order as slots of packed transforms (kernel_types.h).
#ifndef KVSTREAM_CODEC_CUDA_INTERNAL_SHARD_LAYOUT_H_
#define KVSTREAM_CODEC_CUDA_INTERNAL_SHARD_LAYOUT_H_

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "codec/cuda/device_view.h"
#include "codec/cuda/internal/kernel_types.h"
#include "codec/profile_data.h"

namespace kvstream {
namespace cuda {

struct ShardLayout {
  DeviceShard shard;  // with its defaults replaced
  int planes = 2;
  std::vector<GroupDev> groups;
  std::vector<SlotDev> slots;
  std::vector<int32_t> tile_group;  // [slot / kTileSlots]
  uint64_t matrix_halves = 0;       // of all groups, [rank][slots] each
};

// INVALID_ARGUMENT for a shard that is not part of the model.
absl::StatusOr<ShardLayout> MakeShardLayout(const ProfileData& profile, const DeviceShard& shard);

// Rows [first, first + count) of a group's packed transform, row-major.
std::vector<uint16_t> PackRows(const ProfileData& profile, const ShardLayout& layout, int group,
                               int first, int count);

}  // namespace cuda
}  // namespace kvstream

#endif  // KVSTREAM_CODEC_CUDA_INTERNAL_SHARD_LAYOUT_H_

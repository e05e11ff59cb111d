// A caller's view as the kernels take it.
#ifndef KVSTREAM_CODEC_CUDA_INTERNAL_TARGET_H_
#define KVSTREAM_CODEC_CUDA_INTERNAL_TARGET_H_

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "codec/cuda/device_view.h"
#include "codec/cuda/internal/kernel_types.h"
#include "codec/cuda/internal/shard_layout.h"

namespace kvstream {
namespace cuda {

struct Target {
  OutputDev out = {};  // but for its tensors
  std::vector<TensorDev> tensors;
  int64_t tokens = 0;  // that the view has room for
};

// INVALID_ARGUMENT unless the view has the shard's layers with data, and sizes in range.
absl::StatusOr<Target> TargetOf(const ShardLayout& layout, const DeviceKvView& view);
absl::StatusOr<Target> TargetOf(const ShardLayout& layout, const PagedKvView& view);

}  // namespace cuda
}  // namespace kvstream

#endif  // KVSTREAM_CODEC_CUDA_INTERNAL_TARGET_H_

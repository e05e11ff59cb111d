#include "codec/cuda/internal/target.h"

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace kvstream {
namespace cuda {
namespace {

constexpr int64_t kMaxViewTokens = int64_t{1} << 31;

}  // namespace

absl::StatusOr<Target> TargetOf(const ShardLayout& layout, const DeviceKvView& view) {
  const size_t layers = static_cast<size_t>(layout.shard.layers);
  const size_t planes = static_cast<size_t>(layout.planes);
  if (view.keys.size() != layers || view.values.size() != layers * (planes - 1)) {
    return absl::InvalidArgumentError(absl::StrCat("kv: has ", view.keys.size(),
                                                   " layers of keys and ", view.values.size(),
                                                   " of values, the shard has ", layers));
  }
  if (view.tokens < 0 || view.tokens > kMaxViewTokens)
    return absl::InvalidArgumentError("kv: tokens is out of range");
  Target target;
  target.tokens = view.tokens;
  for (size_t layer = 0; layer < layers; ++layer) {
    for (size_t plane = 0; plane < planes; ++plane) {
      const DeviceKvTensor& tensor = plane == 0 ? view.keys[layer] : view.values[layer];
      if (tensor.data_dev == nullptr) return absl::InvalidArgumentError("kv: a tensor has no data");
      target.tensors.push_back(
          {static_cast<uint16_t*>(tensor.data_dev), 0, tensor.token_stride, tensor.head_stride});
    }
  }
  return target;
}

absl::StatusOr<Target> TargetOf(const ShardLayout& layout, const PagedKvView& view) {
  const size_t layers = static_cast<size_t>(layout.shard.layers);
  const bool planes = layout.planes == 2;
  if (view.layers.size() != layers) {
    return absl::InvalidArgumentError(
        absl::StrCat("paged kv: has ", view.layers.size(), " layers, the shard has ", layers));
  }
  if (view.block_size < 1 || view.block_size > kMaxViewTokens || view.num_blocks < 1 ||
      view.block_table_dev == nullptr || view.block_table_entries < 1 ||
      view.block_table_entries > kMaxViewTokens) {
    return absl::InvalidArgumentError("paged kv: has no blocks or no block table");
  }
  Target target;
  target.tokens = view.block_table_entries * view.block_size;
  target.out.block_size = static_cast<int32_t>(view.block_size);
  target.out.block_table = view.block_table_dev;
  target.out.block_table_entries = view.block_table_entries;
  target.out.num_blocks = view.num_blocks;
  for (const PagedKvLayer& layer : view.layers) {
    if (layer.keys_dev == nullptr || (planes && layer.values_dev == nullptr))
      return absl::InvalidArgumentError("paged kv: a layer has no data");
    target.tensors.push_back({static_cast<uint16_t*>(layer.keys_dev), view.block_stride,
                              view.token_stride, view.head_stride});
    if (!planes) continue;
    target.tensors.push_back({static_cast<uint16_t*>(layer.values_dev), view.block_stride,
                              view.token_stride, view.head_stride});
  }
  return target;
}

}  // namespace cuda
}  // namespace kvstream

#include "client/device_target.h"

#include <cstdint>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace kvstream {
namespace {

// Tokens of a block, entries of a table: as codec/cuda has it.
constexpr int64_t kPagingMax = int64_t{1} << 31;
// The handle that CUDA gives this meaning.
void* const kStreamPerThread = reinterpret_cast<void*>(2);

absl::Status Refused(absl::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat("device memory: ", what));
}

// Values are 2 bytes; the device faults on an odd address.
bool Fits(const void* pointer) {
  return pointer != nullptr && reinterpret_cast<uintptr_t>(pointer) % sizeof(uint16_t) == 0;
}

absl::Status ResolveRange(absl::string_view what, int all, int first, int* count) {
  if (first >= 0 && first < all && *count == 0) *count = all - first;
  if (first < 0 || *count < 1 || first > all - *count) {
    return Refused(absl::StrCat("the shard has ", *count, " ", what, " from ", what, " ", first,
                                " on, the model has ", all));
  }
  return absl::OkStatus();
}

absl::Status ValidateContiguous(const KvGeometry& geometry, size_t tokens, const DeviceShard& shard,
                                const DeviceKvView& view) {
  if (view.tokens != static_cast<int64_t>(tokens)) {
    return Refused(absl::StrCat("it is for ", view.tokens, " tokens of ", tokens));
  }
  const size_t layers = static_cast<size_t>(shard.layers);
  const size_t value_layers = geometry.has_values() ? layers : 0;
  if (view.keys.size() != layers || view.values.size() != value_layers) {
    return Refused(absl::StrCat("it has ", view.keys.size(), " layers of keys (or latents) and ",
                                view.values.size(), " of values where there are ", layers, " and ",
                                value_layers));
  }
  for (const auto* tensors : {&view.keys, &view.values}) {
    for (const DeviceKvTensor& tensor : *tensors) {
      if (!Fits(tensor.data_dev)) return Refused("a tensor's address is null or odd");
    }
  }
  return absl::OkStatus();
}

absl::Status ValidatePaged(const KvGeometry& geometry, size_t tokens, const DeviceShard& shard,
                           const PagedKvView& view) {
  if (view.layers.size() != static_cast<size_t>(shard.layers)) {
    return Refused(absl::StrCat("the paged cache has ", view.layers.size(),
                                " layers where there are ", shard.layers));
  }
  for (const PagedKvLayer& layer : view.layers) {
    if (!Fits(layer.keys_dev) || (geometry.has_values() && !Fits(layer.values_dev))) {
      return Refused("an address of the paged cache is null or odd");
    }
    if (!geometry.has_values() && layer.values_dev != nullptr) {
      return Refused("the paged cache has values, the model has latents only");
    }
  }
  if (view.num_blocks < 1 || view.block_size < 1 || view.block_size > kPagingMax ||
      view.block_table_entries > kPagingMax) {
    return Refused(absl::StrCat("a paged cache of ", view.num_blocks, " blocks of ",
                                view.block_size, " tokens and a table of ",
                                view.block_table_entries, " entries"));
  }
  if (view.block_table_dev == nullptr) return Refused("a paged cache without a block table");
  const int64_t needed = (static_cast<int64_t>(tokens) - 1) / view.block_size + 1;
  if (view.block_table_entries < needed) {
    return Refused(absl::StrCat("a block table of ", view.block_table_entries, " entries for ",
                                tokens, " tokens in blocks of ", view.block_size));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status ResolveShard(const KvGeometry& geometry, DeviceShard* shard) {
  absl::Status status = ResolveRange("layers", geometry.layers, shard->first_layer, &shard->layers);
  status.Update(ResolveRange("heads", geometry.kv_heads, shard->first_head, &shard->heads));
  return status;
}

absl::Status ValidateDeviceTarget(const KvGeometry& geometry, size_t tokens,
                                  const DeviceTarget& target) {
  if (target.device_ordinal < 0) {
    return Refused(absl::StrCat("there is no device ", target.device_ordinal));
  }
  if (target.stream == kStreamPerThread) {
    return Refused("the per-thread default stream is another one in the thread that decodes");
  }
  DeviceShard shard = target.shard;
  if (absl::Status status = ResolveShard(geometry, &shard); !status.ok()) return status;
  if (const auto* view = absl::get_if<DeviceKvView>(&target.kv)) {
    return ValidateContiguous(geometry, tokens, shard, *view);
  }
  return ValidatePaged(geometry, tokens, shard, absl::get<PagedKvView>(target.kv));
}

}  // namespace kvstream

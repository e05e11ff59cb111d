// Where in device memory a load's KV goes.
#ifndef KVSTREAM_CLIENT_DEVICE_TARGET_H_
#define KVSTREAM_CLIENT_DEVICE_TARGET_H_

#include <cstddef>

#include "absl/status/status.h"
#include "absl/types/variant.h"
#include "codec/cuda/device_view.h"
#include "codec/geometry.h"

namespace kvstream {

// KV in device memory: contiguous (or strided) tensors, or the blocks of a paged cache.
using DeviceKv = absl::variant<DeviceKvView, PagedKvView>;

// Device memory is the caller's and must stay valid, the block table included, until the load
// returns. Layers and heads of `kv` are those of `shard`.
struct DeviceTarget {
  DeviceKv kv;
  // The cudaStream_t on which the KV is written; null is the legacy default stream. It must belong
  // to the device and exist until the load returns. cudaStreamPerThread is refused: work is put on
  // it by a thread of the client's, whose stream it would be.
  void* stream = nullptr;
  int device_ordinal = 0;
  // What of the model lies on this device; the default is all of it.
  DeviceShard shard;
};

// The shard with its counts spelled out: no count is 0. INVALID_ARGUMENT: outside of the model.
absl::Status ResolveShard(const KvGeometry& geometry, DeviceShard* shard);

// Checks what can be checked without the device: INVALID_ARGUMENT naming the part that does not
// fit. tokens: that will be written, from the target's first token on.
absl::Status ValidateDeviceTarget(const KvGeometry& geometry, size_t tokens,
                                  const DeviceTarget& target);

}  // namespace kvstream

#endif  // KVSTREAM_CLIENT_DEVICE_TARGET_H_

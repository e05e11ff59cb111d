// Stands in where codec/cuda is not linked.
#include "absl/status/status.h"
#include "client/cuda_chunk_decoder.h"

namespace kvstream {

absl::StatusOr<std::unique_ptr<DeviceChunkDecoder>> CreateCudaChunkDecoder(
    std::shared_ptr<const Profile>, const DeviceChunkDecoderOptions&) {
  return absl::FailedPreconditionError(
      "this client was built without CUDA and cannot load into device memory; host memory works");
}

}  // namespace kvstream

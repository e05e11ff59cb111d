// The device decoder and encoder without a device: the kernels' code runs warp by warp on the host,
// at once, and "device" pointers are host pointers. For tests; some hundred times slower than
// ChunkDecoder.
#ifndef KVSTREAM_CODEC_CUDA_TESTING_HOST_DEVICE_H_
#define KVSTREAM_CODEC_CUDA_TESTING_HOST_DEVICE_H_

#include <memory>

#include "absl/status/statusor.h"
#include "codec/cuda/device_decoder.h"
#include "codec/cuda/device_encoder.h"

namespace kvstream {

// As their Create; the ordinal and streams are ignored.
absl::StatusOr<std::unique_ptr<DeviceDecoder>> CreateHostDeviceDecoder(
    std::shared_ptr<const Profile> profile, const DeviceDecoderOptions& options = {});
absl::StatusOr<std::unique_ptr<DeviceEncoder>> CreateHostDeviceEncoder(
    std::shared_ptr<const Profile> profile, const DeviceEncoderOptions& options = {});

}  // namespace kvstream

#endif  // KVSTREAM_CODEC_CUDA_TESTING_HOST_DEVICE_H_

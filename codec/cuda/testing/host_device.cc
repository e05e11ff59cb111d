#include "codec/cuda/testing/host_device.h"

#include <utility>

#include "codec/cuda/create_on.h"
#include "codec/cuda/internal/backend.h"

namespace kvstream {

absl::StatusOr<std::unique_ptr<DeviceDecoder>> CreateHostDeviceDecoder(
    std::shared_ptr<const Profile> profile, const DeviceDecoderOptions& options) {
  return cuda::CreateDecoderOn(cuda::CreateHostBackend(), std::move(profile), options);
}

absl::StatusOr<std::unique_ptr<DeviceEncoder>> CreateHostDeviceEncoder(
    std::shared_ptr<const Profile> profile, const DeviceEncoderOptions& options) {
  return cuda::CreateEncoderOn(cuda::CreateHostBackend(), std::move(profile), options);
}

}  // namespace kvstream

// Decoders and encoders on a backend of the caller's choice.
#ifndef KVSTREAM_CODEC_CUDA_CREATE_ON_H_
#define KVSTREAM_CODEC_CUDA_CREATE_ON_H_

#include <memory>

#include "absl/status/statusor.h"
#include "codec/cuda/device_decoder.h"
#include "codec/cuda/device_encoder.h"
#include "codec/cuda/internal/backend.h"

namespace kvstream {
namespace cuda {

absl::StatusOr<std::unique_ptr<DeviceDecoder>> CreateDecoderOn(
    std::shared_ptr<Backend> backend, std::shared_ptr<const Profile> profile,
    const DeviceDecoderOptions& options);

absl::StatusOr<std::unique_ptr<DeviceEncoder>> CreateEncoderOn(
    std::shared_ptr<Backend> backend, std::shared_ptr<const Profile> profile,
    const DeviceEncoderOptions& options);

}  // namespace cuda
}  // namespace kvstream

#endif  // KVSTREAM_CODEC_CUDA_CREATE_ON_H_

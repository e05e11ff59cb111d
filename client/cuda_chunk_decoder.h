// DeviceChunkDecoder over codec/cuda.
#ifndef KVSTREAM_CLIENT_CUDA_CHUNK_DECODER_H_
#define KVSTREAM_CLIENT_CUDA_CHUNK_DECODER_H_

#include <memory>

#include "absl/status/statusor.h"
#include "client/device_chunk_decoder.h"
#include "codec/cuda/device_decoder.h"
#include "codec/profile.h"

namespace kvstream {

// A DeviceChunkDecoderFactory. Errors: as DeviceDecoder::Create.
absl::StatusOr<std::unique_ptr<DeviceChunkDecoder>> CreateCudaChunkDecoder(
    std::shared_ptr<const Profile> profile, const DeviceChunkDecoderOptions& options);

// A decoder of codec/cuda's, however it was made.
std::unique_ptr<DeviceChunkDecoder> WrapDeviceDecoder(std::unique_ptr<DeviceDecoder> decoder);

}  // namespace kvstream

#endif  // KVSTREAM_CLIENT_CUDA_CHUNK_DECODER_H_

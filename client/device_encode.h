// Encoding from device memory.
#ifndef KVSTREAM_CLIENT_DEVICE_ENCODE_H_
#define KVSTREAM_CLIENT_DEVICE_ENCODE_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "client/device_target.h"
#include "client/encode_pipeline.h"
#include "codec/cuda/device_encoder.h"
#include "codec/encoder.h"
#include "codec/profile.h"

namespace kvstream {

// Neighbouring chunks that one call encodes at most.
constexpr int kDeviceEncodeBatchChunks = 4;

// DeviceEncoder::Encode of the first `tokens` tokens of `kv`, or what plays it in tests.
using DeviceEncodeFn = std::function<absl::StatusOr<std::vector<EncodedChunk>>(
    const DeviceKv& kv, int64_t tokens, int64_t first_position, void* stream)>;

// Errors: as DeviceEncoder::Create.
using DeviceEncoderFactory = std::function<absl::StatusOr<DeviceEncodeFn>(
    std::shared_ptr<const Profile> profile, int device_ordinal)>;

// The factory of codec/cuda's encoders.
absl::StatusOr<DeviceEncodeFn> CreateCudaEncoder(std::shared_ptr<const Profile> profile,
                                                 int device_ordinal);
// An encoder of codec/cuda's, however it was made.
DeviceEncodeFn WrapDeviceEncoder(std::unique_ptr<DeviceEncoder> encoder);

// INVALID_ARGUMENT unless the source is the whole model's, and chunks begin where blocks of a paged
// cache do. Precondition: ValidateDeviceTarget.
absl::Status ValidateDeviceSource(const Profile& profile, const DeviceTarget& source);

// By one encoder on one thread, from memory that outlives the work. Precondition:
// ValidateDeviceSource.
EncodeWork EncodeFromDevice(DeviceEncodeFn encode, const DeviceTarget& source);

}  // namespace kvstream

#endif  // KVSTREAM_CLIENT_DEVICE_ENCODE_H_

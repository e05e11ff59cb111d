// Clients with a stand-in for the device; tests only have reason to.
#ifndef KVSTREAM_CLIENT_CLIENT_FACTORY_H_
#define KVSTREAM_CLIENT_CLIENT_FACTORY_H_

#include <memory>

#include "absl/status/statusor.h"
#include "client/client.h"
#include "client/device_chunk_decoder.h"
#include "client/device_encode.h"

namespace kvstream {

// Client::Create with other makers of device decoders and encoders than codec/cuda.
absl::StatusOr<std::unique_ptr<Client>> CreateClient(
    Client::Options options, const DeviceChunkDecoderFactory& device_decoders,
    const DeviceEncoderFactory& device_encoders = CreateCudaEncoder);

}  // namespace kvstream

#endif  // KVSTREAM_CLIENT_CLIENT_FACTORY_H_

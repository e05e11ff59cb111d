// What the client needs of a decoder that writes into device memory: kvstream::DeviceDecoder, or
// what plays it in tests.
#ifndef KVSTREAM_CLIENT_DEVICE_CHUNK_DECODER_H_
#define KVSTREAM_CLIENT_DEVICE_CHUNK_DECODER_H_

#include <functional>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "client/device_target.h"
#include "codec/cuda/device_decoder.h"
#include "codec/profile.h"

namespace kvstream {

// The contract is DeviceDecoder's, errors included. Not thread-safe, but that CreateSibling may be
// called by any thread at any time.
class DeviceChunkDecoder {
 public:
  // Waits for all work of this decoder.
  virtual ~DeviceChunkDecoder() = default;

  virtual absl::StatusOr<std::unique_ptr<DeviceChunkDecoder>> CreateSibling() const = 0;
  virtual absl::StatusOr<DecodeTicket> Decode(absl::Span<const DeviceChunk> chunks,
                                              const DeviceKv& out, void* stream) = 0;
  virtual absl::StatusOr<bool> Done(DecodeTicket ticket) = 0;
  virtual absl::Status Finish(DecodeTicket ticket, std::vector<absl::Status>* chunk_statuses) = 0;
};

struct DeviceChunkDecoderOptions {
  int device_ordinal = 0;
  DeviceShard shard;
  int max_batch_chunks = 4;  // of one call
  int calls_under_way = 2;   // Decode must not block for as many calls that are not finished
};

// Makes decoders for one kind of device. Thread-safe. Errors: as DeviceDecoder::Create; where there
// is no device, one sentence that says so.
using DeviceChunkDecoderFactory = std::function<absl::StatusOr<std::unique_ptr<DeviceChunkDecoder>>(
    std::shared_ptr<const Profile>, const DeviceChunkDecoderOptions&)>;

}  // namespace kvstream

#endif  // KVSTREAM_CLIENT_DEVICE_CHUNK_DECODER_H_

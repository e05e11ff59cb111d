// KV in device memory -> segments in host memory.
#ifndef KVSTREAM_CODEC_CUDA_DEVICE_ENCODER_H_
#define KVSTREAM_CODEC_CUDA_DEVICE_ENCODER_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "codec/cuda/device_view.h"
#include "codec/encoder.h"
#include "codec/profile.h"

namespace kvstream {

struct DeviceEncoderOptions {
  int device_ordinal = 0;
  // Chunks whose work shares a launch. Device memory for it: 4 bytes a coordinate and token, 4 a
  // value, and the payload, times this. 1 to 64.
  int max_batch_chunks = 4;
  // True: the device makes the cells, and the host chooses classes and codes the blocks as
  // ChunkEncoder does. As few bytes, at the host's speed of entropy coding; needs 4 bytes a
  // coordinate and token of pinned memory. False: the device codes the blocks under the profile's
  // classes.
  bool choose_classes = false;
};

// Not thread-safe; one per thread and stream. The whole model's KV must lie on the one device.
class DeviceEncoder {
 public:
  // Errors: as DeviceDecoder::Create; FAILED_PRECONDITION for a profile without calibration (its
  // statistics are measured by ChunkEncoder on the host).
  static absl::StatusOr<std::unique_ptr<DeviceEncoder>> Create(
      std::shared_ptr<const Profile> profile, const DeviceEncoderOptions& options);
  ~DeviceEncoder();

  // Encodes all tokens of the view, cut into full chunks (the last may be shorter), the first of
  // which stands at first_position of its context. Runs after what the stream holds and waits for
  // the result. The segments decode as those of ChunkEncoder, except that a value at the very edge
  // of a quantisation cell may fall on its other side; they keep the profile's classes (no
  // overrides), so that KV unlike the calibration's takes more bits. Buffers grow to the largest
  // batch seen. Errors: INVALID_ARGUMENT (shape, position, block table, a value that is not
  // finite), RESOURCE_EXHAUSTED, INTERNAL.
  absl::StatusOr<std::vector<EncodedChunk>> Encode(const DeviceKvView& kv, int64_t first_position,
                                                   void* stream);
  // Of the first `tokens` tokens of the block table.
  absl::StatusOr<std::vector<EncodedChunk>> Encode(const PagedKvView& kv, int64_t tokens,
                                                   int64_t first_position, void* stream);

  class Impl;  // codec/cuda/internal
  explicit DeviceEncoder(std::unique_ptr<Impl> impl);

 private:
  const std::unique_ptr<Impl> impl_;
};

}  // namespace kvstream

#endif  // KVSTREAM_CODEC_CUDA_DEVICE_ENCODER_H_

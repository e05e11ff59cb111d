// Segments in host memory -> KV in device memory.
//
// This header needs no CUDA: streams are void* (a cudaStream_t), device memory is plain pointers. A
// build without CUDA has the same symbols; there Create says so.
#ifndef KVSTREAM_CODEC_CUDA_DEVICE_DECODER_H_
#define KVSTREAM_CODEC_CUDA_DEVICE_DECODER_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "codec/cuda/device_view.h"
#include "codec/profile.h"

namespace kvstream {

// OK if this build has CUDA and the device can run its kernels. FAILED_PRECONDITION: built without
// CUDA, or the device is older than compute capability 8.0. UNAVAILABLE: no driver or no such
// device.
absl::Status CheckCudaDevice(int device_ordinal);

struct DeviceDecoderOptions {
  int device_ordinal = 0;
  // Only these heads and layers are transformed and written; all symbols are decoded in any case.
  DeviceShard shard;
  // Chunks whose work shares a launch; a call with more is cut. Device memory for it: 8 bytes a
  // coordinate and token of a full chunk, times this. 1 to 256.
  int max_batch_chunks = 4;
  // Batches whose compressed bytes may wait in pinned memory. 2 to 16.
  int staging_slots = 3;
};

// One chunk of a call.
struct DeviceChunk {
  // Of one chunk, levels 0 to n; borrowed for the call only.
  absl::Span<const absl::string_view> segments;
  // Token of the view at which the chunk's first token is written.
  int64_t first_token = 0;
};

// Names one Decode call until 63 later ones were made.
using DecodeTicket = int64_t;

// Not thread-safe; one per thread and stream, siblings share the profile's tables on the device.
// Calls are asynchronous on the caller's stream: kernels run after what the stream holds, and work
// put on the stream later sees the KV. Device pointers and block tables must stay valid until then.
// Calls of one decoder must use streams that are ordered among each other, since they share its
// workspace. After Create (and one call with chunks of the largest size) no device or pinned memory
// is allocated.
class DeviceDecoder {
 public:
  // The most chunks of one call.
  static constexpr int kMaxChunks = 256;

  // Uploads the profile's tables and transforms (2 bytes x rank x channels of the shard). Errors:
  // as CheckCudaDevice; INVALID_ARGUMENT for options out of range; RESOURCE_EXHAUSTED if the memory
  // of device or host does not suffice.
  static absl::StatusOr<std::unique_ptr<DeviceDecoder>> Create(
      std::shared_ptr<const Profile> profile, const DeviceDecoderOptions& options);
  // A decoder with staging and workspace of its own over the same tables, for another thread or
  // stream. Reads only what siblings share, so that it may be called while another thread uses this
  // decoder.
  absl::StatusOr<std::unique_ptr<DeviceDecoder>> CreateSibling() const;
  // Waits for all work of this decoder.
  ~DeviceDecoder();

  // Checks the segments on the host (as ChunkDecoder does: DATA_LOSS, INVALID_ARGUMENT,
  // FAILED_PRECONDITION, naming the chunk's index in `chunks`), then enqueues their decoding at
  // level segments.size() - 1 of each. Chunks must not overlap in the view and lie inside of it.
  // Blocks only if all staging slots are in flight. On an error some of the chunks may have been
  // enqueued; what the view holds at these chunks is then unspecified. Untrusted bytes never make
  // the device read or write outside of its buffers or the view. RESOURCE_EXHAUSTED, INTERNAL: an
  // error of CUDA. The host's cost: one pass of XXH3 over the bytes, a copy, and some nanoseconds a
  // coordinate for every level whose segment overrides classes.
  absl::StatusOr<DecodeTicket> Decode(absl::Span<const DeviceChunk> chunks, const DeviceKvView& out,
                                      void* stream);
  absl::StatusOr<DecodeTicket> Decode(absl::Span<const DeviceChunk> chunks, const PagedKvView& out,
                                      void* stream);

  // True once the call's work is done. INVALID_ARGUMENT: no such ticket (any more).
  absl::StatusOr<bool> Done(DecodeTicket ticket);
  // Waits for the call and says whether its KV is good. DATA_LOSS: a block of a segment does not
  // decode (its KV is wrong and must not be used); INVALID_ARGUMENT: the block table has an entry
  // outside of the cache, or no such ticket; INTERNAL: CUDA failed. The first failed chunk is
  // named; chunk_statuses (if given) gets one status per chunk of the call.
  absl::Status Finish(DecodeTicket ticket, std::vector<absl::Status>* chunk_statuses = nullptr);

  // Device memory that this decoder holds, tables shared with siblings included.
  int64_t device_bytes() const;

  class Impl;  // codec/cuda/internal
  explicit DeviceDecoder(std::unique_ptr<Impl> impl);

 private:
  const std::unique_ptr<Impl> impl_;
};

}  // namespace kvstream

#endif  // KVSTREAM_CODEC_CUDA_DEVICE_DECODER_H_

// Segments of one chunk -> KV.
#ifndef KVSTREAM_CODEC_DECODER_H_
#define KVSTREAM_CODEC_DECODER_H_

#include <cstdint>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "codec/kv_view.h"
#include "codec/profile.h"

namespace kvstream {

// What a segment's header says.
struct SegmentInfo {
  int level = 0;
  int tokens = 0;
  int64_t first_position = 0;
};

// Checks one segment without decoding it: magic, version, that it belongs to `profile`, every
// length, and the checksum. This is what the server runs on each segment of a Put. Errors:
// DATA_LOSS (checksum, truncation), FAILED_PRECONDITION (another profile), INVALID_ARGUMENT (header
// field out of range); each names the field. Cost: one pass of XXH3 over the bytes.
absl::StatusOr<SegmentInfo> ValidateSegment(const Profile& profile, absl::string_view segment);

// Not thread-safe: holds scratch memory, some 4 bytes a value of a chunk and 8 a value of the
// largest group, reused by the next chunk: after the first, a chunk without exact tokens allocates
// nothing. One per thread. Starts no threads and uses no BLAS.
class ChunkDecoder {
 public:
  static absl::StatusOr<std::unique_ptr<ChunkDecoder>> Create(
      std::shared_ptr<const Profile> profile);
  ~ChunkDecoder();

  // Decodes at level segments.size() - 1 into out, whose tokens must equal the chunk's. Keys come
  // out after RoPE at the positions that the segments carry. Segments are untrusted: any bytes give
  // either the encoder's KV or an error (DATA_LOSS, INVALID_ARGUMENT, FAILED_PRECONDITION as
  // ValidateSegment), never access outside of buffers. On an error out's contents are unspecified.
  // Cost: some nanoseconds a coded symbol of each level and 2 * rank operations a value, less the
  // coordinates that are zero throughout the chunk.
  absl::Status Decode(absl::Span<const absl::string_view> segments, const MutableKvView& out);

 private:
  class Impl;
  explicit ChunkDecoder(std::unique_ptr<Impl> impl);

  const std::unique_ptr<Impl> impl_;
};

}  // namespace kvstream

#endif  // KVSTREAM_CODEC_DECODER_H_

// KV of one chunk -> one segment per level.
#ifndef KVSTREAM_CODEC_ENCODER_H_
#define KVSTREAM_CODEC_ENCODER_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "codec/kv_view.h"
#include "codec/profile.h"

namespace kvstream {

struct EncodedChunk {
  // One per level of the profile, level 0 first. Level n is decoded from segments[0..n].
  std::vector<std::string> segments;
};

// Not thread-safe: holds scratch memory, some 3 bytes a value of a chunk and 8 a value of the
// largest group. With what it returns that is under three times the chunk's KV as long as a group
// is a small part of the model. One per thread.
class ChunkEncoder {
 public:
  static absl::StatusOr<std::unique_ptr<ChunkEncoder>> Create(
      std::shared_ptr<const Profile> profile);
  ~ChunkEncoder();

  // kv: 1 to profile.chunk_tokens() tokens, of which the first stands at position first_position (0
  // to 2^40) of its context. Errors: INVALID_ARGUMENT for a shape that is not the profile's or for
  // values that are not finite. Starts no threads. The same bytes come out on every call; on
  // machines with other vector units a value at the very edge of a quantisation cell may fall on
  // its other side.
  absl::StatusOr<EncodedChunk> Encode(const KvView& kv, int64_t first_position);

 private:
  class Impl;
  explicit ChunkEncoder(std::unique_ptr<Impl> impl);

  const std::unique_ptr<Impl> impl_;
};

}  // namespace kvstream

#endif  // KVSTREAM_CODEC_ENCODER_H_

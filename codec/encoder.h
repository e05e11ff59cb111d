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

// Not thread-safe: holds scratch memory. One per thread.
class ChunkEncoder {
 public:
  static absl::StatusOr<std::unique_ptr<ChunkEncoder>> Create(
      std::shared_ptr<const Profile> profile);

  // kv: 1 to profile.chunk_tokens() tokens, of which the first stands at position first_position of
  // its context. Errors: INVALID_ARGUMENT for a shape that is not the profile's or for values that
  // are not finite.
  absl::StatusOr<EncodedChunk> Encode(const KvView& kv, int64_t first_position);
};

}  // namespace kvstream

#endif  // KVSTREAM_CODEC_ENCODER_H_

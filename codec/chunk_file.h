// The .kvs file: the encoded chunks of one context with its tokens.
#ifndef KVSTREAM_CODEC_CHUNK_FILE_H_
#define KVSTREAM_CODEC_CHUNK_FILE_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "codec/encoder.h"
#include "codec/profile.h"

namespace kvstream {

// A parsed file. Segments are borrowed from its bytes; tokens are copied.
struct ChunkFileView {
  ProfileId profile_id = {};
  int levels = 0;
  int chunk_tokens = 0;
  std::vector<int32_t> tokens;
  // [chunk][level]; chunk i holds tokens [i * chunk_tokens, min((i + 1) * chunk_tokens, tokens)).
  // Segments are not validated: ChunkDecoder and ValidateSegment do that.
  std::vector<std::vector<absl::string_view>> chunks;
};

// chunks: one for each chunk_tokens of tokens, the last may be shorter, each with a segment per
// level of the profile. Errors: INVALID_ARGUMENT if the numbers do not fit together.
absl::StatusOr<std::string> WriteChunkFile(const Profile& profile, absl::Span<const int32_t> tokens,
                                           absl::Span<const EncodedChunk> chunks);

// Errors: DATA_LOSS (checksum, truncation), INVALID_ARGUMENT (magic, version, field out of range);
// each names the field. Cost: one pass of XXH3.
absl::StatusOr<ChunkFileView> ParseChunkFile(absl::string_view bytes);

}  // namespace kvstream

#endif  // KVSTREAM_CODEC_CHUNK_FILE_H_

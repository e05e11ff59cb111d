// Model profile: everything about a model that the codec needs and that is not in a chunk's
// bitstream. Immutable.
#ifndef KVSTREAM_CODEC_PROFILE_H_
#define KVSTREAM_CODEC_PROFILE_H_

#include <array>
#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "codec/geometry.h"

namespace kvstream {

// Identifies a profile: SHA-256 of its serialised bytes.
using ProfileId = std::array<uint8_t, 32>;

// Thread-compatible; shared between encoders, decoders and the server, hence handed out as
// shared_ptr<const Profile>.
class Profile {
 public:
  // Parses and validates serialised bytes from an untrusted source (docs/format.md). Errors:
  // DATA_LOSS for a bad checksum, INVALID_ARGUMENT for a field out of range or a version that this
  // build cannot read; both name the field.
  static absl::StatusOr<std::shared_ptr<const Profile>> Parse(absl::string_view bytes);

  const ProfileId& id() const;
  const std::string& serialized() const;
  const KvGeometry& geometry() const;
  // Tokens of a full chunk, default 256.
  int chunk_tokens() const;
  // Rungs of the ladder; levels are 0 (coarsest) to levels() - 1 (finest).
  int levels() const;
  // Quantisation step of a level in units of a layer's standard deviation.
  double step(int level) const;
  // First tokens of a context that are kept exact ("sinks").
  int sink_tokens() const;
};

}  // namespace kvstream

#endif  // KVSTREAM_CODEC_PROFILE_H_

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

struct ProfileData;

// Identifies a profile: SHA-256 of its serialised bytes.
using ProfileId = std::array<uint8_t, 32>;

// Thread-compatible; shared between encoders, decoders and the server, hence handed out as
// shared_ptr<const Profile>.
class Profile {
 public:
  // Parses and validates serialised bytes from an untrusted source (docs/format.md). Errors:
  // DATA_LOSS for a bad checksum, INVALID_ARGUMENT for a field out of range or a version that this
  // build cannot read; both name the field. Cost: a copy, a SHA-256 and a check of every entry of
  // the transforms; memory is the bytes' size plus some 10 bytes a coordinate.
  static absl::StatusOr<std::shared_ptr<const Profile>> Parse(absl::string_view bytes);
  // The same without the copy.
  static absl::StatusOr<std::shared_ptr<const Profile>> ParseOwned(std::string bytes);
  ~Profile();

  Profile(const Profile&) = delete;
  Profile& operator=(const Profile&) = delete;

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

  // False for the fallback without calibration: identity transform, statistics measured per chunk.
  bool calibrated() const;
  // Which values share a transform: "head", "layer", "N layers" or "model"; "none" without
  // calibration.
  std::string group_description() const;
  // Groups of values that share a transform.
  int groups() const;
  // Channels that the group transforms and coordinates that are coded for them (its rank).
  int group_channels(int group) const;
  int group_rank(int group) const;
  // Coordinates of all groups together; at most geometry().values_per_token().
  int64_t coordinates() const;

  // For the codec's own files (codec/profile_data.h).
  const ProfileData& data() const { return *data_; }

 private:
  explicit Profile(std::unique_ptr<const ProfileData> data);

  const std::unique_ptr<const ProfileData> data_;
};

}  // namespace kvstream

#endif  // KVSTREAM_CODEC_PROFILE_H_

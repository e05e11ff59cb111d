#include "server/service/codec_profile_gate.h"

#include <utility>

#include "codec/decoder.h"
#include "codec/profile.h"

namespace kvstream {
namespace {

class CodecProfile final : public ServiceProfile {
 public:
  explicit CodecProfile(std::shared_ptr<const Profile> profile) : profile_(std::move(profile)) {}

  const StoredProfileId& id() const override { return profile_->id(); }
  int levels() const override { return profile_->levels(); }
  int chunk_tokens() const override { return profile_->chunk_tokens(); }
  absl::string_view serialized() const override { return profile_->serialized(); }

  absl::StatusOr<SegmentHeader> ValidateSegment(absl::string_view segment) const override {
    const absl::StatusOr<SegmentInfo> info = kvstream::ValidateSegment(*profile_, segment);
    if (!info.ok()) return info.status();
    return SegmentHeader{info->level, info->tokens, info->first_position};
  }

 private:
  const std::shared_ptr<const Profile> profile_;
};

}  // namespace

ProfileParser CodecProfileParser() {
  return [](absl::string_view bytes) -> absl::StatusOr<std::shared_ptr<const ServiceProfile>> {
    absl::StatusOr<std::shared_ptr<const Profile>> profile = Profile::Parse(bytes);
    if (!profile.ok()) return profile.status();
    return std::make_shared<const CodecProfile>(*std::move(profile));
  };
}

}  // namespace kvstream

#include "client/segment_check.h"

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "codec/decoder.h"

namespace kvstream {

absl::Status CheckSegments(const Profile& profile, const DecodeJob& job) {
  for (int level = job.first_unchecked_level; level <= job.level; ++level) {
    const absl::StatusOr<SegmentInfo> info = ValidateSegment(profile, job.segments[level]);
    if (!info.ok()) return DamageAsDataLoss(info.status());
    if (info->level != level || info->tokens != job.tokens ||
        info->first_position != job.first_token) {
      return absl::DataLossError(
          absl::StrCat("a segment of level ", info->level, ", ", info->tokens,
                       " tokens at position ", info->first_position, " in place of level ", level,
                       ", ", job.tokens, " tokens at position ", job.first_token));
    }
  }
  return absl::OkStatus();
}

absl::Status DamageAsDataLoss(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kInvalidArgument:
    case absl::StatusCode::kFailedPrecondition:
    case absl::StatusCode::kOutOfRange:
      return absl::DataLossError(status.message());
    default:
      return status;
  }
}

}  // namespace kvstream

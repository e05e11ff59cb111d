#include "server/service/ttl.h"

#include <cstdint>

#include "absl/strings/str_cat.h"

namespace kvstream {

absl::StatusOr<absl::Duration> ParseTtl(absl::string_view field,
                                        const google::protobuf::Duration& ttl) {
  const int64_t max_seconds = absl::ToInt64Seconds(kMaxTtl);
  if (ttl.seconds() >= 0 && ttl.seconds() < max_seconds && ttl.nanos() >= 0 &&
      ttl.nanos() <= 999999999) {
    return absl::Seconds(ttl.seconds()) + absl::Nanoseconds(ttl.nanos());
  }
  if (ttl.seconds() == max_seconds && ttl.nanos() == 0) return kMaxTtl;
  return absl::InvalidArgumentError(absl::StrCat(field, " is not from 0 to 100 years"));
}

absl::Time ExpiresAfter(absl::Time now, absl::Duration ttl, absl::Duration default_ttl) {
  if (ttl == absl::ZeroDuration()) ttl = default_ttl;
  return ttl == absl::ZeroDuration() ? absl::InfiniteFuture() : now + ttl;
}

void SetTimestamp(absl::Time time, google::protobuf::Timestamp* timestamp) {
  // ToUnixSeconds rounds down, so the rest is never negative.
  const int64_t seconds = absl::ToUnixSeconds(time);
  timestamp->set_seconds(seconds);
  timestamp->set_nanos(
      static_cast<int32_t>(absl::ToInt64Nanoseconds(time - absl::FromUnixSeconds(seconds))));
}

}  // namespace kvstream

// How long chunks are to be kept, as it comes over the wire.
#ifndef KVSTREAM_SERVER_SERVICE_TTL_H_
#define KVSTREAM_SERVER_SERVICE_TTL_H_

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "google/protobuf/duration.pb.h"
#include "google/protobuf/timestamp.pb.h"
#include "server/service/options.h"

namespace kvstream {

// INVALID_ARGUMENT, naming the field, unless it is a duration from 0 to kMaxTtl.
absl::StatusOr<absl::Duration> ParseTtl(absl::string_view field,
                                        const google::protobuf::Duration& ttl);

// When a chunk expires that was put now; `ttl` 0: after `default_ttl`, and that 0: never.
absl::Time ExpiresAfter(absl::Time now, absl::Duration ttl, absl::Duration default_ttl);

// `time` is finite.
void SetTimestamp(absl::Time time, google::protobuf::Timestamp* timestamp);

}  // namespace kvstream

#endif  // KVSTREAM_SERVER_SERVICE_TTL_H_

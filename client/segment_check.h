// What is checked of received segments before any decoder sees them.
#ifndef KVSTREAM_CLIENT_SEGMENT_CHECK_H_
#define KVSTREAM_CLIENT_SEGMENT_CHECK_H_

#include "absl/status/status.h"
#include "client/load_assembler.h"
#include "codec/profile.h"

namespace kvstream {

// Checks those segments of the job that are new: header and checksum, and that they are this
// chunk's, since a segment that is whole but another chunk's would decode to wrong KV. DATA_LOSS
// naming what is wrong. Cost: one pass of XXH3 over the bytes.
absl::Status CheckSegments(const Profile& profile, const DecodeJob& job);

// What a decoder says of bytes that it cannot decode (DATA_LOSS, INVALID_ARGUMENT,
// FAILED_PRECONDITION, OUT_OF_RANGE) as DATA_LOSS; other statuses as they are.
absl::Status DamageAsDataLoss(const absl::Status& status);

}  // namespace kvstream

#endif  // KVSTREAM_CLIENT_SEGMENT_CHECK_H_

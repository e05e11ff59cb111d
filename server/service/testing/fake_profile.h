// Profiles and segments for tests of the service: a few readable bytes instead of a calibrated
// model.
#ifndef KVSTREAM_SERVER_SERVICE_TESTING_FAKE_PROFILE_H_
#define KVSTREAM_SERVER_SERVICE_TESTING_FAKE_PROFILE_H_

#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/strings/string_view.h"
#include "server/service/profile_gate.h"

namespace kvstream {

// Bytes of a profile named by one character.
std::string FakeProfileBytes(int levels, int chunk_tokens, char name = 'a');

// Reads the above. DATA_LOSS for anything else.
ProfileParser FakeProfileParser();

// The id that FakeProfileParser gives to these bytes.
StoredProfileId FakeProfileId(absl::string_view profile_bytes);

// A segment of `size` bytes, at least 40, that ValidateSegment of the profile accepts: its header,
// bytes that depend on all arguments, a checksum.
std::string FakeSegment(char profile_name, int level, int64_t tokens, int64_t first_position,
                        size_t size);

// The same around a payload of the caller's choice: kFakeSealBytes more than it. `tokens` and
// `first_position` have at most 25 digits together with the level.
inline constexpr size_t kFakeSealBytes = 40;
std::string SealFakeSegment(char profile_name, int level, int64_t tokens, int64_t first_position,
                            absl::string_view payload);
// The payload of a sealed segment, borrowed from it; `segment` has at least kFakeSealBytes.
absl::string_view FakePayload(absl::string_view segment);

}  // namespace kvstream

#endif  // KVSTREAM_SERVER_SERVICE_TESTING_FAKE_PROFILE_H_

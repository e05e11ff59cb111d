// What the service needs of a model profile and of the codec behind it. The production side is
// codec_profile_gate.h; tests bring small fakes, so that the service is tested without calibrating
// a model.
#ifndef KVSTREAM_SERVER_SERVICE_PROFILE_GATE_H_
#define KVSTREAM_SERVER_SERVICE_PROFILE_GATE_H_

#include <cstdint>
#include <functional>
#include <memory>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "storage/chunk_store.h"

namespace kvstream {

// What a segment's header says about it.
struct SegmentHeader {
  int level = 0;
  int64_t tokens = 0;
  int64_t first_position = 0;
};

// A parsed profile. Immutable, thread-safe.
class ServiceProfile {
 public:
  virtual ~ServiceProfile() = default;

  virtual const StoredProfileId& id() const = 0;
  // At least 1.
  virtual int levels() const = 0;
  // Tokens of a full chunk, at least 1.
  virtual int chunk_tokens() const = 0;
  // The bytes that it was parsed from; live as long as the profile.
  virtual absl::string_view serialized() const = 0;
  // Checks one untrusted segment without decoding it. Errors as codec/decoder.h ValidateSegment.
  virtual absl::StatusOr<SegmentHeader> ValidateSegment(absl::string_view segment) const = 0;
};

// Parses untrusted bytes. Errors: DATA_LOSS for a bad checksum, INVALID_ARGUMENT for a field out of
// range.
using ProfileParser =
    std::function<absl::StatusOr<std::shared_ptr<const ServiceProfile>>(absl::string_view bytes)>;

}  // namespace kvstream

#endif  // KVSTREAM_SERVER_SERVICE_PROFILE_GATE_H_

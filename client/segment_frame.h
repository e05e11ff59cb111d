// Reads the LoadResponse messages that carry segment bytes without copying the bytes and without a
// protobuf parse.
#ifndef KVSTREAM_CLIENT_SEGMENT_FRAME_H_
#define KVSTREAM_CLIENT_SEGMENT_FRAME_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace kvstream {

// A SegmentData (proto) whose bytes are borrowed.
struct SegmentFrame {
  uint32_t chunk = 0;
  uint32_t level = 0;
  uint64_t offset = 0;
  uint64_t size = 0;                       // of the payload
  std::string plan;                        // a serialised ChunkPlan, not looked into; empty: none
  std::vector<absl::string_view> payload;  // its pieces, in order, none of them empty
};

// More than a plan of 256 levels takes.
constexpr size_t kPlanBytesMax = 4096;

// A message of more is left to protobuf; no server sends it.
constexpr size_t kBatchFramesMax = 64;

// `message` is one serialised LoadResponse in pieces, as it came from the network: a field may
// straddle pieces. True, with *frames borrowing from `message`, if it is a `data` message as every
// protobuf serialiser writes it, or a `batch` of one to kBatchFramesMax: nothing else in it, fields
// at most once and in order, `data` of a SegmentData present and last, `plan` of kPlanBytesMax at
// most. False for all other bytes, legal or not, with *frames unspecified: the caller parses those
// with protobuf. Where it returns true, protobuf would read the same values, provided that `plan`,
// which is copied, is a ChunkPlan. Never reads outside of the pieces. Cost: O(pieces + bytes of the
// plans).
bool ParseSegmentFrames(absl::Span<const absl::string_view> message,
                        std::vector<SegmentFrame>* frames);

}  // namespace kvstream

#endif  // KVSTREAM_CLIENT_SEGMENT_FRAME_H_

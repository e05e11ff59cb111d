// Layout of a segment's bytes: header and sections, without their meaning.
#ifndef KVSTREAM_CODEC_SEGMENT_H_
#define KVSTREAM_CODEC_SEGMENT_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "codec/profile_data.h"

namespace kvstream {

// Fields of a segment's header. Sizes of the sections follow from the sections themselves.
struct SegmentHeader {
  int level = 0;
  uint8_t flags = 0;
  int64_t first_position = 0;
  int32_t tokens = 0;          // of the chunk, sinks included
  int32_t sinks = 0;           // exact tokens at its front
  uint64_t base_checksum = 0;  // the checksum of the chunk's level-0 segment; 0 at level 0
};

struct BlockEntry {
  uint32_t coordinates = 0;
  uint32_t bytes = 0;
};

// Sections in the order in which they are stored.
struct SegmentSections {
  std::string statistics;  // level 0 without calibration: [layer][plane][part] scale as float32,
                           // then [channel] mean as bfloat16
  std::string sinks;       // level 0: coded exact tokens, exact_tokens.h
  std::string class_override;  // level_coder.h
  std::string exceptions;
  std::vector<BlockEntry> blocks;
  std::string payload;
};

// A parsed segment; everything is borrowed from the segment's bytes.
struct SegmentView {
  SegmentHeader header;
  absl::string_view statistics;
  absl::string_view sinks;
  absl::string_view class_override;
  absl::string_view exceptions;
  std::vector<BlockEntry> blocks;
  absl::string_view payload;
  uint64_t checksum = 0;
};

// Size of the statistics section where there is one.
inline uint64_t StatisticsBytes(const KvGeometry& geometry) {
  return uint64_t{4} * geometry.layers * geometry.planes * geometry.parts() +
         uint64_t{2} * geometry.values_per_token();
}

std::string WriteSegment(const ProfileData& profile, const SegmentHeader& header,
                         const SegmentSections& sections);

// Checks magic, version, profile, checksum, every field's range and that the sections fill the
// segment exactly. Errors: DATA_LOSS (checksum, truncation), FAILED_PRECONDITION (another profile),
// INVALID_ARGUMENT (field out of range).
absl::StatusOr<SegmentView> ParseSegment(const ProfileData& profile, absl::string_view bytes);

// The same into *view, whose vector keeps its memory. On an error *view is unspecified.
absl::Status ParseSegmentInto(const ProfileData& profile, absl::string_view bytes,
                              SegmentView* view);

// Recomputes the checksum at the end of a segment, profile or chunk file; for tests that damage
// one. Bytes too short to have one stay.
void Reseal(std::string* bytes);

}  // namespace kvstream

#endif  // KVSTREAM_CODEC_SEGMENT_H_

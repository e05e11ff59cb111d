#include "codec/segment.h"

#include <xxhash.h>

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "codec/byte_io.h"
#include "codec/format.h"

namespace kvstream {
namespace {

template <typename... T>
absl::Status Invalid(const T&... parts) {
  return absl::InvalidArgumentError(absl::StrCat("segment: ", parts...));
}

}  // namespace

std::string WriteSegment(const ProfileData& profile, const SegmentHeader& header,
                         const SegmentSections& sections) {
  std::string out;
  out.reserve(kSegmentHeaderBytes + sections.statistics.size() + sections.sinks.size() +
              sections.class_override.size() + sections.exceptions.size() +
              sections.blocks.size() * kBlockEntryBytes + sections.payload.size() + kChecksumBytes);
  AppendLe(kSegmentMagic, &out);
  AppendLe(kFormatVersion, &out);
  AppendLe<uint8_t>(header.level, &out);
  AppendLe<uint8_t>(header.flags, &out);
  out.append(reinterpret_cast<const char*>(profile.id.data()), kSegmentProfileIdBytes);
  AppendLe<uint64_t>(header.first_position, &out);
  AppendLe<uint32_t>(header.tokens, &out);
  AppendLe<uint32_t>(header.sinks, &out);
  AppendLe<uint64_t>(header.base_checksum, &out);
  AppendLe<uint32_t>(sections.statistics.size(), &out);
  AppendLe<uint32_t>(sections.sinks.size(), &out);
  AppendLe<uint32_t>(sections.class_override.size(), &out);
  AppendLe<uint32_t>(sections.exceptions.size(), &out);
  AppendLe<uint32_t>(sections.blocks.size(), &out);
  AppendLe<uint32_t>(sections.payload.size(), &out);
  out += sections.statistics;
  out += sections.sinks;
  out += sections.class_override;
  out += sections.exceptions;
  for (const BlockEntry& block : sections.blocks) {
    AppendLe(block.coordinates, &out);
    AppendLe(block.bytes, &out);
  }
  out += sections.payload;
  AppendLe<uint64_t>(XXH3_64bits(out.data(), out.size()), &out);
  return out;
}

absl::Status ParseSegmentInto(const ProfileData& profile, absl::string_view bytes,
                              SegmentView* out) {
  if (bytes.size() < kSegmentHeaderBytes + kChecksumBytes) {
    return absl::DataLossError(absl::StrCat("segment: truncated, only ", bytes.size(), " bytes"));
  }
  SegmentView& view = *out;
  ByteReader in(bytes.substr(0, bytes.size() - kChecksumBytes));
  const uint32_t magic = in.Read<uint32_t>();
  const uint16_t version = in.Read<uint16_t>();
  view.header.level = in.Read<uint8_t>();
  view.header.flags = in.Read<uint8_t>();
  const absl::string_view id = in.Take(kSegmentProfileIdBytes);
  const uint64_t first_position = in.Read<uint64_t>();
  const uint32_t tokens = in.Read<uint32_t>();
  const uint32_t sinks = in.Read<uint32_t>();
  view.header.base_checksum = in.Read<uint64_t>();
  const uint32_t statistics_bytes = in.Read<uint32_t>();
  const uint32_t sink_bytes = in.Read<uint32_t>();
  const uint32_t override_bytes = in.Read<uint32_t>();
  const uint32_t exception_bytes = in.Read<uint32_t>();
  const uint32_t block_count = in.Read<uint32_t>();
  const uint32_t payload_bytes = in.Read<uint32_t>();

  if (magic != kSegmentMagic) return Invalid("magic is wrong, this is no segment");
  if (version != kFormatVersion)
    return Invalid("version is ", version, ", this build reads ", kFormatVersion);
  const uint64_t size = uint64_t{kSegmentHeaderBytes} + statistics_bytes + sink_bytes +
                        override_bytes + exception_bytes +
                        uint64_t{block_count} * kBlockEntryBytes + payload_bytes + kChecksumBytes;
  if (size != bytes.size()) {
    return absl::DataLossError(
        absl::StrCat("segment: has ", bytes.size(), " bytes, its header says ", size));
  }
  view.checksum = LoadLe<uint64_t>(bytes.data() + bytes.size() - kChecksumBytes);
  if (XXH3_64bits(bytes.data(), bytes.size() - kChecksumBytes) != view.checksum) {
    return absl::DataLossError("segment: checksum does not match");
  }
  if (id !=
      absl::string_view(reinterpret_cast<const char*>(profile.id.data()), kSegmentProfileIdBytes)) {
    return absl::FailedPreconditionError("segment: was encoded with another profile");
  }

  const SegmentHeader& header = view.header;
  if (header.level >= profile.levels)
    return Invalid("level is ", header.level, ", the profile has ", profile.levels);
  if ((header.flags & ~kSegmentKnownFlags) != 0)
    return Invalid("flags are ", header.flags, ", unknown bits are set");
  if (first_position > static_cast<uint64_t>(kMaxFirstPosition))
    return Invalid("first_position is ", first_position, ", beyond 2^40");
  if (tokens < 1 || tokens > static_cast<uint32_t>(profile.chunk_tokens))
    return Invalid("tokens is ", tokens, ", must be 1 to ", profile.chunk_tokens);
  const int64_t exact = std::min<int64_t>(
      tokens, std::max<int64_t>(0, profile.sink_tokens - static_cast<int64_t>(std::min<uint64_t>(
                                                             first_position, kMaxFirstPosition))));
  if (sinks != static_cast<uint64_t>(exact))
    return Invalid("sinks is ", sinks, ", must be ", exact);
  view.header.first_position = static_cast<int64_t>(first_position);
  view.header.tokens = static_cast<int32_t>(tokens);
  view.header.sinks = static_cast<int32_t>(sinks);
  if (header.level == 0 && header.base_checksum != 0)
    return Invalid("base_checksum of level 0 is not zero");

  const bool statistics = header.level == 0 && !profile.calibrated;
  if (((header.flags & kSegmentHasStatistics) != 0) != statistics)
    return Invalid("the flag of statistics contradicts the profile");
  const uint64_t expected = statistics ? StatisticsBytes(profile.geometry) : 0;
  if (statistics_bytes != expected)
    return Invalid("statistics take ", statistics_bytes, " bytes, must be ", expected);
  if ((sink_bytes != 0) != (sinks != 0 && header.level == 0))
    return Invalid("sinks take ", sink_bytes, " bytes for ", sinks, " tokens at level ",
                   header.level);
  if (((header.flags & kSegmentHasOverride) != 0) != (override_bytes != 0))
    return Invalid("the flag of class overrides contradicts their size");

  view.statistics = in.Take(statistics_bytes);
  view.sinks = in.Take(sink_bytes);
  view.class_override = in.Take(override_bytes);
  view.exceptions = in.Take(exception_bytes);
  uint64_t coordinates = 0;
  uint64_t block_bytes = 0;
  view.blocks.resize(block_count);  // bounded by the segment's size
  for (BlockEntry& block : view.blocks) {
    block.coordinates = in.Read<uint32_t>();
    block.bytes = in.Read<uint32_t>();
    if (block.coordinates == 0) return Invalid("a block has no coordinates");
    coordinates += block.coordinates;
    block_bytes += block.bytes;
  }
  if (coordinates > static_cast<uint64_t>(profile.coordinates))
    return Invalid("blocks have ", coordinates, " coordinates, the profile ", profile.coordinates);
  if (block_bytes != payload_bytes)
    return Invalid("blocks have ", block_bytes, " bytes, the payload ", payload_bytes);
  view.payload = in.Take(payload_bytes);
  if (!in.ok() || in.remaining() != 0)
    return absl::DataLossError("segment: sections do not fill it");
  return absl::OkStatus();
}

absl::StatusOr<SegmentView> ParseSegment(const ProfileData& profile, absl::string_view bytes) {
  SegmentView view;
  absl::Status status = ParseSegmentInto(profile, bytes, &view);
  if (!status.ok()) return status;
  return view;
}

void Reseal(std::string* bytes) {
  if (bytes->size() < kChecksumBytes) return;
  const size_t body = bytes->size() - kChecksumBytes;
  StoreLe<uint64_t>(XXH3_64bits(bytes->data(), body), &(*bytes)[body]);
}

}  // namespace kvstream

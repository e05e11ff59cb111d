// Magic numbers, versions and sizes of stored bytes; docs/format.md specifies them.
#ifndef KVSTREAM_CODEC_FORMAT_H_
#define KVSTREAM_CODEC_FORMAT_H_

#include <cstddef>
#include <cstdint>

namespace kvstream {

// "KVSP", "KVSG", "KVSF" as little-endian integers.
constexpr uint32_t kProfileMagic = 0x5053564b;
constexpr uint32_t kSegmentMagic = 0x4753564b;
constexpr uint32_t kChunkFileMagic = 0x4653564b;
// Of segments and .kvs files.
constexpr uint16_t kFormatVersion = 1;
// Of profiles that are written; version 1, which has neither planes nor a rotary offset, is read.
constexpr uint16_t kProfileVersion = 2;

constexpr size_t kChecksumBytes = 8;  // XXH3-64 of everything before it, seed 0
constexpr size_t kProfileIdBytes = 32;
constexpr size_t kSegmentProfileIdBytes = 16;  // first bytes of the profile's id
constexpr size_t kSegmentHeaderBytes = 72;
constexpr size_t kBlockEntryBytes = 8;

constexpr int kMaxChunkTokens = 4096;
constexpr int kMaxSinkTokens = 64;
constexpr int64_t kMaxChannels = int64_t{1} << 24;  // values of one token
constexpr int64_t kMaxFirstPosition = int64_t{1} << 40;

enum SegmentFlags : uint8_t {
  kSegmentHasOverride = 1,  // classes of this level differ from the profile's
  kSegmentHasStatistics =
      2,  // level 0 of a profile without calibration: means and scales of this chunk
  kSegmentKnownFlags = 3,
};

}  // namespace kvstream

#endif  // KVSTREAM_CODEC_FORMAT_H_

#include "tests/bench/store/values.h"

#include <xxhash.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "codec/calibration.h"
#include "codec/format.h"
#include "codec/segment.h"

namespace kvstream::bench {
namespace {

uint64_t Mix(uint64_t x) {
  x += 0x9e3779b97f4a7c15;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
  x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
  return x ^ (x >> 31);
}

std::string Noise(uint64_t seed, size_t bytes) {
  std::string out(bytes, '\0');
  size_t i = 0;
  for (; i + 8 <= bytes; i += 8) {
    const uint64_t word = Mix(seed + i);
    std::memcpy(&out[i], &word, 8);
  }
  for (; i < bytes; ++i) out[i] = static_cast<char>(Mix(seed + i));
  return out;
}

}  // namespace

std::shared_ptr<const Profile> BenchProfile() {
  KvGeometry geometry;
  geometry.layers = 1;
  geometry.kv_heads = 1;
  geometry.head_size = 8;
  geometry.dtype = KvDtype::kF16;
  CalibrationOptions options;
  options.steps = {0.1};
  options.chunk_tokens = kChunkTokens;
  options.sink_tokens = 0;
  auto profile = BuildProfile(geometry, {}, {}, options);
  if (!profile.ok()) {
    std::fprintf(stderr, "profile: %s\n", profile.status().ToString().c_str());
    std::abort();
  }
  return *std::move(profile);
}

ChunkId BenchChunkId(uint64_t set, uint64_t index) {
  ChunkId id;
  for (size_t i = 0; i < 4; ++i) {
    const uint64_t word = Mix(Mix(set * 4 + i) ^ Mix(index));
    std::memcpy(&id[8 * i], &word, 8);
  }
  return id;
}

ValueSet::ValueSet(std::shared_ptr<const Profile> profile, size_t value_bytes, int count)
    : profile_(std::move(profile)), value_bytes_(value_bytes) {
  for (int i = 0; i < count; ++i) {
    ids_.push_back(BenchChunkId(value_bytes, static_cast<uint64_t>(i)));
    const std::string value = Value(i);
    hashes_.push_back(XXH3_64bits(value.data(), value.size()));
  }
}

std::string ValueSet::Value(int index) const {
  const ProfileData& data = profile_->data();
  SegmentHeader header;
  header.flags = kSegmentHasStatistics;
  header.first_position = int64_t{index} * kChunkTokens;
  header.tokens = kChunkTokens;
  SegmentSections sections;
  sections.statistics.assign(StatisticsBytes(data.geometry), '\0');
  // The one section that only a decoder looks into.
  const size_t around = kSegmentHeaderBytes + sections.statistics.size() + kChecksumBytes;
  sections.exceptions =
      Noise(Mix(value_bytes_) + static_cast<uint64_t>(index) * value_bytes_, value_bytes_ - around);
  return WriteSegment(data, header, sections);
}

bool ValueSet::Matches(int index, absl::string_view value) const {
  return value.size() == value_bytes_ &&
         XXH3_64bits(value.data(), value.size()) == hashes_[static_cast<size_t>(index)];
}

}  // namespace kvstream::bench

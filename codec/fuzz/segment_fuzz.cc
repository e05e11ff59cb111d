// ChunkDecoder and ValidateSegment on any segments, and on any contents under good checksums;
// finite KV or an error.
#include <array>
#include <cmath>
#include <cstdlib>
#include <string>

#include "codec/byte_io.h"
#include "codec/decoder.h"
#include "codec/format.h"
#include "codec/fuzz/fuzz_target.h"
#include "codec/fuzz/fuzz_world.h"
#include "codec/segment.h"

namespace kvstream {

namespace {

std::array<const FuzzWorld*, 3> Worlds() {
  return {&CalibratedWorld(), &UncalibratedWorld(), &LatentWorld()};
}

}  // namespace

std::vector<std::string> FuzzSeeds() {
  std::vector<std::string> seeds;
  for (const FuzzWorld* world : Worlds()) {
    for (const EncodedChunk& chunk : world->chunks) seeds.push_back(JoinParts(chunk.segments));
  }
  return seeds;
}

namespace {

void TrySegments(const FuzzWorld& world, const std::vector<std::string>& segments) {
  TestKv out(world.geometry, FuzzWorld::kTokens);
  const std::vector<absl::string_view> views(segments.begin(), segments.end());
  for (absl::string_view view : views) ValidateSegment(*world.profile, view).status().IgnoreError();
  auto decoder = *ChunkDecoder::Create(world.profile);
  if (!decoder->Decode(views, out.mutable_view()).ok()) return;
  for (float value : out.Floats()) {
    if (!std::isfinite(value)) std::abort();
  }
}

// The world that the first segment names; any other choice is as good if it names none.
const FuzzWorld& WorldOf(const std::vector<std::string>& segments) {
  const std::array<const FuzzWorld*, 3> worlds = Worlds();
  if (segments.empty()) return *worlds[0];
  const absl::string_view first = segments[0];
  for (const FuzzWorld* world : worlds) {
    const absl::string_view id(reinterpret_cast<const char*>(world->profile->id().data()),
                               kSegmentProfileIdBytes);
    if (first.size() > 8 && first.substr(8, kSegmentProfileIdBytes) == id) return *world;
  }
  return *worlds[first.size() % worlds.size()];
}

// Gives every part the profile, the right size of its payload, the link to level 0 and a good
// checksum.
void Mend(const FuzzWorld& world, std::vector<std::string>* segments) {
  uint64_t base_checksum = 0;
  for (size_t level = 0; level < segments->size(); ++level) {
    std::string& bytes = (*segments)[level];
    if (bytes.size() < kSegmentHeaderBytes + kChecksumBytes) continue;
    bytes.replace(8, kSegmentProfileIdBytes,
                  reinterpret_cast<const char*>(world.profile->id().data()),
                  kSegmentProfileIdBytes);
    StoreLe<uint64_t>(level == 0 ? 0 : base_checksum, &bytes[40]);
    uint64_t others =
        kSegmentHeaderBytes + kChecksumBytes + uint64_t{8} * LoadLe<uint32_t>(&bytes[64]);
    for (const size_t at : {48, 52, 56, 60}) others += LoadLe<uint32_t>(&bytes[at]);
    if (others <= bytes.size())
      StoreLe<uint32_t>(static_cast<uint32_t>(bytes.size() - others), &bytes[68]);
    Reseal(&bytes);
    if (level == 0) base_checksum = LoadLe<uint64_t>(&bytes[bytes.size() - kChecksumBytes]);
  }
}

}  // namespace
}  // namespace kvstream

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string bytes(reinterpret_cast<const char*>(data), size);
  const std::vector<std::string> segments = kvstream::SplitParts(bytes, 3);
  const kvstream::FuzzWorld& world = kvstream::WorldOf(segments);
  kvstream::TrySegments(world, segments);
  std::vector<std::string> mended = segments;
  kvstream::Mend(world, &mended);
  kvstream::TrySegments(world, mended);
  return 0;
}

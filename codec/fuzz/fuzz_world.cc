#include "codec/fuzz/fuzz_world.h"

#include <algorithm>

#include "codec/byte_io.h"
#include "codec/calibration.h"

namespace kvstream {

FuzzWorld::FuzzWorld(const KvGeometry& model, bool calibrated) : geometry(model) {
  CalibrationOptions options;
  options.steps = {1.2, 0.4};
  options.sink_tokens = 2;
  options.chunk_tokens = 16;
  profile = calibrated ? MakeTestProfile(geometry, 4, options, 100)
                       : *BuildProfile(geometry, {}, {}, options);
  const TestKv kv = MakeTestKv(geometry, 2 * kTokens, 4, 8);
  auto encoder = *ChunkEncoder::Create(profile);
  chunks.push_back(*encoder->Encode(kv.view().Slice(0, kTokens), 0));
  chunks.push_back(*encoder->Encode(kv.view().Slice(kTokens, kTokens), kTokens));
}

const FuzzWorld& CalibratedWorld() {
  static const FuzzWorld* const world = new FuzzWorld(TestGeometry(2, 1, 6), true);
  return *world;
}

const FuzzWorld& UncalibratedWorld() {
  static const FuzzWorld* const world = new FuzzWorld(TestGeometry(2, 1, 6), false);
  return *world;
}

const FuzzWorld& LatentWorld() {
  static const FuzzWorld* const world = new FuzzWorld(TestLatentGeometry(2, 5, 4), false);
  return *world;
}

std::string JoinParts(const std::vector<std::string>& parts) {
  std::string out;
  for (const std::string& part : parts) {
    AppendLe<uint32_t>(static_cast<uint32_t>(part.size()), &out);
    out += part;
  }
  return out;
}

std::vector<std::string> SplitParts(const std::string& bytes, size_t parts_max) {
  std::vector<std::string> parts;
  ByteReader in(bytes);
  while (parts.size() < parts_max && in.remaining() >= 4) {
    const uint32_t size = in.Read<uint32_t>();
    parts.emplace_back(in.Take(std::min<uint64_t>(size, in.remaining())));
  }
  return parts;
}

}  // namespace kvstream

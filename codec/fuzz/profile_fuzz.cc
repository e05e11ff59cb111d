// Profile::Parse on any bytes, and on any body under a good checksum; what parses must work.
#include <cstdlib>
#include <string>

#include "codec/byte_io.h"
#include "codec/decoder.h"
#include "codec/encoder.h"
#include "codec/fuzz/fuzz_target.h"
#include "codec/fuzz/fuzz_world.h"
#include "codec/profile.h"
#include "codec/segment.h"

namespace kvstream {

std::vector<std::string> FuzzSeeds() {
  return {CalibratedWorld().profile->serialized(), UncalibratedWorld().profile->serialized(),
          LatentWorld().profile->serialized()};
}

namespace {

void TryProfile(const std::string& bytes) {
  const absl::StatusOr<std::shared_ptr<const Profile>> profile = Profile::Parse(bytes);
  if (!profile.ok()) return;
  const KvGeometry& geometry = (*profile)->geometry();
  if (geometry.values_per_token() > 4096) return;
  // A profile that parses encodes, and what it encodes decodes.
  const int tokens = std::min(5, (*profile)->chunk_tokens());
  const TestKv kv = MakeTestKv(geometry, tokens, 1, 2);
  const absl::StatusOr<EncodedChunk> chunk =
      (*ChunkEncoder::Create(*profile))->Encode(kv.view(), 1);
  if (!chunk.ok()) std::abort();
  TestKv out(geometry, tokens);
  const std::vector<absl::string_view> segments(chunk->segments.begin(), chunk->segments.end());
  if (!(*ChunkDecoder::Create(*profile))->Decode(segments, out.mutable_view()).ok()) std::abort();
}

}  // namespace
}  // namespace kvstream

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  std::string bytes(reinterpret_cast<const char*>(data), size);
  kvstream::TryProfile(bytes);
  if (size >= 24) kvstream::StoreLe<uint64_t>(size, &bytes[8]);
  kvstream::Reseal(&bytes);
  kvstream::TryProfile(bytes);
  return 0;
}

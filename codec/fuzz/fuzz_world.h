// Profiles and chunks that the fuzz targets take apart.
#ifndef KVSTREAM_CODEC_FUZZ_FUZZ_WORLD_H_
#define KVSTREAM_CODEC_FUZZ_FUZZ_WORLD_H_

#include <memory>
#include <string>
#include <vector>

#include "codec/encoder.h"
#include "codec/geometry.h"
#include "codec/profile.h"
#include "codec/test_kv.h"

namespace kvstream {

// A small model with a profile and one chunk of a context's first tokens and one of later tokens.
struct FuzzWorld {
  FuzzWorld(const KvGeometry& geometry, bool calibrated);

  KvGeometry geometry;
  std::shared_ptr<const Profile> profile;
  std::vector<EncodedChunk> chunks;
  static constexpr int kTokens = 12;
};

// Made once per process.
const FuzzWorld& CalibratedWorld();
const FuzzWorld& UncalibratedWorld();
// Of a latent, without calibration.
const FuzzWorld& LatentWorld();

// Joins byte strings so that one fuzz input carries several: each with a 4-byte length before it.
// Split never fails: lengths are cut to what is left.
std::string JoinParts(const std::vector<std::string>& parts);
std::vector<std::string> SplitParts(const std::string& bytes, size_t parts_max);

}  // namespace kvstream

#endif  // KVSTREAM_CODEC_FUZZ_FUZZ_WORLD_H_

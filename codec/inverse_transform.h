// Cells of a chunk -> KV in the caller's memory: dequantisation, inverse transform, means and
// units, RoPE, rounding to 16 bits. Highway kernels, picked at run time.
//
// The product runs in 16-bit integers with 32-bit sums wherever that is as good as exact. A token's
// coordinates are scaled so that their Euclidean norm is 32767, the transform's entries so that 1
// is 32767; by Cauchy and Schwarz no sum then exceeds 2^31. Both roundings together add an error of
// 2^0.5 / 12^0.5 / 32767 = 1.25e-5 norms (root mean square) to a channel. A group where that is
// over 1/50 of the level's step for any token is multiplied in floats. Integer sums come out the
// same on every machine.
#ifndef KVSTREAM_CODEC_INVERSE_TRANSFORM_H_
#define KVSTREAM_CODEC_INVERSE_TRANSFORM_H_

#include <cstdint>
#include <vector>

#include "codec/kv_panels.h"
#include "codec/kv_view.h"
#include "codec/profile_data.h"
#include "codec/rope.h"

namespace kvstream {

// Error of a channel (root mean square) by the roundings to 16 bits, in norms of its token, and the
// share of the level's step that it may be.
constexpr double kShortProductError = 1.25e-5;
constexpr double kShortProductShare = 0.02;

constexpr int kCellsPadding = 16;

enum class ProductKind { kAuto, kFloat, kShort };

// Not thread-safe: holds scratch memory, some 8 bytes a value of the largest group. `profile` is
// borrowed.
class InverseTransform {
 public:
  explicit InverseTransform(const ProfileData& profile);

  // Writes the channels of `group`, of all tokens of `out`, whose first stands at `position`.
  // cells: [coordinate of the profile][token], behind the last of which kCellsPadding more can be
  // read. classes: by coordinate. mean, unit: by channel. kind:
  // for tests.
  void Run(const ProfileGroup& group, int level, const int32_t* cells,
           const std::vector<uint8_t>& classes, const std::vector<float>& mean,
           const std::vector<float>& unit, int64_t position, const MutableKvView& out,
           ProductKind kind = ProductKind::kAuto);

 private:
  // Fills rows_, values_ and norm_; true if integers are exact enough.
  bool Dequantise(const ProfileGroup& group, int level, const int32_t* cells,
                  const std::vector<uint8_t>& classes, int64_t tokens);
  // values_ -> packed_; norm_ becomes what sums are multiplied by.
  void Pack(int64_t tokens, bool shorts);
  // Entries of rows (or pairs of rows) [first, first + count) and one head's channels.
  void MakeSlab(const ProfileGroup& group, int32_t first_channel, int64_t first, int64_t count,
                bool shorts);
  // Sums of one head and up to 8 tokens -> out.
  void Finish(int64_t first_token, int64_t count, const int32_t* sums, bool shorts,
              const HeadPlace& place, const float* unit, const float* mean,
              const MutableKvView& out);

  const ProfileData& profile_;
  RopeTable rope_;
  std::vector<int32_t> rows_;    // of the group, not zero throughout
  std::vector<float> values_;    // [row][token], tokens padded
  std::vector<float> norm_;      // by token: squares, then scales
  std::vector<int32_t> packed_;  // [token / 8][row or pair of rows][8]: floats or pairs of int16
  std::vector<int32_t> slab_;    // [row or pair of rows][channel of a head]
  std::vector<int32_t> sums_;    // [token][channel of a head]
  std::vector<uint16_t> halves_;
  std::vector<float> line_;
};

}  // namespace kvstream

#endif  // KVSTREAM_CODEC_INVERSE_TRANSFORM_H_

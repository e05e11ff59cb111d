// Cells of a chunk -> KV in the caller's memory: dequantisation, inverse transform, means and
// units, RoPE, rounding to 16 bits. Highway kernels, picked at run time.
//
// The product runs in 16-bit integers with 32-bit sums wherever that is as good as exact. A group's
// coordinates are scaled so that the longest token's Euclidean norm is below 32767, and an integer
// f stands for a step of the level; the transform's entries so that 1 is 32767. By Cauchy and
// Schwarz no sum then exceeds 2^31. With a norm of n steps of the level f is 32767 / n rounded
// down, and the two roundings together add an error of ((1 / f^2 + (n / 32767)^2) / 12)^0.5 steps
// (root mean square) to a channel. A group where that is over 1/50 is multiplied in floats. Integer
// sums come out the same on every machine.
#ifndef KVSTREAM_CODEC_INVERSE_TRANSFORM_H_
#define KVSTREAM_CODEC_INVERSE_TRANSFORM_H_

#include <cstdint>
#include <vector>

#include "codec/cell_rows.h"
#include "codec/kv_panels.h"
#include "codec/kv_view.h"
#include "codec/profile_data.h"
#include "codec/rope.h"

namespace kvstream {

// Error of a channel (root mean square) that the roundings to 16 bits may add, in steps of the
// level.
constexpr double kShortProductShare = 0.02;

enum class ProductKind { kAuto, kFloat, kShort };

// Not thread-safe: holds scratch memory, some 2 to 4 bytes a value of the largest group. `profile`
// is borrowed.
class InverseTransform {
 public:
  explicit InverseTransform(const ProfileData& profile);

  // Writes the channels of `group`, of all tokens of `out`, whose first stands at `position`.
  // cells: of all coordinates of the profile, of as many tokens. classes: by coordinate. mean,
  // unit: by channel. kind: for tests.
  void Run(const ProfileGroup& group, int level, const CellRows& cells,
           const std::vector<uint8_t>& classes, const std::vector<float>& mean,
           const std::vector<float>& unit, int64_t position, const MutableKvView& out,
           ProductKind kind = ProductKind::kAuto);

 private:
  // Fills rows_; returns a bound of the longest token's norm, in steps of the level.
  float Measure(const ProfileGroup& group, int level, const CellRows& cells,
                const std::vector<uint8_t>& classes);
  // What a step of the level counts in integers, for tokens of that norm; 0: integers are not exact
  // enough, unless `always`.
  static int ShortFactor(float norm, bool always);
  // Cells of rows_ -> packed_: pairs of integers of which `factor` is a step of the level, or
  // floats if it is 0.
  void Place(const ProfileGroup& group, int level, const CellRows& cells,
             const std::vector<uint8_t>& classes, int factor);
  // Entries of rows (or pairs of rows) [first, first + count) and one head's channels.
  void MakeSlab(const ProfileGroup& group, int32_t first_channel, int64_t first, int64_t count,
                bool shorts);
  // Sums of one head and up to 8 tokens -> out.
  void Finish(int64_t first_token, int64_t count, const int32_t* sums, bool shorts,
              const HeadPlace& place, const float* mean, const MutableKvView& out);

  const ProfileData& profile_;
  RopeTable rope_;
  std::vector<int32_t> rows_;    // of the group, not zero throughout
  std::vector<float> norm_;      // by token: squares
  std::vector<float> values_;    // of a row
  std::vector<int16_t> shorts_;  // of two rows
  std::vector<int32_t> packed_;  // [token / 8][row or pair of rows][8]: floats or pairs of int16
  std::vector<int32_t> slab_;    // [row or pair of rows][channel of a head]
  std::vector<int32_t> sums_;    // [token][channel of a head]
  std::vector<uint16_t> halves_;
  std::vector<float> factor_;  // by channel of a head: what sums are multiplied by
  std::vector<float> line_;
};

}  // namespace kvstream

#endif  // KVSTREAM_CODEC_INVERSE_TRANSFORM_H_

// Rotary position embedding: undone before keys are coded, applied again after.
#ifndef KVSTREAM_CODEC_ROPE_H_
#define KVSTREAM_CODEC_ROPE_H_

#include <cstdint>
#include <vector>

#include "codec/geometry.h"

namespace kvstream {

// cos and sin of some consecutive positions. Not thread-safe while Prepare runs.
class RopeTable {
 public:
  explicit RopeTable(const RopeParameters& parameters) : rope_(parameters) {}

  // Makes the table of positions [first_position, first_position + tokens). Cost: tokens *
  // rotary_size / 2 sines, nothing if the table already covers them. Angles are computed in double.
  void Prepare(int64_t first_position, int64_t tokens);

  // Turns the channels of one head of the token at first_position + token. head: its first channel;
  // at least rotary_offset + rotary_size floats.
  void Apply(int64_t token, float* head) const { Rotate(token, head, 1.0f, scale_); }
  // The inverse of Apply.
  void Undo(int64_t token, float* head) const { Rotate(token, head, -1.0f, inverse_scale_); }

  // cos and sin of the pairs of the token at first_position + token, attention_factor left out.
  const float* Cosines(int64_t token) const {
    return cos_.data() + token * rope_.inverse_frequency.size();
  }
  const float* Sines(int64_t token) const {
    return sin_.data() + token * rope_.inverse_frequency.size();
  }
  const RopeParameters& parameters() const { return rope_; }

 private:
  void Rotate(int64_t token, float* head, float direction, float scale) const;

  const RopeParameters rope_;
  const float scale_ = static_cast<float>(rope_.attention_factor);
  const float inverse_scale_ = static_cast<float>(1 / rope_.attention_factor);
  int64_t first_position_ = 0;
  int64_t tokens_ = 0;
  std::vector<float> cos_;  // [token][pair]
  std::vector<float> sin_;
};

}  // namespace kvstream

#endif  // KVSTREAM_CODEC_ROPE_H_

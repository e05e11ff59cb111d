#include "codec/rope.h"

#include <cmath>

namespace kvstream {

void RopeTable::Prepare(int64_t first_position, int64_t tokens) {
  if (rope_.layout == RopeParameters::Layout::kNone) return;
  if (first_position == first_position_ && tokens <= tokens_) return;
  const size_t pairs = rope_.inverse_frequency.size();
  cos_.resize(tokens * pairs);
  sin_.resize(tokens * pairs);
  for (int64_t token = 0; token < tokens; ++token) {
    for (size_t pair = 0; pair < pairs; ++pair) {
      const double angle =
          static_cast<double>(first_position + token) * rope_.inverse_frequency[pair];
      cos_[token * pairs + pair] = static_cast<float>(std::cos(angle));
      sin_[token * pairs + pair] = static_cast<float>(std::sin(angle));
    }
  }
  first_position_ = first_position;
  tokens_ = tokens;
}

void RopeTable::Rotate(int64_t token, float* head, float direction, float scale) const {
  if (rope_.layout == RopeParameters::Layout::kNone) return;
  const int pairs = static_cast<int>(rope_.inverse_frequency.size());
  const float* cosine = cos_.data() + token * pairs;
  const float* sine = sin_.data() + token * pairs;
  const bool half_split = rope_.layout == RopeParameters::Layout::kHalfSplit;
  const int step = half_split ? 1 : 2;
  const int partner = half_split ? pairs : 1;
  for (int pair = 0; pair < pairs; ++pair) {
    float* first = head + rope_.rotary_offset + pair * step;
    float* second = first + partner;
    const float c = cosine[pair] * scale;
    const float s = sine[pair] * direction * scale;
    const float a = *first;
    const float b = *second;
    *first = a * c - b * s;
    *second = b * c + a * s;
  }
}

}  // namespace kvstream

#include "codec/geometry.h"

#include <cmath>
#include <cstddef>

#include "absl/strings/str_cat.h"

namespace kvstream {
namespace {

// Bounds that no model in use comes near to; they keep every product of dimensions inside int64_t
// and every buffer of one token under 4 GiB.
constexpr int kLayersMax = 1024;
constexpr int kKvHeadsMax = 1024;
constexpr int kHeadSizeMax = 1024;
constexpr double kAttentionFactorMax = 1e3;
// Radians per token. The fastest pair of every RoPE turns by 1; scalings only slow it down.
constexpr double kInverseFrequencyMax = 1e3;

absl::Status CheckRange(const char* field, int value, int max) {
  if (value >= 1 && value <= max) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("geometry: ", field, " is ", value, ", must be 1 to ", max));
}

absl::Status ValidateRope(const RopeParameters& rope, int head_size) {
  switch (rope.layout) {
    case RopeParameters::Layout::kNone:
      if (!rope.inverse_frequency.empty()) {
        return absl::InvalidArgumentError(
            "geometry: rope.inverse_frequency is given although rope.layout is none");
      }
      if (rope.attention_factor != 1 || rope.rotary_offset != 0) {
        return absl::InvalidArgumentError(
            "geometry: rope.attention_factor must be 1 and rope.rotary_offset 0 where rope.layout "
            "is "
            "none");
      }
      return absl::OkStatus();
    case RopeParameters::Layout::kHalfSplit:
    case RopeParameters::Layout::kInterleaved:
      break;
    default:
      return absl::InvalidArgumentError(absl::StrCat(
          "geometry: rope.layout is ", static_cast<int>(rope.layout), ", must be 0 to 2"));
  }
  const size_t pairs_max = static_cast<size_t>(head_size) / 2;
  if (rope.inverse_frequency.empty() || rope.inverse_frequency.size() > pairs_max) {
    return absl::InvalidArgumentError(
        absl::StrCat("geometry: rope.inverse_frequency has ", rope.inverse_frequency.size(),
                     " entries, must be 1 to ", pairs_max, " (head_size / 2)"));
  }
  if (rope.rotary_offset < 0 || rope.rotary_offset > head_size - rope.rotary_size()) {
    return absl::InvalidArgumentError(
        absl::StrCat("geometry: rope.rotary_offset is ", rope.rotary_offset, ", must be 0 to ",
                     head_size - rope.rotary_size(), " (head_size - rotary_size)"));
  }
  for (size_t i = 0; i < rope.inverse_frequency.size(); ++i) {
    const double frequency = rope.inverse_frequency[i];
    // Written so that NaN fails too.
    if (!(frequency > 0 && frequency <= kInverseFrequencyMax)) {
      return absl::InvalidArgumentError(
          absl::StrCat("geometry: rope.inverse_frequency[", i, "] is ", frequency,
                       ", must be positive and at most ", kInverseFrequencyMax));
    }
  }
  if (!(rope.attention_factor > 0 && rope.attention_factor <= kAttentionFactorMax)) {
    return absl::InvalidArgumentError(
        absl::StrCat("geometry: rope.attention_factor is ", rope.attention_factor,
                     ", must be positive and at most ", kAttentionFactorMax));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status KvGeometry::Validate() const {
  for (const absl::Status& status :
       {CheckRange("layers", layers, kLayersMax), CheckRange("kv_heads", kv_heads, kKvHeadsMax),
        CheckRange("head_size", head_size, kHeadSizeMax)}) {
    if (!status.ok()) return status;
  }
  if (planes != 1 && planes != 2) {
    return absl::InvalidArgumentError(
        absl::StrCat("geometry: planes is ", planes, ", must be 1 (latent) or 2 (keys, values)"));
  }
  if (dtype != KvDtype::kF16 && dtype != KvDtype::kBF16) {
    return absl::InvalidArgumentError(absl::StrCat("geometry: dtype is ", static_cast<int>(dtype),
                                                   ", must be 0 (F16) or 1 (BF16)"));
  }
  return ValidateRope(rope, head_size);
}

}  // namespace kvstream

#include "codec/kv_panels.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "codec/forward_kernels.h"
#include "codec/panel_multiply.h"

namespace kvstream {

HeadPlace PlaceOf(const KvGeometry& geometry, int64_t index) {
  const int64_t per_layer = int64_t{geometry.planes} * geometry.kv_heads;
  const int64_t in_layer = index % per_layer;
  return {static_cast<int>(index / per_layer), in_layer >= geometry.kv_heads,
          static_cast<int>(in_layer % geometry.kv_heads)};
}

namespace {

template <typename View>
absl::Status CheckView(const KvGeometry& geometry, const View& kv) {
  const size_t layers = static_cast<size_t>(geometry.layers);
  const size_t values = geometry.has_values() ? layers : 0;
  if (kv.keys.size() != layers || kv.values.size() != values) {
    return absl::InvalidArgumentError(
        absl::StrCat("kv: has ", kv.keys.size(), " layers of keys and ", kv.values.size(),
                     " of values, the profile has ", layers, " of keys (or latents) and ", values,
                     " of values"));
  }
  for (const auto* tensors : {&kv.keys, &kv.values}) {
    for (const auto& tensor : *tensors) {
      if (tensor.data == nullptr) return absl::InvalidArgumentError("kv: a tensor has no data");
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckKvView(const KvGeometry& geometry, const KvView& kv) {
  return CheckView(geometry, kv);
}
absl::Status CheckKvView(const KvGeometry& geometry, const MutableKvView& kv) {
  return CheckView(geometry, kv);
}

void KvPanels::Undo(int64_t token, float* head) const {
  const RopeParameters& rope = geometry_.rope;
  if (rope.layout != RopeParameters::Layout::kHalfSplit) {
    rope_.Undo(token, head);
    return;
  }
  const float scale = static_cast<float>(1 / rope.attention_factor);
  const int64_t pairs = rope.rotary_size() / 2;
  RotateHalves(rope_.Cosines(token), rope_.Sines(token), scale, -scale, pairs, head, head + pairs);
}

bool KvPanels::Load(const KvView& kv, int64_t first_position, int32_t first_channel,
                    int32_t channels, const std::vector<float>& mean,
                    const std::vector<float>& unit, float* out) {
  const int size = geometry_.head_size;
  rope_.Prepare(first_position, kv.tokens);
  bool finite = true;
  for (int32_t offset = 0; offset < channels; offset += size) {
    const HeadPlace place = PlaceOf(geometry_, (first_channel + offset) / size);
    const KvTensor& tensor = place.values ? kv.values[place.layer] : kv.keys[place.layer];
    const float* means = mean.data() + first_channel + offset;
    for (int i = 0; i < size; ++i) inverse_[i] = 1.0f / unit[first_channel + offset + i];
    for (int64_t token = 0; token < PanelCount(kv.tokens) * kPanelColumns; token += 4) {
      for (int64_t t = 0; t < 4; ++t) {
        float* const row = rows_.data() + t * size;
        if (token + t < kv.tokens) {
          finite &= WidenLine(tensor.at(token + t, place.head), size, geometry_.dtype, row);
          if (!place.values) Undo(token + t, row);
        } else {
          std::copy(means, means + size, row);  // gives 0
        }
      }
      NormaliseFour(rows_.data(), size, size, means, inverse_.data(),
                    out + ((token / kPanelColumns) * channels + offset) * kPanelColumns +
                        token % kPanelColumns);
    }
  }
  return finite;
}

}  // namespace kvstream

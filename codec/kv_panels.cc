#include "codec/kv_panels.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "codec/float16.h"
#include "codec/panel_multiply.h"

namespace kvstream {

HeadPlace PlaceOf(const KvGeometry& geometry, int64_t index) {
  const int64_t per_layer = int64_t{geometry.planes} * geometry.kv_heads;
  const int64_t in_layer = index % per_layer;
  return {static_cast<int>(index / per_layer), in_layer >= geometry.kv_heads,
          static_cast<int>(in_layer % geometry.kv_heads)};
}

namespace {

template <KvDtype kDtype>
bool ToFloats(const uint16_t* in, int count, float* out) {
  bool finite = true;
  for (int i = 0; i < count; ++i) {
    finite &= IsFinite16(in[i], kDtype);
    out[i] = FloatFrom16(in[i], kDtype);
  }
  return finite;
}

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

bool KvPanels::Load(const KvView& kv, int64_t first_position, int32_t first_channel,
                    int32_t channels, const std::vector<float>& mean,
                    const std::vector<float>& unit, float* out) {
  const int size = geometry_.head_size;
  rope_.Prepare(first_position, kv.tokens);
  std::vector<float> inverse(size);
  bool finite = true;
  for (int32_t offset = 0; offset < channels; offset += size) {
    const HeadPlace place = PlaceOf(geometry_, (first_channel + offset) / size);
    const KvTensor& tensor = place.values ? kv.values[place.layer] : kv.keys[place.layer];
    const float* means = mean.data() + first_channel + offset;
    for (int i = 0; i < size; ++i) inverse[i] = 1.0f / unit[first_channel + offset + i];
    for (int64_t token = 0; token < kv.tokens; ++token) {
      const uint16_t* source = tensor.at(token, place.head);
      finite &= geometry_.dtype == KvDtype::kF16
                    ? ToFloats<KvDtype::kF16>(source, size, row_.data())
                    : ToFloats<KvDtype::kBF16>(source, size, row_.data());
      if (!place.values) rope_.Undo(token, row_.data());
      float* target = out + ((token / kPanelColumns) * channels + offset) * kPanelColumns +
                      token % kPanelColumns;
      for (int i = 0; i < size; ++i) target[i * kPanelColumns] = (row_[i] - means[i]) * inverse[i];
    }
    for (int64_t column = kv.tokens; column % kPanelColumns != 0; ++column) {
      float* target = out + ((column / kPanelColumns) * channels + offset) * kPanelColumns +
                      column % kPanelColumns;
      for (int i = 0; i < size; ++i) target[i * kPanelColumns] = 0;
    }
  }
  return finite;
}

}  // namespace kvstream

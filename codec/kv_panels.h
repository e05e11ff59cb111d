// KV in the caller's memory -> panels of normalised channels (panel_multiply.h), with RoPE undone.
// The way back is inverse_transform.h.
#ifndef KVSTREAM_CODEC_KV_PANELS_H_
#define KVSTREAM_CODEC_KV_PANELS_H_

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "codec/geometry.h"
#include "codec/kv_view.h"
#include "codec/rope.h"

namespace kvstream {

// Where a head of the model lies: head number `index` of all, in the order of channels.
struct HeadPlace {
  int layer;
  bool values;
  int head;
};
HeadPlace PlaceOf(const KvGeometry& geometry, int64_t index);

// INVALID_ARGUMENT unless the view has the geometry's layers and planes, every tensor has data.
absl::Status CheckKvView(const KvGeometry& geometry, const KvView& kv);
absl::Status CheckKvView(const KvGeometry& geometry, const MutableKvView& kv);

// Not thread-safe: holds the rotation table. Channels are numbered as in profile_data.h; ranges of
// channels are whole heads.
class KvPanels {
 public:
  explicit KvPanels(const KvGeometry& geometry)
      : geometry_(geometry),
        rope_(geometry.rope),
        rows_(4 * geometry.head_size),
        inverse_(geometry.head_size) {}

  // out, [panel][channel - first_channel][32] floats: (x - mean) / unit of every token of kv, whose
  // first stands at first_position; columns beyond the last token are 0. mean and unit have an
  // entry for every channel of the model. False if a value is not finite.
  bool Load(const KvView& kv, int64_t first_position, int32_t first_channel, int32_t channels,
            const std::vector<float>& mean, const std::vector<float>& unit, float* out);

 private:
  void Undo(int64_t token, float* head) const;

  const KvGeometry geometry_;
  RopeTable rope_;
  std::vector<float> rows_;     // of four tokens
  std::vector<float> inverse_;  // of a head's units
};

}  // namespace kvstream

#endif  // KVSTREAM_CODEC_KV_PANELS_H_

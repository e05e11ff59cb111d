#include "codec/cuda/internal/shard_layout.h"

#include <algorithm>
#include <cstring>

#include "absl/strings/str_cat.h"

namespace kvstream {
namespace cuda {
namespace {

// A channel of a head and the other one of its rotated pair, itself if it is not rotated.
struct Pairing {
  int partner;
  int pair;  // -1: none
  bool second;
};

Pairing PairingOf(const RopeParameters& rope, bool keys, int place) {
  const int pairs = static_cast<int>(rope.inverse_frequency.size());
  const int offset = rope.rotary_offset;
  const int i = place - offset;
  if (!keys || rope.layout == RopeParameters::Layout::kNone || i < 0 || i >= 2 * pairs)
    return {place, -1, false};
  if (rope.layout == RopeParameters::Layout::kHalfSplit) {
    const bool second = i >= pairs;
    return {offset + (second ? i - pairs : i + pairs), second ? i - pairs : i, second};
  }
  return {offset + (i ^ 1), i / 2, i % 2 == 1};
}

// Lays out one group's slots tile by tile.
class SlotWriter {
 public:
  SlotWriter(const KvGeometry& geometry, ShardLayout* layout)
      : geometry_(geometry), layout_(*layout) {}

  // All channels of one head, of which `like` names tensor, head and channel 0.
  void AddHead(const SlotDev& like, bool keys) {
    const int size = geometry_.head_size;
    if (size <= kTileSlots && size > kTileSlots - static_cast<int>(tile_.size())) Close();
    std::vector<bool> placed(size, false);
    for (int place = 0; place < size; ++place) {
      if (placed[place]) continue;
      const Pairing pairing = PairingOf(geometry_.rope, keys, place);
      const int needed = pairing.partner == place ? 1 : 2;
      if (static_cast<int>(tile_.size()) + needed > kTileSlots) Close();
      Add(like, keys, place);
      placed[place] = true;
      if (needed == 2) Add(like, keys, pairing.partner);
      placed[pairing.partner] = true;
    }
  }

  // Ends the tile: runs of channels in order, partners, padding.
  void Close() {
    if (tile_.empty()) return;
    std::sort(tile_.begin(), tile_.end(),
              [](const SlotDev& a, const SlotDev& b) { return a.channel < b.channel; });
    for (SlotDev& slot : tile_) {
      if (slot.pair < 0) continue;
      const int32_t partner = slot.channel + slot.partner;
      slot.partner = static_cast<int32_t>(
          std::lower_bound(tile_.begin(), tile_.end(), partner,
                           [](const SlotDev& a, int32_t channel) { return a.channel < channel; }) -
          tile_.begin());
    }
    SlotDev padding = {};
    padding.channel = -1;
    padding.pair = -1;
    tile_.resize(kTileSlots, padding);
    layout_.slots.insert(layout_.slots.end(), tile_.begin(), tile_.end());
    tile_.clear();
  }

 private:
  void Add(const SlotDev& like, bool keys, int place) {
    const Pairing pairing = PairingOf(geometry_.rope, keys, place);
    SlotDev slot = like;
    slot.channel += place;
    slot.place = place;
    slot.pair = pairing.pair;
    slot.partner = pairing.partner - place;  // until Close
    slot.second = pairing.second ? 1 : 0;
    tile_.push_back(slot);
  }

  const KvGeometry& geometry_;
  ShardLayout& layout_;
  std::vector<SlotDev> tile_;
};

}  // namespace

absl::StatusOr<ShardLayout> MakeShardLayout(const ProfileData& profile, const DeviceShard& shard) {
  const KvGeometry& geometry = profile.geometry;
  ShardLayout out;
  out.shard = shard;
  out.planes = geometry.planes;
  if (out.shard.layers == 0) out.shard.layers = geometry.layers - shard.first_layer;
  if (out.shard.heads == 0) out.shard.heads = geometry.kv_heads - shard.first_head;
  if (shard.first_layer < 0 || out.shard.layers < 1 ||
      out.shard.layers > geometry.layers - shard.first_layer) {
    return absl::InvalidArgumentError(absl::StrCat("shard: layers ", shard.first_layer, " to ",
                                                   shard.first_layer + out.shard.layers,
                                                   " are not among the model's ", geometry.layers));
  }
  if (shard.first_head < 0 || out.shard.heads < 1 ||
      out.shard.heads > geometry.kv_heads - shard.first_head) {
    return absl::InvalidArgumentError(
        absl::StrCat("shard: heads ", shard.first_head, " to ", shard.first_head + out.shard.heads,
                     " are not among the model's ", geometry.kv_heads));
  }
  for (const ProfileGroup& group : profile.groups) {
    GroupDev packed = {};
    packed.first_coordinate = group.first_coordinate;
    packed.rank = group.rank;
    packed.first_slot = static_cast<int32_t>(out.slots.size());
    packed.matrix_offset = out.matrix_halves;
    SlotWriter writer(geometry, &out);
    for (int32_t channel = group.first_channel; channel < group.first_channel + group.channels;
         channel += geometry.head_size) {
      const int index = channel / geometry.head_size;
      const int head = index % geometry.kv_heads - out.shard.first_head;
      const int plane = index / geometry.kv_heads % out.planes;
      const int layer = index / geometry.kv_heads / out.planes - out.shard.first_layer;
      if (head < 0 || head >= out.shard.heads || layer < 0 || layer >= out.shard.layers) continue;
      SlotDev like = {};
      like.channel = channel;
      like.tensor = layer * out.planes + plane;
      like.head = head;
      writer.AddHead(like, plane == 0);
    }
    writer.Close();
    packed.slots = static_cast<int32_t>(out.slots.size()) - packed.first_slot;
    out.matrix_halves += profile.calibrated ? static_cast<uint64_t>(packed.rank) * packed.slots : 0;
    out.tile_group.resize(out.slots.size() / kTileSlots, static_cast<int32_t>(out.groups.size()));
    out.groups.push_back(packed);
  }
  return out;
}

std::vector<uint16_t> PackRows(const ProfileData& profile, const ShardLayout& layout, int group,
                               int first, int count) {
  const GroupDev& packed = layout.groups[group];
  const ProfileGroup& source = profile.groups[group];
  const HalfMatrix matrix = profile.Matrix(source);
  std::vector<uint16_t> out(static_cast<size_t>(count) * packed.slots, 0);
  for (int row = 0; row < count; ++row) {
    const char* const from = matrix.data + static_cast<int64_t>(first + row) * matrix.columns * 2;
    uint16_t* const to = out.data() + static_cast<size_t>(row) * packed.slots;
    for (int slot = 0; slot < packed.slots; ++slot) {
      const int32_t channel = layout.slots[packed.first_slot + slot].channel;
      if (channel >= 0) std::memcpy(&to[slot], from + 2 * (channel - source.first_channel), 2);
    }
  }
  return out;
}

}  // namespace cuda
}  // namespace kvstream

// Parsed fields of a profile. Internal to the codec.
//
// Channels are numbered [layer][plane][head][channel of the head]; planes are keys and values, or
// one latent. In the normalised domain,
// channel c of a token (keys before RoPE) is (x - mean[c]) / unit[c]; the unit holds the layer's
// standard deviation, the query weight, the ratio of value to key step and the base step, so that
// level 0 has step 1 for every coordinate. A group is a run of consecutive channels with one
// transform.
#ifndef KVSTREAM_CODEC_PROFILE_DATA_H_
#define KVSTREAM_CODEC_PROFILE_DATA_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "codec/class_tables.h"
#include "codec/exact_tokens.h"
#include "codec/geometry.h"
#include "codec/panel_multiply.h"
#include "codec/profile.h"

namespace kvstream {

enum class GroupKind : uint8_t { kNone = 0, kHead = 1, kLayers = 2, kModel = 3 };

struct ProfileGroup {
  int32_t first_channel = 0;
  int32_t channels = 0;
  int32_t rank = 0;
  int32_t first_coordinate = 0;
  uint64_t matrix_offset =
      0;  // of [rank][channels] halves within serialized; unused without calibration (identity)
};

struct ProfileData {
  std::string serialized;
  ProfileId id = {};
  KvGeometry geometry;
  int chunk_tokens = 0;
  int sink_tokens = 0;
  int levels = 0;
  std::vector<double> steps;
  bool calibrated = false;
  GroupKind group_kind = GroupKind::kNone;
  int group_layers = 0;
  ReferenceTokens references;  // by position, as many as sink_tokens
  std::vector<float> mean;     // [channel]
  std::vector<float> unit;     // [channel], positive
  std::vector<ProfileGroup> groups;
  int32_t coordinates = 0;
  std::vector<uint8_t> classes;  // [coordinate]
  ClassTables tables;

  int32_t channels() const { return static_cast<int32_t>(geometry.values_per_token()); }
  HalfMatrix Matrix(const ProfileGroup& group) const {
    return {serialized.data() + group.matrix_offset, group.rank, group.channels};
  }
};

// What BuildProfile hands over: fields of ProfileData and the transforms, [rank][channels] halves
// of each group in order.
struct ProfileFields {
  ProfileData data;                             // serialized, id and offsets unset
  std::vector<std::vector<uint16_t>> matrices;  // by group; empty without calibration
};

// The bytes of docs/format.md, sealed with their checksum.
std::string SerializeProfile(const ProfileFields& fields);

}  // namespace kvstream

#endif  // KVSTREAM_CODEC_PROFILE_DATA_H_

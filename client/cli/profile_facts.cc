#include "client/cli/profile_facts.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "client/cli/command.h"
#include "client/units.h"

namespace kvstream::cli {
namespace {

const char* DtypeName(KvDtype dtype) { return dtype == KvDtype::kF16 ? "F16" : "BF16"; }

const char* LayoutName(RopeParameters::Layout layout) {
  switch (layout) {
    case RopeParameters::Layout::kNone:
      return "none";
    case RopeParameters::Layout::kHalfSplit:
      return "half_split";
    case RopeParameters::Layout::kInterleaved:
      return "interleaved";
  }
  return "unknown";
}

}  // namespace

Json ProfileJson(const Profile& profile) {
  const KvGeometry& geometry = profile.geometry();
  Json steps = Json::array();
  for (int level = 0; level < profile.levels(); ++level) steps.push_back(profile.step(level));
  return {{"profile_id", HexOf(profile.id())},
          {"bytes", profile.serialized().size()},
          {"layers", geometry.layers},
          {"planes", geometry.planes},
          {"kv_heads", geometry.kv_heads},
          {"head_size", geometry.head_size},
          {"dtype", DtypeName(geometry.dtype)},
          {"values_per_token", geometry.values_per_token()},
          {"rope",
           {{"layout", LayoutName(geometry.rope.layout)},
            {"rotary_size", geometry.rope.rotary_size()},
            {"rotary_offset", geometry.rope.rotary_offset},
            {"attention_factor", geometry.rope.attention_factor}}},
          {"chunk_tokens", profile.chunk_tokens()},
          {"sink_tokens", profile.sink_tokens()},
          {"calibrated", profile.calibrated()},
          {"group", profile.group_description()},
          {"groups", profile.groups()},
          {"coordinates", profile.coordinates()},
          {"steps", std::move(steps)}};
}

std::string ProfileText(const Profile& profile) {
  const KvGeometry& geometry = profile.geometry();
  const std::string shape =
      geometry.has_values()
          ? absl::StrFormat("%d KV heads x %d", geometry.kv_heads, geometry.head_size)
          : absl::StrFormat("a latent of %d", geometry.tensor_channels());
  std::string text = absl::StrFormat(
      "profile      %s (%s)\n"
      "model        %d layers x %s, %s, %d values a token\n"
      "RoPE         %s, %d channels from %d on, attention factor %g\n"
      "chunks       %d tokens, the first %d tokens of a context exact\n",
      HexOf(profile.id()), FormatBytes(profile.serialized().size()), geometry.layers, shape,
      DtypeName(geometry.dtype), geometry.values_per_token(), LayoutName(geometry.rope.layout),
      geometry.rope.rotary_size(), geometry.rope.rotary_offset, geometry.rope.attention_factor,
      profile.chunk_tokens(), profile.sink_tokens());
  if (profile.calibrated()) {
    absl::StrAppendFormat(&text, "transform    per %s: %d groups, %d coordinates of %d\n",
                          profile.group_description(), profile.groups(), profile.coordinates(),
                          geometry.values_per_token());
  } else {
    absl::StrAppend(&text, "transform    none (not calibrated)\n");
  }
  for (int level = 0; level < profile.levels(); ++level) {
    absl::StrAppendFormat(&text, "level %-6d step %g\n", level, profile.step(level));
  }
  return text;
}

}  // namespace kvstream::cli

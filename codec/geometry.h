// What the codec must know about a model's KV cache: its shape and its rotary position embedding.
#ifndef KVSTREAM_CODEC_GEOMETRY_H_
#define KVSTREAM_CODEC_GEOMETRY_H_

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace kvstream {

// Element type of a KV cache; both take 2 bytes.
enum class KvDtype : uint8_t { kF16 = 0, kBF16 = 1 };

// Rotary position embedding as the model's keys carry it, whatever scaling produced it (linear,
// llama3, yarn, ...): pair i of a head is turned by position * inverse_frequency[i] and multiplied
// by attention_factor.
struct RopeParameters {
  enum class Layout : uint8_t {
    kNone = 0,         // keys carry no position
    kHalfSplit = 1,    // channel i pairs with channel i + rotary_size / 2 (Hugging Face LLaMA)
    kInterleaved = 2,  // channel 2i pairs with channel 2i + 1 (GPT-J, some GLM, DeepSeek)
  };
  Layout layout = Layout::kNone;
  // Radians per token, rotary_size / 2 entries. Channels [rotary_offset, rotary_offset +
  // rotary_size) of a head are rotated, the rest are not (partial RoPE); channel numbers above
  // count from the offset.
  std::vector<double> inverse_frequency;
  // 0 but for a latent, whose rotated part stands last.
  int rotary_offset = 0;
  // cos and sin are multiplied by it (YaRN's mscale); 1 for most models.
  double attention_factor = 1;

  int rotary_size() const { return static_cast<int>(inverse_frequency.size()) * 2; }
};

struct KvGeometry {
  int layers = 0;
  int kv_heads = 0;
  int head_size = 0;  // of keys and of values
  // Tensors of a layer: 2, keys and values; or 1, a latent from which attention makes both (MLA),
  // which stands wherever keys do.
  int planes = 2;
  KvDtype dtype = KvDtype::kBF16;
  RopeParameters rope;

  bool has_values() const { return planes == 2; }
  // Values that one token has in one tensor, and in all of them.
  int32_t tensor_channels() const { return kv_heads * head_size; }
  int64_t values_per_token() const { return int64_t{planes} * layers * kv_heads * head_size; }
  // Parts of a tensor with a scale of their own: keys and values have one; a latent has two where
  // only some of its channels are rotated, since it is two vectors that the model scales apart.
  int parts() const {
    const bool mixed = rope.rotary_size() > 0 && rope.rotary_size() < head_size;
    return planes == 1 && mixed ? 2 : 1;
  }
  // The part of channel c of a tensor: 1 for the rotated channels where there are two parts.
  int PartOf(int32_t c) const {
    const int in_head = c % head_size - rope.rotary_offset;
    return parts() == 2 && in_head >= 0 && in_head < rope.rotary_size() ? 1 : 0;
  }
  // INVALID_ARGUMENT naming the field that is out of range.
  absl::Status Validate() const;
};

// Reads the geometry from the text of a Hugging Face config.json (MHA, GQA, MQA or MLA; nested
// text_config; rope_scaling of kinds default, linear, dynamic, llama3, yarn, longrope;
// partial_rotary_factor). MLA gives what vLLM and SGLang cache: one head of kv_lora_rank channels
// of the normalised latent, then qk_rope_head_dim channels of the shared rotated key. Errors:
// INVALID_ARGUMENT naming the key that is missing, of the wrong type or not supported.
absl::StatusOr<KvGeometry> GeometryFromConfigJson(absl::string_view json);

}  // namespace kvstream

#endif  // KVSTREAM_CODEC_GEOMETRY_H_

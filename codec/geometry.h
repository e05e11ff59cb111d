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
    kInterleaved = 2,  // channel 2i pairs with channel 2i + 1 (GPT-J, some GLM)
  };
  Layout layout = Layout::kNone;
  // Radians per token, rotary_size / 2 entries; the first rotary_size channels of a head are
  // rotated, the rest are not (partial RoPE).
  std::vector<double> inverse_frequency;
  // cos and sin are multiplied by it (YaRN's mscale); 1 for most models.
  double attention_factor = 1;

  int rotary_size() const { return static_cast<int>(inverse_frequency.size()) * 2; }
};

struct KvGeometry {
  int layers = 0;
  int kv_heads = 0;
  int head_size = 0;  // of keys and of values
  KvDtype dtype = KvDtype::kBF16;
  RopeParameters rope;

  // Values of keys and values together that one token has: layers * 2 * kv_heads * head_size.
  int64_t values_per_token() const { return int64_t{2} * layers * kv_heads * head_size; }
  // INVALID_ARGUMENT naming the field that is out of range.
  absl::Status Validate() const;
};

// Reads the geometry from the text of a Hugging Face config.json (MHA, GQA or MQA; nested
// text_config; rope_scaling of kinds default, linear, dynamic, llama3, yarn, longrope;
// partial_rotary_factor). Errors: INVALID_ARGUMENT naming the key that is missing, of the wrong
// type or not supported.
absl::StatusOr<KvGeometry> GeometryFromConfigJson(absl::string_view json);

}  // namespace kvstream

#endif  // KVSTREAM_CODEC_GEOMETRY_H_

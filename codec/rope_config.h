// The rotary position embedding that a Hugging Face config.json describes. Private to the geometry
// reader.
#ifndef KVSTREAM_CODEC_ROPE_CONFIG_H_
#define KVSTREAM_CODEC_ROPE_CONFIG_H_

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "codec/config_json.h"
#include "codec/geometry.h"

namespace kvstream {

// config: the object that describes the language model. head_size: of its keys; for latent
// attention
// (`latent`) of their rotated part alone, all of whose channels turn, and which is interleaved
// unless the file says otherwise. model_type: "" if the file does not say. Errors: INVALID_ARGUMENT
// naming the key.
//
// Choices where a configuration leaves one:
// - a model type that is not known, without any key about positions, is taken to have half-split
// RoPE of base 10000 (early LLaMA);
// - `dynamic` scaling changes frequencies only beyond the original length; it is read as no
// scaling;
// - `longrope` has two sets of factors; the long ones are taken if max_position_embeddings exceeds
//   original_max_position_embeddings (what vLLM does for the whole run), else the short ones;
// - `mrope` gives text tokens three equal positions; it is read as default RoPE.
// A wrong choice costs compression, never correctness: the codec undoes and redoes the same
// rotation.
absl::StatusOr<RopeParameters> RopeFromConfig(const ConfigObject& config,
                                              absl::string_view model_type, int head_size,
                                              bool latent = false);

}  // namespace kvstream

#endif  // KVSTREAM_CODEC_ROPE_CONFIG_H_

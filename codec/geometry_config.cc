// GeometryFromConfigJson: a Hugging Face config.json as the shape of a KV cache.
#include <algorithm>
#include <string>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "codec/config_json.h"
#include "codec/geometry.h"
#include "codec/rope_config.h"

namespace kvstream {
namespace {

using nlohmann::json;

constexpr int kDimensionMax = 1024;  // as KvGeometry::Validate
constexpr int kHeadsMax = 1 << 16;
constexpr int kHiddenMax = 1 << 20;

bool IsOneOf(absl::string_view value, std::initializer_list<absl::string_view> list) {
  return std::find(list.begin(), list.end(), value) != list.end();
}

absl::Status NotSupported(const ConfigObject& config, absl::string_view key,
                          absl::string_view why) {
  return absl::InvalidArgumentError(
      absl::StrCat("config.json: ", config.PathOf(key), " is not supported: ", why));
}

// The object that describes the language model: a nested one in multimodal files.
absl::StatusOr<ConfigObject> LanguageModel(const json& root) {
  const ConfigObject outer(&root, "");
  for (const absl::string_view key :
       {"text_config", "language_config", "llm_config", "thinker_config"}) {
    CONFIG_ASSIGN_OR_RETURN(const auto nested, outer.Object(key));
    if (!nested.has_value()) continue;
    // Some files nest twice (thinker_config.text_config).
    CONFIG_ASSIGN_OR_RETURN(const auto inner, nested->Object("text_config"));
    return inner.has_value() ? *inner : *nested;
  }
  return outer;
}

// Refuses what this version cannot describe with one shape and one rotary embedding for all layers.
absl::Status CheckLayersAreAlike(const ConfigObject& config, absl::string_view model_type) {
  constexpr absl::string_view kDiffer = "its layers differ in their KV caches or rotary embeddings";
  if (IsOneOf(model_type,
              {"gemma3", "gemma3_text", "gemma3n", "gemma3n_text", "gemma4", "gemma4_text",
               "modernbert", "modernbert-decoder", "cohere2", "mllama", "mllama_text_model"})) {
    return NotSupported(config, "model_type", kDiffer);
  }
  for (const absl::string_view key :
       {"rope_local_base_freq", "local_rope_theta", "swa_rope_theta", "layers_block_type",
        "attn_layer_period", "attn_layer_indices", "full_attention_interval",
        "hybrid_override_pattern", "block_configs", "cross_attention_layers",
        "num_key_value_heads_per_layer", "global_head_dim"}) {
    if (config.Has(key)) return NotSupported(config, key, kDiffer);
  }
  if (model_type == "exaone4" && config.Has("sliding_window")) {
    return NotSupported(config, "sliding_window", kDiffer);
  }
  CONFIG_ASSIGN_OR_RETURN(const auto shared,
                          config.Int({"num_kv_shared_layers"}, 0, kDimensionMax));
  if (shared.value_or(0) != 0) return NotSupported(config, "num_kv_shared_layers", kDiffer);
  if (const json* layers = config.Find("no_rope_layers")) {
    // 1: the layer has RoPE. An empty list means that all have.
    const bool plain =
        layers->is_array() && std::all_of(layers->begin(), layers->end(), [](const json& rope) {
          return rope.is_number_integer() && rope == 1;
        });
    if (!plain) return NotSupported(config, "no_rope_layers", kDiffer);
  } else if (IsOneOf(model_type, {"smollm3", "llama4", "llama4_text"})) {
    // Their defaults leave RoPE out of every fourth layer.
    return NotSupported(config, "model_type", kDiffer);
  }
  if (const json* kinds = config.Find("layer_types")) {
    // A window changes what attention reads, not what the cache holds.
    const bool plain =
        kinds->is_array() && std::all_of(kinds->begin(), kinds->end(), [](const json& kind) {
          return kind == "full_attention" || kind == "sliding_attention" ||
                 kind == "chunked_attention";
        });
    if (!plain) return NotSupported(config, "layer_types", kDiffer);
  }
  CONFIG_ASSIGN_OR_RETURN(const auto encoder_decoder, config.Bool("is_encoder_decoder"));
  if (encoder_decoder.value_or(false)) {
    return NotSupported(config, "is_encoder_decoder", "only decoder-only models are");
  }
  return absl::OkStatus();
}

absl::StatusOr<int> KvHeads(const ConfigObject& config, absl::string_view model_type, int heads) {
  const bool is_falcon = IsOneOf(model_type, {"falcon", "RefinedWeb", "RefinedWebModel"});
  CONFIG_ASSIGN_OR_RETURN(const auto multi_query, config.Bool("multi_query"));
  CONFIG_ASSIGN_OR_RETURN(const auto new_decoder, config.Bool("new_decoder_architecture"));
  CONFIG_ASSIGN_OR_RETURN(const auto given, config.Int({"num_key_value_heads", "num_kv_heads",
                                                        "n_head_kv", "kv_n_heads"},
                                                       1, kDimensionMax));
  // Falcon ignores num_kv_heads in its first architecture; its files and GPTBigCode's may leave
  // multi_query to its default, true.
  const bool grouped = new_decoder.value_or(model_type == "RefinedWeb");
  if (is_falcon && !grouped) return multi_query.value_or(true) ? 1 : heads;
  if (model_type == "gpt_bigcode") return multi_query.value_or(true) ? 1 : heads;
  if (given.has_value()) return *given;
  if (multi_query.value_or(false) && !is_falcon) return 1;

  CONFIG_ASSIGN_OR_RETURN(const auto multi_query_attention, config.Bool("multi_query_attention"));
  if (multi_query_attention.value_or(false)) {  // ChatGLM
    return config.RequiredInt({"multi_query_group_num"}, 1, kDimensionMax);
  }
  CONFIG_ASSIGN_OR_RETURN(const auto attention, config.Object("attn_config"));
  if (attention.has_value()) {  // MPT, DBRX
    CONFIG_ASSIGN_OR_RETURN(const auto nested, attention->Int({"kv_n_heads"}, 1, kDimensionMax));
    if (nested.has_value()) return *nested;
  }
  if (heads > kDimensionMax) {
    return absl::InvalidArgumentError(
        absl::StrCat("config.json: ", config.PathOf("num_attention_heads"), " is ", heads,
                     ", must be 1 to ", kDimensionMax, " where num_key_value_heads is not given"));
  }
  return heads;
}

absl::StatusOr<int> HeadSize(const ConfigObject& config, int heads) {
  CONFIG_ASSIGN_OR_RETURN(
      const auto given,
      config.Int({"head_dim", "kv_channels", "attention_head_dim"}, 1, kDimensionMax));
  int size = given.value_or(0);
  if (!given.has_value()) {
    CONFIG_ASSIGN_OR_RETURN(
        const int hidden,
        config.RequiredInt({"hidden_size", "n_embd", "d_model", "n_embed"}, 1, kHiddenMax));
    if (hidden % heads != 0 || hidden / heads > kDimensionMax) {
      return absl::InvalidArgumentError(
          absl::StrCat("config.json: ", config.PathOf("head_dim"), " is missing and hidden_size ",
                       hidden, " / ", heads, " heads is not a head size of 1 to ", kDimensionMax));
    }
    size = hidden / heads;
  }
  CONFIG_ASSIGN_OR_RETURN(const auto of_values, config.Int({"v_head_dim"}, 1, kDimensionMax));
  if (of_values.value_or(size) != size) {
    return NotSupported(config, "v_head_dim", "keys and values have different head sizes");
  }
  return size;
}

// Whether the model caches a latent (MLA). Some files of the family switch it off.
absl::StatusOr<bool> IsLatent(const ConfigObject& config) {
  CONFIG_ASSIGN_OR_RETURN(const auto switched, config.Bool("use_mla"));
  return config.Has("kv_lora_rank") && switched.value_or(true);
}

// Fills the shape and the rotation of a latent.
absl::Status ReadLatent(const ConfigObject& config, absl::string_view model_type,
                        KvGeometry& geometry) {
  // What is refused here has more caches than one latent a layer, or is cached otherwise by
  // engines.
  for (const absl::string_view key : {"index_topk", "index_head_dim", "compress_ratios"}) {
    if (config.Has(key)) {
      return NotSupported(config, key, "sparse attention keeps a cache beside the latent");
    }
  }
  if (IsOneOf(model_type,
              {"longcat_flash", "longcat_flash_ngram", "kimi_linear", "bailing_hybrid"})) {
    return NotSupported(config, "model_type", "its layers have more than one latent, or none");
  }
  if (model_type == "minicpm3") {
    return NotSupported(config, "model_type",
                        "engines cache its expanded keys and values, whose head sizes differ");
  }
  CONFIG_ASSIGN_OR_RETURN(const int rank, config.RequiredInt({"kv_lora_rank"}, 1, kDimensionMax));
  CONFIG_ASSIGN_OR_RETURN(const int rotated,
                          config.RequiredInt({"qk_rope_head_dim"}, 2, kDimensionMax));
  if (rotated % 2 != 0) {
    return absl::InvalidArgumentError(absl::StrCat(
        "config.json: ", config.PathOf("qk_rope_head_dim"), " is ", rotated, ", must be even"));
  }
  geometry.planes = 1;
  geometry.kv_heads = 1;
  geometry.head_size = rank + rotated;
  CONFIG_ASSIGN_OR_RETURN(geometry.rope,
                          RopeFromConfig(config, model_type, rotated, /*latent=*/true));
  if (geometry.rope.rotary_size() > 0) geometry.rope.rotary_offset = rank;
  return absl::OkStatus();
}

// Fills the shape and the rotation of keys and values.
absl::Status ReadKeysAndValues(const ConfigObject& config, absl::string_view model_type,
                               KvGeometry& geometry) {
  CONFIG_ASSIGN_OR_RETURN(
      const int heads,
      config.RequiredInt({"num_attention_heads", "n_head", "n_heads", "num_heads"}, 1, kHeadsMax));
  CONFIG_ASSIGN_OR_RETURN(geometry.kv_heads, KvHeads(config, model_type, heads));
  if (heads % geometry.kv_heads != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("config.json: ", config.PathOf("num_attention_heads"), " is ", heads,
                     ", which is no multiple of the ", geometry.kv_heads, " KV heads"));
  }
  CONFIG_ASSIGN_OR_RETURN(geometry.head_size, HeadSize(config, heads));
  CONFIG_ASSIGN_OR_RETURN(geometry.rope, RopeFromConfig(config, model_type, geometry.head_size));
  return absl::OkStatus();
}

absl::StatusOr<KvDtype> DtypeOf(const ConfigObject& config, const ConfigObject& outer) {
  for (const ConfigObject* object : {&config, &outer}) {
    CONFIG_ASSIGN_OR_RETURN(const auto name, object->String({"torch_dtype", "dtype"}));
    if (!name.has_value()) continue;
    const absl::string_view dtype = absl::StripPrefix(*name, "torch.");
    if (dtype == "bfloat16") return KvDtype::kBF16;
    // Engines run float32 checkpoints with KV in F16, which also keeps more of their precision.
    if (dtype == "float16" || dtype == "half" || dtype == "float32" || dtype == "float") {
      return KvDtype::kF16;
    }
    return absl::InvalidArgumentError(absl::StrCat(
        "config.json: ", object->PathOf(object->Has("torch_dtype") ? "torch_dtype" : "dtype"),
        " must be float16, bfloat16 or float32"));
  }
  return KvDtype::kF16;
}

}  // namespace

absl::StatusOr<KvGeometry> GeometryFromConfigJson(absl::string_view text) {
  CONFIG_ASSIGN_OR_RETURN(const json root, ParseConfigJson(text));
  CONFIG_ASSIGN_OR_RETURN(const ConfigObject config, LanguageModel(root));
  CONFIG_ASSIGN_OR_RETURN(const auto named, config.String({"model_type"}));
  const std::string model_type = named.value_or("");
  const absl::Status alike = CheckLayersAreAlike(config, model_type);
  if (!alike.ok()) return alike;

  KvGeometry geometry;
  CONFIG_ASSIGN_OR_RETURN(geometry.layers, config.RequiredInt({"num_hidden_layers", "n_layer",
                                                               "num_layers", "n_layers"},
                                                              1, kDimensionMax));
  CONFIG_ASSIGN_OR_RETURN(geometry.dtype, DtypeOf(config, ConfigObject(&root, "")));
  CONFIG_ASSIGN_OR_RETURN(const bool latent, IsLatent(config));
  const absl::Status shaped = latent ? ReadLatent(config, model_type, geometry)
                                     : ReadKeysAndValues(config, model_type, geometry);
  if (!shaped.ok()) return shaped;
  const absl::Status valid = geometry.Validate();
  if (!valid.ok()) return valid;
  return geometry;
}

}  // namespace kvstream

#include "codec/rope_config.h"

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "codec/rope_scaling.h"

namespace kvstream {
namespace {

using nlohmann::json;

constexpr double kPositionsMax = 1e9;
constexpr double kBaseMax = 1e15;
constexpr double kFactorMax = 1e6;

bool IsOneOf(absl::string_view value, std::initializer_list<absl::string_view> list) {
  return std::find(list.begin(), list.end(), value) != list.end();
}

absl::Status NotSupported(absl::string_view key, absl::string_view why) {
  return absl::InvalidArgumentError(absl::StrCat("config.json: ", key, " is not supported: ", why));
}

// Text from the file that may be printed: short, without control characters.
std::string Printable(absl::string_view text) {
  std::string out;
  for (const char c : text.substr(0, 40)) out += c >= ' ' && c <= '~' ? c : '?';
  return out;
}

// Whether keys carry no rotation at all.
absl::StatusOr<bool> HasNoRope(const ConfigObject& config, absl::string_view model_type) {
  if (IsOneOf(model_type, {"gpt2", "gpt_bigcode", "gpt_neo", "opt", "bloom", "xglm", "biogpt",
                           "jais", "openai-gpt", "ctrl"})) {
    return true;
  }
  CONFIG_ASSIGN_OR_RETURN(const auto alibi, config.Bool("alibi"));
  if (alibi.value_or(false)) return true;
  CONFIG_ASSIGN_OR_RETURN(const auto embedding, config.String({"position_embedding_type",
                                                               "position_embedding", "pos_emb"}));
  if (embedding.has_value()) {
    const std::string kind = absl::AsciiStrToLower(*embedding);
    if (IsOneOf(kind, {"absolute", "learned", "learned_absolute", "alibi", "nope", "none",
                       "sinusoidal"})) {
      return true;
    }
    if (!IsOneOf(kind, {"rope", "rotary", "mrope"})) {
      return NotSupported(config.PathOf("position_embedding_type"),
                          absl::StrCat("\"", Printable(*embedding), "\""));
    }
  }
  CONFIG_ASSIGN_OR_RETURN(const auto attention, config.Object("attn_config"));
  if (attention.has_value()) {
    CONFIG_ASSIGN_OR_RETURN(const auto attention_alibi, attention->Bool("alibi"));
    if (attention_alibi.value_or(false)) return true;
    CONFIG_ASSIGN_OR_RETURN(const auto attention_rope, attention->Bool("rope"));
    if (attention_rope.has_value()) return !*attention_rope;
  }
  if (model_type == "mpt") return true;  // learned positions where it is not ALiBi
  // Baichuan's files do not say it: its 7B has RoPE, its 13B ALiBi.
  if (model_type == "baichuan" && !embedding.has_value()) {
    CONFIG_ASSIGN_OR_RETURN(const auto hidden, config.Int({"hidden_size"}, 1, 1 << 20));
    return hidden.value_or(4096) != 4096;
  }
  return false;
}

absl::StatusOr<RopeParameters::Layout> LayoutOf(const ConfigObject& config,
                                                absl::string_view model_type, bool latent) {
  CONFIG_ASSIGN_OR_RETURN(const auto interleave, config.Bool("rope_interleave"));
  CONFIG_ASSIGN_OR_RETURN(const auto neox, config.Bool("is_neox_style"));
  bool interleaved = IsOneOf(model_type, {"gptj", "codegen", "chatglm", "glm", "glm4", "cohere",
                                          "helium", "ernie4_5", "ernie4_5_moe"}) ||
                     latent;
  if (neox.has_value()) interleaved = !*neox;
  if (interleave.has_value()) interleaved = *interleave;
  return interleaved ? RopeParameters::Layout::kInterleaved : RopeParameters::Layout::kHalfSplit;
}

// The object that holds the scaling: `rope_parameters` (newer) or `rope_scaling`; none if neither
// is given.
absl::StatusOr<absl::optional<ConfigObject>> ScalingObject(const ConfigObject& config) {
  CONFIG_ASSIGN_OR_RETURN(const auto parameters, config.Object("rope_parameters"));
  CONFIG_ASSIGN_OR_RETURN(const auto scaling, config.Object("rope_scaling"));
  if (!parameters.has_value()) return scaling;
  // Newer files of models with several layer types hold one object for each; all layers must agree.
  const json& object = *config.Find("rope_parameters");
  const json* first = nullptr;
  std::string first_key;
  for (const auto& item : object.items()) {
    if (!item.value().is_object()) continue;
    if (first == nullptr) {
      first = &item.value();
      first_key = item.key();
    } else if (*first != item.value()) {
      return NotSupported(config.PathOf("rope_parameters"),
                          "layers have different rotary embeddings");
    }
  }
  if (first == nullptr) return parameters;
  return absl::optional<ConfigObject>(ConfigObject(
      first, absl::StrCat(config.PathOf("rope_parameters"), ".", Printable(first_key), ".")));
}

absl::StatusOr<double> BaseOf(const ConfigObject& config,
                              const absl::optional<ConfigObject>& scaling) {
  absl::optional<double> base;
  if (scaling.has_value()) {
    CONFIG_ASSIGN_OR_RETURN(base, scaling->Number({"rope_theta"}, 1.001, kBaseMax));
  }
  if (!base.has_value()) {
    CONFIG_ASSIGN_OR_RETURN(
        base, config.Number({"rope_theta", "rotary_emb_base", "rotary_base", "rope_base"}, 1.001,
                            kBaseMax));
  }
  if (!base.has_value()) {
    CONFIG_ASSIGN_OR_RETURN(const auto attention, config.Object("attn_config"));
    if (attention.has_value()) {
      CONFIG_ASSIGN_OR_RETURN(base, attention->Number({"rope_theta"}, 1.001, kBaseMax));
    }
  }
  // ChatGLM's long-context models.
  CONFIG_ASSIGN_OR_RETURN(const auto ratio, config.Number({"rope_ratio"}, 1e-3, kFactorMax));
  return base.value_or(10000) * ratio.value_or(1);
}

// Rotated channels of a head.
absl::StatusOr<int> RotarySize(const ConfigObject& config,
                               const absl::optional<ConfigObject>& scaling,
                               absl::string_view model_type, int head_size) {
  int size = head_size;
  CONFIG_ASSIGN_OR_RETURN(const auto channels, config.Int({"rotary_dim"}, 1, head_size));
  absl::optional<double> part;
  absl::string_view key = "partial_rotary_factor";
  if (scaling.has_value()) {
    CONFIG_ASSIGN_OR_RETURN(part, scaling->Number({"partial_rotary_factor"}, 0, 1));
  }
  if (!part.has_value()) {
    CONFIG_ASSIGN_OR_RETURN(part, config.Number({"partial_rotary_factor", "rotary_pct", "rope_pct",
                                                 "rope_percent", "rope_percentage"},
                                                0, 1));
  }
  if (channels.has_value()) {
    key = "rotary_dim";
    size = *channels;
  } else if (part.has_value()) {
    size = static_cast<int>(head_size * *part);
  } else if (IsOneOf(model_type, {"gptj", "codegen"})) {
    size = std::min(64, head_size);
  } else if (IsOneOf(model_type, {"gpt_neox", "stablelm"})) {
    size = head_size / 4;
  } else if (IsOneOf(model_type,
                     {"phi", "persimmon", "nemotron", "chatglm", "glm", "glm4", "glm4_moe"})) {
    size = head_size / 2;
  }
  if (size < 2 || size % 2 != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("config.json: ", config.PathOf(key), " rotates ", size, " of ", head_size,
                     " channels, must be an even number and at least 2"));
  }
  return size;
}

absl::StatusOr<double> Positions(const ConfigObject& config) {
  CONFIG_ASSIGN_OR_RETURN(const auto positions,
                          config.Number({"max_position_embeddings", "n_positions", "seq_length",
                                         "max_sequence_length", "n_ctx"},
                                        2, kPositionsMax));
  if (!positions.has_value()) {
    return absl::InvalidArgumentError(
        absl::StrCat("config.json: ", config.PathOf("max_position_embeddings"),
                     " is missing, which the model's rope_scaling needs"));
  }
  return *positions;
}

// original_max_position_embeddings, which stands with the scaling or beside it; none if absent.
absl::StatusOr<absl::optional<double>> OriginalPositions(const ConfigObject& config,
                                                         const ConfigObject& scaling) {
  for (const ConfigObject* object : {&scaling, &config}) {
    CONFIG_ASSIGN_OR_RETURN(const auto positions,
                            object->Number({"original_max_position_embeddings"}, 2, kPositionsMax));
    if (positions.has_value()) return positions;
  }
  return absl::optional<double>();
}

absl::StatusOr<double> RequiredNumber(const ConfigObject& object, absl::string_view key, double min,
                                      double max) {
  CONFIG_ASSIGN_OR_RETURN(const auto value, object.Number({key}, min, max));
  if (!value.has_value()) {
    return absl::InvalidArgumentError(
        absl::StrCat("config.json: ", object.PathOf(key), " is missing"));
  }
  return *value;
}

absl::Status ApplyLinear(const ConfigObject& scaling, RopeParameters& rope) {
  CONFIG_ASSIGN_OR_RETURN(const double factor, RequiredNumber(scaling, "factor", 1e-3, kFactorMax));
  for (double& frequency : rope.inverse_frequency) frequency /= factor;
  return absl::OkStatus();
}

absl::Status ApplyLlama3(const ConfigObject& config, const ConfigObject& scaling, int size,
                         double base, RopeParameters& rope) {
  Llama3Scaling numbers;
  CONFIG_ASSIGN_OR_RETURN(numbers.factor, RequiredNumber(scaling, "factor", 1e-3, kFactorMax));
  CONFIG_ASSIGN_OR_RETURN(numbers.low_frequency_factor,
                          RequiredNumber(scaling, "low_freq_factor", 1e-3, kFactorMax));
  CONFIG_ASSIGN_OR_RETURN(numbers.high_frequency_factor,
                          RequiredNumber(scaling, "high_freq_factor", 1e-3, kFactorMax));
  if (numbers.high_frequency_factor <= numbers.low_frequency_factor) {
    return absl::InvalidArgumentError(
        absl::StrCat("config.json: ", scaling.PathOf("high_freq_factor"),
                     " must be larger than low_freq_factor"));
  }
  CONFIG_ASSIGN_OR_RETURN(const auto original, OriginalPositions(config, scaling));
  if (original.has_value()) {
    numbers.original_positions = *original;
  } else {
    CONFIG_ASSIGN_OR_RETURN(numbers.original_positions, Positions(config));
  }
  rope.inverse_frequency = Llama3InverseFrequency(size, base, numbers);
  return absl::OkStatus();
}

absl::Status ApplyYarn(const ConfigObject& config, const ConfigObject& scaling, int size,
                       double base, bool latent, RopeParameters& rope) {
  YarnScaling numbers;
  CONFIG_ASSIGN_OR_RETURN(const auto original, OriginalPositions(config, scaling));
  CONFIG_ASSIGN_OR_RETURN(const auto factor, scaling.Number({"factor"}, 1e-3, kFactorMax));
  if (original.has_value()) {
    numbers.original_positions = *original;
  } else {
    CONFIG_ASSIGN_OR_RETURN(numbers.original_positions, Positions(config));
  }
  if (factor.has_value()) {
    numbers.factor = *factor;
  } else if (original.has_value()) {
    CONFIG_ASSIGN_OR_RETURN(const double positions, Positions(config));
    numbers.factor = positions / *original;
  } else {
    return absl::InvalidArgumentError(
        absl::StrCat("config.json: ", scaling.PathOf("factor"), " is missing"));
  }
  CONFIG_ASSIGN_OR_RETURN(const auto fast, scaling.Number({"beta_fast"}, 1e-3, kFactorMax));
  CONFIG_ASSIGN_OR_RETURN(const auto slow, scaling.Number({"beta_slow"}, 1e-3, kFactorMax));
  CONFIG_ASSIGN_OR_RETURN(const auto truncate, scaling.Bool("truncate"));
  numbers.beta_fast = fast.value_or(numbers.beta_fast);
  numbers.beta_slow = slow.value_or(numbers.beta_slow);
  numbers.truncate = truncate.value_or(numbers.truncate);
  if (numbers.beta_slow > numbers.beta_fast) {
    return absl::InvalidArgumentError(
        absl::StrCat("config.json: ", scaling.PathOf("beta_slow"), " must not exceed beta_fast"));
  }
  CONFIG_ASSIGN_OR_RETURN(const auto attention, scaling.Number({"attention_factor"}, 1e-3, 1e3));
  CONFIG_ASSIGN_OR_RETURN(const auto mscale, scaling.Number({"mscale"}, 0, 1e3));
  CONFIG_ASSIGN_OR_RETURN(const auto mscale_all_dim, scaling.Number({"mscale_all_dim"}, 0, 1e3));
  rope.inverse_frequency = YarnInverseFrequency(size, base, numbers);
  rope.attention_factor =
      latent ? LatentYarnAttentionFactor(numbers.factor, mscale, mscale_all_dim)
             : YarnAttentionFactor(numbers.factor, attention, mscale, mscale_all_dim);
  return absl::OkStatus();
}

absl::Status ApplyLongRope(const ConfigObject& config, const ConfigObject& scaling, int size,
                           double base, RopeParameters& rope) {
  CONFIG_ASSIGN_OR_RETURN(const double positions, Positions(config));
  CONFIG_ASSIGN_OR_RETURN(const auto original, OriginalPositions(config, scaling));
  CONFIG_ASSIGN_OR_RETURN(const auto factor, scaling.Number({"factor"}, 1e-3, kFactorMax));
  const bool is_long = original.has_value() && positions > *original;
  const absl::string_view key = is_long ? "long_factor" : "short_factor";
  CONFIG_ASSIGN_OR_RETURN(const auto factors,
                          scaling.Numbers(key, static_cast<size_t>(size / 2), 1e-3, kFactorMax));
  if (!factors.has_value()) {
    return absl::InvalidArgumentError(
        absl::StrCat("config.json: ", scaling.PathOf(key), " is missing"));
  }
  rope.inverse_frequency = LongRopeInverseFrequency(size, base, *factors);
  CONFIG_ASSIGN_OR_RETURN(
      const auto attention,
      scaling.Number({"attention_factor", is_long ? "long_mscale" : "short_mscale"}, 1e-3, 1e3));
  if (attention.has_value()) {
    rope.attention_factor = *attention;
  } else if (original.has_value()) {
    rope.attention_factor = LongRopeAttentionFactor(positions, *original);
  } else {
    rope.attention_factor = LongRopeAttentionFactor(positions * factor.value_or(1), positions);
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<RopeParameters> RopeFromConfig(const ConfigObject& config,
                                              absl::string_view model_type, int head_size,
                                              bool latent) {
  RopeParameters rope;
  CONFIG_ASSIGN_OR_RETURN(const bool no_rope, HasNoRope(config, model_type));
  if (no_rope) return rope;
  CONFIG_ASSIGN_OR_RETURN(rope.layout, LayoutOf(config, model_type, latent));
  CONFIG_ASSIGN_OR_RETURN(const auto scaling, ScalingObject(config));
  CONFIG_ASSIGN_OR_RETURN(const double base, BaseOf(config, scaling));
  int size = head_size;
  if (!latent) {
    CONFIG_ASSIGN_OR_RETURN(size, RotarySize(config, scaling, model_type, head_size));
  }
  rope.inverse_frequency = DefaultInverseFrequency(size, base);
  if (!scaling.has_value()) return rope;

  CONFIG_ASSIGN_OR_RETURN(const auto named, scaling->String({"rope_type", "type"}));
  const std::string kind = named.value_or("default");
  absl::Status applied;
  if (IsOneOf(kind, {"default", "mrope", "dynamic"})) {
    applied = absl::OkStatus();
  } else if (kind == "linear") {
    applied = ApplyLinear(*scaling, rope);
  } else if (kind == "llama3") {
    applied = ApplyLlama3(config, *scaling, size, base, rope);
  } else if (kind == "yarn" || kind == "deepseek_yarn") {
    applied = ApplyYarn(config, *scaling, size, base, latent, rope);
  } else if (kind == "longrope" || kind == "su") {
    applied = ApplyLongRope(config, *scaling, size, base, rope);
  } else {
    applied = NotSupported(scaling->PathOf("rope_type"), absl::StrCat("\"", Printable(kind), "\""));
  }
  if (!applied.ok()) return applied;
  return rope;
}

}  // namespace kvstream

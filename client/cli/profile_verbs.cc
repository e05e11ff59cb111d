// kvstreamctl profile build
#include <algorithm>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "client/atomic_file.h"
#include "client/cli/command.h"
#include "client/cli/profile_facts.h"
#include "client/cli/query_rms.h"
#include "client/cli/sensitivity.h"
#include "client/cli/status_macros.h"
#include "client/kv_file.h"
#include "codec/calibration.h"
#include "codec/calibration_advice.h"
#include "codec/geometry.h"

namespace kvstream::cli {
namespace {

constexpr uint64_t kConfigBytesMax = 1 << 20;

struct BuildOptions {
  std::string config;
  std::vector<std::string> kv;
  std::string queries;
  std::string sensitivity;
  std::string group = "layer";
  std::string out;
  CalibrationOptions calibration;
};

absl::Status ParseGroup(const std::string& text, int layers, CalibrationOptions& options) {
  if (text == "head") {
    options.group = CalibrationOptions::Group::kHead;
  } else if (text == "model") {
    options.group = CalibrationOptions::Group::kModel;
  } else {
    options.group = CalibrationOptions::Group::kLayers;
    options.group_layers = 1;
    if (text != "layer" && (!absl::SimpleAtoi(text, &options.group_layers) ||
                            options.group_layers < 1 || options.group_layers > layers)) {
      return absl::InvalidArgumentError(
          absl::StrCat("--group is \"", text,
                       "\", must be head, layer, model or a number of layers of 1 to ", layers));
    }
  }
  return absl::OkStatus();
}

// The engine that made the files decides how KV is kept: a bfloat16 checkpoint may well run with a
// KV cache in F16.
absl::Status TakeDtypeOfFiles(const std::vector<std::string>& paths, KvGeometry& geometry) {
  for (size_t i = 0; i < paths.size(); ++i) {
    CLI_ASSIGN_OR_RETURN(const KvDtype dtype, KvFileDtype(paths[i]));
    if (i == 0) geometry.dtype = dtype;
    if (dtype != geometry.dtype) {
      return absl::InvalidArgumentError(absl::StrCat(
          paths[i], " and ", paths[0], " hold KV of different dtypes; a profile has one"));
    }
  }
  return absl::OkStatus();
}

absl::Status Build(const BuildOptions& options, Format format) {
  const absl::Time start = absl::Now();
  CLI_ASSIGN_OR_RETURN(const std::string config, ReadFile(options.config, kConfigBytesMax));
  absl::StatusOr<KvGeometry> read = GeometryFromConfigJson(config);
  if (!read.ok()) {
    return absl::Status(read.status().code(),
                        absl::StrCat(options.config, ": ", read.status().message()));
  }
  KvGeometry geometry = *std::move(read);
  CLI_RETURN_IF_ERROR(TakeDtypeOfFiles(options.kv, geometry));

  CalibrationOptions calibration = options.calibration;
  CLI_RETURN_IF_ERROR(ParseGroup(options.group, geometry.layers, calibration));
  std::vector<std::unique_ptr<KvFile>> files;
  std::vector<KvView> samples;
  int64_t tokens = 0;
  for (const std::string& path : options.kv) {
    CLI_ASSIGN_OR_RETURN(std::unique_ptr<KvFile> file, KvFile::Open(path, geometry));
    samples.push_back(file->kv());
    tokens += file->kv().tokens;
    files.push_back(std::move(file));
  }
  QueryRms query_rms;
  if (!options.queries.empty()) {
    CLI_ASSIGN_OR_RETURN(query_rms, ReadQueryRms(options.queries, geometry));
  }
  if (!options.sensitivity.empty()) {
    CLI_ASSIGN_OR_RETURN(calibration.sensitivity, ReadSensitivity(options.sensitivity, geometry));
  }
  CLI_ASSIGN_OR_RETURN(const std::shared_ptr<const Profile> profile,
                       BuildProfile(geometry, samples, query_rms, calibration));
  CLI_RETURN_IF_ERROR(WriteFileAtomically(options.out, profile->serialized()));

  const double seconds = absl::ToDoubleSeconds(absl::Now() - start);
  const std::vector<std::string> warnings = CalibrationWarnings(geometry, samples, calibration);
  Json json = ProfileJson(*profile);
  json["warnings"] = warnings;
  json["sample_tokens"] = tokens;
  json["seconds"] = seconds;
  json["out"] = options.out;
  std::string text = ProfileText(*profile);
  if (options.kv.empty()) {
    absl::StrAppend(
        &text,
        "Without --kv there is no calibration: bits per value will be several times higher.\n");
  }
  for (const std::string& warning : warnings) absl::StrAppend(&text, "Warning: ", warning, "\n");
  absl::StrAppendFormat(&text, "Built from %d tokens in %.1f s: %s\n", tokens, seconds,
                        options.out);
  return Print(format, json, text);
}

}  // namespace

void AddProfileVerbs(CLI::App& app, Command& command) {
  CLI::App* profile = app.add_subcommand("profile", "Model profiles");
  profile->require_subcommand(1);
  const auto options = std::make_shared<BuildOptions>();
  CLI::App* build =
      AddVerb(*profile, command, "build", "Build a model's profile from sample KV caches",
              [options](Format format) { return Build(*options, format); });
  build->add_option("--config", options->config, "the model's Hugging Face config.json")
      ->required();
  build->add_option("--kv", options->kv,
                    "KV caches of sample contexts (safetensors); none: no calibration");
  build->add_option("--queries", options->queries,
                    "queries of the same contexts: layers.{i}.query or layers.{i}.query_rms");
  build->add_option("--sensitivity", options->sensitivity,
                    "how much the model minds errors: layers.{i}.key_sensitivity and "
                    "layers.{i}.value_sensitivity");
  build
      ->add_option("--group", options->group,
                   "what shares a transform: head, layer, N layers or model")
      ->capture_default_str();
  build
      ->add_option(
          "--steps", options->calibration.steps,
          "quantisation steps of the levels, coarsest first, each a third of the one before")
      ->delimiter(',');
  build->add_option("--chunk-tokens", options->calibration.chunk_tokens, "tokens of a chunk")
      ->capture_default_str();
  build
      ->add_option("--sink-tokens", options->calibration.sink_tokens,
                   "first tokens of a context that are kept exact")
      ->capture_default_str();
  build->add_option("--out", options->out, "the profile to write")->required();
}

}  // namespace kvstream::cli

#include "server/service/options_sources.h"

#include <yaml-cpp/yaml.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <map>
#include <set>
#include <sstream>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "server/service/version.h"

namespace kvstream {
namespace {

const OptionField* FindField(absl::string_view name) {
  for (const OptionField& field : OptionFields()) {
    if (field.name == name) return &field;
  }
  return nullptr;
}

absl::Status SetFrom(absl::string_view source, const OptionField& field, absl::string_view text,
                     ServerOptions& options) {
  const absl::Status status = field.set(text, options);
  if (status.ok()) return status;
  return absl::InvalidArgumentError(absl::StrCat(source, ": ", status.message()));
}

absl::StatusOr<std::string> ReadFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  if (file) text << file.rdbuf();
  if (!file || file.bad()) {
    return absl::NotFoundError(absl::StrCat("cannot read the configuration file ", path,
                                            "; check --config and the file's permissions"));
  }
  return text.str();
}

// Flags as given; the application object of CLI11 stays inside.
struct Flags {
  std::map<std::string, std::string> values;
  absl::optional<std::string> config;
  bool print_config = false;
  absl::optional<std::string> text;  // of --help or --version
};

absl::StatusOr<Flags> ParseFlags(std::vector<std::string> arguments) {
  CLI::App app(
      "kvstreamd stores the KV caches of long contexts and streams them to serving nodes.\n"
      "Every option is also read from the environment (KVSTREAM_*, for example "
      "KVSTREAM_DATA_DIR)\nand from the YAML file of --config; flags win over the environment over "
      "the file.",
      "kvstreamd");
  Flags flags;
  std::string config;
  app.set_version_flag("--version", std::string("kvstreamd ") + std::string(kServerVersion));
  CLI::Option* config_option = app.add_option("--config", config, "YAML file of options");
  config_option->type_name("FILE");
  app.add_flag("--print-config", flags.print_config,
               "print the resulting options as YAML and exit");
  std::map<std::string, std::string> values;
  std::map<std::string, CLI::Option*> given;
  const ServerOptions defaults;
  for (const OptionField& field : OptionFields()) {
    const std::string name(field.name);
    CLI::Option* option = app.add_option("--" + name, values[name], std::string(field.help));
    option->type_name(std::string(field.metavar));
    option->default_str(field.get(defaults));
    given[name] = option;
  }
  try {
    std::reverse(arguments.begin(), arguments.end());  // CLI11 takes them from the back
    app.parse(arguments);
  } catch (const CLI::CallForHelp&) {
    flags.text = app.help();
    return flags;
  } catch (const CLI::CallForVersion&) {
    flags.text = absl::StrCat("kvstreamd ", kServerVersion, "\n");
    return flags;
  } catch (const CLI::ParseError& error) {
    return absl::InvalidArgumentError(
        absl::StrCat(error.what(), "; kvstreamd --help lists the options"));
  }
  for (const auto& [name, option] : given) {
    if (option->count() > 0) flags.values[name] = values[name];
  }
  if (config_option->count() > 0) flags.config = config;
  return flags;
}

std::string PrintConfig(const ServerOptions& options) {
  YAML::Emitter out;
  out << YAML::BeginMap;
  for (const OptionField& field : OptionFields()) {
    out << YAML::Key << std::string(field.name) << YAML::Value << field.get(options);
  }
  out << YAML::EndMap;
  return absl::StrCat(out.c_str(), "\n");
}

}  // namespace

Environment ProcessEnvironment() {
  return [](const std::string& name) -> absl::optional<std::string> {
    const char* value = std::getenv(name.c_str());
    if (value == nullptr) return absl::nullopt;
    return std::string(value);
  };
}

std::string EnvironmentName(absl::string_view option) {
  return absl::StrCat("KVSTREAM_",
                      absl::AsciiStrToUpper(absl::StrReplaceAll(option, {{"-", "_"}})));
}

absl::Status ApplyYaml(absl::string_view yaml, absl::string_view source, ServerOptions& options) {
  try {
    const YAML::Node root = YAML::Load(std::string(yaml));
    if (root.IsNull()) return absl::OkStatus();  // an empty file
    if (!root.IsMap()) {
      return absl::InvalidArgumentError(
          absl::StrCat(source, ": not a mapping of option names to values"));
    }
    std::set<std::string> seen;
    for (const auto& entry : root) {
      if (!entry.first.IsScalar()) {
        return absl::InvalidArgumentError(absl::StrCat(source, ": a key is not a name"));
      }
      const std::string key = entry.first.Scalar();
      const OptionField* field = FindField(key);
      if (field == nullptr) {
        return absl::InvalidArgumentError(absl::StrCat(
            source, ": unknown key \"", key, "\"; kvstreamd --print-config lists the keys"));
      }
      if (!seen.insert(key).second) {
        return absl::InvalidArgumentError(absl::StrCat(source, ": key \"", key, "\" comes twice"));
      }
      if (!entry.second.IsScalar()) {
        return absl::InvalidArgumentError(
            absl::StrCat(source, ": the value of \"", key, "\" is not a single value"));
      }
      const absl::Status status =
          SetFrom(absl::StrCat(source, ": ", key), *field, entry.second.Scalar(), options);
      if (!status.ok()) return status;
    }
  } catch (const YAML::Exception& error) {
    return absl::InvalidArgumentError(absl::StrCat(source, ": ", error.what()));
  }
  return absl::OkStatus();
}

absl::StatusOr<CommandLine> ReadOptions(const std::vector<std::string>& arguments,
                                        const Environment& environment) {
  absl::StatusOr<Flags> flags = ParseFlags(arguments);
  if (!flags.ok()) return flags.status();
  CommandLine line;
  if (flags->text.has_value()) {
    line.text = flags->text;
    return line;
  }
  absl::optional<std::string> config = flags->config;
  if (!config.has_value()) config = environment(EnvironmentName("config"));
  if (config.has_value()) {
    const absl::StatusOr<std::string> yaml = ReadFile(*config);
    if (!yaml.ok()) return yaml.status();
    const absl::Status status = ApplyYaml(*yaml, *config, line.options);
    if (!status.ok()) return status;
  }
  for (const OptionField& field : OptionFields()) {
    const std::string name = EnvironmentName(field.name);
    const absl::optional<std::string> value = environment(name);
    if (!value.has_value()) continue;
    const absl::Status status = SetFrom(name, field, *value, line.options);
    if (!status.ok()) return status;
  }
  for (const OptionField& field : OptionFields()) {
    const auto value = flags->values.find(std::string(field.name));
    if (value == flags->values.end()) continue;
    const absl::Status status =
        SetFrom(absl::StrCat("--", field.name), field, value->second, line.options);
    if (!status.ok()) return status;
  }
  const absl::Status valid = line.options.Validate();
  if (!valid.ok()) return valid;
  if (flags->print_config) line.text = PrintConfig(line.options);
  return line;
}

}  // namespace kvstream

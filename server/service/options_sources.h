// Where options come from: flags win over the environment, that over the configuration file, that
// over the defaults.
#ifndef KVSTREAM_SERVER_SERVICE_OPTIONS_SOURCES_H_
#define KVSTREAM_SERVER_SERVICE_OPTIONS_SOURCES_H_

#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/optional.h"
#include "server/service/options.h"

namespace kvstream {

// Value of an environment variable, none if it is unset.
using Environment = std::function<absl::optional<std::string>(const std::string& name)>;
// The process's own.
Environment ProcessEnvironment();

// "data-dir" -> "KVSTREAM_DATA_DIR".
std::string EnvironmentName(absl::string_view option);

// Sets what a YAML mapping of option names to scalars says. INVALID_ARGUMENT for text that is not
// such a mapping, an unknown or repeated key, a value that cannot be read; `source` (a file name)
// opens the message.
absl::Status ApplyYaml(absl::string_view yaml, absl::string_view source, ServerOptions& options);

struct CommandLine {
  ServerOptions options;  // validated, unless `text` is set
  // Set: print this on stdout and exit with 0 (--help, --version, --print-config).
  absl::optional<std::string> text;
};

// Reads all sources; arguments are argv without the program's name. Errors: INVALID_ARGUMENT naming
// the source and the option, NOT_FOUND if the --config file cannot be read.
absl::StatusOr<CommandLine> ReadOptions(const std::vector<std::string>& arguments,
                                        const Environment& environment);

}  // namespace kvstream

#endif  // KVSTREAM_SERVER_SERVICE_OPTIONS_SOURCES_H_

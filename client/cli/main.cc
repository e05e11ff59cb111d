// kvstreamctl: stores, loads, encodes and inspects KV caches from the command line.
#include <malloc.h>

#include <cstdio>
#include <exception>
#include <string>

#include "CLI/CLI.hpp"
#include "client/cli/command.h"
#include "client/cli/output.h"

namespace kvstream::cli {
namespace {

constexpr char kVersion[] = "0.1.0";
constexpr int kExitFailed = 1;
constexpr int kExitUsage = 2;

// The deepest subcommand that was named, for the hint in a usage error.
std::string NamedVerb(const CLI::App& app) {
  std::string verb;
  const CLI::App* at = &app;
  while (!at->get_subcommands().empty()) {
    at = at->get_subcommands().front();
    verb += (verb.empty() ? "" : " ") + at->get_name();
  }
  return verb;
}

int Fail(const std::string& verb, const absl::Status& status, int exit_code) {
  std::fprintf(stderr, "%s\n", ErrorLine(verb, status).c_str());
  return exit_code;
}

int Main(int argc, char** argv) {
  // Received messages come and go by the megabyte; giving each back to the system costs page
  // faults.
  mallopt(M_MMAP_THRESHOLD, 256 << 20);
  mallopt(M_TRIM_THRESHOLD, 256 << 20);
  CLI::App app("Stores, loads, encodes and inspects KV caches. See docs/kvstreamctl.md.",
               "kvstreamctl");
  app.set_version_flag("--version", std::string("kvstreamctl ") + kVersion);
  app.require_subcommand(1);
  Command command;
  AddProfileVerbs(app, command);
  AddCodecVerbs(app, command);
  AddTransferVerbs(app, command);
  AddLoadVerb(app, command);
  AddExplainVerb(app, command);
  AddAdminVerbs(app, command);
  AddScrubVerbs(app, command);
  AddDescribeVerb(app, command);
  AddRelayVerb(app, command);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == 0) return app.exit(error);  // --help, --version
    const std::string verb = NamedVerb(app);
    return Fail(verb,
                absl::InvalidArgumentError(std::string(error.what()) + "; see kvstreamctl " +
                                           (verb.empty() ? "" : verb + " ") + "--help"),
                kExitUsage);
  }
  const absl::Status status = command.run();
  return status.ok() ? 0 : Fail(command.verb, status, kExitFailed);
}

}  // namespace
}  // namespace kvstream::cli

int main(int argc, char** argv) {
  try {
    return kvstream::cli::Main(argc, argv);
  } catch (const std::exception& error) {
    // Nothing of ours throws; this is for the libraries, and for memory that has run out.
    std::fprintf(stderr, "kvstreamctl: %s\n", error.what());
    return 1;
  }
}

// kvstreamctl relay
#include <atomic>
#include <csignal>
#include <cstdio>
#include <memory>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "client/cli/command.h"
#include "client/cli/status_macros.h"
#include "client/rate_trace.h"
#include "client/relay.h"
#include "client/units.h"

namespace kvstream::cli {
namespace {

constexpr uint64_t kTraceBytesMax = 1 << 20;

struct RelayOptions {
  std::string listen;
  std::string to;
  std::string rate;
  std::string trace;
  std::string delay = "0";
};

// For the signal handler; Stop() is safe there.
std::atomic<Relay*> running_relay{nullptr};

void StopRelay(int /*signal*/) {
  if (Relay* relay = running_relay.load()) relay->Stop();
}

absl::StatusOr<RateTrace> TraceOf(const RelayOptions& options) {
  if (options.rate.empty() == options.trace.empty()) {
    return absl::InvalidArgumentError("give either --rate, such as 50Mbit, or --trace FILE");
  }
  if (!options.trace.empty()) {
    CLI_ASSIGN_OR_RETURN(const std::string text, ReadFile(options.trace, kTraceBytesMax));
    absl::StatusOr<RateTrace> trace = RateTrace::Parse(text);
    if (!trace.ok()) {
      return absl::Status(trace.status().code(),
                          absl::StrCat(options.trace, ": ", trace.status().message()));
    }
    return trace;
  }
  CLI_ASSIGN_OR_RETURN(const double rate, ParseRate(options.rate));
  if (rate <= 0) return absl::InvalidArgumentError("--rate must be above 0");
  return RateTrace::Constant(rate);
}

absl::Status RunRelay(const RelayOptions& options, Format format) {
  Relay::Options relay_options;
  CLI_ASSIGN_OR_RETURN(relay_options.trace, TraceOf(options));
  CLI_ASSIGN_OR_RETURN(relay_options.listen, ParseHostPort(options.listen));
  CLI_ASSIGN_OR_RETURN(relay_options.target, ParseHostPort(options.to));
  CLI_ASSIGN_OR_RETURN(relay_options.delay, ParseDuration(options.delay));
  relay_options.warn = [](const std::string& line) {
    std::fprintf(stderr, "kvstreamctl relay: %s\n", line.c_str());
  };
  const double rate = relay_options.trace.max_bytes_per_second();
  const absl::Duration delay = relay_options.delay;
  CLI_ASSIGN_OR_RETURN(const std::unique_ptr<Relay> relay, Relay::Create(std::move(relay_options)));

  running_relay = relay.get();
  std::signal(SIGTERM, StopRelay);
  std::signal(SIGINT, StopRelay);
  // First of all the address: whoever started this with port 0 waits for it.
  absl::Status status =
      Print(format,
            {{"listen", FormatHostPort(relay->address())},
             {"to", options.to},
             {"max_bytes_per_second", rate},
             {"delay_ms", absl::ToDoubleMilliseconds(delay)}},
            absl::StrFormat("relay at %s to %s: %s%s, delay %s each way; end it with Ctrl-C\n",
                            FormatHostPort(relay->address()), options.to,
                            options.trace.empty() ? "" : "trace with up to ", FormatRate(rate),
                            FormatMillis(delay)));
  if (status.ok()) status = relay->Run();
  std::signal(SIGTERM, SIG_DFL);
  std::signal(SIGINT, SIG_DFL);
  running_relay = nullptr;
  if (status.ok() && format == Format::kHuman) {
    const Relay::Counts counts = relay->counts();
    std::printf("%s\n", absl::StrFormat("%d connections, %s to the target, %s back",
                                        counts.connections, FormatBytes(counts.bytes_to_target),
                                        FormatBytes(counts.bytes_to_client))
                            .c_str());
  }
  return status;
}

}  // namespace

void AddRelayVerb(CLI::App& app, Command& command) {
  const auto options = std::make_shared<RelayOptions>();
  CLI::App* relay = AddVerb(app, command, "relay", "A user-space TCP link of a given speed",
                            [options](Format format) { return RunRelay(*options, format); });
  relay
      ->add_option("--listen", options->listen,
                   "host:port to accept at; port 0: any, see the output")
      ->required();
  relay->add_option("--to", options->to, "host:port to pass connections on to")->required();
  relay->add_option("--rate", options->rate, "speed of each direction, such as 50Mbit");
  relay->add_option("--trace", options->trace, "file of lines `<seconds> <rate>`");
  relay->add_option("--delay", options->delay, "one-way delay, such as 20ms")
      ->capture_default_str();
}

}  // namespace kvstream::cli

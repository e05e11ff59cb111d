// How the verbs of kvstreamctl are declared: each adds its subcommand with its options and, when it
// is the one that was asked for, leaves what is to be run.
#ifndef KVSTREAM_CLIENT_CLI_COMMAND_H_
#define KVSTREAM_CLIENT_CLI_COMMAND_H_

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "CLI/CLI.hpp"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "client/chunk_id.h"
#include "client/cli/output.h"
#include "client/client.h"
#include "codec/profile.h"

namespace kvstream::cli {

// What the command line asked for.
struct Command {
  std::string verb;                   // such as "profile build"
  std::function<absl::Status()> run;  // empty until a verb was chosen
};

// Adds a subcommand that takes --format and runs `run` with the format. The options that the caller
// then adds must write to memory that `run` keeps alive.
CLI::App* AddVerb(CLI::App& parent, Command& command, const std::string& name,
                  const std::string& help, std::function<absl::Status(Format)> run);

// --server, --timeout, --tls-ca, --tls-cert, --tls-key, --token-file.
struct ServerOptions {
  std::string server = "127.0.0.1:7411";
  std::string timeout = "60s";
  ConnectionSecurity security;
  std::string token_file;
};
void AddServerOptions(CLI::App& verb, ServerOptions& options);
// --tenant, for the verbs with which an admin acts for another tenant.
void AddActingForOption(CLI::App& verb, ServerOptions& options);
// threads: for encoding and decoding.
absl::StatusOr<std::unique_ptr<Client>> Connect(const ServerOptions& options, int threads = 1);

// --model, --adapter, --tenant-salt.
void AddIdentityOptions(CLI::App& verb, ContextIdentity& identity);

// --threads, 1 to 64; by default the machine's cores, at most 16.
int DefaultThreads();
void AddThreadsOption(CLI::App& verb, int& threads);

// Reads and parses a profile file; errors name the path.
absl::StatusOr<std::shared_ptr<const Profile>> ReadProfile(const std::string& path);

// The whole file. RESOURCE_EXHAUSTED if it is larger than `bytes_max`.
absl::StatusOr<std::string> ReadFile(const std::string& path, uint64_t bytes_max);

// 64 hexadecimal digits of a whole id.
std::string HexOf(const ChunkId& id);
absl::StatusOr<ChunkId> ParseHexId(const std::string& text);

// The verbs, one function for each file.
void AddProfileVerbs(CLI::App& app, Command& command);   // profile build
void AddCodecVerbs(CLI::App& app, Command& command);     // encode, decode
void AddTransferVerbs(CLI::App& app, Command& command);  // put, lookup
void AddLoadVerb(CLI::App& app, Command& command);       // load
void AddAdminVerbs(CLI::App& app, Command& command);     // stats, list, ping
void AddLifetimeVerbs(CLI::App& app, Command& command);  // delete, pin, unpin, pins
void AddScrubVerbs(CLI::App& app, Command& command);     // scrub, backup
void AddDescribeVerb(CLI::App& app, Command& command);   // describe
void AddRelayVerb(CLI::App& app, Command& command);      // relay
void AddExplainVerb(CLI::App& app, Command& command);    // explain

}  // namespace kvstream::cli

#endif  // KVSTREAM_CLIENT_CLI_COMMAND_H_

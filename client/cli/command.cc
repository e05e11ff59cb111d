#include "client/cli/command.h"

#include <algorithm>
#include <cerrno>
#include <fstream>
#include <limits>
#include <map>
#include <thread>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "client/cli/status_macros.h"
#include "client/units.h"

namespace kvstream::cli {
namespace {

constexpr uint64_t kProfileBytesMax = uint64_t{8} << 30;
constexpr uint64_t kTokenBytesMax = 8192;

}  // namespace

CLI::App* AddVerb(CLI::App& parent, Command& command, const std::string& name,
                  const std::string& help, std::function<absl::Status(Format)> run) {
  CLI::App* verb = parent.add_subcommand(name, help);
  const auto format = std::make_shared<Format>(Format::kHuman);
  verb->add_option("--format", *format, "human (default) or json: one JSON object on stdout")
      ->transform(CLI::CheckedTransformer(
          std::map<std::string, Format>{{"human", Format::kHuman}, {"json", Format::kJson}}))
      ->option_text("human|json");
  const std::string prefix = parent.get_parent() == nullptr ? "" : parent.get_name() + " ";
  verb->callback([&command, name = prefix + name, format, run = std::move(run)] {
    command.verb = name;
    command.run = [format, run] { return run(*format); };
  });
  return verb;
}

void AddServerOptions(CLI::App& verb, ServerOptions& options) {
  verb.add_option("--server", options.server, "kvstreamd to talk to, host:port")
      ->envname("KVSTREAM_SERVER")
      ->capture_default_str();
  verb.add_option("--timeout", options.timeout, "give up after hearing nothing for this long")
      ->capture_default_str();
  verb.add_option("--tls-ca", options.security.tls_ca_file,
                  "PEM file of who signs the server's certificate; turns on TLS")
      ->envname("KVSTREAM_TLS_CA");
  verb.add_option("--tls-cert", options.security.tls_cert_file,
                  "PEM file of the client's certificate")
      ->envname("KVSTREAM_TLS_CERT");
  verb.add_option("--tls-key", options.security.tls_key_file, "PEM file of its key")
      ->envname("KVSTREAM_TLS_KEY");
  verb.add_option("--token-file", options.token_file, "file with the tenant's token")
      ->envname("KVSTREAM_TOKEN_FILE");
}

void AddActingForOption(CLI::App& verb, ServerOptions& options) {
  verb.add_option("--tenant", options.security.acting_for,
                  "as an admin: act for this tenant, not for oneself");
}

absl::StatusOr<std::unique_ptr<Client>> Connect(const ServerOptions& options, int threads) {
  CLI_RETURN_IF_ERROR(ParseHostPort(options.server).status());
  CLI_ASSIGN_OR_RETURN(const absl::Duration timeout, ParseDuration(options.timeout));
  if (timeout <= absl::ZeroDuration()) {
    return absl::InvalidArgumentError("--timeout must be longer than 0");
  }
  Client::Options client;
  client.server = options.server;
  client.rpc_timeout = timeout;
  client.decode_threads = threads;
  client.encode_threads = threads;
  client.security = options.security;
  if (!options.token_file.empty()) {
    CLI_ASSIGN_OR_RETURN(const std::string token, ReadFile(options.token_file, kTokenBytesMax));
    client.security.token = std::string(absl::StripAsciiWhitespace(token));
    if (client.security.token.empty()) {
      return absl::InvalidArgumentError(absl::StrCat(options.token_file, " holds no token"));
    }
  }
  return Client::Create(std::move(client));
}

void AddIdentityOptions(CLI::App& verb, ContextIdentity& identity) {
  verb.add_option("--model", identity.model, "name@revision of the weights that made the KV");
  verb.add_option("--adapter", identity.adapter, "LoRA adapter that made the KV");
  verb.add_option("--tenant-salt", identity.tenant_salt,
                  "keeps contexts apart from those of other salts");
}

int DefaultThreads() {
  return std::clamp(static_cast<int>(std::thread::hardware_concurrency()), 1, 16);
}

void AddThreadsOption(CLI::App& verb, int& threads) {
  verb.add_option("--threads", threads, "threads that encode or decode")
      ->check(CLI::Range(1, 64))
      ->capture_default_str();
}

absl::StatusOr<std::string> ReadFile(const std::string& path, uint64_t bytes_max) {
  errno = 0;
  std::ifstream in(path, std::ios::binary | std::ios::ate);
  if (!in) {
    return absl::ErrnoToStatus(errno == 0 ? EIO : errno, absl::StrCat("cannot open ", path));
  }
  const std::streamoff size = in.tellg();
  // A folder opens, but has no size that could be read.
  if (size < 0 || size == std::numeric_limits<std::streamoff>::max()) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": is not a regular file"));
  }
  if (static_cast<uint64_t>(size) > bytes_max) {
    return absl::ResourceExhaustedError(
        absl::StrCat(path, ": has ", size, " bytes, more than ", bytes_max));
  }
  std::string bytes(static_cast<size_t>(size), '\0');
  in.seekg(0);
  in.read(bytes.data(), size);
  if (in.gcount() != size) return absl::DataLossError(absl::StrCat("cannot read all of ", path));
  return bytes;
}

absl::StatusOr<std::shared_ptr<const Profile>> ReadProfile(const std::string& path) {
  CLI_ASSIGN_OR_RETURN(std::string bytes, ReadFile(path, kProfileBytesMax));
  absl::StatusOr<std::shared_ptr<const Profile>> profile = Profile::ParseOwned(std::move(bytes));
  if (!profile.ok()) {
    return absl::Status(profile.status().code(),
                        absl::StrCat(path, ": ", profile.status().message()));
  }
  return profile;
}

std::string HexOf(const ChunkId& id) {
  return absl::BytesToHexString(
      absl::string_view(reinterpret_cast<const char*>(id.data()), id.size()));
}

absl::StatusOr<ChunkId> ParseHexId(const std::string& text) {
  ChunkId id;
  const bool is_hex = std::all_of(text.begin(), text.end(), [](char c) {
    return absl::ascii_isxdigit(static_cast<unsigned char>(c));
  });
  if (text.size() != 2 * id.size() || !is_hex) {
    return absl::InvalidArgumentError(
        absl::StrCat("\"", text.substr(0, 80), "\" is no id; it has ", 2 * id.size(),
                     " hexadecimal digits (kvstreamctl list shows them)"));
  }
  const std::string bytes = absl::HexStringToBytes(text);
  std::copy(bytes.begin(), bytes.end(), reinterpret_cast<char*>(id.data()));
  return id;
}

}  // namespace kvstream::cli

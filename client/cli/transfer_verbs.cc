// kvstreamctl put, lookup
#include <memory>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "client/cli/command.h"
#include "client/cli/status_macros.h"
#include "client/kv_file.h"
#include "client/units.h"

namespace kvstream::cli {
namespace {

struct PutOptions {
  ServerOptions server;
  ContextIdentity identity;
  std::string profile;
  std::string in;
  std::string ttl = "0";
  int threads = DefaultThreads();
};

absl::Status Put(const PutOptions& options, Format format) {
  CLI_ASSIGN_OR_RETURN(const std::shared_ptr<const Profile> profile, ReadProfile(options.profile));
  CLI_ASSIGN_OR_RETURN(const std::unique_ptr<KvFile> file,
                       KvFile::Open(options.in, profile->geometry()));
  if (!file->has_tokens() || file->tokens().empty()) {
    return absl::InvalidArgumentError(absl::StrCat(
        options.in, ": tensor tokens is missing or empty; the tokens name the context"));
  }
  CLI_ASSIGN_OR_RETURN(const std::unique_ptr<Client> client,
                       Connect(options.server, options.threads));
  CLI_ASSIGN_OR_RETURN(const absl::Duration ttl, ParseDuration(options.ttl));
  const absl::Time start = absl::Now();
  absl::StatusOr<PutResult> put;
  {
    ProgressBar bar(format, "storing", file->kv().tokens);
    put = client->Put(
        profile, options.identity, file->tokens(), file->kv(),
        [&bar](int64_t tokens) { bar.Update(tokens); }, ttl);
  }
  if (!put.ok()) return put.status();
  const double seconds = absl::ToDoubleSeconds(absl::Now() - start);
  return Print(format,
               {{"chunks_stored", put->chunks_stored},
                {"chunks_existing", put->chunks_existing},
                {"bytes_stored", put->bytes_stored},
                {"tokens", file->tokens().size()},
                {"profile_id", HexOf(profile->id())},
                {"seconds", seconds}},
               absl::StrFormat("%d tokens: %d chunks stored (%s), %d were there; %.2f s\n",
                               file->tokens().size(), put->chunks_stored,
                               FormatBytes(put->bytes_stored), put->chunks_existing, seconds));
}

struct LookupOptions {
  ServerOptions server;
  ContextIdentity identity;
  std::string profile;
  std::string tokens_from;
};

absl::Status Lookup(const LookupOptions& options, Format format) {
  CLI_ASSIGN_OR_RETURN(const std::shared_ptr<const Profile> profile, ReadProfile(options.profile));
  CLI_ASSIGN_OR_RETURN(const std::vector<int32_t> tokens, ReadTokens(options.tokens_from));
  CLI_ASSIGN_OR_RETURN(const std::unique_ptr<Client> client, Connect(options.server));
  CLI_ASSIGN_OR_RETURN(const LookupResult found,
                       client->Lookup(*profile, options.identity, tokens));
  std::string text = absl::StrFormat("%d of %d tokens are stored, in %d chunks\n",
                                     found.matched_tokens, tokens.size(), found.matched_chunks);
  const double values = static_cast<double>(found.matched_tokens) *
                        static_cast<double>(profile->geometry().values_per_token());
  for (size_t level = 0; level < found.level_bytes.size() && values > 0; ++level) {
    absl::StrAppendFormat(&text, "level %d  %10s  %7.3f bits per value\n", level,
                          FormatBytes(found.level_bytes[level]),
                          static_cast<double>(found.level_bytes[level]) * 8 / values);
  }
  return Print(format,
               {{"matched_chunks", found.matched_chunks},
                {"matched_tokens", found.matched_tokens},
                {"tokens", tokens.size()},
                {"complete", found.matched_tokens == tokens.size()},
                {"level_bytes", found.level_bytes}},
               text);
}

}  // namespace

void AddTransferVerbs(CLI::App& app, Command& command) {
  const auto put_options = std::make_shared<PutOptions>();
  CLI::App* put = AddVerb(app, command, "put", "Encode a KV cache and store it on a kvstreamd",
                          [put_options](Format format) { return Put(*put_options, format); });
  AddServerOptions(*put, put_options->server);
  put->add_option("--profile", put_options->profile, "the model's profile")->required();
  put->add_option("--in", put_options->in, "KV cache with tokens (safetensors)")->required();
  put->add_option("--ttl", put_options->ttl,
                  "keep the chunks so long, such as 24h; 0: as the server's --default-ttl says")
      ->capture_default_str();
  AddIdentityOptions(*put, put_options->identity);
  AddThreadsOption(*put, put_options->threads);

  const auto lookup_options = std::make_shared<LookupOptions>();
  CLI::App* lookup =
      AddVerb(app, command, "lookup", "How much of a context is stored",
              [lookup_options](Format format) { return Lookup(*lookup_options, format); });
  AddServerOptions(*lookup, lookup_options->server);
  lookup->add_option("--profile", lookup_options->profile, "the model's profile")->required();
  lookup->add_option("--tokens-from", lookup_options->tokens_from, "safetensors file with tokens")
      ->required();
  AddIdentityOptions(*lookup, lookup_options->identity);
}

}  // namespace kvstream::cli

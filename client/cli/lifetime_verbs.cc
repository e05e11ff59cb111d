// kvstreamctl delete, pin, unpin, pins
#include <algorithm>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/time.h"
#include "client/cli/command.h"
#include "client/cli/status_macros.h"
#include "client/kv_file.h"
#include "client/put_rpc.h"
#include "client/units.h"

namespace kvstream::cli {
namespace {

// Chunks by id or by the tokens of a context.
struct NamedChunks {
  ContextIdentity identity;
  std::vector<std::string> ids;
  std::string profile;
  std::string tokens_from;

  bool given() const { return !ids.empty() || !tokens_from.empty(); }
};

void AddNamedChunks(CLI::App& verb, NamedChunks& chunks) {
  verb.add_option("--id", chunks.ids, "chunk ids, as list prints them");
  verb.add_option("--tokens-from", chunks.tokens_from, "the chunks of these tokens");
  verb.add_option("--profile", chunks.profile, "the model's profile, with --tokens-from");
  AddIdentityOptions(verb, chunks.identity);
}

// `what`: "delete".
absl::StatusOr<std::vector<ChunkId>> IdsOf(const NamedChunks& chunks, absl::string_view what) {
  std::vector<ChunkId> ids;
  if (!chunks.ids.empty()) {
    if (!chunks.tokens_from.empty()) {
      return absl::InvalidArgumentError("give either --id or --tokens-from, not both");
    }
    for (const std::string& text : chunks.ids) {
      CLI_ASSIGN_OR_RETURN(const ChunkId id, ParseHexId(text));
      ids.push_back(id);
    }
    return ids;
  }
  if (chunks.tokens_from.empty() || chunks.profile.empty()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "say what to ", what, ": --id HEX..., or --tokens-from FILE with --profile FILE"));
  }
  CLI_ASSIGN_OR_RETURN(const std::shared_ptr<const Profile> profile, ReadProfile(chunks.profile));
  CLI_ASSIGN_OR_RETURN(const std::vector<int32_t> tokens, ReadTokens(chunks.tokens_from));
  return ContextChunkIds(chunks.identity, profile->id(), profile->chunk_tokens(), tokens);
}

// Chunks of one page of a deletion of all.
constexpr uint32_t kDeleteAllPage = 1000;

struct DeleteOptions {
  ServerOptions server;
  NamedChunks chunks;
  std::string context;
  bool keep_shared = false;
  bool all_of_model = false;
  bool all = false;
  bool dry_run = false;
  bool force = false;
};

// The last chunk that is stored of the tokens' context; none if nothing is.
absl::StatusOr<absl::optional<ChunkId>> LastStored(Client& client, const NamedChunks& chunks) {
  CLI_ASSIGN_OR_RETURN(const std::vector<ChunkId> ids, IdsOf(chunks, "delete"));
  CLI_ASSIGN_OR_RETURN(const std::shared_ptr<const Profile> profile, ReadProfile(chunks.profile));
  CLI_ASSIGN_OR_RETURN(const std::vector<int32_t> tokens, ReadTokens(chunks.tokens_from));
  CLI_ASSIGN_OR_RETURN(const LookupResult found, client.Lookup(*profile, chunks.identity, tokens));
  if (found.matched_chunks == 0 || found.matched_chunks > ids.size()) {
    return absl::optional<ChunkId>();
  }
  return absl::optional<ChunkId>(ids[found.matched_chunks - 1]);
}

// What a deletion in steps is asked for; none: there is nothing.
absl::StatusOr<absl::optional<DeleteWhat>> WhatToDelete(Client& client,
                                                        const DeleteOptions& options) {
  const NamedChunks& chunks = options.chunks;
  const int ways = (options.context.empty() ? 0 : 1) + (options.keep_shared ? 1 : 0) +
                   (options.all_of_model ? 1 : 0);
  if (ways > 1) {
    return absl::InvalidArgumentError(
        "give one of --context, --keep-shared and --all-of-model, not several");
  }
  DeleteWhat what;
  if (options.keep_shared) {
    if (!chunks.ids.empty()) {
      return absl::InvalidArgumentError("--keep-shared goes with --tokens-from, not with --id");
    }
    CLI_ASSIGN_OR_RETURN(what.context_end, LastStored(client, chunks));
    if (!what.context_end.has_value()) return absl::optional<DeleteWhat>();
    return absl::optional<DeleteWhat>(what);
  }
  if (chunks.given()) {
    return absl::InvalidArgumentError("--context and --all-of-model go without other chunks");
  }
  if (options.all_of_model) {
    what.model = ModelLabel(chunks.identity);
    if (what.model.empty()) return absl::InvalidArgumentError("--all-of-model needs --model");
    return absl::optional<DeleteWhat>(what);
  }
  CLI_ASSIGN_OR_RETURN(what.context_end, ParseHexId(options.context));
  return absl::optional<DeleteWhat>(what);
}

absl::Status DeleteInSteps(const DeleteOptions& options, Format format) {
  CLI_ASSIGN_OR_RETURN(const std::unique_ptr<Client> client, Connect(options.server));
  CLI_ASSIGN_OR_RETURN(const absl::optional<DeleteWhat> what, WhatToDelete(*client, options));
  DeleteStep sum;
  while (what.has_value()) {
    CLI_ASSIGN_OR_RETURN(DeleteStep step, client->DeleteMatching(*what, sum.next_page_token,
                                                                 options.dry_run, options.force));
    sum.chunks += step.chunks;
    sum.payload_bytes += step.payload_bytes;
    sum.chunks_pinned += step.chunks_pinned;
    sum.next_page_token = std::move(step.next_page_token);
    if (sum.next_page_token.empty()) break;
  }
  const std::string pinned =
      sum.chunks_pinned == 0
          ? ""
          : absl::StrFormat("; %d stay because they are pinned (--force)", sum.chunks_pinned);
  return Print(
      format,
      {{"chunks_deleted", sum.chunks},
       {"payload_bytes", sum.payload_bytes},
       {"chunks_pinned", sum.chunks_pinned},
       {"dry_run", options.dry_run}},
      absl::StrFormat("%d chunks, %s, %s deleted%s\n", sum.chunks, FormatBytes(sum.payload_bytes),
                      options.dry_run ? "would be" : "are", pinned));
}

// Page by page: what is stored meanwhile may be left.
absl::Status DeleteAll(const DeleteOptions& options, Format format) {
  if (options.chunks.given() || !options.context.empty() || options.keep_shared ||
      options.all_of_model || options.dry_run) {
    return absl::InvalidArgumentError("--all goes with --force and --tenant only");
  }
  CLI_ASSIGN_OR_RETURN(const std::unique_ptr<Client> client, Connect(options.server));
  uint64_t deleted = 0;
  uint64_t named = 0;
  std::string token;
  do {
    CLI_ASSIGN_OR_RETURN(ListPage page,
                         client->List(kDeleteAllPage, token, absl::optional<ProfileId>()));
    std::vector<ChunkId> ids;
    for (const ListedChunk& chunk : page.chunks) ids.push_back(chunk.id);
    named += ids.size();
    if (!ids.empty()) {
      CLI_ASSIGN_OR_RETURN(const uint64_t of_page, client->Delete(ids, options.force));
      deleted += of_page;
    }
    token = std::move(page.next_page_token);
  } while (!token.empty());
  return Print(format, {{"chunks_deleted", deleted}, {"chunks_named", named}},
               absl::StrFormat("%d chunks were stored and are deleted\n", deleted));
}

absl::Status Delete(const DeleteOptions& options, Format format) {
  if (options.all) return DeleteAll(options, format);
  if (!options.context.empty() || options.keep_shared || options.all_of_model) {
    return DeleteInSteps(options, format);
  }
  CLI_ASSIGN_OR_RETURN(const std::vector<ChunkId> ids, IdsOf(options.chunks, "delete"));
  if (options.dry_run) {
    return absl::InvalidArgumentError(
        "--dry-run goes with --context, --keep-shared or --all-of-model");
  }
  CLI_ASSIGN_OR_RETURN(const std::unique_ptr<Client> client, Connect(options.server));
  CLI_ASSIGN_OR_RETURN(const uint64_t deleted, client->Delete(ids, options.force));
  return Print(
      format, {{"chunks_deleted", deleted}, {"chunks_named", ids.size()}},
      absl::StrFormat("%d of %d chunks were stored and are deleted\n", deleted, ids.size()));
}

struct PinOptions {
  ServerOptions server;
  NamedChunks chunks;
  std::string owner;
  std::string time;
};

absl::Status Pin(const PinOptions& options, Format format) {
  CLI_ASSIGN_OR_RETURN(const std::vector<ChunkId> ids, IdsOf(options.chunks, "pin"));
  CLI_ASSIGN_OR_RETURN(const absl::Duration time, ParseDuration(options.time));
  CLI_ASSIGN_OR_RETURN(const std::unique_ptr<Client> client, Connect(options.server));
  CLI_ASSIGN_OR_RETURN(const uint64_t pinned, client->Pin(ids, options.owner, time));
  return Print(format, {{"chunks_pinned", pinned}, {"chunks_named", ids.size()}},
               absl::StrFormat("%d of %d chunks are stored and pinned for %s\n", pinned, ids.size(),
                               absl::FormatDuration(time)));
}

struct UnpinOptions {
  ServerOptions server;
  NamedChunks chunks;
  std::string owner;
  bool all_owners = false;
  bool everywhere = false;
};

// Of one owner, wherever they are.
absl::StatusOr<uint64_t> UnpinEverywhere(Client& client, const std::string& owner) {
  uint64_t ended = 0;
  std::string token;
  do {
    CLI_ASSIGN_OR_RETURN(PinPage page, client.ListPins(0, token, owner));
    std::vector<ChunkId> ids;
    for (const ChunkPin& pin : page.pins) ids.push_back(pin.id);
    CLI_ASSIGN_OR_RETURN(const uint64_t of_page, client.Unpin(ids, owner));
    ended += of_page;
    token = std::move(page.next_page_token);
  } while (!token.empty());
  return ended;
}

absl::Status Unpin(const UnpinOptions& options, Format format) {
  if (options.owner.empty() != options.all_owners) {
    return absl::InvalidArgumentError("give either --owner or --all-owners");
  }
  uint64_t ended = 0;
  if (options.everywhere) {
    if (options.all_owners || options.chunks.given()) {
      return absl::InvalidArgumentError("--everywhere goes with --owner and without chunks");
    }
    CLI_ASSIGN_OR_RETURN(const std::unique_ptr<Client> client, Connect(options.server));
    CLI_ASSIGN_OR_RETURN(ended, UnpinEverywhere(*client, options.owner));
  } else {
    CLI_ASSIGN_OR_RETURN(const std::vector<ChunkId> ids, IdsOf(options.chunks, "unpin"));
    absl::optional<std::string> owner;
    if (!options.all_owners) owner = options.owner;
    CLI_ASSIGN_OR_RETURN(const std::unique_ptr<Client> client, Connect(options.server));
    CLI_ASSIGN_OR_RETURN(ended, client->Unpin(ids, owner));
  }
  return Print(format, {{"pins_ended", ended}}, absl::StrFormat("%d pins are ended\n", ended));
}

struct PinsOptions {
  ServerOptions server;
  std::string owner;
  std::string page_token;
  uint64_t limit = 1000;
};

absl::Status Pins(const PinsOptions& options, Format format) {
  const bool is_hex = std::all_of(options.page_token.begin(), options.page_token.end(), [](char c) {
    return absl::ascii_isxdigit(static_cast<unsigned char>(c));
  });
  if (!is_hex || options.page_token.size() % 2 != 0) {
    return absl::InvalidArgumentError("--page-token is not what pins printed as next_page_token");
  }
  CLI_ASSIGN_OR_RETURN(const std::unique_ptr<Client> client, Connect(options.server));
  std::string token = absl::HexStringToBytes(options.page_token);
  Json json = Json::array();
  std::string text;
  do {
    const auto page_size =
        static_cast<uint32_t>(std::min<uint64_t>(options.limit - json.size(), 1000));
    CLI_ASSIGN_OR_RETURN(PinPage page, client->ListPins(page_size, token, options.owner));
    for (const ChunkPin& pin : page.pins) {
      const std::string until = absl::FormatTime(absl::RFC3339_sec, pin.until, absl::UTCTimeZone());
      json.push_back({{"id", HexOf(pin.id)}, {"owner", pin.owner}, {"until", until}});
      absl::StrAppendFormat(&text, "%s  until %s  %s\n", HexOf(pin.id), until,
                            absl::CHexEscape(pin.owner));
    }
    token = std::move(page.next_page_token);
  } while (!token.empty() && json.size() < options.limit);
  absl::StrAppendFormat(
      &text, "%d pins%s\n", json.size(),
      token.empty() ? ""
                    : absl::StrCat("; go on with --page-token ", absl::BytesToHexString(token)));
  return Print(format,
               {{"pins", std::move(json)}, {"next_page_token", absl::BytesToHexString(token)}},
               text);
}

}  // namespace

void AddLifetimeVerbs(CLI::App& app, Command& command) {
  const auto delete_options = std::make_shared<DeleteOptions>();
  CLI::App* remove =
      AddVerb(app, command, "delete", "Delete chunks by id, of a context or of a model",
              [delete_options](Format format) { return Delete(*delete_options, format); });
  AddServerOptions(*remove, delete_options->server);
  AddActingForOption(*remove, delete_options->server);
  remove->add_flag("--all", delete_options->all, "all chunks of the tenant");
  AddNamedChunks(*remove, delete_options->chunks);
  remove->add_option("--context", delete_options->context,
                     "id of a context's last chunk: it, back to where others share the context");
  remove->add_flag("--keep-shared", delete_options->keep_shared,
                   "with --tokens-from: not what other contexts share");
  remove->add_flag("--all-of-model", delete_options->all_of_model,
                   "everything that was put with --model and --adapter");
  remove->add_flag("--dry-run", delete_options->dry_run, "only tell what would go");
  remove->add_flag("--force", delete_options->force, "also what is pinned");

  const auto pin_options = std::make_shared<PinOptions>();
  CLI::App* pin = AddVerb(app, command, "pin", "Keep chunks from being evicted, expired or deleted",
                          [pin_options](Format format) { return Pin(*pin_options, format); });
  AddServerOptions(*pin, pin_options->server);
  AddNamedChunks(*pin, pin_options->chunks);
  pin->add_option("--owner", pin_options->owner, "who pins, 1 to 64 bytes")->required();
  pin->add_option("--for", pin_options->time, "how long, such as 90m or 24h")->required();

  const auto unpin_options = std::make_shared<UnpinOptions>();
  CLI::App* unpin = AddVerb(app, command, "unpin", "End pins", [unpin_options](Format format) {
    return Unpin(*unpin_options, format);
  });
  AddServerOptions(*unpin, unpin_options->server);
  AddNamedChunks(*unpin, unpin_options->chunks);
  unpin->add_option("--owner", unpin_options->owner, "whose pins");
  unpin->add_flag("--all-owners", unpin_options->all_owners, "everybody's pins of these chunks");
  unpin->add_flag("--everywhere", unpin_options->everywhere, "all pins of the owner");

  const auto pins_options = std::make_shared<PinsOptions>();
  CLI::App* pins = AddVerb(app, command, "pins", "Pins, in the order of their chunks' ids",
                           [pins_options](Format format) { return Pins(*pins_options, format); });
  AddServerOptions(*pins, pins_options->server);
  pins->add_option("--owner", pins_options->owner, "only this owner's");
  pins->add_option("--limit", pins_options->limit, "at most so many pins")
      ->check(CLI::Range(uint64_t{1}, uint64_t{1000000}))
      ->capture_default_str();
  pins->add_option("--page-token", pins_options->page_token, "next_page_token of an earlier pins");
}

}  // namespace kvstream::cli

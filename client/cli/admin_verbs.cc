// kvstreamctl stats, list, ping
#include <algorithm>
#include <iterator>
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
#include "client/units.h"

namespace kvstream::cli {
namespace {

absl::Status Stats(const ServerOptions& options, Format format) {
  CLI_ASSIGN_OR_RETURN(const std::unique_ptr<Client> client, Connect(options));
  CLI_ASSIGN_OR_RETURN(const ServerStats stats, client->Stats());
  Json profiles = Json::array();
  std::string profile_lines;
  for (const ProfileId& id : stats.profile_ids) {
    profiles.push_back(HexOf(id));
    absl::StrAppend(&profile_lines, "profile    ", HexOf(id), "\n");
  }
  std::string levels;
  for (size_t level = 0; level < stats.chunks_by_level.size(); ++level) {
    absl::StrAppend(&levels, level == 0 ? "" : ", ", stats.chunks_by_level[level], " at level ",
                    level);
  }
  std::string capacity =
      stats.capacity_bytes == 0
          ? ""
          : absl::StrFormat("room       %s; %d segments evicted (%s), %d chunks whole\n",
                            FormatBytes(stats.capacity_bytes), stats.evicted_segments,
                            FormatBytes(stats.evicted_bytes), stats.evicted_chunks);
  if (stats.expired_chunks > 0 || stats.pins > 0) {
    absl::StrAppendFormat(&capacity, "lifetimes  %d chunks expired; %d pins, on %s\n",
                          stats.expired_chunks, stats.pins, FormatBytes(stats.pinned_bytes));
  }
  if (stats.store_writes == StoreWrites::kRefused) {
    absl::StrAppend(&capacity, "writes     refused, the disk fails; tried again\n");
  } else if (stats.store_writes == StoreWrites::kRefusedUntilRestart) {
    absl::StrAppend(&capacity, "writes     refused until kvstreamd is restarted\n");
  }
  if (stats.damaged_files > 0) {
    absl::StrAppend(&capacity, "damage     in ", stats.damaged_files,
                    " files of the store; see kvstreamctl scrub\n");
  }
  Json tenants = Json::array();
  std::string tenant_lines;
  const auto add_tenant = [&tenant_lines](const std::string& name, uint64_t bytes,
                                          uint64_t quota_bytes) {
    absl::StrAppend(&tenant_lines, "tenant     ", name, ": ", FormatBytes(bytes),
                    quota_bytes == 0 ? "" : absl::StrCat(" of ", FormatBytes(quota_bytes)), "\n");
  };
  if (stats.tenants.empty() && !stats.tenant.empty()) {
    add_tenant(stats.tenant, stats.tenant_bytes, stats.tenant_quota_bytes);
  }
  for (const ServerStats::Tenant& tenant : stats.tenants) {
    tenants.push_back({{"name", tenant.name},
                       {"chunks", tenant.chunks},
                       {"bytes", tenant.bytes},
                       {"quota_bytes", tenant.quota_bytes}});
    add_tenant(tenant.name, tenant.bytes, tenant.quota_bytes);
  }
  return Print(
      format,
      {{"version", stats.version},
       {"uptime_seconds", absl::ToDoubleSeconds(stats.uptime)},
       {"store", stats.store},
       {"chunks", stats.chunks},
       {"payload_bytes", stats.payload_bytes},
       {"disk_bytes", stats.disk_bytes},
       {"capacity_bytes", stats.capacity_bytes},
       {"evicted_segments", stats.evicted_segments},
       {"evicted_bytes", stats.evicted_bytes},
       {"evicted_chunks", stats.evicted_chunks},
       {"expired_chunks", stats.expired_chunks},
       {"pins", stats.pins},
       {"pinned_bytes", stats.pinned_bytes},
       {"store_writes", std::string(StoreWritesName(stats.store_writes))},
       {"damaged_files", stats.damaged_files},
       {"profile_ids", std::move(profiles)},
       {"loads_in_flight", stats.loads_in_flight},
       {"loads_finished", stats.loads_finished},
       {"loads_failed", stats.loads_failed},
       {"load_bytes_sent", stats.load_bytes_sent},
       {"chunks_by_level", stats.chunks_by_level},
       {"chunks_recomputed", stats.chunks_recomputed},
       {"tenant", stats.tenant},
       {"tenant_bytes", stats.tenant_bytes},
       {"tenant_quota_bytes", stats.tenant_quota_bytes},
       {"tenants", std::move(tenants)}},
      absl::StrFormat(
          "kvstreamd  %s, up %s, store %s\n"
          "stored     %d chunks, %s of payload, %s on disk\n%s"
          "loads      %d in flight, %d finished, %d failed, %s sent\n"
          "chunks     %s%s%d recomputed\n%s%s",
          stats.version, absl::FormatDuration(absl::Trunc(stats.uptime, absl::Seconds(1))),
          stats.store, stats.chunks, FormatBytes(stats.payload_bytes),
          FormatBytes(stats.disk_bytes), capacity, stats.loads_in_flight, stats.loads_finished,
          stats.loads_failed, FormatBytes(stats.load_bytes_sent), levels,
          levels.empty() ? "" : ", ", stats.chunks_recomputed, tenant_lines, profile_lines));
}

struct ListOptions {
  ServerOptions server;
  std::string profile;
  std::string model;
  std::string page_token;
  uint64_t limit = 1000;
};

Json ChunkJson(const ListedChunk& chunk) {
  uint64_t bytes = 0;
  for (const uint64_t segment : chunk.info.segment_bytes) bytes += segment;
  Json json = {
      {"id", HexOf(chunk.id)},
      {"parent", nullptr},
      {"profile_id", HexOf(chunk.info.profile_id)},
      {"model", chunk.info.model},
      {"first_token", chunk.info.first_token},
      {"tokens", chunk.info.tokens},
      {"bytes", bytes},
      {"segment_bytes", chunk.info.segment_bytes},
      {"levels_lost", chunk.info.levels_lost},
      {"created", absl::FormatTime(absl::RFC3339_sec, chunk.info.created, absl::UTCTimeZone())}};
  if (chunk.info.parent.has_value()) json["parent"] = HexOf(*chunk.info.parent);
  json["expires"] = nullptr;
  if (chunk.info.expires != absl::InfiniteFuture()) {
    json["expires"] = absl::FormatTime(absl::RFC3339_sec, chunk.info.expires, absl::UTCTimeZone());
  }
  return json;
}

absl::Status List(const ListOptions& options, Format format) {
  absl::optional<ProfileId> profile_id;
  if (!options.profile.empty()) {
    CLI_ASSIGN_OR_RETURN(const std::shared_ptr<const Profile> profile,
                         ReadProfile(options.profile));
    profile_id = profile->id();
  }
  const bool is_hex = std::all_of(options.page_token.begin(), options.page_token.end(), [](char c) {
    return absl::ascii_isxdigit(static_cast<unsigned char>(c));
  });
  if (!is_hex || options.page_token.size() % 2 != 0) {
    return absl::InvalidArgumentError("--page-token is not what list printed as next_page_token");
  }
  CLI_ASSIGN_OR_RETURN(const std::unique_ptr<Client> client, Connect(options.server));
  std::string token = absl::HexStringToBytes(options.page_token);
  std::vector<ListedChunk> chunks;
  do {
    const uint32_t page_size =
        static_cast<uint32_t>(std::min<uint64_t>(options.limit - chunks.size(), 1000));
    CLI_ASSIGN_OR_RETURN(ListPage page, client->List(page_size, token, profile_id, options.model));
    std::move(page.chunks.begin(), page.chunks.end(), std::back_inserter(chunks));
    token = std::move(page.next_page_token);
  } while (!token.empty() && chunks.size() < options.limit);

  Json json = Json::array();
  std::string text;
  for (const ListedChunk& chunk : chunks) {
    Json entry = ChunkJson(chunk);
    absl::StrAppendFormat(&text, "%s  tokens %d..%d  %10s  %s  %s\n", HexOf(chunk.id),
                          chunk.info.first_token, chunk.info.first_token + chunk.info.tokens - 1,
                          FormatBytes(entry["bytes"].get<uint64_t>()),
                          entry["created"].get<std::string>(), absl::CHexEscape(chunk.info.model));
    json.push_back(std::move(entry));
  }
  absl::StrAppendFormat(
      &text, "%d chunks%s\n", chunks.size(),
      token.empty() ? ""
                    : absl::StrCat("; go on with --page-token ", absl::BytesToHexString(token)));
  return Print(format,
               {{"chunks", std::move(json)}, {"next_page_token", absl::BytesToHexString(token)}},
               text);
}

absl::Status Ping(const ServerOptions& options, Format format) {
  CLI_ASSIGN_OR_RETURN(const std::unique_ptr<Client> client, Connect(options));
  CLI_ASSIGN_OR_RETURN(const PingResult ping, client->Ping());
  if (!ping.serving) {
    return absl::UnavailableError(absl::StrCat(
        options.server, " is up but not serving: it is starting or draining; try again"));
  }
  return Print(format,
               {{"server", options.server},
                {"serving", ping.serving},
                {"round_trip_ms", absl::ToDoubleMilliseconds(ping.round_trip)}},
               absl::StrFormat("%s is serving, round trip %s\n", options.server,
                               FormatMillis(ping.round_trip)));
}

}  // namespace

void AddAdminVerbs(CLI::App& app, Command& command) {
  const auto stats_options = std::make_shared<ServerOptions>();
  CLI::App* stats =
      AddVerb(app, command, "stats", "A kvstreamd's state in figures",
              [stats_options](Format format) { return Stats(*stats_options, format); });
  AddServerOptions(*stats, *stats_options);
  AddActingForOption(*stats, *stats_options);

  const auto list_options = std::make_shared<ListOptions>();
  CLI::App* list = AddVerb(app, command, "list", "Stored chunks, in the order of their ids",
                           [list_options](Format format) { return List(*list_options, format); });
  AddServerOptions(*list, list_options->server);
  AddActingForOption(*list, list_options->server);
  list->add_option("--profile", list_options->profile, "only chunks of this profile");
  list->add_option("--model", list_options->model, "only chunks that list shows with this model");
  list->add_option("--limit", list_options->limit, "at most so many chunks")
      ->check(CLI::Range(uint64_t{1}, uint64_t{1000000}))
      ->capture_default_str();
  list->add_option("--page-token", list_options->page_token, "next_page_token of an earlier list");

  const auto ping_options = std::make_shared<ServerOptions>();
  AddServerOptions(
      *AddVerb(app, command, "ping", "Whether a kvstreamd is serving, and how far away it is",
               [ping_options](Format format) { return Ping(*ping_options, format); }),
      *ping_options);
}

}  // namespace kvstream::cli

// kvstreamctl scrub, backup
#include <algorithm>
#include <memory>
#include <string>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "client/cli/command.h"
#include "client/cli/status_macros.h"
#include "client/units.h"

namespace kvstream::cli {
namespace {

// Damage that is listed; all of it is counted.
constexpr size_t kListedMax = 10000;
constexpr uint64_t kPageBytes = uint64_t{16} << 20;

struct ScrubOptions {
  ServerOptions server;
  std::string rate = "100MB";
  bool delete_damaged = false;
};

struct Found {
  uint64_t chunks = 0, files = 0, bytes = 0;
  uint64_t damaged_chunks = 0, damaged_files = 0, deleted = 0;
  Json damage = Json::array();
  std::string lines;

  void Add(const ScrubPage& page) {
    chunks += page.chunks;
    files += page.files;
    bytes += page.bytes;
    for (const ScrubDamage& one : page.damage) {
      (one.chunk_id.has_value() ? damaged_chunks : damaged_files) += 1;
      deleted += one.deleted ? 1 : 0;
      if (damage.size() >= kListedMax) continue;
      Json json = {{"chunk", nullptr},
                   {"level", nullptr},
                   {"file", one.file},
                   {"what", one.what},
                   {"deleted", one.deleted}};
      if (one.chunk_id.has_value()) json["chunk"] = HexOf(*one.chunk_id);
      if (one.level.has_value()) json["level"] = *one.level;
      damage.push_back(std::move(json));
      absl::StrAppend(&lines,
                      one.chunk_id.has_value() ? absl::StrCat("chunk ", HexOf(*one.chunk_id))
                                               : absl::StrCat("file ", absl::CHexEscape(one.file)),
                      one.level.has_value() ? absl::StrCat(", level ", *one.level) : "",
                      one.deleted ? ", deleted" : "", ": ", absl::CHexEscape(one.what), "\n");
    }
  }
};

absl::Status Scrub(const ScrubOptions& options, Format format) {
  CLI_ASSIGN_OR_RETURN(const double rate, ParseRate(options.rate));
  CLI_ASSIGN_OR_RETURN(const std::unique_ptr<Client> client, Connect(options.server));
  // Pages of at most a second of the rate, so that the disk is shared evenly.
  const uint64_t page_bytes =
      static_cast<uint64_t>(std::clamp(rate, 1.0, static_cast<double>(kPageBytes)));
  Found found;
  std::string token;
  do {
    const absl::Time began = absl::Now();
    CLI_ASSIGN_OR_RETURN(const ScrubPage page,
                         client->Scrub(token, page_bytes, options.delete_damaged));
    found.Add(page);
    token = page.next_page_token;
    const absl::Time due = began + absl::Seconds(static_cast<double>(page.bytes) / rate);
    if (!token.empty()) absl::SleepFor(due - absl::Now());
  } while (!token.empty());
  absl::Status printed = Print(
      format,
      {{"chunks", found.chunks},
       {"files", found.files},
       {"bytes", found.bytes},
       {"damaged_chunks", found.damaged_chunks},
       {"damaged_files", found.damaged_files},
       {"chunks_deleted", found.deleted},
       {"damage", std::move(found.damage)}},
      absl::StrCat(found.lines,
                   absl::StrFormat("%d chunks and %d files checked, %s read: %d chunks damaged "
                                   "(%d deleted), %d files damaged\n",
                                   found.chunks, found.files, FormatBytes(found.bytes),
                                   found.damaged_chunks, found.deleted, found.damaged_files)));
  if (!printed.ok()) return printed;
  if (found.damaged_chunks > found.deleted) {
    return absl::DataLossError(absl::StrCat(
        found.damaged_chunks - found.deleted,
        " damaged chunks are stored; scrub --delete-damaged deletes them, then put them again"));
  }
  if (found.damaged_files > 0) {
    return absl::DataLossError(absl::StrCat(
        found.damaged_files,
        " files of the store are damaged; look at the disk, and see docs/storage.md, \"Damage\""));
  }
  return absl::OkStatus();
}

struct BackupOptions {
  ServerOptions server;
  std::string name;
};

absl::Status Backup(const BackupOptions& options, Format format) {
  CLI_ASSIGN_OR_RETURN(const std::unique_ptr<Client> client, Connect(options.server));
  CLI_ASSIGN_OR_RETURN(const BackupResult backup, client->Backup(options.name));
  return Print(
      format,
      {{"path", backup.path}, {"chunks", backup.chunks}, {"payload_bytes", backup.payload_bytes}},
      absl::StrFormat("%d chunks, %s of payload, are backed up in %s on the server\n",
                      backup.chunks, FormatBytes(backup.payload_bytes),
                      absl::CHexEscape(backup.path)));
}

}  // namespace

void AddScrubVerbs(CLI::App& app, Command& command) {
  const auto scrub_options = std::make_shared<ScrubOptions>();
  CLI::App* scrub =
      AddVerb(app, command, "scrub", "Read and check everything that a kvstreamd has stored",
              [scrub_options](Format format) { return Scrub(*scrub_options, format); });
  AddServerOptions(*scrub, scrub_options->server);
  scrub->add_option("--rate", scrub_options->rate, "read no faster than this, as 100MB or 1Gbit")
      ->capture_default_str();
  scrub->add_flag("--delete-damaged", scrub_options->delete_damaged,
                  "delete damaged chunks, so that a put stores them again");

  const auto backup_options = std::make_shared<BackupOptions>();
  CLI::App* backup =
      AddVerb(app, command, "backup", "Have a kvstreamd copy its store within its --backup-dir",
              [backup_options](Format format) { return Backup(*backup_options, format); });
  AddServerOptions(*backup, backup_options->server);
  backup->add_option("NAME", backup_options->name, "directory to make within --backup-dir")
      ->required();
}

}  // namespace kvstream::cli

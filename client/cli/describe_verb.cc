// kvstreamctl describe
#include <memory>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "client/cli/command.h"
#include "client/cli/profile_facts.h"
#include "client/cli/status_macros.h"
#include "client/units.h"

namespace kvstream::cli {
namespace {

struct DescribeOptions {
  ServerOptions server;
  std::string profile;
};

absl::Status DescribeFile(const std::string& path, Format format) {
  CLI_ASSIGN_OR_RETURN(const std::shared_ptr<const Profile> profile, ReadProfile(path));
  return Print(format, ProfileJson(*profile), ProfileText(*profile));
}

absl::Status DescribeServer(const ServerOptions& options, Format format) {
  CLI_ASSIGN_OR_RETURN(const std::unique_ptr<Client> client, Connect(options));
  CLI_ASSIGN_OR_RETURN(const ServerStats stats, client->Stats());
  Json profiles = Json::array();
  std::string text =
      absl::StrFormat("%s: kvstreamd %s, store %s, %d chunks, %d profiles\n", options.server,
                      stats.version, stats.store, stats.chunks, stats.profile_ids.size());
  for (const ProfileId& id : stats.profile_ids) {
    CLI_ASSIGN_OR_RETURN(const std::shared_ptr<const Profile> profile, client->GetProfile(id));
    profiles.push_back(ProfileJson(*profile));
    absl::StrAppend(&text, "\n", ProfileText(*profile));
  }
  return Print(format,
               {{"server", options.server},
                {"version", stats.version},
                {"store", stats.store},
                {"chunks", stats.chunks},
                {"payload_bytes", stats.payload_bytes},
                {"profiles", std::move(profiles)}},
               text);
}

}  // namespace

void AddDescribeVerb(CLI::App& app, Command& command) {
  const auto options = std::make_shared<DescribeOptions>();
  CLI::App* describe =
      AddVerb(app, command, "describe", "What a profile holds, or a kvstreamd and its profiles",
              [options](Format format) {
                return options->profile.empty() ? DescribeServer(options->server, format)
                                                : DescribeFile(options->profile, format);
              });
  AddServerOptions(*describe, options->server);
  describe->add_option("--profile", options->profile,
                       "describe this profile file instead of a server");
}

}  // namespace kvstream::cli

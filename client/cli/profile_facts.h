// A profile as JSON and as text, for `profile build` and `describe`.
#ifndef KVSTREAM_CLIENT_CLI_PROFILE_FACTS_H_
#define KVSTREAM_CLIENT_CLI_PROFILE_FACTS_H_

#include <string>

#include "client/cli/output.h"
#include "codec/profile.h"

namespace kvstream::cli {

Json ProfileJson(const Profile& profile);
// Some lines, each ended.
std::string ProfileText(const Profile& profile);

}  // namespace kvstream::cli

#endif  // KVSTREAM_CLIENT_CLI_PROFILE_FACTS_H_

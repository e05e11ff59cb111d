// Profiles to and from the server, in pieces.
#ifndef KVSTREAM_CLIENT_PROFILE_RPC_H_
#define KVSTREAM_CLIENT_PROFILE_RPC_H_

#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "codec/profile.h"
#include "kvstream/v1/kvstream.grpc.pb.h"

namespace kvstream {

// `stall_max` bounds each wait for the server. `server` is for messages.
absl::Status RunPutProfile(v1::KVStream::StubInterface* stub, absl::string_view server,
                           absl::Duration stall_max, const Profile& profile);

// DATA_LOSS if the bytes are not the profile with that id; RESOURCE_EXHAUSTED if they are more than
// any profile has (1 GiB).
absl::StatusOr<std::shared_ptr<const Profile>> RunGetProfile(v1::KVStream::StubInterface* stub,
                                                             absl::string_view server,
                                                             absl::Duration stall_max,
                                                             const ProfileId& id);

}  // namespace kvstream

#endif  // KVSTREAM_CLIENT_PROFILE_RPC_H_

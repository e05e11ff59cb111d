// Connections to a daemon.
#ifndef KVSTREAM_CLIENT_CHANNEL_H_
#define KVSTREAM_CLIENT_CHANNEL_H_

#include <grpcpp/channel.h>
#include <grpcpp/support/channel_arguments.h>

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "client/connection_security.h"

namespace kvstream {

// Does not connect: the first call does. NOT_FOUND for a file that cannot be read, INVALID_ARGUMENT
// for options that do not fit together. A certificate or key that is none shows as UNAVAILABLE of
// the first call. A token costs each call an interceptor; without one there is none.
absl::StatusOr<std::shared_ptr<grpc::Channel>> MakeChannel(const std::string& server,
                                                           const ConnectionSecurity& security,
                                                           const grpc::ChannelArguments& arguments);

}  // namespace kvstream

#endif  // KVSTREAM_CLIENT_CHANNEL_H_

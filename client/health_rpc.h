// The standard gRPC health check (grpc.health.v1.Health/Check).
#ifndef KVSTREAM_CLIENT_HEALTH_RPC_H_
#define KVSTREAM_CLIENT_HEALTH_RPC_H_

#include <grpcpp/channel.h>

#include <memory>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "client/client.h"

namespace kvstream {

// Client::Ping. Connects first, if need be, so that the round trip is the call's alone.
absl::StatusOr<PingResult> RunPing(const std::shared_ptr<grpc::Channel>& channel,
                                   absl::string_view server, absl::Duration timeout);

}  // namespace kvstream

#endif  // KVSTREAM_CLIENT_HEALTH_RPC_H_

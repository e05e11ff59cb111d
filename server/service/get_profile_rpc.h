// The GetProfile call: streams a profile's bytes.
#ifndef KVSTREAM_SERVER_SERVICE_GET_PROFILE_RPC_H_
#define KVSTREAM_SERVER_SERVICE_GET_PROFILE_RPC_H_

#include "grpcpp/support/server_callback.h"
#include "kvstream/v1/kvstream.pb.h"
#include "server/service/rpc_environment.h"

namespace kvstream {

// A reactor that owns itself. Sends pieces of 1 MiB from the profile cache, which calls of the same
// profile share, one outstanding at a time; a client that takes none for the idle timeout is cut
// off. `environment` outlives the call.
grpc::ServerWriteReactor<v1::GetProfileResponse>* StartGetProfile(
    grpc::CallbackServerContext* context, const v1::GetProfileRequest* request,
    const RpcEnvironment* environment);

}  // namespace kvstream

#endif  // KVSTREAM_SERVER_SERVICE_GET_PROFILE_RPC_H_

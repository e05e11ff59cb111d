// The Put call: feeds a client's messages to a PutUpload.
#ifndef KVSTREAM_SERVER_SERVICE_PUT_RPC_H_
#define KVSTREAM_SERVER_SERVICE_PUT_RPC_H_

#include "grpcpp/support/server_callback.h"
#include "kvstream/v1/kvstream.pb.h"
#include "server/service/rpc_environment.h"

namespace kvstream {

// A reactor that owns itself. Messages are handled one at a time on the writers' pool; the next is
// read once the one before is done, so a fast client is held back by the store. A client that sends
// nothing for the idle timeout loses its call and its part of the upload budget. `environment`
// outlives the call; `response` is gRPC's until OnDone.
grpc::ServerReadReactor<v1::PutRequest>* StartPut(grpc::CallbackServerContext* context,
                                                  v1::PutResponse* response,
                                                  const RpcEnvironment* environment);

// The same for PutProfile: gathers the bytes, each message reserved from the upload budget first;
// parses and stores them at the end.
grpc::ServerReadReactor<v1::PutProfileRequest>* StartPutProfile(
    grpc::CallbackServerContext* context, v1::PutProfileResponse* response,
    const RpcEnvironment* environment);

}  // namespace kvstream

#endif  // KVSTREAM_SERVER_SERVICE_PUT_RPC_H_

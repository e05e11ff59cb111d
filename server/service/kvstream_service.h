// The gRPC service: hands each call to the file that implements it.
#ifndef KVSTREAM_SERVER_SERVICE_KVSTREAM_SERVICE_H_
#define KVSTREAM_SERVER_SERVICE_KVSTREAM_SERVICE_H_

#include <functional>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "grpcpp/support/byte_buffer.h"
#include "grpcpp/support/server_callback.h"
#include "kvstream/v1/kvstream.grpc.pb.h"
#include "server/service/rpc_environment.h"
#include "server/service/tenants.h"

namespace kvstream {

// Load is raw: its messages are built around the store's memory (segment_message.h). The others
// take parsed messages. With tenants every call works with its caller's environment, and a call of
// nobody ends with UNAUTHENTICATED before anything of it is looked at. gRPC's callback threads
// never block here: work on the store runs on the environment's pools, within its limits.
// Thread-safe; `environment` and `tenants` outlive it.
class KvStreamService final
    : public v1::KVStream::WithRawCallbackMethod_Load<v1::KVStream::WithCallbackMethod_PutProfile<
          v1::KVStream::WithCallbackMethod_GetProfile<v1::KVStream::WithCallbackMethod_Put<
              v1::KVStream::WithCallbackMethod_Lookup<v1::KVStream::WithCallbackMethod_Delete<
                  v1::KVStream::WithCallbackMethod_List<v1::KVStream::WithCallbackMethod_Stats<
                      v1::KVStream::WithCallbackMethod_DeleteMatching<
                          v1::KVStream::WithCallbackMethod_Renew<
                              v1::KVStream::WithCallbackMethod_Pin<
                                  v1::KVStream::WithCallbackMethod_Unpin<
                                      v1::KVStream::WithCallbackMethod_ListPins<
                                          v1::KVStream::WithCallbackMethod_Scrub<
                                              v1::KVStream::WithCallbackMethod_Backup<
                                                  v1::KVStream::Service>>>>>>>>>>>>>>> {
 public:
  // `tenants` null: everybody works with `environment`.
  KvStreamService(const RpcEnvironment* environment, const Tenants* tenants)
      : environment_(environment), tenants_(tenants) {}

  grpc::ServerBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer>* Load(
      grpc::CallbackServerContext* context) override;
  grpc::ServerReadReactor<v1::PutProfileRequest>* PutProfile(
      grpc::CallbackServerContext* context, v1::PutProfileResponse* response) override;
  grpc::ServerWriteReactor<v1::GetProfileResponse>* GetProfile(
      grpc::CallbackServerContext* context, const v1::GetProfileRequest* request) override;
  grpc::ServerReadReactor<v1::PutRequest>* Put(grpc::CallbackServerContext* context,
                                               v1::PutResponse* response) override;
  grpc::ServerUnaryReactor* Lookup(grpc::CallbackServerContext* context,
                                   const v1::LookupRequest* request,
                                   v1::LookupResponse* response) override;
  grpc::ServerUnaryReactor* Delete(grpc::CallbackServerContext* context,
                                   const v1::DeleteRequest* request,
                                   v1::DeleteResponse* response) override;
  grpc::ServerUnaryReactor* DeleteMatching(grpc::CallbackServerContext* context,
                                           const v1::DeleteMatchingRequest* request,
                                           v1::DeleteMatchingResponse* response) override;
  grpc::ServerUnaryReactor* Renew(grpc::CallbackServerContext* context,
                                  const v1::RenewRequest* request,
                                  v1::RenewResponse* response) override;
  grpc::ServerUnaryReactor* Pin(grpc::CallbackServerContext* context, const v1::PinRequest* request,
                                v1::PinResponse* response) override;
  grpc::ServerUnaryReactor* Unpin(grpc::CallbackServerContext* context,
                                  const v1::UnpinRequest* request,
                                  v1::UnpinResponse* response) override;
  grpc::ServerUnaryReactor* ListPins(grpc::CallbackServerContext* context,
                                     const v1::ListPinsRequest* request,
                                     v1::ListPinsResponse* response) override;
  grpc::ServerUnaryReactor* List(grpc::CallbackServerContext* context,
                                 const v1::ListRequest* request,
                                 v1::ListResponse* response) override;
  grpc::ServerUnaryReactor* Stats(grpc::CallbackServerContext* context,
                                  const v1::StatsRequest* request,
                                  v1::StatsResponse* response) override;
  grpc::ServerUnaryReactor* Scrub(grpc::CallbackServerContext* context,
                                  const v1::ScrubRequest* request,
                                  v1::ScrubResponse* response) override;
  grpc::ServerUnaryReactor* Backup(grpc::CallbackServerContext* context,
                                   const v1::BackupRequest* request,
                                   v1::BackupResponse* response) override;

 private:
  // The caller's; the error is counted.
  absl::StatusOr<const RpcEnvironment*> EnvironmentOf(
      absl::string_view method, CallKind kind, const grpc::CallbackServerContext* context) const;
  // Runs `handler` on `pool` with the caller's environment and finishes the call with its status.
  // `method` outlives the call.
  grpc::ServerUnaryReactor* Unary(absl::string_view method, CallKind kind,
                                  grpc::CallbackServerContext* context, WorkerPool* pool,
                                  std::function<absl::Status(const RpcEnvironment&)> handler);

  const RpcEnvironment* const environment_;
  const Tenants* const tenants_;
};

}  // namespace kvstream

#endif  // KVSTREAM_SERVER_SERVICE_KVSTREAM_SERVICE_H_

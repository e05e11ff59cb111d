#include "server/service/kvstream_service.h"

#include <memory>
#include <utility>

#include "grpcpp/server_context.h"
#include "server/service/admin_rpc.h"
#include "server/service/get_profile_rpc.h"
#include "server/service/lifetime_rpc.h"
#include "server/service/load_rpc.h"
#include "server/service/put_rpc.h"
#include "server/service/scrub_rpc.h"
#include "server/service/status_conversion.h"

namespace kvstream {

grpc::ServerBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer>* KvStreamService::Load(
    grpc::CallbackServerContext* context) {
  return LoadRpc::Start(context, environment_);
}

grpc::ServerReadReactor<v1::PutProfileRequest>* KvStreamService::PutProfile(
    grpc::CallbackServerContext* context, v1::PutProfileResponse* response) {
  return StartPutProfile(context, response, environment_);
}

grpc::ServerWriteReactor<v1::GetProfileResponse>* KvStreamService::GetProfile(
    grpc::CallbackServerContext* context, const v1::GetProfileRequest* request) {
  return StartGetProfile(context, request, environment_);
}

grpc::ServerReadReactor<v1::PutRequest>* KvStreamService::Put(grpc::CallbackServerContext* context,
                                                              v1::PutResponse* response) {
  return StartPut(context, response, environment_);
}

grpc::ServerUnaryReactor* KvStreamService::Lookup(grpc::CallbackServerContext* context,
                                                  const v1::LookupRequest* request,
                                                  v1::LookupResponse* response) {
  return Unary("Lookup", context, environment_->readers,
               [=] { return HandleLookup(*environment_, *request, *response); });
}

grpc::ServerUnaryReactor* KvStreamService::Delete(grpc::CallbackServerContext* context,
                                                  const v1::DeleteRequest* request,
                                                  v1::DeleteResponse* response) {
  return Unary("Delete", context, environment_->writers,
               [=] { return HandleDelete(*environment_, *request, *response); });
}

grpc::ServerUnaryReactor* KvStreamService::DeleteMatching(grpc::CallbackServerContext* context,
                                                          const v1::DeleteMatchingRequest* request,
                                                          v1::DeleteMatchingResponse* response) {
  return Unary("DeleteMatching", context, environment_->writers,
               [=] { return HandleDeleteMatching(*environment_, *request, *response); });
}

grpc::ServerUnaryReactor* KvStreamService::Renew(grpc::CallbackServerContext* context,
                                                 const v1::RenewRequest* request,
                                                 v1::RenewResponse* response) {
  return Unary("Renew", context, environment_->writers,
               [=] { return HandleRenew(*environment_, *request, *response); });
}

grpc::ServerUnaryReactor* KvStreamService::Pin(grpc::CallbackServerContext* context,
                                               const v1::PinRequest* request,
                                               v1::PinResponse* response) {
  return Unary("Pin", context, environment_->writers,
               [=] { return HandlePin(*environment_, *request, *response); });
}

grpc::ServerUnaryReactor* KvStreamService::Unpin(grpc::CallbackServerContext* context,
                                                 const v1::UnpinRequest* request,
                                                 v1::UnpinResponse* response) {
  return Unary("Unpin", context, environment_->writers,
               [=] { return HandleUnpin(*environment_, *request, *response); });
}

grpc::ServerUnaryReactor* KvStreamService::ListPins(grpc::CallbackServerContext* context,
                                                    const v1::ListPinsRequest* request,
                                                    v1::ListPinsResponse* response) {
  return Unary("ListPins", context, environment_->readers,
               [=] { return HandleListPins(*environment_, *request, *response); });
}

grpc::ServerUnaryReactor* KvStreamService::List(grpc::CallbackServerContext* context,
                                                const v1::ListRequest* request,
                                                v1::ListResponse* response) {
  return Unary("List", context, environment_->readers,
               [=] { return HandleList(*environment_, *request, *response); });
}

grpc::ServerUnaryReactor* KvStreamService::Stats(grpc::CallbackServerContext* context,
                                                 const v1::StatsRequest* request,
                                                 v1::StatsResponse* response) {
  return Unary("Stats", context, environment_->readers,
               [=] { return HandleStats(*environment_, *request, *response); });
}

grpc::ServerUnaryReactor* KvStreamService::Scrub(grpc::CallbackServerContext* context,
                                                 const v1::ScrubRequest* request,
                                                 v1::ScrubResponse* response) {
  WorkerPool* const pool =
      request->delete_damaged() ? environment_->writers : environment_->readers;
  return Unary("Scrub", context, pool,
               [=] { return HandleScrub(*environment_, *request, *response); });
}

grpc::ServerUnaryReactor* KvStreamService::Backup(grpc::CallbackServerContext* context,
                                                  const v1::BackupRequest* request,
                                                  v1::BackupResponse* response) {
  return Unary("Backup", context, environment_->writers,
               [=] { return HandleBackup(*environment_, *request, *response); });
}

grpc::ServerUnaryReactor* KvStreamService::Unary(absl::string_view method,
                                                 grpc::CallbackServerContext* context,
                                                 WorkerPool* pool,
                                                 std::function<absl::Status()> handler) {
  grpc::ServerUnaryReactor* const reactor = context->DefaultReactor();
  const RpcEnvironment* const environment = environment_;
  absl::StatusOr<CallTracker::Ticket> admitted = environment->requests->Enter();
  if (!admitted.ok()) {
    environment->metrics->CountError(method, admitted.status().code());
    reactor->Finish(ToGrpcStatus(admitted.status()));
    return reactor;
  }
  // std::function must be copyable, hence the shared_ptr.
  auto ticket = std::make_shared<CallTracker::Ticket>(*std::move(admitted));
  pool->Submit([=, handler = std::move(handler)] {
    const absl::Status status = handler();
    environment->metrics->CountError(method, status.code());
    ticket->Release();
    reactor->Finish(ToGrpcStatus(status));
  });
  return reactor;
}

}  // namespace kvstream

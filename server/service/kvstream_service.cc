#include "server/service/kvstream_service.h"

#include <memory>
#include <utility>

#include "grpcpp/server_context.h"
#include "server/service/admin_rpc.h"
#include "server/service/get_profile_rpc.h"
#include "server/service/lifetime_rpc.h"
#include "server/service/load_rpc.h"
#include "server/service/put_rpc.h"
#include "server/service/refused_call.h"
#include "server/service/rpc_deadline.h"
#include "server/service/scrub_rpc.h"
#include "server/service/status_conversion.h"
#include "storage/call_deadline.h"

namespace kvstream {

absl::StatusOr<const RpcEnvironment*> KvStreamService::EnvironmentOf(
    absl::string_view method, CallKind kind, const grpc::CallbackServerContext* context) const {
  if (tenants_ == nullptr) return environment_;
  absl::StatusOr<const RpcEnvironment*> environment =
      tenants_->EnvironmentOf(CredentialsOf(*context), kind);
  environment_->metrics->CountError(method, environment.status().code());
  return environment;
}

grpc::ServerBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer>* KvStreamService::Load(
    grpc::CallbackServerContext* context) {
  const auto environment = EnvironmentOf("Load", CallKind::kOwn, context);
  if (environment.ok()) return LoadRpc::Start(context, *environment);
  return new RefusedCall<grpc::ServerBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer>>(
      ToGrpcStatus(environment.status()));
}

grpc::ServerReadReactor<v1::PutProfileRequest>* KvStreamService::PutProfile(
    grpc::CallbackServerContext* context, v1::PutProfileResponse* response) {
  const auto environment = EnvironmentOf("PutProfile", CallKind::kOwn, context);
  if (environment.ok()) return StartPutProfile(context, response, *environment);
  return new RefusedCall<grpc::ServerReadReactor<v1::PutProfileRequest>>(
      ToGrpcStatus(environment.status()));
}

grpc::ServerWriteReactor<v1::GetProfileResponse>* KvStreamService::GetProfile(
    grpc::CallbackServerContext* context, const v1::GetProfileRequest* request) {
  const auto environment = EnvironmentOf("GetProfile", CallKind::kOwn, context);
  if (environment.ok()) return StartGetProfile(context, request, *environment);
  return new RefusedCall<grpc::ServerWriteReactor<v1::GetProfileResponse>>(
      ToGrpcStatus(environment.status()));
}

grpc::ServerReadReactor<v1::PutRequest>* KvStreamService::Put(grpc::CallbackServerContext* context,
                                                              v1::PutResponse* response) {
  const auto environment = EnvironmentOf("Put", CallKind::kOwn, context);
  if (environment.ok()) return StartPut(context, response, *environment);
  return new RefusedCall<grpc::ServerReadReactor<v1::PutRequest>>(
      ToGrpcStatus(environment.status()));
}

grpc::ServerUnaryReactor* KvStreamService::Lookup(grpc::CallbackServerContext* context,
                                                  const v1::LookupRequest* request,
                                                  v1::LookupResponse* response) {
  return Unary("Lookup", CallKind::kOwn, context, environment_->readers,
               [=](const RpcEnvironment& environment) {
                 return HandleLookup(environment, *request, *response);
               });
}

grpc::ServerUnaryReactor* KvStreamService::Delete(grpc::CallbackServerContext* context,
                                                  const v1::DeleteRequest* request,
                                                  v1::DeleteResponse* response) {
  return Unary("Delete", CallKind::kAdministration, context, environment_->writers,
               [=](const RpcEnvironment& environment) {
                 return HandleDelete(environment, *request, *response);
               });
}

grpc::ServerUnaryReactor* KvStreamService::DeleteMatching(grpc::CallbackServerContext* context,
                                                          const v1::DeleteMatchingRequest* request,
                                                          v1::DeleteMatchingResponse* response) {
  return Unary("DeleteMatching", CallKind::kAdministration, context, environment_->writers,
               [=](const RpcEnvironment& environment) {
                 return HandleDeleteMatching(environment, *request, *response);
               });
}

grpc::ServerUnaryReactor* KvStreamService::Renew(grpc::CallbackServerContext* context,
                                                 const v1::RenewRequest* request,
                                                 v1::RenewResponse* response) {
  return Unary("Renew", CallKind::kOwn, context, environment_->writers,
               [=](const RpcEnvironment& environment) {
                 return HandleRenew(environment, *request, *response);
               });
}

grpc::ServerUnaryReactor* KvStreamService::Pin(grpc::CallbackServerContext* context,
                                               const v1::PinRequest* request,
                                               v1::PinResponse* response) {
  return Unary("Pin", CallKind::kOwn, context, environment_->writers,
               [=](const RpcEnvironment& environment) {
                 return HandlePin(environment, *request, *response);
               });
}

grpc::ServerUnaryReactor* KvStreamService::Unpin(grpc::CallbackServerContext* context,
                                                 const v1::UnpinRequest* request,
                                                 v1::UnpinResponse* response) {
  return Unary("Unpin", CallKind::kAdministration, context, environment_->writers,
               [=](const RpcEnvironment& environment) {
                 return HandleUnpin(environment, *request, *response);
               });
}

grpc::ServerUnaryReactor* KvStreamService::ListPins(grpc::CallbackServerContext* context,
                                                    const v1::ListPinsRequest* request,
                                                    v1::ListPinsResponse* response) {
  return Unary("ListPins", CallKind::kAdministration, context, environment_->readers,
               [=](const RpcEnvironment& environment) {
                 return HandleListPins(environment, *request, *response);
               });
}

grpc::ServerUnaryReactor* KvStreamService::List(grpc::CallbackServerContext* context,
                                                const v1::ListRequest* request,
                                                v1::ListResponse* response) {
  return Unary("List", CallKind::kAdministration, context, environment_->readers,
               [=](const RpcEnvironment& environment) {
                 return HandleList(environment, *request, *response);
               });
}

grpc::ServerUnaryReactor* KvStreamService::Stats(grpc::CallbackServerContext* context,
                                                 const v1::StatsRequest* request,
                                                 v1::StatsResponse* response) {
  return Unary("Stats", CallKind::kAdministration, context, environment_->readers,
               [=](const RpcEnvironment& environment) {
                 return HandleStats(environment, *request, *response);
               });
}

grpc::ServerUnaryReactor* KvStreamService::Scrub(grpc::CallbackServerContext* context,
                                                 const v1::ScrubRequest* request,
                                                 v1::ScrubResponse* response) {
  WorkerPool* const pool =
      request->delete_damaged() ? environment_->writers : environment_->readers;
  return Unary("Scrub", CallKind::kWholeServer, context, pool,
               [=](const RpcEnvironment& environment) {
                 return HandleScrub(environment, *request, *response);
               });
}

grpc::ServerUnaryReactor* KvStreamService::Backup(grpc::CallbackServerContext* context,
                                                  const v1::BackupRequest* request,
                                                  v1::BackupResponse* response) {
  return Unary("Backup", CallKind::kWholeServer, context, environment_->writers,
               [=](const RpcEnvironment& environment) {
                 return HandleBackup(environment, *request, *response);
               });
}

grpc::ServerUnaryReactor* KvStreamService::Unary(
    absl::string_view method, CallKind kind, grpc::CallbackServerContext* context, WorkerPool* pool,
    std::function<absl::Status(const RpcEnvironment&)> handler) {
  grpc::ServerUnaryReactor* const reactor = context->DefaultReactor();
  const auto found = EnvironmentOf(method, kind, context);
  if (!found.ok()) {
    reactor->Finish(ToGrpcStatus(found.status()));
    return reactor;
  }
  const RpcEnvironment* const environment = *found;
  absl::StatusOr<CallTracker::Ticket> admitted = environment->requests->Enter();
  if (!admitted.ok()) {
    environment->metrics->CountError(method, admitted.status().code());
    reactor->Finish(ToGrpcStatus(admitted.status()));
    return reactor;
  }
  // std::function must be copyable, hence the shared_ptr.
  auto ticket = std::make_shared<CallTracker::Ticket>(*std::move(admitted));
  const absl::Time deadline = DeadlineOf(*context);
  pool->Submit([=, handler = std::move(handler)] {
    const CallDeadline until(deadline);
    const absl::Status status = handler(*environment);
    environment->metrics->CountError(method, status.code());
    ticket->Release();
    reactor->Finish(ToGrpcStatus(status));
  });
  return reactor;
}

}  // namespace kvstream

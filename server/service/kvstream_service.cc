#include "server/service/kvstream_service.h"

#include <memory>
#include <utility>

#include "grpcpp/server_context.h"
#include "server/service/admin_rpc.h"
#include "server/service/get_profile_rpc.h"
#include "server/service/load_rpc.h"
#include "server/service/put_rpc.h"
#include "server/service/refused_call.h"
#include "server/service/status_conversion.h"

namespace kvstream {

absl::StatusOr<const RpcEnvironment*> KvStreamService::EnvironmentOf(
    absl::string_view method, const grpc::CallbackServerContext* context,
    bool may_act_for_others) const {
  if (tenants_ == nullptr) return environment_;
  absl::StatusOr<const RpcEnvironment*> environment =
      tenants_->EnvironmentOf(CredentialsOf(*context), may_act_for_others);
  environment_->metrics->CountError(method, environment.status().code());
  return environment;
}

grpc::ServerBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer>* KvStreamService::Load(
    grpc::CallbackServerContext* context) {
  const auto environment = EnvironmentOf("Load", context);
  if (environment.ok()) return LoadRpc::Start(context, *environment);
  return new RefusedCall<grpc::ServerBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer>>(
      ToGrpcStatus(environment.status()));
}

grpc::ServerReadReactor<v1::PutProfileRequest>* KvStreamService::PutProfile(
    grpc::CallbackServerContext* context, v1::PutProfileResponse* response) {
  const auto environment = EnvironmentOf("PutProfile", context);
  if (environment.ok()) return StartPutProfile(context, response, *environment);
  return new RefusedCall<grpc::ServerReadReactor<v1::PutProfileRequest>>(
      ToGrpcStatus(environment.status()));
}

grpc::ServerWriteReactor<v1::GetProfileResponse>* KvStreamService::GetProfile(
    grpc::CallbackServerContext* context, const v1::GetProfileRequest* request) {
  const auto environment = EnvironmentOf("GetProfile", context);
  if (environment.ok()) return StartGetProfile(context, request, *environment);
  return new RefusedCall<grpc::ServerWriteReactor<v1::GetProfileResponse>>(
      ToGrpcStatus(environment.status()));
}

grpc::ServerReadReactor<v1::PutRequest>* KvStreamService::Put(grpc::CallbackServerContext* context,
                                                              v1::PutResponse* response) {
  const auto environment = EnvironmentOf("Put", context);
  if (environment.ok()) return StartPut(context, response, *environment);
  return new RefusedCall<grpc::ServerReadReactor<v1::PutRequest>>(
      ToGrpcStatus(environment.status()));
}

grpc::ServerUnaryReactor* KvStreamService::Lookup(grpc::CallbackServerContext* context,
                                                  const v1::LookupRequest* request,
                                                  v1::LookupResponse* response) {
  return Unary("Lookup", /*may_act_for_others=*/false, context, environment_->readers,
               [=](const RpcEnvironment& environment) {
                 return HandleLookup(environment, *request, *response);
               });
}

grpc::ServerUnaryReactor* KvStreamService::Delete(grpc::CallbackServerContext* context,
                                                  const v1::DeleteRequest* request,
                                                  v1::DeleteResponse* response) {
  return Unary("Delete", /*may_act_for_others=*/true, context, environment_->writers,
               [=](const RpcEnvironment& environment) {
                 return HandleDelete(environment, *request, *response);
               });
}

grpc::ServerUnaryReactor* KvStreamService::List(grpc::CallbackServerContext* context,
                                                const v1::ListRequest* request,
                                                v1::ListResponse* response) {
  return Unary("List", /*may_act_for_others=*/true, context, environment_->readers,
               [=](const RpcEnvironment& environment) {
                 return HandleList(environment, *request, *response);
               });
}

grpc::ServerUnaryReactor* KvStreamService::Stats(grpc::CallbackServerContext* context,
                                                 const v1::StatsRequest* request,
                                                 v1::StatsResponse* response) {
  return Unary("Stats", /*may_act_for_others=*/true, context, environment_->readers,
               [=](const RpcEnvironment& environment) {
                 return HandleStats(environment, *request, *response);
               });
}

grpc::ServerUnaryReactor* KvStreamService::Unary(
    absl::string_view method, bool may_act_for_others, grpc::CallbackServerContext* context,
    WorkerPool* pool, std::function<absl::Status(const RpcEnvironment&)> handler) {
  grpc::ServerUnaryReactor* const reactor = context->DefaultReactor();
  const auto found = EnvironmentOf(method, context, may_act_for_others);
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
  pool->Submit([=, handler = std::move(handler)] {
    const absl::Status status = handler(*environment);
    environment->metrics->CountError(method, status.code());
    ticket->Release();
    reactor->Finish(ToGrpcStatus(status));
  });
  return reactor;
}

}  // namespace kvstream

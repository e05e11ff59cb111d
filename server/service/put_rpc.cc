#include "server/service/put_rpc.h"

#include <memory>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "grpcpp/server_context.h"
#include "server/service/call_strand.h"
#include "server/service/profile_upload.h"
#include "server/service/put_upload.h"
#include "server/service/rpc_deadline.h"
#include "server/service/status_conversion.h"
#include "server/service/upload_room.h"

namespace kvstream {
namespace {

// Both uploads: `Upload` has OnMessage, OnEnd and response().
template <typename Request, typename Response, typename Upload>
class UploadRpc final : public grpc::ServerReadReactor<Request> {
 public:
  static UploadRpc* Start(absl::string_view method, grpc::CallbackServerContext* context,
                          Response* response, const RpcEnvironment* environment) {
    const std::shared_ptr<UploadRpc> rpc(new UploadRpc(method, context, response, environment));
    rpc->self_ = rpc;
    UploadRpc* const raw = rpc.get();
    raw->strand_.Bind(rpc, DeadlineOf(*context),
                      [raw](const CallEvents& events) { raw->Step(events); });
    const std::weak_ptr<UploadRpc> weak = rpc;
    absl::StatusOr<CallTracker::Ticket> ticket = environment->puts->Enter([weak] {
      const std::shared_ptr<UploadRpc> upload = weak.lock();
      if (upload != nullptr) upload->strand_.Aborted();
    });
    raw->refused_ = ticket.status();
    if (ticket.ok()) raw->ticket_ = *std::move(ticket);
    if (raw->refused_.ok() && environment->tenant_uploads != nullptr) {
      raw->refused_ = EnterUpload(environment->tenant_uploads, &raw->place_);
    }
    if (raw->refused_.ok()) raw->StartRead(&raw->request_);
    raw->strand_.Poke();
    return raw;
  }

  void OnReadDone(bool ok) override { strand_.ReadDone(ok); }
  void OnCancel() override { strand_.Cancelled(); }
  void OnDone() override { const std::shared_ptr<UploadRpc> last = std::move(self_); }

 private:
  UploadRpc(absl::string_view method, grpc::CallbackServerContext* context, Response* response,
            const RpcEnvironment* environment)
      : method_(method),
        context_(context),
        response_(response),
        environment_(environment),
        strand_(environment->writers, environment->timers),
        last_message_(MonotonicNow()),
        upload_(std::make_unique<Upload>(environment)) {}

  void Step(const CallEvents& events) {
    if (finished_) return;
    if (!refused_.ok()) return FinishCall(refused_);
    if (events.cancelled) return FinishCall(absl::CancelledError("the client has gone away"));
    if (events.aborted) {
      return FinishCall(absl::UnavailableError("the server is stopping; try another one"));
    }
    if (events.read_done.has_value()) {
      if (!*events.read_done) {
        // A half-close or the end of the connection; the latter must not store a profile whose tail
        // is missing.
        if (context_->IsCancelled()) {
          return FinishCall(absl::CancelledError("the client has gone away"));
        }
        const absl::Status status = upload_->OnEnd();
        if (status.ok()) *response_ = upload_->response();
        return FinishCall(status);
      }
      const absl::Status status = upload_->OnMessage(request_);
      if (!status.ok()) return FinishCall(status);
      last_message_ = MonotonicNow();
      this->StartRead(&request_);
    }
    const absl::Duration idle = environment_->options->client_idle_timeout;
    if (MonotonicNow() - last_message_ >= idle) {
      return FinishCall(absl::DeadlineExceededError(
          absl::StrCat("the client sent nothing for ", absl::FormatDuration(idle))));
    }
    strand_.ArmAt(last_message_ + idle);
  }

  // The only place that finishes the call.
  void FinishCall(const absl::Status& status) {
    finished_ = true;
    strand_.Disarm();
    environment_->metrics->CountError(method_, status.code());
    if (!status.ok()) {
      environment_->log->Write(
          LogLevel::kWarn, "upload failed",
          {{"method", method_}, {"peer", context_->peer()}, {"error", status.ToString()}});
    } else if (environment_->log->Enabled(LogLevel::kDebug)) {
      environment_->log->Write(LogLevel::kDebug, "upload finished",
                               {{"method", method_}, {"peer", context_->peer()}});
    }
    // Before the client learns of the end and comes again.
    upload_.reset();
    place_.Clear();
    ticket_.Release();
    this->Finish(ToGrpcStatus(status));
  }

  const std::string method_;
  grpc::CallbackServerContext* const context_;
  Response* const response_;
  const RpcEnvironment* const environment_;
  std::shared_ptr<UploadRpc> self_;  // until OnDone
  CallTracker::Ticket ticket_;
  Budget::Share place_;  // among the tenant's uploads
  CallStrand strand_;
  absl::Status refused_;
  Request request_;  // gRPC's while a read is outstanding
  absl::Duration last_message_;
  std::unique_ptr<Upload> upload_;
  bool finished_ = false;
};

}  // namespace

grpc::ServerReadReactor<v1::PutRequest>* StartPut(grpc::CallbackServerContext* context,
                                                  v1::PutResponse* response,
                                                  const RpcEnvironment* environment) {
  return UploadRpc<v1::PutRequest, v1::PutResponse, PutUpload>::Start("Put", context, response,
                                                                      environment);
}

grpc::ServerReadReactor<v1::PutProfileRequest>* StartPutProfile(
    grpc::CallbackServerContext* context, v1::PutProfileResponse* response,
    const RpcEnvironment* environment) {
  return UploadRpc<v1::PutProfileRequest, v1::PutProfileResponse, ProfileUpload>::Start(
      "PutProfile", context, response, environment);
}

}  // namespace kvstream

#include "server/service/get_profile_rpc.h"

#include <algorithm>
#include <memory>
#include <string>
#include <utility>

#include "absl/strings/string_view.h"
#include "grpcpp/server_context.h"
#include "server/service/call_strand.h"
#include "server/service/ids.h"
#include "server/service/rpc_deadline.h"
#include "server/service/status_conversion.h"

namespace kvstream {
namespace {

constexpr size_t kPieceBytes = 1 << 20;

class GetProfileRpc final : public grpc::ServerWriteReactor<v1::GetProfileResponse> {
 public:
  static GetProfileRpc* Start(grpc::CallbackServerContext* context,
                              const v1::GetProfileRequest* request,
                              const RpcEnvironment* environment) {
    const std::shared_ptr<GetProfileRpc> rpc(new GetProfileRpc(context, request, environment));
    rpc->self_ = rpc;
    GetProfileRpc* const raw = rpc.get();
    raw->strand_.Bind(rpc, DeadlineOf(*context),
                      [raw](const CallEvents& events) { raw->Step(events); });
    absl::StatusOr<CallTracker::Ticket> ticket = environment->requests->Enter();
    if (ticket.ok()) {
      raw->ticket_ = *std::move(ticket);
    } else {
      raw->refused_ = ticket.status();
    }
    raw->strand_.Poke();
    return raw;
  }

  void OnWriteDone(bool ok) override { strand_.WriteDone(ok); }
  void OnCancel() override { strand_.Cancelled(); }
  void OnDone() override { const std::shared_ptr<GetProfileRpc> last = std::move(self_); }

 private:
  GetProfileRpc(grpc::CallbackServerContext* context, const v1::GetProfileRequest* request,
                const RpcEnvironment* environment)
      : context_(context),
        request_(request),
        environment_(environment),
        strand_(environment->readers, environment->timers) {}

  void Step(const CallEvents& events) {
    if (finished_) return;
    if (events.cancelled) gone_ = true;
    if (events.write_done.has_value()) {
      writing_ = false;
      if (!*events.write_done) gone_ = true;
    }
    if (writing_) {
      // Cancelling makes the outstanding write end; the call is finished then.
      if (MonotonicNow() >= write_until_) {
        context_->TryCancel();
      } else {
        strand_.ArmAt(write_until_);
      }
      return;
    }
    if (gone_) return FinishCall(absl::CancelledError("the client has gone away"));
    if (!refused_.ok()) return FinishCall(refused_);
    if (profile_ == nullptr) {
      const absl::Status status = FindProfile();
      if (!status.ok()) return FinishCall(status);
    }
    const absl::string_view bytes = profile_->serialized();
    if (offset_ == bytes.size()) return FinishCall(absl::OkStatus());
    const absl::string_view piece = bytes.substr(offset_, kPieceBytes);
    response_.set_data(std::string(piece));
    offset_ += piece.size();
    writing_ = true;
    write_until_ = MonotonicNow() + environment_->options->client_idle_timeout;
    strand_.ArmAt(write_until_);
    StartWrite(&response_);
  }

  absl::Status FindProfile() {
    const absl::StatusOr<StoredProfileId> id = ParseId("profile_id", request_->profile_id());
    if (!id.ok()) return id.status();
    absl::StatusOr<std::shared_ptr<const ServiceProfile>> profile =
        environment_->profiles->Get(*id);
    if (!profile.ok()) return profile.status();
    profile_ = *std::move(profile);
    return absl::OkStatus();
  }

  // The only place that finishes the call.
  void FinishCall(const absl::Status& status) {
    finished_ = true;
    strand_.Disarm();
    profile_.reset();
    ticket_.Release();
    environment_->metrics->CountError("GetProfile", status.code());
    Finish(ToGrpcStatus(status));
  }

  grpc::CallbackServerContext* const context_;
  const v1::GetProfileRequest* const request_;  // gRPC's until OnDone
  const RpcEnvironment* const environment_;
  std::shared_ptr<GetProfileRpc> self_;  // until OnDone
  CallTracker::Ticket ticket_;
  CallStrand strand_;
  absl::Status refused_;
  std::shared_ptr<const ServiceProfile> profile_;
  v1::GetProfileResponse response_;  // gRPC's while a write is outstanding
  size_t offset_ = 0;
  bool writing_ = false;
  absl::Duration write_until_;
  bool gone_ = false;
  bool finished_ = false;
};

}  // namespace

grpc::ServerWriteReactor<v1::GetProfileResponse>* StartGetProfile(
    grpc::CallbackServerContext* context, const v1::GetProfileRequest* request,
    const RpcEnvironment* environment) {
  return GetProfileRpc::Start(context, request, environment);
}

}  // namespace kvstream

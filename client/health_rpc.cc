#include "client/health_rpc.h"

#include <google/protobuf/unknown_field_set.h>
#include <grpcpp/client_context.h>
#include <grpcpp/completion_queue.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/support/byte_buffer.h>

#include <string>

#include "absl/time/clock.h"
#include "client/monotonic_clock.h"
#include "client/rpc_status.h"

namespace kvstream {
namespace {

constexpr char kMethod[] = "/grpc.health.v1.Health/Check";
// HealthCheckResponse { ServingStatus status = 1; } with SERVING = 1.
constexpr int kStatusField = 1;
constexpr uint64_t kServing = 1;

// An empty HealthCheckRequest asks for the server as a whole, and is no bytes.
absl::StatusOr<bool> Check(const std::shared_ptr<grpc::Channel>& channel, absl::string_view server,
                           absl::Time deadline) {
  grpc::ClientContext context;
  context.set_deadline(absl::ToChronoTime(deadline));
  grpc::CompletionQueue queue;
  grpc::GenericStub stub(channel);
  const grpc::Slice nothing;
  const grpc::ByteBuffer request(&nothing, 1);
  auto call = stub.PrepareUnaryCall(&context, kMethod, request, &queue);
  call->StartCall();
  grpc::ByteBuffer response;
  grpc::Status status;
  call->Finish(&response, &status, nullptr);
  void* tag;
  bool ok;
  queue.Next(&tag, &ok);
  queue.Shutdown();
  while (queue.Next(&tag, &ok)) {
  }
  if (!status.ok()) return FromRpcStatus(status, server, "ping");

  grpc::Slice bytes;
  google::protobuf::UnknownFieldSet fields;
  if (response.DumpToSingleSlice(&bytes).ok() &&
      fields.ParseFromArray(bytes.begin(), static_cast<int>(bytes.size()))) {
    for (int i = 0; i < fields.field_count(); ++i) {
      const google::protobuf::UnknownField& field = fields.field(i);
      if (field.number() == kStatusField &&
          field.type() == google::protobuf::UnknownField::TYPE_VARINT) {
        return field.varint() == kServing;
      }
    }
  }
  return false;
}

}  // namespace

absl::StatusOr<PingResult> RunPing(const std::shared_ptr<grpc::Channel>& channel,
                                   absl::string_view server, absl::Duration timeout) {
  const absl::Time deadline = absl::Now() + timeout;
  if (channel->GetState(/*try_to_connect=*/true) != GRPC_CHANNEL_READY) {
    if (absl::StatusOr<bool> connected = Check(channel, server, deadline); !connected.ok()) {
      return connected.status();
    }
  }
  const absl::Duration start = MonotonicNow();
  absl::StatusOr<bool> serving = Check(channel, server, deadline);
  if (!serving.ok()) return serving.status();
  PingResult result;
  result.round_trip = MonotonicNow() - start;
  result.serving = *serving;
  return result;
}

}  // namespace kvstream

#include "client/profile_rpc.h"

#include <grpcpp/client_context.h>

#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "client/rpc_status.h"
#include "client/stream_watchdog.h"

namespace kvstream {
namespace {

constexpr size_t kPieceBytes = 1 << 20;               // as in the proto
constexpr size_t kProfileBytesMax = size_t{1} << 30;  // as the stores'

absl::Status StreamStatus(const grpc::Status& status, const StreamWatchdog& watchdog,
                          absl::string_view server, absl::string_view call,
                          absl::Duration stall_max) {
  if (!watchdog.bit()) return FromRpcStatus(status, server, call);
  return FromRpcStatus(
      grpc::Status(grpc::StatusCode::DEADLINE_EXCEEDED,
                   absl::StrCat("no progress for ", absl::FormatDuration(stall_max))),
      server, call);
}

}  // namespace

absl::Status RunPutProfile(v1::KVStream::StubInterface* stub, absl::string_view server,
                           absl::Duration stall_max, const Profile& profile) {
  grpc::ClientContext context;
  v1::PutProfileResponse response;
  StreamWatchdog watchdog(&context, stall_max);
  const std::unique_ptr<grpc::ClientWriterInterface<v1::PutProfileRequest>> writer =
      stub->PutProfile(&context, &response);
  const absl::string_view bytes = profile.serialized();
  v1::PutProfileRequest request;
  for (size_t offset = 0; offset < bytes.size(); offset += kPieceBytes) {
    const absl::string_view piece = bytes.substr(offset, kPieceBytes);
    request.set_data(piece.data(), piece.size());
    StreamWatchdog::Watch watch(&watchdog);
    if (!writer->Write(request)) break;  // Finish says why
  }
  grpc::Status status;
  {
    StreamWatchdog::Watch watch(&watchdog);
    writer->WritesDone();
    status = writer->Finish();
  }
  if (!status.ok() || watchdog.bit()) {
    return StreamStatus(status, watchdog, server, "put profile", stall_max);
  }
  if (response.profile_id() != std::string(profile.id().begin(), profile.id().end())) {
    return absl::InternalError(
        absl::StrCat(server, ": put profile: the server stored it under another id"));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::shared_ptr<const Profile>> RunGetProfile(v1::KVStream::StubInterface* stub,
                                                             absl::string_view server,
                                                             absl::Duration stall_max,
                                                             const ProfileId& id) {
  grpc::ClientContext context;
  StreamWatchdog watchdog(&context, stall_max);
  v1::GetProfileRequest request;
  request.set_profile_id(std::string(id.begin(), id.end()));
  const std::unique_ptr<grpc::ClientReaderInterface<v1::GetProfileResponse>> reader =
      stub->GetProfile(&context, request);
  std::string bytes;
  v1::GetProfileResponse response;
  bool too_large = false;
  for (;;) {
    StreamWatchdog::Watch watch(&watchdog);
    if (!reader->Read(&response)) break;
    if (response.data().size() > kProfileBytesMax - bytes.size()) {
      too_large = true;
      context.TryCancel();
      break;
    }
    bytes += response.data();
  }
  grpc::Status status;
  {
    StreamWatchdog::Watch watch(&watchdog);
    status = reader->Finish();
  }
  if (too_large) {
    return absl::ResourceExhaustedError(
        absl::StrCat(server, ": get profile: more than ", kProfileBytesMax, " bytes"));
  }
  if (!status.ok()) return StreamStatus(status, watchdog, server, "get profile", stall_max);
  absl::StatusOr<std::shared_ptr<const Profile>> profile = Profile::ParseOwned(std::move(bytes));
  if (!profile.ok()) {
    return absl::Status(profile.status().code(),
                        absl::StrCat(server, ": get profile: ", profile.status().message()));
  }
  if ((*profile)->id() != id) {
    return absl::DataLossError(
        absl::StrCat(server, ": get profile: the server sent another profile"));
  }
  return profile;
}

}  // namespace kvstream

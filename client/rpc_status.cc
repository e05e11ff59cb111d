#include "client/rpc_status.h"

#include <string>

#include "absl/strings/str_cat.h"

namespace kvstream {

absl::Status FromRpcStatus(const grpc::Status& status, absl::string_view server,
                           absl::string_view call) {
  if (status.ok()) return absl::OkStatus();
  int code = static_cast<int>(status.error_code());
  if (code < 0 || code > static_cast<int>(absl::StatusCode::kUnauthenticated)) {
    code = static_cast<int>(absl::StatusCode::kUnknown);
  }
  std::string message = absl::StrCat(server, ": ", call, ": ", status.error_message());
  switch (status.error_code()) {
    case grpc::StatusCode::UNAVAILABLE:
      absl::StrAppend(&message, " (check that kvstreamd runs there, has started and is reachable)");
      break;
    case grpc::StatusCode::DEADLINE_EXCEEDED:
      absl::StrAppend(&message,
                      " (the server or the link was too slow; rpc_timeout can be raised)");
      break;
    case grpc::StatusCode::UNIMPLEMENTED:
      absl::StrAppend(&message, " (is that a kvstreamd, and not older than this client?)");
      break;
    default:
      break;
  }
  return absl::Status(static_cast<absl::StatusCode>(code), message);
}

}  // namespace kvstream

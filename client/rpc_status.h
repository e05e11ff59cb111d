// gRPC's statuses as Abseil's, with what a person needs to act on them.
#ifndef KVSTREAM_CLIENT_RPC_STATUS_H_
#define KVSTREAM_CLIENT_RPC_STATUS_H_

#include <grpcpp/support/status.h>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace kvstream {

// The same code; the message becomes "<server>: <call>: <message>", and where the code says that
// nobody answered, what to check.
absl::Status FromRpcStatus(const grpc::Status& status, absl::string_view server,
                           absl::string_view call);

}  // namespace kvstream

#endif  // KVSTREAM_CLIENT_RPC_STATUS_H_

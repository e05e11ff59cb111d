// The one place where the statuses of our rooms become statuses of gRPC.
#ifndef KVSTREAM_SERVER_SERVICE_STATUS_CONVERSION_H_
#define KVSTREAM_SERVER_SERVICE_STATUS_CONVERSION_H_

#include <string>

#include "absl/status/status.h"
#include "grpcpp/support/status.h"

namespace kvstream {

// Same code, same message; a message is cut to 1,024 bytes, since it travels in HTTP headers, and
// bytes that are not printable ASCII become
// '?'.
grpc::Status ToGrpcStatus(const absl::Status& status);

// "OK", "NOT_FOUND": bounded, for the label of a metric. "UNKNOWN" for codes outside of gRPC's.
std::string StatusCodeLabel(absl::StatusCode code);

}  // namespace kvstream

#endif  // KVSTREAM_SERVER_SERVICE_STATUS_CONVERSION_H_

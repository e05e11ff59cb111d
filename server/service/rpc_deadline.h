// By when a client wants its answer.
#ifndef KVSTREAM_SERVER_SERVICE_RPC_DEADLINE_H_
#define KVSTREAM_SERVER_SERVICE_RPC_DEADLINE_H_

#include <grpcpp/grpcpp.h>

#include <chrono>

#include "absl/time/time.h"

namespace kvstream {

// InfiniteFuture: the client waits for as long as it takes.
inline absl::Time DeadlineOf(const grpc::ServerContextBase& context) {
  const auto deadline = context.deadline();
  if (deadline == std::chrono::system_clock::time_point::max()) return absl::InfiniteFuture();
  return absl::FromChrono(deadline);
}

}  // namespace kvstream

#endif  // KVSTREAM_SERVER_SERVICE_RPC_DEADLINE_H_

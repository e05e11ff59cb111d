// Calls that end before they begin, one class for each kind of stream.
#ifndef KVSTREAM_SERVER_SERVICE_REFUSED_CALL_H_
#define KVSTREAM_SERVER_SERVICE_REFUSED_CALL_H_

#include "grpcpp/support/server_callback.h"
#include "grpcpp/support/status.h"

namespace kvstream {

// `Reactor` is one of gRPC's ServerReadReactor, ServerWriteReactor, ServerBidiReactor. Made with
// new; it finishes with the status at once and deletes itself when gRPC is done with it.
template <typename Reactor>
class RefusedCall final : public Reactor {
 public:
  explicit RefusedCall(const grpc::Status& status) { this->Finish(status); }
  void OnDone() override { delete this; }
};

}  // namespace kvstream

#endif  // KVSTREAM_SERVER_SERVICE_REFUSED_CALL_H_

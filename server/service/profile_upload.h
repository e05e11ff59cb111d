// One PutProfile stream without its transport.
#ifndef KVSTREAM_SERVER_SERVICE_PROFILE_UPLOAD_H_
#define KVSTREAM_SERVER_SERVICE_PROFILE_UPLOAD_H_

#include <string>

#include "absl/status/status.h"
#include "kvstream/v1/kvstream.pb.h"
#include "server/service/rpc_environment.h"

namespace kvstream {

// Single-threaded. Memory: the profile's bytes, reserved from the server's upload budget before
// they are kept; parsing may take as much again.
class ProfileUpload {
 public:
  // Borrowed; outlives the upload.
  explicit ProfileUpload(const RpcEnvironment* environment);

  // INVALID_ARGUMENT for an empty or too large message or profile, RESOURCE_EXHAUSTED for a full
  // upload budget.
  absl::Status OnMessage(const v1::PutProfileRequest& message);

  // Parses and stores; blocks on the store. The parser's and the store's errors.
  absl::Status OnEnd();

  const v1::PutProfileResponse& response() const { return response_; }

 private:
  const RpcEnvironment* const environment_;
  UploadRoom room_;
  std::string bytes_;
  v1::PutProfileResponse response_;
};

}  // namespace kvstream

#endif  // KVSTREAM_SERVER_SERVICE_PROFILE_UPLOAD_H_

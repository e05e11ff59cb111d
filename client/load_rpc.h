// One Load call: transport, assembler, decode threads and recompute thread put together.
#ifndef KVSTREAM_CLIENT_LOAD_RPC_H_
#define KVSTREAM_CLIENT_LOAD_RPC_H_

#include <grpcpp/channel.h>

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "client/client.h"
#include "client/decoder_pool.h"
#include "codec/kv_view.h"
#include "codec/profile.h"

namespace kvstream {

struct LoadCall {
  std::shared_ptr<grpc::Channel> channel;
  std::string server;  // for messages
  std::shared_ptr<const Profile> profile;
  std::vector<ChunkId> chunk_ids;
  const LoadOptions* options = nullptr;
  MutableKvView out;
  DecoderPool* decoders = nullptr;
  int decode_threads = 1;
  // The server may be silent for so long while nothing is left to do here.
  absl::Duration silence_max;
};

// Client::Load after its arguments were checked. Blocks; runs the transport's events on the calling
// thread.
absl::StatusOr<LoadResult> RunLoad(const LoadCall& call);

// INVALID_ARGUMENT naming the option or the part of `out` that does not fit.
absl::Status ValidateLoad(const Profile& profile, size_t tokens, const LoadOptions& options,
                          const MutableKvView& out);

}  // namespace kvstream

#endif  // KVSTREAM_CLIENT_LOAD_RPC_H_

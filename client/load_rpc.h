// One Load call: transport, assembler, decode executor and recompute thread put together.
#ifndef KVSTREAM_CLIENT_LOAD_RPC_H_
#define KVSTREAM_CLIENT_LOAD_RPC_H_

#include <grpcpp/channel.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/optional.h"
#include "client/client.h"
#include "client/decode_executor.h"
#include "client/farewell.h"
#include "client/held_chunk.h"
#include "codec/kv_view.h"
#include "codec/profile.h"

namespace kvstream {

struct LoadCall {
  std::shared_ptr<grpc::Channel> channel;
  std::string server;  // for messages
  std::shared_ptr<const Profile> profile;
  int64_t tokens = 0;
  std::vector<ChunkId> chunk_ids;
  // Of the context: `chunk_ids` and `tokens` are from this one on.
  uint32_t first_chunk = 0;
  // Optional: filled on UNAVAILABLE with what is in place (client/failover_client.h). What has been
  // received is then decoded first.
  std::vector<absl::optional<LoadedChunk>>* kept = nullptr;
  // With `kept`: what is held when the call begins, which is taken; filled as `kept` is.
  std::vector<HeldChunk>* held = nullptr;
  // With `held`: set if the server would not go on from what was held; then `kept` and `held` are
  // filled too.
  bool* held_refused = nullptr;
  const LoadOptions* options = nullptr;
  DecodeExecutorFactory make_executor;
  absl::Duration began;  // MonotonicNow() when the caller called: the deadline counts from it
  Farewells* farewells = nullptr;  // for a load that is taken at its deadline
  // The server may be silent for so long while nothing is left to do here.
  absl::Duration silence_max;
};

// Client::Load after its arguments were checked. Blocks; runs the transport's events on the calling
// thread.
absl::StatusOr<LoadResult> RunLoad(const LoadCall& call);

// INVALID_ARGUMENT naming the option that does not fit.
absl::Status ValidateLoad(const Profile& profile, size_t tokens, const LoadOptions& options);
// INVALID_ARGUMENT naming the part of `out` that does not fit.
absl::Status ValidateLoadMemory(const Profile& profile, size_t tokens, const MutableKvView& out);

}  // namespace kvstream

#endif  // KVSTREAM_CLIENT_LOAD_RPC_H_

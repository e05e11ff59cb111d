// From a client's LoadStart to the specification of a load session: everything about it is checked
// here.
#ifndef KVSTREAM_SERVER_SERVICE_LOAD_START_H_
#define KVSTREAM_SERVER_SERVICE_LOAD_START_H_

#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kvstream/v1/kvstream.pb.h"
#include "server/load/load_session.h"
#include "server/service/rpc_environment.h"
#include "storage/chunk_store.h"

namespace kvstream {

// A load that may start. Holds what it takes from the server's budgets until it is destroyed.
struct PreparedLoad {
  std::vector<ChunkId> ids;
  LoadSpec spec;  // spec.chunks[i] belongs to ids[i]
  ChunkLeases::Lease lease;
  ChunkHold hold;  // neither evicted nor trimmed
  Budget::Share chunks;
};

// Blocks on the store. INVALID_ARGUMENT for a field out of range (named), NOT_FOUND for a profile
// or chunk that is not stored (named by index and id), FAILED_PRECONDITION for a chunk of another
// profile, RESOURCE_EXHAUSTED if loads in flight have too many chunks. LoadSession::Create checks
// the rest of the specification.
absl::StatusOr<PreparedLoad> PrepareLoad(const v1::LoadStart& start,
                                         const RpcEnvironment& environment);

// The client's report with its units; INVALID_ARGUMENT for numbers that are none or out of range.
absl::StatusOr<ClientProgress> ParseProgress(const v1::LoadProgress& progress);

// A decision as the wire has it, without tokens and sizes.
v1::ChunkPlan ToChunkPlan(uint32_t chunk, const ChunkDecision& decision);

}  // namespace kvstream

#endif  // KVSTREAM_SERVER_SERVICE_LOAD_START_H_

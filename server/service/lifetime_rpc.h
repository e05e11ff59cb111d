// The calls that decide how long chunks stay: Delete, DeleteMatching, Renew, Pin, Unpin, ListPins.
// Each blocks on the store and is thread-safe.
#ifndef KVSTREAM_SERVER_SERVICE_LIFETIME_RPC_H_
#define KVSTREAM_SERVER_SERVICE_LIFETIME_RPC_H_

#include "absl/status/status.h"
#include "kvstream/v1/kvstream.pb.h"
#include "server/service/rpc_environment.h"

namespace kvstream {

// INVALID_ARGUMENT for malformed ids; FAILED_PRECONDITION, naming a chunk and an owner, if any is
// pinned, unless forced. Chunks of loads in flight are hidden now and deleted when these end
// (ChunkLeases), or when the store is opened again, whatever comes first.
absl::Status HandleDelete(const RpcEnvironment& environment, const v1::DeleteRequest& request,
                          v1::DeleteResponse& response);

// One step: at most 256 chunks of a context, deleted at once, or 4096 of a model's, or 100,000
// looked at. INVALID_ARGUMENT for a malformed id or token, or if nothing is named; UNIMPLEMENTED
// for a context where the store does not know the children of a chunk.
absl::Status HandleDeleteMatching(const RpcEnvironment& environment,
                                  const v1::DeleteMatchingRequest& request,
                                  v1::DeleteMatchingResponse& response);

// INVALID_ARGUMENT for malformed ids or a ttl out of range. Chunks that are being deleted are not
// stored.
absl::Status HandleRenew(const RpcEnvironment& environment, const v1::RenewRequest& request,
                         v1::RenewResponse& response);

// As Renew, and INVALID_ARGUMENT for an owner out of range; RESOURCE_EXHAUSTED beyond what may be
// pinned; UNIMPLEMENTED if the store keeps no pins.
absl::Status HandlePin(const RpcEnvironment& environment, const v1::PinRequest& request,
                       v1::PinResponse& response);
absl::Status HandleUnpin(const RpcEnvironment& environment, const v1::UnpinRequest& request,
                         v1::UnpinResponse& response);

// INVALID_ARGUMENT for a malformed page token.
absl::Status HandleListPins(const RpcEnvironment& environment, const v1::ListPinsRequest& request,
                            v1::ListPinsResponse& response);

}  // namespace kvstream

#endif  // KVSTREAM_SERVER_SERVICE_LIFETIME_RPC_H_

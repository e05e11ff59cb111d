// The calls of one request and one response: Lookup, List, Stats. Each blocks on the store
// and is thread-safe.
#ifndef KVSTREAM_SERVER_SERVICE_ADMIN_RPC_H_
#define KVSTREAM_SERVER_SERVICE_ADMIN_RPC_H_

#include "absl/status/status.h"
#include "kvstream/v1/kvstream.pb.h"
#include "server/service/rpc_environment.h"

namespace kvstream {

// INVALID_ARGUMENT for malformed ids, FAILED_PRECONDITION for a matched chunk of another profile. A
// profile that is not stored is a miss, not an error: nothing was stored with it. level_bytes is
// empty where nothing matched. O(chunks).
absl::Status HandleLookup(const RpcEnvironment& environment, const v1::LookupRequest& request,
                          v1::LookupResponse& response);

// INVALID_ARGUMENT for a malformed page token or profile id. A page ends at the asked size, at
// about 3 MiB, or, with a filter, after 100,000 chunks looked at, whatever comes first; a
// page may be empty and yet have a next one.
absl::Status HandleList(const RpcEnvironment& environment, const v1::ListRequest& request,
                        v1::ListResponse& response);

// The whole store and what the server did, or, for a tenant that is no admin, what it has itself.
// An admin also sees what every tenant has.
absl::Status HandleStats(const RpcEnvironment& environment, const v1::StatsRequest& request,
                         v1::StatsResponse& response);

}  // namespace kvstream

#endif  // KVSTREAM_SERVER_SERVICE_ADMIN_RPC_H_

// Scrub and Backup: calls of one request and one response for operators. Each blocks on the store
// and is thread-safe.
#ifndef KVSTREAM_SERVER_SERVICE_SCRUB_RPC_H_
#define KVSTREAM_SERVER_SERVICE_SCRUB_RPC_H_

#include "absl/status/status.h"
#include "kvstream/v1/kvstream.pb.h"
#include "server/service/rpc_environment.h"

namespace kvstream {

// Reads up to about request.max_bytes and reports what is damaged: chunks whose info, segments or
// profile cannot be read, whose segments have other sizes than their info says or fail the codec's
// checks, then files that fail the store's. INVALID_ARGUMENT for a malformed page token; else the
// store's errors, but never DATA_LOSS.
absl::Status HandleScrub(const RpcEnvironment& environment, const v1::ScrubRequest& request,
                         v1::ScrubResponse& response);

// FAILED_PRECONDITION without options.backup_dir, or if the backup exists; INVALID_ARGUMENT for a
// malformed name.
absl::Status HandleBackup(const RpcEnvironment& environment, const v1::BackupRequest& request,
                          v1::BackupResponse& response);

}  // namespace kvstream

#endif  // KVSTREAM_SERVER_SERVICE_SCRUB_RPC_H_

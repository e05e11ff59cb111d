// A client of several daemons that serve the same chunks.
#ifndef KVSTREAM_CLIENT_FAILOVER_CLIENT_H_
#define KVSTREAM_CLIENT_FAILOVER_CLIENT_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "client/client.h"
#include "client/moved_load.h"

namespace kvstream {

// A client of one daemon that can load a part of a context, and says of a put that failed how far
// it came.
class RangeClient : public Client {
 public:
  // As Put and PutFromDevice. What the daemon acknowledges is added to `acknowledged` as it comes,
  // whether or not the call succeeds; chunks that it had before anything was sent are not.
  virtual absl::StatusOr<PutResult> PutCounted(std::shared_ptr<const Profile> profile,
                                               const ContextIdentity& identity,
                                               absl::Span<const int32_t> tokens, const KvView& kv,
                                               const std::function<void(int64_t)>& progress,
                                               absl::Duration ttl, PutResult* acknowledged) = 0;
  virtual absl::StatusOr<PutResult> PutFromDeviceCounted(
      std::shared_ptr<const Profile> profile, const ContextIdentity& identity,
      absl::Span<const int32_t> tokens, const DeviceTarget& source,
      const std::function<void(int64_t)>& progress, absl::Duration ttl,
      PutResult* acknowledged) = 0;

  // As Load. `out` and `tokens` are the whole context's.
  virtual absl::StatusOr<LoadResult> LoadChunks(std::shared_ptr<const Profile> profile,
                                                const ContextIdentity& identity,
                                                absl::Span<const int32_t> tokens,
                                                const LoadOptions& options,
                                                const MutableKvView& out, LoadRange* range) = 0;
  // As LoadToDevice. `target` and `tokens` are the whole context's.
  virtual absl::StatusOr<LoadResult> LoadChunksToDevice(std::shared_ptr<const Profile> profile,
                                                        const ContextIdentity& identity,
                                                        absl::Span<const int32_t> tokens,
                                                        const LoadOptions& options,
                                                        const DeviceTarget& target,
                                                        LoadRange* range) = 0;
};

// Calls go to one of the daemons until it is UNAVAILABLE, then to the next, each at most once a
// call; the next call begins with the one that answered last. A load that is moved, into either
// kind of memory, keeps every chunk that is in place and asks the next daemon for the rest, under
// the same deadline; chunks that were received whole are decoded first. With policy kDeadline the
// next daemon refines chunks that are in place too, until the deadline, unless it is of a version
// that cannot; if it will not, or goes as well, they stay as they are. A put that is moved asks
// the next daemon what is stored and sends the rest: of what the daemon before has acknowledged
// nothing is encoded or sent again (where the daemons share a store), of a step that it has not, at
// most 32 chunks. Its result counts what all daemons stored, and its progress never goes back.
//
// The observer of a load is told of every attempt, the chunks by their place in the context. At
// least one client.
std::unique_ptr<Client> MakeFailoverClient(std::vector<std::unique_ptr<RangeClient>> clients);

}  // namespace kvstream

#endif  // KVSTREAM_CLIENT_FAILOVER_CLIENT_H_

// What every call of the service works with; owned by KvStreamServer, borrowed by the calls.
#ifndef KVSTREAM_SERVER_SERVICE_RPC_ENVIRONMENT_H_
#define KVSTREAM_SERVER_SERVICE_RPC_ENVIRONMENT_H_

#include <functional>
#include <memory>

#include "absl/status/statusor.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "server/load/link_groups.h"
#include "server/load/link_record.h"
#include "server/load/load_session.h"
#include "server/service/budget.h"
#include "server/service/call_tracker.h"
#include "server/service/chunk_leases.h"
#include "server/service/load_admission.h"
#include "server/service/log.h"
#include "server/service/metrics.h"
#include "server/service/options.h"
#include "server/service/profile_cache.h"
#include "server/service/timer_queue.h"
#include "server/service/upload_room.h"
#include "server/service/worker_pool.h"
#include "storage/chunk_store.h"
#include "storage/tenant_view.h"

namespace kvstream {

class Tenants;

// LoadSession::Create, or a test's own.
using LoadSessionFactory = std::function<absl::StatusOr<std::unique_ptr<LoadSession>>(
    LoadSpec spec, const LoadSessionOptions& options, absl::Duration now)>;

// Borrowed pointers; all outlive every call.
struct RpcEnvironment {
  const ServerOptions* options = nullptr;
  ChunkStore* store = nullptr;
  ProfileCache* profiles = nullptr;
  ChunkLeases* leases = nullptr;
  WorkerPool* readers = nullptr;  // work that reads the store
  WorkerPool* writers = nullptr;  // work that writes it, and waits for disks
  TimerQueue* timers = nullptr;
  Metrics* metrics = nullptr;
  Log* log = nullptr;
  CallTracker* loads = nullptr;
  CallTracker* puts = nullptr;
  CallTracker* requests = nullptr;
  LinkRecord* links = nullptr;        // what loads have seen of their clients' networks
  LinkGroups* link_groups = nullptr;  // what loads share
  LoadAdmission* admission = nullptr;
  Budget* load_chunks = nullptr;   // chunks of all loads in flight
  Budget* upload_bytes = nullptr;  // unfinished uploads
  LoadSessionFactory create_session;
  absl::Time started;
  // From when times to live are counted, and what is noted as a chunk's creation. (Pins end by the
  // store's own clock.)
  std::function<absl::Time()> now = absl::Now;

  // With tenants there is an environment for each, whose store, profiles and leases are its own.
  TenantView* tenant = nullptr;  // as `store`; null: there are no tenants
  TenantLoads* tenant_loads = nullptr;
  TenantUploads* tenant_uploads = nullptr;
  // An admin's only, else null.
  ChunkStore* whole_store = nullptr;
  const Tenants* tenants = nullptr;
};

}  // namespace kvstream

#endif  // KVSTREAM_SERVER_SERVICE_RPC_ENVIRONMENT_H_

// The tenants of a server: each works with an environment of its own.
#ifndef KVSTREAM_SERVER_SERVICE_TENANTS_H_
#define KVSTREAM_SERVER_SERVICE_TENANTS_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "server/service/caller_identity.h"
#include "server/service/metrics.h"
#include "server/service/profile_cache.h"
#include "server/service/rpc_environment.h"
#include "server/service/tenants_file.h"
#include "storage/tenant_view.h"

namespace kvstream {

// Of whose things a call is.
enum class CallKind {
  kOwn,             // the caller's
  kAdministration,  // the caller's, or those of another tenant that an admin names
  kWholeServer,     // the server's; an admin's call only
};

// What differs between tenants is the store (TenantView), the cache of profiles, the leases and how
// many loads and uploads they may have: nothing that one has done can be found, or found sooner, by
// another. All else of the environment is the server's. Thread-safe.
//
// Names stay known for as long as this lives, so that calls in flight can end and what is deleted
// later is; a name that comes back has what it had.
class Tenants {
 public:
  // Deletes chunks from the store behind leases, later (ChunkLeases).
  using DeleteLater =
      std::function<void(ChunkStore* store, ChunkLeases* leases, std::vector<ChunkId> ids)>;

  // `server` is what the tenants' environments are made from; what it points to is borrowed and
  // outlives this. The cache of profiles is shared out evenly. UNIMPLEMENTED if an entry has a
  // quota and the store does not count what tenants have.
  static absl::StatusOr<std::unique_ptr<Tenants>> Create(std::vector<TenantEntry> entries,
                                                         const RpcEnvironment& server,
                                                         const ProfileParser& parse_profile,
                                                         const DeleteLater& delete_later);

  // Puts other entries in place of the current ones: from now on calls are whose they say, and
  // limits are what they say. Calls in flight go on. Nothing changes on an error: UNIMPLEMENTED as
  // Create, RESOURCE_EXHAUSTED after kNamesMax different names, INVALID_ARGUMENT for a
  // put-buffer-bytes that does not hold a chunk. One call at a time.
  absl::Status Replace(std::vector<TenantEntry> entries);
  static constexpr size_t kNamesMax = 4 * kMaxTenants;

  // What the call works with, for as long as this lives. UNAUTHENTICATED: see CallerIdentities. A
  // call that names a tenant to act for works with that one's environment. PERMISSION_DENIED where
  // `kind` asks for an admin and the caller is none, or does not go with a tenant to act for;
  // NOT_FOUND for a tenant without an entry.
  absl::StatusOr<const RpcEnvironment*> EnvironmentOf(const CallCredentials& credentials,
                                                      CallKind kind) const;

  // Of every tenant, in the order of the entries; used_bytes is 0 where the store does not tell.
  std::vector<TenantFigure> Figures() const;
  // The same of all names that were ever known, in their order.
  std::vector<TenantFigure> FiguresOfAll() const;
  // A tenant's profiles; null if it has no entry.
  ProfileCache* ProfilesOf(const std::string& tenant) const;

 private:
  struct Tenant {
    std::unique_ptr<TenantView> view;
    std::unique_ptr<ProfileCache> profiles;
    std::unique_ptr<ChunkLeases> leases;
    TenantLoads loads;
    TenantUploads uploads;
    RpcEnvironment environment;
    RpcEnvironment of_admin;  // the same where its entry says so
  };
  // What one file says. Immutable.
  struct Roster {
    explicit Roster(std::vector<TenantEntry> the_entries)
        : entries(std::move(the_entries)), identities(entries) {}

    const std::vector<TenantEntry> entries;
    const CallerIdentities identities;
    std::vector<Tenant*> tenants;  // as the entries
    const RpcEnvironment* EnvironmentOf(size_t index) const {
      const Tenant& tenant = *tenants[index];
      return entries[index].admin ? &tenant.of_admin : &tenant.environment;
    }
  };

  Tenants(const RpcEnvironment& server, ProfileParser parse_profile, DeleteLater delete_later);

  std::shared_ptr<const Roster> roster() const {
    absl::MutexLock lock(&mutex_);
    return roster_;
  }
  // What bounds the entry's chunks, one of so many entries, in a store of so many bytes (0: no
  // bound).
  static TenantViewOptions LimitsOf(const TenantEntry& entry, size_t entries,
                                    uint64_t capacity_bytes);
  absl::StatusOr<std::unique_ptr<Tenant>> MakeTenant(const TenantViewOptions& limits);
  static TenantFigure FigureOf(const Tenant& tenant);

  const RpcEnvironment server_;
  const ProfileParser parse_profile_;
  const DeleteLater delete_later_;
  RpcEnvironment whole_server_;
  mutable absl::Mutex mutex_;
  std::shared_ptr<const Roster> roster_ ABSL_GUARDED_BY(mutex_);
  std::map<std::string, std::unique_ptr<Tenant>> known_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace kvstream

#endif  // KVSTREAM_SERVER_SERVICE_TENANTS_H_

// The tenants of a server: each works with an environment of its own.
#ifndef KVSTREAM_SERVER_SERVICE_TENANTS_H_
#define KVSTREAM_SERVER_SERVICE_TENANTS_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
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

// What differs between tenants is the store (TenantView), the cache of profiles and the leases:
// nothing that one has done can be found, or found sooner, by another. All else of the environment
// is the server's. Thread-safe.
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

  // What the call works with, for as long as this lives. UNAUTHENTICATED: see CallerIdentities. A
  // call that names a tenant to act for works with that one's environment. PERMISSION_DENIED where
  // `kind` asks for an admin and the caller is none, or does not go with a tenant to act for;
  // NOT_FOUND for a tenant without an entry.
  absl::StatusOr<const RpcEnvironment*> EnvironmentOf(const CallCredentials& credentials,
                                                      CallKind kind) const;

  // Of every tenant, in the order of the entries; used_bytes is 0 where the store does not tell.
  std::vector<TenantFigure> Figures() const;
  // A tenant's profiles; null if it has no entry.
  ProfileCache* ProfilesOf(const std::string& tenant) const;

 private:
  struct Tenant {
    TenantEntry entry;
    std::unique_ptr<TenantView> view;
    std::unique_ptr<ProfileCache> profiles;
    std::unique_ptr<ChunkLeases> leases;
    RpcEnvironment environment;
  };

  explicit Tenants(const std::vector<TenantEntry>& entries) : identities_(entries) {}

  const CallerIdentities identities_;
  std::vector<std::unique_ptr<Tenant>> tenants_;  // as the entries
  RpcEnvironment whole_server_;
};

}  // namespace kvstream

#endif  // KVSTREAM_SERVER_SERVICE_TENANTS_H_

#include "server/service/tenants.h"

#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"

namespace kvstream {

absl::StatusOr<std::unique_ptr<Tenants>> Tenants::Create(std::vector<TenantEntry> entries,
                                                         const RpcEnvironment& server,
                                                         const ProfileParser& parse_profile,
                                                         const DeleteLater& delete_later) {
  std::unique_ptr<Tenants> tenants(new Tenants(entries));
  tenants->whole_server_ = server;
  tenants->whole_server_.whole_store = server.store;
  tenants->whole_server_.tenants = tenants.get();
  const uint64_t cache_bytes = server.options->profile_cache_bytes / entries.size();
  for (TenantEntry& entry : entries) {
    auto tenant = std::make_unique<Tenant>();
    absl::StatusOr<std::unique_ptr<TenantView>> view =
        TenantView::Create(server.store, {entry.name, entry.quota_bytes});
    if (!view.ok()) {
      return absl::Status(view.status().code(),
                          absl::StrCat("tenant ", entry.name, ": ", view.status().message()));
    }
    tenant->entry = std::move(entry);
    tenant->view = *std::move(view);
    tenant->profiles =
        std::make_unique<ProfileCache>(tenant->view.get(), parse_profile, cache_bytes);
    Tenant* const raw = tenant.get();
    tenant->leases = std::make_unique<ChunkLeases>([raw, delete_later](std::vector<ChunkId> ids) {
      delete_later(raw->view.get(), raw->leases.get(), std::move(ids));
    });
    tenant->environment = server;
    tenant->environment.store = tenant->view.get();
    tenant->environment.profiles = tenant->profiles.get();
    tenant->environment.leases = tenant->leases.get();
    tenant->environment.tenant = tenant->view.get();
    if (tenant->entry.admin) {
      tenant->environment.whole_store = server.store;
      tenant->environment.tenants = tenants.get();
    }
    tenants->tenants_.push_back(std::move(tenant));
  }
  return tenants;
}

absl::StatusOr<const RpcEnvironment*> Tenants::EnvironmentOf(const CallCredentials& credentials,
                                                             CallKind kind) const {
  const absl::StatusOr<size_t> caller = identities_.Identify(credentials);
  if (!caller.ok()) return caller.status();
  const bool names_another = !credentials.acting_for.empty();
  if ((names_another || kind == CallKind::kWholeServer) && !tenants_[*caller]->entry.admin) {
    return absl::PermissionDeniedError("only an admin may do that");
  }
  if (!names_another) {
    return kind == CallKind::kWholeServer ? &whole_server_ : &tenants_[*caller]->environment;
  }
  if (kind != CallKind::kAdministration || credentials.acting_for.size() > 1) {
    return absl::PermissionDeniedError(
        "an admin acts for one other tenant, and only to list, delete and unpin its chunks and to "
        "see its stats");
  }
  const absl::optional<size_t> tenant = identities_.Find(credentials.acting_for.front());
  if (!tenant.has_value()) {
    return absl::NotFoundError(
        absl::StrCat("the tenants file has no entry \"",
                     absl::CHexEscape(credentials.acting_for.front().substr(0, 80)), "\""));
  }
  return &tenants_[*tenant]->environment;
}

ProfileCache* Tenants::ProfilesOf(const std::string& tenant) const {
  const absl::optional<size_t> found = identities_.Find(tenant);
  return found.has_value() ? tenants_[*found]->profiles.get() : nullptr;
}

std::vector<TenantFigure> Tenants::Figures() const {
  std::vector<TenantFigure> figures;
  for (const std::unique_ptr<Tenant>& tenant : tenants_) {
    TenantFigure figure;
    figure.name = tenant->entry.name;
    figure.quota_bytes = tenant->entry.quota_bytes;
    figure.used_bytes = tenant->view->UsedBytes().value_or(0);
    const absl::StatusOr<StoreStats> stats = tenant->view->Stats();
    if (stats.ok()) figure.chunks = stats->chunks;
    figure.refused_puts = tenant->view->refused();
    figures.push_back(std::move(figure));
  }
  return figures;
}

}  // namespace kvstream

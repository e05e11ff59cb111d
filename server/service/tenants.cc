#include "server/service/tenants.h"

#include <algorithm>
#include <utility>

#include "absl/memory/memory.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "storage/pin_table.h"

namespace kvstream {

Tenants::Tenants(const RpcEnvironment& server, ProfileParser parse_profile,
                 DeleteLater delete_later)
    : server_(server),
      parse_profile_(std::move(parse_profile)),
      delete_later_(std::move(delete_later)),
      whole_server_(server) {
  whole_server_.whole_store = server.store;
  whole_server_.tenants = this;
}

absl::StatusOr<std::unique_ptr<Tenants>> Tenants::Create(std::vector<TenantEntry> entries,
                                                         const RpcEnvironment& server,
                                                         const ProfileParser& parse_profile,
                                                         const DeleteLater& delete_later) {
  auto tenants = absl::WrapUnique(new Tenants(server, parse_profile, delete_later));
  if (absl::Status status = tenants->Replace(std::move(entries)); !status.ok()) return status;
  return tenants;
}

TenantViewOptions Tenants::LimitsOf(const TenantEntry& entry, size_t entries,
                                    uint64_t capacity_bytes) {
  TenantViewOptions limits;
  limits.tenant = entry.name;
  limits.quota_bytes = entry.quota_bytes;
  // Pins are kept in memory; nobody has more than its share of them.
  limits.pins_max = std::max<uint64_t>(1, PinTable::kPinsMax / entries);
  if (entry.pin_bytes.has_value()) {
    limits.pin_bytes_max = *entry.pin_bytes;
  } else if (entry.quota_bytes > 0) {
    limits.pin_bytes_max = entry.quota_bytes / 2;
  } else if (capacity_bytes > 0) {
    // The store's own bound is half of what it holds.
    limits.pin_bytes_max = std::max<uint64_t>(1, capacity_bytes / 2 / entries);
  }
  return limits;
}

absl::StatusOr<std::unique_ptr<Tenants::Tenant>> Tenants::MakeTenant(
    const TenantViewOptions& limits) {
  auto tenant = std::make_unique<Tenant>();
  absl::StatusOr<std::unique_ptr<TenantView>> view = TenantView::Create(server_.store, limits);
  if (!view.ok()) return view.status();
  tenant->view = *std::move(view);
  tenant->profiles = std::make_unique<ProfileCache>(tenant->view.get(), parse_profile_, 0);
  Tenant* const raw = tenant.get();
  tenant->leases = std::make_unique<ChunkLeases>([this, raw](std::vector<ChunkId> ids) {
    delete_later_(raw->view.get(), raw->leases.get(), std::move(ids));
  });
  tenant->environment = server_;
  tenant->environment.store = tenant->view.get();
  tenant->environment.profiles = tenant->profiles.get();
  tenant->environment.leases = tenant->leases.get();
  tenant->environment.tenant = tenant->view.get();
  tenant->environment.tenant_loads = &tenant->loads;
  tenant->environment.tenant_uploads = &tenant->uploads;
  tenant->of_admin = tenant->environment;
  tenant->of_admin.whole_store = server_.store;
  tenant->of_admin.tenants = this;
  return tenant;
}

absl::Status Tenants::Replace(std::vector<TenantEntry> entries) {
  const auto roster = std::make_shared<Roster>(std::move(entries));
  const ServerOptions& options = *server_.options;
  for (const TenantEntry& entry : roster->entries) {
    if (entry.put_buffer_bytes.value_or(0) == 0) continue;
    if (*entry.put_buffer_bytes < options.max_chunk_bytes) {
      return absl::InvalidArgumentError(
          absl::StrCat("tenant ", entry.name, ": \"put-buffer-bytes\" is ", *entry.put_buffer_bytes,
                       "; it must hold at least one chunk of --max-chunk-bytes (",
                       options.max_chunk_bytes, "), or be 0"));
    }
  }
  const absl::StatusOr<StoreStats> stats = server_.store->Stats();
  if (!stats.ok()) return stats.status();
  std::vector<TenantViewOptions> limits;
  std::map<std::string, std::unique_ptr<Tenant>> added;
  for (const TenantEntry& entry : roster->entries) {
    limits.push_back(LimitsOf(entry, roster->entries.size(), stats->capacity_bytes));
    Tenant* known = nullptr;
    {
      absl::MutexLock lock(&mutex_);
      const auto found = known_.find(entry.name);
      if (found != known_.end()) known = found->second.get();
      if (known == nullptr && known_.size() + added.size() >= kNamesMax) {
        return absl::ResourceExhaustedError(
            absl::StrCat("there have been ", kNamesMax, " tenants; restart to forget those gone"));
      }
    }
    absl::Status status;
    if (known == nullptr) {
      absl::StatusOr<std::unique_ptr<Tenant>> tenant = MakeTenant(limits.back());
      status = tenant.status();
      if (tenant.ok()) known = (added[entry.name] = *std::move(tenant)).get();
    } else if (entry.quota_bytes > 0) {
      status = server_.store->GetTenantUse(entry.name).status();
    }
    if (!status.ok()) {
      return absl::Status(status.code(),
                          absl::StrCat("tenant ", entry.name, ": ", status.message()));
    }
    roster->tenants.push_back(known);
  }
  // Nothing fails from here on.
  const uint64_t cache_bytes = options.profile_cache_bytes / roster->entries.size();
  for (size_t i = 0; i < roster->entries.size(); ++i) {
    Tenant& tenant = *roster->tenants[i];
    tenant.view->SetLimits(limits[i]).IgnoreError();  // was asked above
    tenant.profiles->SetMaxBytes(cache_bytes);
    tenant.loads.SetLimit(roster->entries[i].max_loads.value_or(options.max_loads_per_tenant));
    const auto or_none = [](uint64_t limit) { return limit > 0 ? limit : TenantUploads::kNoLimit; };
    tenant.uploads.calls.SetLimit(or_none(
        static_cast<uint64_t>(roster->entries[i].max_puts.value_or(options.max_puts_per_tenant))));
    tenant.uploads.bytes.SetLimit(
        or_none(roster->entries[i].put_buffer_bytes.value_or(options.put_buffer_bytes_per_tenant)));
  }
  absl::MutexLock lock(&mutex_);
  for (auto& [name, tenant] : added) known_[name] = std::move(tenant);
  roster_ = roster;
  return absl::OkStatus();
}

absl::StatusOr<const RpcEnvironment*> Tenants::EnvironmentOf(const CallCredentials& credentials,
                                                             CallKind kind) const {
  const std::shared_ptr<const Roster> now = roster();
  const absl::StatusOr<size_t> caller = now->identities.Identify(credentials);
  if (!caller.ok()) return caller.status();
  const bool names_another = !credentials.acting_for.empty();
  if ((names_another || kind == CallKind::kWholeServer) && !now->entries[*caller].admin) {
    return absl::PermissionDeniedError("only an admin may do that");
  }
  if (!names_another) {
    return kind == CallKind::kWholeServer ? &whole_server_ : now->EnvironmentOf(*caller);
  }
  if (kind != CallKind::kAdministration || credentials.acting_for.size() > 1) {
    return absl::PermissionDeniedError(
        "an admin acts for one other tenant, and only to list, delete and unpin its chunks and to "
        "see its stats");
  }
  const absl::optional<size_t> tenant = now->identities.Find(credentials.acting_for.front());
  if (!tenant.has_value()) {
    return absl::NotFoundError(
        absl::StrCat("the tenants file has no entry \"",
                     absl::CHexEscape(credentials.acting_for.front().substr(0, 80)), "\""));
  }
  return now->EnvironmentOf(*tenant);
}

ProfileCache* Tenants::ProfilesOf(const std::string& tenant) const {
  absl::MutexLock lock(&mutex_);
  const auto found = known_.find(tenant);
  return found == known_.end() ? nullptr : found->second->profiles.get();
}

TenantFigure Tenants::FigureOf(const Tenant& tenant) {
  TenantFigure figure;
  figure.name = tenant.view->tenant();
  figure.quota_bytes = tenant.view->quota_bytes();
  figure.used_bytes = tenant.view->UsedBytes().value_or(0);
  const absl::StatusOr<StoreStats> stats = tenant.view->Stats();
  if (stats.ok()) figure.chunks = stats->chunks;
  figure.refused_puts = tenant.view->refused();
  figure.loads_in_flight = tenant.loads.in_flight();
  figure.puts_in_flight = tenant.uploads.calls.used();
  figure.put_buffer_bytes = tenant.uploads.bytes.used();
  return figure;
}

std::vector<TenantFigure> Tenants::Figures() const {
  // Kept for as long as it is walked: Replace may put another in its place.
  const std::shared_ptr<const Roster> now = roster();
  std::vector<TenantFigure> figures;
  figures.reserve(now->tenants.size());
  for (const Tenant* tenant : now->tenants) figures.push_back(FigureOf(*tenant));
  return figures;
}

std::vector<TenantFigure> Tenants::FiguresOfAll() const {
  std::vector<const Tenant*> tenants;
  {
    absl::MutexLock lock(&mutex_);
    for (const auto& [name, tenant] : known_) tenants.push_back(tenant.get());
  }
  std::vector<TenantFigure> figures;
  figures.reserve(tenants.size());
  for (const Tenant* tenant : tenants) figures.push_back(FigureOf(*tenant));
  return figures;
}

}  // namespace kvstream

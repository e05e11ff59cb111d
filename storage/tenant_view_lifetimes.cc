// The parts of TenantView that say how long a tenant's chunks stay.
#include <algorithm>
#include <map>
#include <utility>

#include "storage/tenant_view.h"

namespace kvstream {
namespace {

// Pins of all tenants that are looked at together.
constexpr size_t kPinPage = 1000;

}  // namespace

absl::StatusOr<std::vector<std::pair<ChunkId, ChunkId>>> TenantView::OuterIds(
    absl::Span<const ChunkId> stored_ids) {
  const absl::StatusOr<std::vector<absl::optional<ChunkInfo>>> infos = store_->GetInfos(stored_ids);
  if (!infos.ok()) return infos.status();
  std::vector<std::pair<ChunkId, ChunkId>> ids;
  for (size_t i = 0; i < stored_ids.size(); ++i) {
    const absl::optional<ChunkInfo>& info = (*infos)[i];
    if (!info.has_value() || info->tenant != options_.tenant || !info->outer_id.has_value()) {
      continue;
    }
    ids.emplace_back(stored_ids[i], *info->outer_id);
  }
  return ids;
}

absl::StatusOr<size_t> TenantView::Renew(absl::Span<const ChunkId> ids, absl::Time expires) {
  return store_->Renew(Stored(ids), expires);
}

absl::StatusOr<size_t> TenantView::Pin(absl::Span<const ChunkId> ids, absl::string_view owner,
                                       absl::Time until) {
  return store_->Pin(Stored(ids), owner, until);
}

absl::StatusOr<size_t> TenantView::Unpin(absl::Span<const ChunkId> ids,
                                         const absl::optional<std::string>& owner) {
  return store_->Unpin(Stored(ids), owner);
}

absl::StatusOr<std::vector<ChunkPin>> TenantView::ListPins(const absl::optional<ChunkPin>& after,
                                                           size_t limit) {
  std::vector<ChunkPin> listed;
  absl::optional<ChunkPin> from = after;
  if (from.has_value()) from->id = Stored(from->id);
  while (true) {
    absl::StatusOr<std::vector<ChunkPin>> page = store_->ListPins(from, kPinPage);
    if (!page.ok()) return page;
    std::vector<ChunkId> ids;
    for (const ChunkPin& pin : *page) {
      if (ids.empty() || ids.back() != pin.id) ids.push_back(pin.id);
    }
    const auto outer_ids = OuterIds(ids);
    if (!outer_ids.ok()) return outer_ids.status();
    const std::map<ChunkId, ChunkId> outer_of(outer_ids->begin(), outer_ids->end());
    for (ChunkPin& pin : *page) {
      if (listed.size() >= limit) return listed;
      const auto outer = outer_of.find(pin.id);
      if (outer != outer_of.end()) listed.push_back({outer->second, pin.owner, pin.until});
    }
    if (page->size() < kPinPage) return listed;
    from = std::move(page->back());
  }
}

absl::StatusOr<std::vector<ChunkPin>> TenantView::PinsOf(absl::Span<const ChunkId> ids) {
  const std::vector<ChunkId> stored_ids = Stored(ids);
  std::map<ChunkId, ChunkId> outer_of;
  for (size_t i = 0; i < ids.size(); ++i) outer_of.emplace(stored_ids[i], ids[i]);
  absl::StatusOr<std::vector<ChunkPin>> pins = store_->PinsOf(stored_ids);
  if (!pins.ok()) return pins;
  for (ChunkPin& pin : *pins) pin.id = outer_of.at(pin.id);
  return pins;
}

absl::StatusOr<size_t> TenantView::DeleteSoon(absl::Span<const ChunkId> ids) {
  return store_->DeleteSoon(Stored(ids));
}

absl::StatusOr<std::vector<ChunkId>> TenantView::Children(const ChunkId& id, size_t limit) {
  const absl::StatusOr<std::vector<ChunkId>> stored = store_->Children(Stored(id), limit);
  if (!stored.ok()) return stored;
  const auto outer_ids = OuterIds(*stored);
  if (!outer_ids.ok()) return outer_ids.status();
  std::vector<ChunkId> children;
  children.reserve(outer_ids->size());
  for (const auto& [stored_id, outer_id] : *outer_ids) children.push_back(outer_id);
  return children;
}

}  // namespace kvstream

#include "storage/pin_table.h"

#include "absl/strings/str_cat.h"

namespace kvstream {

absl::Status PinTable::Set(absl::Span<const Item> items, absl::string_view owner, absl::Time until,
                           Before* before) {
  before->assign(items.size(), absl::nullopt);
  absl::MutexLock lock(&mutex_);
  uint64_t new_bytes = 0;
  size_t new_pins = 0;
  for (size_t i = 0; i < items.size(); ++i) {
    const auto chunk = chunks_.find(items[i].id);
    if (chunk == chunks_.end()) new_bytes += items[i].payload_bytes;
    if (chunk != chunks_.end()) {
      const auto pin = chunk->second.owners.find(owner);
      if (pin != chunk->second.owners.end()) (*before)[i] = pin->second;
    }
    if (!(*before)[i].has_value()) ++new_pins;
  }
  // What was restored may be above the bounds.
  if (new_bytes > 0 && (bytes_ > bytes_max_ || new_bytes > bytes_max_ - bytes_)) {
    return absl::ResourceExhaustedError(absl::StrCat(
        "Pin: ", new_bytes, " bytes more would be pinned; ", bytes_, " are, and the limit is ",
        bytes_max_, ": end other pins, or give the store more room"));
  }
  if (new_pins > 0 && ends_.size() + new_pins > kPinsMax) {
    return absl::ResourceExhaustedError(
        absl::StrCat("Pin: there would be ", ends_.size() + new_pins, " pins; the limit is ",
                     kPinsMax, ": end other pins"));
  }
  for (const Item& item : items) {
    RemoveLocked(item.id, owner);
    Add(item, owner, until);
  }
  return absl::OkStatus();
}

void PinTable::Undo(absl::Span<const Item> items, absl::string_view owner, const Before& before) {
  absl::MutexLock lock(&mutex_);
  for (size_t i = 0; i < items.size(); ++i) {
    RemoveLocked(items[i].id, owner);
    if (before[i].has_value()) Add(items[i], owner, *before[i]);
  }
}

void PinTable::Restore(const ChunkPin& pin, uint64_t payload_bytes, absl::string_view tenant) {
  absl::MutexLock lock(&mutex_);
  Add({pin.id, payload_bytes, std::string(tenant)}, pin.owner, pin.until);
}

void PinTable::Add(const Item& item, absl::string_view owner, absl::Time until) {
  const auto [chunk, is_new] = chunks_.try_emplace(item.id);
  Entry& entry = chunk->second;
  if (is_new) {
    entry.payload_bytes = item.payload_bytes;
    entry.tenant = item.tenant;
    bytes_ += item.payload_bytes;
  }
  entry.owners.emplace(owner, until);
  ends_.emplace(until, item.id, std::string(owner));
  if (entry.tenant.empty()) return;
  Tenant& tenant = tenants_[entry.tenant];
  ++tenant.use.pins;
  if (!is_new) return;
  tenant.chunks.emplace(item.id, chunk);
  tenant.use.bytes += entry.payload_bytes;
}

bool PinTable::RemoveLocked(const ChunkId& id, absl::string_view owner) {
  const auto chunk = chunks_.find(id);
  if (chunk == chunks_.end()) return false;
  const auto pin = chunk->second.owners.find(owner);
  if (pin == chunk->second.owners.end()) return false;
  ends_.erase({pin->second, id, pin->first});
  chunk->second.owners.erase(pin);
  const bool last = chunk->second.owners.empty();
  if (const auto tenant = tenants_.find(chunk->second.tenant); tenant != tenants_.end()) {
    --tenant->second.use.pins;
    if (last) {
      tenant->second.use.bytes -= chunk->second.payload_bytes;
      tenant->second.chunks.erase(id);
    }
    if (tenant->second.chunks.empty()) tenants_.erase(tenant);
  }
  if (last) {
    bytes_ -= chunk->second.payload_bytes;
    chunks_.erase(chunk);
  }
  return true;
}

bool PinTable::Remove(const ChunkId& id, absl::string_view owner) {
  absl::MutexLock lock(&mutex_);
  return RemoveLocked(id, owner);
}

void PinTable::SetPayloadBytes(const ChunkId& id, uint64_t payload_bytes) {
  absl::MutexLock lock(&mutex_);
  const auto chunk = chunks_.find(id);
  if (chunk == chunks_.end()) return;
  bytes_ += payload_bytes - chunk->second.payload_bytes;
  if (const auto tenant = tenants_.find(chunk->second.tenant); tenant != tenants_.end()) {
    tenant->second.use.bytes += payload_bytes - chunk->second.payload_bytes;
  }
  chunk->second.payload_bytes = payload_bytes;
}

bool PinTable::Pinned(const ChunkId& id, absl::Time now) const {
  absl::ReaderMutexLock lock(&mutex_);
  if (chunks_.empty()) return false;
  const auto chunk = chunks_.find(id);
  if (chunk == chunks_.end()) return false;
  for (const auto& [owner, until] : chunk->second.owners) {
    if (until > now) return true;
  }
  return false;
}

std::vector<ChunkPin> PinTable::Of(const ChunkId& id) const {
  std::vector<ChunkPin> pins;
  absl::ReaderMutexLock lock(&mutex_);
  const auto chunk = chunks_.find(id);
  if (chunk == chunks_.end()) return pins;
  for (const auto& [owner, until] : chunk->second.owners) pins.push_back({id, owner, until});
  return pins;
}

std::vector<ChunkPin> PinTable::Ended(absl::Time now, size_t limit) const {
  std::vector<ChunkPin> pins;
  absl::ReaderMutexLock lock(&mutex_);
  for (const auto& [until, id, owner] : ends_) {
    if (until > now || pins.size() >= limit) break;
    pins.push_back({id, owner, until});
  }
  return pins;
}

std::vector<ChunkPin> PinTable::List(const absl::optional<ChunkPin>& after, size_t limit) const {
  std::vector<ChunkPin> pins;
  absl::ReaderMutexLock lock(&mutex_);
  auto chunk = after.has_value() ? chunks_.lower_bound(after->id) : chunks_.begin();
  for (; chunk != chunks_.end(); ++chunk) {
    for (const auto& [owner, until] : chunk->second.owners) {
      if (after.has_value() && chunk->first == after->id && owner <= after->owner) continue;
      if (pins.size() >= limit) return pins;
      pins.push_back({chunk->first, owner, until});
    }
  }
  return pins;
}

std::vector<ChunkPin> PinTable::ListTenant(absl::string_view tenant,
                                           const absl::optional<ChunkPin>& after,
                                           size_t limit) const {
  std::vector<ChunkPin> pins;
  absl::ReaderMutexLock lock(&mutex_);
  const auto found = tenants_.find(tenant);
  if (found == tenants_.end()) return pins;
  const auto& chunks = found->second.chunks;
  auto chunk = after.has_value() ? chunks.lower_bound(after->id) : chunks.begin();
  for (; chunk != chunks.end(); ++chunk) {
    for (const auto& [owner, until] : chunk->second->second.owners) {
      if (after.has_value() && chunk->first == after->id && owner <= after->owner) continue;
      if (pins.size() >= limit) return pins;
      pins.push_back({chunk->first, owner, until});
    }
  }
  return pins;
}

PinTable::Use PinTable::UseOf(absl::string_view tenant) const {
  absl::ReaderMutexLock lock(&mutex_);
  const auto found = tenants_.find(tenant);
  return found == tenants_.end() ? Use() : found->second.use;
}

uint64_t PinTable::pins() const {
  absl::ReaderMutexLock lock(&mutex_);
  return ends_.size();
}

uint64_t PinTable::bytes() const {
  absl::ReaderMutexLock lock(&mutex_);
  return bytes_;
}

}  // namespace kvstream

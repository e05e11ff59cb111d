#include "storage/memory/memory_chunk_store.h"

#include <utility>

#include "absl/memory/memory.h"
#include "absl/strings/str_cat.h"
#include "storage/chunk_limits.h"
#include "storage/id_text.h"

namespace kvstream {

absl::Status MemoryChunkStoreOptions::Validate() const {
  if (max_bytes == 0) {
    return absl::InvalidArgumentError("memory store: max_bytes must be at least 1");
  }
  if (now == nullptr) return absl::InvalidArgumentError("memory store: now must be a clock");
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<ChunkStore>> MemoryChunkStore::Create(
    const MemoryChunkStoreOptions& options) {
  if (absl::Status status = options.Validate(); !status.ok()) return status;
  return absl::WrapUnique<ChunkStore>(new MemoryChunkStore(options));
}

absl::Status MemoryChunkStore::CheckRoom(absl::string_view what, uint64_t bytes) const {
  const uint64_t used_bytes = payload_bytes_ + profile_bytes_;
  // Nothing makes used_bytes exceed max_bytes, so the subtraction cannot wrap.
  if (bytes <= options_.max_bytes - used_bytes) return absl::OkStatus();
  return absl::ResourceExhaustedError(
      absl::StrCat(what, ": ", bytes, " bytes do not fit; the memory store holds ", used_bytes,
                   " of at most ", options_.max_bytes, " bytes"));
}

void MemoryChunkStore::Count(const ChunkInfo& info, uint64_t chunks, uint64_t bytes) {
  payload_bytes_ += bytes;
  if (info.tenant.empty()) return;
  TenantUse& use = tenants_[info.tenant];
  use.chunks += chunks;
  use.payload_bytes += bytes;
  if (use.chunks == 0) tenants_.erase(info.tenant);
}

absl::StatusOr<TenantUse> MemoryChunkStore::GetTenantUse(absl::string_view tenant) {
  TenantUse use;
  {
    absl::ReaderMutexLock lock(&mutex_);
    const auto found = tenants_.find(std::string(tenant));
    if (found != tenants_.end()) use = found->second;
  }
  const PinTable::Use pins = pins_.UseOf(tenant);
  use.pins = pins.pins;
  use.pinned_bytes = pins.bytes;
  return use;
}

uint64_t MemoryChunkStore::RemoveLevels(const ChunkId& id, uint32_t keep_levels,
                                        std::vector<std::shared_ptr<const StoredChunk>>* dead) {
  const auto found = chunks_.find(id);
  if (found == chunks_.end()) return 0;
  auto left = std::make_shared<StoredChunk>(*found->second);
  const size_t levels = left->segments.size();
  if (levels <= keep_levels) return 0;
  const uint64_t bytes = TrimInfo(&left->info, keep_levels);
  left->segments.resize(keep_levels);
  Count(found->second->info, keep_levels > 0 ? 0 : uint64_t{0} - 1, uint64_t{0} - bytes);
  dead->push_back(std::move(found->second));
  if (keep_levels > 0) {
    found->second = std::move(left);
  } else {
    Unlist(id, left->info);
    chunks_.erase(found);
  }
  return bytes;
}

void MemoryChunkStore::MakeRoom(uint64_t bytes,
                                std::vector<std::shared_ptr<const StoredChunk>>* dead) {
  if (!options_.evict || bytes > options_.max_bytes) return;
  const uint64_t used_bytes = payload_bytes_ + profile_bytes_;
  const uint64_t free_bytes = options_.max_bytes - used_bytes;
  if (bytes <= free_bytes) return;
  const auto held = [this](const ChunkId& id) { return holds_.held(id); };
  for (const EvictionIndex::Victim& victim :
       index_.Take(bytes - free_bytes, chunks_.size(), held)) {
    // Between the two looks somebody may have taken hold of it.
    const std::vector<ChunkId> removable = holds_.BeginRemoval({victim.id});
    if (removable.empty()) {
      index_.Put(victim.id, chunks_.at(victim.id)->info);
      continue;
    }
    const size_t levels = chunks_.at(victim.id)->segments.size();
    evicted_.evicted_bytes += RemoveLevels(victim.id, victim.keep_levels, dead);
    evicted_.evicted_segments += levels - victim.keep_levels;
    if (victim.keep_levels == 0) ++evicted_.evicted_chunks;
    holds_.EndRemoval(removable);
  }
}

absl::StatusOr<bool> MemoryChunkStore::Put(const ChunkId& id, const ChunkInfo& info,
                                           absl::Span<const absl::string_view> segments) {
  if (absl::Status status = ValidateChunk(id, info, segments); !status.ok()) return status;
  const auto what = [&id] { return absl::StrCat("Put of chunk ", ShortHex(id)); };
  {
    // Spares the copy of what exists or does not fit.
    absl::MutexLock lock(&mutex_);
    const auto found = chunks_.find(id);
    if (found != chunks_.end() && !RestoresLevels(found->second->info, info)) {
      RenewLocked(id, WholeNanos(info.expires));
      return false;
    }
    if (found == chunks_.end() && !options_.evict) {
      if (absl::Status status = CheckRoom(what(), PayloadBytes(info)); !status.ok()) return status;
    }
  }
  auto chunk = std::make_shared<StoredChunk>();
  chunk->info = info;
  // Drivers agree on nanoseconds.
  chunk->info.created = absl::FromUnixNanos(absl::ToUnixNanos(info.created));
  chunk->info.expires = WholeNanos(info.expires);
  chunk->segments.reserve(segments.size());
  // The one copy of the payload: the caller's bytes are borrowed for the call only.
  for (absl::string_view segment : segments) {
    chunk->segments.push_back(std::make_shared<const std::string>(segment));
  }

  std::vector<std::shared_ptr<const StoredChunk>> dead;  // outlives the lock
  // Eviction must not take what is to be restored.
  const ChunkHold hold = holds_.Hold({id});
  absl::MutexLock lock(&mutex_);
  uint64_t bytes = PayloadBytes(info);
  uint64_t chunks = 1;
  const absl::Time expires = chunk->info.expires;
  if (const auto found = chunks_.find(id); found != chunks_.end()) {
    const StoredChunk& stored = *found->second;
    // Segments of two encodings must never meet in one chunk.
    bool restores = RestoresLevels(stored.info, info);
    for (size_t level = 0; restores && level < stored.segments.size(); ++level) {
      restores = *stored.segments[level] == segments[level];
      chunk->segments[level] = stored.segments[level];
    }
    if (!restores) {
      RenewLocked(id, expires);
      return false;
    }
    bytes -= PayloadBytes(stored.info);
    chunks = 0;
    chunk->info.created = stored.info.created;
    chunk->info.model = stored.info.model;
    chunk->info.tenant = stored.info.tenant;
    chunk->info.outer_id = stored.info.outer_id;
    chunk->info.outer_parent = stored.info.outer_parent;
    chunk->info.levels_lost = static_cast<uint32_t>(
        stored.info.levels_lost + stored.segments.size() - chunk->segments.size());
  }
  MakeRoom(bytes, &dead);
  if (absl::Status status = CheckRoom(what(), bytes); !status.ok()) return status;
  // Not before: a Put that is refused changes nothing.
  if (RenewLocked(id, expires)) chunk->info.expires = chunks_.at(id)->info.expires;
  if (options_.evict) index_.Put(id, chunk->info);
  Enlist(id, chunk->info);
  pins_.SetPayloadBytes(id, PayloadBytes(chunk->info));
  Count(chunk->info, chunks, bytes);
  chunks_[id] = std::move(chunk);
  return true;
}

absl::StatusOr<size_t> MemoryChunkStore::Trim(absl::Span<const ChunkId> ids, uint32_t keep_levels) {
  if (absl::Status status = ValidateTrim(keep_levels); !status.ok()) return status;
  std::vector<std::shared_ptr<const StoredChunk>> dead;  // freed after the lock is gone
  const std::vector<ChunkId> removable = holds_.BeginRemoval(ids);
  {
    absl::MutexLock lock(&mutex_);
    const absl::Time now = options_.now();
    for (const ChunkId& id : removable) {
      if (pins_.Pinned(id, now)) continue;
      const size_t before = dead.size();
      RemoveLevels(id, keep_levels, &dead);
      if (options_.evict && dead.size() > before) index_.Put(id, chunks_.at(id)->info);
    }
  }
  holds_.EndRemoval(removable);
  return dead.size();
}

void MemoryChunkStore::Touch(absl::Span<const ChunkId> ids) {
  if (!options_.evict) return;
  absl::MutexLock lock(&mutex_);
  for (const ChunkId& id : ids) index_.Touch(id);
}

absl::StatusOr<std::vector<absl::optional<ChunkInfo>>> MemoryChunkStore::GetInfos(
    absl::Span<const ChunkId> ids) {
  std::vector<absl::optional<ChunkInfo>> infos(ids.size());
  absl::ReaderMutexLock lock(&mutex_);
  for (size_t i = 0; i < ids.size(); ++i) {
    const auto found = chunks_.find(ids[i]);
    if (found != chunks_.end()) infos[i] = found->second->info;
  }
  return infos;
}

absl::StatusOr<size_t> MemoryChunkStore::LongestPrefix(absl::Span<const ChunkId> ids) {
  absl::ReaderMutexLock lock(&mutex_);
  size_t length = 0;
  while (length < ids.size() && chunks_.count(ids[length]) > 0) ++length;
  return length;
}

absl::StatusOr<PinnedBytes> MemoryChunkStore::ReadSegment(const ChunkId& id, uint32_t level) {
  std::shared_ptr<const StoredChunk> chunk;
  {
    absl::ReaderMutexLock lock(&mutex_);
    const auto found = chunks_.find(id);
    if (found != chunks_.end()) chunk = found->second;
  }
  if (chunk == nullptr) {
    return absl::NotFoundError(
        absl::StrCat("ReadSegment of chunk ", ShortHex(id), ": the chunk is not stored"));
  }
  if (level >= chunk->segments.size()) {
    return absl::NotFoundError(absl::StrCat("ReadSegment of chunk ", ShortHex(id), ": level ",
                                            level, " does not exist; the chunk has ",
                                            chunk->segments.size(), " levels"));
  }
  std::shared_ptr<const std::string> segment = chunk->segments[level];
  const absl::string_view bytes = *segment;
  return PinnedBytes(bytes, [segment = std::move(segment)]() mutable { segment.reset(); });
}

absl::StatusOr<size_t> MemoryChunkStore::Delete(absl::Span<const ChunkId> ids) {
  // Freed after the lock is gone.
  std::vector<std::shared_ptr<const StoredChunk>> deleted;
  const absl::Time now = options_.now();
  absl::MutexLock lock(&mutex_);
  for (const ChunkId& id : ids) {
    const auto found = chunks_.find(id);
    if (found == chunks_.end() || pins_.Pinned(id, now)) continue;
    const ChunkInfo& info = found->second->info;
    Count(info, uint64_t{0} - 1, uint64_t{0} - PayloadBytes(info));
    Unlist(id, info);
    deleted.push_back(std::move(found->second));
    chunks_.erase(found);
    index_.Remove(id);
  }
  return deleted.size();
}

void MemoryChunkStore::Enlist(const ChunkId& id, const ChunkInfo& info) {
  if (info.expires != absl::InfiniteFuture()) expiry_.emplace(info.expires, id);
  if (info.parent.has_value()) children_.emplace(*info.parent, id);
}

void MemoryChunkStore::Unlist(const ChunkId& id, const ChunkInfo& info) {
  expiry_.erase({info.expires, id});
  if (info.parent.has_value()) children_.erase({*info.parent, id});
  // Only such as have ended.
  for (const ChunkPin& pin : pins_.Of(id)) pins_.Remove(id, pin.owner);
}

bool MemoryChunkStore::RenewLocked(const ChunkId& id, absl::Time expires) {
  const auto found = chunks_.find(id);
  if (found == chunks_.end()) return false;
  if (found->second->info.expires >= expires) return true;
  auto renewed = std::make_shared<StoredChunk>(*found->second);
  expiry_.erase({renewed->info.expires, id});
  renewed->info.expires = expires;
  if (expires != absl::InfiniteFuture()) expiry_.emplace(expires, id);
  found->second = std::move(renewed);
  return true;
}

absl::StatusOr<size_t> MemoryChunkStore::Renew(absl::Span<const ChunkId> ids, absl::Time expires) {
  if (absl::Status status = ValidateExpires("Renew", expires); !status.ok()) return status;
  const std::set<ChunkId> once(ids.begin(), ids.end());
  size_t renewed = 0;
  absl::MutexLock lock(&mutex_);
  for (const ChunkId& id : once) renewed += RenewLocked(id, WholeNanos(expires)) ? 1 : 0;
  return renewed;
}

absl::StatusOr<size_t> MemoryChunkStore::Expire(absl::Time now, size_t limit) {
  std::vector<std::shared_ptr<const StoredChunk>> dead;  // freed after the lock is gone
  absl::MutexLock lock(&mutex_);
  for (auto ended = pins_.Ended(now, 256); !ended.empty(); ended = pins_.Ended(now, 256)) {
    RemovePins(ended, now);
  }
  std::vector<ChunkId> due;
  for (const auto& [expires, id] : expiry_) {
    if (expires > now || due.size() >= limit) break;
    if (!holds_.held(id) && !pins_.Pinned(id, now)) due.push_back(id);
  }
  const std::vector<ChunkId> removable = holds_.BeginRemoval(due);
  for (const ChunkId& id : removable) {
    RemoveLevels(id, 0, &dead);
    index_.Remove(id);
  }
  holds_.EndRemoval(removable);
  expired_ += removable.size();
  return removable.size();
}

absl::StatusOr<size_t> MemoryChunkStore::Pin(absl::Span<const ChunkId> ids, absl::string_view owner,
                                             absl::Time until) {
  if (absl::Status status = ValidatePin(owner, until); !status.ok()) return status;
  const std::set<ChunkId> once(ids.begin(), ids.end());
  std::vector<PinTable::Item> items;
  absl::MutexLock lock(&mutex_);
  for (const ChunkId& id : once) {
    const auto found = chunks_.find(id);
    if (found == chunks_.end()) continue;
    const ChunkInfo& info = found->second->info;
    items.push_back({id, PayloadBytes(info), info.tenant});
  }
  PinTable::Before before;
  if (absl::Status status = pins_.Set(items, owner, WholeNanos(until), &before); !status.ok()) {
    return status;
  }
  for (const PinTable::Item& item : items) index_.SetPinned(item.id, true);
  return items.size();
}

void MemoryChunkStore::RemovePins(absl::Span<const ChunkPin> pins, absl::Time now) {
  for (const ChunkPin& pin : pins) {
    pins_.Remove(pin.id, pin.owner);
    if (!pins_.Pinned(pin.id, now)) index_.SetPinned(pin.id, false);
  }
}

absl::StatusOr<size_t> MemoryChunkStore::Unpin(absl::Span<const ChunkId> ids,
                                               const absl::optional<std::string>& owner) {
  const absl::Time now = options_.now();
  size_t ended = 0;
  absl::MutexLock lock(&mutex_);
  for (const ChunkId& id : ids) {
    std::vector<ChunkPin> pins;
    for (ChunkPin& pin : pins_.Of(id)) {
      if (!owner.has_value() || pin.owner == *owner) pins.push_back(std::move(pin));
    }
    RemovePins(pins, now);
    ended += pins.size();
  }
  return ended;
}

absl::StatusOr<std::vector<ChunkPin>> MemoryChunkStore::PinsOf(absl::Span<const ChunkId> ids) {
  std::vector<ChunkPin> pins;
  for (const ChunkId& id : std::set<ChunkId>(ids.begin(), ids.end())) {
    for (ChunkPin& pin : pins_.Of(id)) pins.push_back(std::move(pin));
  }
  return pins;
}

absl::StatusOr<size_t> MemoryChunkStore::DeleteSoon(absl::Span<const ChunkId> ids) {
  const absl::Time now = options_.now();
  size_t noted = 0;
  absl::ReaderMutexLock lock(&mutex_);
  for (const ChunkId& id : std::set<ChunkId>(ids.begin(), ids.end())) {
    noted += chunks_.count(id) > 0 && !pins_.Pinned(id, now) ? 1 : 0;
  }
  return noted;
}

absl::StatusOr<std::vector<ChunkId>> MemoryChunkStore::Children(const ChunkId& id, size_t limit) {
  std::vector<ChunkId> children;
  absl::ReaderMutexLock lock(&mutex_);
  for (auto next = children_.lower_bound({id, ChunkId{}});
       next != children_.end() && next->first == id && children.size() < limit; ++next) {
    children.push_back(next->second);
  }
  return children;
}

absl::StatusOr<std::vector<std::pair<ChunkId, ChunkInfo>>> MemoryChunkStore::List(
    const absl::optional<ChunkId>& after, size_t limit) {
  std::vector<std::pair<ChunkId, ChunkInfo>> listed;
  absl::ReaderMutexLock lock(&mutex_);
  auto next = after.has_value() ? chunks_.upper_bound(*after) : chunks_.begin();
  for (; next != chunks_.end() && listed.size() < limit; ++next) {
    listed.emplace_back(next->first, next->second->info);
  }
  return listed;
}

absl::StatusOr<bool> MemoryChunkStore::PutProfile(const StoredProfileId& id,
                                                  absl::string_view bytes) {
  if (absl::Status status = ValidateProfile(id, bytes); !status.ok()) return status;
  absl::MutexLock lock(&mutex_);
  if (profiles_.count(id) > 0) return false;
  const std::string what = absl::StrCat("PutProfile of profile ", ShortHex(id));
  std::vector<std::shared_ptr<const StoredChunk>> dead;
  MakeRoom(bytes.size(), &dead);
  if (absl::Status status = CheckRoom(what, bytes.size()); !status.ok()) return status;
  profiles_.emplace(id, bytes);
  profile_bytes_ += bytes.size();
  return true;
}

absl::StatusOr<std::string> MemoryChunkStore::GetProfile(const StoredProfileId& id) {
  absl::ReaderMutexLock lock(&mutex_);
  const auto found = profiles_.find(id);
  if (found == profiles_.end()) {
    return absl::NotFoundError(
        absl::StrCat("GetProfile of profile ", ShortHex(id), ": the profile is not stored"));
  }
  return found->second;
}

absl::StatusOr<std::vector<StoredProfileId>> MemoryChunkStore::ListProfiles() {
  std::vector<StoredProfileId> ids;
  absl::ReaderMutexLock lock(&mutex_);
  ids.reserve(profiles_.size());
  for (const auto& [id, bytes] : profiles_) ids.push_back(id);
  return ids;
}

absl::StatusOr<StoreStats> MemoryChunkStore::Stats() {
  absl::ReaderMutexLock lock(&mutex_);
  StoreStats stats = evicted_;
  stats.chunks = chunks_.size();
  stats.payload_bytes = payload_bytes_;
  for (const auto& [tenant, use] : tenants_) stats.tenant_chunks += use.chunks;
  stats.capacity_bytes = options_.max_bytes;
  stats.expired_chunks = expired_;
  stats.pins = pins_.pins();
  stats.pinned_bytes = pins_.bytes();
  return stats;
}

}  // namespace kvstream

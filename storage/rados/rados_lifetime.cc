// RadosChunkStore: expiry, pins, deletion that is promised, and what is known of tenants.
#include <algorithm>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "storage/call_deadline.h"
#include "storage/chunk_limits.h"
#include "storage/rados/rados_chunk_store.h"
#include "storage/rados/rados_format.h"

namespace kvstream {
namespace {

using rados_format::DataPin;
using rados_format::DataRecord;

constexpr absl::Duration kExpiryLockTime = absl::Minutes(1);
// Pins that are taken note of at a time.
constexpr size_t kEndedAtOnce = 256;
// How old what is told of tenants may be as far as other daemons go.
constexpr absl::Duration kTenantsMaxAge = absl::Seconds(1);

}  // namespace

absl::StatusOr<size_t> RadosChunkStore::RenewIn(RadosIndex* index, absl::string_view what,
                                                absl::Span<const ChunkId> ids, absl::Time expires) {
  std::set<ChunkId> stored;
  const auto changed = index->Change(
      what, ids,
      [&](const ChunkId& id, const DataRecord& record) -> absl::optional<RadosIndexChange> {
        stored.insert(id);
        if (record.info.expires >= expires && record.doomed == absl::InfiniteFuture()) {
          return absl::nullopt;
        }
        RadosIndexChange change;
        change.record = record;
        change.record->info.expires = std::max(record.info.expires, expires);
        change.record->doomed = absl::InfiniteFuture();
        return change;
      });
  if (!changed.ok()) return changed.status();
  return stored.size();
}

absl::StatusOr<size_t> RadosChunkStore::Renew(absl::Span<const ChunkId> ids, absl::Time expires) {
  constexpr absl::string_view kWhat = "Renew";
  if (absl::Status status = ValidateExpires(kWhat, expires); !status.ok()) return status;
  return RenewIn(chunks_.get(), kWhat, ids, WholeNanos(expires));
}

absl::Status RadosChunkStore::EndPins(absl::string_view what, absl::Time now) {
  for (;;) {
    const absl::StatusOr<std::vector<ChunkId>> ended =
        chunks_->Due(what, rados_format::kPinEndPrefix, now, kEndedAtOnce);
    if (!ended.ok() || ended->empty()) return ended.status();
    const auto changed = chunks_->Change(
        what, *ended,
        [now](const ChunkId&, const DataRecord& record) -> absl::optional<RadosIndexChange> {
          RadosIndexChange change;
          change.record = record;
          auto& pins = change.record->pins;
          pins.erase(std::remove_if(pins.begin(), pins.end(),
                                    [now](const DataPin& pin) { return pin.until <= now; }),
                     pins.end());
          if (pins.size() == record.pins.size()) return absl::nullopt;
          return change;
        });
    // None: another daemon was faster, or a key has no pin to it.
    if (!changed.ok() || *changed == 0) return changed.status();
  }
}

absl::StatusOr<size_t> RadosChunkStore::Expire(absl::Time now, size_t limit) {
  constexpr absl::string_view kWhat = "Expire";
  if (limit == 0) return 0;
  const absl::StatusOr<bool> alone = Lock(kWhat, rados_format::kExpiryLock, kExpiryLockTime);
  if (!alone.ok()) return alone.status();
  if (!*alone) return 0;
  expires_.store(true);
  if (absl::Status status = EndPins(kWhat, now); !status.ok()) return status;
  const absl::StatusOr<std::vector<ChunkId>> due =
      chunks_->Due(kWhat, rados_format::kExpiryPrefix, now, limit);
  if (!due.ok()) return due.status();
  const std::vector<ChunkId> removable = holds_.BeginRemoval(*due);
  const auto expired = chunks_->Change(
      kWhat, removable,
      [&](const ChunkId&, const DataRecord& record) -> absl::optional<RadosIndexChange> {
        if (rados_format::DueTime(record) > now) return absl::nullopt;
        return RadosIndexChange::Removal(record);
      });
  holds_.EndRemoval(removable);
  if (expired.ok()) expired_chunks_ += *expired;
  return expired;
}

absl::Status RadosChunkStore::CheckPins(absl::Span<const ChunkId> ids, absl::string_view owner) {
  constexpr absl::string_view kWhat = "Pin";
  const auto records = chunks_->Find(kWhat, ids, absl::ZeroDuration());
  if (!records.ok()) return records.status();
  uint64_t new_bytes = 0;
  for (size_t i = 0; i < ids.size(); ++i) {
    const absl::optional<DataRecord>& record = (*records)[i];
    if (!record.has_value()) continue;
    if (record->pins.empty()) new_bytes += PayloadBytes(record->info);
    const bool known = std::any_of(record->pins.begin(), record->pins.end(),
                                   [owner](const DataPin& pin) { return pin.owner == owner; });
    if (!known && record->pins.size() >= rados_format::kMaxPinsOfChunk) {
      return absl::ResourceExhaustedError(
          absl::StrCat(kWhat, ": a chunk has pins of ", rados_format::kMaxPinsOfChunk,
                       " owners, which is the limit: end one of them"));
    }
  }
  if (options_.capacity_bytes == 0 || new_bytes == 0) return absl::OkStatus();
  const auto counted = chunks_->Count(kWhat);
  if (!counted.ok()) return counted.status();
  const uint64_t most = options_.capacity_bytes / 2;
  if (counted->pinned_bytes <= most && new_bytes <= most - counted->pinned_bytes) {
    return absl::OkStatus();
  }
  return absl::ResourceExhaustedError(absl::StrCat(
      kWhat, ": ", new_bytes, " bytes more would be pinned; ", counted->pinned_bytes,
      " are, and the limit is ", most, ": end other pins, or give the pool more capacity"));
}

absl::StatusOr<size_t> RadosChunkStore::Pin(absl::Span<const ChunkId> ids, absl::string_view owner,
                                            absl::Time until) {
  if (absl::Status status = ValidatePin(owner, until); !status.ok()) return status;
  std::vector<ChunkId> once(ids.begin(), ids.end());
  std::sort(once.begin(), once.end());
  once.erase(std::unique(once.begin(), once.end()), once.end());
  if (absl::Status status = CheckPins(once, owner); !status.ok()) return status;
  const DataPin pin = {std::string(owner), WholeNanos(until)};
  std::set<ChunkId> pinned;
  bool too_many = false;
  const auto changed = chunks_->Change(
      "Pin", once,
      [&](const ChunkId& id, const DataRecord& record) -> absl::optional<RadosIndexChange> {
        RadosIndexChange change;
        change.record = record;
        auto& pins = change.record->pins;
        const auto at =
            std::lower_bound(pins.begin(), pins.end(), pin,
                             [](const DataPin& a, const DataPin& b) { return a.owner < b.owner; });
        if (at != pins.end() && at->owner == pin.owner) {
          at->until = pin.until;
        } else if (pins.size() < rados_format::kMaxPinsOfChunk) {
          pins.insert(at, pin);
        } else {
          too_many = true;  // since they were looked at
          return absl::nullopt;
        }
        pinned.insert(id);
        return change;
      });
  if (!changed.ok()) return changed.status();
  if (too_many) return absl::ResourceExhaustedError("Pin: a chunk has pins of too many owners");
  return pinned.size();
}

absl::StatusOr<size_t> RadosChunkStore::Unpin(absl::Span<const ChunkId> ids,
                                              const absl::optional<std::string>& owner) {
  std::map<ChunkId, size_t> ended;
  const auto changed = chunks_->Change(
      "Unpin", ids,
      [&](const ChunkId& id, const DataRecord& record) -> absl::optional<RadosIndexChange> {
        RadosIndexChange change;
        change.record = record;
        auto& pins = change.record->pins;
        pins.erase(std::remove_if(pins.begin(), pins.end(),
                                  [&](const DataPin& pin) {
                                    return !owner.has_value() || pin.owner == *owner;
                                  }),
                   pins.end());
        ended[id] = record.pins.size() - pins.size();
        if (ended[id] == 0) return absl::nullopt;
        return change;
      });
  if (!changed.ok()) return changed.status();
  size_t sum = 0;
  for (const auto& [id, count] : ended) sum += count;
  return sum;
}

absl::StatusOr<std::vector<ChunkPin>> RadosChunkStore::PinsOf(absl::Span<const ChunkId> ids) {
  std::vector<ChunkId> once(ids.begin(), ids.end());
  std::sort(once.begin(), once.end());
  once.erase(std::unique(once.begin(), once.end()), once.end());
  return PinsOfSorted("PinsOf", once, nullptr);
}

absl::StatusOr<std::vector<ChunkPin>> RadosChunkStore::PinsOfSorted(absl::string_view what,
                                                                    absl::Span<const ChunkId> ids,
                                                                    const std::string* tenant) {
  const auto records = chunks_->Find(what, ids, absl::ZeroDuration());
  if (!records.ok()) return records.status();
  std::vector<ChunkPin> pins;
  for (size_t i = 0; i < ids.size(); ++i) {
    const absl::optional<DataRecord>& record = (*records)[i];
    if (!record.has_value() || (tenant != nullptr && record->info.tenant != *tenant)) continue;
    for (const DataPin& pin : record->pins) pins.push_back({ids[i], pin.owner, pin.until});
  }
  return pins;
}

absl::StatusOr<std::vector<ChunkPin>> RadosChunkStore::ListPins(
    const absl::optional<ChunkPin>& after, size_t limit) {
  return ListPinsUnder("ListPins", rados_format::kPinnedPrefix, nullptr, after, limit);
}

absl::StatusOr<std::vector<ChunkPin>> RadosChunkStore::ListTenantPins(
    absl::string_view tenant, const absl::optional<ChunkPin>& after, size_t limit) {
  // As everywhere: nobody has no pins of its own.
  if (tenant.empty()) return std::vector<ChunkPin>();
  const std::string name(tenant);
  return ListPinsUnder("ListTenantPins", rados_format::OwnedPinnedPrefix(tenant), &name, after,
                       limit);
}

absl::StatusOr<std::vector<ChunkPin>> RadosChunkStore::ListPinsUnder(
    absl::string_view what, const std::string& prefix, const std::string* tenant,
    const absl::optional<ChunkPin>& after, size_t limit) {
  constexpr size_t kPage = 512;
  std::vector<ChunkPin> listed;
  absl::optional<ChunkId> last;
  if (after.has_value()) {
    last = after->id;
    const auto rest = PinsOfSorted(what, {after->id}, tenant);
    if (!rest.ok()) return rest.status();
    for (const ChunkPin& pin : *rest) {
      if (pin.owner > after->owner && listed.size() < limit) listed.push_back(pin);
    }
  }
  while (listed.size() < limit) {
    const auto ids = chunks_->ListIds(what, prefix, last, std::min(kPage, limit - listed.size()));
    if (!ids.ok()) return ids.status();
    if (ids->empty()) break;
    last = ids->back();
    const auto pins = PinsOfSorted(what, *ids, tenant);
    if (!pins.ok()) return pins.status();
    for (const ChunkPin& pin : *pins) {
      if (listed.size() < limit) listed.push_back(pin);
    }
  }
  return listed;
}

absl::StatusOr<size_t> RadosChunkStore::DeleteSoon(absl::Span<const ChunkId> ids) {
  {
    // Before the notes: what is noted must be completed, and what is not does no harm.
    absl::MutexLock lock(&mutex_);
    doomed_.insert(ids.begin(), ids.end());
  }
  const absl::Time now = WholeNanos(options_.clock());
  std::set<ChunkId> noted;
  const auto changed = chunks_->Change(
      "DeleteSoon", ids,
      [&](const ChunkId& id, const DataRecord& record) -> absl::optional<RadosIndexChange> {
        noted.erase(id);
        if (rados_format::Pinned(record, now)) return absl::nullopt;
        noted.insert(id);
        RadosIndexChange change;
        change.record = record;
        change.record->doomed = now;
        return change;
      });
  if (!changed.ok()) return changed.status();
  return noted.size();
}

absl::Status RadosChunkStore::CompleteDeletions(absl::string_view what,
                                                absl::Span<const ChunkId> ids) {
  const absl::Time now = options_.clock();
  const std::vector<ChunkId> removable = holds_.BeginRemoval(ids);
  const auto changed = chunks_->Change(
      what, removable,
      [&](const ChunkId&, const DataRecord& record) -> absl::optional<RadosIndexChange> {
        if (record.doomed == absl::InfiniteFuture()) return absl::nullopt;
        if (!rados_format::Pinned(record, now)) return RadosIndexChange::Removal(record);
        // Somebody wants it after all.
        RadosIndexChange change;
        change.record = record;
        change.record->doomed = absl::InfiniteFuture();
        return change;
      });
  holds_.EndRemoval(removable);
  return changed.status();
}

absl::StatusOr<std::vector<ChunkId>> RadosChunkStore::Children(const ChunkId& id, size_t limit) {
  const auto children = chunks_->Children("Children", {id}, limit);
  if (!children.ok()) return children.status();
  return children->front();
}

absl::StatusOr<std::vector<std::pair<ChunkId, ChunkInfo>>> RadosChunkStore::ListTenant(
    absl::string_view tenant, const absl::optional<ChunkId>& after, size_t limit) {
  constexpr absl::string_view kWhat = "ListTenant";
  constexpr size_t kPage = 1000;
  if (tenant.empty()) return ChunkStore::ListTenant(tenant, after, limit);
  std::vector<std::pair<ChunkId, ChunkInfo>> listed;
  absl::optional<ChunkId> last = after;
  while (listed.size() < limit) {
    const auto ids = chunks_->ListIds(kWhat, rados_format::OwnedPrefix(tenant), last,
                                      std::min(kPage, limit - listed.size()));
    if (!ids.ok()) return ids.status();
    if (ids->empty()) break;
    last = ids->back();
    auto records = chunks_->Find(kWhat, *ids, absl::ZeroDuration());
    if (!records.ok()) return records.status();
    for (size_t i = 0; i < ids->size(); ++i) {
      absl::optional<DataRecord>& record = (*records)[i];
      if (record.has_value() && record->info.tenant == tenant) {
        listed.emplace_back((*ids)[i], std::move(record->info));
      }
    }
  }
  return listed;
}

absl::StatusOr<TenantUse> RadosChunkStore::GetTenantUse(absl::string_view tenant) {
  constexpr absl::string_view kWhat = "GetTenantUse";
  const absl::Duration max_age = std::min(options_.info_max_age, kTenantsMaxAge);
  const absl::Time now = absl::Now();
  {
    absl::MutexLock lock(&mutex_);
    // Those who come while somebody asks have what was known before; the first ones wait, and share
    // the answer also if it is none: one after the other each would wait for all before it.
    if (tenants_read_ == absl::InfinitePast() && reading_tenants_) {
      const bool answered = mutex_.AwaitWithDeadline(
          absl::Condition(this, &RadosChunkStore::tenants_are_not_being_read),
          CallDeadline::Current());
      if (!answered) return absl::UnavailableError(absl::StrCat(kWhat, ": no answer in time"));
      if (tenants_read_ == absl::InfinitePast()) return tenants_status_;
    }
    const absl::Duration age = now - tenants_read_;
    if (reading_tenants_ || (age < max_age && age > -max_age)) return tenants_.Use(tenant);
    reading_tenants_ = true;
  }
  tenants_.BeginRefresh();
  CallDeadline of_all(absl::InfiniteFuture());
  of_all.Lift();
  const auto read = chunks_->CountTenants(kWhat);
  tenants_.EndRefresh(read.ok() ? &*read : nullptr);
  absl::MutexLock lock(&mutex_);
  reading_tenants_ = false;
  tenants_status_ = read.status();
  if (!read.ok()) return read.status();
  tenants_read_ = now;
  return tenants_.Use(tenant);
}

}  // namespace kvstream

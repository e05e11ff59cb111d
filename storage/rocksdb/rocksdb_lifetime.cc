// The parts of RocksDbChunkStore that know how long chunks are to stay: expiry, pins, deletions
// that were promised, and which chunk follows which.
#include <rocksdb/iterator.h>
#include <rocksdb/options.h>
#include <rocksdb/slice.h>

#include <algorithm>
#include <map>
#include <set>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "storage/chunk_limits.h"
#include "storage/id_text.h"
#include "storage/rocksdb/capacity_plan.h"
#include "storage/rocksdb/lifetime_format.h"
#include "storage/rocksdb/rocksdb_chunk_store.h"
#include "storage/rocksdb/skip_damage.h"
#include "storage/rocksdb/slices.h"
#include "storage/rocksdb/status_mapping.h"

namespace kvstream {
namespace {

using rocksdb_format::ChildKey;
using rocksdb_format::ExpiryKey;
using rocksdb_format::IdKey;

// Chunks of one write batch.
constexpr size_t kLifetimeBatch = 256;

// Whether an iterator that has read up to `last` stands on a key, behind damage if there is some.
bool Readable(absl::string_view last, rocksdb::Iterator* it) {
  return it->Valid() || (it->status().IsCorruption() && SkipDamage(last, it));
}
// Of such an iterator at its end.
bool Failed(const rocksdb::Status& status) { return !status.ok() && !status.IsCorruption(); }

}  // namespace

uint64_t RocksDbChunkStore::PinBytesMax(const RocksDbChunkStoreOptions& options) {
  if (options.pin_bytes_max > 0) return options.pin_bytes_max;
  if (options.capacity_bytes == 0) return PinTable::kNoBound;
  return CapacityPlan::Of(options).payload_low / 2;
}

bool RocksDbChunkStore::Doomed(const ChunkId& id) const {
  absl::MutexLock lock(&lifetime_mutex_);
  return doomed_.contains(id);
}

void RocksDbChunkStore::SetDoomed(const ChunkId& id, bool doomed) {
  absl::MutexLock lock(&lifetime_mutex_);
  if (doomed) {
    doomed_.insert(id);
  } else {
    doomed_.erase(id);
  }
}

void RocksDbChunkStore::SweepFrom(absl::Time at) {
  absl::MutexLock lock(&lifetime_mutex_);
  swept_to_ = std::min(swept_to_, at);
}

rocksdb::Status RocksDbChunkStore::BatchArrival(const ChunkId& id, const ChunkInfo& info,
                                                rocksdb::WriteBatch* batch) {
  rocksdb::Status status;
  if (info.expires != absl::InfiniteFuture()) {
    status = batch->Put(family(kExpiry), ExpiryKey(info.expires, id), rocksdb::Slice());
  }
  if (status.ok() && info.parent.has_value()) {
    status = batch->Put(family(kChildren), ChildKey(*info.parent, id), rocksdb::Slice());
  }
  if (status.ok() && !info.tenant.empty()) {
    status = batch->Put(family(kTenants), rocksdb_format::TenantKey(info.tenant, id), "");
  }
  return status;
}

rocksdb::Status RocksDbChunkStore::BatchRemoval(const ChunkId& id, const ChunkInfo& info,
                                                rocksdb::WriteBatch* batch) {
  rocksdb::Status status = batch->Delete(family(kChunks), ToSlice(IdKey(id)));
  for (size_t level = 0; status.ok() && level < info.segment_bytes.size(); ++level) {
    status = batch->Delete(family(kSegments),
                           rocksdb_format::SegmentKey(id, static_cast<uint32_t>(level)));
  }
  if (status.ok() && keeper_ != nullptr) {
    status = batch->Delete(family(kUsage), ToSlice(IdKey(id)));
  }
  if (status.ok() && info.expires != absl::InfiniteFuture()) {
    status = batch->Delete(family(kExpiry), ExpiryKey(info.expires, id));
  }
  if (status.ok() && info.parent.has_value()) {
    status = batch->Delete(family(kChildren), ChildKey(*info.parent, id));
  }
  if (status.ok() && !info.tenant.empty()) {
    status = batch->Delete(family(kTenants), rocksdb_format::TenantKey(info.tenant, id));
  }
  if (status.ok() && Doomed(id)) status = batch->Delete(family(kDoomed), ToSlice(IdKey(id)));
  // Only such as have ended.
  for (const ChunkPin& pin : pins_.Of(id)) {
    if (!status.ok()) break;
    status = batch->Delete(family(kPins), rocksdb_format::PinKey(id, pin.owner));
  }
  return status;
}

void RocksDbChunkStore::Removed(const ChunkId& id) {
  SetDoomed(id, false);
  for (const ChunkPin& pin : pins_.Of(id)) pins_.Remove(id, pin.owner);
  if (keeper_ != nullptr) keeper_->Gone(id);
}

void RocksDbChunkStore::ReportStored(const ChunkId& id, const ChunkInfo& info) {
  if (info.expires != absl::InfiniteFuture()) SweepFrom(info.expires);
  if (keeper_ == nullptr) return;
  keeper_->Stored(id, info);
  // The index forgets it with a chunk that was its victim for a moment.
  if (pins_.Pinned(id, absl::InfinitePast())) keeper_->SetPinned(id, true);
}

bool RocksDbChunkStore::NeedsRenewal(const ChunkId& id, const ChunkInfo& stored,
                                     absl::Time expires) const {
  return stored.expires < expires || Doomed(id);
}

rocksdb::Status RocksDbChunkStore::BatchRenewal(const ChunkId& id, absl::Time expires,
                                                ChunkInfo* info, rocksdb::WriteBatch* batch) {
  rocksdb::Status status;
  if (Doomed(id)) status = batch->Delete(family(kDoomed), ToSlice(IdKey(id)));
  if (!status.ok() || info->expires >= expires) return status;
  status = batch->Delete(family(kExpiry), ExpiryKey(info->expires, id));
  info->expires = expires;
  if (status.ok() && expires != absl::InfiniteFuture()) {
    status = batch->Put(family(kExpiry), ExpiryKey(expires, id), rocksdb::Slice());
  }
  return status;
}

absl::StatusOr<std::vector<std::pair<ChunkId, ChunkInfo>>> RocksDbChunkStore::StoredOf(
    absl::Span<const ChunkId> ids, absl::string_view what) {
  const absl::StatusOr<std::vector<absl::optional<ChunkInfo>>> infos = GetInfos(ids);
  if (!infos.ok()) {
    return absl::Status(infos.status().code(), absl::StrCat(what, ": ", infos.status().message()));
  }
  std::vector<std::pair<ChunkId, ChunkInfo>> stored;
  for (size_t i = 0; i < ids.size(); ++i) {
    if ((*infos)[i].has_value()) stored.emplace_back(ids[i], *(*infos)[i]);
  }
  return stored;
}

absl::StatusOr<size_t> RocksDbChunkStore::InBatches(
    absl::Span<const ChunkId> ids,
    const std::function<absl::StatusOr<size_t>(absl::Span<const ChunkId>)>& of_batch) {
  // Each once, whatever batches they fall into.
  const std::set<ChunkId> once(ids.begin(), ids.end());
  const std::vector<ChunkId> sorted(once.begin(), once.end());
  size_t sum = 0;
  for (absl::Span<const ChunkId> left = sorted; !left.empty();) {
    const absl::Span<const ChunkId> batch = left.subspan(0, kLifetimeBatch);
    left.remove_prefix(batch.size());
    const IdClaims::Claim claim(&chunk_claims_, batch);
    const absl::StatusOr<size_t> done = of_batch(batch);
    if (!done.ok()) return done;
    sum += *done;
  }
  return sum;
}

absl::StatusOr<size_t> RocksDbChunkStore::Renew(absl::Span<const ChunkId> ids, absl::Time expires) {
  if (absl::Status status = ValidateExpires("Renew", expires); !status.ok()) return status;
  const absl::Time until = WholeNanos(expires);
  return InBatches(ids, [&](absl::Span<const ChunkId> batch_ids) -> absl::StatusOr<size_t> {
    auto stored = StoredOf(batch_ids, "Renew");
    if (!stored.ok()) return stored.status();
    rocksdb::WriteBatch batch;
    for (auto& [id, info] : *stored) {
      const bool later = info.expires < until;
      rocksdb::Status status = BatchRenewal(id, until, &info, &batch);
      if (status.ok() && later) {
        status =
            batch.Put(family(kChunks), ToSlice(IdKey(id)), rocksdb_format::EncodeChunkRecord(info));
      }
      if (!status.ok()) return FromRocksDb(status, "Renew");
    }
    if (batch.Count() == 0) return stored->size();
    if (absl::Status status = Write(&batch, StoreChange(), "Renew"); !status.ok()) return status;
    for (const auto& [id, info] : *stored) SetDoomed(id, false);
    SweepFrom(until);
    return stored->size();
  });
}

absl::StatusOr<size_t> RocksDbChunkStore::DeleteSoon(absl::Span<const ChunkId> ids) {
  return InBatches(ids, [&](absl::Span<const ChunkId> batch_ids) -> absl::StatusOr<size_t> {
    const auto stored = StoredOf(batch_ids, "DeleteSoon");
    if (!stored.ok()) return stored.status();
    const absl::Time now = options_.now();
    rocksdb::WriteBatch batch;
    std::vector<ChunkId> noted;
    for (const auto& [id, info] : *stored) {
      if (pins_.Pinned(id, now)) continue;
      const rocksdb::Status status =
          batch.Put(family(kDoomed), ToSlice(IdKey(id)), rocksdb::Slice());
      if (!status.ok()) return FromRocksDb(status, "DeleteSoon");
      noted.push_back(id);
    }
    if (noted.empty()) return 0;
    if (absl::Status status = Write(&batch, StoreChange(), "DeleteSoon"); !status.ok())
      return status;
    for (const ChunkId& id : noted) SetDoomed(id, true);
    return noted.size();
  });
}

absl::Status RocksDbChunkStore::CompleteDeletions() {
  const std::string what = "completing deletions";
  std::vector<ChunkId> ids;
  {
    const std::unique_ptr<rocksdb::Iterator> next(
        db_->NewIterator(rocksdb::ReadOptions(), family(kDoomed)));
    for (next->SeekToFirst(); Readable(ids.empty() ? "" : IdKey(ids.back()), next.get());
         next->Next()) {
      const absl::StatusOr<ChunkId> id = rocksdb_format::DecodeIdKey(ToView(next->key()));
      if (!id.ok()) return id.status();
      ids.push_back(*id);
      SetDoomed(*id, true);
    }
    // What damage hides stays stored.
    if (Failed(next->status())) return FromRocksDb(next->status(), what);
  }
  const absl::StatusOr<size_t> deleted = Delete(ids);
  if (!deleted.ok()) return deleted.status();
  // Of what was not stored any more, or is pinned.
  const absl::StatusOr<size_t> left =
      InBatches(ids, [&](absl::Span<const ChunkId> batch_ids) -> absl::StatusOr<size_t> {
        rocksdb::WriteBatch batch;
        for (const ChunkId& id : batch_ids) {
          if (!Doomed(id)) continue;
          const rocksdb::Status status = batch.Delete(family(kDoomed), ToSlice(IdKey(id)));
          if (!status.ok()) return FromRocksDb(status, what);
        }
        if (batch.Count() == 0) return 0;
        if (absl::Status status = Write(&batch, StoreChange(), what); !status.ok()) return status;
        for (const ChunkId& id : batch_ids) SetDoomed(id, false);
        return 0;
      });
  return left.status();
}

absl::StatusOr<size_t> RocksDbChunkStore::Pin(absl::Span<const ChunkId> ids,
                                              absl::string_view owner, absl::Time until) {
  if (absl::Status status = ValidatePin(owner, until); !status.ok()) return status;
  const absl::Time end = WholeNanos(until);
  return InBatches(ids, [&](absl::Span<const ChunkId> batch_ids) -> absl::StatusOr<size_t> {
    const auto stored = StoredOf(batch_ids, "Pin");
    if (!stored.ok()) return stored.status();
    if (stored->empty()) return 0;
    std::vector<PinTable::Item> items;
    rocksdb::WriteBatch batch;
    for (const auto& [id, info] : *stored) {
      items.push_back({id, PayloadBytes(info), info.tenant});
      const rocksdb::Status status =
          batch.Put(family(kPins), rocksdb_format::PinKey(id, owner),
                    rocksdb_format::EncodePin(end, items.back().payload_bytes));
      if (!status.ok()) return FromRocksDb(status, "Pin");
    }
    PinTable::Before before;
    if (absl::Status status = pins_.Set(items, owner, end, &before); !status.ok()) return status;
    if (absl::Status status = Write(&batch, StoreChange(), "Pin"); !status.ok()) {
      pins_.Undo(items, owner, before);
      return status;
    }
    if (keeper_ != nullptr) {
      for (const PinTable::Item& item : items) keeper_->SetPinned(item.id, true);
    }
    return items.size();
  });
}

absl::StatusOr<size_t> RocksDbChunkStore::EndPins(
    absl::Span<const ChunkId> ids, const std::function<bool(const ChunkPin&)>& ends,
    const absl::optional<rocksdb::WriteOptions>& how) {
  return InBatches(ids, [&](absl::Span<const ChunkId> batch_ids) -> absl::StatusOr<size_t> {
    const std::string what = "Unpin";
    std::vector<ChunkPin> ended;
    for (const ChunkId& id : batch_ids) {
      for (ChunkPin& pin : pins_.Of(id)) {
        if (ends(pin)) ended.push_back(std::move(pin));
      }
    }
    if (ended.empty()) return 0;
    auto stored = StoredOf(batch_ids, what);
    if (absl::IsDataLoss(stored.status())) {
      // The pin of a chunk whose record is damaged ends all the same.
      std::vector<std::pair<ChunkId, ChunkInfo>> readable;
      for (const ChunkId& id : batch_ids) {
        const auto one = StoredOf({&id, 1}, what);
        if (one.ok()) readable.insert(readable.end(), one->begin(), one->end());
      }
      stored = std::move(readable);
    }
    if (!stored.ok()) return stored.status();
    rocksdb::WriteBatch batch;
    rocksdb::Status status;
    for (const ChunkPin& pin : ended) {
      if (status.ok()) {
        status = batch.Delete(family(kPins), rocksdb_format::PinKey(pin.id, pin.owner));
      }
    }
    absl::Time first = absl::InfiniteFuture();
    for (const auto& [id, info] : *stored) {
      if (!status.ok() || info.expires == absl::InfiniteFuture()) continue;
      // Expire may have put it off until the end of the pin.
      status = batch.Put(family(kExpiry), ExpiryKey(info.expires, id), rocksdb::Slice());
      first = std::min(first, info.expires);
    }
    if (!status.ok()) return FromRocksDb(status, what);
    if (absl::Status s = Write(&batch, StoreChange(), what, how); !s.ok()) return s;
    SweepFrom(first);
    for (const ChunkPin& pin : ended) {
      pins_.Remove(pin.id, pin.owner);
      if (keeper_ != nullptr && !pins_.Pinned(pin.id, absl::InfinitePast())) {
        keeper_->SetPinned(pin.id, false);
      }
    }
    return ended.size();
  });
}

absl::StatusOr<size_t> RocksDbChunkStore::Unpin(absl::Span<const ChunkId> ids,
                                                const absl::optional<std::string>& owner) {
  return EndPins(
      ids, [&owner](const ChunkPin& pin) { return !owner.has_value() || pin.owner == *owner; });
}

absl::StatusOr<std::vector<ChunkPin>> RocksDbChunkStore::PinsOf(absl::Span<const ChunkId> ids) {
  std::vector<ChunkPin> pins;
  for (const ChunkId& id : std::set<ChunkId>(ids.begin(), ids.end())) {
    for (ChunkPin& pin : pins_.Of(id)) pins.push_back(std::move(pin));
  }
  return pins;
}

std::string RocksDbChunkStore::TenantOf(const ChunkId& id) {
  // Records of pins do not say it. Without tenants nothing is read.
  if (counters_.tenant_chunks() == 0) return "";
  const auto stored = StoredOf({&id, 1}, "reading pins");
  // A damaged info is for whoever asks for the chunk; its pin counts for nobody.
  return stored.ok() && !stored->empty() ? stored->front().second.tenant : "";
}

absl::Status RocksDbChunkStore::RestorePins() {
  const std::unique_ptr<rocksdb::Iterator> next(
      db_->NewIterator(rocksdb::ReadOptions(), family(kPins)));
  std::string last;
  for (next->SeekToFirst(); Readable(last, next.get()); next->Next()) {
    last = next->key().ToString();
    const auto stored = rocksdb_format::DecodePin(ToView(next->key()), ToView(next->value()));
    if (!stored.ok()) return stored.status();
    pins_.Restore(stored->pin, stored->payload_bytes, TenantOf(stored->pin.id));
    if (keeper_ != nullptr) keeper_->SetPinned(stored->pin.id, true);
  }
  // A store without a few of its pins is worth more than none.
  return Failed(next->status()) ? FromRocksDb(next->status(), "reading pins") : absl::OkStatus();
}

absl::StatusOr<std::vector<ChunkId>> RocksDbChunkStore::Children(const ChunkId& id, size_t limit) {
  std::vector<ChunkId> children;
  const std::unique_ptr<rocksdb::Iterator> next(
      db_->NewIterator(rocksdb::ReadOptions(), family(kChildren)));
  for (next->Seek(ToSlice(IdKey(id))); next->Valid() && children.size() < limit; next->Next()) {
    if (!absl::StartsWith(ToView(next->key()), IdKey(id))) break;
    const absl::StatusOr<ChunkId> child = rocksdb_format::DecodeChildKey(ToView(next->key()));
    if (!child.ok()) return child.status();
    children.push_back(*child);
  }
  IndexDamaged(next->status());
  if (!next->status().ok()) return FromRocksDb(next->status(), "Children");
  return children;
}

absl::StatusOr<std::vector<RocksDbChunkStore::Due>> RocksDbChunkStore::DueChunks(
    const std::string& from, absl::Time now, size_t limit) {
  std::vector<Due> due;
  const std::unique_ptr<rocksdb::Iterator> next(
      db_->NewIterator(rocksdb::ReadOptions(), family(kExpiry)));
  std::string last = from;
  const auto readable = [&] {
    IndexDamaged(next->status());
    return Readable(last, next.get());
  };
  for (next->Seek(from); due.size() < limit && readable(); next->Next()) {
    last = next->key().ToString();
    const auto expiry = rocksdb_format::DecodeExpiryKey(ToView(next->key()));
    if (!expiry.ok()) return expiry.status();
    if (expiry->at > now) break;
    due.push_back({expiry->id, expiry->at});
  }
  // Chunks whose entries damage hides stay until the store is opened again.
  if (Failed(next->status())) return FromRocksDb(next->status(), "Expire");
  return due;
}

absl::StatusOr<size_t> RocksDbChunkStore::ExpireBatch(absl::Span<const Due> due, absl::Time now,
                                                      const rocksdb::WriteOptions& how) {
  std::vector<Due> readable_due;  // `due` without what cannot be read
  std::vector<ChunkId> ids;
  for (const Due& entry : due) ids.push_back(entry.id);
  const IdClaims::Claim claim(&chunk_claims_, ids);
  auto stored = StoredOf(claim.ids(), "Expire");
  if (absl::IsDataLoss(stored.status())) {
    // Whose record is damaged stays, until the store is opened again; the others go.
    std::vector<std::pair<ChunkId, ChunkInfo>> readable;
    std::vector<Due> rest;
    for (const Due& entry : due) {
      auto one = StoredOf({entry.id}, "Expire");
      if (!one.ok()) continue;
      rest.push_back(entry);
      readable.insert(readable.end(), one->begin(), one->end());
    }
    readable_due = std::move(rest);
    due = readable_due;
    stored = std::move(readable);
  }
  if (!stored.ok()) return stored.status();
  std::map<ChunkId, ChunkInfo> infos(stored->begin(), stored->end());
  const std::vector<ChunkId> removable = holds_.BeginRemoval(claim.ids());
  const std::set<ChunkId> open(removable.begin(), removable.end());

  rocksdb::WriteBatch batch;
  rocksdb::Status status;
  StoreChange change;
  std::vector<ChunkId> removed;
  for (const Due& entry : due) {
    if (!status.ok()) break;
    const auto info = infos.find(entry.id);
    if (info != infos.end() && info->second.expires <= entry.at && open.count(entry.id) == 0) {
      SweepFrom(entry.at);
      continue;
    }
    status = batch.Delete(family(kExpiry), ExpiryKey(entry.at, entry.id));
    if (!status.ok() || info == infos.end()) continue;  // left over
    absl::Time next = info->second.expires;
    for (const ChunkPin& pin : pins_.Of(entry.id)) {
      if (pin.until > now) next = std::max(next, pin.until);
    }
    if (next > now) {
      // Renewed or pinned. Filed again in case that it is not yet.
      if (next != absl::InfiniteFuture()) {
        status = batch.Put(family(kExpiry), ExpiryKey(next, entry.id), rocksdb::Slice());
      }
      continue;
    }
    if (open.count(entry.id) == 0) {
      // Held, and this entry is one that a pin and then a renewal have left behind.
      status = batch.Put(family(kExpiry), ExpiryKey(info->second.expires, entry.id), "");
      SweepFrom(info->second.expires);
      continue;
    }
    status = BatchRemoval(entry.id, info->second, &batch);
    change.Add(info->second, uint64_t{0} - 1, uint64_t{0} - PayloadBytes(info->second));
    removed.push_back(entry.id);
    infos.erase(info);
  }
  absl::Status written = FromRocksDb(status, "Expire");
  if (written.ok() && batch.Count() > 0) written = Write(&batch, change, "Expire", how);
  if (written.ok()) {
    for (const ChunkId& id : removed) Removed(id);
  }
  holds_.EndRemoval(removable);
  if (!written.ok()) return written;
  return removed.size();
}

absl::StatusOr<size_t> RocksDbChunkStore::Expire(absl::Time now, size_t limit) {
  TryToWrite();
  MendTables();
  NoteIndexDamage();
  rocksdb::WriteOptions how;
  // What is back after a power cut expires again. Holders wait for it: see HoldTable.
  how.no_slowdown = true;
  if (deletions_left_.load()) {
    if (absl::Status status = CompleteDeletions(); !status.ok()) return status;
    deletions_left_ = false;
  }
  for (auto pins = pins_.Ended(now, kLifetimeBatch); !pins.empty();
       pins = pins_.Ended(now, kLifetimeBatch)) {
    std::vector<ChunkId> ids;
    ids.reserve(pins.size());
    for (const ChunkPin& pin : pins) ids.push_back(pin.id);
    const absl::StatusOr<size_t> ended = EndPins(
        ids, [now](const ChunkPin& pin) { return pin.until <= now; }, how);
    if (!ended.ok()) return ended;
  }

  absl::Time reached;
  {
    absl::MutexLock lock(&lifetime_mutex_);
    reached = swept_to_;
    // Whoever files something earlier from now on says so (SweepFrom).
    swept_to_ = std::max(reached, now);
  }
  size_t removed = 0;
  bool all = false;
  absl::Status status;
  std::string key = ExpiryKey(reached, ChunkId{});
  while (removed < limit) {
    const absl::StatusOr<std::vector<Due>> due =
        DueChunks(key, now, std::min(limit - removed, kLifetimeBatch));
    status = due.status();
    all = status.ok() && due->empty();
    if (!status.ok() || all) break;
    const absl::StatusOr<size_t> of_batch = ExpireBatch(*due, now, how);
    status = of_batch.status();
    if (!status.ok()) break;
    removed += *of_batch;
    reached = due->back().at;
    key = ExpiryKey(due->back().at, due->back().id) + '\0';
  }
  if (!all) SweepFrom(reached);
  expired_ += removed;
  if (!status.ok() && removed == 0) return status;
  return removed;
}

absl::Status RocksDbChunkStore::BuildIndexes() {
  const std::string what = "building the indexes of format version 3";
  rocksdb::ReadOptions read;
  read.fill_cache = false;
  const std::unique_ptr<rocksdb::Iterator> next(db_->NewIterator(read, family(kChunks)));
  rocksdb::WriteBatch batch;
  // The version is written after them, to the same log, with a sync.
  const rocksdb::WriteOptions how;
  for (next->SeekToFirst(); next->Valid(); next->Next()) {
    const absl::StatusOr<ChunkId> id = rocksdb_format::DecodeIdKey(ToView(next->key()));
    const absl::StatusOr<ChunkInfo> info = rocksdb_format::DecodeChunkRecord(ToView(next->value()));
    if (!id.ok() || !info.ok()) continue;  // such a chunk is not served either
    const rocksdb::Status status = BatchArrival(*id, *info, &batch);
    if (!status.ok()) return FromRocksDb(status, what);
    if (batch.Count() < 4 * kLifetimeBatch) continue;
    if (absl::Status s = Write(&batch, StoreChange(), what, how); !s.ok()) return s;
    batch.Clear();
  }
  if (!next->status().ok()) return FromRocksDb(next->status(), what);
  return batch.Count() == 0 ? absl::OkStatus() : Write(&batch, StoreChange(), what, how);
}

}  // namespace kvstream

#include "storage/rados/rados_index.h"

#include <algorithm>
#include <cstring>
#include <map>

#include "absl/random/random.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "storage/chunk_limits.h"
#include "storage/id_text.h"
#include "storage/rados/rados_data.h"

namespace kvstream {
namespace {

using rados_format::DataRecord;
using rados_format::GarbageRecord;
using rados_format::GarbageState;
using rados_format::ShardState;

// Ids of one call that are worked on at a time: bounds what it holds in memory.
constexpr size_t kIdsAtATime = 4096;
// Another writer gets ahead each time, so somebody always gets through.
constexpr int kAttempts = 1000;

absl::StatusOr<DataRecord> Decode(absl::string_view what, const ChunkId& id,
                                  absl::string_view bytes) {
  absl::StatusOr<DataRecord> record = rados_format::DecodeData(bytes);
  if (record.ok()) return record;
  return absl::Status(record.status().code(),
                      absl::StrCat(what, ": ", ShortHex(id), ": ", record.status().message()));
}

// `sign`: 1 for a record that comes, 0 - 1 for one that goes.
void Tally(const DataRecord& record, uint64_t sign, ShardState* state) {
  const uint64_t bytes = PayloadBytes(record.info);
  state->chunks += sign;
  state->payload_bytes += sign * bytes;
  if (!record.info.tenant.empty()) state->tenant_chunks += sign;
  state->pins += sign * record.pins.size();
  if (!record.pins.empty()) state->pinned_bytes += sign * bytes;
}

void Tally(const DataRecord& record, uint64_t sign, std::map<std::string, TenantChange>* tenants) {
  if (record.info.tenant.empty()) return;
  TenantChange& change = (*tenants)[record.info.tenant];
  change.chunks += sign;
  const uint64_t bytes = PayloadBytes(record.info);
  change.payload_bytes += sign * bytes;
  change.pins += sign * record.pins.size();
  if (!record.pins.empty()) change.pinned_bytes += sign * bytes;
}

// The tenant's counters after a change, into the write that compares them with `before`.
absl::Status AddTenant(const std::string& tenant, const TenantChange& change,
                       const std::string& before, OmapWrite* write) {
  TenantUse use;
  if (!before.empty()) {
    const absl::StatusOr<TenantUse> decoded = rados_format::DecodeTenantUse(before);
    if (!decoded.ok()) return decoded.status();
    use = *decoded;
  }
  use.chunks += change.chunks;
  use.payload_bytes += change.payload_bytes;
  use.pins += change.pins;
  use.pinned_bytes += change.pinned_bytes;
  std::string key = rados_format::TenantKey(tenant);
  write->expected.emplace_back(key, before);
  if (use.chunks == 0) {
    if (!before.empty()) write->remove.push_back(std::move(key));
  } else {
    write->set.emplace_back(std::move(key), rados_format::EncodeTenantUse(use));
  }
  return absl::OkStatus();
}

// The keys beside a record, but for its Usage and its name under its parent.
std::map<std::string, std::string> KeysOf(const ChunkId& id, const DataRecord* record) {
  std::map<std::string, std::string> keys;
  if (record == nullptr) return keys;
  const auto add_time = [&](const char* prefix, absl::Time time) {
    if (time < absl::InfiniteFuture()) keys[rados_format::EncodeTimeKey(prefix, {time, id})] = "1";
  };
  add_time(rados_format::kDoomPrefix, record->doomed);
  add_time(rados_format::kExpiryPrefix, rados_format::DueTime(*record));
  add_time(rados_format::kPinEndPrefix, rados_format::FirstPinEnd(*record));
  if (!record->pins.empty()) keys[rados_format::IdKey(rados_format::kPinnedPrefix, id)] = "1";
  const std::string& tenant = record->info.tenant;
  if (tenant.empty()) return keys;
  keys[rados_format::IdKey(rados_format::OwnedPrefix(tenant), id)] = "1";
  if (!record->pins.empty()) {
    keys[rados_format::IdKey(rados_format::OwnedPinnedPrefix(tenant), id)] = "1";
  }
  return keys;
}

// Keeps the keys beside a record in step with it; null: no record.
void Reindex(const ChunkId& id, const DataRecord* before, const DataRecord* after,
             OmapWrite* write) {
  const std::map<std::string, std::string> old_keys = KeysOf(id, before);
  const std::map<std::string, std::string> new_keys = KeysOf(id, after);
  for (const auto& [key, value] : old_keys) {
    if (new_keys.count(key) == 0) write->remove.push_back(key);
  }
  for (const auto& [key, value] : new_keys) {
    if (old_keys.count(key) == 0) write->set.emplace_back(key, value);
  }
  if (before != nullptr && after == nullptr) {
    write->remove.push_back(rados_format::IdKey(rados_format::kUsagePrefix, id));
  }
}

// The announcement of an upload.
GarbageRecord Pending(const DataRecord& record) {
  GarbageRecord pending;
  pending.total_bytes = PayloadBytes(record.info);
  pending.parent = record.info.parent;
  return pending;
}

}  // namespace

RadosIndexChange RadosIndexChange::Removal(const DataRecord& record) {
  RadosIndexChange change;
  change.retired = GarbageRecord{GarbageState::kRetired, 0, PayloadBytes(record.info)};
  return change;
}

RadosIndex::RadosIndex(const RadosPool* pool, std::vector<std::string> objects,
                       uint64_t cache_bytes, Clock clock, RadosTenants* tenants)
    : pool_(pool),
      objects_(std::move(objects)),
      clock_(std::move(clock)),
      tenants_(tenants),
      cache_(cache_bytes) {}

const std::string& RadosIndex::ObjectOf(const ChunkId& id) const {
  return objects_[rados_format::ShardOf(id, static_cast<uint32_t>(objects_.size()))];
}

absl::Status RadosIndex::TooContended(absl::string_view what) {
  return absl::UnavailableError(
      absl::StrCat(what, ": other writers of the same part of the index were faster ", kAttempts,
                   " times; try again"));
}

bool RadosIndex::BackOff(int attempt) {
  if (attempt >= kAttempts) return false;
  thread_local absl::BitGen random;
  const int64_t most = 200 * std::min(attempt + 1, 50);
  absl::SleepFor(absl::Microseconds(absl::Uniform<int64_t>(random, 0, most)));
  return true;
}

void RadosIndex::Cached(absl::Span<const ChunkId> ids, absl::Duration max_age,
                        absl::Span<absl::optional<DataRecord>> found,
                        std::vector<uint64_t>* tickets) {
  tickets->assign(ids.size(), 0);
  const absl::Time now = clock_();
  std::vector<size_t> old;
  cache_.Get(
      ids,
      [&](size_t i, absl::string_view bytes) {
        int64_t read_nanos = 0;
        std::memcpy(&read_nanos, bytes.data(), sizeof(read_nanos));
        const absl::Duration age = now - absl::FromUnixNanos(read_nanos);
        if (age >= max_age || age < absl::ZeroDuration()) {
          old.push_back(i);
          return;
        }
        absl::StatusOr<DataRecord> record =
            rados_format::DecodeData(bytes.substr(sizeof(read_nanos)));
        if (record.ok()) found[i] = *std::move(record);
      },
      [&](size_t i, uint64_t ticket) { (*tickets)[i] = ticket; });
  for (size_t i : old) {
    // Makes room for the newer one, for which a new ticket is needed.
    cache_.Erase(ids[i]);
    cache_.Get(
        ids.subspan(i, 1), [](size_t, absl::string_view) {},
        [&](size_t, uint64_t ticket) { (*tickets)[i] = ticket; });
  }
}

absl::optional<DataRecord> RadosIndex::TryFind(const ChunkId& id) {
  absl::optional<DataRecord> found;
  std::vector<uint64_t> tickets;
  Cached({id}, absl::InfiniteDuration(), absl::MakeSpan(&found, 1), &tickets);
  return found;
}

absl::StatusOr<std::vector<absl::optional<DataRecord>>> RadosIndex::Find(
    absl::string_view what, absl::Span<const ChunkId> ids, absl::Duration max_age) {
  std::vector<absl::optional<DataRecord>> found(ids.size());
  for (size_t begin = 0; begin < ids.size(); begin += kIdsAtATime) {
    std::map<std::string, std::vector<size_t>> missing;  // index object -> positions
    std::vector<uint64_t> tickets;
    const absl::Span<const ChunkId> part = ids.subspan(begin, kIdsAtATime);
    Cached(part, max_age, absl::MakeSpan(found).subspan(begin, part.size()), &tickets);
    for (size_t i = begin; i < begin + part.size(); ++i) {
      if (!found[i].has_value()) missing[ObjectOf(ids[i])].push_back(i);
    }
    if (missing.empty()) continue;
    std::vector<OmapRead> reads;
    for (const auto& [object, positions] : missing) {
      OmapRead read;
      read.object = object;
      for (size_t i : positions) read.keys.push_back(rados_format::DataKey(ids[i]));
      reads.push_back(std::move(read));
    }
    // Before it is read: what was read is at least so old.
    const int64_t now = absl::ToUnixNanos(clock_());
    if (absl::Status status = pool_->Read(what, &reads); !status.ok()) return status;
    auto read = reads.begin();
    for (const auto& [object, positions] : missing) {
      for (size_t k = 0; k < positions.size(); ++k) {
        const size_t i = positions[k];
        if (read->values[k].empty()) continue;
        absl::StatusOr<DataRecord> record = Decode(what, ids[i], read->values[k]);
        if (!record.ok()) return record.status();
        found[i] = *std::move(record);
        std::string bytes(reinterpret_cast<const char*>(&now), sizeof(now));
        bytes.append(read->values[k]);
        cache_.Insert(ids[i], bytes, tickets[i - begin]);
      }
      ++read;
    }
  }
  return found;
}

absl::StatusOr<RadosIndexEntry> RadosIndex::Look(absl::string_view what, const ChunkId& id,
                                                 const std::string& upload,
                                                 absl::string_view tenant) {
  std::vector<OmapRead> reads(1);
  reads[0].object = ObjectOf(id);
  reads[0].keys = {rados_format::kStateKey, rados_format::DataKey(id),
                   rados_format::TenantKey(tenant)};
  if (!upload.empty()) reads[0].keys.push_back(upload);
  if (absl::Status status = pool_->Read(what, &reads, /*after_writes=*/true); !status.ok()) {
    return status;
  }
  RadosIndexEntry entry;
  entry.state_bytes = std::move(reads[0].values[0]);
  const absl::StatusOr<ShardState> state = rados_format::DecodeState(entry.state_bytes);
  if (!state.ok()) return state.status();
  entry.state = *state;
  entry.bytes = std::move(reads[0].values[1]);
  entry.tenant_bytes = std::move(reads[0].values[2]);
  if (!entry.bytes.empty()) {
    absl::StatusOr<DataRecord> record = Decode(what, id, entry.bytes);
    if (!record.ok()) return record.status();
    entry.record = *std::move(record);
  }
  if (!upload.empty() && !reads[0].values[3].empty()) {
    const absl::StatusOr<GarbageRecord> pending = rados_format::DecodeGarbage(reads[0].values[3]);
    entry.upload_alive = pending.ok() && pending->state == GarbageState::kPending;
  }
  return entry;
}

absl::StatusOr<RadosAnnounced> RadosIndex::Announce(absl::string_view what, const ChunkId& id,
                                                    const DataRecord& record, RadosIndexEntry* seen,
                                                    std::string* upload) {
  const uint64_t bytes = PayloadBytes(record.info);
  std::vector<OmapWrite> writes(1);
  writes[0].object = ObjectOf(id);
  writes[0].expected = {{rados_format::kStateKey, seen->state_bytes}};
  ShardState state = seen->state;
  const uint64_t room = state.allotted_bytes - std::min(state.allotted_bytes, state.data_bytes);
  const bool fits = state.keeper == 0 || bytes <= room;
  std::string key;
  if (fits) {
    state.data_bytes += bytes;
    if (state.wanted_bytes <= bytes) state.wanted_bytes = 0;
    key = rados_format::EncodeGarbageKey({clock_(), id, record.generation, 0});
    writes[0].set.emplace_back(key, rados_format::EncodeGarbage(Pending(record)));
  } else {
    if (state.wanted_bytes >= bytes) return RadosAnnounced::kNoRoom;
    state.wanted_bytes = bytes;
  }
  const std::string state_bytes = rados_format::EncodeState(state);
  writes[0].set.emplace_back(rados_format::kStateKey, state_bytes);
  if (absl::Status status = pool_->Write(what, &writes); !status.ok()) return status;
  if (writes[0].conflict) return RadosAnnounced::kConflict;
  seen->state = state;
  seen->state_bytes = state_bytes;
  if (!fits) return RadosAnnounced::kNoRoom;
  *upload = std::move(key);
  return RadosAnnounced::kYes;
}

absl::StatusOr<bool> RadosIndex::Commit(absl::string_view what, const ChunkId& id,
                                        const RadosIndexEntry& seen, const std::string& upload,
                                        const DataRecord& record,
                                        const absl::optional<EvictionIndex::Usage>& usage) {
  const uint64_t ticket = tenants_ == nullptr ? 0 : tenants_->Ticket();
  std::vector<OmapWrite> writes(1);
  OmapWrite& write = writes[0];
  write.object = ObjectOf(id);
  const std::string key = rados_format::DataKey(id);
  write.expected = {{rados_format::kStateKey, seen.state_bytes},
                    {key, seen.bytes},
                    {upload, rados_format::EncodeGarbage(Pending(record))}};
  ShardState state = seen.state;
  std::map<std::string, TenantChange> tenants;
  Tally(record, 1, &state);
  Tally(record, 1, &tenants);
  write.remove = {upload};
  if (seen.record.has_value()) {
    Tally(*seen.record, uint64_t{0} - 1, &state);
    Tally(*seen.record, uint64_t{0} - 1, &tenants);
    GarbageRecord retired;
    retired.state = GarbageState::kRetired;
    retired.total_bytes = PayloadBytes(seen.record->info);
    retired.parent = seen.record->info.parent;
    write.set.emplace_back(
        rados_format::EncodeGarbageKey({clock_(), id, seen.record->generation, 0}),
        rados_format::EncodeGarbage(retired));
  }
  // Of a chunk that is restored it is the same one.
  for (const auto& [tenant, change] : tenants) {
    if (absl::Status status = AddTenant(tenant, change, seen.tenant_bytes, &write); !status.ok()) {
      return status;
    }
  }
  write.set.emplace_back(rados_format::kStateKey, rados_format::EncodeState(state));
  write.set.emplace_back(key, rados_format::EncodeData(record));
  if (usage.has_value()) {
    write.set.emplace_back(rados_format::IdKey(rados_format::kUsagePrefix, id),
                           rocksdb_format::EncodeUsage(*usage));
  }
  Reindex(id, seen.record.has_value() ? &*seen.record : nullptr, &record, &write);
  const absl::Status status = pool_->Write(what, &writes);
  cache_.Erase(id);  // also if nobody knows whether it was written
  if (!status.ok()) return status;
  if (!write.conflict && tenants_ != nullptr) tenants_->Apply(tenants, ticket);
  return !write.conflict;
}

absl::optional<OmapWrite> RadosIndex::NameWrite(const ChunkId& id, const DataRecord& record) const {
  if (!record.info.parent.has_value()) return absl::nullopt;
  OmapWrite name;
  name.object = ObjectOf(*record.info.parent);
  name.set = {{rados_format::ChildKey(*record.info.parent, {id, record.generation}), "1"}};
  return name;
}

absl::Status RadosIndex::Withdraw(absl::string_view what, const ChunkId& id,
                                  const std::string& upload, const DataRecord& record) {
  Piece piece;
  piece.object = ObjectOf(id);
  piece.key = upload;
  piece.record = Pending(record);
  piece.value = rados_format::EncodeGarbage(piece.record);
  piece.name = {absl::Time(), id, record.generation, 0};
  if (absl::Status status = Unname(what, {piece}); !status.ok()) return status;
  return Forget(what, {piece}).status();
}

absl::Status RadosIndex::PlanChange(
    absl::string_view what, const OmapRead& read, absl::Span<const ChunkId> in_shard,
    absl::FunctionRef<absl::optional<RadosIndexChange>(const ChunkId&, const DataRecord&)> change,
    uint64_t keeper, OmapWrite* write, size_t* changes,
    std::map<std::string, TenantChange>* tenants) {
  absl::StatusOr<ShardState> state = rados_format::DecodeState(read.values[0]);
  if (!state.ok()) return state.status();
  if (keeper != 0 && state->keeper != keeper) {
    return absl::AbortedError(absl::StrCat(what, ": another daemon keeps the room now"));
  }
  write->object = read.object;
  write->expected = {{read.keys[0], read.values[0]}};
  *changes = 0;
  for (size_t k = 1; k < read.keys.size(); ++k) {
    if (read.values[k].empty()) continue;
    const ChunkId& id = in_shard[k - 1];
    const absl::StatusOr<DataRecord> record = Decode(what, id, read.values[k]);
    if (!record.ok()) return record.status();
    absl::optional<RadosIndexChange> wanted = change(id, *record);
    if (!wanted.has_value()) continue;
    ++*changes;
    write->expected.emplace_back(read.keys[k], read.values[k]);
    Tally(*record, uint64_t{0} - 1, &*state);
    Tally(*record, uint64_t{0} - 1, tenants);
    if (wanted->record.has_value()) {
      Tally(*wanted->record, 1, &*state);
      Tally(*wanted->record, 1, tenants);
      write->set.emplace_back(read.keys[k], rados_format::EncodeData(*wanted->record));
    } else {
      write->remove.push_back(read.keys[k]);
      if (wanted->retired.has_value()) wanted->retired->parent = record->info.parent;
    }
    Reindex(id, &*record, wanted->record.has_value() ? &*wanted->record : nullptr, write);
    if (!wanted->retired.has_value()) continue;
    write->set.emplace_back(rados_format::EncodeGarbageKey(
                                {clock_(), id, record->generation, wanted->retired->keep_bytes}),
                            rados_format::EncodeGarbage(*wanted->retired));
  }
  write->set.emplace_back(rados_format::kStateKey, rados_format::EncodeState(*state));
  // Most changes leave their tenant's counters as they are.
  for (auto tenant = tenants->begin(); tenant != tenants->end();) {
    const TenantChange& sum = tenant->second;
    const bool same =
        sum.chunks == 0 && sum.payload_bytes == 0 && sum.pins == 0 && sum.pinned_bytes == 0;
    tenant = same ? tenants->erase(tenant) : std::next(tenant);
  }
  if (tenants->empty()) return absl::OkStatus();
  std::vector<OmapRead> reads(1);
  reads[0].object = read.object;
  for (const auto& [tenant, sum] : *tenants) {
    reads[0].keys.push_back(rados_format::TenantKey(tenant));
  }
  if (absl::Status status = pool_->Read(what, &reads, true); !status.ok()) return status;
  size_t i = 0;
  for (const auto& [tenant, sum] : *tenants) {
    absl::Status status = AddTenant(tenant, sum, reads[0].values[i++], write);
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::StatusOr<size_t> RadosIndex::Change(
    absl::string_view what, absl::Span<const ChunkId> ids,
    absl::FunctionRef<absl::optional<RadosIndexChange>(const ChunkId&, const DataRecord&)> change,
    uint64_t keeper) {
  size_t changed = 0;
  std::vector<ChunkId> sorted(ids.begin(), ids.end());
  std::sort(sorted.begin(), sorted.end());
  sorted.erase(std::unique(sorted.begin(), sorted.end()), sorted.end());
  for (size_t begin = 0; begin < sorted.size(); begin += kIdsAtATime) {
    const auto batch = absl::MakeSpan(sorted).subspan(begin, kIdsAtATime);
    std::map<std::string, std::vector<ChunkId>> todo;  // index object -> ids
    for (const ChunkId& id : batch) todo[ObjectOf(id)].push_back(id);
    for (int attempt = 0; !todo.empty(); ++attempt) {
      if (attempt > 0 && !BackOff(attempt)) return TooContended(what);
      std::vector<OmapRead> reads;
      for (const auto& [object, in_shard] : todo) {
        OmapRead read;
        read.object = object;
        read.keys = {rados_format::kStateKey};
        for (const ChunkId& id : in_shard) read.keys.push_back(rados_format::DataKey(id));
        reads.push_back(std::move(read));
      }
      const uint64_t ticket = tenants_ == nullptr ? 0 : tenants_->Ticket();
      if (absl::Status status = pool_->Read(what, &reads, true); !status.ok()) return status;
      struct Plan {
        size_t changes = 0;
        std::map<std::string, TenantChange> tenants;
      };
      std::vector<OmapWrite> writes;
      std::vector<Plan> plans;  // of each write
      for (const OmapRead& read : reads) {
        OmapWrite write;
        Plan plan;
        absl::Status status = PlanChange(what, read, todo[read.object], change, keeper, &write,
                                         &plan.changes, &plan.tenants);
        if (!status.ok()) return status;
        if (plan.changes == 0) {
          todo.erase(read.object);
          continue;
        }
        writes.push_back(std::move(write));
        plans.push_back(std::move(plan));
      }
      const absl::Status status = pool_->Write(what, &writes);
      for (size_t w = 0; w < writes.size(); ++w) {
        for (const ChunkId& id : todo[writes[w].object]) cache_.Erase(id);
        if (writes[w].conflict) continue;
        changed += plans[w].changes;
        if (status.ok() && tenants_ != nullptr) tenants_->Apply(plans[w].tenants, ticket);
        todo.erase(writes[w].object);
      }
      if (!status.ok()) return status;
    }
  }
  return changed;
}

absl::Status RadosIndex::Walk(
    absl::string_view what, absl::string_view prefix, const absl::optional<ChunkId>& after,
    size_t limit, absl::FunctionRef<absl::Status(const ChunkId&, const std::string&)> see) {
  std::string last = after.has_value() ? rados_format::IdKey(prefix, *after) : std::string(prefix);
  size_t shard =
      after.has_value() ? rados_format::ShardOf(*after, static_cast<uint32_t>(objects_.size())) : 0;
  // Shards that are asked at once: more the emptier they are.
  size_t breadth = 1;
  while (limit > 0 && shard < objects_.size()) {
    std::vector<OmapList> lists;
    for (size_t i = shard; i < std::min(objects_.size(), shard + breadth); ++i) {
      OmapList list;
      list.object = objects_[i];
      list.prefix = std::string(prefix);
      list.after = last;
      list.limit = std::min(limit, kIdsAtATime);
      lists.push_back(std::move(list));
    }
    if (absl::Status status = pool_->List(what, &lists); !status.ok()) return status;
    const size_t before = limit;
    for (const OmapList& list : lists) {
      for (const auto& [key, value] : list.entries) {
        if (limit == 0) break;
        const absl::StatusOr<ChunkId> id = rados_format::DecodeIdKey(prefix, key);
        if (!id.ok()) return id.status();
        if (absl::Status status = see(*id, value); !status.ok()) return status;
        last = key;
        --limit;
      }
      if ((list.more && !list.entries.empty()) || limit == 0) break;
      ++shard;
    }
    breadth = limit == before ? std::min<size_t>(2 * breadth, 64) : 1;
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<std::pair<ChunkId, ChunkInfo>>> RadosIndex::List(
    absl::string_view what, const absl::optional<ChunkId>& after, size_t limit) {
  std::vector<std::pair<ChunkId, ChunkInfo>> listed;
  const absl::Status status =
      Walk(what, rados_format::kDataPrefix, after, limit,
           [&](const ChunkId& id, const std::string& value) -> absl::Status {
             absl::StatusOr<DataRecord> record = Decode(what, id, value);
             if (!record.ok()) return record.status();
             listed.emplace_back(id, std::move(record->info));
             return absl::OkStatus();
           });
  if (!status.ok()) return status;
  return listed;
}

absl::StatusOr<std::vector<ChunkId>> RadosIndex::ListIds(absl::string_view what,
                                                         absl::string_view prefix,
                                                         const absl::optional<ChunkId>& after,
                                                         size_t limit) {
  std::vector<ChunkId> ids;
  const absl::Status status = Walk(what, prefix, after, limit,
                                   [&ids](const ChunkId& id, const std::string&) -> absl::Status {
                                     ids.push_back(id);
                                     return absl::OkStatus();
                                   });
  if (!status.ok()) return status;
  return ids;
}

absl::StatusOr<std::vector<std::vector<ChunkId>>> RadosIndex::Children(
    absl::string_view what, absl::Span<const ChunkId> parents, size_t limit) {
  std::vector<std::vector<ChunkId>> children(parents.size());
  std::vector<std::string> after(parents.size());  // empty: all names were seen
  for (size_t i = 0; i < parents.size(); ++i) after[i] = rados_format::ChildrenPrefix(parents[i]);
  for (;;) {
    std::vector<OmapList> lists;
    std::vector<size_t> of;  // which parent each list is of
    for (size_t i = 0; i < parents.size(); ++i) {
      if (after[i].empty() || children[i].size() >= limit) continue;
      OmapList list;
      list.object = ObjectOf(parents[i]);
      list.prefix = rados_format::ChildrenPrefix(parents[i]);
      list.after = after[i];
      list.limit = std::min(limit - children[i].size(), kIdsAtATime);
      lists.push_back(std::move(list));
      of.push_back(i);
    }
    if (lists.empty()) return children;
    if (absl::Status status = pool_->List(what, &lists); !status.ok()) return status;
    std::vector<ChunkId> named;
    std::vector<size_t> parent_of;
    for (size_t l = 0; l < lists.size(); ++l) {
      const OmapList& list = lists[l];
      for (const auto& [key, value] : list.entries) {
        const auto name = rados_format::DecodeChildKey(list.prefix, key);
        if (!name.ok()) return name.status();
        // Several generations of one chunk follow each other.
        if (!named.empty() && parent_of.back() == of[l] && named.back() == name->id) continue;
        named.push_back(name->id);
        parent_of.push_back(of[l]);
      }
      after[of[l]] = list.more && !list.entries.empty() ? list.entries.back().first : "";
    }
    const auto records = Find(what, named, absl::ZeroDuration());
    if (!records.ok()) return records.status();
    for (size_t i = 0; i < named.size(); ++i) {
      const absl::optional<DataRecord>& record = (*records)[i];
      if (!record.has_value() || record->info.parent != parents[parent_of[i]]) continue;
      std::vector<ChunkId>& found = children[parent_of[i]];
      if (found.empty() || found.back() != named[i]) found.push_back(named[i]);
    }
  }
}

absl::StatusOr<std::vector<ChunkId>> RadosIndex::Due(absl::string_view what,
                                                     absl::string_view prefix, absl::Time now,
                                                     size_t limit) {
  std::vector<ChunkId> due;
  std::vector<OmapList> lists;
  for (const std::string& object : objects_) {
    OmapList list;
    list.object = object;
    list.prefix = list.after = std::string(prefix);
    list.limit = std::min(limit, kIdsAtATime);
    lists.push_back(std::move(list));
  }
  if (absl::Status status = pool_->List(what, &lists); !status.ok()) return status;
  for (const OmapList& list : lists) {
    for (const auto& [name, value] : list.entries) {
      if (due.size() == limit) return due;
      const absl::StatusOr<rados_format::TimeKey> key = rados_format::DecodeTimeKey(prefix, name);
      if (!key.ok()) return key.status();
      if (key->time > now) break;
      due.push_back(key->id);
    }
  }
  return due;
}

absl::StatusOr<ShardState> RadosIndex::Count(absl::string_view what) {
  std::vector<OmapRead> reads;
  for (const std::string& object : objects_) {
    reads.push_back({object, {rados_format::kStateKey}, {}});
  }
  if (absl::Status status = pool_->Read(what, &reads); !status.ok()) return status;
  ShardState sum;
  for (const OmapRead& read : reads) {
    const absl::StatusOr<ShardState> state = rados_format::DecodeState(read.values[0]);
    if (!state.ok()) return state.status();
    sum.chunks += state->chunks;
    sum.payload_bytes += state->payload_bytes;
    sum.tenant_chunks += state->tenant_chunks;
    sum.pins += state->pins;
    sum.pinned_bytes += state->pinned_bytes;
    sum.data_bytes += state->data_bytes;
  }
  return sum;
}

absl::StatusOr<std::map<std::string, TenantUse>> RadosIndex::CountTenants(absl::string_view what) {
  std::map<std::string, TenantUse> uses;
  std::vector<OmapList> lists;
  for (const std::string& object : objects_) {
    OmapList list;
    list.object = object;
    list.prefix = list.after = rados_format::kTenantPrefix;
    list.limit = kIdsAtATime;
    lists.push_back(std::move(list));
  }
  while (!lists.empty()) {
    if (absl::Status status = pool_->List(what, &lists); !status.ok()) return status;
    std::vector<OmapList> rest;
    for (OmapList& list : lists) {
      for (const auto& [key, value] : list.entries) {
        const absl::StatusOr<std::string> tenant = rados_format::DecodeTenantKey(key);
        if (!tenant.ok()) return tenant.status();
        const absl::StatusOr<TenantUse> in_shard = rados_format::DecodeTenantUse(value);
        if (!in_shard.ok()) return in_shard.status();
        TenantUse& use = uses[*tenant];
        use.chunks += in_shard->chunks;
        use.payload_bytes += in_shard->payload_bytes;
        use.pins += in_shard->pins;
        use.pinned_bytes += in_shard->pinned_bytes;
      }
      if (!list.more || list.entries.empty()) continue;
      list.after = list.entries.back().first;
      rest.push_back(std::move(list));
    }
    lists = std::move(rest);
  }
  return uses;
}

}  // namespace kvstream

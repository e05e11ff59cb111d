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
using rocksdb_format::Counters;

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

void Add(const DataRecord& record, Counters* counters) {
  counters->chunks += 1;
  counters->payload_bytes += PayloadBytes(record.info);
}
void Subtract(const DataRecord& record, Counters* counters) {
  counters->chunks -= 1;
  counters->payload_bytes -= PayloadBytes(record.info);
}

absl::StatusOr<Counters> DecodeCounters(absl::string_view bytes) {
  if (bytes.empty()) return Counters();
  return rocksdb_format::DecodeCounters(bytes);
}

absl::Status TooContended(absl::string_view what) {
  return absl::UnavailableError(
      absl::StrCat(what, ": other writers of the same part of the index were faster ", kAttempts,
                   " times; try again"));
}

}  // namespace

RadosIndex::RadosIndex(const RadosPool* pool, std::vector<std::string> objects,
                       uint64_t cache_bytes, Clock clock)
    : pool_(pool), objects_(std::move(objects)), clock_(std::move(clock)), cache_(cache_bytes) {}

const std::string& RadosIndex::ObjectOf(const ChunkId& id) const {
  return objects_[rados_format::ShardOf(id, static_cast<uint32_t>(objects_.size()))];
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

absl::StatusOr<std::string> RadosIndex::Announce(absl::string_view what, const ChunkId& id,
                                                 const rados_format::Generation& generation,
                                                 uint64_t total_bytes) {
  rados_format::GarbageKey key = {clock_(), id, generation, 0};
  GarbageRecord pending;
  pending.total_bytes = total_bytes;
  std::vector<OmapWrite> writes(1);
  writes[0].object = ObjectOf(id);
  writes[0].set = {{rados_format::EncodeGarbageKey(key), rados_format::EncodeGarbage(pending)}};
  if (absl::Status status = pool_->Write(what, &writes); !status.ok()) return status;
  return writes[0].set[0].first;
}

absl::StatusOr<RadosIndexEntry> RadosIndex::Look(absl::string_view what, const ChunkId& id,
                                                 const std::string& upload) {
  std::vector<OmapRead> reads(1);
  reads[0].object = ObjectOf(id);
  reads[0].keys = {rados_format::kCountersKey, rados_format::DataKey(id)};
  if (!upload.empty()) reads[0].keys.push_back(upload);
  if (absl::Status status = pool_->Read(what, &reads, /*after_writes=*/true); !status.ok()) {
    return status;
  }
  RadosIndexEntry entry;
  entry.counters = std::move(reads[0].values[0]);
  entry.bytes = std::move(reads[0].values[1]);
  if (!entry.bytes.empty()) {
    absl::StatusOr<DataRecord> record = Decode(what, id, entry.bytes);
    if (!record.ok()) return record.status();
    entry.record = *std::move(record);
  }
  if (!upload.empty() && !reads[0].values[2].empty()) {
    const absl::StatusOr<GarbageRecord> pending = rados_format::DecodeGarbage(reads[0].values[2]);
    entry.upload_alive = pending.ok() && pending->state == GarbageState::kPending;
  }
  return entry;
}

absl::StatusOr<bool> RadosIndex::Commit(absl::string_view what, const ChunkId& id,
                                        const RadosIndexEntry& seen, const std::string& upload,
                                        const DataRecord& record) {
  absl::StatusOr<Counters> counters = DecodeCounters(seen.counters);
  if (!counters.ok()) return counters.status();
  std::vector<OmapWrite> writes(1);
  OmapWrite& write = writes[0];
  write.object = ObjectOf(id);
  const std::string key = rados_format::DataKey(id);
  GarbageRecord pending;
  pending.total_bytes = PayloadBytes(record.info);
  write.expected = {{rados_format::kCountersKey, seen.counters},
                    {key, seen.bytes},
                    {upload, rados_format::EncodeGarbage(pending)}};
  Add(record, &*counters);
  write.remove = {upload};
  if (seen.record.has_value()) {
    Subtract(*seen.record, &*counters);
    GarbageRecord retired;
    retired.state = GarbageState::kRetired;
    retired.total_bytes = PayloadBytes(seen.record->info);
    write.set.emplace_back(
        rados_format::EncodeGarbageKey({clock_(), id, seen.record->generation, 0}),
        rados_format::EncodeGarbage(retired));
  }
  write.set.emplace_back(rados_format::kCountersKey, rocksdb_format::EncodeCounters(*counters));
  write.set.emplace_back(key, rados_format::EncodeData(record));
  const absl::Status status = pool_->Write(what, &writes);
  cache_.Erase(id);  // also if nobody knows whether it was written
  if (!status.ok()) return status;
  return !write.conflict;
}

absl::Status RadosIndex::Withdraw(absl::string_view what, const ChunkId& id,
                                  const std::string& upload) {
  std::vector<OmapWrite> writes(1);
  writes[0].object = ObjectOf(id);
  writes[0].remove = {upload};
  return pool_->Write(what, &writes);
}

absl::StatusOr<size_t> RadosIndex::Change(
    absl::string_view what, absl::Span<const ChunkId> ids,
    absl::FunctionRef<absl::optional<RadosIndexChange>(const DataRecord&)> change) {
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
        read.keys = {rados_format::kCountersKey};
        for (const ChunkId& id : in_shard) read.keys.push_back(rados_format::DataKey(id));
        reads.push_back(std::move(read));
      }
      if (absl::Status status = pool_->Read(what, &reads, true); !status.ok()) return status;
      std::vector<OmapWrite> writes;
      std::vector<size_t> changes;  // of each write
      for (const OmapRead& read : reads) {
        absl::StatusOr<Counters> counters = DecodeCounters(read.values[0]);
        if (!counters.ok()) return counters.status();
        OmapWrite write;
        write.object = read.object;
        write.expected = {{read.keys[0], read.values[0]}};
        const std::vector<ChunkId>& in_shard = todo[read.object];
        size_t count = 0;
        for (size_t k = 1; k < read.keys.size(); ++k) {
          if (read.values[k].empty()) continue;
          const ChunkId& id = in_shard[k - 1];
          const absl::StatusOr<DataRecord> record = Decode(what, id, read.values[k]);
          if (!record.ok()) return record.status();
          const absl::optional<RadosIndexChange> wanted = change(*record);
          if (!wanted.has_value()) continue;
          ++count;
          write.expected.emplace_back(read.keys[k], read.values[k]);
          Subtract(*record, &*counters);
          if (wanted->record.has_value()) {
            Add(*wanted->record, &*counters);
            write.set.emplace_back(read.keys[k], rados_format::EncodeData(*wanted->record));
          } else {
            write.remove.push_back(read.keys[k]);
          }
          write.set.emplace_back(rados_format::EncodeGarbageKey({clock_(), id, record->generation,
                                                                 wanted->retired.keep_bytes}),
                                 rados_format::EncodeGarbage(wanted->retired));
        }
        if (count == 0) {
          todo.erase(read.object);
          continue;
        }
        write.set.emplace_back(rados_format::kCountersKey,
                               rocksdb_format::EncodeCounters(*counters));
        writes.push_back(std::move(write));
        changes.push_back(count);
      }
      const absl::Status status = pool_->Write(what, &writes);
      for (size_t w = 0; w < writes.size(); ++w) {
        for (const ChunkId& id : todo[writes[w].object]) cache_.Erase(id);
        if (writes[w].conflict) continue;
        changed += changes[w];
        todo.erase(writes[w].object);
      }
      if (!status.ok()) return status;
    }
  }
  return changed;
}

absl::StatusOr<std::vector<std::pair<ChunkId, ChunkInfo>>> RadosIndex::List(
    absl::string_view what, const absl::optional<ChunkId>& after, size_t limit) {
  std::vector<std::pair<ChunkId, ChunkInfo>> listed;
  std::string last = after.has_value() ? rados_format::DataKey(*after) : rados_format::kDataPrefix;
  size_t shard =
      after.has_value() ? rados_format::ShardOf(*after, static_cast<uint32_t>(objects_.size())) : 0;
  // Shards that are asked at once: more the emptier they are.
  size_t breadth = 1;
  while (listed.size() < limit && shard < objects_.size()) {
    std::vector<OmapList> lists;
    for (size_t i = shard; i < std::min(objects_.size(), shard + breadth); ++i) {
      OmapList list;
      list.object = objects_[i];
      list.prefix = rados_format::kDataPrefix;
      list.after = last;
      list.limit = std::min(limit - listed.size(), kIdsAtATime);
      lists.push_back(std::move(list));
    }
    if (absl::Status status = pool_->List(what, &lists); !status.ok()) return status;
    const size_t before = listed.size();
    for (const OmapList& list : lists) {
      for (const auto& [key, value] : list.entries) {
        if (listed.size() == limit) break;
        const absl::StatusOr<ChunkId> id = rados_format::DecodeDataKey(key);
        if (!id.ok()) return id.status();
        absl::StatusOr<DataRecord> record = Decode(what, *id, value);
        if (!record.ok()) return record.status();
        listed.emplace_back(*id, std::move(record->info));
        last = key;
      }
      if ((list.more && !list.entries.empty()) || listed.size() == limit) break;
      ++shard;
    }
    breadth = listed.size() == before ? std::min<size_t>(2 * breadth, 64) : 1;
  }
  return listed;
}

absl::StatusOr<Counters> RadosIndex::Count(absl::string_view what) {
  std::vector<OmapRead> reads;
  for (const std::string& object : objects_) {
    reads.push_back({object, {rados_format::kCountersKey}, {}});
  }
  if (absl::Status status = pool_->Read(what, &reads); !status.ok()) return status;
  Counters sum;
  for (const OmapRead& read : reads) {
    const absl::StatusOr<Counters> counters = DecodeCounters(read.values[0]);
    if (!counters.ok()) return counters.status();
    sum.chunks += counters->chunks;
    sum.payload_bytes += counters->payload_bytes;
  }
  return sum;
}

absl::Status RadosIndex::CollectOne(absl::string_view what, const std::string& object,
                                    const std::string& key, const std::string& value,
                                    absl::Time announced_before, absl::Time retired_before,
                                    size_t* removed) {
  const absl::StatusOr<rados_format::GarbageKey> name = rados_format::DecodeGarbageKey(key);
  if (!name.ok()) return name.status();
  absl::StatusOr<GarbageRecord> record = rados_format::DecodeGarbage(value);
  if (!record.ok()) return record.status();
  const bool pending = record->state == GarbageState::kPending;
  if (name->since >= (pending ? announced_before : retired_before)) return absl::OkStatus();
  std::vector<OmapWrite> writes(1);
  writes[0].object = object;
  if (pending) {
    // From here on the upload cannot commit; only then may its data go.
    record->state = GarbageState::kRetired;
    writes[0].expected = {{key, value}};
    writes[0].set = {{key, rados_format::EncodeGarbage(*record)}};
    if (absl::Status status = pool_->Write(what, &writes); !status.ok()) return status;
    if (writes[0].conflict) return absl::OkStatus();
  }
  if (absl::Status status = ShrinkRadosData(*pool_, what, {name->id, name->generation},
                                            record->keep_bytes, record->total_bytes);
      !status.ok()) {
    return status;
  }
  writes[0] = OmapWrite();
  writes[0].object = object;
  writes[0].remove = {key};
  if (absl::Status status = pool_->Write(what, &writes); !status.ok()) return status;
  ++*removed;
  return absl::OkStatus();
}

absl::StatusOr<size_t> RadosIndex::CollectGarbage(absl::string_view what,
                                                  absl::Time announced_before,
                                                  absl::Time retired_before) {
  constexpr size_t kPage = 256;
  size_t removed = 0;
  absl::Status first_error;
  for (const std::string& object : objects_) {
    std::string after = rados_format::kGarbagePrefix;
    for (bool more = true; more;) {
      std::vector<OmapList> lists(1);
      lists[0].object = object;
      lists[0].prefix = rados_format::kGarbagePrefix;
      lists[0].after = after;
      lists[0].limit = kPage;
      if (absl::Status status = pool_->List(what, &lists); !status.ok()) return status;
      for (const auto& [key, value] : lists[0].entries) {
        after = key;
        // One damaged entry must not keep the others.
        first_error.Update(
            CollectOne(what, object, key, value, announced_before, retired_before, &removed));
        if (absl::IsUnavailable(first_error)) return first_error;
      }
      more = lists[0].more && !lists[0].entries.empty();
    }
  }
  if (!first_error.ok()) return first_error;
  return removed;
}

}  // namespace kvstream

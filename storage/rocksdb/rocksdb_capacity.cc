// The parts of RocksDbChunkStore that remove levels and keep it below its capacity.
#include <rocksdb/convenience.h>
#include <rocksdb/iterator.h>
#include <rocksdb/options.h>
#include <rocksdb/slice.h>

#include <algorithm>
#include <set>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "storage/chunk_limits.h"
#include "storage/id_text.h"
#include "storage/rocksdb/compaction_pick.h"
#include "storage/rocksdb/rocksdb_chunk_store.h"
#include "storage/rocksdb/slices.h"
#include "storage/rocksdb/status_mapping.h"

namespace kvstream {
namespace {

using rocksdb_format::IdKey;

// Chunks of one batch of Trim.
constexpr size_t kTrimBatch = 256;

}  // namespace

absl::StatusOr<size_t> RocksDbChunkStore::Trim(absl::Span<const ChunkId> ids,
                                               uint32_t keep_levels) {
  if (absl::Status status = ValidateTrim(keep_levels); !status.ok()) return status;
  rocksdb::WriteOptions how;
  how.sync = options_.sync_writes;
  size_t trimmed = 0;
  for (; !ids.empty(); ids.remove_prefix(std::min(ids.size(), kTrimBatch))) {
    std::vector<EvictionIndex::Victim> victims;
    for (const ChunkId& id : ids.subspan(0, kTrimBatch)) victims.push_back({id, keep_levels, 0});
    const absl::StatusOr<RemovedLevels> removed = RemoveLevels(victims, how);
    if (!removed.ok()) return removed.status();
    trimmed += removed->chunks;
  }
  return trimmed;
}

void RocksDbChunkStore::Touch(absl::Span<const ChunkId> ids) {
  if (keeper_ != nullptr) keeper_->Touch(ids);
}

absl::StatusOr<RocksDbChunkStore::RemovedLevels> RocksDbChunkStore::RemoveLevels(
    absl::Span<const EvictionIndex::Victim> victims, const rocksdb::WriteOptions& how) {
  std::vector<ChunkId> ids;
  ids.reserve(victims.size());
  for (const EvictionIndex::Victim& victim : victims) ids.push_back(victim.id);
  const IdClaims::Claim claim(&chunk_claims_, ids);
  const std::vector<ChunkId> removable = holds_.BeginRemoval(claim.ids());
  std::set<ChunkId> open(removable.begin(), removable.end());

  const absl::Time now = options_.now();
  std::vector<ChunkId> gone;
  RemovedLevels removed;
  rocksdb::WriteBatch batch;
  absl::Status status;
  for (const EvictionIndex::Victim& victim : victims) {
    if (open.erase(victim.id) == 0) continue;  // held, or named twice
    if (pins_.Pinned(victim.id, now)) continue;
    const std::string what = absl::StrCat("removing levels of chunk ", ShortHex(victim.id));
    absl::StatusOr<absl::optional<ChunkInfo>> stored = GetInfo(victim.id, what);
    if (!stored.ok()) {
      // A damaged record: the others can still go.
      status.Update(stored.status());
      continue;
    }
    if (!stored->has_value()) continue;
    ChunkInfo info = **std::move(stored);
    const size_t levels = info.segment_bytes.size();
    if (levels <= victim.keep_levels) continue;
    rocksdb::Status batched;
    if (victim.keep_levels > 0) {
      const uint64_t bytes = TrimInfo(&info, victim.keep_levels);
      removed.change.Add(info, 0, uint64_t{0} - bytes);
      batched = batch.Put(family(kChunks), ToSlice(IdKey(victim.id)),
                          rocksdb_format::EncodeChunkRecord(info));
      for (size_t level = victim.keep_levels; batched.ok() && level < levels; ++level) {
        batched = batch.Delete(family(kSegments),
                               rocksdb_format::SegmentKey(victim.id, static_cast<uint32_t>(level)));
      }
    } else {
      removed.change.Add(info, uint64_t{0} - 1, uint64_t{0} - PayloadBytes(info));
      batched = BatchRemoval(victim.id, info, &batch);
      gone.push_back(victim.id);
    }
    removed.segments += levels - victim.keep_levels;
    if (!batched.ok()) status.Update(FromRocksDb(batched, what));
    ++removed.chunks;
  }
  if (removed.chunks > 0) {
    const absl::Status written = Write(&batch, removed.change, "removing levels", how);
    if (written.ok()) {
      for (const ChunkId& id : gone) Removed(id);
    }
    status.Update(written);
  }
  if (keeper_ != nullptr) {
    // Whatever became of the batch, the keeper learns what is there.
    for (const ChunkId& id : claim.ids()) {
      const absl::StatusOr<absl::optional<ChunkInfo>> stored = GetInfo(id, "removing levels");
      if (stored.ok() && stored->has_value()) {
        ReportStored(id, **stored);
      } else {
        keeper_->Gone(id);
      }
    }
  }
  holds_.EndRemoval(removable);
  if (!status.ok()) return status;
  return removed;
}

absl::Status RocksDbChunkStore::WriteUsage(
    absl::Span<const std::pair<ChunkId, EvictionIndex::Usage>> usages, double clock) {
  rocksdb::WriteBatch batch;
  rocksdb::Status status =
      batch.Put(family(kMeta), rocksdb_format::kClockKey, rocksdb_format::EncodeClock(clock));
  for (const auto& [id, usage] : usages) {
    if (!status.ok()) break;
    status = batch.Put(family(kUsage), ToSlice(IdKey(id)), rocksdb_format::EncodeUsage(usage));
  }
  if (!status.ok()) return FromRocksDb(status, "writing records of use");
  rocksdb::WriteOptions how;
  how.no_slowdown = true;
  return Write(&batch, StoreChange(), "writing records of use", how);
}

uint64_t RocksDbChunkStore::UpperLevelBytes() {
  rocksdb::ColumnFamilyMetaData tables;
  db_->GetColumnFamilyMetaData(family(kSegments), &tables);
  if (tables.levels.empty()) return 0;
  uint64_t bytes = tables.levels[0].size;
  for (size_t level = 1; level + 1 < tables.levels.size(); ++level) {
    if (tables.levels[level].files.empty()) continue;
    return bytes + tables.levels[level].size;
  }
  return bytes;
}

absl::StatusOr<bool> RocksDbChunkStore::CompactSome() {
  if (!BeginCompacting()) return absl::UnavailableError("a damaged table is in the way");
  const auto end = absl::MakeCleanup([this] { EndCompacting(); });
  rocksdb::ColumnFamilyMetaData tables;
  db_->GetColumnFamilyMetaData(family(kSegments), &tables);
  const absl::optional<CompactionPick> pick = PickCompaction(tables, keeper_->plan().pick_max);
  if (!pick.has_value()) {
    // Everything lies on the last level; what was deleted since is in the buffers.
    rocksdb::FlushOptions how;
    how.allow_write_stall = true;
    const absl::Status flushed = FromRocksDb(db_->Flush(how, family(kSegments)), "flushing");
    if (!flushed.ok()) return flushed;
    return false;
  }
  rocksdb::CompactionOptions how;
  how.compression = rocksdb::kNoCompression;
  how.output_file_size_limit = keeper_->plan().target_file_bytes;
  const TableCutter::Scope cut(cutter_.get(), pick->entries_per_table);
  // Its failure would end a resume that goes on meanwhile.
  if (!writes_.EnterBy(absl::InfinitePast())) return RefusalWhileResuming("compacting");
  compactions_->BeginOwn(pick->bytes);
  const rocksdb::Status status =
      db_->CompactFiles(how, family(kSegments), pick->files, pick->output_level);
  compactions_->EndOwn();
  writes_.Leave();
  if (!status.ok()) return FromRocksDb(status, "compacting");
  return true;
}

absl::Status RocksDbChunkStore::RestoreIndex() {
  const std::string what = absl::StrCat("opening the store in ", options_.data_dir);
  const rocksdb::ReadOptions read;
  std::string bytes;
  const rocksdb::Status found = db_->Get(read, family(kMeta), rocksdb_format::kClockKey, &bytes);
  if (found.ok()) {
    const absl::StatusOr<double> clock = rocksdb_format::DecodeClock(bytes);
    if (!clock.ok()) return clock.status();
    keeper_->RestoreClock(*clock);
  } else if (!found.IsNotFound() && !found.IsCorruption()) {  // a lost clock loses some order only
    return FromRocksDb(found, what);
  }
  // Both are in the order of ids.
  const std::unique_ptr<rocksdb::Iterator> usages(db_->NewIterator(read, family(kUsage)));
  const std::unique_ptr<rocksdb::Iterator> chunks(db_->NewIterator(read, family(kChunks)));
  usages->SeekToFirst();
  for (chunks->SeekToFirst(); chunks->Valid(); chunks->Next()) {
    const absl::StatusOr<ChunkId> id = rocksdb_format::DecodeIdKey(ToView(chunks->key()));
    const absl::StatusOr<ChunkInfo> info =
        rocksdb_format::DecodeChunkRecord(ToView(chunks->value()));
    // Such a chunk is not evicted; the other ones are served.
    if (!id.ok() || !info.ok()) continue;
    while (usages->Valid() && usages->key().compare(chunks->key()) < 0) usages->Next();
    absl::optional<EvictionIndex::Usage> usage;
    if (usages->Valid() && usages->key() == chunks->key()) {
      const auto decoded = rocksdb_format::DecodeUsage(ToView(usages->value()));
      if (decoded.ok()) usage = *decoded;
    }
    keeper_->Restore(*id, *info, usage);
  }
  // Damage ends an iteration. What lies behind it is not evicted, but served.
  if (chunks->status().IsCorruption()) return absl::OkStatus();
  return FromRocksDb(chunks->status(), what);
}

void RocksDbChunkStore::StartKeeper() {
  CapacityKeeper::Hooks hooks;
  hooks.evict = [this](absl::Span<const EvictionIndex::Victim> victims) {
    rocksdb::WriteOptions how;
    // After a power cut the chunk may be back, whole. It must not wait: see HoldTable.
    how.no_slowdown = true;
    const absl::StatusOr<RemovedLevels> removed = RemoveLevels(victims, how);
    if (!removed.ok()) return removed.status();
    keeper_->CountEvicted({removed->segments, uint64_t{0} - removed->change.total().payload_bytes,
                           uint64_t{0} - removed->change.total().chunks});
    return absl::OkStatus();
  };
  hooks.write_usage = [this](absl::Span<const std::pair<ChunkId, EvictionIndex::Usage>> usages,
                             double clock) { return WriteUsage(usages, clock); };
  hooks.buffered_bytes = [this] {
    uint64_t bytes = 0;
    db_->GetAggregatedIntProperty(rocksdb::DB::Properties::kCurSizeAllMemTables, &bytes);
    return bytes;
  };
  // Puts that wait for room write nothing, so they would not resume a store that has failed.
  hooks.flush = [this] {
    AwaitResume();
    rocksdb::FlushOptions how;
    how.allow_write_stall = true;
    return FromRocksDb(db_->Flush(how, families_), "flushing");
  };
  hooks.upper_bytes = [this] { return UpperLevelBytes(); };
  hooks.oversized = [this] {
    rocksdb::ColumnFamilyMetaData tables;
    db_->GetColumnFamilyMetaData(family(kSegments), &tables);
    return HasOversizedTable(tables, keeper_->plan().pick_max);
  };
  hooks.compact = [this] {
    MaybeResume();
    return CompactSome();
  };
  hooks.held = [this](const ChunkId& id) { return holds_.held(id); };
  keeper_->Start(std::move(hooks));
}

}  // namespace kvstream

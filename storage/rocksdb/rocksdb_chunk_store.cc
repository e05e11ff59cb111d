#include "storage/rocksdb/rocksdb_chunk_store.h"

#include <rocksdb/convenience.h>
#include <rocksdb/file_system.h>
#include <rocksdb/iterator.h>
#include <rocksdb/options.h>
#include <rocksdb/slice.h>
#include <rocksdb/transaction_log.h>

#include <algorithm>
#include <functional>
#include <utility>

#include "absl/memory/memory.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "storage/call_deadline.h"
#include "storage/chunk_limits.h"
#include "storage/id_text.h"
#include "storage/rocksdb/lifetime_format.h"
#include "storage/rocksdb/rocksdb_open.h"
#include "storage/rocksdb/slices.h"
#include "storage/rocksdb/status_mapping.h"

namespace kvstream {
namespace {

using rocksdb_format::Counters;
using rocksdb_format::IdKey;

// Ids of one MultiGet: starts small, since most chains of a cold store miss at once, and grows.
constexpr size_t kFirstReadBatch = 64;
constexpr size_t kLastReadBatch = 1024;
// Chunks of one delete's write batch: bounds what one sync and one set of claims cover.
constexpr size_t kDeleteBatch = 256;

std::string Naming(absl::string_view operation, const ChunkId& id) {
  return absl::StrCat(operation, " of chunk ", ShortHex(id));
}

// Prefixes a status of our own parsers.
absl::Status Annotate(const absl::Status& status, absl::string_view what) {
  return absl::Status(status.code(), absl::StrCat(what, ": ", status.message()));
}

// One MultiGet. result[i] is the value of ids[i].
struct Values {
  std::vector<rocksdb::PinnableSlice> values;
  std::vector<rocksdb::Status> statuses;
};

Values MultiGet(rocksdb::DB* db, rocksdb::ColumnFamilyHandle* family,
                absl::Span<const ChunkId> ids) {
  std::vector<rocksdb::Slice> keys;
  keys.reserve(ids.size());
  for (const ChunkId& id : ids) keys.push_back(ToSlice(IdKey(id)));
  Values result{std::vector<rocksdb::PinnableSlice>(ids.size()),
                std::vector<rocksdb::Status>(ids.size())};
  db->MultiGet(rocksdb::ReadOptions(), family, keys.size(), keys.data(), result.values.data(),
               result.statuses.data());
  return result;
}

// The keys of one family that a batch changes. Of an operation that it does not know, such as the
// deletion of a range, it makes an error.
class ChangedKeys final : public rocksdb::WriteBatch::Handler {
 public:
  using Status = rocksdb::Status;
  using Slice = rocksdb::Slice;

  ChangedKeys(uint32_t family, std::function<void(absl::string_view)> changed)
      : family_(family), changed_(std::move(changed)) {}

  Status PutCF(uint32_t family, const Slice& key, const Slice&) override {
    return Note(family, key);
  }
  Status DeleteCF(uint32_t family, const Slice& key) override { return Note(family, key); }
  Status SingleDeleteCF(uint32_t family, const Slice& key) override { return Note(family, key); }
  Status MergeCF(uint32_t family, const Slice& key, const Slice&) override {
    return Note(family, key);
  }

 private:
  Status Note(uint32_t family, const Slice& key) {
    if (family == family_) changed_(ToView(key));
    return Status::OK();
  }

  const uint32_t family_;
  const std::function<void(absl::string_view)> changed_;
};

}  // namespace

RocksDbChunkStore::RocksDbChunkStore(const RocksDbChunkStoreOptions& options)
    : options_(options),
      infos_(options.info_cache_bytes),
      logs_(std::make_shared<LogMender>(
          (options.env != nullptr ? options.env : rocksdb::Env::Default())->GetFileSystem())),
      cache_(NewBlockCache(options)),
      pins_(PinBytesMax(options)),
      errors_(std::make_shared<BackgroundErrors>(logs_, damaged_)),
      gate_(std::make_shared<FlushGate>()) {}

absl::StatusOr<std::unique_ptr<ChunkStore>> RocksDbChunkStore::Create(
    const RocksDbChunkStoreOptions& options) {
  if (absl::Status status = options.Validate(); !status.ok()) return status;
  auto store = absl::WrapUnique(new RocksDbChunkStore(options));
  if (absl::Status status = store->Open(); !status.ok()) return status;
  return std::unique_ptr<ChunkStore>(std::move(store));
}

RocksDbChunkStore::~RocksDbChunkStore() {
  if (db_ == nullptr) return;
  StopMending();
  EndResuming();
  if (keeper_ != nullptr) keeper_->Stop();
  EndMending();
  rocksdb::CancelAllBackgroundWork(db_.get(), /*wait=*/true);
  // Neither can fail in a way that matters: every acknowledged write is in the synced log.
  for (rocksdb::ColumnFamilyHandle* handle : families_) {
    db_->DestroyColumnFamilyHandle(handle).PermitUncheckedError();
  }
  db_->Close().PermitUncheckedError();
}

absl::Status RocksDbChunkStore::Open() {
  if (absl::Status status = PrepareStoreDirectory(options_); !status.ok()) return status;
  rocksdb::DBOptions db_options = TunedDbOptions(options_);
  std::vector<rocksdb::ColumnFamilyDescriptor> families = TunedFamilies(options_, cache_);
  db_options.listeners.push_back(errors_);
  db_options.listeners.push_back(gate_);  // after errors_, which says how severe an error is
  if (options_.capacity_bytes > 0) {
    files_ = std::make_shared<CountedFileSystem>(logs_, options_.data_dir);
  }
  ungated_env_ =
      files_ != nullptr ? rocksdb::NewCompositeEnv(files_) : rocksdb::NewCompositeEnv(logs_);
  env_ = gate_->Wrap(ungated_env_.get());
  db_options.env = env_.get();
  if (options_.capacity_bytes > 0) {
    compactions_ = std::make_shared<CompactionWatch>(files_);
    db_options.listeners.push_back(compactions_);
    db_options.sst_file_manager.reset(rocksdb::NewSstFileManager(env_.get()));
    keeper_ = std::make_unique<CapacityKeeper>(options_, files_, compactions_,
                                               db_options.sst_file_manager);
    keeper_->plan().Apply(&db_options, &families);
    families[kSegments].options.sst_partitioner_factory = cutter_;
  }
  absl::StatusOr<OpenedDb> opened = OpenDb(db_options, families, options_);
  if (!opened.ok()) return opened.status();
  db_ = std::move(opened->db);
  families_ = std::move(opened->families);
  // Opening has written to tables what it found in the logs (avoid_flush_during_recovery is off).
  settled_sequence_ = db_->GetLatestSequenceNumber();
  synced_sequence_ = settled_sequence_;
  if (absl::Status status = OpenMeta(); !status.ok()) return status;
  if (absl::Status status = RebuildIndexes(); !status.ok()) return status;
  if (absl::Status status = LoadProfiles(); !status.ok()) return status;
  if (keeper_ != nullptr) {
    if (absl::Status status = RestoreIndex(); !status.ok()) return status;
  }
  if (absl::Status status = RestorePins(); !status.ok()) return status;
  // A disk that takes no writes must not keep what is on it from being read.
  deletions_left_ = !CompleteDeletions().ok();
  if (keeper_ != nullptr) StartKeeper();
  return absl::OkStatus();
}

void RocksDbChunkStore::ForgetInfosOf(const rocksdb::WriteBatch& batch) {
  ChangedKeys keys(family(kChunks)->GetID(), [this](absl::string_view key) {
    const absl::StatusOr<ChunkId> id = rocksdb_format::DecodeIdKey(key);
    if (id.ok()) infos_.Erase(*id);
  });
  if (!batch.Iterate(&keys).ok()) infos_.Clear();
}

LogMark RocksDbChunkStore::Mark() const {
  return {settled_sequence_, synced_sequence_.load(std::memory_order_acquire)};
}

rocksdb::WriteBatch RocksDbChunkStore::NewBatch(size_t reserved_bytes) const {
  return NewMarkedBatch(Mark(), reserved_bytes);
}

absl::StatusOr<absl::optional<ChunkInfo>> RocksDbChunkStore::GetInfo(const ChunkId& id,
                                                                     absl::string_view what) {
  rocksdb::PinnableSlice record;
  const rocksdb::Status status =
      db_->Get(rocksdb::ReadOptions(), family(kChunks), ToSlice(IdKey(id)), &record);
  if (status.IsNotFound()) return absl::optional<ChunkInfo>();
  if (!status.ok()) return FromRocksDb(status, what);
  absl::StatusOr<ChunkInfo> info = rocksdb_format::DecodeChunkRecord(ToView(record));
  if (!info.ok()) return Annotate(info.status(), what);
  return absl::optional<ChunkInfo>(*std::move(info));
}

absl::StatusOr<bool> RocksDbChunkStore::Put(const ChunkId& id, const ChunkInfo& info,
                                            absl::Span<const absl::string_view> segments) {
  if (absl::Status status = ValidateChunk(id, info, segments); !status.ok()) return status;
  const std::string what = Naming("Put", id);
  const uint64_t payload_bytes = PayloadBytes(info);
  absl::optional<CapacityKeeper::Room> room;
  if (keeper_ != nullptr) {
    // A first look without a claim, since eviction may need one while this waits for room.
    const absl::StatusOr<absl::optional<ChunkInfo>> stored = GetInfo(id, what);
    if (!stored.ok()) return stored.status();
    if (stored->has_value() && !RestoresLevels(**stored, info)) {
      if (!NeedsRenewal(id, **stored, WholeNanos(info.expires))) return false;
      const absl::StatusOr<size_t> renewed = Renew({id}, info.expires);
      if (!renewed.ok()) return renewed.status();
      if (*renewed > 0) return false;
    }
    if (absl::Status status = AwaitWrites(what); !status.ok()) return status;
    // 1 KiB for the record, keys and lengths of a batch.
    absl::StatusOr<CapacityKeeper::Room> admitted =
        keeper_->Admit(payload_bytes + 1024 + 64 * segments.size(), what);
    if (!admitted.ok()) return admitted.status();
    room.emplace(*std::move(admitted));
  }
  // Another Put of the id, if one is in flight, decides first; RocksDB shows only what is synced.
  const IdClaims::Claim claim(&chunk_claims_, absl::MakeConstSpan(&id, 1), CallDeadline::Current());
  if (!claim.held()) return claim.Late(what);
  const absl::StatusOr<absl::optional<ChunkInfo>> stored = GetInfo(id, what);
  if (!stored.ok()) return stored.status();
  if (stored->has_value()) {
    if (RestoresLevels(**stored, info)) {
      const absl::StatusOr<bool> restored = Restore(id, **stored, info, segments);
      if (!restored.ok() || *restored) return restored;
    }
    if (absl::Status status = RenewStored(id, **stored, WholeNanos(info.expires)); !status.ok()) {
      return status;
    }
    return false;
  }

  const std::string record = rocksdb_format::EncodeChunkRecord(info);
  // Headers, keys and lengths take under 64 bytes an entry.
  rocksdb::WriteBatch batch = NewBatch(payload_bytes + record.size() + 64 * (segments.size() + 4));
  rocksdb::Status status = batch.Put(family(kChunks), ToSlice(IdKey(id)), record);
  for (size_t level = 0; status.ok() && level < segments.size(); ++level) {
    // Copies the segment: RocksDB writes a batch to its log in one piece.
    status =
        batch.Put(family(kSegments), rocksdb_format::SegmentKey(id, static_cast<uint32_t>(level)),
                  ToSlice(segments[level]));
  }
  if (status.ok()) status = BatchArrival(id, info, &batch);
  if (!status.ok()) return FromRocksDb(status, what);
  StoreChange change;
  change.Add(info, 1, payload_bytes);
  if (absl::Status written = Write(&batch, change, what); !written.ok()) return written;
  ReportStored(id, info);
  return true;
}

absl::Status RocksDbChunkStore::RenewStored(const ChunkId& id, const ChunkInfo& stored,
                                            absl::Time expires) {
  if (!NeedsRenewal(id, stored, expires)) return absl::OkStatus();
  const std::string what = Naming("Put", id);
  ChunkInfo renewed = stored;
  rocksdb::WriteBatch batch;
  rocksdb::Status status = BatchRenewal(id, expires, &renewed, &batch);
  if (status.ok()) {
    status =
        batch.Put(family(kChunks), ToSlice(IdKey(id)), rocksdb_format::EncodeChunkRecord(renewed));
  }
  if (!status.ok()) return FromRocksDb(status, what);
  if (absl::Status written = Write(&batch, StoreChange(), what); !written.ok()) return written;
  SetDoomed(id, false);
  SweepFrom(expires);
  return absl::OkStatus();
}

absl::StatusOr<bool> RocksDbChunkStore::Restore(const ChunkId& id, const ChunkInfo& stored,
                                                const ChunkInfo& info,
                                                absl::Span<const absl::string_view> segments) {
  // Segments of two encodings must never meet in one chunk.
  const uint32_t kept = static_cast<uint32_t>(stored.segment_bytes.size());
  for (uint32_t level = 0; level < kept; ++level) {
    const absl::StatusOr<PinnedBytes> segment = ReadSegment(id, level);
    if (!segment.ok()) return segment.status();
    if (segment->bytes() != segments[level]) return false;
  }
  const std::string what = Naming("Put", id);
  ChunkInfo restored = stored;
  restored.segment_bytes = info.segment_bytes;
  restored.levels_lost -= static_cast<uint32_t>(segments.size()) - kept;
  rocksdb::WriteBatch batch = NewBatch(PayloadBytes(restored) - PayloadBytes(stored));
  rocksdb::Status status = BatchRenewal(id, WholeNanos(info.expires), &restored, &batch);
  if (status.ok()) {
    status =
        batch.Put(family(kChunks), ToSlice(IdKey(id)), rocksdb_format::EncodeChunkRecord(restored));
  }
  const uint64_t payload_bytes = PayloadBytes(restored);
  for (const ChunkPin& pin : pins_.Of(id)) {
    if (!status.ok()) break;
    status = batch.Put(family(kPins), rocksdb_format::PinKey(id, pin.owner),
                       rocksdb_format::EncodePin(pin.until, payload_bytes));
  }
  for (size_t level = kept; status.ok() && level < segments.size(); ++level) {
    status =
        batch.Put(family(kSegments), rocksdb_format::SegmentKey(id, static_cast<uint32_t>(level)),
                  ToSlice(segments[level]));
  }
  if (!status.ok()) return FromRocksDb(status, what);
  StoreChange change;
  change.Add(stored, 0, payload_bytes - PayloadBytes(stored));
  if (absl::Status written = Write(&batch, change, what); !written.ok()) return written;
  SetDoomed(id, false);
  pins_.SetPayloadBytes(id, payload_bytes);
  ReportStored(id, restored);
  return true;
}

absl::StatusOr<std::vector<absl::optional<ChunkInfo>>> RocksDbChunkStore::GetInfos(
    absl::Span<const ChunkId> ids) {
  std::vector<absl::optional<ChunkInfo>> infos(ids.size());
  // Of those that are not in the cache.
  std::vector<ChunkId> left;
  std::vector<size_t> places;
  std::vector<uint64_t> tickets;
  absl::Status status;
  infos_.Get(
      ids,
      [&](size_t i, absl::string_view record) {
        absl::StatusOr<ChunkInfo> info = rocksdb_format::DecodeChunkRecord(record);
        if (!info.ok()) {
          status.Update(Annotate(info.status(), Naming("GetInfos", ids[i])));
        } else {
          infos[i] = *std::move(info);
        }
      },
      [&](size_t i, uint64_t ticket) {
        left.push_back(ids[i]);
        places.push_back(i);
        tickets.push_back(ticket);
      });
  if (!status.ok()) return status;
  for (size_t begin = 0; begin < left.size(); begin += kLastReadBatch) {
    const auto batch = absl::MakeConstSpan(left).subspan(begin, kLastReadBatch);
    const Values found = MultiGet(db_.get(), family(kChunks), batch);
    for (size_t i = 0; i < batch.size(); ++i) {
      if (found.statuses[i].IsNotFound()) continue;
      if (!found.statuses[i].ok()) {
        return FromRocksDb(found.statuses[i], Naming("GetInfos", batch[i]));
      }
      const absl::string_view bytes = ToView(found.values[i]);
      absl::StatusOr<ChunkInfo> info = rocksdb_format::DecodeChunkRecord(bytes);
      if (!info.ok()) return Annotate(info.status(), Naming("GetInfos", batch[i]));
      infos[places[begin + i]] = *std::move(info);
      infos_.Insert(batch[i], bytes, tickets[begin + i]);
    }
  }
  return infos;
}

absl::StatusOr<size_t> RocksDbChunkStore::LongestPrefix(absl::Span<const ChunkId> ids) {
  size_t length = 0;
  // In order rather than by bisection: evictions leave holes in chains.
  for (size_t batch_size = kFirstReadBatch; length < ids.size();
       batch_size = std::min(2 * batch_size, kLastReadBatch)) {
    const absl::Span<const ChunkId> batch = ids.subspan(length, batch_size);
    const Values found = MultiGet(db_.get(), family(kChunks), batch);
    for (size_t i = 0; i < batch.size(); ++i) {
      if (found.statuses[i].IsNotFound()) return length;
      if (!found.statuses[i].ok()) {
        return FromRocksDb(found.statuses[i], Naming("LongestPrefix", batch[i]));
      }
      ++length;
    }
  }
  return length;
}

absl::StatusOr<PinnedBytes> RocksDbChunkStore::ReadSegment(const ChunkId& id, uint32_t level) {
  return *Read(rocksdb::ReadOptions(), id, level);
}

absl::optional<absl::StatusOr<PinnedBytes>> RocksDbChunkStore::TryReadSegment(const ChunkId& id,
                                                                              uint32_t level) {
  rocksdb::ReadOptions read;
  read.read_tier = rocksdb::kBlockCacheTier;
  return Read(read, id, level);
}

absl::optional<absl::StatusOr<PinnedBytes>> RocksDbChunkStore::Read(
    const rocksdb::ReadOptions& read, const ChunkId& id, uint32_t level) {
  const auto what = [&] { return absl::StrCat(Naming("ReadSegment", id), ", level ", level); };
  if (level >= kMaxChunkLevels) {
    return absl::NotFoundError(absl::StrCat(what(), ": no chunk has that level"));
  }
  auto slice = std::make_unique<rocksdb::PinnableSlice>();
  const rocksdb::Status status =
      db_->Get(read, family(kSegments), rocksdb_format::SegmentKey(id, level), slice.get());
  // An empty value stands for a table that is not open, too.
  if (read.read_tier == rocksdb::kBlockCacheTier &&
      (status.IsIncomplete() || (status.ok() && slice->empty()))) {
    return absl::nullopt;
  }
  if (status.IsNotFound()) {
    return absl::NotFoundError(absl::StrCat(what(), ": the chunk or level is not stored"));
  }
  if (!status.ok()) return FromRocksDb(status, what());
  const absl::string_view bytes = ToView(*slice);
  // The slice first, then the cache that it gives its block back to.
  return PinnedBytes(bytes, [pinned = slice.release(), cache = cache_] { delete pinned; });
}

absl::StatusOr<size_t> RocksDbChunkStore::Delete(absl::Span<const ChunkId> ids) {
  size_t deleted = 0;
  for (size_t begin = 0; begin < ids.size(); begin += kDeleteBatch) {
    const absl::StatusOr<size_t> of_batch = DeleteBatch(ids.subspan(begin, kDeleteBatch));
    if (!of_batch.ok()) return of_batch;
    deleted += *of_batch;
  }
  return deleted;
}

absl::StatusOr<size_t> RocksDbChunkStore::DeleteBatch(absl::Span<const ChunkId> ids) {
  const IdClaims::Claim claim(&chunk_claims_, ids);
  const Values found = MultiGet(db_.get(), family(kChunks), claim.ids());
  rocksdb::WriteBatch batch;
  StoreChange change;
  std::vector<ChunkId> removed;
  const absl::Time now = options_.now();
  for (size_t i = 0; i < claim.ids().size(); ++i) {
    const ChunkId& id = claim.ids()[i];
    if (found.statuses[i].IsNotFound() || pins_.Pinned(id, now)) continue;
    const std::string what = Naming("Delete", id);
    if (!found.statuses[i].ok()) return FromRocksDb(found.statuses[i], what);
    const absl::StatusOr<ChunkInfo> info =
        rocksdb_format::DecodeChunkRecord(ToView(found.values[i]));
    if (!info.ok()) return Annotate(info.status(), what);
    const rocksdb::Status status = BatchRemoval(id, *info, &batch);
    if (!status.ok()) return FromRocksDb(status, what);
    removed.push_back(id);
    change.Add(*info, uint64_t{0} - 1, uint64_t{0} - PayloadBytes(*info));
  }
  if (removed.empty()) return 0;
  const std::string what =
      absl::StrCat(Naming("Delete", removed.front()), " and ", removed.size() - 1, " more");
  if (absl::Status status = Write(&batch, change, what); !status.ok()) return status;
  for (const ChunkId& id : removed) Removed(id);
  return removed.size();
}

absl::StatusOr<std::vector<std::pair<ChunkId, ChunkInfo>>> RocksDbChunkStore::List(
    const absl::optional<ChunkId>& after, size_t limit) {
  std::vector<std::pair<ChunkId, ChunkInfo>> listed;
  const std::unique_ptr<rocksdb::Iterator> next(
      db_->NewIterator(rocksdb::ReadOptions(), family(kChunks)));
  if (after.has_value()) {
    next->Seek(ToSlice(IdKey(*after)));
    if (next->Valid() && ToView(next->key()) == IdKey(*after)) next->Next();
  } else {
    next->SeekToFirst();
  }
  for (; next->Valid() && listed.size() < limit; next->Next()) {
    const absl::StatusOr<ChunkId> id = rocksdb_format::DecodeIdKey(ToView(next->key()));
    if (!id.ok()) return Annotate(id.status(), "List");
    absl::StatusOr<ChunkInfo> info = rocksdb_format::DecodeChunkRecord(ToView(next->value()));
    if (!info.ok()) return Annotate(info.status(), Naming("List", *id));
    listed.emplace_back(*id, *std::move(info));
  }
  if (!next->status().ok()) {
    return FromRocksDb(next->status(),
                       listed.empty() ? "List" : Naming("List after", listed.back().first));
  }
  return listed;
}

absl::StatusOr<std::vector<std::pair<ChunkId, ChunkInfo>>> RocksDbChunkStore::ListTenant(
    absl::string_view tenant, const absl::optional<ChunkId>& after, size_t limit) {
  if (tenant.empty()) return ChunkStore::ListTenant(tenant, after, limit);
  if (tenant.size() > kMaxTenantBytes) return std::vector<std::pair<ChunkId, ChunkInfo>>();
  const std::string prefix = rocksdb_format::TenantKey(tenant);
  const std::string begin = after.has_value() ? rocksdb_format::TenantKey(tenant, *after) : prefix;
  std::vector<std::pair<ChunkId, ChunkInfo>> listed;
  const std::unique_ptr<rocksdb::Iterator> next(
      db_->NewIterator(rocksdb::ReadOptions(), family(kTenants)));
  next->Seek(begin);
  if (after.has_value() && next->Valid() && ToView(next->key()) == begin) next->Next();
  while (listed.size() < limit) {
    std::vector<ChunkId> ids;
    for (; next->Valid() && ids.size() < std::min(limit - listed.size(), kLastReadBatch);
         next->Next()) {
      absl::string_view key = ToView(next->key());
      if (!absl::ConsumePrefix(&key, prefix)) break;
      const absl::StatusOr<ChunkId> id = rocksdb_format::DecodeIdKey(key);
      if (!id.ok()) return Annotate(id.status(), "ListTenant");
      ids.push_back(*id);
    }
    IndexDamaged(next->status());
    if (!next->status().ok()) return FromRocksDb(next->status(), "ListTenant");
    if (ids.empty()) break;
    auto infos = GetInfos(ids);
    if (!infos.ok()) return infos.status();
    for (size_t i = 0; i < ids.size(); ++i) {
      // Gone since the index was read.
      if (!(*infos)[i].has_value()) continue;
      listed.emplace_back(ids[i], *std::move((*infos)[i]));
    }
  }
  return listed;
}

absl::StatusOr<StoreStats> RocksDbChunkStore::Stats() {
  StoreStats stats;
  if (keeper_ != nullptr) {
    const CapacityKeeper::Evicted evicted = keeper_->evicted();
    stats.disk_bytes = files_->bytes().total();
    stats.capacity_bytes = options_.capacity_bytes;
    stats.evicted_segments = evicted.segments;
    stats.evicted_bytes = evicted.bytes;
    stats.evicted_chunks = evicted.chunks;
  } else {
    for (rocksdb::ColumnFamilyHandle* handle : families_) {
      uint64_t table_bytes = 0;
      if (db_->GetIntProperty(handle, rocksdb::DB::Properties::kLiveSstFilesSize, &table_bytes)) {
        stats.disk_bytes += table_bytes;
      }
    }
    rocksdb::VectorLogPtr logs;
    if (const rocksdb::Status status = db_->GetSortedWalFiles(logs); !status.ok()) {
      return FromRocksDb(status, "Stats");
    }
    for (const auto& log : logs) stats.disk_bytes += log->SizeFileBytes();
  }
  stats.writes = errors_->state();
  stats.damaged_files = damaged_->size();
  stats.expired_chunks = expired_;
  stats.pins = pins_.pins();
  stats.pinned_bytes = pins_.bytes();
  const Counters total = counters_.total();
  stats.chunks = total.chunks;
  stats.payload_bytes = total.payload_bytes;
  stats.tenant_chunks = counters_.tenant_chunks();
  return stats;
}

}  // namespace kvstream

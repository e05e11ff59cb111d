// The part of RocksDbChunkStore that gets rid of damaged tables while it serves.
//
// A table cannot be written again block by block, and DB::DeleteFilesInRange takes every table that
// lies wholly in a range, whatever is in it. So all that is stored in the damaged table's range is
// written once more, to the buffers and from there to level 0, which that call does not touch, and
// then the tables go. Nothing may compact meanwhile: what is new would come to lie in such tables.
// What is deleted already must not come back from the tables that only overlap the range and stay,
// once the deletions that hid it are gone: that is deleted again.
#include <rocksdb/convenience.h>
#include <rocksdb/iterator.h>
#include <rocksdb/metadata.h>
#include <rocksdb/sst_file_reader.h>

#include <algorithm>
#include <memory>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "storage/chunk_limits.h"
#include "storage/rocksdb/rocksdb_chunk_store.h"
#include "storage/rocksdb/slices.h"
#include "storage/rocksdb/status_mapping.h"

namespace kvstream {
namespace {

using rocksdb_format::kIdBytes;

constexpr absl::string_view kWhat = "mending a damaged table";
// Of one batch.
constexpr uint64_t kBatchBytes = uint64_t{4} << 20;
constexpr size_t kBatchChunks = 256;
// Between two attempts, at first and at most.
constexpr absl::Duration kFirstPause = absl::Seconds(10);
constexpr absl::Duration kLongestPause = absl::Hours(1);

rocksdb::ReadOptions PastTheCache() {
  rocksdb::ReadOptions read;
  read.fill_cache = false;
  return read;
}

// On the disk before the tables go, whatever options.sync_writes says.
rocksdb::WriteOptions Synced() {
  rocksdb::WriteOptions how;
  how.sync = true;
  return how;
}

}  // namespace

// Keys of `segments`, both included.
struct RocksDbChunkStore::SegmentRange {
  std::string begin, end;

  bool Contains(absl::string_view key) const { return begin <= key && key <= end; }
};

absl::optional<Family> RocksDbChunkStore::FamilyOfTable(uint64_t number) {
  for (int in = 0; in < kFamilies; ++in) {
    rocksdb::ColumnFamilyMetaData tables;
    db_->GetColumnFamilyMetaData(family(static_cast<Family>(in)), &tables);
    for (const auto& level : tables.levels) {
      for (const auto& table : level.files) {
        if (table.file_number == number) return static_cast<Family>(in);
      }
    }
  }
  return absl::nullopt;
}

absl::Status RocksDbChunkStore::SetCompactions(Family in, bool on) {
  return FromRocksDb(
      db_->SetOptions(family(in), {{"disable_auto_compactions", on ? "false" : "true"}}), kWhat);
}

bool RocksDbChunkStore::BeginCompacting() {
  absl::MutexLock lock(&mend_mutex_);
  if (mending_ || held_[kSegments]) return false;
  compacting_ = true;
  return true;
}

void RocksDbChunkStore::EndCompacting() {
  absl::MutexLock lock(&mend_mutex_);
  compacting_ = false;
}

void RocksDbChunkStore::MendSoon() {
  absl::MutexLock lock(&mend_mutex_);
  next_mend_ = absl::InfinitePast();
  mend_pause_ = kFirstPause;
}

void RocksDbChunkStore::MendTables() {
  if (damaged_->size() == 0 || errors_->failed()) return;
  absl::MutexLock lock(&mend_mutex_);
  if (stop_mending_ || mending_ || compacting_) return;
  const absl::Time now = options_.now();
  const bool mend = now >= next_mend_;
  if (mend) {
    next_mend_ = now + mend_pause_;
    mend_pause_ = std::min(2 * mend_pause_, kLongestPause);
  }
  if (mender_.joinable()) mender_.join();  // has nothing left to do
  mending_ = true;
  mender_ = std::thread([this, mend, held = held_] { MendEach(mend, held); });
}

void RocksDbChunkStore::StopMending() {
  absl::MutexLock lock(&mend_mutex_);
  stop_mending_ = true;
}

void RocksDbChunkStore::EndMending() {
  StopMending();
  std::thread mender;
  {
    absl::MutexLock lock(&mend_mutex_);
    mender = std::move(mender_);
  }
  if (mender.joinable()) mender.join();
}

absl::Status RocksDbChunkStore::MayMend() const {
  return stop_mending_ ? absl::CancelledError("mending is stopped") : absl::OkStatus();
}

void RocksDbChunkStore::MendEach(bool mend, const std::array<bool, kFamilies>& held) {
  // Whether compactions rest while this runs, and what of that stays.
  std::array<bool, kFamilies> resting = held, stays = {};
  const auto rest = [&](Family in) {
    if (!resting[in]) resting[in] = SetCompactions(in, false).ok();
    return resting[in];
  };
  for (const auto& [number, in_the_way] : damaged_->all()) {
    const absl::optional<Family> in = FamilyOfTable(number);
    if (!in.has_value()) {
      damaged_->Forget(number);  // gone, with what was in it
      continue;
    }
    if (*in == kTenants || *in == kExpiry || *in == kChildren) index_damaged_ = true;
    if (in_the_way) {
      rest(*in);
      stays[*in] = true;
    }
    if (mend && MayMend().ok() && *in == kSegments && rest(kSegments) && MendTable(number).ok()) {
      damaged_->Forget(number);
    }
  }
  // Others may have gone with those that were mended.
  stays = {};
  for (const auto& [number, in_the_way] : damaged_->all()) {
    const absl::optional<Family> in = FamilyOfTable(number);
    if (!in.has_value()) damaged_->Forget(number);
    if (in.has_value() && in_the_way) stays[*in] = true;
  }
  for (int in = 0; in < kFamilies; ++in) {
    if (!resting[in] || stays[in]) continue;
    resting[in] = !SetCompactions(static_cast<Family>(in), true).ok();
  }
  absl::MutexLock lock(&mend_mutex_);
  held_ = resting;
  mending_ = false;
}

absl::Status RocksDbChunkStore::MendTable(uint64_t number) {
  rocksdb::ColumnFamilyMetaData tables;
  db_->GetColumnFamilyMetaData(family(kSegments), &tables);
  absl::optional<SegmentRange> range;
  for (const auto& level : tables.levels) {
    for (const auto& table : level.files) {
      // One that began before compactions came to rest.
      if (table.being_compacted) return absl::UnavailableError("a compaction is running");
      if (table.file_number == number && level.level > 0) {
        range = SegmentRange{table.smallestkey, table.largestkey};
      }
    }
  }
  if (!range.has_value()) {
    return absl::FailedPreconditionError("a damaged table of level 0 cannot be taken away");
  }
  // First whether it can succeed, since writing costs more than reading.
  absl::Status status =
      ForSegments(*range, [&](const auto& chunks) { return CheckSegments(*range, chunks); });
  if (!status.ok()) return status;
  status = ForSegments(*range, [&](const auto& chunks) { return RewriteSegments(*range, chunks); });
  if (status.ok()) status = DeleteLeftovers(*range, tables);
  // Else a table of a single batch would go all the same.
  if (status.ok()) status = MayMend();
  if (!status.ok()) return status;
  const rocksdb::Slice begin = ToSlice(range->begin), end = ToSlice(range->end);
  const rocksdb::Status done =
      rocksdb::DeleteFilesInRange(db_.get(), family(kSegments), &begin, &end, /*include_end=*/true);
  if (!done.ok()) return FromRocksDb(done, kWhat);
  if (!FamilyOfTable(number).has_value()) return absl::OkStatus();
  return absl::UnavailableError("the damaged table is still there");
}

absl::Status RocksDbChunkStore::ForSegments(
    const SegmentRange& range,
    const std::function<absl::Status(const std::vector<std::pair<ChunkId, ChunkInfo>>&)>&
        of_batch) {
  std::vector<std::pair<ChunkId, ChunkInfo>> chunks;
  uint64_t bytes = 0;
  const absl::string_view first = absl::string_view(range.begin).substr(0, kIdBytes);
  const absl::string_view last = absl::string_view(range.end).substr(0, kIdBytes);
  const std::unique_ptr<rocksdb::Iterator> next(db_->NewIterator(PastTheCache(), family(kChunks)));
  for (next->Seek(ToSlice(first)); next->Valid() && ToView(next->key()) <= last; next->Next()) {
    const absl::StatusOr<ChunkId> id = rocksdb_format::DecodeIdKey(ToView(next->key()));
    if (!id.ok()) return id.status();
    absl::StatusOr<ChunkInfo> info = rocksdb_format::DecodeChunkRecord(ToView(next->value()));
    if (!info.ok()) return info.status();
    bytes += PayloadBytes(*info);
    chunks.emplace_back(*id, *std::move(info));
    if (bytes < kBatchBytes && chunks.size() < kBatchChunks) continue;
    absl::Status status = MayMend();
    if (status.ok()) status = of_batch(chunks);
    if (!status.ok()) return status;
    chunks.clear();
    bytes = 0;
  }
  if (!next->status().ok()) return FromRocksDb(next->status(), kWhat);
  if (absl::Status status = MayMend(); !status.ok() || chunks.empty()) return status;
  return of_batch(chunks);
}

absl::Status RocksDbChunkStore::CheckSegments(
    const SegmentRange& range, const std::vector<std::pair<ChunkId, ChunkInfo>>& chunks) {
  for (const auto& [id, info] : chunks) {
    for (uint32_t level = 0; level < info.segment_bytes.size(); ++level) {
      const std::string key = rocksdb_format::SegmentKey(id, level);
      if (!range.Contains(key)) continue;
      rocksdb::PinnableSlice value;
      const rocksdb::Status read = db_->Get(PastTheCache(), family(kSegments), key, &value);
      // It may have been deleted since.
      if (!read.ok() && !read.IsNotFound()) return FromRocksDb(read, kWhat);
    }
  }
  return absl::OkStatus();
}

absl::Status RocksDbChunkStore::RewriteSegments(
    const SegmentRange& range, const std::vector<std::pair<ChunkId, ChunkInfo>>& chunks) {
  std::vector<ChunkId> ids;
  uint64_t bytes_max = 0;
  for (const auto& [id, info] : chunks) {
    ids.push_back(id);
    bytes_max += PayloadBytes(info) + 64 * info.segment_bytes.size();
  }
  absl::optional<CapacityKeeper::Room> room;
  if (keeper_ != nullptr) {
    // Without a claim, since eviction may need one while this waits.
    absl::StatusOr<CapacityKeeper::Room> admitted = keeper_->Admit(bytes_max + 1024, kWhat);
    if (!admitted.ok()) return admitted.status();
    room.emplace(*std::move(admitted));
  }
  const IdClaims::Claim claim(&chunk_claims_, ids);
  rocksdb::WriteBatch batch = NewBatch(bytes_max + 1024);
  uint64_t bytes = 0;
  for (const ChunkId& id : claim.ids()) {
    const absl::StatusOr<absl::optional<ChunkInfo>> info = GetInfo(id, kWhat);
    if (!info.ok()) return info.status();
    if (!info->has_value()) continue;
    for (uint32_t level = 0; level < (*info)->segment_bytes.size(); ++level) {
      const std::string key = rocksdb_format::SegmentKey(id, level);
      if (!range.Contains(key)) continue;
      rocksdb::PinnableSlice value;
      rocksdb::Status status = db_->Get(PastTheCache(), family(kSegments), key, &value);
      if (status.ok()) status = batch.Put(family(kSegments), key, value);
      if (!status.ok()) return FromRocksDb(status, kWhat);
      bytes += value.size() + 64;
    }
  }
  // A chunk has got back levels that it had lost, for which there is no room yet.
  if (bytes > bytes_max) return absl::UnavailableError("a chunk has grown");
  return bytes == 0 ? absl::OkStatus() : Write(&batch, StoreChange(), kWhat, Synced());
}

absl::Status RocksDbChunkStore::DeleteLeftovers(const SegmentRange& range,
                                                const rocksdb::ColumnFamilyMetaData& tables) {
  for (const auto& level : tables.levels) {
    for (const auto& table : level.files) {
      const bool overlaps = table.smallestkey <= range.end && table.largestkey >= range.begin;
      const bool goes = range.Contains(table.smallestkey) && range.Contains(table.largestkey);
      if (level.level == 0 || !overlaps || goes) continue;
      rocksdb::Options options;
      options.env = db_->GetEnv();
      rocksdb::SstFileReader reader(options);
      const rocksdb::Status opened = reader.Open(absl::StrCat(table.db_path, table.name));
      if (!opened.ok()) return FromRocksDb(opened, kWhat);
      const std::unique_ptr<rocksdb::Iterator> next(reader.NewIterator(PastTheCache()));
      std::vector<std::string> keys;
      for (next->Seek(range.begin); next->Valid() && ToView(next->key()) <= range.end;
           next->Next()) {
        keys.push_back(next->key().ToString());
        if (keys.size() < kBatchChunks) continue;
        absl::Status status = MayMend();
        if (status.ok()) status = DeleteUnused(keys);
        if (!status.ok()) return status;
        keys.clear();
      }
      if (!next->status().ok()) return FromRocksDb(next->status(), kWhat);
      if (absl::Status status = DeleteUnused(keys); !status.ok()) return status;
    }
  }
  return absl::OkStatus();
}

absl::Status RocksDbChunkStore::DeleteUnused(const std::vector<std::string>& keys) {
  std::vector<ChunkId> ids;
  for (const std::string& key : keys) {
    const auto id = rocksdb_format::DecodeIdKey(absl::string_view(key).substr(0, kIdBytes));
    if (!id.ok() || key.size() != rocksdb_format::kSegmentKeyBytes) {
      return absl::DataLossError(absl::StrCat(kWhat, ": a key of a segment is none"));
    }
    ids.push_back(*id);
  }
  const IdClaims::Claim claim(&chunk_claims_, ids);
  rocksdb::WriteBatch batch = NewBatch(0);
  bool any = false;
  for (size_t i = 0; i < keys.size(); ++i) {
    const absl::StatusOr<absl::optional<ChunkInfo>> info = GetInfo(ids[i], kWhat);
    if (!info.ok()) return info.status();
    const size_t level = static_cast<uint8_t>(keys[i].back());
    if (info->has_value() && level < (*info)->segment_bytes.size()) continue;
    const rocksdb::Status status = batch.Delete(family(kSegments), keys[i]);
    if (!status.ok()) return FromRocksDb(status, kWhat);
    any = true;
  }
  return any ? Write(&batch, StoreChange(), kWhat, Synced()) : absl::OkStatus();
}

}  // namespace kvstream

// The parts of RocksDbChunkStore that look for damage, and that copy the store.
#include <rocksdb/iterator.h>
#include <rocksdb/options.h>
#include <rocksdb/slice.h>
#include <rocksdb/sst_file_reader.h>
#include <rocksdb/utilities/checkpoint.h>

#include <algorithm>
#include <functional>
#include <memory>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "storage/chunk_limits.h"
#include "storage/id_text.h"
#include "storage/rocksdb/lifetime_format.h"
#include "storage/rocksdb/rocksdb_chunk_store.h"
#include "storage/rocksdb/skip_damage.h"
#include "storage/rocksdb/slices.h"
#include "storage/rocksdb/status_mapping.h"

namespace kvstream {
namespace {

using rocksdb_format::IdKey;

rocksdb::ReadOptions PastTheCache() {
  rocksdb::ReadOptions read;
  read.fill_cache = false;
  return read;
}

}  // namespace

absl::StatusOr<ScrubbedInfos> RocksDbChunkStore::ScrubInfos(const absl::optional<ChunkId>& after,
                                                            size_t limit) {
  ScrubbedInfos page;
  ChunkId last = after.value_or(ChunkId{});
  const std::unique_ptr<rocksdb::Iterator> it(db_->NewIterator(PastTheCache(), family(kChunks)));
  it->Seek(ToSlice(IdKey(last)));
  if (after.has_value() && it->Valid() && ToView(it->key()) == IdKey(last)) it->Next();
  while (page.chunks.size() + page.damaged.size() < limit) {
    if (!it->Valid()) {
      if (it->status().ok()) return page;
      if (!it->status().IsCorruption()) return FromRocksDb(it->status(), "ScrubInfos");
      const bool more = SkipDamage(IdKey(last), it.get());
      absl::optional<ChunkId> before;
      if (more) {
        const absl::StatusOr<ChunkId> id = rocksdb_format::DecodeIdKey(ToView(it->key()));
        if (!id.ok()) return id.status();
        before = *id;
      }
      const absl::Status found = FindChunks(last, before, limit, &page);
      if (!found.ok()) return found;
      if (page.next.has_value() || !more) return page;
      continue;
    }
    const absl::StatusOr<ChunkId> id = rocksdb_format::DecodeIdKey(ToView(it->key()));
    if (!id.ok()) return id.status();
    absl::StatusOr<ChunkInfo> info = rocksdb_format::DecodeChunkRecord(ToView(it->value()));
    if (info.ok()) {
      page.chunks.emplace_back(*id, *std::move(info));
    } else {
      page.damaged.push_back({*id, info.status()});
    }
    last = *id;
    it->Next();
  }
  page.next = last;
  return page;
}

// The chunks between two ids whose infos an iterator cannot reach, by their segments. Sets
// page->next if there are more than fit.
absl::Status RocksDbChunkStore::FindChunks(const ChunkId& after,
                                           const absl::optional<ChunkId>& before, size_t limit,
                                           ScrubbedInfos* page) {
  const std::unique_ptr<rocksdb::Iterator> it(db_->NewIterator(PastTheCache(), family(kSegments)));
  std::string last = rocksdb_format::SegmentKey(after, kMaxChunkLevels - 1);
  it->Seek(last);
  while (true) {
    if (!it->Valid()) {
      if (it->status().ok()) return absl::OkStatus();
      if (!it->status().IsCorruption()) return FromRocksDb(it->status(), "ScrubInfos");
      if (!SkipDamage(last, it.get())) return absl::OkStatus();
    }
    const absl::string_view key = ToView(it->key());
    const auto id = rocksdb_format::DecodeIdKey(key.substr(0, rocksdb_format::kIdBytes));
    if (!id.ok()) return id.status();
    if (before.has_value() && *id >= *before) return absl::OkStatus();
    // The seek above may have gone to the first id's own segments.
    if (*id > after) {
      absl::StatusOr<absl::optional<ChunkInfo>> info = GetInfo(*id, "reading its info");
      if (!info.ok()) {
        page->damaged.push_back({*id, info.status()});
      } else if (info->has_value()) {
        page->chunks.emplace_back(*id, **std::move(info));
      }
      if (page->chunks.size() + page->damaged.size() >= limit) {
        page->next = *id;
        return absl::OkStatus();
      }
    }
    last = rocksdb_format::SegmentKey(*id, kMaxChunkLevels - 1);
    it->Seek(last);
    if (it->Valid() && ToView(it->key()) == last) it->Next();
  }
}

absl::StatusOr<PinnedBytes> RocksDbChunkStore::ScrubSegment(const ChunkId& id, uint32_t level) {
  return *Read(PastTheCache(), id, level);
}

absl::StatusOr<ScrubbedFiles> RocksDbChunkStore::ScrubFiles(const std::string& after,
                                                            uint64_t bytes) {
  std::vector<rocksdb::LiveFileMetaData> tables;
  db_->GetLiveFilesMetaData(&tables);
  // Names grow with the files' age: what a compaction writes meanwhile comes last.
  std::sort(tables.begin(), tables.end(),
            [](const auto& a, const auto& b) { return a.name < b.name; });
  ScrubbedFiles page;
  rocksdb::Options options;
  options.env = db_->GetEnv();
  for (const rocksdb::LiveFileMetaData& table : tables) {
    if (table.name <= after) continue;
    if (page.bytes >= bytes) return page;
    const std::string path = absl::StrCat(table.db_path, table.name);
    rocksdb::SstFileReader reader(options);
    rocksdb::Status status = reader.Open(path);
    if (status.ok()) status = reader.VerifyChecksum();
    page.next = table.name;
    // A compaction may have deleted it.
    if (!status.ok() && options.env->FileExists(path).IsNotFound()) continue;
    ++page.files;
    page.bytes += table.size;
    if (status.ok()) continue;
    if (status.IsCorruption()) damaged_->Note(table.file_number, /*in_the_way=*/false);
    page.damaged.push_back({table.name, FromRocksDb(status, "ScrubFiles")});
  }
  page.next.clear();
  return page;
}

void RocksDbChunkStore::FindOwners(const ChunkId& id, ChunkInfo* info) {
  // Ends at damage: then the chunk counts as nobody's, or as a first one.
  const auto find = [&](Family in, const std::function<bool(absl::string_view)>& matches) {
    const std::unique_ptr<rocksdb::Iterator> it(db_->NewIterator(PastTheCache(), family(in)));
    for (it->SeekToFirst(); it->Valid(); it->Next()) {
      if (it->key().ends_with(ToSlice(IdKey(id))) && matches(ToView(it->key()))) return;
    }
  };
  find(kTenants, [&](absl::string_view key) {
    const absl::string_view tenant = key.substr(1, key.size() - 1 - rocksdb_format::kIdBytes);
    if (key != rocksdb_format::TenantKey(tenant, id)) return false;
    info->tenant = std::string(tenant);
    return true;
  });
  find(kChildren, [&](absl::string_view key) {
    const auto parent = rocksdb_format::DecodeIdKey(key.substr(0, rocksdb_format::kIdBytes));
    if (!parent.ok() || key != rocksdb_format::ChildKey(*parent, id)) return false;
    info->parent = *parent;
    return true;
  });
}

ChunkInfo RocksDbChunkStore::LeftOf(const ChunkId& id) {
  ChunkInfo info;
  FindOwners(id, &info);
  for (uint32_t level = 0; level < kMaxChunkLevels; ++level) {
    const absl::StatusOr<PinnedBytes> segment = ScrubSegment(id, level);
    info.segment_bytes.push_back(segment.ok() ? segment->bytes().size() : 0);
  }
  return info;
}

absl::StatusOr<bool> RocksDbChunkStore::DiscardOne(const ChunkId& id) {
  const IdClaims::Claim claim(&chunk_claims_, absl::MakeConstSpan(&id, 1));
  const std::string what = absl::StrCat("Discard of chunk ", ShortHex(id));
  const absl::StatusOr<absl::optional<ChunkInfo>> info = GetInfo(id, what);
  if (info.ok() && !info->has_value()) return false;
  // Only damage: another error says nothing of the chunk.
  if (!info.ok() && !absl::IsDataLoss(info.status())) return info.status();
  // As Delete: whoever wants it gone ends the pin first.
  if (pins_.Pinned(id, options_.now())) return false;
  // An expiry of one whose info cannot be read is left over, which Expire takes.
  const ChunkInfo removed = info.ok() ? **info : LeftOf(id);
  rocksdb::WriteBatch batch;
  const rocksdb::Status status = BatchRemoval(id, removed, &batch);
  if (!status.ok()) return FromRocksDb(status, what);
  StoreChange change;
  change.Add(removed, uint64_t{0} - 1, uint64_t{0} - PayloadBytes(removed));
  if (absl::Status written = Write(&batch, change, what); !written.ok()) return written;
  Removed(id);
  return true;
}

absl::StatusOr<size_t> RocksDbChunkStore::Discard(absl::Span<const ChunkId> ids) {
  size_t discarded = 0;
  for (const ChunkId& id : ids) {
    const absl::StatusOr<bool> one = DiscardOne(id);
    if (!one.ok()) return one.status();
    discarded += *one ? 1 : 0;
  }
  if (discarded > 0) MendSoon();
  return discarded;
}

absl::Status RocksDbChunkStore::Backup(const std::string& dir) {
  const std::string what = absl::StrCat("Backup to ", dir);
  if (db_->GetEnv()->FileExists(dir).ok()) {
    return absl::FailedPreconditionError(absl::StrCat(what, ": it exists already"));
  }
  rocksdb::Checkpoint* made = nullptr;
  rocksdb::Status status = rocksdb::Checkpoint::Create(db_.get(), &made);
  const std::unique_ptr<rocksdb::Checkpoint> checkpoint(made);
  // Writes DIR.tmp, syncs and renames it.
  if (status.ok()) status = checkpoint->CreateCheckpoint(dir);
  return FromRocksDb(status, what);
}

}  // namespace kvstream

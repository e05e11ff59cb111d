#include "storage/rados/rados_chunk_store.h"

#include <algorithm>
#include <cerrno>
#include <random>

#include "absl/memory/memory.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "storage/chunk_limits.h"
#include "storage/id_text.h"
#include "storage/rados/rados_data.h"
#include "storage/rados/rados_format.h"

namespace kvstream {
namespace {

using rados_format::DataRecord;
using rados_format::GarbageState;
using rados_format::Generation;

// As many as the index bears before it says that it is too contended.
constexpr int kPutAttempts = 1000;
// Whoever sweeps is alone for so long, or until it is done.
constexpr int kSweepLockSeconds = 300;
constexpr char kSweepLock[] = "sweep";

// Unguessable is not needed; that no two are ever the same is.
Generation NewGeneration() {
  thread_local std::random_device device;
  Generation generation;
  for (size_t i = 0; i < generation.size(); i += 4) {
    const uint32_t bits = device();
    for (size_t k = 0; k < 4; ++k) generation[i + k] = static_cast<uint8_t>(bits >> (8 * k));
  }
  return generation;
}

// Whether a Put restores what the stored chunk has lost; then `given` becomes what is to be stored.
bool Restore(const DataRecord& stored, DataRecord* given) {
  if (!RestoresLevels(stored.info, given->info)) return false;
  // The whole chunk is written anew, but the levels that loads have seen must stay what they were.
  if (!std::equal(stored.hashes.begin(), stored.hashes.end(), given->hashes.begin())) return false;
  given->info.created = stored.info.created;
  given->info.expires = stored.info.expires;
  given->info.model = stored.info.model;
  given->info.levels_lost =
      static_cast<uint32_t>(stored.info.levels_lost + stored.info.segment_bytes.size() -
                            given->info.segment_bytes.size());
  return true;
}

}  // namespace

absl::Status RadosChunkStoreOptions::Validate() const {
  if (absl::Status status = pool.Validate(); !status.ok()) return status;
  if (shards < 1 || shards > rados_format::kMaxShards || (shards & (shards - 1)) != 0) {
    return absl::InvalidArgumentError("rados: shards must be a power of two from 1 to 4096");
  }
  if (info_max_age < absl::ZeroDuration() || retire_age < info_max_age || upload_age < retire_age) {
    return absl::InvalidArgumentError(
        "rados: of 0, info_max_age, retire_age and upload_age none may be less than the one "
        "before it");
  }
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<RadosChunkStore>> RadosChunkStore::Create(
    const RadosChunkStoreOptions& options) {
  if (absl::Status status = options.Validate(); !status.ok()) return status;
  RadosChunkStoreOptions complete = options;
  if (complete.clock == nullptr) complete.clock = [] { return absl::Now(); };
  auto store = absl::WrapUnique(new RadosChunkStore(std::move(complete)));
  if (absl::Status status = store->Open(); !status.ok()) return status;
  return store;
}

absl::Status RadosChunkStore::Open() {
  absl::StatusOr<std::unique_ptr<RadosPool>> pool = RadosPool::Connect(options_.pool);
  if (!pool.ok()) return pool.status();
  pool_ = *std::move(pool);
  const absl::StatusOr<rados_format::StoreHeader> header = ReadOrMakeHeader();
  if (!header.ok()) return header.status();
  std::vector<std::string> objects;
  for (uint32_t shard = 0; shard < header->shards; ++shard) {
    objects.push_back(rados_format::IndexObject(shard));
  }
  chunks_ = std::make_unique<RadosIndex>(pool_.get(), std::move(objects), options_.info_cache_bytes,
                                         options_.clock);
  profiles_ = std::make_unique<RadosIndex>(
      pool_.get(), std::vector<std::string>{rados_format::kProfilesIndex}, 0, options_.clock);
  const Generation cookie = NewGeneration();
  lock_cookie_ = absl::BytesToHexString(
      absl::string_view(reinterpret_cast<const char*>(cookie.data()), cookie.size()));
  if (options_.sweep_interval < absl::InfiniteDuration()) {
    sweeper_ = std::thread([this] { SweepUntilClosed(); });
  }
  return absl::OkStatus();
}

RadosChunkStore::~RadosChunkStore() {
  {
    absl::MutexLock lock(&mutex_);
    closing_ = true;
  }
  if (sweeper_.joinable()) sweeper_.join();
}

absl::StatusOr<rados_format::StoreHeader> RadosChunkStore::ReadOrMakeHeader() {
  constexpr absl::string_view kWhat = "opening the store in the Ceph pool";
  constexpr size_t kMost = 64;
  rados_format::StoreHeader header;
  for (;;) {
    char bytes[kMost];
    const int rc = rados_read(pool_->io(), rados_format::kHeaderObject, bytes, kMost, 0);
    if (rc >= 0) return rados_format::DecodeHeader(absl::string_view(bytes, rc));
    if (rc != -ENOENT) return RadosError(rc, kWhat);

    // The header comes last: a store that has one has all its index objects. Several daemons may
    // be at it at once; the first one's header counts, and index objects too many do no harm.
    header.shards = options_.shards;
    absl::Status status;
    pool_->RunAll(
        header.shards + 1,
        [&](size_t i, rados_completion_t completion) {
          const rados_write_op_t op = rados_create_write_op();
          rados_write_op_create(op, LIBRADOS_CREATE_IDEMPOTENT, nullptr);
          const std::string object = i < header.shards
                                         ? rados_format::IndexObject(static_cast<uint32_t>(i))
                                         : rados_format::kProfilesIndex;
          const int started = rados_aio_write_op_operate(
              op, pool_->io(), completion, object.c_str(), nullptr, LIBRADOS_OPERATION_NOFLAG);
          rados_release_write_op(op);
          return started;
        },
        [&](size_t, int made) {
          if (made < 0) status.Update(RadosError(made, kWhat));
        });
    if (!status.ok()) return status;
    const std::string encoded = rados_format::EncodeHeader(header);
    const rados_write_op_t op = rados_create_write_op();
    rados_write_op_create(op, LIBRADOS_CREATE_EXCLUSIVE, nullptr);
    rados_write_op_write_full(op, encoded.data(), encoded.size());
    const int made = rados_write_op_operate(op, pool_->io(), rados_format::kHeaderObject, nullptr,
                                            LIBRADOS_OPERATION_NOFLAG);
    rados_release_write_op(op);
    if (made < 0 && made != -EEXIST) return RadosError(made, kWhat);
  }
}

absl::StatusOr<bool> RadosChunkStore::PutIn(RadosIndex* index, absl::string_view what,
                                            const ChunkId& id, const ChunkInfo& info,
                                            absl::Span<const absl::string_view> segments) {
  DataRecord given;
  given.generation = NewGeneration();
  given.info = info;
  for (absl::string_view segment : segments) {
    given.hashes.push_back(rados_format::HashBytes(segment));
  }
  const RadosDataName name = {id, given.generation};
  const uint64_t total_bytes = PayloadBytes(info);
  // Spares what would otherwise be written twice by this daemon; others are met at the commit.
  const IdClaims::Claim claim(&writers_, {id});
  std::string upload;
  // What it cannot remove now the sweep will.
  const auto discard = [&] {
    if (upload.empty()) return;
    if (!ShrinkRadosData(*pool_, what, name, 0, total_bytes).ok()) return;
    index->Withdraw(what, id, upload).IgnoreError();
  };
  for (int attempt = 0; attempt < kPutAttempts; ++attempt) {
    absl::StatusOr<RadosIndexEntry> seen = index->Look(what, id, upload);
    if (!seen.ok()) return seen.status();
    DataRecord record = given;
    if (seen->record.has_value() && !Restore(*seen->record, &record)) {
      discard();
      return false;
    }
    if (upload.empty()) {
      absl::StatusOr<std::string> announced =
          index->Announce(what, id, given.generation, total_bytes);
      if (!announced.ok()) return announced.status();
      upload = *std::move(announced);
      if (absl::Status status = WriteRadosData(*pool_, what, name, segments); !status.ok()) {
        // An answer means that nothing is under way any more that could write it again.
        if (!absl::IsUnavailable(status)) discard();
        return status;
      }
    } else if (!seen->upload_alive) {
      return absl::UnavailableError(absl::StrCat(what, ": the upload took longer than ",
                                                 absl::FormatDuration(options_.upload_age)));
    }
    const absl::StatusOr<bool> done = index->Commit(what, id, *seen, upload, record);
    if (!done.ok() || *done) return done;
    if (attempt > 0) RadosIndex::BackOff(attempt);
  }
  discard();
  return absl::UnavailableError(absl::StrCat(what, ": other writers were always faster"));
}

absl::StatusOr<bool> RadosChunkStore::Put(const ChunkId& id, const ChunkInfo& info,
                                          absl::Span<const absl::string_view> segments) {
  if (absl::Status status = ValidateChunk(id, info, segments); !status.ok()) return status;
  return PutIn(chunks_.get(), absl::StrCat("Put of chunk ", ShortHex(id)), id, info, segments);
}

absl::StatusOr<std::vector<absl::optional<ChunkInfo>>> RadosChunkStore::GetInfos(
    absl::Span<const ChunkId> ids) {
  auto found = chunks_->Find("GetInfos", ids, options_.info_max_age);
  if (!found.ok()) return found.status();
  std::vector<absl::optional<ChunkInfo>> infos(ids.size());
  for (size_t i = 0; i < ids.size(); ++i) {
    if ((*found)[i].has_value()) infos[i] = std::move((*found)[i]->info);
  }
  return infos;
}

absl::StatusOr<size_t> RadosChunkStore::LongestPrefix(absl::Span<const ChunkId> ids) {
  // What lies far behind the first gap is not asked for.
  constexpr size_t kStep = 1024;
  for (size_t begin = 0; begin < ids.size(); begin += kStep) {
    const auto found =
        chunks_->Find("LongestPrefix", ids.subspan(begin, kStep), options_.info_max_age);
    if (!found.ok()) return found.status();
    const auto gap = std::find(found->begin(), found->end(), absl::nullopt);
    if (gap != found->end()) return begin + (gap - found->begin());
  }
  return ids.size();
}

absl::StatusOr<PinnedBytes> RadosChunkStore::ReadIn(RadosIndex* index, absl::string_view what,
                                                    const ChunkId& id, uint32_t level) {
  // A record of any age will do: the data that it names never changes, and while it is there it is
  // the chunk's. Else the record is asked for again.
  absl::Duration max_age = absl::InfiniteDuration();
  Generation tried = {};
  uint64_t tried_bytes = 0;
  for (bool first = true;; first = false) {
    const auto found = index->Find(what, {id}, max_age);
    if (!found.ok()) return found.status();
    if (!found->front().has_value()) {
      return absl::NotFoundError(absl::StrCat(what, ": it is not stored"));
    }
    const DataRecord& record = *found->front();
    const size_t levels = record.info.segment_bytes.size();
    if (level >= levels) {
      // It may have been restored since.
      if (first) {
        max_age = absl::ZeroDuration();
        continue;
      }
      return absl::NotFoundError(
          absl::StrCat(what, ": level ", level, " does not exist; it has ", levels, " levels"));
    }
    const uint64_t offset = [&] {
      uint64_t sum = 0;
      for (uint32_t below = 0; below < level; ++below) sum += record.info.segment_bytes[below];
      return sum;
    }();
    const uint64_t bytes = record.info.segment_bytes[level];
    absl::StatusOr<PinnedBytes> read =
        ReadRadosData(*pool_, what, {id, record.generation}, offset, bytes);
    if (read.ok()) {
      if (rados_format::HashBytes(read->bytes()) == record.hashes[level]) return read;
      return absl::DataLossError(
          absl::StrCat(what, ": level ", level, ": ", bytes, " bytes fail their checksum"));
    }
    if (!absl::IsNotFound(read.status())) return read.status();
    if (!first && tried == record.generation && tried_bytes == bytes) {
      return absl::DataLossError(
          absl::StrCat(what, ": level ", level, ": its object is missing from the pool or short"));
    }
    tried = record.generation;
    tried_bytes = bytes;
    max_age = absl::ZeroDuration();
  }
}

absl::StatusOr<PinnedBytes> RadosChunkStore::ReadSegment(const ChunkId& id, uint32_t level) {
  return ReadIn(chunks_.get(), absl::StrCat("ReadSegment of chunk ", ShortHex(id)), id, level);
}

absl::StatusOr<size_t> RadosChunkStore::Delete(absl::Span<const ChunkId> ids) {
  return chunks_->Change("Delete", ids, [](const DataRecord& record) {
    RadosIndexChange change;
    change.retired = {GarbageState::kRetired, 0, PayloadBytes(record.info)};
    return absl::make_optional(change);
  });
}

absl::StatusOr<size_t> RadosChunkStore::Trim(absl::Span<const ChunkId> ids, uint32_t keep_levels) {
  if (absl::Status status = ValidateTrim(keep_levels); !status.ok()) return status;
  const std::vector<ChunkId> removable = holds_.BeginRemoval(ids);
  const auto changed = chunks_->Change(
      "Trim", removable, [&](const DataRecord& record) -> absl::optional<RadosIndexChange> {
        if (record.info.segment_bytes.size() <= keep_levels) return absl::nullopt;
        RadosIndexChange change;
        change.record = record;
        TrimInfo(&change.record->info, keep_levels);
        change.record->hashes.resize(keep_levels);
        change.retired = {GarbageState::kRetired, PayloadBytes(change.record->info),
                          PayloadBytes(record.info)};
        return change;
      });
  holds_.EndRemoval(removable);
  return changed;
}

absl::StatusOr<std::vector<std::pair<ChunkId, ChunkInfo>>> RadosChunkStore::List(
    const absl::optional<ChunkId>& after, size_t limit) {
  return chunks_->List("List", after, limit);
}

absl::StatusOr<bool> RadosChunkStore::PutProfile(const StoredProfileId& id,
                                                 absl::string_view bytes) {
  if (absl::Status status = ValidateProfile(id, bytes); !status.ok()) return status;
  ChunkInfo info;
  info.segment_bytes = {bytes.size()};
  info.created = options_.clock();
  return PutIn(profiles_.get(), absl::StrCat("PutProfile of profile ", ShortHex(id)), id, info,
               {bytes});
}

absl::StatusOr<std::string> RadosChunkStore::GetProfile(const StoredProfileId& id) {
  const absl::StatusOr<PinnedBytes> read =
      ReadIn(profiles_.get(), absl::StrCat("GetProfile of profile ", ShortHex(id)), id, 0);
  if (!read.ok()) return read.status();
  return std::string(read->bytes());
}

absl::StatusOr<std::vector<StoredProfileId>> RadosChunkStore::ListProfiles() {
  constexpr size_t kPage = 1000;
  std::vector<StoredProfileId> ids;
  absl::optional<ChunkId> after;
  for (;;) {
    const auto page = profiles_->List("ListProfiles", after, kPage);
    if (!page.ok()) return page.status();
    for (const auto& [id, info] : *page) ids.push_back(id);
    if (page->size() < kPage) return ids;
    after = ids.back();
  }
}

absl::StatusOr<StoreStats> RadosChunkStore::Stats() {
  const auto counters = chunks_->Count("Stats");
  if (!counters.ok()) return counters.status();
  StoreStats stats;
  stats.chunks = counters->chunks;
  stats.payload_bytes = counters->payload_bytes;
  return stats;
}

absl::StatusOr<size_t> RadosChunkStore::CollectGarbage() {
  constexpr absl::string_view kWhat = "sweeping the pool";
  timeval duration = {kSweepLockSeconds, 0};
  const int rc = rados_lock_exclusive(pool_->io(), rados_format::kSweepObject, kSweepLock,
                                      lock_cookie_.c_str(), "kvstreamd", &duration,
                                      LIBRADOS_LOCK_FLAG_MAY_RENEW);
  if (rc == -EBUSY) return 0;
  if (rc < 0 && rc != -EEXIST) return RadosError(rc, kWhat);
  const absl::Time now = options_.clock();
  size_t removed = 0;
  absl::Status status;
  for (RadosIndex* index : {chunks_.get(), profiles_.get()}) {
    const absl::StatusOr<size_t> collected =
        index->CollectGarbage(kWhat, now - options_.upload_age, now - options_.retire_age);
    status.Update(collected.status());
    if (collected.ok()) removed += *collected;
  }
  rados_unlock(pool_->io(), rados_format::kSweepObject, kSweepLock, lock_cookie_.c_str());
  if (!status.ok()) return status;
  return removed;
}

void RadosChunkStore::SweepUntilClosed() {
  absl::MutexLock lock(&mutex_);
  while (!mutex_.AwaitWithTimeout(absl::Condition(this, &RadosChunkStore::closing),
                                  options_.sweep_interval)) {
    mutex_.Unlock();
    // A cluster that is down now may be up at the next turn; requests report it.
    CollectGarbage().IgnoreError();
    mutex_.Lock();
  }
}

}  // namespace kvstream

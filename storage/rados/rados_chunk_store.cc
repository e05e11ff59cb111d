#include "storage/rados/rados_chunk_store.h"

#include <algorithm>
#include <cerrno>
#include <random>
#include <set>

#include "absl/memory/memory.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "storage/call_deadline.h"
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
constexpr size_t kDoomedAtOnce = 1024;
constexpr uint32_t kNewStoreShards = 256;
// Whoever sweeps is alone for so long, or until it is done.
constexpr absl::Duration kSweepLockTime = absl::Minutes(5);

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
  given->info.expires = std::max(stored.info.expires, given->info.expires);
  given->info.model = stored.info.model;
  given->info.tenant = stored.info.tenant;
  given->info.outer_id = stored.info.outer_id;
  given->info.outer_parent = stored.info.outer_parent;
  given->pins = stored.pins;
  given->info.levels_lost =
      static_cast<uint32_t>(stored.info.levels_lost + stored.info.segment_bytes.size() -
                            given->info.segment_bytes.size());
  return true;
}

bool SameSegment(const DataRecord& a, const DataRecord& b, uint32_t level) {
  return level < a.hashes.size() && level < b.hashes.size() && a.hashes[level] == b.hashes[level] &&
         a.info.segment_bytes[level] == b.info.segment_bytes[level];
}

absl::Status NoSuchLevel(absl::string_view what, uint32_t level, const DataRecord& record) {
  return absl::NotFoundError(absl::StrCat(what, ": level ", level, " does not exist; it has ",
                                          record.hashes.size(), " levels"));
}

SegmentVersion VersionOf(const DataRecord& record, uint32_t level) {
  return {record.info.segment_bytes[level], record.hashes[level], record.info.tokens,
          record.info.first_token};
}

std::string ReadOf(const ChunkId& id) {
  return absl::StrCat("ReadSegment of chunk ", ShortHex(id));
}

}  // namespace

absl::Status RadosChunkStoreOptions::Validate() const {
  if (absl::Status status = pool.Validate(); !status.ok()) return status;
  if (shards > rados_format::kMaxShards || (shards & (shards - 1)) != 0) {
    return absl::InvalidArgumentError(
        "rados: shards must be a power of two from 1 to 4096, or 0 for those that there are");
  }
  if (info_max_age < absl::ZeroDuration() || pressed_retire_age < info_max_age ||
      retire_age < pressed_retire_age || upload_age < retire_age) {
    return absl::InvalidArgumentError(
        "rados: of 0, info_max_age, pressed_retire_age, retire_age and upload_age none may be less "
        "than the one before it");
  }
  if (lease_interval < absl::InfiniteDuration() &&
      (lease_interval < absl::Milliseconds(1) || lease_interval > pressed_retire_age / 4)) {
    return absl::InvalidArgumentError(
        "rados: lease_interval must be from a millisecond to a quarter of pressed_retire_age");
  }
  if (keeper_interval < absl::Milliseconds(1) || usage_interval < absl::ZeroDuration()) {
    return absl::InvalidArgumentError("rados: keeper_interval must be at least a millisecond");
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
  if (options_.shards != 0 && header->shards != options_.shards) {
    return absl::FailedPreconditionError(
        absl::StrCat("the store in the Ceph pool has ", header->shards, " shards, not ",
                     options_.shards, ": their number is settled when a store is made; ask for ",
                     header->shards, " or for none, or take another namespace"));
  }
  std::vector<std::string> objects;
  for (uint32_t shard = 0; shard < header->shards; ++shard) {
    objects.push_back(rados_format::IndexObject(shard));
  }
  chunks_ = std::make_unique<RadosIndex>(pool_.get(), objects, options_.info_cache_bytes,
                                         options_.clock, &tenants_);
  profiles_ = std::make_unique<RadosIndex>(
      pool_.get(), std::vector<std::string>{rados_format::kProfilesIndex}, 0, options_.clock);
  const Generation cookie = NewGeneration();
  lock_cookie_ = absl::BytesToHexString(
      absl::string_view(reinterpret_cast<const char*>(cookie.data()), cookie.size()));
  usage_ = std::make_unique<RadosUsage>(pool_.get(), chunks_.get());
  leases_ = std::make_unique<RadosLeases>(pool_.get(), lock_cookie_, options_.clock);
  if (options_.lease_interval < absl::InfiniteDuration()) {
    leaser_ = std::thread([this] { LeaseUntilClosed(); });
  }
  if (options_.sweep_interval < absl::InfiniteDuration()) {
    sweeper_ = std::thread([this] { SweepUntilClosed(); });
  }
  if (options_.capacity_bytes == 0) return absl::OkStatus();
  objects.push_back(rados_format::kProfilesIndex);
  uint64_t number = 0;  // of this daemon, as the cookie
  for (size_t i = 0; i < 8; ++i) number = number << 8 | cookie[i];
  number = std::max<uint64_t>(number, 1);
  {
    absl::MutexLock lock(&keeper_mutex_);
    room_ = std::make_unique<RadosRoom>(pool_.get(), std::move(objects), options_.capacity_bytes,
                                        number);
    evictor_ = std::make_unique<RadosEvictor>(pool_.get(), chunks_.get(), usage_.get(), &holds_,
                                              leases_.get(), number, options_.clock);
  }
  if (absl::Status status = usage_->ReadClock("opening the store in the Ceph pool"); !status.ok()) {
    return status;
  }
  if (options_.keeper_interval < absl::InfiniteDuration()) {
    // Puts may begin when this returns, so the bound must hold by then.
    if (const absl::StatusOr<bool> kept = KeepRoom(); !kept.ok()) return kept.status();
    keeper_ = std::thread([this] { KeepRoomUntilClosed(); });
  }
  return absl::OkStatus();
}

RadosChunkStore::~RadosChunkStore() {
  {
    absl::MutexLock lock(&mutex_);
    closing_ = true;
  }
  if (sweeper_.joinable()) sweeper_.join();
  if (leaser_.joinable()) leaser_.join();
  if (leases_ != nullptr) {
    leases_->Tell("closing the store", {}, absl::InfinitePast()).IgnoreError();
  }
  if (keeper_.joinable()) {
    keeper_.join();
    // What fails from here on another daemon will make up for, later.
    FlushUsage().IgnoreError();
    Unlock(rados_format::kKeeperLock);
  }
  if (expires_.load()) Unlock(rados_format::kExpiryLock);
  std::vector<ChunkId> doomed;
  {
    absl::MutexLock lock(&mutex_);
    doomed.assign(doomed_.begin(), doomed_.end());
  }
  if (!doomed.empty()) CompleteDeletions("closing the store", doomed).IgnoreError();
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
    header.shards = options_.shards == 0 ? kNewStoreShards : options_.shards;
    const std::vector<std::string> others = {
        rados_format::kProfilesIndex, rados_format::kCapacityObject, rados_format::kLeasesObject};
    absl::Status status;
    pool_->RunAll(
        header.shards + others.size(),
        [&](size_t i, rados_completion_t completion) {
          const rados_write_op_t op = rados_create_write_op();
          rados_write_op_create(op, LIBRADOS_CREATE_IDEMPOTENT, nullptr);
          const std::string object = i < header.shards
                                         ? rados_format::IndexObject(static_cast<uint32_t>(i))
                                         : others[i - header.shards];
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
  given.info.created = WholeNanos(info.created);
  given.info.expires = WholeNanos(info.expires);
  for (absl::string_view segment : segments) {
    given.hashes.push_back(rados_format::HashBytes(segment));
  }
  const uint64_t total_bytes = PayloadBytes(info);
  if (options_.capacity_bytes > 0 && total_bytes > options_.capacity_bytes / kHeadroomPart) {
    return absl::ResourceExhaustedError(
        absl::StrCat(what, ": its ", total_bytes, " bytes are more than an eighth of the pool's ",
                     "capacity of ", options_.capacity_bytes, " bytes"));
  }
  // Spares what would otherwise be written twice by this daemon; others are met at the commit.
  const IdClaims::Claim claim(&writers_, {id}, CallDeadline::Current());
  if (!claim.held()) return claim.Late(what);
  // Eviction should not take what is to be restored; it would be restored in vain.
  const ChunkHold hold = holds_.HoldFromNowOn({id});
  absl::optional<EvictionIndex::Usage> usage;
  if (options_.capacity_bytes > 0 && index == chunks_.get()) {
    usage = EvictionIndex::Usage{usage_->clock(), 1};
  }
  std::string upload;
  // What it cannot remove now the sweep will.
  const auto discard = [&] {
    if (upload.empty()) return;
    const RadosDataCut all = {{id, given.generation}, 0, total_bytes};
    if (!ShrinkRadosData(*pool_, what, {all}).ok()) return;
    index->Withdraw(what, id, upload, given).IgnoreError();
  };
  const absl::Time start = absl::Now();
  CallDeadline deadline(absl::InfiniteFuture());
  for (int attempt = 0; attempt < kPutAttempts;) {
    absl::StatusOr<RadosIndexEntry> seen = index->Look(what, id, upload, info.tenant);
    if (!seen.ok()) return seen.status();
    DataRecord record = given;
    if (seen->record.has_value() && !Restore(*seen->record, &record)) {
      discard();
      upload.clear();
      const bool kept = seen->record->info.expires >= given.info.expires &&
                        seen->record->doomed == absl::InfiniteFuture();
      if (kept) return false;
      const absl::StatusOr<size_t> renewed = RenewIn(index, what, {id}, given.info.expires);
      if (!renewed.ok()) return renewed.status();
      if (*renewed > 0) return false;
      ++attempt;  // deleted in between; what was written is gone as well
      given.generation = NewGeneration();
      continue;
    }
    if (upload.empty()) {
      const absl::StatusOr<RadosAnnounced> announced =
          index->Announce(what, id, given, &*seen, &upload);
      if (!announced.ok()) return announced.status();
      if (*announced == RadosAnnounced::kNoRoom) {
        if (absl::Status status = AwaitRoom(what, total_bytes, start); !status.ok()) return status;
        continue;
      }
      if (*announced == RadosAnnounced::kConflict) {
        RadosIndex::BackOff(attempt++);
        continue;
      }
      // From here on it is brought to an end, each step within op_timeout: an upload that is left
      // as it is keeps its room until a sweep takes it away.
      deadline.Lift();
      // Both only once they are announced, so that whoever finds the announcement finds them.
      if (absl::Status status = WriteRadosData(*pool_, what, {id, given.generation}, segments,
                                               index->NameWrite(id, given));
          !status.ok()) {
        // An answer means that nothing is under way any more that could write it again.
        if (!absl::IsUnavailable(status)) discard();
        return status;
      }
    } else if (!seen->upload_alive) {
      discard();  // what was written after the sweep had passed
      return absl::UnavailableError(absl::StrCat(what, ": the upload took longer than ",
                                                 absl::FormatDuration(options_.upload_age)));
    }
    const absl::StatusOr<bool> done = index->Commit(what, id, *seen, upload, record, usage);
    if (index == chunks_.get()) held_.Forget(id);
    if (!done.ok() || *done) return done;
    if (attempt++ > 0) RadosIndex::BackOff(attempt);
  }
  discard();
  return absl::UnavailableError(absl::StrCat(what, ": other writers were always faster"));
}

absl::StatusOr<bool> RadosChunkStore::Put(const ChunkId& id, const ChunkInfo& info,
                                          absl::Span<const absl::string_view> segments) {
  if (absl::Status status = ValidateChunk(id, info, segments); !status.ok()) return status;
  return PutIn(chunks_.get(), absl::StrCat("Put of chunk ", ShortHex(id)), id, info, segments);
}

ChunkHold RadosChunkStore::Hold(absl::Span<const ChunkId> ids) {
  std::vector<ChunkId> kept(ids.begin(), ids.end());
  held_.Hold(kept, options_.clock());
  // In a shared place since a function that is copied cannot own what is not. A removal that is
  // under way here is not waited for, which may be long: it is as one of another daemon.
  auto inner = std::make_shared<ChunkHold>(holds_.HoldFromNowOn(ids));
  return ChunkHold([this, kept = std::move(kept), inner = std::move(inner)]() mutable {
    held_.Release(kept);
    inner.reset();
  });
}

absl::StatusOr<std::vector<absl::optional<ChunkInfo>>> RadosChunkStore::GetInfos(
    absl::Span<const ChunkId> ids) {
  auto found = chunks_->Find("GetInfos", ids, options_.info_max_age);
  if (!found.ok()) return found.status();
  std::vector<absl::optional<ChunkInfo>> infos(ids.size());
  for (size_t i = 0; i < ids.size(); ++i) {
    absl::optional<DataRecord>& record = (*found)[i];
    if (record.has_value() && held_.Agree(ids[i], *record)) infos[i] = std::move(record->info);
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
    for (size_t i = 0; i < found->size(); ++i) {
      const absl::optional<DataRecord>& record = (*found)[i];
      if (!record.has_value() || !held_.Agree(ids[begin + i], *record)) return begin + i;
    }
  }
  return ids.size();
}

absl::StatusOr<DataRecord> RadosChunkStore::Record(RadosIndex* index, absl::string_view what,
                                                   const ChunkId& id, absl::Duration max_age) {
  auto found = index->Find(what, {id}, max_age);
  if (!found.ok()) return found.status();
  if (found->front().has_value()) return *std::move(found->front());
  return absl::NotFoundError(absl::StrCat(what, ": it is not stored"));
}

absl::StatusOr<PinnedBytes> RadosChunkStore::ReadLevel(absl::string_view what, const ChunkId& id,
                                                       const DataRecord& record, uint32_t level) {
  if (level >= record.hashes.size()) return NoSuchLevel(what, level, record);
  uint64_t offset = 0;
  for (uint32_t below = 0; below < level; ++below) offset += record.info.segment_bytes[below];
  const uint64_t bytes = record.info.segment_bytes[level];
  absl::StatusOr<PinnedBytes> read =
      ReadRadosData(*pool_, what, {id, record.generation}, offset, bytes);
  if (!read.ok() || rados_format::HashBytes(read->bytes()) == record.hashes[level]) return read;
  return absl::DataLossError(
      absl::StrCat(what, ": level ", level, ": ", bytes, " bytes fail their checksum"));
}

absl::StatusOr<PinnedBytes> RadosChunkStore::ReadIn(RadosIndex* index, absl::string_view what,
                                                    const ChunkId& id, uint32_t level) {
  // A record of any age will do: the data that it names never changes, and while it is there it is
  // the chunk's. Else the record is asked for again.
  absl::Duration max_age = absl::InfiniteDuration();
  absl::optional<DataRecord> tried;
  for (;;) {
    const absl::StatusOr<DataRecord> record = Record(index, what, id, max_age);
    if (!record.ok()) return record.status();
    absl::StatusOr<PinnedBytes> read = ReadLevel(what, id, *record, level);
    if (!absl::IsNotFound(read.status())) return read;
    if (max_age == absl::ZeroDuration()) {
      // Asked a moment ago, so what it names should be there.
      if (level >= record->hashes.size()) return read;
      if (tried.has_value() && tried->generation == record->generation &&
          SameSegment(*tried, *record, level)) {
        return absl::DataLossError(absl::StrCat(what, ": level ", level,
                                                ": its object is missing from the pool or short"));
      }
      tried = *record;  // replaced in between; or not, as the next turn will tell
    }
    max_age = absl::ZeroDuration();
  }
}

absl::StatusOr<PinnedBytes> RadosChunkStore::ReadSegment(const ChunkId& id, uint32_t level) {
  const std::string what = ReadOf(id);
  const std::shared_ptr<const DataRecord> held = held_.Find(id);
  if (held == nullptr || level >= held->hashes.size()) {
    return ReadIn(chunks_.get(), what, id, level);
  }
  absl::StatusOr<PinnedBytes> read = ReadLevel(what, id, *held, level);
  if (!absl::IsNotFound(read.status())) return read;
  // Its time was over. What is stored now will do if it is the same.
  const absl::StatusOr<DataRecord> record = Record(chunks_.get(), what, id, absl::ZeroDuration());
  if (!record.ok()) return record.status();
  if (record->generation == held->generation) return ReadIn(chunks_.get(), what, id, level);
  if (!SameSegment(*held, *record, level)) {
    return absl::NotFoundError(absl::StrCat(what, ": another daemon has replaced it"));
  }
  return ReadLevel(what, id, *record, level);
}

absl::StatusOr<SegmentVersion> RadosChunkStore::Version(const ChunkId& id, uint32_t level) {
  if (const absl::optional<SegmentVersion> known = TryVersion(id, level)) return *known;
  const std::string what = ReadOf(id);
  const absl::StatusOr<DataRecord> record = Record(chunks_.get(), what, id, absl::ZeroDuration());
  if (!record.ok()) return record.status();
  if (level >= record->hashes.size()) return NoSuchLevel(what, level, *record);
  return VersionOf(*record, level);
}

absl::optional<SegmentVersion> RadosChunkStore::TryVersion(const ChunkId& id, uint32_t level) {
  if (const std::shared_ptr<const DataRecord> held = held_.Find(id)) {
    if (level < held->hashes.size()) return VersionOf(*held, level);
  }
  const absl::optional<DataRecord> record = chunks_->TryFind(id);
  if (!record.has_value() || level >= record->hashes.size()) return absl::nullopt;
  return VersionOf(*record, level);
}

absl::StatusOr<size_t> RadosChunkStore::Delete(absl::Span<const ChunkId> ids) {
  const absl::Time now = options_.clock();
  const auto deleted = chunks_->Change(
      "Delete", ids,
      [now](const ChunkId&, const DataRecord& record) -> absl::optional<RadosIndexChange> {
        if (rados_format::Pinned(record, now)) return absl::nullopt;
        return RadosIndexChange::Removal(record);
      });
  for (const ChunkId& id : ids) held_.Forget(id);
  return deleted;
}

absl::StatusOr<size_t> RadosChunkStore::Trim(absl::Span<const ChunkId> ids, uint32_t keep_levels) {
  if (absl::Status status = ValidateTrim(keep_levels); !status.ok()) return status;
  const std::vector<ChunkId> removable = holds_.BeginRemoval(ids);
  const absl::Time now = options_.clock();
  const auto changed = chunks_->Change(
      "Trim", removable,
      [&](const ChunkId&, const DataRecord& record) -> absl::optional<RadosIndexChange> {
        if (record.info.segment_bytes.size() <= keep_levels) return absl::nullopt;
        if (rados_format::Pinned(record, now)) return absl::nullopt;
        RadosIndexChange change;
        change.record = record;
        TrimInfo(&change.record->info, keep_levels);
        change.record->hashes.resize(keep_levels);
        change.retired = rados_format::GarbageRecord{
            GarbageState::kRetired, PayloadBytes(change.record->info), PayloadBytes(record.info)};
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
  stats.tenant_chunks = counters->tenant_chunks;
  stats.pins = counters->pins;
  stats.pinned_bytes = counters->pinned_bytes;
  stats.capacity_bytes = options_.capacity_bytes;
  stats.evicted_segments = evicted_segments_.load();
  stats.evicted_bytes = evicted_bytes_.load();
  stats.evicted_chunks = evicted_chunks_.load();
  stats.expired_chunks = expired_chunks_.load();
  return stats;
}

absl::StatusOr<bool> RadosChunkStore::Lock(absl::string_view what, const char* lock,
                                           absl::Duration time) {
  timeval duration = absl::ToTimeval(time);
  const int rc =
      rados_lock_exclusive(pool_->io(), rados_format::kSweepObject, lock, lock_cookie_.c_str(),
                           "kvstreamd", &duration, LIBRADOS_LOCK_FLAG_MAY_RENEW);
  if (rc == -EBUSY) return false;
  if (rc < 0 && rc != -EEXIST) return RadosError(rc, what);
  return true;
}

void RadosChunkStore::Unlock(const char* lock) {
  rados_unlock(pool_->io(), rados_format::kSweepObject, lock, lock_cookie_.c_str());
}

absl::StatusOr<size_t> RadosChunkStore::CollectGarbage() {
  constexpr absl::string_view kWhat = "sweeping the pool";
  const absl::StatusOr<bool> alone = Lock(kWhat, rados_format::kSweepLock, kSweepLockTime);
  if (!alone.ok()) return alone.status();
  if (!*alone) return 0;
  const absl::StatusOr<size_t> removed = CollectGarbage(kWhat, options_.retire_age);
  absl::Status status = removed.status();
  const absl::Time now = options_.clock();
  const absl::StatusOr<std::vector<ChunkId>> doomed =
      chunks_->Due(kWhat, rados_format::kDoomPrefix, now - options_.upload_age, kDoomedAtOnce);
  status.Update(doomed.status());
  if (doomed.ok()) status.Update(CompleteDeletions(kWhat, *doomed));
  Unlock(rados_format::kSweepLock);
  if (!status.ok()) return status;
  return removed;
}

absl::StatusOr<size_t> RadosChunkStore::CollectGarbage(absl::string_view what,
                                                       absl::Duration retire_age) {
  if (absl::Status status = leases_->Refresh(what, LeaseInterval()); !status.ok()) return status;
  const absl::Time now = options_.clock();
  const auto held = [this](const ChunkId& id) { return held_.Held(id) || leases_->Leased(id); };
  size_t removed = 0;
  absl::Status status;
  for (RadosIndex* index : {chunks_.get(), profiles_.get()}) {
    const absl::StatusOr<size_t> collected =
        index->CollectGarbage(what, now - options_.upload_age, now - retire_age, held);
    status.Update(collected.status());
    if (collected.ok()) removed += *collected;
  }
  if (!status.ok()) return status;
  return removed;
}

absl::Status RadosChunkStore::LeaseHolds() {
  const absl::Time now = WholeNanos(options_.clock());
  const std::vector<ChunkId> held =
      held_.HeldSince(now - LeaseInterval(), rados_format::kMaxLeasedChunks);
  return leases_->Tell("leasing what is held", held, now + 4 * LeaseInterval());
}

void RadosChunkStore::LeaseUntilClosed() {
  absl::MutexLock lock(&mutex_);
  while (!mutex_.AwaitWithTimeout(absl::Condition(this, &RadosChunkStore::closing),
                                  options_.lease_interval)) {
    mutex_.Unlock();
    // One that could not be written is written the next time, before it lapses.
    LeaseHolds().IgnoreError();
    mutex_.Lock();
  }
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

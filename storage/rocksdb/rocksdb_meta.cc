// The part of RocksDbChunkStore that knows what it holds as a whole: its version, its counters and
// its profiles. All of that is small, and what of it is damaged is made anew from the chunks and
// profiles themselves, so that a bad block there does not take them along.
#include <rocksdb/iterator.h>
#include <rocksdb/options.h>
#include <rocksdb/write_batch.h>

#include <map>
#include <memory>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "storage/call_deadline.h"
#include "storage/chunk_limits.h"
#include "storage/id_text.h"
#include "storage/rocksdb/lifetime_format.h"
#include "storage/rocksdb/rocksdb_chunk_store.h"
#include "storage/rocksdb/rocksdb_open.h"
#include "storage/rocksdb/skip_damage.h"
#include "storage/rocksdb/slices.h"
#include "storage/rocksdb/status_mapping.h"

namespace kvstream {
namespace {

using rocksdb_format::Counters;
using rocksdb_format::IdKey;

// Infos looked at together.
constexpr size_t kPage = 1024;

// Prefixes a status of our own parsers.
absl::Status Annotate(const absl::Status& status, absl::string_view what) {
  return absl::Status(status.code(), absl::StrCat(what, ": ", status.message()));
}

}  // namespace

absl::Status RocksDbChunkStore::OpenMeta() {
  const std::string what = absl::StrCat("opening the store in ", options_.data_dir);
  const rocksdb::ReadOptions read;
  std::string bytes;
  rocksdb::Status status = db_->Get(read, family(kMeta), rocksdb_format::kVersionKey, &bytes);
  if (status.IsNotFound()) {
    // A new store, or one whose creation was cut short: either way nothing can be in it.
    const std::unique_ptr<rocksdb::Iterator> chunks(db_->NewIterator(read, family(kChunks)));
    chunks->SeekToFirst();
    if (!chunks->status().ok()) return FromRocksDb(chunks->status(), what);
    if (chunks->Valid()) {
      return absl::DataLossError(absl::StrCat(what, ": its version is missing"));
    }
    rocksdb::WriteBatch batch;
    status = batch.Put(family(kMeta), rocksdb_format::kVersionKey,
                       rocksdb_format::EncodeVersion(rocksdb_format::kStoreVersion));
    if (!status.ok()) return FromRocksDb(status, what);
    return Write(&batch, StoreChange(), what);
  }
  // As if it were the oldest one: what is added to that is all there already, and may be again.
  if (status.IsCorruption()) return Recount(/*build_indexes=*/true);
  if (!status.ok()) return FromRocksDb(status, what);
  const absl::StatusOr<uint32_t> version = rocksdb_format::DecodeVersion(bytes);
  if (!version.ok()) return Annotate(version.status(), what);
  if (*version > rocksdb_format::kStoreVersion) {
    return NewerStoreError(options_.data_dir, absl::StrCat("it has version ", *version));
  }
  if (*version == 0) return absl::DataLossError(absl::StrCat(what, ": its version is 0"));
  if (*version < rocksdb_format::kStoreVersion) {
    // All that older versions wrote is read as it is. A crash on the way begins again.
    const absl::Status built = BuildIndexes();
    // Damage ends the reading of infos. The rest is served as ever, and the next opening tries
    // again.
    if (absl::IsDataLoss(built)) return LoadCounters();
    if (!built.ok()) return built;
    rocksdb::WriteBatch batch;
    status = batch.Put(family(kMeta), rocksdb_format::kVersionKey,
                       rocksdb_format::EncodeVersion(rocksdb_format::kStoreVersion));
    if (!status.ok()) return FromRocksDb(status, what);
    if (absl::Status raised = Write(&batch, StoreChange(), what); !raised.ok()) return raised;
  }
  return LoadCounters();
}

absl::Status RocksDbChunkStore::LoadCounters() {
  const std::string what = absl::StrCat("opening the store in ", options_.data_dir);
  const rocksdb::ReadOptions read;
  std::string bytes;
  const rocksdb::Status status =
      db_->Get(read, family(kMeta), rocksdb_format::kCountersKey, &bytes);
  if (status.IsNotFound()) return absl::OkStatus();  // nothing was ever put
  if (status.IsCorruption()) return Recount(/*build_indexes=*/false);
  if (!status.ok()) return FromRocksDb(status, what);
  const absl::StatusOr<Counters> counters = rocksdb_format::DecodeCounters(bytes);
  if (!counters.ok()) return Annotate(counters.status(), what);
  counters_.SetTotal(*counters);
  const std::unique_ptr<rocksdb::Iterator> next(db_->NewIterator(read, family(kMeta)));
  for (next->Seek(rocksdb_format::kTenantCountersPrefix); next->Valid(); next->Next()) {
    absl::string_view tenant = ToView(next->key());
    if (!absl::ConsumePrefix(&tenant, rocksdb_format::kTenantCountersPrefix)) break;
    const absl::StatusOr<Counters> of_tenant =
        rocksdb_format::DecodeCounters(ToView(next->value()));
    if (!of_tenant.ok()) return Annotate(of_tenant.status(), what);
    counters_.SetTenant(tenant, *of_tenant);
  }
  if (next->status().IsCorruption()) return Recount(/*build_indexes=*/false);
  return FromRocksDb(next->status(), what);
}

absl::Status RocksDbChunkStore::Recount(bool build_indexes) {
  const std::string what = absl::StrCat("counting what is stored in ", options_.data_dir);
  Counters total;
  std::map<std::string, Counters> tenants;
  const auto add = [&](const ChunkInfo& info) {
    for (Counters* counters : {&total, info.tenant.empty() ? nullptr : &tenants[info.tenant]}) {
      if (counters == nullptr) continue;
      ++counters->chunks;
      counters->payload_bytes += PayloadBytes(info);
    }
  };
  absl::optional<ChunkId> after;
  do {
    const absl::StatusOr<ScrubbedInfos> page = ScrubInfos(after, kPage);
    if (!page.ok()) return page.status();
    for (const auto& [id, info] : page->chunks) add(info);
    for (const DamagedInfo& damaged : page->damaged) {
      // Of a newer version, which this program must not write to.
      if (absl::IsFailedPrecondition(damaged.why)) return damaged.why;
      add(LeftOf(damaged.id));
    }
    after = page->next;
  } while (after.has_value());
  counters_.SetTotal(total);
  rocksdb::WriteBatch batch;
  rocksdb::Status status = batch.Put(family(kMeta), rocksdb_format::kVersionKey,
                                     rocksdb_format::EncodeVersion(rocksdb_format::kStoreVersion));
  if (status.ok()) {
    status = batch.Put(family(kMeta), rocksdb_format::kCountersKey,
                       rocksdb_format::EncodeCounters(total));
  }
  for (const auto& [tenant, counters] : tenants) {
    counters_.SetTenant(tenant, counters);
    if (!status.ok()) continue;
    status = batch.Put(family(kMeta), rocksdb_format::TenantCountersKey(tenant),
                       rocksdb_format::EncodeCounters(counters));
  }
  if (!status.ok()) return FromRocksDb(status, what);
  // The next opening finds the damage again and counts again, so that what cannot be written now is
  // no reason to serve nothing.
  if (!build_indexes || BuildIndexes().ok()) Write(&batch, StoreChange(), what).IgnoreError();
  return absl::OkStatus();
}

void RocksDbChunkStore::NoteIndexDamage() {
  if (!index_damaged_ || index_damage_noted_) return;
  rocksdb::WriteBatch batch;
  const rocksdb::Status status =
      batch.Put(family(kMeta), rocksdb_format::kRebuildKey, rocksdb::Slice());
  index_damage_noted_ =
      status.ok() && Write(&batch, StoreChange(), "noting that an index is damaged").ok();
}

absl::Status RocksDbChunkStore::RebuildIndexes() {
  const std::string what = absl::StrCat("making the indexes of ", options_.data_dir, " anew");
  std::string nothing;
  rocksdb::Status status =
      db_->Get(rocksdb::ReadOptions(), family(kMeta), rocksdb_format::kRebuildKey, &nothing);
  if (status.IsNotFound() || status.IsCorruption()) return absl::OkStatus();
  if (!status.ok()) return FromRocksDb(status, what);
  rocksdb::ReadOptions read;
  read.fill_cache = false;
  {
    // What is behind damage could not be found again.
    const std::unique_ptr<rocksdb::Iterator> next(db_->NewIterator(read, family(kChunks)));
    for (next->SeekToFirst(); next->Valid(); next->Next()) continue;
    if (next->status().IsCorruption()) return absl::OkStatus();
    if (!next->status().ok()) return FromRocksDb(next->status(), what);
  }
  // The note stays until all is done: a crash on the way begins again, with empty families.
  for (const Family in : {kTenants, kExpiry, kChildren}) {
    rocksdb::ColumnFamilyDescriptor same;
    status = families_[in]->GetDescriptor(&same);
    if (status.ok()) status = db_->DropColumnFamily(families_[in]);
    rocksdb::ColumnFamilyHandle* made = nullptr;
    if (status.ok()) status = db_->CreateColumnFamily(same.options, same.name, &made);
    // A disk that takes no writes.
    if (!status.ok()) return FromRocksDb(status, what);
    db_->DestroyColumnFamilyHandle(families_[in]).PermitUncheckedError();
    families_[in] = made;
  }
  if (absl::Status built = BuildIndexes(); !built.ok()) return built;
  rocksdb::WriteBatch batch;
  status = batch.Delete(family(kMeta), rocksdb_format::kRebuildKey);
  return status.ok() ? Write(&batch, StoreChange(), what) : FromRocksDb(status, what);
}

absl::Status RocksDbChunkStore::LoadProfiles() {
  const std::string what = absl::StrCat("reading which profiles are in ", options_.data_dir);
  rocksdb::ReadOptions read;
  read.fill_cache = false;
  absl::MutexLock lock(&profiles_mutex_);
  std::unique_ptr<rocksdb::Iterator> next(db_->NewIterator(read, family(kMeta)));
  for (next->Seek(rocksdb_format::kProfileListPrefix); next->Valid(); next->Next()) {
    absl::string_view key = ToView(next->key());
    if (!absl::ConsumePrefix(&key, rocksdb_format::kProfileListPrefix)) break;
    const absl::StatusOr<StoredProfileId> id = rocksdb_format::DecodeIdKey(key);
    if (!id.ok()) return Annotate(id.status(), what);
    profiles_.insert(*id);
  }
  if (!next->status().IsCorruption()) return FromRocksDb(next->status(), what);
  // By the profiles themselves, which are large.
  std::string last;
  next.reset(db_->NewIterator(read, family(kProfiles)));
  next->SeekToFirst();
  while (next->Valid() || (next->status().IsCorruption() && SkipDamage(last, next.get()))) {
    last = next->key().ToString();
    const absl::StatusOr<StoredProfileId> id = rocksdb_format::DecodeIdKey(last);
    if (!id.ok()) return Annotate(id.status(), what);
    profiles_.insert(*id);
    next->Next();
  }
  return next->status().IsCorruption() ? absl::OkStatus() : FromRocksDb(next->status(), what);
}

absl::StatusOr<bool> RocksDbChunkStore::PutProfile(const StoredProfileId& id,
                                                   absl::string_view bytes) {
  if (absl::Status status = ValidateProfile(id, bytes); !status.ok()) return status;
  const std::string what = absl::StrCat("PutProfile of profile ", ShortHex(id));
  absl::optional<CapacityKeeper::Room> room;
  if (keeper_ != nullptr) {
    if (absl::Status status = AwaitWrites(what); !status.ok()) return status;
    absl::StatusOr<CapacityKeeper::Room> admitted = keeper_->Admit(bytes.size() + 1024, what);
    if (!admitted.ok()) return admitted.status();
    room.emplace(*std::move(admitted));
  }
  const IdClaims::Claim claim(&profile_claims_, absl::MakeConstSpan(&id, 1),
                              CallDeadline::Current());
  if (!claim.held()) return claim.Late(what);
  const std::string list_key = rocksdb_format::ProfileListKey(id);
  rocksdb::Status status;
  if (HasProfile(id)) {
    rocksdb::ReadOptions read;
    read.fill_cache = false;
    rocksdb::PinnableSlice stored;
    status = db_->Get(read, family(kProfiles), ToSlice(IdKey(id)), &stored);
    if (status.ok()) return false;
    // A damaged one is stored again.
    if (!status.IsCorruption() && !status.IsNotFound()) return FromRocksDb(status, what);
  }
  rocksdb::WriteBatch batch = NewBatch(bytes.size());
  status = batch.Put(family(kProfiles), ToSlice(IdKey(id)), ToSlice(bytes));
  if (status.ok()) status = batch.Put(family(kMeta), list_key, rocksdb::Slice());
  if (!status.ok()) return FromRocksDb(status, what);
  if (absl::Status written = Write(&batch, StoreChange(), what); !written.ok()) return written;
  absl::MutexLock lock(&profiles_mutex_);
  profiles_.insert(id);
  return true;
}

absl::StatusOr<std::string> RocksDbChunkStore::GetProfile(const StoredProfileId& id) {
  const std::string what = absl::StrCat("GetProfile of profile ", ShortHex(id));
  std::string bytes;
  const rocksdb::Status status =
      db_->Get(rocksdb::ReadOptions(), family(kProfiles), ToSlice(IdKey(id)), &bytes);
  if (status.IsNotFound()) {
    return absl::NotFoundError(absl::StrCat(what, ": the profile is not stored"));
  }
  if (!status.ok()) return FromRocksDb(status, what);
  return bytes;
}

bool RocksDbChunkStore::HasProfile(const StoredProfileId& id) const {
  absl::MutexLock lock(&profiles_mutex_);
  return profiles_.count(id) > 0;
}

absl::StatusOr<std::vector<StoredProfileId>> RocksDbChunkStore::ListProfiles() {
  absl::MutexLock lock(&profiles_mutex_);
  return std::vector<StoredProfileId>(profiles_.begin(), profiles_.end());
}

}  // namespace kvstream

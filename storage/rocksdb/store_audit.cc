#include "storage/rocksdb/store_audit.h"

#include <rocksdb/db.h>
#include <rocksdb/iterator.h>

#include <algorithm>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "storage/chunk_limits.h"
#include "storage/id_text.h"
#include "storage/rocksdb/chunk_record_format.h"
#include "storage/rocksdb/lifetime_format.h"
#include "storage/rocksdb/rocksdb_tuning.h"
#include "storage/rocksdb/status_mapping.h"

namespace kvstream {
namespace {

using Sizes = std::map<ChunkId, std::vector<uint64_t>>;
using Infos = std::map<ChunkId, ChunkInfo>;
using Keys = std::set<std::string>;

// By tenant's name.
struct Tenants {
  std::map<std::string, std::set<ChunkId>> chunks;
  std::map<std::string, uint64_t> payload_bytes;
};

absl::string_view View(const rocksdb::Slice& slice) { return {slice.data(), slice.size()}; }

absl::Status ReadChunks(rocksdb::DB* db, rocksdb::ColumnFamilyHandle* family, Infos* infos,
                        Tenants* tenants) {
  const std::unique_ptr<rocksdb::Iterator> it(db->NewIterator({}, family));
  for (it->SeekToFirst(); it->Valid(); it->Next()) {
    const auto id = rocksdb_format::DecodeIdKey(View(it->key()));
    if (!id.ok()) return id.status();
    const auto info = rocksdb_format::DecodeChunkRecord(View(it->value()));
    if (!info.ok()) return info.status();
    if (!info->tenant.empty()) {
      tenants->chunks[info->tenant].insert(*id);
      tenants->payload_bytes[info->tenant] += PayloadBytes(*info);
    }
    (*infos)[*id] = *info;
  }
  return FromRocksDb(it->status(), "reading infos");
}

absl::Status ReadSegments(rocksdb::DB* db, rocksdb::ColumnFamilyHandle* family, Sizes* sizes) {
  const std::unique_ptr<rocksdb::Iterator> it(db->NewIterator({}, family));
  for (it->SeekToFirst(); it->Valid(); it->Next()) {
    const absl::string_view key = View(it->key());
    if (key.size() != rocksdb_format::kSegmentKeyBytes) {
      return absl::InternalError(absl::StrCat("a segment's key has ", key.size(), " bytes"));
    }
    const auto id = rocksdb_format::DecodeIdKey(key.substr(0, rocksdb_format::kIdBytes));
    if (!id.ok()) return id.status();
    std::vector<uint64_t>& of_chunk = (*sizes)[*id];
    if (static_cast<uint8_t>(key.back()) != of_chunk.size()) {
      return absl::InternalError(absl::StrCat(ShortHex(*id), " lacks level ", of_chunk.size()));
    }
    of_chunk.push_back(it->value().size());
  }
  return FromRocksDb(it->status(), "reading segments");
}

// That the index of tenants' chunks and their counters are those of the records.
absl::Status CheckTenants(rocksdb::DB* db, rocksdb::ColumnFamilyHandle* index,
                          rocksdb::ColumnFamilyHandle* meta, const Tenants& tenants) {
  std::set<std::string> expected, found;
  for (const auto& [tenant, ids] : tenants.chunks) {
    for (const ChunkId& id : ids) expected.insert(rocksdb_format::TenantKey(tenant, id));
    std::string bytes;
    const rocksdb::Status read =
        db->Get({}, meta, rocksdb_format::TenantCountersKey(tenant), &bytes);
    if (!read.ok()) return FromRocksDb(read, "reading a tenant's counters");
    const auto counters = rocksdb_format::DecodeCounters(bytes);
    if (!counters.ok()) return counters.status();
    const uint64_t payload_bytes = tenants.payload_bytes.at(tenant);
    if (counters->chunks != ids.size() || counters->payload_bytes != payload_bytes) {
      return absl::InternalError(absl::StrCat("the counters of tenant ", tenant, " say ",
                                              counters->chunks, " chunks, ",
                                              counters->payload_bytes, " bytes; there are ",
                                              ids.size(), " chunks, ", payload_bytes, " bytes"));
    }
  }
  const std::unique_ptr<rocksdb::Iterator> it(db->NewIterator({}, index));
  for (it->SeekToFirst(); it->Valid(); it->Next()) found.insert(it->key().ToString());
  if (!it->status().ok()) return FromRocksDb(it->status(), "reading the index of tenants");
  if (found != expected) {
    return absl::InternalError(absl::StrCat("the index of tenants has ", found.size(),
                                            " chunks, not the ", expected.size(),
                                            " that have a tenant"));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::set<ChunkId>> Compare(const Sizes& announced, const Sizes& found) {
  std::set<ChunkId> ids;
  for (const auto& [id, sizes] : announced) {
    const auto segments = found.find(id);
    if (segments == found.end() || segments->second != sizes) {
      return absl::InternalError(absl::StrCat(ShortHex(id), " lacks some of its segments"));
    }
    ids.insert(id);
  }
  for (const auto& [id, sizes] : found) {
    if (ids.count(id) == 0) {
      return absl::InternalError(absl::StrCat(ShortHex(id), " has segments but no info"));
    }
  }
  return ids;
}

absl::StatusOr<Keys> ReadKeys(rocksdb::DB* db, rocksdb::ColumnFamilyHandle* family) {
  Keys keys;
  const std::unique_ptr<rocksdb::Iterator> it(db->NewIterator({}, family));
  for (it->SeekToFirst(); it->Valid(); it->Next()) keys.insert(it->key().ToString());
  if (!it->status().ok()) return FromRocksDb(it->status(), "reading keys");
  return keys;
}

// What lifetime_format.h says of the families that name chunks.
absl::Status CheckLifetimes(const Infos& infos, const Keys& expiry, const Keys& pins,
                            const Keys& doomed, const Keys& children) {
  std::map<ChunkId, absl::Time> first_entry;
  std::set<ChunkId> pinned;
  for (const std::string& key : expiry) {
    const auto entry = rocksdb_format::DecodeExpiryKey(key);
    if (!entry.ok()) return entry.status();
    first_entry.emplace(entry->id, entry->at);  // in the order of times
  }
  for (const std::string& key : pins) {
    const auto id = rocksdb_format::DecodeIdKey(key.substr(0, rocksdb_format::kIdBytes));
    if (!id.ok()) return id.status();
    if (infos.count(*id) == 0) {
      return absl::InternalError(absl::StrCat(ShortHex(*id), " is pinned but not stored"));
    }
    pinned.insert(*id);
  }
  for (const std::string& key : doomed) {
    const auto id = rocksdb_format::DecodeIdKey(key);
    if (!id.ok()) return id.status();
    if (infos.count(*id) == 0) {
      return absl::InternalError(absl::StrCat(ShortHex(*id), " is doomed but not stored"));
    }
  }
  size_t with_parent = 0;
  for (const auto& [id, info] : infos) {
    if (info.parent.has_value()) {
      ++with_parent;
      if (children.count(rocksdb_format::ChildKey(*info.parent, id)) == 0) {
        return absl::InternalError(absl::StrCat(ShortHex(id), " is no child of its parent"));
      }
    }
    if (info.expires == absl::InfiniteFuture()) continue;
    const auto entry = first_entry.find(id);
    if (entry == first_entry.end() || (entry->second > info.expires && pinned.count(id) == 0)) {
      return absl::InternalError(absl::StrCat(ShortHex(id), " will not expire when it should"));
    }
  }
  if (children.size() != with_parent) {
    return absl::InternalError(absl::StrCat("there are ", children.size(), " children, but ",
                                            with_parent, " chunks with a parent"));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::set<ChunkId>> AuditStore(const RocksDbChunkStoreOptions& options) {
  rocksdb::DB* opened = nullptr;
  std::vector<rocksdb::ColumnFamilyHandle*> families;
  const rocksdb::Status status = rocksdb::DB::OpenForReadOnly(
      TunedDbOptions(options), options.data_dir, TunedFamilies(options, NewBlockCache(options)),
      &families, &opened);
  if (!status.ok()) return FromRocksDb(status, "auditing");
  const std::unique_ptr<rocksdb::DB> db(opened);
  const auto close = absl::MakeCleanup([&] {
    for (auto* family : families) db->DestroyColumnFamilyHandle(family).PermitUncheckedError();
  });
  Infos infos;
  Tenants tenants;
  if (absl::Status s = ReadChunks(db.get(), families[kChunks], &infos, &tenants); !s.ok()) {
    return s;
  }
  std::map<Family, Keys> keys;
  for (const Family family : {kExpiry, kPins, kDoomed, kChildren}) {
    absl::StatusOr<Keys> read = ReadKeys(db.get(), families[family]);
    if (!read.ok()) return read.status();
    keys[family] = *std::move(read);
  }
  const absl::Status lifetimes =
      CheckLifetimes(infos, keys[kExpiry], keys[kPins], keys[kDoomed], keys[kChildren]);
  if (!lifetimes.ok()) return lifetimes;
  Sizes announced, found;
  for (const auto& [id, info] : infos) announced[id] = info.segment_bytes;
  if (absl::Status s = ReadSegments(db.get(), families[kSegments], &found); !s.ok()) return s;
  absl::StatusOr<std::set<ChunkId>> ids = Compare(announced, found);
  if (!ids.ok()) return ids;
  if (absl::Status s = CheckTenants(db.get(), families[kTenants], families[kMeta], tenants);
      !s.ok()) {
    return s;
  }

  rocksdb_format::Counters stored;
  std::string bytes;
  const rocksdb::Status read = db->Get({}, families[kMeta], rocksdb_format::kCountersKey, &bytes);
  if (read.ok()) {
    const auto counters = rocksdb_format::DecodeCounters(bytes);
    if (!counters.ok()) return counters.status();
    stored = *counters;
  } else if (!read.IsNotFound()) {
    return FromRocksDb(read, "reading counters");
  }
  uint64_t payload_bytes = 0;
  for (const auto& [id, sizes] : announced) {
    for (uint64_t size : sizes) payload_bytes += size;
  }
  if (stored.chunks != ids->size() || stored.payload_bytes != payload_bytes) {
    return absl::InternalError(absl::StrCat("counters say ", stored.chunks, " chunks, ",
                                            stored.payload_bytes, " bytes; there are ", ids->size(),
                                            " chunks, ", payload_bytes, " bytes"));
  }
  return ids;
}

}  // namespace kvstream

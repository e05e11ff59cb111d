#include "storage/rados/testing/rados_audit.h"

#include <map>
#include <set>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "storage/chunk_limits.h"
#include "storage/rados/rados_format.h"

namespace kvstream {
namespace {

using rados_format::DataRecord;
using rados_format::ShardState;

using Keys = std::map<std::string, std::string>;

class Audit {
 public:
  Audit(const RadosPool& pool, uint32_t shards) : pool_(pool), shards_(shards) {}

  std::vector<std::string> Run() {
    std::map<std::string, Keys> objects;
    for (uint32_t i = 0; i < shards_; ++i) Read(rados_format::IndexObject(i), &objects);
    Read(rados_format::kProfilesIndex, &objects);
    for (const auto& [object, keys] : objects) CheckShard(object, keys);
    CheckNames();
    CheckData();
    return std::move(wrong_);
  }

 private:
  void Wrong(const std::string& sentence) { wrong_.push_back(sentence); }

  void Read(const std::string& object, std::map<std::string, Keys>* objects) {
    std::vector<OmapList> lists = {{object, "", "", 1000, {}, false}};
    do {
      if (absl::Status status = pool_.List("audit", &lists); !status.ok()) {
        Wrong(status.ToString());
        return;
      }
      for (const auto& [key, value] : lists[0].entries) {
        (*objects)[object][key] = value;
        lists[0].after = key;
      }
    } while (lists[0].more);
  }

  // What lies beside a record, but for its name and its use.
  static void AddKeys(const ChunkId& id, const DataRecord& record, std::set<std::string>* keys) {
    const auto add_time = [&](const char* prefix, absl::Time time) {
      if (time < absl::InfiniteFuture()) {
        keys->insert(rados_format::EncodeTimeKey(prefix, {time, id}));
      }
    };
    const std::string& tenant = record.info.tenant;
    const bool pinned = !record.pins.empty();
    add_time(rados_format::kDoomPrefix, record.doomed);
    add_time(rados_format::kExpiryPrefix, rados_format::DueTime(record));
    add_time(rados_format::kPinEndPrefix, rados_format::FirstPinEnd(record));
    if (pinned) keys->insert(rados_format::IdKey(rados_format::kPinnedPrefix, id));
    if (tenant.empty()) return;
    keys->insert(rados_format::IdKey(rados_format::OwnedPrefix(tenant), id));
    if (pinned) keys->insert(rados_format::IdKey(rados_format::OwnedPinnedPrefix(tenant), id));
  }

  static std::string DataOf(const ChunkId& id, const rados_format::Generation& generation) {
    const std::string part = rados_format::DataObject(id, generation, 0);
    return part.substr(0, part.rfind('.'));
  }

  void CheckRecord(const std::string& object, const std::string& key, const std::string& value,
                   ShardState* counted, std::map<std::string, TenantUse>* tenants,
                   std::set<std::string>* beside) {
    const auto id = rados_format::DecodeDataKey(key);
    const auto record = rados_format::DecodeData(value);
    if (!id.ok() || !record.ok()) {
      Wrong(absl::StrCat(object, ": ", key, " cannot be read"));
      return;
    }
    const uint64_t bytes = PayloadBytes(record->info);
    const bool pinned = !record->pins.empty();
    ++counted->chunks;
    counted->payload_bytes += bytes;
    counted->data_bytes += bytes;
    counted->pins += record->pins.size();
    counted->pinned_bytes += pinned ? bytes : 0;
    AddKeys(*id, *record, beside);
    const std::string data = DataOf(*id, record->generation);
    if (bytes > 0) stored_.insert(data);
    alive_.insert(data);
    if (record->info.parent.has_value()) {
      needed_names_.insert(rados_format::ChildKey(*record->info.parent, {*id, record->generation}));
    }
    if (record->info.tenant.empty()) return;
    ++counted->tenant_chunks;
    TenantUse& use = (*tenants)[rados_format::TenantKey(record->info.tenant)];
    ++use.chunks;
    use.payload_bytes += bytes;
    use.pins += record->pins.size();
    use.pinned_bytes += pinned ? bytes : 0;
  }

  void CheckGarbage(const std::string& object, const std::string& key, const std::string& value,
                    ShardState* counted) {
    const auto name = rados_format::DecodeGarbageKey(key);
    const auto record = rados_format::DecodeGarbage(value);
    if (!name.ok() || !record.ok()) {
      Wrong(absl::StrCat(object, ": ", key, " cannot be read"));
      return;
    }
    counted->data_bytes += record->total_bytes - record->keep_bytes;
    alive_.insert(DataOf(name->id, name->generation));
    if (record->parent.has_value()) {
      allowed_names_.insert(rados_format::ChildKey(*record->parent, {name->id, name->generation}));
    }
  }

  void CheckShard(const std::string& object, const Keys& keys) {
    ShardState counted, state;
    std::map<std::string, TenantUse> tenants;
    std::set<std::string> beside, found;
    for (const auto& [key, value] : keys) {
      const std::string prefix = key.substr(0, 1);
      if (prefix == rados_format::kStateKey) {
        const auto decoded = rados_format::DecodeState(value);
        if (!decoded.ok()) Wrong(absl::StrCat(object, ": its state cannot be read"));
        state = decoded.value_or(ShardState());
      } else if (prefix == rados_format::kDataPrefix) {
        CheckRecord(object, key, value, &counted, &tenants, &beside);
      } else if (prefix == rados_format::kGarbagePrefix) {
        CheckGarbage(object, key, value, &counted);
      } else if (prefix == rados_format::kChildPrefix) {
        names_.insert(key);
      } else if (prefix == rados_format::kUsagePrefix) {
        if (keys.count(rados_format::kDataPrefix + key.substr(1)) == 0) {
          Wrong(absl::StrCat(object, ": ", key, " is of no chunk"));
        }
      } else if (prefix != rados_format::kTenantPrefix) {
        found.insert(key);
      }
    }
    counted.keeper = state.keeper;
    counted.allotted_bytes = state.allotted_bytes;
    counted.wanted_bytes = state.wanted_bytes;
    if (!(counted == state)) {
      Wrong(absl::StrCat(object, ": its state has ", state.chunks, " chunks of ",
                         state.payload_bytes, " bytes, ", state.pins, " pins and ",
                         state.data_bytes, " bytes of data, but there are ", counted.chunks, ", ",
                         counted.payload_bytes, ", ", counted.pins, " and ", counted.data_bytes));
    }
    for (const std::string& key : beside) {
      if (found.count(key) == 0) Wrong(absl::StrCat(object, ": ", key, " is missing"));
    }
    for (const std::string& key : found) {
      if (beside.count(key) == 0) Wrong(absl::StrCat(object, ": ", key, " follows from no record"));
    }
    for (const auto& [key, use] : tenants) {
      const auto at = keys.find(key);
      if (at == keys.end() || at->second != rados_format::EncodeTenantUse(use)) {
        Wrong(absl::StrCat(object, ": ", key, " is not what the tenant has"));
      }
    }
    for (const auto& [key, value] : keys) {
      if (absl::StartsWith(key, rados_format::kTenantPrefix) && tenants.count(key) == 0) {
        Wrong(absl::StrCat(object, ": ", key, " has no chunks"));
      }
    }
  }

  void CheckNames() {
    for (const std::string& name : needed_names_) {
      if (names_.count(name) == 0) Wrong(absl::StrCat(name, " is missing"));
    }
    for (const std::string& name : names_) {
      if (needed_names_.count(name) == 0 && allowed_names_.count(name) == 0) {
        Wrong(absl::StrCat(name, " is of no data"));
      }
    }
  }

  void CheckData() {
    rados_list_ctx_t list;
    if (rados_nobjects_list_open(pool_.io(), &list) != 0) {
      Wrong("the objects cannot be listed");
      return;
    }
    const char* entry = nullptr;
    std::set<std::string> found;
    while (rados_nobjects_list_next(list, &entry, nullptr, nullptr) == 0) {
      const std::string object = entry;
      if (absl::StartsWith(object, "data.")) found.insert(object.substr(0, object.rfind('.')));
    }
    rados_nobjects_list_close(list);
    for (const std::string& data : found) {
      if (alive_.count(data) == 0) Wrong(absl::StrCat(data, " belongs to nothing"));
    }
    for (const std::string& data : stored_) {
      if (found.count(data) == 0) Wrong(absl::StrCat(data, " is missing"));
    }
  }

  const RadosPool& pool_;
  const uint32_t shards_;
  std::vector<std::string> wrong_;
  // Names of data without their parts: of stored chunks; and of those on their way, too.
  std::set<std::string> stored_, alive_;
  std::set<std::string> names_, needed_names_, allowed_names_;
};

}  // namespace

std::vector<std::string> AuditRados(const RadosPool& pool, uint32_t shards) {
  return Audit(pool, shards).Run();
}

}  // namespace kvstream

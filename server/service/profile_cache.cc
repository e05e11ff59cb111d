#include "server/service/profile_cache.h"

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "server/service/ids.h"
#include "storage/call_deadline.h"

namespace kvstream {
namespace {

absl::Status NotStored(const StoredProfileId& id) {
  return absl::NotFoundError(
      absl::StrCat("profile ", IdHex(id), " is not stored; send it with PutProfile"));
}

}  // namespace

ProfileCache::ProfileCache(ChunkStore* store, ProfileParser parser, uint64_t max_bytes)
    : store_(store), parser_(std::move(parser)), max_bytes_(max_bytes) {}

absl::StatusOr<std::shared_ptr<const ServiceProfile>> ProfileCache::Get(const StoredProfileId& id) {
  uint64_t read = 0;
  {
    absl::MutexLock lock(&mutex_);
    // For the read that is under way, for no later one: should it fail, those who waited read side
    // by side. One after the other each would wait for all that fail before it.
    if (const auto under_way = loading_.find(id); under_way != loading_.end()) {
      const uint64_t awaited = under_way->second;
      for (auto now = under_way; now != loading_.end() && now->second == awaited;
           now = loading_.find(id)) {
        if (loaded_.WaitWithDeadline(&mutex_, CallDeadline::Current())) break;
      }
    }
    std::shared_ptr<const ServiceProfile> found = Find(id);
    if (found != nullptr) return found;
    read = ++reads_;
    loading_[id] = read;
  }
  absl::StatusOr<std::shared_ptr<const ServiceProfile>> profile = Read(id);
  absl::MutexLock lock(&mutex_);
  if (const auto mine = loading_.find(id); mine != loading_.end() && mine->second == read) {
    loading_.erase(mine);
  }
  loaded_.SignalAll();
  if (profile.ok()) Keep(*profile);
  return profile;
}

absl::StatusOr<std::shared_ptr<const ServiceProfile>> ProfileCache::Read(
    const StoredProfileId& id) {
  const absl::StatusOr<std::string> bytes = store_->GetProfile(id);
  if (absl::IsNotFound(bytes.status())) return NotStored(id);
  if (!bytes.ok()) return bytes.status();
  absl::StatusOr<std::shared_ptr<const ServiceProfile>> profile = parser_(*bytes);
  if (!profile.ok()) {
    return absl::DataLossError(absl::StrCat("stored profile ", IdHex(id),
                                            " does not parse: ", profile.status().message()));
  }
  if ((*profile)->id() != id) {
    return absl::DataLossError(
        absl::StrCat("stored profile ", IdHex(id), " holds the bytes of another profile"));
  }
  return profile;
}

absl::Status ProfileCache::CheckStored(const StoredProfileId& id) {
  {
    absl::MutexLock lock(&mutex_);
    if (stored_.count(id) > 0) return absl::OkStatus();
  }
  const absl::StatusOr<std::vector<StoredProfileId>> ids = store_->ListProfiles();
  if (!ids.ok()) return ids.status();
  if (std::find(ids->begin(), ids->end(), id) == ids->end()) return NotStored(id);
  absl::MutexLock lock(&mutex_);
  stored_.insert(id);
  return absl::OkStatus();
}

absl::StatusOr<ProfileCache::Stored> ProfileCache::Put(absl::string_view bytes) {
  absl::StatusOr<std::shared_ptr<const ServiceProfile>> profile = parser_(bytes);
  if (!profile.ok()) return profile.status();
  const StoredProfileId id = (*profile)->id();
  const absl::StatusOr<bool> created = store_->PutProfile(id, bytes);
  if (!created.ok()) return created.status();
  absl::MutexLock lock(&mutex_);
  stored_.insert(id);
  if (Find(id) == nullptr) Keep(*profile);
  return Stored{*std::move(profile), *created};
}

std::shared_ptr<const ServiceProfile> ProfileCache::Find(const StoredProfileId& id) {
  for (auto it = profiles_.begin(); it != profiles_.end(); ++it) {
    if ((*it)->id() != id) continue;
    profiles_.splice(profiles_.begin(), profiles_, it);
    return profiles_.front();
  }
  return nullptr;
}

void ProfileCache::Keep(std::shared_ptr<const ServiceProfile> profile) {
  stored_.insert(profile->id());
  profiles_.push_front(std::move(profile));
  uint64_t bytes = 0;
  auto last = profiles_.begin();
  for (; last != profiles_.end(); ++last) {
    bytes += (*last)->serialized().size();
    if (bytes > max_bytes_ && last != profiles_.begin()) break;
  }
  profiles_.erase(last, profiles_.end());
}

}  // namespace kvstream

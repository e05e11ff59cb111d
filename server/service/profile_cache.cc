#include "server/service/profile_cache.h"

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "server/service/ids.h"

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
  {
    absl::MutexLock lock(&mutex_);
    while (loading_.count(id) > 0) loaded_.Wait(&mutex_);
    std::shared_ptr<const ServiceProfile> found = Find(id);
    if (found != nullptr) return found;
    loading_.insert(id);
  }
  absl::StatusOr<std::shared_ptr<const ServiceProfile>> profile = Read(id);
  absl::MutexLock lock(&mutex_);
  loading_.erase(id);
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

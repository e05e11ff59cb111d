// Parsed profiles by id, read from the store when first needed.
#ifndef KVSTREAM_SERVER_SERVICE_PROFILE_CACHE_H_
#define KVSTREAM_SERVER_SERVICE_PROFILE_CACHE_H_

#include <cstdint>
#include <list>
#include <map>
#include <memory>
#include <set>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "server/service/profile_gate.h"
#include "storage/chunk_store.h"

namespace kvstream {

// Thread-safe. Keeps the profiles used last whose serialised bytes sum up to `max_bytes`, but
// always the newest; calls in flight keep theirs beyond that. Several calls that miss the same
// profile read it once, unless that read fails.
class ProfileCache {
 public:
  // `store` is borrowed and outlives the cache.
  ProfileCache(ChunkStore* store, ProfileParser parser, uint64_t max_bytes);
  ProfileCache(const ProfileCache&) = delete;
  ProfileCache& operator=(const ProfileCache&) = delete;

  // Blocks on the store at a miss. NOT_FOUND if it is not stored, DATA_LOSS if the stored bytes no
  // longer parse or are another profile's; else the store's errors.
  absl::StatusOr<std::shared_ptr<const ServiceProfile>> Get(const StoredProfileId& id);

  // NOT_FOUND if it is not stored. Parses nothing; blocks on the store for the first question about
  // an id. Profiles are never deleted, so a yes is remembered.
  absl::Status CheckStored(const StoredProfileId& id);

  // Parses untrusted bytes, stores them durably and keeps the result. Returns the profile and
  // whether it is new.
  struct Stored {
    std::shared_ptr<const ServiceProfile> profile;
    bool created = false;
  };
  absl::StatusOr<Stored> Put(absl::string_view bytes);

  // From the next profile that is kept on.
  void SetMaxBytes(uint64_t max_bytes) {
    absl::MutexLock lock(&mutex_);
    max_bytes_ = max_bytes;
  }

 private:
  absl::StatusOr<std::shared_ptr<const ServiceProfile>> Read(const StoredProfileId& id);
  std::shared_ptr<const ServiceProfile> Find(const StoredProfileId& id)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Keep(std::shared_ptr<const ServiceProfile> profile) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  ChunkStore* const store_;
  const ProfileParser parser_;
  absl::Mutex mutex_;
  uint64_t max_bytes_ ABSL_GUARDED_BY(mutex_);
  absl::CondVar loaded_;
  // Used last first.
  std::list<std::shared_ptr<const ServiceProfile>> profiles_ ABSL_GUARDED_BY(mutex_);
  uint64_t reads_ ABSL_GUARDED_BY(mutex_) = 0;
  std::map<StoredProfileId, uint64_t> loading_ ABSL_GUARDED_BY(mutex_);  // the number of the read
  std::set<StoredProfileId> stored_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace kvstream

#endif  // KVSTREAM_SERVER_SERVICE_PROFILE_CACHE_H_

// Which chunks loads in flight use, so that deleting a chunk never breaks a load.
#ifndef KVSTREAM_SERVER_SERVICE_CHUNK_LEASES_H_
#define KVSTREAM_SERVER_SERVICE_CHUNK_LEASES_H_

#include <cstddef>
#include <functional>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/types/span.h"
#include "storage/chunk_store.h"

namespace kvstream {

// Deleting a chunk that a load uses hides it at once from everybody else and deletes it when its
// last load ends. That it is to go is noted in the store too (ChunkStore::DeleteSoon), so that a
// crash before that end does not bring it back. Thread-safe; must outlive its leases.
class ChunkLeases {
 public:
  // Keeps chunks readable; given back on destruction. Move only.
  class Lease {
   public:
    Lease() = default;
    ~Lease() { Release(); }
    Lease(Lease&& other) noexcept { *this = std::move(other); }
    Lease& operator=(Lease&& other) noexcept;

    void Release();

   private:
    friend class ChunkLeases;
    Lease(ChunkLeases* leases, std::vector<ChunkId> ids) : leases_(leases), ids_(std::move(ids)) {}

    ChunkLeases* leases_ = nullptr;
    std::vector<ChunkId> ids_;
  };

  // `delete_now` is told, with no lock held, of hidden chunks whose last lease has ended; it must
  // see to it that they are deleted from the store and EndDelete is called. It may run on any
  // thread that releases a lease and must not block.
  explicit ChunkLeases(std::function<void(std::vector<ChunkId>)> delete_now)
      : delete_now_(std::move(delete_now)) {}
  ChunkLeases(const ChunkLeases&) = delete;
  ChunkLeases& operator=(const ChunkLeases&) = delete;

  // Take the lease before asking the store. NOT_FOUND, naming index and id, for a chunk that is
  // being deleted.
  absl::StatusOr<Lease> Acquire(const std::vector<ChunkId>& ids);

  // Splits ids: `now` are without a lease, hidden until EndDelete(now), to be called after the
  // store's Delete whatever its result; `deferred` are in use and now hidden, and nothing becomes
  // of them until EndDefer(deferred). Ids that are hidden already are in neither.
  struct DeletePlan {
    std::vector<ChunkId> now;
    std::vector<ChunkId> deferred;
  };
  DeletePlan BeginDelete(absl::Span<const ChunkId> ids);
  void EndDelete(absl::Span<const ChunkId> ids);
  // After the store was told of deferred deletions; if it could not note them they are forgotten.
  // Returns those whose last lease has ended meanwhile: the caller deletes them from the store and
  // calls EndDelete.
  std::vector<ChunkId> EndDefer(absl::Span<const ChunkId> ids, bool noted);

  // Before storing a chunk: a deferred deletion of it is forgotten, one in progress is waited for.
  // The store's note of it is the caller's to take back (ChunkStore::Renew).
  void Revive(const ChunkId& id);

  bool Hidden(const ChunkId& id) const;
  // Leading ids of which none is hidden.
  size_t VisiblePrefix(absl::Span<const ChunkId> ids) const;

 private:
  struct Entry {
    uint32_t leases = 0;
    bool doomed = false;    // delete when leases reaches 0
    bool deleting = false;  // the store's Delete is running or about to
    bool noting = false;    // doomed, and the store is being told
  };

  void Release(const std::vector<ChunkId>& ids);

  const std::function<void(std::vector<ChunkId>)> delete_now_;
  mutable absl::Mutex mutex_;
  absl::CondVar deleted_;
  absl::flat_hash_map<ChunkId, Entry> entries_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace kvstream

#endif  // KVSTREAM_SERVER_SERVICE_CHUNK_LEASES_H_

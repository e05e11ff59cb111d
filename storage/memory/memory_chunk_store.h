// Chunks in the process's memory: for tests, benchmarks and caches that may be lost. Nothing
// outlives the process, so "durable" here means "until then".
#ifndef KVSTREAM_STORAGE_MEMORY_MEMORY_CHUNK_STORE_H_
#define KVSTREAM_STORAGE_MEMORY_MEMORY_CHUNK_STORE_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "absl/types/optional.h"
#include "absl/types/span.h"
#include "storage/chunk_store.h"
#include "storage/eviction_index.h"
#include "storage/hold_table.h"
#include "storage/pin_table.h"

namespace kvstream {

struct MemoryChunkStoreOptions {
  // Bytes of all segments and profiles together. Infos and the maps come on top: some 300 bytes a
  // chunk, 450 with eviction.
  uint64_t max_bytes = uint64_t{4} << 30;
  // Whether a Put beyond it evicts what is worth least (storage/eviction_index.h). If not, or if
  // what is left is held, it is refused (RESOURCE_EXHAUSTED) and changes nothing.
  bool evict = false;
  // What all pinned chunks together may have; 0: half of max_bytes.
  uint64_t pin_bytes_max = 0;
  // Tells when pins end.
  std::function<absl::Time()> now = absl::Now;

  // INVALID_ARGUMENT if max_bytes is 0 or there is no clock.
  absl::Status Validate() const;
};

// Thread-safe. Put copies the payload once, outside the lock; ReadSegment copies nothing. Pinned
// bytes are shared with the store: they stay valid after Delete and, unlike the interface promises,
// even after the store's destruction.
class MemoryChunkStore final : public ChunkStore {
 public:
  // INVALID_ARGUMENT if the options are invalid.
  static absl::StatusOr<std::unique_ptr<ChunkStore>> Create(
      const MemoryChunkStoreOptions& options = {});

  MemoryChunkStore(const MemoryChunkStore&) = delete;
  MemoryChunkStore& operator=(const MemoryChunkStore&) = delete;

  absl::StatusOr<bool> Put(const ChunkId& id, const ChunkInfo& info,
                           absl::Span<const absl::string_view> segments) override;
  absl::StatusOr<std::vector<absl::optional<ChunkInfo>>> GetInfos(
      absl::Span<const ChunkId> ids) override;
  absl::StatusOr<size_t> LongestPrefix(absl::Span<const ChunkId> ids) override;
  absl::StatusOr<PinnedBytes> ReadSegment(const ChunkId& id, uint32_t level) override;
  // Everything is at hand.
  absl::optional<absl::StatusOr<PinnedBytes>> TryReadSegment(const ChunkId& id,
                                                             uint32_t level) override {
    return ReadSegment(id, level);
  }
  absl::StatusOr<size_t> Delete(absl::Span<const ChunkId> ids) override;
  absl::StatusOr<size_t> Trim(absl::Span<const ChunkId> ids, uint32_t keep_levels) override;
  ChunkHold Hold(absl::Span<const ChunkId> ids) override { return holds_.Hold(ids); }
  void Touch(absl::Span<const ChunkId> ids) override;
  absl::StatusOr<std::vector<std::pair<ChunkId, ChunkInfo>>> List(
      const absl::optional<ChunkId>& after, size_t limit) override;
  absl::StatusOr<size_t> Expire(absl::Time now, size_t limit) override;
  absl::StatusOr<size_t> Renew(absl::Span<const ChunkId> ids, absl::Time expires) override;
  absl::StatusOr<size_t> Pin(absl::Span<const ChunkId> ids, absl::string_view owner,
                             absl::Time until) override;
  absl::StatusOr<size_t> Unpin(absl::Span<const ChunkId> ids,
                               const absl::optional<std::string>& owner) override;
  absl::StatusOr<std::vector<ChunkPin>> ListPins(const absl::optional<ChunkPin>& after,
                                                 size_t limit) override {
    return pins_.List(after, limit);
  }
  absl::StatusOr<std::vector<ChunkPin>> ListTenantPins(absl::string_view tenant,
                                                       const absl::optional<ChunkPin>& after,
                                                       size_t limit) override {
    return pins_.ListTenant(tenant, after, limit);
  }
  absl::StatusOr<std::vector<ChunkPin>> PinsOf(absl::Span<const ChunkId> ids) override;
  // Nothing outlives the process, so there is nothing to note.
  absl::StatusOr<size_t> DeleteSoon(absl::Span<const ChunkId> ids) override;
  absl::StatusOr<std::vector<ChunkId>> Children(const ChunkId& id, size_t limit) override;
  absl::StatusOr<TenantUse> GetTenantUse(absl::string_view tenant) override;
  absl::StatusOr<bool> PutProfile(const StoredProfileId& id, absl::string_view bytes) override;
  absl::StatusOr<std::string> GetProfile(const StoredProfileId& id) override;
  absl::StatusOr<std::vector<StoredProfileId>> ListProfiles() override;
  // Exact; disk_bytes is 0.
  absl::StatusOr<StoreStats> Stats() override;
  absl::string_view driver() const override { return "memory"; }

 private:
  // Replaced as a whole, never changed.
  struct StoredChunk {
    ChunkInfo info;
    // Each is shared with its readers and with the chunk's earlier and later states.
    std::vector<std::shared_ptr<const std::string>> segments;
  };

  explicit MemoryChunkStore(const MemoryChunkStoreOptions& options)
      : options_(options),
        pins_(options.pin_bytes_max > 0 ? options.pin_bytes_max : options.max_bytes / 2) {}

  // RESOURCE_EXHAUSTED if `bytes` more do not fit; `what` opens the message.
  absl::Status CheckRoom(absl::string_view what, uint64_t bytes) const
      ABSL_SHARED_LOCKS_REQUIRED(mutex_);

  // Evicts so that `bytes` more fit, as far as that goes. `dead` takes what is no longer stored, to
  // be freed without the lock.
  void MakeRoom(uint64_t bytes, std::vector<std::shared_ptr<const StoredChunk>>* dead)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Keeps `keep_levels` levels of a stored chunk, 0: none. Returns the bytes freed.
  uint64_t RemoveLevels(const ChunkId& id, uint32_t keep_levels,
                        std::vector<std::shared_ptr<const StoredChunk>>* dead)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  // Beside chunks_: a chunk is stored, or is not any more.
  void Enlist(const ChunkId& id, const ChunkInfo& info) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Unlist(const ChunkId& id, const ChunkInfo& info) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Whether it is stored.
  bool RenewLocked(const ChunkId& id, absl::Time expires) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void RemovePins(absl::Span<const ChunkPin> pins, absl::Time now)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Adds to what is stored, in all and of the chunk's tenant; negative numbers are two's
  // complement.
  void Count(const ChunkInfo& info, uint64_t chunks, uint64_t bytes)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const MemoryChunkStoreOptions options_;
  HoldTable holds_;
  PinTable pins_;
  mutable absl::Mutex mutex_;
  // Shared with the pins that readers hold: a chunk's memory is freed by whoever lets go of it
  // last.
  std::map<ChunkId, std::shared_ptr<const StoredChunk>> chunks_ ABSL_GUARDED_BY(mutex_);
  std::set<std::pair<absl::Time, ChunkId>> expiry_ ABSL_GUARDED_BY(mutex_);
  std::set<std::pair<ChunkId, ChunkId>> children_ ABSL_GUARDED_BY(mutex_);  // parent, child
  uint64_t expired_ ABSL_GUARDED_BY(mutex_) = 0;
  std::map<StoredProfileId, std::string> profiles_ ABSL_GUARDED_BY(mutex_);
  EvictionIndex index_ ABSL_GUARDED_BY(mutex_);  // empty unless options_.evict
  StoreStats evicted_ ABSL_GUARDED_BY(mutex_);   // only what eviction counts
  uint64_t payload_bytes_ ABSL_GUARDED_BY(mutex_) = 0;
  std::map<std::string, TenantUse, std::less<>> tenants_
      ABSL_GUARDED_BY(mutex_);  // that have chunks
  uint64_t profile_bytes_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace kvstream

#endif  // KVSTREAM_STORAGE_MEMORY_MEMORY_CHUNK_STORE_H_

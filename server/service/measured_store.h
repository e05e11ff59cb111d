// A store with a clock and a count of pins around another one.
#ifndef KVSTREAM_SERVER_SERVICE_MEASURED_STORE_H_
#define KVSTREAM_SERVER_SERVICE_MEASURED_STORE_H_

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "server/service/metrics.h"
#include "storage/chunk_store.h"

namespace kvstream {

// Passes every call on, observes its time and counts the pinned segments that are alive: gRPC may
// let go of the last one on a thread of its own after the call and even the server have ended, and
// the store must outlive it. Thread-safe as ChunkStore. Destroy it only once AwaitUnpinned()
// returned true.
class MeasuredStore final : public ChunkStore {
 public:
  // `metrics` is borrowed and outlives the store.
  MeasuredStore(std::unique_ptr<ChunkStore> store, Metrics* metrics);

  // False if pins were still alive at the timeout.
  bool AwaitUnpinned(absl::Duration timeout) const;

  absl::StatusOr<bool> Put(const ChunkId& id, const ChunkInfo& info,
                           absl::Span<const absl::string_view> segments) override;
  absl::StatusOr<std::vector<absl::optional<ChunkInfo>>> GetInfos(
      absl::Span<const ChunkId> ids) override;
  absl::StatusOr<size_t> LongestPrefix(absl::Span<const ChunkId> ids) override;
  absl::StatusOr<PinnedBytes> ReadSegment(const ChunkId& id, uint32_t level) override;
  // Hits only are observed, as reads.
  absl::optional<absl::StatusOr<PinnedBytes>> TryReadSegment(const ChunkId& id,
                                                             uint32_t level) override;
  absl::StatusOr<size_t> Delete(absl::Span<const ChunkId> ids) override;
  absl::StatusOr<size_t> Trim(absl::Span<const ChunkId> ids, uint32_t keep_levels) override;
  ChunkHold Hold(absl::Span<const ChunkId> ids) override { return store_->Hold(ids); }
  void Touch(absl::Span<const ChunkId> ids) override { store_->Touch(ids); }
  absl::StatusOr<std::vector<std::pair<ChunkId, ChunkInfo>>> List(
      const absl::optional<ChunkId>& after, size_t limit) override;
  absl::StatusOr<size_t> Expire(absl::Time now, size_t limit) override;
  absl::StatusOr<size_t> Renew(absl::Span<const ChunkId> ids, absl::Time expires) override;
  absl::StatusOr<size_t> Pin(absl::Span<const ChunkId> ids, absl::string_view owner,
                             absl::Time until) override;
  absl::StatusOr<size_t> Unpin(absl::Span<const ChunkId> ids,
                               const absl::optional<std::string>& owner) override;
  absl::StatusOr<std::vector<ChunkPin>> ListPins(const absl::optional<ChunkPin>& after,
                                                 size_t limit) override;
  absl::StatusOr<std::vector<ChunkPin>> ListTenantPins(absl::string_view tenant,
                                                       const absl::optional<ChunkPin>& after,
                                                       size_t limit) override {
    return store_->ListTenantPins(tenant, after, limit);
  }
  absl::StatusOr<std::vector<ChunkPin>> PinsOf(absl::Span<const ChunkId> ids) override;
  absl::StatusOr<size_t> DeleteSoon(absl::Span<const ChunkId> ids) override;
  absl::StatusOr<std::vector<ChunkId>> Children(const ChunkId& id, size_t limit) override;
  absl::StatusOr<std::vector<std::pair<ChunkId, ChunkInfo>>> ListTenant(
      absl::string_view tenant, const absl::optional<ChunkId>& after, size_t limit) override;
  absl::StatusOr<TenantUse> GetTenantUse(absl::string_view tenant) override {
    return store_->GetTenantUse(tenant);
  }
  absl::StatusOr<bool> PutProfile(const StoredProfileId& id, absl::string_view bytes) override;
  absl::StatusOr<std::string> GetProfile(const StoredProfileId& id) override;
  absl::StatusOr<std::vector<StoredProfileId>> ListProfiles() override;
  absl::StatusOr<ScrubbedInfos> ScrubInfos(const absl::optional<ChunkId>& after,
                                           size_t limit) override {
    return store_->ScrubInfos(after, limit);
  }
  absl::StatusOr<PinnedBytes> ScrubSegment(const ChunkId& id, uint32_t level) override;
  absl::StatusOr<ScrubbedFiles> ScrubFiles(const std::string& after, uint64_t bytes) override {
    return store_->ScrubFiles(after, bytes);
  }
  absl::StatusOr<size_t> Discard(absl::Span<const ChunkId> ids) override {
    return store_->Discard(ids);
  }
  absl::Status Backup(const std::string& dir) override { return store_->Backup(dir); }
  absl::StatusOr<StoreStats> Stats() override;
  absl::string_view driver() const override { return store_->driver(); }

 private:
  class Timer;

  PinnedBytes Counted(PinnedBytes pinned);
  void Unpin();
  bool Unpinned() const ABSL_SHARED_LOCKS_REQUIRED(mutex_) { return pins_ == 0; }

  const std::unique_ptr<ChunkStore> store_;
  Metrics* const metrics_;
  mutable absl::Mutex mutex_;
  int64_t pins_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace kvstream

#endif  // KVSTREAM_SERVER_SERVICE_MEASURED_STORE_H_

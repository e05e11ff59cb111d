// One tenant's part of a store that several share. docs/tenants.md says what keeps them apart.
#ifndef KVSTREAM_STORAGE_TENANT_VIEW_H_
#define KVSTREAM_STORAGE_TENANT_VIEW_H_

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "absl/types/optional.h"
#include "absl/types/span.h"
#include "storage/chunk_store.h"

namespace kvstream {

struct TenantViewOptions {
  std::string tenant;        // 1 to kMaxTenantBytes, any bytes
  uint64_t quota_bytes = 0;  // of chunks' segments and profiles together; 0: no quota
  // Of its chunks that are pinned, and number of pins; 0: only what the store sets all tenants.
  uint64_t pin_bytes_max = 0;
  uint64_t pins_max = 0;
};

// A chunk or profile that the tenant calls `id` is stored as a hash of the tenant and `id`, so no
// view can name what another one has stored: for it, such an id is one that was never stored, on
// the same path and in the same time.
//
// What differs from ChunkStore: infos have no tenant, neither given nor returned. List goes in the
// order of the stored ids, which says nothing to the caller. Stats are the tenant's own: the quota
// is the capacity, and what is of the whole store (disk, eviction, pins) is left at 0; Expire,
// Backup and scrubs of files are the whole store's too. A tenant has at most kMaxProfiles profiles.
//
// A Put that does not fit the quota fails with RESOURCE_EXHAUSTED and changes nothing. Puts that
// run at the same time through one view never exceed it together, but for a chunk that is stored
// when its Put begins and deleted during it. Views of one tenant in several processes may exceed it
// by what each of them is putting at the time. A crash amid PutProfile may leave an id in
// ListProfiles that is not stored; putting it again mends that.
//
// Thread-safe. Costs a SHA-256 of about 90 bytes an id on top of the inner store's call, and of
// every Put one look at the info.
class TenantView final : public ChunkStore {
 public:
  static constexpr uint32_t kMaxProfiles = 256;

  // `store` is borrowed and outlives the view. INVALID_ARGUMENT for a name out of range;
  // UNIMPLEMENTED if there is a quota and the store does not count what tenants have.
  static absl::StatusOr<std::unique_ptr<TenantView>> Create(ChunkStore* store,
                                                            TenantViewOptions options);

  // Under which ids things are stored. Part of the stored format.
  static ChunkId StoredId(absl::string_view tenant, const ChunkId& id);
  static StoredProfileId StoredProfile(absl::string_view tenant, const StoredProfileId& id);

  const std::string& tenant() const { return options_.tenant; }
  uint64_t quota_bytes() const { return quota_bytes_.load(std::memory_order_relaxed); }
  // From now on; what is there stays, even above. UNIMPLEMENTED, and nothing changed, as Create.
  // options.tenant is ignored.
  absl::Status SetLimits(const TenantViewOptions& options);
  // Bytes that count against the quota; blocks on the store where profiles have to be looked up.
  absl::StatusOr<uint64_t> UsedBytes();
  // Puts that the quota refused so far.
  uint64_t refused() const { return refused_.load(std::memory_order_relaxed); }

  absl::StatusOr<bool> Put(const ChunkId& id, const ChunkInfo& info,
                           absl::Span<const absl::string_view> segments) override;
  absl::StatusOr<std::vector<absl::optional<ChunkInfo>>> GetInfos(
      absl::Span<const ChunkId> ids) override;
  absl::StatusOr<size_t> LongestPrefix(absl::Span<const ChunkId> ids) override;
  absl::StatusOr<PinnedBytes> ReadSegment(const ChunkId& id, uint32_t level) override;
  absl::optional<absl::StatusOr<PinnedBytes>> TryReadSegment(const ChunkId& id,
                                                             uint32_t level) override;
  absl::StatusOr<size_t> Delete(absl::Span<const ChunkId> ids) override;
  absl::StatusOr<size_t> Trim(absl::Span<const ChunkId> ids, uint32_t keep_levels) override;
  ChunkHold Hold(absl::Span<const ChunkId> ids) override;
  void Touch(absl::Span<const ChunkId> ids) override;
  absl::StatusOr<std::vector<std::pair<ChunkId, ChunkInfo>>> List(
      const absl::optional<ChunkId>& after, size_t limit) override;
  // To the view all its chunks are nobody's.
  absl::StatusOr<std::vector<std::pair<ChunkId, ChunkInfo>>> ListTenant(
      absl::string_view tenant, const absl::optional<ChunkId>& after, size_t limit) override;
  // The whole store's: for whoever sweeps it.
  absl::StatusOr<size_t> Expire(absl::Time now, size_t limit) override {
    return store_->Expire(now, limit);
  }
  absl::StatusOr<size_t> Renew(absl::Span<const ChunkId> ids, absl::Time expires) override;
  // RESOURCE_EXHAUSTED, and nothing is pinned, if the tenant's own bound would be passed. A store
  // that does not count by tenant has the one bound of all.
  absl::StatusOr<size_t> Pin(absl::Span<const ChunkId> ids, absl::string_view owner,
                             absl::Time until) override;
  absl::StatusOr<size_t> Unpin(absl::Span<const ChunkId> ids,
                               const absl::optional<std::string>& owner) override;
  // In the order of the stored ids; looks at the pins of all tenants where the store has no index.
  absl::StatusOr<std::vector<ChunkPin>> ListPins(const absl::optional<ChunkPin>& after,
                                                 size_t limit) override;
  absl::StatusOr<std::vector<ChunkPin>> PinsOf(absl::Span<const ChunkId> ids) override;
  absl::StatusOr<size_t> DeleteSoon(absl::Span<const ChunkId> ids) override;
  absl::StatusOr<std::vector<ChunkId>> Children(const ChunkId& id, size_t limit) override;
  absl::StatusOr<PinnedBytes> ScrubSegment(const ChunkId& id, uint32_t level) override;
  absl::StatusOr<size_t> Discard(absl::Span<const ChunkId> ids) override;
  absl::StatusOr<bool> PutProfile(const StoredProfileId& id, absl::string_view bytes) override;
  absl::StatusOr<std::string> GetProfile(const StoredProfileId& id) override;
  absl::StatusOr<std::vector<StoredProfileId>> ListProfiles() override;
  absl::StatusOr<StoreStats> Stats() override;
  absl::string_view driver() const override { return store_->driver(); }

 private:
  // A profile of the tenant's. The store lists profiles without saying whose they are, so the n-th
  // profile of a tenant is noted under an id that follows from the tenant and n, as a profile of
  // its own: slots are written once, in order, and never change.
  struct Slot {
    StoredProfileId id;
    uint64_t bytes = 0;
  };
  // Bytes reserved of the quota for a write that is under way.
  class Reservation;

  TenantView(ChunkStore* store, TenantViewOptions options)
      : store_(store),
        options_(std::move(options)),
        quota_bytes_(options_.quota_bytes),
        pin_bytes_max_(options_.pin_bytes_max),
        pins_max_(options_.pins_max) {}

  ChunkId Stored(const ChunkId& id) const { return StoredId(options_.tenant, id); }
  std::vector<ChunkId> Stored(absl::Span<const ChunkId> ids) const;
  // The pins that are of the tenant's chunks, with its ids.
  absl::StatusOr<std::vector<ChunkPin>> Outer(std::vector<ChunkPin> pins);
  // What the tenant sees of a stored info; none if it is not the tenant's.
  absl::optional<ChunkInfo> Outer(ChunkInfo info) const;
  StoredProfileId SlotId(uint32_t number) const;
  // All slots that are written; reads those that it does not know yet.
  absl::StatusOr<std::vector<Slot>> Slots();
  // Sees to it that the profile has a slot.
  absl::Status TakeSlot(const StoredProfileId& id, uint64_t bytes);
  // RESOURCE_EXHAUSTED, counted, if the quota has no room.
  absl::Status Reserve(uint64_t bytes, absl::string_view what, Reservation* reservation);
  // What a Pin would add to what is pinned.
  absl::StatusOr<TenantUse> NewPins(const std::vector<ChunkId>& stored_ids,
                                    absl::string_view owner);
  absl::StatusOr<std::vector<ChunkPin>> PinsPage(const absl::optional<ChunkPin>& after,
                                                 size_t limit);

  ChunkStore* const store_;
  const TenantViewOptions options_;  // as created
  std::atomic<uint64_t> quota_bytes_;
  std::atomic<uint64_t> pin_bytes_max_;
  std::atomic<uint64_t> pins_max_;
  std::atomic<uint64_t> refused_{0};
  absl::Mutex mutex_;
  // By Pins that are under way.
  uint64_t reserved_pins_ ABSL_GUARDED_BY(mutex_) = 0;
  uint64_t reserved_pin_bytes_ ABSL_GUARDED_BY(mutex_) = 0;
  uint64_t reserved_bytes_ ABSL_GUARDED_BY(mutex_) = 0;
  std::vector<Slot> slots_ ABSL_GUARDED_BY(mutex_);  // known to be written
};

}  // namespace kvstream

#endif  // KVSTREAM_STORAGE_TENANT_VIEW_H_

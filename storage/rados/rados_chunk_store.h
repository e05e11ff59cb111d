// Chunks in a pool of a Ceph cluster: any number of daemons serve the same ones, and none keeps
// anything that another would miss. docs/storage.md says what is stored and what is promised.
#ifndef KVSTREAM_STORAGE_RADOS_RADOS_CHUNK_STORE_H_
#define KVSTREAM_STORAGE_RADOS_RADOS_CHUNK_STORE_H_

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "absl/types/optional.h"
#include "absl/types/span.h"
#include "storage/chunk_store.h"
#include "storage/hold_table.h"
#include "storage/rados/held_records.h"
#include "storage/rados/rados_evictor.h"
#include "storage/rados/rados_index.h"
#include "storage/rados/rados_leases.h"
#include "storage/rados/rados_pool.h"
#include "storage/rados/rados_room.h"
#include "storage/rados/rados_tenants.h"
#include "storage/rados/rados_usage.h"
#include "storage/rocksdb/id_claims.h"
#include "storage/versioned_chunk_store.h"

namespace kvstream {

struct RadosChunkStoreOptions {
  RadosPoolOptions pool;
  // Of the index: a power of two, 1 to 4096, settled when the store is made. More let more daemons
  // write at once, and keep each below Ceph's warning at 200 000 keys. 0: as many as the store has,
  // 256 if it is to be made.
  uint32_t shards = 0;
  uint64_t info_cache_bytes = uint64_t{64} << 20;
  // How long this daemon may go on telling of a chunk what another one has changed: deleted,
  // trimmed, restored. 0: it asks Ceph each time.
  absl::Duration info_max_age = absl::Seconds(5);
  // Data of a deleted chunk stays readable for the loads of other daemons for so long, and for as
  // long as they have leased the chunk, but no longer than upload_age.
  absl::Duration retire_age = absl::Minutes(10);
  // What all data in the namespace, of all daemons, may take together: payload and profiles, also
  // what is being written or on its way out; not copies, nor what Ceph and the index need beside
  // it. A chunk may have an eighth of it. 0: this daemon leaves the room to others, and keeps to
  // what they allot.
  uint64_t capacity_bytes = 0;
  // retire_age where uploads wait for room.
  absl::Duration pressed_retire_age = absl::Minutes(1);
  // How often this daemon leases the chunks that its loads have held for so long: finds whether
  // they need it, and writes one record if so. At most a quarter of pressed_retire_age, so that a
  // lease is there before data of its chunks may go. InfiniteDuration: never by itself.
  absl::Duration lease_interval = absl::Seconds(15);
  // How long a Put waits for room.
  absl::Duration room_timeout = absl::Seconds(10);
  // How often one of the daemons looks for room; ten times as often while it is wanted.
  absl::Duration keeper_interval = absl::Seconds(1);
  // How often notes of use are written.
  absl::Duration usage_interval = absl::Minutes(1);
  // An upload that takes longer fails; what died daemons left is removed after it. Clocks of all
  // daemons must agree much better than this and retire_age.
  absl::Duration upload_age = absl::Hours(1);
  // How often one of the daemons looks for such data. InfiniteDuration: never by itself.
  absl::Duration sweep_interval = absl::Minutes(1);
  // The time of day; injected by tests.
  std::function<absl::Time()> clock = nullptr;

  // INVALID_ARGUMENT naming the option.
  absl::Status Validate() const;
};

// Thread-safe. Put copies the payload once, ReadSegment none beyond what librados does: pinned
// bytes are buffers of their own and outlive everything.
//
// Every wait for Ceph ends with the caller's deadline (storage/call_deadline.h), if that comes
// before the pool's op_timeout (but a Put ends what it has begun to write), and no lock is held
// meanwhile that another request waits for: but a Put waits, by its deadline at most, for another
// one of the same chunk, and the first question about any tenant for the counters of all.
//
// Holds keep this process from beginning to trim, expire and evict, and leases that follow from
// them keep others from evicting. What another daemon removes stays readable for retire_age, where
// room is wanted for pressed_retire_age, and for as long as it is held, up to upload_age. A held
// chunk is read as it was when its infos were first asked for: should another daemon have replaced
// it by other bytes since, then it counts as absent until nobody holds it.
class RadosChunkStore final : public VersionedChunkStore {
 public:
  // Connects; makes the store in an empty namespace. Errors of RadosPool::Connect;
  // FAILED_PRECONDITION for a store of a newer version, or of another number of shards than asked
  // for.
  static absl::StatusOr<std::unique_ptr<RadosChunkStore>> Create(
      const RadosChunkStoreOptions& options);
  ~RadosChunkStore() override;

  absl::StatusOr<bool> Put(const ChunkId& id, const ChunkInfo& info,
                           absl::Span<const absl::string_view> segments) override;
  absl::StatusOr<std::vector<absl::optional<ChunkInfo>>> GetInfos(
      absl::Span<const ChunkId> ids) override;
  absl::StatusOr<size_t> LongestPrefix(absl::Span<const ChunkId> ids) override;
  absl::StatusOr<PinnedBytes> ReadSegment(const ChunkId& id, uint32_t level) override;
  absl::StatusOr<size_t> Delete(absl::Span<const ChunkId> ids) override;
  absl::StatusOr<size_t> Trim(absl::Span<const ChunkId> ids, uint32_t keep_levels) override;
  ChunkHold Hold(absl::Span<const ChunkId> ids) override;
  void Touch(absl::Span<const ChunkId> ids) override;
  absl::StatusOr<std::vector<std::pair<ChunkId, ChunkInfo>>> List(
      const absl::optional<ChunkId>& after, size_t limit) override;
  // Over all daemons: of those that call this one does it, and the others remove nothing until it
  // has not for a minute.
  absl::StatusOr<size_t> Expire(absl::Time now, size_t limit) override;
  absl::StatusOr<size_t> Renew(absl::Span<const ChunkId> ids, absl::Time expires) override;
  // At most 64 pins a chunk (RESOURCE_EXHAUSTED). Daemons that pin at the same time may exceed the
  // bound by what each of them is pinning.
  absl::StatusOr<size_t> Pin(absl::Span<const ChunkId> ids, absl::string_view owner,
                             absl::Time until) override;
  absl::StatusOr<size_t> Unpin(absl::Span<const ChunkId> ids,
                               const absl::optional<std::string>& owner) override;
  absl::StatusOr<std::vector<ChunkPin>> ListPins(const absl::optional<ChunkPin>& after,
                                                 size_t limit) override;
  absl::StatusOr<std::vector<ChunkPin>> ListTenantPins(absl::string_view tenant,
                                                       const absl::optional<ChunkPin>& after,
                                                       size_t limit) override;
  absl::StatusOr<std::vector<ChunkPin>> PinsOf(absl::Span<const ChunkId> ids) override;
  // Completed when this store is closed; of a daemon that died, by a sweep once upload_age has
  // passed since.
  absl::StatusOr<size_t> DeleteSoon(absl::Span<const ChunkId> ids) override;
  absl::StatusOr<std::vector<ChunkId>> Children(const ChunkId& id, size_t limit) override;
  absl::StatusOr<std::vector<std::pair<ChunkId, ChunkInfo>>> ListTenant(
      absl::string_view tenant, const absl::optional<ChunkId>& after, size_t limit) override;
  // Exact as far as this daemon goes, pins too; what others changed it knows a second later, or
  // info_max_age if that is less. Asks every shard, once in that time.
  absl::StatusOr<TenantUse> GetTenantUse(absl::string_view tenant) override;
  absl::StatusOr<bool> PutProfile(const StoredProfileId& id, absl::string_view bytes) override;
  absl::StatusOr<std::string> GetProfile(const StoredProfileId& id) override;
  absl::StatusOr<std::vector<StoredProfileId>> ListProfiles() override;
  // Exact, over all daemons; asks every shard. disk_bytes is 0: the disks are Ceph's.
  absl::StatusOr<StoreStats> Stats() override;
  absl::string_view driver() const override { return "rados"; }

  absl::StatusOr<SegmentVersion> Version(const ChunkId& id, uint32_t level) override;
  absl::optional<SegmentVersion> TryVersion(const ChunkId& id, uint32_t level) override;

  // Removes data that nothing needs any more, as the sweep does; returns how many pieces. 0 if
  // another daemon is at it.
  absl::StatusOr<size_t> CollectGarbage();
  // One pass of keeping the bound, as this daemon does by itself: nothing if another one is at it.
  // Returns whether there is more to do.
  absl::StatusOr<bool> KeepRoom();
  // Leases what loads have held for lease_interval or longer, as this daemon does by itself; until
  // four such times from now.
  absl::Status LeaseHolds();
  // Writes what Touch noted.
  absl::Status FlushUsage();

 private:
  explicit RadosChunkStore(RadosChunkStoreOptions options) : options_(std::move(options)) {}
  absl::Status Open();
  absl::StatusOr<rados_format::StoreHeader> ReadOrMakeHeader();

  // Of the capacity this part is kept free of stored chunks, for those that are being written and
  // for data on its way out. No chunk may be larger.
  static constexpr uint64_t kHeadroomPart = 8;

  // Of chunks and profiles alike.
  absl::StatusOr<bool> PutIn(RadosIndex* index, absl::string_view what, const ChunkId& id,
                             const ChunkInfo& info, absl::Span<const absl::string_view> segments);
  // Of a chunk or profile that is stored already: its time, and that it is wanted.
  absl::StatusOr<size_t> RenewIn(RadosIndex* index, absl::string_view what,
                                 absl::Span<const ChunkId> ids, absl::Time expires);
  // Waits a little for the keeper; RESOURCE_EXHAUSTED once `since` is room_timeout ago.
  absl::Status AwaitRoom(absl::string_view what, uint64_t bytes, absl::Time since);
  // Of a stored chunk or profile, at most so old.
  absl::StatusOr<rados_format::DataRecord> Record(RadosIndex* index, absl::string_view what,
                                                  const ChunkId& id, absl::Duration max_age);
  absl::StatusOr<PinnedBytes> ReadIn(RadosIndex* index, absl::string_view what, const ChunkId& id,
                                     uint32_t level);
  absl::StatusOr<PinnedBytes> ReadLevel(absl::string_view what, const ChunkId& id,
                                        const rados_format::DataRecord& record, uint32_t level);
  absl::Status CheckPins(absl::Span<const ChunkId> ids, absl::string_view owner);
  absl::Status EndPins(absl::string_view what, absl::Time now);
  // Of chunks in the order of their ids, of the tenant's only if one is given.
  absl::StatusOr<std::vector<ChunkPin>> PinsOfSorted(absl::string_view what,
                                                     absl::Span<const ChunkId> ids,
                                                     const std::string* tenant);
  // As ListPins, of the chunks that have a key of this prefix and are of the tenant; null: of any.
  absl::StatusOr<std::vector<ChunkPin>> ListPinsUnder(absl::string_view what,
                                                      const std::string& prefix,
                                                      const std::string* tenant,
                                                      const absl::optional<ChunkPin>& after,
                                                      size_t limit);
  // Deletes those of the chunks of which that was promised and is not taken back.
  absl::Status CompleteDeletions(absl::string_view what, absl::Span<const ChunkId> ids);
  // Whether this daemon has a lock of the sweeps, from now on for so long.
  absl::StatusOr<bool> Lock(absl::string_view what, const char* lock, absl::Duration time);
  // Others need not wait until it lapses.
  void Unlock(const char* lock);
  // As above, but where it is never done: a quarter of pressed_retire_age.
  absl::Duration LeaseInterval() const {
    return std::min(options_.lease_interval, options_.pressed_retire_age / 4);
  }
  // Removes what nothing needs of chunks and profiles alike.
  absl::StatusOr<size_t> CollectGarbage(absl::string_view what, absl::Duration retire_age);
  void LeaseUntilClosed();
  void SweepUntilClosed();
  void KeepRoomUntilClosed();
  bool closing() const ABSL_SHARED_LOCKS_REQUIRED(mutex_) { return closing_; }
  bool tenants_are_not_being_read() const ABSL_SHARED_LOCKS_REQUIRED(mutex_) {
    return !reading_tenants_;
  }
  bool keeper_has_work() const ABSL_SHARED_LOCKS_REQUIRED(mutex_) {
    return closing_ || room_wanted_;
  }

  const RadosChunkStoreOptions options_;
  std::unique_ptr<RadosPool> pool_;
  RadosTenants tenants_;
  std::unique_ptr<RadosIndex> chunks_;
  std::unique_ptr<RadosIndex> profiles_;
  std::unique_ptr<RadosUsage> usage_;
  std::unique_ptr<RadosLeases> leases_;
  IdClaims writers_;  // of chunks and profiles
  HoldTable holds_;
  HeldRecords held_;
  std::string lock_cookie_;
  std::atomic<bool> expires_{false};  // this daemon had the lock for it
  std::atomic<uint64_t> expired_chunks_{0};
  std::atomic<uint64_t> evicted_segments_{0}, evicted_bytes_{0}, evicted_chunks_{0};
  absl::Mutex keeper_mutex_;  // of KeepRoom, which holds it while it works
  std::unique_ptr<RadosRoom> room_ ABSL_GUARDED_BY(keeper_mutex_);
  std::unique_ptr<RadosEvictor> evictor_ ABSL_GUARDED_BY(keeper_mutex_);
  mutable absl::Mutex mutex_;
  bool closing_ ABSL_GUARDED_BY(mutex_) = false;
  bool room_wanted_ ABSL_GUARDED_BY(mutex_) = false;
  // Whose deletion this process has promised.
  std::set<ChunkId> doomed_ ABSL_GUARDED_BY(mutex_);
  absl::Time tenants_read_ ABSL_GUARDED_BY(mutex_) = absl::InfinitePast();
  bool reading_tenants_ ABSL_GUARDED_BY(mutex_) = false;
  absl::Status tenants_status_ ABSL_GUARDED_BY(mutex_);  // of the last read
  std::thread leaser_;
  std::thread sweeper_;
  std::thread keeper_;
};

}  // namespace kvstream

#endif  // KVSTREAM_STORAGE_RADOS_RADOS_CHUNK_STORE_H_

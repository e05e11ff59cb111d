// Chunks in an embedded RocksDB: the daemon's default. docs/storage.md specifies what lies on disk.
#ifndef KVSTREAM_STORAGE_ROCKSDB_ROCKSDB_CHUNK_STORE_H_
#define KVSTREAM_STORAGE_ROCKSDB_ROCKSDB_CHUNK_STORE_H_

#include <rocksdb/cache.h>
#include <rocksdb/db.h>
#include <rocksdb/env.h>
#include <rocksdb/write_batch.h>

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/base/attributes.h"
#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "absl/types/optional.h"
#include "absl/types/span.h"
#include "storage/chunk_store.h"
#include "storage/eviction_index.h"
#include "storage/hold_table.h"
#include "storage/pin_table.h"
#include "storage/rocksdb/background_errors.h"
#include "storage/rocksdb/capacity_keeper.h"
#include "storage/rocksdb/chunk_record_format.h"
#include "storage/rocksdb/compaction_watch.h"
#include "storage/rocksdb/counted_file_system.h"
#include "storage/rocksdb/damaged_tables.h"
#include "storage/rocksdb/flush_gate.h"
#include "storage/rocksdb/id_claims.h"
#include "storage/rocksdb/info_cache.h"
#include "storage/rocksdb/log_mark.h"
#include "storage/rocksdb/log_mender.h"
#include "storage/rocksdb/rocksdb_options.h"
#include "storage/rocksdb/rocksdb_tuning.h"
#include "storage/rocksdb/store_change.h"
#include "storage/rocksdb/table_cutter.h"
#include "storage/rocksdb/write_gate.h"

namespace kvstream {

// Thread-safe. Every Put, Delete batch and PutProfile is one synced write batch, so it is there
// whole or not at all whatever crashes, and there for good once it returned. Concurrent writes of
// different ids share a disk sync.
//
// After a failed write or sync (a full disk, an I/O error) RocksDB refuses writes while reads go
// on. The next writes, at most one an options.resume_interval, have a thread try to make it
// writable again; until that works they fail with the medium's error, or with UNAVAILABLE if an
// attempt lasts for longer than options.resume_wait, or than the call may (CallDeadline). A write
// that was refused is gone for good then.
//
// With options.capacity_bytes all files in the directory together stay below that at every moment
// (capacity_plan.h says how); Create then reads all infos, some 150 bytes of memory a chunk.
//
// Pinned bytes and holds must be released before the store is destroyed.
class RocksDbChunkStore final : public ChunkStore {
 public:
  // Opens or creates the store; after a crash this replays up to options.max_log_bytes of log.
  // INVALID_ARGUMENT: an option is out of range. FAILED_PRECONDITION: the directory cannot be used
  // as it is (its parent is missing, it is no directory or not writable, another process has it
  // open, a newer version or something else wrote it). DATA_LOSS: acknowledged data is damaged.
  // RESOURCE_EXHAUSTED, UNAVAILABLE: the disk. Each says what to do where something can be done.
  static absl::StatusOr<std::unique_ptr<ChunkStore>> Create(
      const RocksDbChunkStoreOptions& options);

  RocksDbChunkStore(const RocksDbChunkStore&) = delete;
  RocksDbChunkStore& operator=(const RocksDbChunkStore&) = delete;
  // Waits for work in the background.
  ~RocksDbChunkStore() override;

  // Copies the payload twice: into the batch and into RocksDB's write buffer.
  absl::StatusOr<bool> Put(const ChunkId& id, const ChunkInfo& info,
                           absl::Span<const absl::string_view> segments) override;
  absl::StatusOr<std::vector<absl::optional<ChunkInfo>>> GetInfos(
      absl::Span<const ChunkId> ids) override;
  // Stops reading soon after the first id that is not stored.
  absl::StatusOr<size_t> LongestPrefix(absl::Span<const ChunkId> ids) override;
  // Pins the block in the cache; copies only what is still in the write buffer.
  absl::StatusOr<PinnedBytes> ReadSegment(const ChunkId& id, uint32_t level) override;
  // What is in the block cache or a write buffer.
  absl::optional<absl::StatusOr<PinnedBytes>> TryReadSegment(const ChunkId& id,
                                                             uint32_t level) override;
  // Atomic per chunk; of a failed call some chunks may be deleted.
  absl::StatusOr<size_t> Delete(absl::Span<const ChunkId> ids) override;
  absl::StatusOr<size_t> Trim(absl::Span<const ChunkId> ids, uint32_t keep_levels) override;
  ChunkHold Hold(absl::Span<const ChunkId> ids) override { return holds_.Hold(ids); }
  void Touch(absl::Span<const ChunkId> ids) override;
  absl::StatusOr<std::vector<std::pair<ChunkId, ChunkInfo>>> List(
      const absl::optional<ChunkId>& after, size_t limit) override;
  // One batch, and one sync, for 256 chunks; so do Pin, Unpin, DeleteSoon.
  absl::StatusOr<size_t> Renew(absl::Span<const ChunkId> ids, absl::Time expires) override;
  // Tries first to make a store writable again whose last write has failed. Has a thread get rid of
  // damaged tables: what their ranges hold is written once more, if all of it can be read.
  absl::StatusOr<size_t> Expire(absl::Time now, size_t limit) override;
  absl::StatusOr<size_t> Pin(absl::Span<const ChunkId> ids, absl::string_view owner,
                             absl::Time until) override;
  absl::StatusOr<size_t> Unpin(absl::Span<const ChunkId> ids,
                               const absl::optional<std::string>& owner) override;
  // From memory.
  absl::StatusOr<std::vector<ChunkPin>> ListPins(const absl::optional<ChunkPin>& after,
                                                 size_t limit) override {
    return pins_.List(after, limit);
  }
  absl::StatusOr<std::vector<ChunkPin>> PinsOf(absl::Span<const ChunkId> ids) override;
  absl::StatusOr<size_t> DeleteSoon(absl::Span<const ChunkId> ids) override;
  absl::StatusOr<std::vector<ChunkId>> Children(const ChunkId& id, size_t limit) override;
  // By an index, so that its cost does not depend on other tenants; "" has none.
  absl::StatusOr<std::vector<std::pair<ChunkId, ChunkInfo>>> ListTenant(
      absl::string_view tenant, const absl::optional<ChunkId>& after, size_t limit) override;
  absl::StatusOr<std::vector<ChunkPin>> ListTenantPins(absl::string_view tenant,
                                                       const absl::optional<ChunkPin>& after,
                                                       size_t limit) override {
    return pins_.ListTenant(tenant, after, limit);
  }
  absl::StatusOr<TenantUse> GetTenantUse(absl::string_view tenant) override {
    TenantUse use = counters_.tenant(tenant);
    const PinTable::Use pins = pins_.UseOf(tenant);
    use.pins = pins.pins;
    use.pinned_bytes = pins.bytes;
    return use;
  }
  absl::StatusOr<bool> PutProfile(const StoredProfileId& id, absl::string_view bytes) override;
  absl::StatusOr<std::string> GetProfile(const StoredProfileId& id) override;
  absl::StatusOr<std::vector<StoredProfileId>> ListProfiles() override;
  // Reads tables past the block cache, as far as their blocks are not in it.
  absl::StatusOr<ScrubbedInfos> ScrubInfos(const absl::optional<ChunkId>& after,
                                           size_t limit) override;
  absl::StatusOr<PinnedBytes> ScrubSegment(const ChunkId& id, uint32_t level) override;
  // Verifies every block of whole tables, from the disk whatever is cached; at least one table.
  absl::StatusOr<ScrubbedFiles> ScrubFiles(const std::string& after, uint64_t bytes) override;
  absl::StatusOr<size_t> Discard(absl::Span<const ChunkId> ids) override;
  // Flushes, and makes hard links where `dir` is on the same file system, else copies.
  absl::Status Backup(const std::string& dir) override;
  // Counts are exact and cost nothing: every batch carries its change to them. disk_bytes is that
  // of live tables and logs; with a capacity, of all files but RocksDB's text log.
  absl::StatusOr<StoreStats> Stats() override;
  absl::string_view driver() const override { return "rocksdb"; }

  // From here on no table is mended; what is under way ends after its batch (some 4 MiB, or a
  // chunk), and is begun anew when the store is opened again. The destructor does it too.
  void StopMending();

  // The most that disk_bytes has been since the store was opened; 0 without a capacity. For tests.
  uint64_t peak_disk_bytes() const { return files_ == nullptr ? 0 : files_->peak_bytes(); }
  // Puts that waited for room since then, by what they waited for. For benchmarks.
  CapacityKeeper::WaitsByLimit room_waits() const {
    return keeper_ == nullptr ? CapacityKeeper::WaitsByLimit() : keeper_->waits();
  }

 private:
  explicit RocksDbChunkStore(const RocksDbChunkStoreOptions& options);

  absl::Status Open();
  // rocksdb_meta.cc
  // Checks the version, writes it into an empty store or brings an older one up to it, and loads
  // the counters.
  absl::Status OpenMeta();
  absl::Status LoadCounters();
  // In place of what is damaged: reads all infos, and builds the indexes of the newest version.
  absl::Status Recount(bool build_indexes);
  // Makes the indexes anew if an earlier run has noted that they are damaged.
  absl::Status RebuildIndexes();
  // Notes that, durably, if IndexDamaged has seen it.
  void NoteIndexDamage();
  // To be called with every status of reading such an index.
  void IndexDamaged(const rocksdb::Status& status) {
    if (status.IsCorruption()) index_damaged_ = true;
  }
  absl::Status LoadProfiles();
  bool HasProfile(const StoredProfileId& id) const;

  rocksdb::ColumnFamilyHandle* family(Family family) const { return families_[family]; }

  // One chunk's info; none if it is absent.
  absl::StatusOr<absl::optional<ChunkInfo>> GetInfo(const ChunkId& id, absl::string_view what);
  // A batch with the log's mark (log_mark.h). Write gives one to any other batch, for a copy of it.
  rocksdb::WriteBatch NewBatch(size_t reserved_bytes) const;
  LogMark Mark() const;
  // `change` must be what the batch adds to the stored counters. Without `how` it writes as
  // options_.sync_writes says. UNAVAILABLE for a write that would have to wait and must not.
  absl::Status Write(rocksdb::WriteBatch* batch, const StoreChange& change, absl::string_view what,
                     const absl::optional<rocksdb::WriteOptions>& how = absl::nullopt);
  // By when a write that may wait has to be let in.
  absl::Time WriteDeadline() const;
  static absl::Status RefusalWhileResuming(absl::string_view what);
  // For a write that waits for something else first, in vain if the store recovers meanwhile.
  absl::Status AwaitWrites(absl::string_view what);
  // The write alone. ThreadSanitizer cannot see how RocksDB, which is not instrumented, hands the
  // batches of several threads to the one that writes them all; its suppressions name this
  // function, so that they hide nothing else.
  ABSL_ATTRIBUTE_NOINLINE rocksdb::Status Commit(rocksdb::WriteBatch* batch,
                                                 const rocksdb::WriteOptions& how)
      ABSL_SHARED_LOCKS_REQUIRED(writes_);
  // After an error: begins an attempt to leave the read-only state, at most one at a time and an
  // interval. When this returns, `writes_` is shut for as long as the attempt lasts.
  void MaybeResume();
  // The same, and waits for an attempt that lasts. For threads that nobody waits for.
  void AwaitResume();
  void Attempt();
  // RocksDB takes a disk that is full while it resumes for a fatal error.
  bool HasRoomToResume() const;
  // False: the store takes no writes yet. May take seconds.
  bool Resume() ABSL_EXCLUSIVE_LOCKS_REQUIRED(writes_);
  // No attempt begins any more; waits for one that lasts.
  void EndResuming();
  // Finds out, where the last write has failed, whether the store takes writes again.
  void TryToWrite();
  // To be called after every write, whatever became of it.
  void ForgetInfosOf(const rocksdb::WriteBatch& batch);
  // Nothing: not without reading the disk, which `read` forbids.
  absl::optional<absl::StatusOr<PinnedBytes>> Read(const rocksdb::ReadOptions& read,
                                                   const ChunkId& id, uint32_t level);
  absl::StatusOr<size_t> DeleteBatch(absl::Span<const ChunkId> ids);
  // rocksdb_scrub.cc
  absl::Status FindChunks(const ChunkId& after, const absl::optional<ChunkId>& before, size_t limit,
                          ScrubbedInfos* page);
  absl::StatusOr<bool> DiscardOne(const ChunkId& id);
  // What can be found of a chunk whose info cannot be read. A segment that cannot be read has no
  // bytes.
  ChunkInfo LeftOf(const ChunkId& id);
  // The tenant and the parent of a chunk whose info cannot be read, from the indexes that name the
  // chunk: walks through both, some 100 bytes a chunk of the store.
  void FindOwners(const ChunkId& id, ChunkInfo* info);
  // Under the id's claim: a Put of a chunk that is stored.
  absl::Status RenewStored(const ChunkId& id, const ChunkInfo& stored, absl::Time expires);
  // Under the id's claim: writes the levels that `stored` has lost. False if its segments are not
  // the first ones of `segments`.
  absl::StatusOr<bool> Restore(const ChunkId& id, const ChunkInfo& stored, const ChunkInfo& info,
                               absl::Span<const absl::string_view> segments);

  // rocksdb_lifetime.cc. The Batch functions add to a batch what belongs to a chunk beside its
  // record and its segments (BatchRemoval: those too); they and what names a chunk need its claim.
  static uint64_t PinBytesMax(const RocksDbChunkStoreOptions& options);
  bool Doomed(const ChunkId& id) const;
  void SetDoomed(const ChunkId& id, bool doomed);
  // An entry of `expiry` may have been written at this time.
  void SweepFrom(absl::Time at);
  rocksdb::Status BatchArrival(const ChunkId& id, const ChunkInfo& info,
                               rocksdb::WriteBatch* batch);
  rocksdb::Status BatchRemoval(const ChunkId& id, const ChunkInfo& info,
                               rocksdb::WriteBatch* batch);
  // All but the record. Sets info->expires.
  rocksdb::Status BatchRenewal(const ChunkId& id, absl::Time expires, ChunkInfo* info,
                               rocksdb::WriteBatch* batch);
  bool NeedsRenewal(const ChunkId& id, const ChunkInfo& stored, absl::Time expires) const;
  // After BatchRemoval is written; and after a chunk was put, restored, or found to be there still.
  void Removed(const ChunkId& id);
  void ReportStored(const ChunkId& id, const ChunkInfo& info);
  // Those that are stored. `what` opens the message.
  absl::StatusOr<std::vector<std::pair<ChunkId, ChunkInfo>>> StoredOf(absl::Span<const ChunkId> ids,
                                                                      absl::string_view what);
  // The sum over batches of different ids, each under a claim.
  absl::StatusOr<size_t> InBatches(
      absl::Span<const ChunkId> ids,
      const std::function<absl::StatusOr<size_t>(absl::Span<const ChunkId>)>& of_batch);
  absl::StatusOr<size_t> EndPins(absl::Span<const ChunkId> ids,
                                 const std::function<bool(const ChunkPin&)>& ends,
                                 const absl::optional<rocksdb::WriteOptions>& how = absl::nullopt);
  absl::Status RestorePins();
  // Whose a chunk is; "" if nobody's, or if that cannot be read.
  std::string TenantOf(const ChunkId& id);
  // What DeleteSoon has noted, in an earlier run.
  absl::Status CompleteDeletions();
  // Of a store of an older version.
  absl::Status BuildIndexes();
  struct Due {
    ChunkId id = {};
    absl::Time at;
  };
  // Entries of `expiry` from a key on, up to now.
  absl::StatusOr<std::vector<Due>> DueChunks(const std::string& from, absl::Time now, size_t limit);
  absl::StatusOr<size_t> ExpireBatch(absl::Span<const Due> due, absl::Time now,
                                     const rocksdb::WriteOptions& how);

  // rocksdb_mend.cc
  struct SegmentRange;
  // On a thread of its own, lets compactions of families with tables that are in the way rest, and
  // mends what can be; of failed attempts the next comes later and later, or after MendSoon.
  void MendTables();
  void MendSoon();
  // `mend`: it is time for an attempt. `held`: families whose compactions rest.
  void MendEach(bool mend, const std::array<bool, kFamilies>& held);
  // CANCELLED after StopMending.
  absl::Status MayMend() const;
  // StopMending, and waits.
  void EndMending();
  // Takes a table of `segments` away while compactions rest. FAILED_PRECONDITION: it is on level 0.
  // DATA_LOSS: a chunk in its range cannot be read. Reads and writes all payload in its range.
  absl::Status MendTable(uint64_t number);
  absl::optional<Family> FamilyOfTable(uint64_t number);
  absl::Status SetCompactions(Family in, bool on);
  // Around the store's own compactions, which must not run while MendTables does. False: not now.
  bool BeginCompacting();
  void EndCompacting();
  // All chunks whose segments may be in the range, some at a time.
  absl::Status ForSegments(
      const SegmentRange& range,
      const std::function<absl::Status(const std::vector<std::pair<ChunkId, ChunkInfo>>&)>&
          of_batch);
  absl::Status CheckSegments(const SegmentRange& range,
                             const std::vector<std::pair<ChunkId, ChunkInfo>>& chunks);
  absl::Status RewriteSegments(const SegmentRange& range,
                               const std::vector<std::pair<ChunkId, ChunkInfo>>& chunks);
  // Of tables that overlap the range and stay.
  absl::Status DeleteLeftovers(const SegmentRange& range,
                               const rocksdb::ColumnFamilyMetaData& tables);
  absl::Status DeleteUnused(const std::vector<std::string>& keys);

  // rocksdb_capacity.cc
  void StartKeeper();
  absl::Status RestoreIndex();
  // Removes levels from chunks that nobody holds or has pinned; chunks of which no level is kept
  // are deleted. Reports every chunk to the keeper.
  struct RemovedLevels {
    StoreChange change;
    size_t segments = 0;
    size_t chunks = 0;  // that lost any
  };
  absl::StatusOr<RemovedLevels> RemoveLevels(absl::Span<const EvictionIndex::Victim> victims,
                                             const rocksdb::WriteOptions& how);
  absl::Status WriteUsage(absl::Span<const std::pair<ChunkId, EvictionIndex::Usage>> usages,
                          double clock);
  uint64_t UpperLevelBytes();
  absl::StatusOr<bool> CompactSome();

  const RocksDbChunkStoreOptions options_;
  InfoCache infos_;
  // RocksDB uses the env until it is closed. The first two with a capacity only.
  std::shared_ptr<CountedFileSystem> files_;
  std::shared_ptr<CompactionWatch> compactions_;
  const std::shared_ptr<TableCutter> cutter_ = std::make_shared<TableCutter>();
  const std::shared_ptr<LogMender> logs_;
  std::unique_ptr<rocksdb::Env> ungated_env_;
  std::unique_ptr<rocksdb::Env> env_;
  // Pins hold it too, since they give their blocks back to it.
  const std::shared_ptr<rocksdb::Cache> cache_;
  std::unique_ptr<rocksdb::DB> db_;
  std::vector<rocksdb::ColumnFamilyHandle*>
      families_;  // owned by db_, handed back in the destructor
  // Put, Delete and PutProfile of one id happen one after the other.
  IdClaims chunk_claims_;
  IdClaims profile_claims_;
  HoldTable holds_;
  PinTable pins_;
  std::unique_ptr<CapacityKeeper> keeper_;  // null without a capacity

  // Shared with RocksDB, which calls it until it is closed.
  const std::shared_ptr<DamagedTables> damaged_ = std::make_shared<DamagedTables>();
  const std::shared_ptr<BackgroundErrors> errors_;
  const std::shared_ptr<FlushGate> gate_;
  // Every write is in it; shut while the log to be written to is put in order.
  WriteGate writes_;
  absl::Mutex mend_mutex_;
  bool compacting_ ABSL_GUARDED_BY(mend_mutex_) = false;
  bool mending_ ABSL_GUARDED_BY(mend_mutex_) = false;
  std::atomic<bool> stop_mending_{false};  // set under mend_mutex_
  std::thread mender_ ABSL_GUARDED_BY(mend_mutex_);
  // Families whose compactions rest.
  std::array<bool, kFamilies> held_ ABSL_GUARDED_BY(mend_mutex_) = {};
  absl::Time next_mend_ ABSL_GUARDED_BY(mend_mutex_) = absl::InfinitePast();
  absl::Duration mend_pause_ ABSL_GUARDED_BY(mend_mutex_) = absl::Seconds(10);
  absl::Mutex resume_mutex_;
  bool resuming_ ABSL_GUARDED_BY(resume_mutex_) = false;
  bool closing_ ABSL_GUARDED_BY(resume_mutex_) = false;
  absl::Time next_resume_ ABSL_GUARDED_BY(resume_mutex_) = absl::InfinitePast();
  // Errors that there had been when an attempt worked.
  uint64_t resumed_at_ ABSL_GUARDED_BY(resume_mutex_) = 0;
  std::thread resumer_ ABSL_GUARDED_BY(resume_mutex_);

  // Sequence numbers: what was there when the store was opened, and what is known to be synced.
  uint64_t settled_sequence_ = 0;
  std::atomic<uint64_t> synced_sequence_{0};
  std::atomic<uint64_t> expired_{0};
  // Deletions of an earlier run could not be completed: Expire tries again.
  std::atomic<bool> deletions_left_{false};
  std::atomic<bool> index_damaged_{false};
  std::atomic<bool> index_damage_noted_{false};
  mutable absl::Mutex lifetime_mutex_;
  // As in the family `doomed`.
  absl::flat_hash_set<ChunkId> doomed_ ABSL_GUARDED_BY(lifetime_mutex_);
  // No entry of `expiry` is before it.
  absl::Time swept_to_ ABSL_GUARDED_BY(lifetime_mutex_) = absl::InfinitePast();

  StoreCounters counters_;
  mutable absl::Mutex profiles_mutex_;
  std::set<StoredProfileId> profiles_ ABSL_GUARDED_BY(profiles_mutex_);  // that are stored
};

}  // namespace kvstream

#endif  // KVSTREAM_STORAGE_ROCKSDB_ROCKSDB_CHUNK_STORE_H_

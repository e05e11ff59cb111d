// The index of a store in a pool: which chunks there are, with their records. Every change of it is
// one conditional write to one object, so that any number of daemons may change it at once.
#ifndef KVSTREAM_STORAGE_RADOS_RADOS_INDEX_H_
#define KVSTREAM_STORAGE_RADOS_RADOS_INDEX_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "absl/types/optional.h"
#include "absl/types/span.h"
#include "storage/chunk_store.h"
#include "storage/eviction_index.h"
#include "storage/rados/rados_format.h"
#include "storage/rados/rados_pool.h"
#include "storage/rados/rados_tenants.h"
#include "storage/rocksdb/chunk_record_format.h"
#include "storage/rocksdb/info_cache.h"

namespace kvstream {

// What an index knows of an id, as it was read: a later write says "if it is still so".
struct RadosIndexEntry {
  std::string state_bytes;  // as stored; empty: nothing was ever done to the shard
  rados_format::ShardState state;
  std::string tenant_bytes;  // of the tenant asked for, as stored; empty: it has no chunks
  std::string bytes;         // of the record; empty: not stored
  absl::optional<rados_format::DataRecord> record;
  bool upload_alive = false;  // the upload asked for is still announced
};

// What becomes of a stored record: another one, or none; and whether nothing, or only the first
// bytes, of its data are needed from now on.
struct RadosIndexChange {
  static RadosIndexChange Removal(const rados_format::DataRecord& record);

  absl::optional<rados_format::DataRecord> record;
  absl::optional<rados_format::GarbageRecord> retired;
};

enum class RadosAnnounced { kYes, kConflict, kNoRoom };

// Thread-safe. Methods block for the pool. `what` opens the message of errors.
class RadosIndex {
 public:
  using Clock = std::function<absl::Time()>;

  // Of the chunks: as many shards as the pool's header says; of the profiles: one. The pool and
  // `tenants`, which is told of every change and may be null, are borrowed. Up to `cache_bytes` of
  // records are kept in memory.
  RadosIndex(const RadosPool* pool, std::vector<std::string> objects, uint64_t cache_bytes,
             Clock clock, RadosTenants* tenants = nullptr);

  // Records, absent where not stored. A record that this process read up to `max_age` ago may be
  // given again; what this process itself changed is never given as it was before.
  absl::StatusOr<std::vector<absl::optional<rados_format::DataRecord>>> Find(
      absl::string_view what, absl::Span<const ChunkId> ids, absl::Duration max_age);

  // What this process read last, of any age; never waits.
  absl::optional<rados_format::DataRecord> TryFind(const ChunkId& id);

  // Upload, in this order: Look, Announce, write the data and its name (NameWrite), Commit, with
  // Look again where another writer was first. An upload that stops anywhere leaves an
  // announcement, by which its data and its name are found and removed.
  //
  // `upload` may be empty; `tenant` is that of the chunk to be put.
  absl::StatusOr<RadosIndexEntry> Look(absl::string_view what, const ChunkId& id,
                                       const std::string& upload, absl::string_view tenant);
  // Takes room for the data of a record and says that it will be written; sets the key of the
  // announcement, which is then durable, and brings `seen` up to date. kConflict: the shard is no
  // longer as seen. kNoRoom: it may not have so much more; that it is wanted is noted.
  absl::StatusOr<RadosAnnounced> Announce(absl::string_view what, const ChunkId& id,
                                          const rados_format::DataRecord& record,
                                          RadosIndexEntry* seen, std::string* upload);
  // Puts the record in place of what `seen` has; false if that is no longer so, or the upload is no
  // longer announced. The data of a record that is replaced is retired.
  absl::StatusOr<bool> Commit(absl::string_view what, const ChunkId& id,
                              const RadosIndexEntry& seen, const std::string& upload,
                              const rados_format::DataRecord& record,
                              const absl::optional<EvictionIndex::Usage>& usage);
  // Once the data is gone.
  absl::Status Withdraw(absl::string_view what, const ChunkId& id, const std::string& upload,
                        const rados_format::DataRecord& record);
  // Names the data under the chunk's parent, so that what has children that are stored is never
  // without their names. Nothing for a chunk without a parent.
  absl::optional<OmapWrite> NameWrite(const ChunkId& id,
                                      const rados_format::DataRecord& record) const;

  // Asks for what becomes of those of `ids` that are stored (each once, maybe again if another
  // writer was first), and does it; returns how many changed. Ids may repeat. Unless `keeper` is 0,
  // changes nothing in a shard whose room another daemon keeps, and ends with ABORTED.
  absl::StatusOr<size_t> Change(absl::string_view what, absl::Span<const ChunkId> ids,
                                absl::FunctionRef<absl::optional<RadosIndexChange>(
                                    const ChunkId&, const rados_format::DataRecord&)>
                                    change,
                                uint64_t keeper = 0);

  // Up to `limit` ids, of a time at `now` or before, under keys of a time and an id; some of the
  // earliest.
  absl::StatusOr<std::vector<ChunkId>> Due(absl::string_view what, absl::string_view prefix,
                                           absl::Time now, size_t limit);

  absl::StatusOr<std::vector<std::pair<ChunkId, ChunkInfo>>> List(
      absl::string_view what, const absl::optional<ChunkId>& after, size_t limit);
  // In the order of ids: those of which there is a key of this prefix and the id.
  absl::StatusOr<std::vector<ChunkId>> ListIds(absl::string_view what, absl::string_view prefix,
                                               const absl::optional<ChunkId>& after, size_t limit);
  // Up to `limit` stored chunks each that name these as their parents, in the order of ids; asks
  // for the records anew.
  absl::StatusOr<std::vector<std::vector<ChunkId>>> Children(absl::string_view what,
                                                             absl::Span<const ChunkId> parents,
                                                             size_t limit);
  // Over all shards. Exact: each write changes its shard's with the record. `keeper`,
  // `allotted_bytes` and `wanted_bytes` are left at 0.
  absl::StatusOr<rados_format::ShardState> Count(absl::string_view what);
  // What each tenant has, over all shards.
  absl::StatusOr<std::map<std::string, TenantUse>> CountTenants(absl::string_view what);

  // Removes data that was announced before `announced_before` and never committed, and what was
  // retired before `retired_before`, but for chunks that are `held`, whose data stays until it was
  // retired before `announced_before`; returns how many pieces. May run anywhere, beside anything.
  absl::StatusOr<size_t> CollectGarbage(absl::string_view what, absl::Time announced_before,
                                        absl::Time retired_before,
                                        absl::FunctionRef<bool(const ChunkId&)> held);

  const std::vector<std::string>& objects() const { return objects_; }
  const std::string& ObjectOf(const ChunkId& id) const;

  // Waits a little that grows with the attempt; false once there were too many.
  static bool BackOff(int attempt);
  static absl::Status TooContended(absl::string_view what);

 private:
  struct Piece {         // of garbage
    std::string object;  // of the index
    std::string key, value;
    rados_format::GarbageKey name;
    rados_format::GarbageRecord record;
  };

  // Fills in those of `found` that are known and not too old; tickets for putting the others there.
  void Cached(absl::Span<const ChunkId> ids, absl::Duration max_age,
              absl::Span<absl::optional<rados_format::DataRecord>> found,
              std::vector<uint64_t>* tickets);
  // Shows ids and values under keys of this prefix and an id, in the order of ids.
  absl::Status Walk(absl::string_view what, absl::string_view prefix,
                    const absl::optional<ChunkId>& after, size_t limit,
                    absl::FunctionRef<absl::Status(const ChunkId&, const std::string&)> see);
  // One turn of Change on one shard: the records as read, and the write that follows.
  absl::Status PlanChange(absl::string_view what, const OmapRead& read,
                          absl::Span<const ChunkId> in_shard,
                          absl::FunctionRef<absl::optional<RadosIndexChange>(
                              const ChunkId&, const rados_format::DataRecord&)>
                              change,
                          uint64_t keeper, OmapWrite* write, size_t* changes,
                          std::map<std::string, TenantChange>* tenants);
  // Some of each shard's; the rest when these are gone. A damaged entry is an error only where
  // nothing else is left.
  absl::StatusOr<std::vector<Piece>> ListGarbage(absl::string_view what,
                                                 absl::Time announced_before,
                                                 absl::Time retired_before,
                                                 absl::FunctionRef<bool(const ChunkId&)> held);
  // Takes the announcements of uploads back; those that are left can be removed.
  absl::Status EndUploads(absl::string_view what, std::vector<Piece>* pieces);
  // Takes away the names under parents of data that is gone.
  absl::Status Unname(absl::string_view what, const std::vector<Piece>& pieces);
  // Takes the keys of what was removed away, and what it held off the shards'. Returns how many.
  absl::StatusOr<size_t> Forget(absl::string_view what, const std::vector<Piece>& pieces);

  const RadosPool* const pool_;
  const std::vector<std::string> objects_;  // by shard
  const Clock clock_;
  RadosTenants* const tenants_;
  InfoCache cache_;  // 8 bytes time of reading, then the record's bytes
};

}  // namespace kvstream

#endif  // KVSTREAM_STORAGE_RADOS_RADOS_INDEX_H_

// The index of a store in a pool: which chunks there are, with their records. Every change of it is
// one conditional write to one object, so that any number of daemons may change it at once.
#ifndef KVSTREAM_STORAGE_RADOS_RADOS_INDEX_H_
#define KVSTREAM_STORAGE_RADOS_RADOS_INDEX_H_

#include <cstddef>
#include <cstdint>
#include <functional>
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
#include "storage/rados/rados_format.h"
#include "storage/rados/rados_pool.h"
#include "storage/rocksdb/chunk_record_format.h"
#include "storage/rocksdb/info_cache.h"

namespace kvstream {

// What an index knows of an id, as it was read: a later write says "if it is still so".
struct RadosIndexEntry {
  std::string counters;  // as stored; empty: none yet
  std::string bytes;     // of the record; empty: not stored
  absl::optional<rados_format::DataRecord> record;
  bool upload_alive = false;  // the upload asked for is still announced
};

// What becomes of a stored record: another one, or none; and of which data nothing, or only the
// first bytes, are needed from now on.
struct RadosIndexChange {
  absl::optional<rados_format::DataRecord> record;
  rados_format::GarbageRecord retired;
};

// Thread-safe. Methods block for the pool. `what` opens the message of errors.
class RadosIndex {
 public:
  using Clock = std::function<absl::Time()>;

  // Of the chunks: as many shards as the pool's header says; of the profiles: one. The pool is
  // borrowed. Up to `cache_bytes` of records are kept in memory.
  RadosIndex(const RadosPool* pool, std::vector<std::string> objects, uint64_t cache_bytes,
             Clock clock);

  // Records, absent where not stored. A record that this process read up to `max_age` ago may be
  // given again; what this process itself changed is never given as it was before.
  absl::StatusOr<std::vector<absl::optional<rados_format::DataRecord>>> Find(
      absl::string_view what, absl::Span<const ChunkId> ids, absl::Duration max_age);

  // What this process read last, of any age; never waits.
  absl::optional<rados_format::DataRecord> TryFind(const ChunkId& id);

  // Upload, in this order: Announce, write the data, Look, Commit. An upload that stops anywhere
  // leaves an announcement, by which its data is found and removed.
  //
  // The key of the announcement, which is durable on return.
  absl::StatusOr<std::string> Announce(absl::string_view what, const ChunkId& id,
                                       const rados_format::Generation& generation,
                                       uint64_t total_bytes);
  // `upload` may be empty.
  absl::StatusOr<RadosIndexEntry> Look(absl::string_view what, const ChunkId& id,
                                       const std::string& upload);
  // Puts the record in place of what `seen` has; false if that is no longer so, or the upload is no
  // longer announced. The data of a record that is replaced is retired.
  absl::StatusOr<bool> Commit(absl::string_view what, const ChunkId& id,
                              const RadosIndexEntry& seen, const std::string& upload,
                              const rados_format::DataRecord& record);
  // Once the data is gone.
  absl::Status Withdraw(absl::string_view what, const ChunkId& id, const std::string& upload);

  // Asks for what becomes of those of `ids` that are stored (each once, maybe again if another
  // writer was first), and does it; returns how many changed. Ids may repeat.
  absl::StatusOr<size_t> Change(
      absl::string_view what, absl::Span<const ChunkId> ids,
      absl::FunctionRef<absl::optional<RadosIndexChange>(const rados_format::DataRecord&)> change);

  absl::StatusOr<std::vector<std::pair<ChunkId, ChunkInfo>>> List(
      absl::string_view what, const absl::optional<ChunkId>& after, size_t limit);
  // Over all shards. Exact: each write changes its shard's with the record.
  absl::StatusOr<rocksdb_format::Counters> Count(absl::string_view what);

  // Removes data that was announced before `announced_before` and never committed, and what was
  // retired before `retired_before`; returns how many pieces. May run anywhere, beside anything.
  absl::StatusOr<size_t> CollectGarbage(absl::string_view what, absl::Time announced_before,
                                        absl::Time retired_before);

  // Waits a little that grows with the attempt; false once there were too many.
  static bool BackOff(int attempt);

 private:
  const std::string& ObjectOf(const ChunkId& id) const;
  // Fills in those of `found` that are known and not too old; tickets for putting the others there.
  void Cached(absl::Span<const ChunkId> ids, absl::Duration max_age,
              absl::Span<absl::optional<rados_format::DataRecord>> found,
              std::vector<uint64_t>* tickets);
  absl::Status CollectOne(absl::string_view what, const std::string& object, const std::string& key,
                          const std::string& value, absl::Time announced_before,
                          absl::Time retired_before, size_t* removed);
  const RadosPool* const pool_;
  const std::vector<std::string> objects_;  // by shard
  const Clock clock_;
  InfoCache cache_;  // 8 bytes time of reading, then the record's bytes
};

}  // namespace kvstream

#endif  // KVSTREAM_STORAGE_RADOS_RADOS_INDEX_H_

// Chunk records in memory, in front of the tables.
#ifndef KVSTREAM_STORAGE_ROCKSDB_INFO_CACHE_H_
#define KVSTREAM_STORAGE_ROCKSDB_INFO_CACHE_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/functional/function_ref.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "absl/types/span.h"
#include "storage/chunk_store.h"

namespace kvstream {

// Ids are hashes, so the infos of one context lie in as many blocks of the tables as it has chunks,
// and finding one there costs some ten accesses to memory that no cache of the processor has. Here
// it costs two, a set and a record, and those of many ids at a time: a set-associative table, eight
// slots a set, found by the id's hash. An id lies with its record, so that no third place has to be
// waited for.
//
// Holds what is stored only; that a chunk is absent is not remembered. A reader that found a record
// in the tables may put it here only if nothing of its shard was erased in between, so that a
// record does not come back after it was changed or deleted.
//
// Thread-safe; a lock for each of 64 shards.
class InfoCache {
 public:
  // What all records and the table itself may take; 0: nothing is kept.
  explicit InfoCache(uint64_t bytes);
  InfoCache(const InfoCache&) = delete;

  // Calls `found` with the index and the record of every id that is here, and `missing` with the
  // index and a ticket for Insert of every other one, in the order of ids. `found` runs under a
  // lock of the cache, so that nothing is copied: it must not call back.
  void Get(absl::Span<const ChunkId> ids, absl::FunctionRef<void(size_t, absl::string_view)> found,
           absl::FunctionRef<void(size_t, uint64_t)> missing);
  // Keeps the record, in place of one that was not used for long. Does nothing if something of the
  // shard was erased since the ticket was given out, where there is no room, or with a record of
  // 64 KiB or more.
  void Insert(const ChunkId& id, absl::string_view record, uint64_t ticket);
  // After the stored record was changed or deleted, before anybody is told so.
  void Erase(const ChunkId& id);
  void Clear();

  // Of records and table.
  uint64_t bytes() const;

 private:
  static constexpr size_t kShards = 64;
  static constexpr size_t kWays = 8;

  // In one pair of cache lines, which processors fetch together.
  struct alignas(128) Set {
    std::array<std::unique_ptr<char[]>, kWays> entries;  // the id, then its record; null: empty
    std::array<uint16_t, kWays> record_bytes = {};
    std::array<uint8_t, kWays> tags = {};  // of the ids' hashes
    uint8_t used = 0;                      // a bit a slot: since the clock's hand last passed
    uint8_t hand = 0;
  };
  struct Shard {
    mutable absl::Mutex mutex;
    uint64_t erasures ABSL_GUARDED_BY(mutex) = 0;
    uint64_t record_bytes ABSL_GUARDED_BY(mutex) = 0;
    // The pointer never changes; what it points to is guarded by the mutex, which Clang cannot be
    // told of an array.
    std::unique_ptr<Set[]> sets;
  };
  struct Place {
    size_t shard;
    size_t set;
    uint8_t tag;
  };

  Place PlaceOf(const ChunkId& id) const;
  // Asks the processor for the memory that Find and its caller will need of these.
  void Prefetch(absl::Span<const Place> places);
  // The slot of the id in its set, or kWays.
  static size_t Find(const Shard& shard, const Place& place, const ChunkId& id)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(shard.mutex);
  static size_t Victim(Set& set);
  static void Empty(Shard& shard, Set& set, size_t slot) ABSL_EXCLUSIVE_LOCKS_REQUIRED(shard.mutex);

  const size_t sets_;                // of a shard; 0: nothing is kept
  const uint64_t record_bytes_max_;  // of a shard
  std::array<Shard, kShards> shards_;
};

}  // namespace kvstream

#endif  // KVSTREAM_STORAGE_ROCKSDB_INFO_CACHE_H_

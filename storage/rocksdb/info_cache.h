// Chunk records in memory, in front of the tables.
#ifndef KVSTREAM_STORAGE_ROCKSDB_INFO_CACHE_H_
#define KVSTREAM_STORAGE_ROCKSDB_INFO_CACHE_H_

#include <array>
#include <atomic>
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
// waited for. There are more slots than there is room for records, so that few sets are full when
// the memory is: an id that finds no slot costs as much as dozens that do. What is full
// first makes way by a clock, which passes over what was used since it came last.
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
  ~InfoCache();

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

  // In one pair of cache lines, which processors fetch together. Changed under the shard's lock;
  // atomic is what Prefetch reads without it.
  struct alignas(128) Set {
    // Owned: the id, then its record; null: empty.
    std::array<std::atomic<char*>, kWays> entries = {};
    std::array<uint16_t, kWays> record_bytes = {};
    std::array<std::atomic<uint8_t>, kWays> tags = {};  // of the ids' hashes
    uint8_t used = 0;                                   // a bit a slot: since a clock last passed
    uint8_t hand = 0;                                   // of the set's own clock

    char* entry(size_t slot) const { return entries[slot].load(std::memory_order_relaxed); }
    uint8_t tag(size_t slot) const { return tags[slot].load(std::memory_order_relaxed); }
  };
  struct FreeSets {
    void operator()(Set* sets) const;
  };
  struct Shard {
    mutable absl::Mutex mutex;
    uint64_t erasures ABSL_GUARDED_BY(mutex) = 0;
    uint64_t record_bytes ABSL_GUARDED_BY(mutex) = 0;
    size_t hand ABSL_GUARDED_BY(mutex) = 0;  // the set that the shard's clock comes to next
    // The pointer never changes; what it points to is guarded by the mutex, which Clang cannot be
    // told of an array.
    Set* sets = nullptr;
  };
  struct Place {
    size_t shard;
    size_t set;
    uint8_t tag;
  };

  Place PlaceOf(const ChunkId& id) const;
  // Asks the processor for the memory that Find and its caller will need of these. Takes no lock:
  // to ask for what has just been freed is useless, not wrong.
  void Prefetch(absl::Span<const Place> places) const;
  // The slot of the id in its set, or kWays.
  static size_t Find(const Shard& shard, const Place& place, const ChunkId& id)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(shard.mutex);
  // A slot for a new entry: an empty one, else one that its clock gives up.
  static size_t Victim(Set& set);
  // False if so many bytes cannot be had without looking far.
  bool MakeRoom(Shard& shard, uint64_t bytes) ABSL_EXCLUSIVE_LOCKS_REQUIRED(shard.mutex);
  static void Empty(Shard& shard, Set& set, size_t slot) ABSL_EXCLUSIVE_LOCKS_REQUIRED(shard.mutex);

  const size_t sets_;                                // of a shard; 0: nothing is kept
  const uint64_t record_bytes_max_;                  // of a shard
  const std::unique_ptr<Set[], FreeSets> all_sets_;  // one shard's after the other
  std::array<Shard, kShards> shards_;
};

}  // namespace kvstream

#endif  // KVSTREAM_STORAGE_ROCKSDB_INFO_CACHE_H_

// Takes the bytes that are worth least out of a store that is too full.
#ifndef KVSTREAM_STORAGE_RADOS_RADOS_EVICTOR_H_
#define KVSTREAM_STORAGE_RADOS_RADOS_EVICTOR_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "storage/chunk_store.h"
#include "storage/eviction_index.h"
#include "storage/hold_table.h"
#include "storage/rados/rados_index.h"
#include "storage/rados/rados_leases.h"
#include "storage/rados/rados_pool.h"
#include "storage/rados/rados_usage.h"

namespace kvstream {

struct RadosEvicted {
  uint64_t segments = 0;
  uint64_t bytes = 0;   // of payload; the pool has them back once they are collected
  uint64_t chunks = 0;  // of which nothing is left
};

// A pool may hold more chunks than one daemon can keep in mind, so it looks at a sample of some
// kSample at a time, going round the shards: ids are hashes, so any stretch of them is a fair one.
// Of a sample that is not the whole store it takes the least valuable eighth at most. Which that
// is says EvictionIndex, with the records of use of all daemons. A store of fewer than kSample
// chunks is seen whole each time, if none of its shards has more than kPage of them.
//
// A chunk of which nothing is to be left goes only after those that follow it, which are looked up
// and go first, from the end: nobody uses them who does not use it, and nobody finds them without
// it. Pinned chunks, those that this daemon holds or others have leased, and what they follow,
// stay.
//
// Not thread-safe. Memory: some 600 bytes a chunk of the sample.
class RadosEvictor {
 public:
  static constexpr size_t kSample = 4096;
  // Of one shard at a time.
  static constexpr size_t kPage = 512;

  // Borrowed. `keeper` as in RadosRoom: what it removes it removes as the keeper of the room.
  RadosEvictor(const RadosPool* pool, RadosIndex* index, RadosUsage* usage, HoldTable* holds,
               const RadosLeases* leases, uint64_t keeper, RadosIndex::Clock clock)
      : pool_(pool),
        index_(index),
        usage_(usage),
        holds_(holds),
        leases_(leases),
        keeper_(keeper),
        clock_(std::move(clock)) {}

  // One sample's worth, up to about `bytes`; less, even nothing, if that is all there is to be had.
  // ABORTED, and nothing more is removed, once another daemon keeps the room.
  absl::StatusOr<RadosEvicted> Evict(absl::string_view what, uint64_t bytes);

 private:
  using Keep = absl::flat_hash_map<ChunkId, uint32_t>;  // levels that a chunk keeps

  struct Candidate {
    ChunkId id;
    rados_format::DataRecord record;
  };
  struct Sample {
    std::vector<Candidate> chunks;
    bool whole_store = false;
  };

  bool Held(const ChunkId& id) const { return holds_->held(id) || leases_->Leased(id); }
  absl::StatusOr<Sample> TakeSample(absl::string_view what);
  // Of these chunks, which are to go, and of all that follow them: in an order in which they can,
  // as many as make up the bytes.
  absl::StatusOr<std::vector<ChunkId>> WithWhatFollows(absl::string_view what,
                                                       const std::vector<ChunkId>& roots,
                                                       uint64_t bytes);
  absl::StatusOr<RadosEvicted> Remove(absl::string_view what, const Keep& keep);

  const RadosPool* const pool_;
  RadosIndex* const index_;
  RadosUsage* const usage_;
  HoldTable* const holds_;
  const RadosLeases* const leases_;
  const uint64_t keeper_;
  const RadosIndex::Clock clock_;
  size_t next_shard_ = 0;
  std::vector<std::string> after_;  // by shard: the key where the next sample goes on
};

}  // namespace kvstream

#endif  // KVSTREAM_STORAGE_RADOS_RADOS_EVICTOR_H_

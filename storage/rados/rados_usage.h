// Which chunks were of use, over all daemons, for eviction.
#ifndef KVSTREAM_STORAGE_RADOS_RADOS_USAGE_H_
#define KVSTREAM_STORAGE_RADOS_RADOS_USAGE_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "absl/types/span.h"
#include "storage/chunk_store.h"
#include "storage/eviction_index.h"
#include "storage/rados/rados_index.h"
#include "storage/rados/rados_pool.h"

namespace kvstream {

// Uses are noted in memory and added to the records of use in the pool now and then: a read and a
// write of each shard that has any, whatever the number of loads. They are hints: those of a daemon
// that dies are lost, and of two daemons that add at once to one record one may win.
//
// Thread-safe. Touch never waits for the pool; the others block for it.
class RadosUsage {
 public:
  // Chunks that are noted between two flushes; those used after them are not. Some 60 bytes each.
  static constexpr size_t kChunksMax = size_t{1} << 20;

  // Borrowed.
  RadosUsage(const RadosPool* pool, RadosIndex* index) : pool_(pool), index_(index) {}

  void Touch(absl::Span<const ChunkId> ids);
  // Adds what was noted to the records of those that are stored, and reads the clock.
  absl::Status Flush(absl::string_view what);

  // The records of use of these; none where it is not known.
  absl::StatusOr<std::vector<absl::optional<EvictionIndex::Usage>>> Read(
      absl::string_view what, absl::Span<const ChunkId> ids) const;

  // The clock of eviction as it was last read, or set here.
  double clock() const;
  absl::Status ReadClock(absl::string_view what);
  // Raises the clock of all daemons. By whoever evicts.
  absl::Status SetClock(absl::string_view what, double clock);

 private:
  void Raise(double clock);

  const RadosPool* const pool_;
  RadosIndex* const index_;
  mutable absl::Mutex mutex_;
  absl::flat_hash_map<ChunkId, uint32_t> uses_ ABSL_GUARDED_BY(mutex_);
  double clock_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace kvstream

#endif  // KVSTREAM_STORAGE_RADOS_RADOS_USAGE_H_

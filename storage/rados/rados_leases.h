// What the loads of other daemons still read, for whoever removes data.
#ifndef KVSTREAM_STORAGE_RADOS_RADOS_LEASES_H_
#define KVSTREAM_STORAGE_RADOS_RADOS_LEASES_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "storage/chunk_store.h"
#include "storage/rados/rados_index.h"
#include "storage/rados/rados_pool.h"

namespace kvstream {

// Each daemon has one record in the pool that names the chunks which its loads have held for a
// while; loads that end sooner need none, since retired data stays that long anyway. A record
// lapses by itself, so a daemon that died holds nothing up for long. Chunks are named by the first
// eight bytes of their ids: two that share them are held together, which does no harm.
//
// Thread-safe. Methods that name an operation block for the pool.
class RadosLeases {
 public:
  // The pool is borrowed. `daemon`: of no other, letters and digits.
  RadosLeases(const RadosPool* pool, std::string daemon, RadosIndex::Clock clock)
      : pool_(pool), daemon_(std::move(daemon)), clock_(std::move(clock)) {}

  // Replaces this daemon's record: these chunks, at most rados_format::kMaxLeasedChunks, until
  // then. None: takes the record away. Writes nothing where there is neither.
  absl::Status Tell(absl::string_view what, absl::Span<const ChunkId> ids, absl::Time until);

  // Reads the records of all daemons, unless that was done up to `max_age` ago, and takes away
  // those that have lapsed. One that is damaged counts as none.
  absl::Status Refresh(absl::string_view what, absl::Duration max_age);
  // Whether any daemon held the chunk, as of the last Refresh.
  bool Leased(const ChunkId& id) const;

 private:
  const RadosPool* const pool_;
  const std::string daemon_;
  const RadosIndex::Clock clock_;
  absl::Mutex tell_mutex_;                          // held across the write
  bool told_ ABSL_GUARDED_BY(tell_mutex_) = false;  // there may be a record of this daemon's
  mutable absl::Mutex mutex_;
  absl::Time read_ ABSL_GUARDED_BY(mutex_) = absl::InfinitePast();
  absl::flat_hash_set<uint64_t> leased_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace kvstream

#endif  // KVSTREAM_STORAGE_RADOS_RADOS_LEASES_H_

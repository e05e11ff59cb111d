// What the loads of this process rely on while other daemons change the store.
#ifndef KVSTREAM_STORAGE_RADOS_HELD_RECORDS_H_
#define KVSTREAM_STORAGE_RADOS_HELD_RECORDS_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "storage/chunk_store.h"
#include "storage/rados/rados_format.h"

namespace kvstream {

// Another daemon may delete a chunk and store it again with other bytes in the middle of a load. A
// load that then took one level of each would make a wrong KV. So the first record that is told of
// while a chunk is held stays the one that is read until nobody holds it any more.
//
// Thread-safe. Some 400 bytes a held chunk.
class HeldRecords {
 public:
  void Hold(absl::Span<const ChunkId> ids, absl::Time now);
  void Release(absl::Span<const ChunkId> ids);

  // Chunks that have been held by somebody all the time since then, or longer; at most `limit`,
  // those that are held for longest.
  std::vector<ChunkId> HeldSince(absl::Time time, size_t limit) const;
  bool Held(const ChunkId& id) const;

  // Whether `current` may be told of: nobody holds the chunk, or what is read of it is the same
  // bytes as far as both have levels. Keeps it if it is the first or has more levels.
  bool Agree(const ChunkId& id, const rados_format::DataRecord& current);
  // What is read of a held chunk; null if it is not held or nothing was told of it.
  std::shared_ptr<const rados_format::DataRecord> Find(const ChunkId& id) const;
  // This process has changed the chunk, which it does to no chunk that its loads would miss.
  void Forget(const ChunkId& id);

 private:
  struct Entry {
    uint32_t holds = 0;
    absl::Time since = absl::InfiniteFuture();
    std::shared_ptr<const rados_format::DataRecord> record;
  };

  mutable absl::Mutex mutex_;
  absl::flat_hash_map<ChunkId, Entry> entries_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace kvstream

#endif  // KVSTREAM_STORAGE_RADOS_HELD_RECORDS_H_

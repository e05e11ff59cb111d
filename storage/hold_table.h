// Which chunks somebody relies on at the moment.
#ifndef KVSTREAM_STORAGE_HOLD_TABLE_H_
#define KVSTREAM_STORAGE_HOLD_TABLE_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/synchronization/mutex.h"
#include "absl/types/span.h"
#include "storage/chunk_store.h"

namespace kvstream {

// Lets eviction and holders meet: a chunk is either held or being removed, never both, but for
// those that are being removed when HoldFromNowOn comes. Thread-safe; must outlive its holds.
class HoldTable {
 public:
  HoldTable() = default;
  HoldTable(const HoldTable&) = delete;
  HoldTable& operator=(const HoldTable&) = delete;

  // Waits for removals of these chunks that have begun. Ids may repeat.
  ChunkHold Hold(absl::Span<const ChunkId> ids);
  // Does not wait: removals that have begun go on, none begins. For a store whose removals may take
  // long and take nothing from a load that holds.
  ChunkHold HoldFromNowOn(absl::Span<const ChunkId> ids);
  bool held(const ChunkId& id) const;

  // Those of `ids` that nobody holds; Hold() waits for them until EndRemoval. Keep it short.
  std::vector<ChunkId> BeginRemoval(absl::Span<const ChunkId> ids);
  void EndRemoval(absl::Span<const ChunkId> ids);

 private:
  struct Entry {
    uint32_t holds = 0;
    bool removing = false;
  };

  ChunkHold HoldOf(absl::Span<const ChunkId> ids);
  void Release(const std::vector<ChunkId>& ids);

  mutable absl::Mutex mutex_;
  absl::CondVar removed_;
  absl::flat_hash_map<ChunkId, Entry> entries_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace kvstream

#endif  // KVSTREAM_STORAGE_HOLD_TABLE_H_

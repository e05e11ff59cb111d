// A local cache of segments in front of a store that is far away.
#ifndef KVSTREAM_STORAGE_TIERED_TIERED_CHUNK_STORE_H_
#define KVSTREAM_STORAGE_TIERED_TIERED_CHUNK_STORE_H_

#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "absl/types/optional.h"
#include "storage/chunk_store.h"
#include "storage/forwarding_chunk_store.h"
#include "storage/versioned_chunk_store.h"

namespace kvstream {

struct TieredChunkStoreOptions {
  // Segments that wait to be written to the tier hold so much memory at most; what comes when it is
  // full is not kept.
  uint64_t fill_bytes = uint64_t{256} << 20;
  int fill_threads = 2;

  // INVALID_ARGUMENT naming the option.
  absl::Status Validate() const;
};

// What the tier did since the store was made.
struct TierCounters {
  uint64_t hits = 0;
  uint64_t misses = 0;
  uint64_t fills = 0;    // segments written to it
  uint64_t dropped = 0;  // not written: too many waited, or it had no room
  uint64_t errors = 0;   // it failed to read; the segment came from below
};

// Every question but a segment's bytes goes below, and so does every change: the tier decides
// nothing. It holds segments under a name made of the chunk's id, the level, and the size and hash
// that the store below gives for the segment. So it is never out of date: what was deleted or
// replaced below is not asked for any more, and goes when the tier makes room. It may be empty,
// damaged, full or read-only: then segments come from below.
//
// What a load reads from below is written to the tier behind its back, in place of what is damaged
// there. Thread-safe.
class TieredChunkStore final : public ForwardingChunkStore {
 public:
  // `tier` is any store that may lose chunks. INVALID_ARGUMENT if the options are invalid.
  static absl::StatusOr<std::unique_ptr<TieredChunkStore>> Create(
      std::unique_ptr<VersionedChunkStore> below, std::unique_ptr<ChunkStore> tier,
      const TieredChunkStoreOptions& options = {});
  // Drops what waits to be written.
  ~TieredChunkStore() override;

  // From the tier as the tier does; else as from below, the bytes shared with the fill.
  absl::StatusOr<PinnedBytes> ReadSegment(const ChunkId& id, uint32_t level) override;
  absl::optional<absl::StatusOr<PinnedBytes>> TryReadSegment(const ChunkId& id,
                                                             uint32_t level) override;
  // Chunks and payload of the store below; disk, capacity and evictions of the tier.
  absl::StatusOr<StoreStats> Stats() override;
  absl::string_view driver() const override { return "tiered"; }

  TierCounters counters() const;
  // Waits until nothing waits to be written; for tests.
  void AwaitFills();

 private:
  struct Fill {
    ChunkId name;
    ChunkInfo info;
    uint64_t hash;
    std::shared_ptr<const PinnedBytes> bytes;
    bool damaged;  // the tier has it, but cannot give it
  };

  TieredChunkStore(std::unique_ptr<VersionedChunkStore> below, std::unique_ptr<ChunkStore> tier,
                   const TieredChunkStoreOptions& options);
  void Enqueue(Fill fill);
  void FillUntilClosed();
  bool HasWork() const ABSL_SHARED_LOCKS_REQUIRED(mutex_) { return closing_ || !queue_.empty(); }
  bool IsIdle() const ABSL_SHARED_LOCKS_REQUIRED(mutex_) {
    return queue_.empty() && filling_bytes_ == 0 && filling_ == 0;
  }

  const TieredChunkStoreOptions options_;
  VersionedChunkStore* const below_;  // the one that the base owns
  const std::unique_ptr<ChunkStore> tier_;
  mutable absl::Mutex mutex_;
  std::deque<Fill> queue_ ABSL_GUARDED_BY(mutex_);
  uint64_t filling_bytes_ ABSL_GUARDED_BY(mutex_) = 0;  // in the queue and being written
  int filling_ ABSL_GUARDED_BY(mutex_) = 0;             // being written
  bool closing_ ABSL_GUARDED_BY(mutex_) = false;
  TierCounters counters_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::thread> threads_;
};

}  // namespace kvstream

#endif  // KVSTREAM_STORAGE_TIERED_TIERED_CHUNK_STORE_H_

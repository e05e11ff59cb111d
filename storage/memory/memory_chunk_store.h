// Chunks in the process's memory: for tests, benchmarks and caches that may be lost. Nothing
// outlives the process, so "durable" here means "until then".
#ifndef KVSTREAM_STORAGE_MEMORY_MEMORY_CHUNK_STORE_H_
#define KVSTREAM_STORAGE_MEMORY_MEMORY_CHUNK_STORE_H_

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "absl/types/optional.h"
#include "absl/types/span.h"
#include "storage/chunk_store.h"

namespace kvstream {

struct MemoryChunkStoreOptions {
  // Bytes of all segments and profiles together. A Put beyond it is refused (RESOURCE_EXHAUSTED)
  // and changes nothing; nothing is evicted. Infos and the maps come on top: some 300 bytes a
  // chunk.
  uint64_t max_bytes = uint64_t{4} << 30;

  // INVALID_ARGUMENT if max_bytes is 0.
  absl::Status Validate() const;
};

// Thread-safe. Put copies the payload once, outside the lock; ReadSegment copies nothing. Pinned
// bytes are shared with the store: they stay valid after Delete and, unlike the interface promises,
// even after the store's destruction.
class MemoryChunkStore final : public ChunkStore {
 public:
  // INVALID_ARGUMENT if the options are invalid.
  static absl::StatusOr<std::unique_ptr<ChunkStore>> Create(
      const MemoryChunkStoreOptions& options = {});

  MemoryChunkStore(const MemoryChunkStore&) = delete;
  MemoryChunkStore& operator=(const MemoryChunkStore&) = delete;

  absl::StatusOr<bool> Put(const ChunkId& id, const ChunkInfo& info,
                           absl::Span<const absl::string_view> segments) override;
  absl::StatusOr<std::vector<absl::optional<ChunkInfo>>> GetInfos(
      absl::Span<const ChunkId> ids) override;
  absl::StatusOr<size_t> LongestPrefix(absl::Span<const ChunkId> ids) override;
  absl::StatusOr<PinnedBytes> ReadSegment(const ChunkId& id, uint32_t level) override;
  // Everything is at hand.
  absl::optional<absl::StatusOr<PinnedBytes>> TryReadSegment(const ChunkId& id,
                                                             uint32_t level) override {
    return ReadSegment(id, level);
  }
  absl::StatusOr<size_t> Delete(absl::Span<const ChunkId> ids) override;
  absl::StatusOr<std::vector<std::pair<ChunkId, ChunkInfo>>> List(
      const absl::optional<ChunkId>& after, size_t limit) override;
  absl::StatusOr<bool> PutProfile(const StoredProfileId& id, absl::string_view bytes) override;
  absl::StatusOr<std::string> GetProfile(const StoredProfileId& id) override;
  absl::StatusOr<std::vector<StoredProfileId>> ListProfiles() override;
  // Exact; disk_bytes is 0.
  absl::StatusOr<StoreStats> Stats() override;
  absl::string_view driver() const override { return "memory"; }

 private:
  struct StoredChunk {
    ChunkInfo info;
    std::vector<std::string> segments;
  };

  explicit MemoryChunkStore(const MemoryChunkStoreOptions& options) : options_(options) {}

  // RESOURCE_EXHAUSTED if `bytes` more do not fit; `what` opens the message.
  absl::Status CheckRoom(absl::string_view what, uint64_t bytes) const
      ABSL_SHARED_LOCKS_REQUIRED(mutex_);

  const MemoryChunkStoreOptions options_;
  mutable absl::Mutex mutex_;
  // Shared with the pins that readers hold: a chunk's memory is freed by whoever lets go of it
  // last.
  std::map<ChunkId, std::shared_ptr<const StoredChunk>> chunks_ ABSL_GUARDED_BY(mutex_);
  std::map<StoredProfileId, std::string> profiles_ ABSL_GUARDED_BY(mutex_);
  uint64_t payload_bytes_ ABSL_GUARDED_BY(mutex_) = 0;
  uint64_t profile_bytes_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace kvstream

#endif  // KVSTREAM_STORAGE_MEMORY_MEMORY_CHUNK_STORE_H_

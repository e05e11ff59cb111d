// Chunks in a pool of a Ceph cluster: any number of daemons serve the same ones, and none keeps
// anything that another would miss. docs/storage.md says what is stored and what is promised.
#ifndef KVSTREAM_STORAGE_RADOS_RADOS_CHUNK_STORE_H_
#define KVSTREAM_STORAGE_RADOS_RADOS_CHUNK_STORE_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "absl/types/optional.h"
#include "absl/types/span.h"
#include "storage/chunk_store.h"
#include "storage/hold_table.h"
#include "storage/rados/held_records.h"
#include "storage/rados/rados_index.h"
#include "storage/rados/rados_pool.h"
#include "storage/rocksdb/id_claims.h"
#include "storage/versioned_chunk_store.h"

namespace kvstream {

struct RadosChunkStoreOptions {
  RadosPoolOptions pool;
  // Of the index of a store that does not exist yet: a power of two, 1 to 4096. More let more
  // daemons write at once, and keep each below Ceph's warning at 200 000 keys.
  uint32_t shards = 256;
  uint64_t info_cache_bytes = uint64_t{64} << 20;
  // How long this daemon may go on telling of a chunk what another one has changed: deleted,
  // trimmed, restored. 0: it asks Ceph each time.
  absl::Duration info_max_age = absl::Seconds(5);
  // Data of a deleted chunk stays readable for the loads of other daemons for so long.
  absl::Duration retire_age = absl::Minutes(10);
  // An upload that takes longer fails; what died daemons left is removed after it. Clocks of all
  // daemons must agree much better than this and retire_age.
  absl::Duration upload_age = absl::Hours(1);
  // How often one of the daemons looks for such data. InfiniteDuration: never by itself.
  absl::Duration sweep_interval = absl::Minutes(1);
  // The time of day; injected by tests.
  std::function<absl::Time()> clock = nullptr;

  // INVALID_ARGUMENT naming the option.
  absl::Status Validate() const;
};

// Thread-safe. Put copies the payload once, ReadSegment none beyond what librados does: pinned
// bytes are buffers of their own and outlive everything.
//
// Holds keep this process from trimming. What another daemon trims or deletes stays readable for
// retire_age, and a held chunk is read as it was when its infos were first asked for: should
// another daemon have replaced it by other bytes since, then it counts as absent until nobody holds
// it.
class RadosChunkStore final : public VersionedChunkStore {
 public:
  // Connects; makes the store in an empty namespace. Errors of RadosPool::Connect;
  // FAILED_PRECONDITION for a store of a newer version.
  static absl::StatusOr<std::unique_ptr<RadosChunkStore>> Create(
      const RadosChunkStoreOptions& options);
  ~RadosChunkStore() override;

  absl::StatusOr<bool> Put(const ChunkId& id, const ChunkInfo& info,
                           absl::Span<const absl::string_view> segments) override;
  absl::StatusOr<std::vector<absl::optional<ChunkInfo>>> GetInfos(
      absl::Span<const ChunkId> ids) override;
  absl::StatusOr<size_t> LongestPrefix(absl::Span<const ChunkId> ids) override;
  absl::StatusOr<PinnedBytes> ReadSegment(const ChunkId& id, uint32_t level) override;
  absl::StatusOr<size_t> Delete(absl::Span<const ChunkId> ids) override;
  absl::StatusOr<size_t> Trim(absl::Span<const ChunkId> ids, uint32_t keep_levels) override;
  ChunkHold Hold(absl::Span<const ChunkId> ids) override;
  // There is no eviction yet that it could serve.
  void Touch(absl::Span<const ChunkId> ids) override {}
  absl::StatusOr<std::vector<std::pair<ChunkId, ChunkInfo>>> List(
      const absl::optional<ChunkId>& after, size_t limit) override;
  absl::StatusOr<bool> PutProfile(const StoredProfileId& id, absl::string_view bytes) override;
  absl::StatusOr<std::string> GetProfile(const StoredProfileId& id) override;
  absl::StatusOr<std::vector<StoredProfileId>> ListProfiles() override;
  // Exact, over all daemons; asks every shard. disk_bytes is 0: the disks are Ceph's.
  absl::StatusOr<StoreStats> Stats() override;
  absl::string_view driver() const override { return "rados"; }

  absl::StatusOr<SegmentVersion> Version(const ChunkId& id, uint32_t level) override;
  absl::optional<SegmentVersion> TryVersion(const ChunkId& id, uint32_t level) override;

  // Removes data that nothing needs any more, as the sweep does; returns how many pieces. 0 if
  // another daemon is at it.
  absl::StatusOr<size_t> CollectGarbage();

 private:
  explicit RadosChunkStore(RadosChunkStoreOptions options) : options_(std::move(options)) {}
  absl::Status Open();
  absl::StatusOr<rados_format::StoreHeader> ReadOrMakeHeader();

  // Of chunks and profiles alike.
  absl::StatusOr<bool> PutIn(RadosIndex* index, absl::string_view what, const ChunkId& id,
                             const ChunkInfo& info, absl::Span<const absl::string_view> segments);
  // Of a stored chunk or profile, at most so old.
  absl::StatusOr<rados_format::DataRecord> Record(RadosIndex* index, absl::string_view what,
                                                  const ChunkId& id, absl::Duration max_age);
  absl::StatusOr<PinnedBytes> ReadIn(RadosIndex* index, absl::string_view what, const ChunkId& id,
                                     uint32_t level);
  absl::StatusOr<PinnedBytes> ReadLevel(absl::string_view what, const ChunkId& id,
                                        const rados_format::DataRecord& record, uint32_t level);
  void SweepUntilClosed();
  bool closing() const ABSL_SHARED_LOCKS_REQUIRED(mutex_) { return closing_; }

  const RadosChunkStoreOptions options_;
  std::unique_ptr<RadosPool> pool_;
  std::unique_ptr<RadosIndex> chunks_;
  std::unique_ptr<RadosIndex> profiles_;
  IdClaims writers_;  // of chunks and profiles
  HoldTable holds_;
  HeldRecords held_;
  std::string lock_cookie_;
  mutable absl::Mutex mutex_;
  bool closing_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread sweeper_;
};

}  // namespace kvstream

#endif  // KVSTREAM_STORAGE_RADOS_RADOS_CHUNK_STORE_H_

// Keeps a store below its capacity: admits Puts, evicts, and sees to it that what was evicted
// leaves the disk.
#ifndef KVSTREAM_STORAGE_ROCKSDB_CAPACITY_KEEPER_H_
#define KVSTREAM_STORAGE_ROCKSDB_CAPACITY_KEEPER_H_

#include <rocksdb/sst_file_manager.h>

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <thread>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "absl/types/optional.h"
#include "absl/types/span.h"
#include "storage/chunk_store.h"
#include "storage/eviction_index.h"
#include "storage/rocksdb/capacity_plan.h"
#include "storage/rocksdb/compaction_watch.h"
#include "storage/rocksdb/counted_file_system.h"

namespace kvstream {

// Two threads of its own work from Start() to Stop(): one evicts and writes records of use, one
// compacts. No lock is held while they use the disk. Thread-safe but for Start and Stop.
class CapacityKeeper {
 public:
  // What the store does for it, on its threads. None may call back but for Stored() and Gone().
  struct Hooks {
    // Removes what the victims name, as far as nobody holds them, and reports every victim's state
    // by Stored() or Gone().
    std::function<absl::Status(absl::Span<const EvictionIndex::Victim>)> evict;
    // Writes records of use and the clock.
    std::function<absl::Status(absl::Span<const std::pair<ChunkId, EvictionIndex::Usage>>, double)>
        write_usage;
    // Bytes that are not in tables yet.
    std::function<uint64_t()> buffered_bytes;
    // All buffers to tables, so that the log can go.
    std::function<absl::Status()> flush;
    // Bytes of the levels that the next compaction of level 0 would read.
    std::function<uint64_t()> upper_bytes;
    // Whether tables are larger than the plan's compactions can take.
    std::function<bool()> oversized;
    // One compaction that takes deleted segments off the disk, or tables down a level on the way
    // there. Blocks. False if there is nothing to do.
    std::function<absl::StatusOr<bool>()> compact;
    std::function<bool(const ChunkId&)> held;
  };
  // Room for a write that is under way, until it is destroyed.
  class Room {
   public:
    Room(CapacityKeeper* keeper, uint64_t bytes) : keeper_(keeper), bytes_(bytes) {}
    ~Room() {
      if (keeper_ != nullptr) keeper_->GiveBack(bytes_);
    }
    Room(Room&& other) noexcept
        : keeper_(std::exchange(other.keeper_, nullptr)), bytes_(other.bytes_) {}
    Room& operator=(Room&&) = delete;

   private:
    CapacityKeeper* keeper_;
    const uint64_t bytes_;
  };

  // Of writes that had to wait for room.
  struct Waits {
    uint64_t count = 0;
    absl::Duration time;     // of all together
    absl::Duration longest;  // of one
  };
  // By CapacityLimit, as it was when the waiting began.
  using WaitsByLimit = std::array<Waits, 4>;

  struct Evicted {
    uint64_t segments = 0;
    uint64_t bytes = 0;
    uint64_t chunks = 0;
  };

  CapacityKeeper(const RocksDbChunkStoreOptions& options,
                 std::shared_ptr<const CountedFileSystem> files,
                 std::shared_ptr<const CompactionWatch> compactions,
                 std::shared_ptr<rocksdb::SstFileManager> tables);
  ~CapacityKeeper();
  CapacityKeeper(const CapacityKeeper&) = delete;
  CapacityKeeper& operator=(const CapacityKeeper&) = delete;

  const CapacityPlan& plan() const { return plan_; }

  // Before Start: what the store holds, and the clock of its last run.
  void Restore(const ChunkId& id, const ChunkInfo& info,
               const absl::optional<EvictionIndex::Usage>& usage);
  void RestoreClock(double clock);
  void Start(Hooks hooks);
  // Ends the threads; they finish what they are at, so compactions must be made to end first.
  void Stop();

  // Waits until a write of so many bytes fits, at most options.room_timeout and until the call's
  // deadline (CallDeadline): RESOURCE_EXHAUSTED. `what` opens the message. Call it without any
  // claim on ids.
  absl::StatusOr<Room> Admit(uint64_t bytes, absl::string_view what);

  // A chunk is stored with these levels; it is not stored any more. Call them while nobody else can
  // write the chunk.
  void Stored(const ChunkId& id, const ChunkInfo& info);
  void Gone(const ChunkId& id);
  // A stored chunk is, or is not any more, to be left alone. Gone() ends it.
  void SetPinned(const ChunkId& id, bool pinned);
  void Touch(absl::Span<const ChunkId> ids);
  void CountEvicted(const Evicted& evicted);

  Evicted evicted() const;
  WaitsByLimit waits() const;

 private:
  // Ids whose use is to be noted; more are dropped until the evicting thread has caught up.
  static constexpr size_t kTouchesMax = 1 << 20;

  CapacityUse Use() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Asks for the bytes of the upper levels again.
  void LookAtLevels();
  // Whether the plan's compactions have no room, or are too small for the tables there are.
  bool TooLarge();
  void GiveBack(uint64_t bytes);
  void EvictLoop();
  void CompactLoop();
  // One batch; false if there was nothing to evict.
  bool EvictSome();
  void ApplyTouches();
  // False if the store took no write; what is left is written the next time.
  bool WriteUsage();
  bool Stopped() const {
    absl::MutexLock lock(&mutex_);
    return stopped_;
  }

  const CapacityPlan plan_;
  const uint64_t capacity_bytes_;
  const absl::Duration room_timeout_;
  const absl::Duration usage_interval_;
  const std::shared_ptr<const CountedFileSystem> files_;
  const std::shared_ptr<const CompactionWatch> compactions_;
  const std::shared_ptr<rocksdb::SstFileManager> tables_;
  Hooks hooks_;

  // As last asked, and what had been flushed then.
  std::atomic<uint64_t> upper_bytes_{0};
  std::atomic<uint64_t> flushed_then_{0};
  std::atomic<uint64_t> levels_seen_{0};  // CompactionWatch::ended() then

  mutable absl::Mutex mutex_;
  absl::CondVar work_;  // for the threads
  absl::CondVar room_;  // for Admit
  bool stopped_ ABSL_GUARDED_BY(mutex_) = false;
  bool started_ ABSL_GUARDED_BY(mutex_) = false;
  // A store that was larger when it was opened, or had another plan, takes more room than the plan
  // has to become smaller; until then nothing is admitted.
  bool shrinking_ ABSL_GUARDED_BY(mutex_) = false;
  uint64_t pending_bytes_ ABSL_GUARDED_BY(mutex_) = 0;  // admitted, perhaps not buffered yet
  uint64_t waiting_ ABSL_GUARDED_BY(mutex_) = 0;        // Puts in Admit
  EvictionIndex index_ ABSL_GUARDED_BY(mutex_);
  Evicted evicted_ ABSL_GUARDED_BY(mutex_);
  WaitsByLimit waits_ ABSL_GUARDED_BY(mutex_);

  absl::Mutex touch_mutex_;
  std::vector<ChunkId> touches_ ABSL_GUARDED_BY(touch_mutex_);
  // Used since their records were written; of the evicting thread.
  absl::flat_hash_set<ChunkId> used_;

  std::thread evictor_;
  std::thread compactor_;
};

}  // namespace kvstream

#endif  // KVSTREAM_STORAGE_ROCKSDB_CAPACITY_KEEPER_H_

#include "storage/rocksdb/capacity_keeper.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"

namespace kvstream {
namespace {

// How often the threads look when something is to be done, and when nothing is.
constexpr absl::Duration kBusy = absl::Milliseconds(5);
constexpr absl::Duration kIdle = absl::Milliseconds(500);
// Of one write batch: bounds how long a Hold of a victim waits.
constexpr size_t kVictims = 64;
constexpr uint64_t kVictimBytes = uint64_t{64} << 20;

}  // namespace

CapacityKeeper::CapacityKeeper(const RocksDbChunkStoreOptions& options,
                               std::shared_ptr<const CountedFileSystem> files,
                               std::shared_ptr<const CompactionWatch> compactions,
                               std::shared_ptr<rocksdb::SstFileManager> tables)
    : plan_(CapacityPlan::Of(options)),
      capacity_bytes_(options.capacity_bytes),
      room_timeout_(options.room_timeout),
      usage_interval_(options.usage_interval),
      files_(std::move(files)),
      compactions_(std::move(compactions)),
      tables_(std::move(tables)) {
  tables_->SetCompactionBufferSize(plan_.buffers_max);
}

CapacityKeeper::~CapacityKeeper() { Stop(); }

void CapacityKeeper::Restore(const ChunkId& id, const ChunkInfo& info,
                             const absl::optional<EvictionIndex::Usage>& usage) {
  absl::MutexLock lock(&mutex_);
  index_.Put(id, info, usage);
}

void CapacityKeeper::RestoreClock(double clock) {
  absl::MutexLock lock(&mutex_);
  index_.set_clock(clock);
}

void CapacityKeeper::Start(Hooks hooks) {
  hooks_ = std::move(hooks);
  {
    absl::MutexLock lock(&mutex_);
    started_ = true;
  }
  evictor_ = std::thread([this] { EvictLoop(); });
  compactor_ = std::thread([this] { CompactLoop(); });
}

void CapacityKeeper::Stop() {
  {
    absl::MutexLock lock(&mutex_);
    stopped_ = true;
    work_.SignalAll();
    room_.SignalAll();
  }
  if (evictor_.joinable()) evictor_.join();
  if (compactor_.joinable()) compactor_.join();
}

uint64_t CapacityKeeper::TablesAhead() const {
  const CompactionWatch::Running running = compactions_->running();
  const uint64_t tables = files_->bytes().tables;
  // Tables that end between the two looks may make this wrap; then it is nearly zero.
  const uint64_t before = tables - std::min(tables, running.output_bytes);
  return before + std::max({running.input_bytes, plan_.reserve,
                            upper_bytes_.load() + 2 * plan_.buffers_max});
}

bool CapacityKeeper::Fits(uint64_t bytes) const {
  const uint64_t more = pending_bytes_ + bytes;
  const uint64_t buffered = hooks_.buffered_bytes();
  return TablesAhead() + buffered + more <= plan_.tables_max &&
         files_->bytes().logs + more <= plan_.logs_max;
}

absl::StatusOr<CapacityKeeper::Room> CapacityKeeper::Admit(uint64_t bytes, absl::string_view what) {
  if (bytes > plan_.put_max) {
    return absl::ResourceExhaustedError(
        absl::StrCat(what, ": ", bytes, " bytes at once are too many for a capacity of ",
                     capacity_bytes_, " bytes; at most ", plan_.put_max));
  }
  const absl::Time until = absl::Now() + room_timeout_;
  absl::MutexLock lock(&mutex_);
  while (!Fits(bytes)) {
    const absl::Duration left = until - absl::Now();
    if (stopped_ || left <= absl::ZeroDuration()) {
      const CountedFileSystem::Bytes files = files_->bytes();
      return absl::ResourceExhaustedError(absl::StrCat(
          what, ": no room for ", bytes, " bytes within ", absl::FormatDuration(room_timeout_),
          "; the capacity is ", capacity_bytes_,
          " bytes, and what is stored is in use or leaves the disk more slowly than chunks come (",
          index_.payload_bytes(), " of payload, ", files.tables, " in tables, ", TablesAhead(),
          " with the next compaction, ", hooks_.buffered_bytes(), " in buffers, ", files.logs,
          " in logs, ", pending_bytes_, " in other writes)"));
    }
    ++waiting_;
    work_.SignalAll();
    room_.WaitWithTimeout(&mutex_, std::min(left, kBusy));
    --waiting_;
  }
  pending_bytes_ += bytes;
  return Room(this, bytes);
}

void CapacityKeeper::GiveBack(uint64_t bytes) {
  absl::MutexLock lock(&mutex_);
  pending_bytes_ -= bytes;
}

void CapacityKeeper::Stored(const ChunkId& id, const ChunkInfo& info) {
  absl::MutexLock lock(&mutex_);
  index_.Put(id, info);
  if (index_.payload_bytes() > plan_.payload_high) work_.SignalAll();
}

void CapacityKeeper::Gone(const ChunkId& id) {
  absl::MutexLock lock(&mutex_);
  index_.Remove(id);
}

void CapacityKeeper::SetPinned(const ChunkId& id, bool pinned) {
  absl::MutexLock lock(&mutex_);
  index_.SetPinned(id, pinned);
}

void CapacityKeeper::Touch(absl::Span<const ChunkId> ids) {
  absl::MutexLock lock(&touch_mutex_);
  const size_t room = kTouchesMax - touches_.size();
  touches_.insert(touches_.end(), ids.begin(), ids.begin() + std::min(room, ids.size()));
}

void CapacityKeeper::CountEvicted(const Evicted& evicted) {
  absl::MutexLock lock(&mutex_);
  evicted_.segments += evicted.segments;
  evicted_.bytes += evicted.bytes;
  evicted_.chunks += evicted.chunks;
}

CapacityKeeper::Evicted CapacityKeeper::evicted() const {
  absl::MutexLock lock(&mutex_);
  return evicted_;
}

void CapacityKeeper::ApplyTouches() {
  std::vector<ChunkId> touches;
  {
    absl::MutexLock lock(&touch_mutex_);
    touches.swap(touches_);
  }
  // In parts, so that nobody waits long for the lock.
  for (absl::Span<const ChunkId> left = touches; !left.empty();) {
    const absl::Span<const ChunkId> part = left.subspan(0, 256);
    absl::MutexLock lock(&mutex_);
    for (const ChunkId& id : part) index_.Touch(id);
    left.remove_prefix(part.size());
  }
  for (const ChunkId& id : touches) {
    if (used_.size() < kTouchesMax) used_.insert(id);
  }
}

void CapacityKeeper::WriteUsage() {
  const std::vector<ChunkId> used(used_.begin(), used_.end());
  used_.clear();
  std::vector<std::pair<ChunkId, EvictionIndex::Usage>> batch;
  for (absl::Span<const ChunkId> left = used; !left.empty();) {
    const absl::Span<const ChunkId> part = left.subspan(0, 256);
    left.remove_prefix(part.size());
    double clock = 0;
    batch.clear();
    {
      absl::MutexLock lock(&mutex_);
      clock = index_.clock();
      for (const ChunkId& id : part) {
        const absl::optional<EvictionIndex::Usage> usage = index_.usage(id);
        if (usage.has_value()) batch.emplace_back(id, *usage);
      }
    }
    // What cannot be written is not worth an error: the chunk only seems less used.
    if (!hooks_.write_usage(batch, clock).ok()) return;
  }
}

bool CapacityKeeper::EvictSome() {
  std::vector<EvictionIndex::Victim> victims;
  {
    absl::MutexLock lock(&mutex_);
    const uint64_t payload = index_.payload_bytes();
    if (payload <= plan_.payload_low) return false;
    victims =
        index_.Take(std::min(payload - plan_.payload_low, kVictimBytes), kVictims, hooks_.held);
  }
  if (victims.empty()) return false;
  // After an error the store has reported what is left; the next round tries again.
  return hooks_.evict(victims).ok();
}

void CapacityKeeper::EvictLoop() {
  absl::Time write_usage = absl::Now() + usage_interval_;
  bool stuck = false;  // nothing could be evicted the last time
  while (true) {
    bool evict = false;
    bool flush = false;
    {
      absl::MutexLock lock(&mutex_);
      const bool over = index_.payload_bytes() > plan_.payload_high;
      if (!stopped_ && (!over || stuck)) work_.WaitWithTimeout(&mutex_, stuck ? kBusy * 4 : kIdle);
      if (stopped_) break;
      evict = index_.payload_bytes() > plan_.payload_high;
      // RocksDB flushes when the log is long, but only as somebody writes.
      flush = waiting_ > 0 && files_->bytes().logs + plan_.put_max > plan_.logs_max;
    }
    ApplyTouches();
    stuck = false;
    if (evict) {
      bool some = false;
      while (!Stopped() && EvictSome()) some = true;
      stuck = !some;
    }
    if (flush) static_cast<void>(hooks_.flush().ok());
    if (absl::Now() >= write_usage) {
      WriteUsage();
      write_usage = absl::Now() + usage_interval_;
    }
    absl::MutexLock lock(&mutex_);
    room_.SignalAll();
  }
  ApplyTouches();
  WriteUsage();
}

void CapacityKeeper::CompactLoop() {
  bool shrinking = true;
  while (true) {
    const uint64_t tables = files_->bytes().tables + hooks_.buffered_bytes();
    upper_bytes_ = hooks_.upper_bytes();
    const bool over = tables > plan_.tables_high;
    // A store that was larger when it was opened, or had another plan, could not compact otherwise.
    if (!over) shrinking = false;
    tables_->SetMaxAllowedSpaceUsage(shrinking ? std::max(plan_.tables_max, 2 * tables)
                                               : plan_.tables_max);
    // Puts may also wait because the upper levels are full.
    bool compact = over;
    {
      absl::MutexLock lock(&mutex_);
      compact = compact || waiting_ > 0;
      if (!stopped_ && !compact) work_.WaitWithTimeout(&mutex_, kIdle);
      if (stopped_) return;
      room_.SignalAll();
    }
    if (!compact) continue;
    // Fails where another compaction has its tables, or there is no room for it yet.
    const absl::StatusOr<bool> some = hooks_.compact();
    if (some.ok() && *some) continue;
    absl::MutexLock lock(&mutex_);
    if (!stopped_) work_.WaitWithTimeout(&mutex_, kBusy * 2);
  }
}

}  // namespace kvstream

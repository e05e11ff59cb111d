#include "storage/rocksdb/capacity_keeper.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "storage/call_deadline.h"

namespace kvstream {
namespace {

// How often the threads look when something is to be done, and when nothing is.
constexpr absl::Duration kBusy = absl::Milliseconds(5);
constexpr absl::Duration kIdle = absl::Milliseconds(500);
constexpr int kLastTries = 400;  // of writing records of use, kBusy apart
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
  LookAtLevels();
  const bool shrinking = TooLarge();
  {
    absl::MutexLock lock(&mutex_);
    started_ = true;
    shrinking_ = shrinking;
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

CapacityUse CapacityKeeper::Use() const {
  CapacityUse use;
  const CompactionWatch::Running running = compactions_->running();
  use.running_input = running.input_bytes;
  use.running_output = running.output_bytes;
  // What was flushed since the levels were looked at lies on level 0.
  use.upper = upper_bytes_ + (compactions_->flushed_bytes() - flushed_then_);
  use.buffered = hooks_.buffered_bytes();
  use.pending = pending_bytes_;
  const CountedFileSystem::Bytes files = files_->bytes();
  use.tables = files.tables;
  use.logs = files.logs;
  return use;
}

void CapacityKeeper::LookAtLevels() {
  const uint64_t flushed = compactions_->flushed_bytes();
  levels_seen_ = compactions_->ended();
  upper_bytes_ = hooks_.upper_bytes();
  flushed_then_ = flushed;
}

bool CapacityKeeper::TooLarge() {
  const uint64_t tables = files_->bytes().tables + hooks_.buffered_bytes();
  return tables + std::max<uint64_t>(plan_.pick_max, upper_bytes_) + plan_.buffers_max >
             plan_.tables_max ||
         hooks_.oversized();
}

absl::StatusOr<CapacityKeeper::Room> CapacityKeeper::Admit(uint64_t bytes, absl::string_view what) {
  if (bytes > plan_.put_max) {
    return absl::ResourceExhaustedError(
        absl::StrCat(what, ": ", bytes, " bytes at once are too many for a capacity of ",
                     capacity_bytes_, " bytes; at most ", plan_.put_max));
  }
  const absl::Time begin = absl::Now();
  const absl::Time until = std::min(begin + room_timeout_, CallDeadline::Current());
  absl::MutexLock lock(&mutex_);
  CapacityLimit first = CapacityLimit::kNone;
  while (true) {
    const CapacityUse use = Use();
    const CapacityLimit limit = shrinking_ ? CapacityLimit::kTables : plan_.Limit(use, bytes);
    if (limit == CapacityLimit::kNone) break;
    if (first == CapacityLimit::kNone) first = limit;
    const absl::Duration left = until - absl::Now();
    if (stopped_ || left <= absl::ZeroDuration()) {
      return absl::ResourceExhaustedError(absl::StrCat(
          what, ": no room for ", bytes, " bytes within ", absl::FormatDuration(until - begin),
          "; the capacity is ", capacity_bytes_,
          " bytes, and what is stored is in use or leaves the disk more slowly than chunks come (",
          index_.payload_bytes(), " of payload, ", use.tables, " in tables, ",
          plan_.TablesAhead(use, bytes), " with the next compaction, ", use.buffered,
          " in buffers, ", use.logs, " in logs, ", use.pending, " in other writes)"));
    }
    ++waiting_;
    work_.SignalAll();
    room_.WaitWithTimeout(&mutex_, std::min(left, kBusy));
    --waiting_;
  }
  if (first != CapacityLimit::kNone) {
    Waits& waits = waits_[static_cast<size_t>(first)];
    const absl::Duration time = absl::Now() - begin;
    ++waits.count;
    waits.time += time;
    waits.longest = std::max(waits.longest, time);
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

CapacityKeeper::WaitsByLimit CapacityKeeper::waits() const {
  absl::MutexLock lock(&mutex_);
  return waits_;
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

bool CapacityKeeper::WriteUsage() {
  const std::vector<ChunkId> used(used_.begin(), used_.end());
  used_.clear();
  std::vector<std::pair<ChunkId, EvictionIndex::Usage>> batch;
  for (absl::Span<const ChunkId> left = used; !left.empty();) {
    const absl::Span<const ChunkId> part = left.subspan(0, 256);
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
    if (!hooks_.write_usage(batch, clock).ok()) {
      used_.insert(left.begin(), left.end());
      return false;
    }
    left.remove_prefix(part.size());
  }
  return true;
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
      // RocksDB flushes when the log is long, or a buffer full, but only as somebody writes.
      flush = waiting_ > 0 && (files_->bytes().logs + plan_.put_max > plan_.logs_max ||
                               hooks_.buffered_bytes() + plan_.put_max > plan_.buffers_max);
    }
    ApplyTouches();
    stuck = false;
    if (evict) {
      bool some = false;
      while (!Stopped() && EvictSome()) some = true;
      stuck = !some;
    }
    if (flush) static_cast<void>(hooks_.flush().ok());
    if (compactions_->ended() != levels_seen_) LookAtLevels();
    if (absl::Now() >= write_usage) {
      WriteUsage();
      write_usage = absl::Now() + usage_interval_;
    }
    absl::MutexLock lock(&mutex_);
    room_.SignalAll();
  }
  ApplyTouches();
  // RocksDB refuses it where a Put would have to wait for a flush, which may take a moment. What
  // cannot be written at all is not worth an error: the chunk only seems less used.
  for (int i = 0; i < kLastTries && !WriteUsage(); ++i) absl::SleepFor(kBusy);
}

void CapacityKeeper::CompactLoop() {
  bool shrinking = true;
  while (true) {
    LookAtLevels();
    shrinking = shrinking && TooLarge();
    const uint64_t tables = files_->bytes().tables + hooks_.buffered_bytes();
    const bool over = shrinking || tables > plan_.tables_high;
    // Twice what there is, so that one compaction can read all of it.
    tables_->SetMaxAllowedSpaceUsage(
        shrinking ? std::max(plan_.tables_max, 2 * (tables + plan_.buffers_max))
                  : plan_.tables_max);
    // Puts may also wait because the upper levels are full.
    bool compact = over;
    {
      absl::MutexLock lock(&mutex_);
      shrinking_ = shrinking;
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

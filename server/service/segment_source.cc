#include "server/service/segment_source.h"

#include <algorithm>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "storage/call_deadline.h"

namespace kvstream {

// One segment being read, or read.
struct SegmentSource::Read {
  absl::Mutex mutex;
  bool wanted ABSL_GUARDED_BY(mutex) = false;  // the load waits for it
  // Set once.
  absl::optional<absl::StatusOr<Segment>> result ABSL_GUARDED_BY(mutex);
};

SegmentSource::SegmentSource(ChunkStore* store, WorkerPool* readers,
                             const std::vector<ChunkId>* ids,
                             const std::vector<StoredChunkSizes>* chunks,
                             std::function<void()> ready)
    : store_(store), readers_(readers), ids_(*ids), chunks_(*chunks), ready_(std::move(ready)) {}

absl::optional<absl::StatusOr<SegmentSource::Segment>> SegmentSource::Get(uint32_t chunk,
                                                                          uint32_t level,
                                                                          uint32_t target) {
  const Name name{chunk, level};
  if (current_ != nullptr && current_name_ == name) return absl::StatusOr<Segment>(current_);
  current_.reset();
  if (!last_.has_value() || last_->chunk != chunk) {
    if (last_.has_value()) direction_ = chunk > last_->chunk ? 1 : -1;
    run_level_ = level;
  }
  const bool asked_before = last_.has_value() && *last_ == name;
  last_ = name;
  absl::optional<absl::StatusOr<Segment>> segment = Take(name);
  // After Take, so that the segment that is needed is the first to be read.
  // A chunk that goes as deep as it can says nothing of how deep others go that have more.
  if (target + 1 < chunks_[chunk].segment_bytes.size() || target > target_) target_ = target;
  if (!asked_before) ReadAhead(name, target_);
  if (segment.has_value() && segment->ok()) {
    current_ = **segment;
    current_name_ = name;
  }
  return segment;
}

absl::optional<absl::StatusOr<SegmentSource::Segment>> SegmentSource::Take(const Name& name) {
  auto slot = std::find_if(slots_.begin(), slots_.end(),
                           [&name](const Slot& slot) { return slot.name == name; });
  if (slot == slots_.end()) slot = slots_.insert(slots_.end(), Slot{name, Begin(name)});
  absl::optional<absl::StatusOr<Segment>> result;
  {
    absl::MutexLock lock(&slot->read->mutex);
    result = slot->read->result;
    slot->read->wanted = !result.has_value();
  }
  if (result.has_value()) slots_.erase(slot);
  return result;
}

std::shared_ptr<SegmentSource::Read> SegmentSource::Begin(const Name& name) {
  auto read = std::make_shared<Read>();
  const ChunkId& id = ids_[name.chunk];
  absl::optional<absl::StatusOr<PinnedBytes>> at_hand = store_->TryReadSegment(id, name.level);
  if (at_hand.has_value()) {
    absl::MutexLock lock(&read->mutex);
    read->result =
        at_hand->ok()
            ? absl::StatusOr<Segment>(std::make_shared<const PinnedBytes>(*std::move(*at_hand)))
            : absl::StatusOr<Segment>(at_hand->status());
    return read;
  }
  // The load's own: nobody else waits for it.
  const absl::Time deadline = CallDeadline::Current();
  readers_->Submit([read, id, deadline, level = name.level, store = store_, ready = ready_] {
    const CallDeadline until(deadline);
    absl::StatusOr<PinnedBytes> pinned = store->ReadSegment(id, level);
    bool wanted;
    {
      absl::MutexLock lock(&read->mutex);
      read->result =
          pinned.ok()
              ? absl::StatusOr<Segment>(std::make_shared<const PinnedBytes>(*std::move(pinned)))
              : absl::StatusOr<Segment>(pinned.status());
      wanted = read->wanted;
    }
    if (wanted) ready();
  });
  return read;
}

std::vector<SegmentSource::Name> SegmentSource::Next(Name name, uint32_t target) const {
  std::vector<Name> next;
  uint64_t bytes = 0;
  while (next.size() < kAheadSegmentsMax) {
    // A chunk may have lost its finest levels.
    if (name.level < target && name.level + 1 < chunks_[name.chunk].segment_bytes.size()) {
      ++name.level;
    } else {
      if (direction_ < 0 ? name.chunk == 0 : name.chunk + 1 >= chunks_.size()) break;
      name = Name{name.chunk + static_cast<uint32_t>(direction_), run_level_};
      if (run_level_ >= chunks_[name.chunk].segment_bytes.size()) continue;
    }
    bytes += chunks_[name.chunk].segment_bytes[name.level];
    if (bytes > kAheadBytes && !next.empty()) break;
    next.push_back(name);
  }
  return next;
}

void SegmentSource::ReadAhead(const Name& name, uint32_t target) {
  const std::vector<Name> expected = Next(name, target);
  slots_.erase(std::remove_if(slots_.begin(), slots_.end(),
                              [&](const Slot& slot) {
                                return !(slot.name == name) &&
                                       std::find(expected.begin(), expected.end(), slot.name) ==
                                           expected.end();
                              }),
               slots_.end());
  for (const Name& next : expected) {
    const bool begun = std::any_of(slots_.begin(), slots_.end(),
                                   [&next](const Slot& slot) { return slot.name == next; });
    if (!begun) slots_.push_back(Slot{next, Begin(next)});
  }
}

}  // namespace kvstream

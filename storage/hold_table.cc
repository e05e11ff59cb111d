#include "storage/hold_table.h"

#include <utility>

namespace kvstream {

ChunkHold HoldTable::Hold(absl::Span<const ChunkId> ids) {
  absl::MutexLock lock(&mutex_);
  for (const ChunkId& id : ids) {
    while (true) {
      Entry& entry = entries_[id];
      if (!entry.removing) {
        ++entry.holds;
        break;
      }
      removed_.Wait(&mutex_);
    }
  }
  return HoldOf(ids);
}

ChunkHold HoldTable::HoldFromNowOn(absl::Span<const ChunkId> ids) {
  absl::MutexLock lock(&mutex_);
  for (const ChunkId& id : ids) ++entries_[id].holds;
  return HoldOf(ids);
}

ChunkHold HoldTable::HoldOf(absl::Span<const ChunkId> ids) {
  return ChunkHold([this, ids = std::vector<ChunkId>(ids.begin(), ids.end())] { Release(ids); });
}

bool HoldTable::held(const ChunkId& id) const {
  absl::MutexLock lock(&mutex_);
  const auto entry = entries_.find(id);
  return entry != entries_.end() && entry->second.holds > 0;
}

std::vector<ChunkId> HoldTable::BeginRemoval(absl::Span<const ChunkId> ids) {
  std::vector<ChunkId> free;
  absl::MutexLock lock(&mutex_);
  for (const ChunkId& id : ids) {
    Entry& entry = entries_[id];
    if (entry.holds > 0 || entry.removing) continue;
    entry.removing = true;
    free.push_back(id);
  }
  return free;
}

void HoldTable::EndRemoval(absl::Span<const ChunkId> ids) {
  absl::MutexLock lock(&mutex_);
  for (const ChunkId& id : ids) {
    const auto entry = entries_.find(id);
    if (entry->second.holds == 0) {
      entries_.erase(entry);
    } else {
      entry->second.removing = false;
    }
  }
  removed_.SignalAll();
}

void HoldTable::Release(const std::vector<ChunkId>& ids) {
  absl::MutexLock lock(&mutex_);
  for (const ChunkId& id : ids) {
    const auto entry = entries_.find(id);
    if (--entry->second.holds == 0 && !entry->second.removing) entries_.erase(entry);
  }
}

}  // namespace kvstream

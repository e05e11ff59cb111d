#include "storage/rados/held_records.h"

#include <algorithm>
#include <cstddef>
#include <utility>

namespace kvstream {
namespace {

using rados_format::DataRecord;

// Whether their common levels are the same bytes.
bool Compatible(const DataRecord& a, const DataRecord& b) {
  const size_t common = std::min(a.hashes.size(), b.hashes.size());
  return std::equal(a.hashes.begin(), a.hashes.begin() + common, b.hashes.begin()) &&
         std::equal(a.info.segment_bytes.begin(), a.info.segment_bytes.begin() + common,
                    b.info.segment_bytes.begin());
}

}  // namespace

void HeldRecords::Hold(absl::Span<const ChunkId> ids, absl::Time now) {
  absl::MutexLock lock(&mutex_);
  for (const ChunkId& id : ids) {
    Entry& entry = entries_[id];
    if (entry.holds++ == 0) entry.since = now;
  }
}

std::vector<ChunkId> HeldRecords::HeldSince(absl::Time time, size_t limit) const {
  std::vector<std::pair<absl::Time, ChunkId>> held;
  {
    absl::MutexLock lock(&mutex_);
    for (const auto& [id, entry] : entries_) {
      if (entry.since <= time) held.emplace_back(entry.since, id);
    }
  }
  if (held.size() > limit) {
    std::nth_element(held.begin(), held.begin() + static_cast<std::ptrdiff_t>(limit), held.end());
    held.resize(limit);
  }
  std::vector<ChunkId> ids;
  ids.reserve(held.size());
  for (const auto& [since, id] : held) ids.push_back(id);
  return ids;
}

bool HeldRecords::Held(const ChunkId& id) const {
  absl::MutexLock lock(&mutex_);
  return entries_.contains(id);
}

void HeldRecords::Release(absl::Span<const ChunkId> ids) {
  absl::MutexLock lock(&mutex_);
  for (const ChunkId& id : ids) {
    const auto entry = entries_.find(id);
    if (entry != entries_.end() && --entry->second.holds == 0) entries_.erase(entry);
  }
}

bool HeldRecords::Agree(const ChunkId& id, const DataRecord& current) {
  absl::MutexLock lock(&mutex_);
  const auto entry = entries_.find(id);
  if (entry == entries_.end()) return true;
  std::shared_ptr<const DataRecord>& record = entry->second.record;
  if (record != nullptr && !Compatible(*record, current)) return false;
  if (record == nullptr || record->hashes.size() < current.hashes.size()) {
    record = std::make_shared<const DataRecord>(current);
  }
  return true;
}

std::shared_ptr<const DataRecord> HeldRecords::Find(const ChunkId& id) const {
  absl::MutexLock lock(&mutex_);
  const auto entry = entries_.find(id);
  return entry == entries_.end() ? nullptr : entry->second.record;
}

void HeldRecords::Forget(const ChunkId& id) {
  absl::MutexLock lock(&mutex_);
  const auto entry = entries_.find(id);
  if (entry != entries_.end()) entry->second.record = nullptr;
}

}  // namespace kvstream

#include "server/service/chunk_leases.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "server/service/ids.h"

namespace kvstream {

ChunkLeases::Lease& ChunkLeases::Lease::operator=(Lease&& other) noexcept {
  if (this != &other) {
    Release();
    leases_ = std::exchange(other.leases_, nullptr);
    ids_ = std::move(other.ids_);
  }
  return *this;
}

void ChunkLeases::Lease::Release() {
  if (leases_ != nullptr) std::exchange(leases_, nullptr)->Release(ids_);
}

absl::StatusOr<ChunkLeases::Lease> ChunkLeases::Acquire(const std::vector<ChunkId>& ids) {
  absl::MutexLock lock(&mutex_);
  for (size_t i = 0; i < ids.size(); ++i) {
    const auto entry = entries_.find(ids[i]);
    if (entry != entries_.end() && (entry->second.doomed || entry->second.deleting)) {
      return absl::NotFoundError(
          absl::StrCat("chunk ", i, " (", IdHex(ids[i]), ") is not stored: it has been deleted"));
    }
  }
  for (const ChunkId& id : ids) ++entries_[id].leases;
  return Lease(this, ids);
}

ChunkLeases::DeletePlan ChunkLeases::BeginDelete(absl::Span<const ChunkId> ids) {
  DeletePlan plan;
  absl::MutexLock lock(&mutex_);
  for (const ChunkId& id : ids) {
    Entry& entry = entries_[id];
    if (entry.doomed || entry.deleting) continue;
    if (entry.leases > 0) {
      entry.doomed = true;
      entry.noting = true;
      plan.deferred.push_back(id);
    } else {
      entry.deleting = true;
      plan.now.push_back(id);
    }
  }
  return plan;
}

void ChunkLeases::EndDelete(absl::Span<const ChunkId> ids) {
  absl::MutexLock lock(&mutex_);
  for (const ChunkId& id : ids) entries_.erase(id);
  deleted_.SignalAll();
}

std::vector<ChunkId> ChunkLeases::EndDefer(absl::Span<const ChunkId> ids, bool noted) {
  std::vector<ChunkId> due;
  absl::MutexLock lock(&mutex_);
  for (const ChunkId& id : ids) {
    const auto entry = entries_.find(id);
    entry->second.noting = false;
    entry->second.doomed = noted;
    if (entry->second.leases > 0) continue;
    if (noted) {
      entry->second.doomed = false;
      entry->second.deleting = true;
      due.push_back(id);
    } else {
      entries_.erase(entry);
    }
  }
  deleted_.SignalAll();
  return due;
}

void ChunkLeases::Revive(const ChunkId& id) {
  absl::MutexLock lock(&mutex_);
  while (true) {
    const auto entry = entries_.find(id);
    if (entry == entries_.end()) return;
    if (!entry->second.deleting && !entry->second.noting) {
      entry->second.doomed = false;
      return;
    }
    deleted_.Wait(&mutex_);
  }
}

bool ChunkLeases::Hidden(const ChunkId& id) const {
  absl::MutexLock lock(&mutex_);
  const auto entry = entries_.find(id);
  return entry != entries_.end() && (entry->second.doomed || entry->second.deleting);
}

size_t ChunkLeases::VisiblePrefix(absl::Span<const ChunkId> ids) const {
  absl::MutexLock lock(&mutex_);
  for (size_t i = 0; i < ids.size(); ++i) {
    const auto entry = entries_.find(ids[i]);
    if (entry != entries_.end() && (entry->second.doomed || entry->second.deleting)) return i;
  }
  return ids.size();
}

void ChunkLeases::Release(const std::vector<ChunkId>& ids) {
  std::vector<ChunkId> due;
  {
    absl::MutexLock lock(&mutex_);
    for (const ChunkId& id : ids) {
      const auto entry = entries_.find(id);
      if (--entry->second.leases > 0 || entry->second.noting) continue;
      if (entry->second.doomed) {
        entry->second.doomed = false;
        entry->second.deleting = true;
        due.push_back(id);
      } else {
        entries_.erase(entry);
      }
    }
  }
  if (!due.empty()) delete_now_(std::move(due));
}

}  // namespace kvstream

#include "storage/memory/memory_chunk_store.h"

#include <utility>

#include "absl/memory/memory.h"
#include "absl/strings/str_cat.h"
#include "storage/chunk_limits.h"
#include "storage/id_text.h"

namespace kvstream {

absl::Status MemoryChunkStoreOptions::Validate() const {
  if (max_bytes == 0) {
    return absl::InvalidArgumentError("memory store: max_bytes must be at least 1");
  }
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<ChunkStore>> MemoryChunkStore::Create(
    const MemoryChunkStoreOptions& options) {
  if (absl::Status status = options.Validate(); !status.ok()) return status;
  return absl::WrapUnique<ChunkStore>(new MemoryChunkStore(options));
}

absl::Status MemoryChunkStore::CheckRoom(absl::string_view what, uint64_t bytes) const {
  const uint64_t used_bytes = payload_bytes_ + profile_bytes_;
  // Nothing makes used_bytes exceed max_bytes, so the subtraction cannot wrap.
  if (bytes <= options_.max_bytes - used_bytes) return absl::OkStatus();
  return absl::ResourceExhaustedError(
      absl::StrCat(what, ": ", bytes, " bytes do not fit; the memory store holds ", used_bytes,
                   " of at most ", options_.max_bytes, " bytes"));
}

absl::StatusOr<bool> MemoryChunkStore::Put(const ChunkId& id, const ChunkInfo& info,
                                           absl::Span<const absl::string_view> segments) {
  if (absl::Status status = ValidateChunk(id, info, segments); !status.ok()) return status;
  const uint64_t bytes = PayloadBytes(info);
  const auto what = [&id] { return absl::StrCat("Put of chunk ", ShortHex(id)); };
  {
    // Spares the copy of what exists or does not fit.
    absl::ReaderMutexLock lock(&mutex_);
    if (chunks_.count(id) > 0) return false;
    if (absl::Status status = CheckRoom(what(), bytes); !status.ok()) return status;
  }
  auto chunk = std::make_shared<StoredChunk>();
  chunk->info = info;
  // Drivers agree on nanoseconds.
  chunk->info.created = absl::FromUnixNanos(absl::ToUnixNanos(info.created));
  chunk->segments.reserve(segments.size());
  // The one copy of the payload: the caller's bytes are borrowed for the call only.
  for (absl::string_view segment : segments) chunk->segments.emplace_back(segment);

  absl::MutexLock lock(&mutex_);
  const auto hint = chunks_.lower_bound(id);
  if (hint != chunks_.end() && hint->first == id) return false;
  if (absl::Status status = CheckRoom(what(), bytes); !status.ok()) return status;
  chunks_.emplace_hint(hint, id, std::move(chunk));
  payload_bytes_ += bytes;
  return true;
}

absl::StatusOr<std::vector<absl::optional<ChunkInfo>>> MemoryChunkStore::GetInfos(
    absl::Span<const ChunkId> ids) {
  std::vector<absl::optional<ChunkInfo>> infos(ids.size());
  absl::ReaderMutexLock lock(&mutex_);
  for (size_t i = 0; i < ids.size(); ++i) {
    const auto found = chunks_.find(ids[i]);
    if (found != chunks_.end()) infos[i] = found->second->info;
  }
  return infos;
}

absl::StatusOr<size_t> MemoryChunkStore::LongestPrefix(absl::Span<const ChunkId> ids) {
  absl::ReaderMutexLock lock(&mutex_);
  size_t length = 0;
  while (length < ids.size() && chunks_.count(ids[length]) > 0) ++length;
  return length;
}

absl::StatusOr<PinnedBytes> MemoryChunkStore::ReadSegment(const ChunkId& id, uint32_t level) {
  std::shared_ptr<const StoredChunk> chunk;
  {
    absl::ReaderMutexLock lock(&mutex_);
    const auto found = chunks_.find(id);
    if (found != chunks_.end()) chunk = found->second;
  }
  if (chunk == nullptr) {
    return absl::NotFoundError(
        absl::StrCat("ReadSegment of chunk ", ShortHex(id), ": the chunk is not stored"));
  }
  if (level >= chunk->segments.size()) {
    return absl::NotFoundError(absl::StrCat("ReadSegment of chunk ", ShortHex(id), ": level ",
                                            level, " does not exist; the chunk has ",
                                            chunk->segments.size(), " levels"));
  }
  const absl::string_view bytes = chunk->segments[level];
  return PinnedBytes(bytes, [chunk = std::move(chunk)]() mutable { chunk.reset(); });
}

absl::StatusOr<size_t> MemoryChunkStore::Delete(absl::Span<const ChunkId> ids) {
  // Freed after the lock is gone.
  std::vector<std::shared_ptr<const StoredChunk>> deleted;
  absl::MutexLock lock(&mutex_);
  for (const ChunkId& id : ids) {
    const auto found = chunks_.find(id);
    if (found == chunks_.end()) continue;
    payload_bytes_ -= PayloadBytes(found->second->info);
    deleted.push_back(std::move(found->second));
    chunks_.erase(found);
  }
  return deleted.size();
}

absl::StatusOr<std::vector<std::pair<ChunkId, ChunkInfo>>> MemoryChunkStore::List(
    const absl::optional<ChunkId>& after, size_t limit) {
  std::vector<std::pair<ChunkId, ChunkInfo>> listed;
  absl::ReaderMutexLock lock(&mutex_);
  auto next = after.has_value() ? chunks_.upper_bound(*after) : chunks_.begin();
  for (; next != chunks_.end() && listed.size() < limit; ++next) {
    listed.emplace_back(next->first, next->second->info);
  }
  return listed;
}

absl::StatusOr<bool> MemoryChunkStore::PutProfile(const StoredProfileId& id,
                                                  absl::string_view bytes) {
  if (absl::Status status = ValidateProfile(id, bytes); !status.ok()) return status;
  absl::MutexLock lock(&mutex_);
  if (profiles_.count(id) > 0) return false;
  const std::string what = absl::StrCat("PutProfile of profile ", ShortHex(id));
  if (absl::Status status = CheckRoom(what, bytes.size()); !status.ok()) return status;
  profiles_.emplace(id, bytes);
  profile_bytes_ += bytes.size();
  return true;
}

absl::StatusOr<std::string> MemoryChunkStore::GetProfile(const StoredProfileId& id) {
  absl::ReaderMutexLock lock(&mutex_);
  const auto found = profiles_.find(id);
  if (found == profiles_.end()) {
    return absl::NotFoundError(
        absl::StrCat("GetProfile of profile ", ShortHex(id), ": the profile is not stored"));
  }
  return found->second;
}

absl::StatusOr<std::vector<StoredProfileId>> MemoryChunkStore::ListProfiles() {
  std::vector<StoredProfileId> ids;
  absl::ReaderMutexLock lock(&mutex_);
  ids.reserve(profiles_.size());
  for (const auto& [id, bytes] : profiles_) ids.push_back(id);
  return ids;
}

absl::StatusOr<StoreStats> MemoryChunkStore::Stats() {
  absl::ReaderMutexLock lock(&mutex_);
  return StoreStats{chunks_.size(), payload_bytes_, 0};
}

}  // namespace kvstream

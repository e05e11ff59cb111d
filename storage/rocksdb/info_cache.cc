#include "storage/rocksdb/info_cache.h"

#include <array>
#include <cstring>
#include <limits>

#include "absl/hash/hash.h"
#include "storage/rocksdb/chunk_record_format.h"

namespace kvstream {
namespace {

// An id and a record of a few levels with a short model name, as the allocator sees them.
constexpr uint64_t kTypicalEntryBytes = 176;
constexpr uint64_t kAllocationBytes = 16;
constexpr size_t kIdBytes = sizeof(ChunkId);
// Ids whose memory is on its way at a time: more than a core has line buffers for would wait again.
constexpr size_t kWindow = 16;
constexpr size_t kLineBytes = 64;

void PrefetchBytes(const void* bytes, size_t size) {
  for (size_t offset = 0; offset < size; offset += kLineBytes) {
    __builtin_prefetch(static_cast<const char*>(bytes) + offset);
  }
}

}  // namespace

InfoCache::InfoCache(uint64_t bytes)
    : sets_(bytes / kShards / (sizeof(Set) + kWays * kTypicalEntryBytes)),
      record_bytes_max_(bytes / kShards - sets_ * sizeof(Set)) {
  static_assert(sizeof(Set) == 2 * kLineBytes, "a set would be more than one access to memory");
  for (Shard& shard : shards_) {
    absl::MutexLock lock(&shard.mutex);
    shard.sets = std::make_unique<Set[]>(sets_);
  }
}

InfoCache::Place InfoCache::PlaceOf(const ChunkId& id) const {
  // Seeded by the process, so that nobody can make ids that meet in one set.
  const uint64_t hash = absl::Hash<absl::string_view>()(rocksdb_format::IdKey(id));
  return {static_cast<size_t>(hash % kShards), static_cast<size_t>(hash / kShards % sets_),
          static_cast<uint8_t>(hash >> 56)};
}

size_t InfoCache::Find(const Shard& shard, const Place& place, const ChunkId& id) {
  const Set& set = shard.sets[place.set];
  for (size_t slot = 0; slot < kWays; ++slot) {
    const char* const entry = set.entries[slot].get();
    if (entry != nullptr && set.tags[slot] == place.tag &&
        std::memcmp(entry, id.data(), kIdBytes) == 0) {
      return slot;
    }
  }
  return kWays;
}

void InfoCache::Prefetch(absl::Span<const Place> places) {
  for (const Place& place : places) {
    PrefetchBytes(&shards_[place.shard].sets[place.set], sizeof(Set));
  }
  for (const Place& place : places) {
    Shard& shard = shards_[place.shard];
    absl::MutexLock lock(&shard.mutex);
    const Set& set = shard.sets[place.set];
    for (size_t slot = 0; slot < kWays; ++slot) {
      if (set.entries[slot] != nullptr && set.tags[slot] == place.tag) {
        PrefetchBytes(set.entries[slot].get(), kIdBytes + set.record_bytes[slot]);
      }
    }
  }
}

void InfoCache::Get(absl::Span<const ChunkId> ids,
                    absl::FunctionRef<void(size_t, absl::string_view)> found,
                    absl::FunctionRef<void(size_t, uint64_t)> missing) {
  std::array<Place, kWindow> places = {};
  for (size_t i = 0; i < ids.size(); ++i) {
    if (sets_ == 0) {
      missing(i, 0);
      continue;
    }
    if (i % kWindow == 0) {
      const absl::Span<const ChunkId> window = ids.subspan(i, kWindow);
      for (size_t k = 0; k < window.size(); ++k) places[k] = PlaceOf(window[k]);
      Prefetch(absl::MakeConstSpan(places).subspan(0, window.size()));
    }
    const Place& place = places[i % kWindow];
    Shard& shard = shards_[place.shard];
    uint64_t ticket = 0;
    {
      absl::MutexLock lock(&shard.mutex);
      if (const size_t slot = Find(shard, place, ids[i]); slot < kWays) {
        Set& set = shard.sets[place.set];
        set.used = static_cast<uint8_t>(set.used | 1u << slot);
        found(i, absl::string_view(set.entries[slot].get() + kIdBytes, set.record_bytes[slot]));
        continue;
      }
      ticket = shard.erasures;
    }
    missing(i, ticket);
  }
}

size_t InfoCache::Victim(Set& set) {
  while (true) {
    const size_t slot = set.hand;
    set.hand = static_cast<uint8_t>((slot + 1) % kWays);
    const unsigned bit = 1u << slot;
    if (set.entries[slot] == nullptr || (set.used & bit) == 0) return slot;
    set.used = static_cast<uint8_t>(set.used & ~bit);
  }
}

void InfoCache::Empty(Shard& shard, Set& set, size_t slot) {
  if (set.entries[slot] == nullptr) return;
  shard.record_bytes -= kIdBytes + set.record_bytes[slot] + kAllocationBytes;
  set.entries[slot].reset();
}

void InfoCache::Insert(const ChunkId& id, absl::string_view record, uint64_t ticket) {
  if (sets_ == 0 || record.size() > std::numeric_limits<uint16_t>::max()) return;
  const Place place = PlaceOf(id);
  Shard& shard = shards_[place.shard];
  absl::MutexLock lock(&shard.mutex);
  if (shard.erasures != ticket || Find(shard, place, id) < kWays) return;
  Set& set = shard.sets[place.set];
  const size_t slot = Victim(set);
  Empty(shard, set, slot);
  const uint64_t bytes = kIdBytes + record.size() + kAllocationBytes;
  if (shard.record_bytes + bytes > record_bytes_max_) return;
  shard.record_bytes += bytes;
  set.tags[slot] = place.tag;
  set.record_bytes[slot] = static_cast<uint16_t>(record.size());
  set.used = static_cast<uint8_t>(set.used & ~(1u << slot));
  set.entries[slot].reset(new char[kIdBytes + record.size()]);
  std::memcpy(set.entries[slot].get(), id.data(), kIdBytes);
  std::memcpy(set.entries[slot].get() + kIdBytes, record.data(), record.size());
}

void InfoCache::Erase(const ChunkId& id) {
  if (sets_ == 0) return;
  const Place place = PlaceOf(id);
  Shard& shard = shards_[place.shard];
  absl::MutexLock lock(&shard.mutex);
  ++shard.erasures;
  if (const size_t slot = Find(shard, place, id); slot < kWays) {
    Empty(shard, shard.sets[place.set], slot);
  }
}

void InfoCache::Clear() {
  for (Shard& shard : shards_) {
    absl::MutexLock lock(&shard.mutex);
    ++shard.erasures;
    for (size_t set = 0; set < sets_; ++set) {
      for (size_t slot = 0; slot < kWays; ++slot) Empty(shard, shard.sets[set], slot);
    }
  }
}

uint64_t InfoCache::bytes() const {
  uint64_t bytes = kShards * sets_ * sizeof(Set);
  for (const Shard& shard : shards_) {
    absl::MutexLock lock(&shard.mutex);
    bytes += shard.record_bytes;
  }
  return bytes;
}

}  // namespace kvstream

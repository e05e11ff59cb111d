#include "storage/rocksdb/info_cache.h"

#include <array>
#include <cstring>

#include "absl/hash/hash.h"
#include "storage/rocksdb/chunk_record_format.h"

namespace kvstream {
namespace {

// A slot with its tag, and a record of a few levels with a short model name, as the allocator sees
// it.
constexpr uint64_t kSlotBytes = 49;
constexpr uint64_t kTypicalRecordBytes = 144;
constexpr uint64_t kAllocationBytes = 16;
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
    : sets_(bytes / kShards / (kSlotBytes + kTypicalRecordBytes) / kWays),
      record_bytes_max_(bytes / kShards - sets_ * kWays * kSlotBytes) {
  static_assert(sizeof(Slot) + 1 == kSlotBytes, "the table would be larger than its bound");
  for (Shard& shard : shards_) {
    absl::MutexLock lock(&shard.mutex);
    shard.slots = std::make_unique<Slot[]>(sets_ * kWays);
    shard.tags = std::make_unique<uint8_t[]>(sets_ * kWays);
    shard.hands = std::make_unique<uint8_t[]>(sets_);
  }
}

InfoCache::Place InfoCache::PlaceOf(const ChunkId& id) const {
  // Seeded by the process, so that nobody can make ids that meet in one set.
  const uint64_t hash = absl::Hash<absl::string_view>()(rocksdb_format::IdKey(id));
  return {static_cast<size_t>(hash % kShards), static_cast<size_t>(hash / kShards % sets_),
          static_cast<uint8_t>(1 + (hash >> 56) % 255)};
}

InfoCache::Slot* InfoCache::Find(Shard& shard, const Place& place, const ChunkId& id) {
  const size_t first = place.set * kWays;
  for (size_t slot = first; slot < first + kWays; ++slot) {
    if (shard.tags[slot] == place.tag && shard.slots[slot].id == id) return &shard.slots[slot];
  }
  return nullptr;
}

void InfoCache::Prefetch(absl::Span<const ChunkId> ids, absl::Span<const Place> places) {
  for (const Place& place : places) {
    PrefetchBytes(shards_[place.shard].tags.get() + place.set * kWays, kWays);
  }
  for (const Place& place : places) {
    Shard& shard = shards_[place.shard];
    absl::MutexLock lock(&shard.mutex);
    for (size_t slot = place.set * kWays; slot < (place.set + 1) * kWays; ++slot) {
      if (shard.tags[slot] == place.tag) PrefetchBytes(&shard.slots[slot], sizeof(Slot));
    }
  }
  for (size_t i = 0; i < ids.size(); ++i) {
    Shard& shard = shards_[places[i].shard];
    absl::MutexLock lock(&shard.mutex);
    const Slot* const slot = Find(shard, places[i], ids[i]);
    if (slot != nullptr) PrefetchBytes(slot->record.get(), slot->record_bytes);
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
      Prefetch(window, absl::MakeConstSpan(places).subspan(0, window.size()));
    }
    const Place& place = places[i % kWindow];
    Shard& shard = shards_[place.shard];
    absl::ReleasableMutexLock lock(&shard.mutex);
    if (Slot* const slot = Find(shard, place, ids[i]); slot != nullptr) {
      slot->used = true;
      found(i, absl::string_view(slot->record.get(), slot->record_bytes));
      continue;
    }
    const uint64_t ticket = shard.erasures;
    lock.Release();
    missing(i, ticket);
  }
}

size_t InfoCache::Victim(Shard& shard, size_t set) {
  uint8_t& hand = shard.hands[set];
  while (true) {
    const size_t slot = set * kWays + hand % kWays;
    hand = static_cast<uint8_t>((hand + 1) % kWays);
    if (shard.tags[slot] == 0 || !shard.slots[slot].used) return slot;
    shard.slots[slot].used = false;
  }
}

void InfoCache::Empty(Shard& shard, size_t slot) {
  if (shard.tags[slot] == 0) return;
  shard.tags[slot] = 0;
  shard.record_bytes -= shard.slots[slot].record_bytes + kAllocationBytes;
  shard.slots[slot].record.reset();
}

void InfoCache::Insert(const ChunkId& id, absl::string_view record, uint64_t ticket) {
  if (sets_ == 0) return;
  const Place place = PlaceOf(id);
  Shard& shard = shards_[place.shard];
  absl::MutexLock lock(&shard.mutex);
  if (shard.erasures != ticket || Find(shard, place, id) != nullptr) return;
  const size_t slot = Victim(shard, place.set);
  Empty(shard, slot);
  const uint64_t bytes = record.size() + kAllocationBytes;
  if (shard.record_bytes + bytes > record_bytes_max_) return;
  shard.record_bytes += bytes;
  shard.tags[slot] = place.tag;
  Slot& into = shard.slots[slot];
  into.id = id;
  into.record_bytes = static_cast<uint32_t>(record.size());
  into.used = false;
  into.record.reset(new char[record.size()]);
  std::memcpy(into.record.get(), record.data(), record.size());
}

void InfoCache::Erase(const ChunkId& id) {
  if (sets_ == 0) return;
  const Place place = PlaceOf(id);
  Shard& shard = shards_[place.shard];
  absl::MutexLock lock(&shard.mutex);
  ++shard.erasures;
  if (Slot* const slot = Find(shard, place, id); slot != nullptr) {
    Empty(shard, static_cast<size_t>(slot - shard.slots.get()));
  }
}

void InfoCache::Clear() {
  for (Shard& shard : shards_) {
    absl::MutexLock lock(&shard.mutex);
    ++shard.erasures;
    for (size_t slot = 0; slot < sets_ * kWays; ++slot) Empty(shard, slot);
  }
}

uint64_t InfoCache::bytes() const {
  uint64_t bytes = kShards * sets_ * kWays * kSlotBytes;
  for (const Shard& shard : shards_) {
    absl::MutexLock lock(&shard.mutex);
    bytes += shard.record_bytes;
  }
  return bytes;
}

}  // namespace kvstream

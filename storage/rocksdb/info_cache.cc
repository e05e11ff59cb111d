#include "storage/rocksdb/info_cache.h"

#include <sys/mman.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <memory>
#include <new>

#include "absl/hash/hash.h"
#include "storage/rocksdb/chunk_record_format.h"

namespace kvstream {
namespace {

// An id and a record of a few levels with a short model name, as the allocator sees them.
constexpr uint64_t kTypicalEntryBytes = 176;
constexpr uint64_t kAllocationBytes = 16;
constexpr size_t kIdBytes = sizeof(ChunkId);
// Part of the slots that typical entries take when the memory is full. With eight slots a set and
// hashed ids, one id in 400 then finds its set full; at 0.6 it is one in 50.
constexpr double kSlotsUsed = 0.4;
// Sets that the clock looks at for one insertion.
constexpr size_t kSweepMax = 64;
// Ids whose memory is on its way at a time: more than a core has line buffers for would wait again.
constexpr size_t kWindow = 16;
constexpr size_t kLineBytes = 64;
// Of an entry, ahead of its use: what a typical one takes.
constexpr size_t kPrefetchBytes = 3 * kLineBytes;

// Tables of many MiB are read at random: with pages of 4 KiB each access costs a walk through page
// tables that no cache holds either.
constexpr size_t kHugePageBytes = 2 << 20;
constexpr size_t kHugePagesMin = 4;

size_t SetsOf(uint64_t bytes, size_t shards, size_t set_bytes, size_t ways) {
  const double entries = kSlotsUsed * static_cast<double>(ways);
  const double each = static_cast<double>(set_bytes) + entries * double{kTypicalEntryBytes};
  return static_cast<size_t>(static_cast<double>(bytes) / static_cast<double>(shards) / each);
}

void* AllocateTable(size_t bytes) {
  const bool huge = bytes >= kHugePagesMin * kHugePageBytes;
  const size_t alignment = huge ? kHugePageBytes : 2 * kLineBytes;
  bytes = (bytes + alignment - 1) / alignment * alignment;
  void* const table = std::aligned_alloc(alignment, bytes);
  if (table == nullptr) throw std::bad_alloc();
  // Where the kernel does not, pages are small.
  if (huge) (void)madvise(table, bytes, MADV_HUGEPAGE);
  return table;
}

void PrefetchBytes(const void* bytes, size_t size) {
  for (size_t offset = 0; offset < size; offset += kLineBytes) {
    __builtin_prefetch(static_cast<const char*>(bytes) + offset);
  }
}

}  // namespace

void InfoCache::FreeSets::operator()(Set* sets) const { std::free(sets); }

InfoCache::InfoCache(uint64_t bytes)
    : sets_(SetsOf(bytes, kShards, sizeof(Set), kWays)),
      record_bytes_max_(bytes / kShards - sets_ * sizeof(Set)),
      all_sets_(sets_ == 0 ? nullptr
                           : static_cast<Set*>(AllocateTable(kShards * sets_ * sizeof(Set)))) {
  static_assert(sizeof(Set) == 2 * kLineBytes, "a set would be more than one access to memory");
  static_assert(std::is_trivially_destructible_v<Set>, "sets are freed, not destroyed");
  std::uninitialized_value_construct_n(all_sets_.get(), kShards * sets_);
  for (size_t i = 0; i < kShards; ++i) shards_[i].sets = all_sets_.get() + i * sets_;
}

InfoCache::~InfoCache() { Clear(); }

InfoCache::Place InfoCache::PlaceOf(const ChunkId& id) const {
  // Seeded by the process, so that nobody can make ids that meet in one set.
  const uint64_t hash = absl::Hash<absl::string_view>()(rocksdb_format::IdKey(id));
  return {static_cast<size_t>(hash % kShards), static_cast<size_t>(hash / kShards % sets_),
          static_cast<uint8_t>(hash >> 56)};
}

size_t InfoCache::Find(const Shard& shard, const Place& place, const ChunkId& id) {
  const Set& set = shard.sets[place.set];
  for (size_t slot = 0; slot < kWays; ++slot) {
    const char* const entry = set.entry(slot);
    if (entry != nullptr && set.tag(slot) == place.tag &&
        std::memcmp(entry, id.data(), kIdBytes) == 0) {
      return slot;
    }
  }
  return kWays;
}

void InfoCache::Prefetch(absl::Span<const Place> places) const {
  for (const Place& place : places) {
    PrefetchBytes(&shards_[place.shard].sets[place.set], sizeof(Set));
  }
  for (const Place& place : places) {
    const Set& set = shards_[place.shard].sets[place.set];
    for (size_t slot = 0; slot < kWays; ++slot) {
      const char* const entry = set.entry(slot);
      if (entry != nullptr && set.tag(slot) == place.tag) PrefetchBytes(entry, kPrefetchBytes);
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
        found(i, absl::string_view(set.entry(slot) + kIdBytes, set.record_bytes[slot]));
        continue;
      }
      ticket = shard.erasures;
    }
    missing(i, ticket);
  }
}

size_t InfoCache::Victim(Set& set) {
  for (size_t slot = 0; slot < kWays; ++slot) {
    if (set.entry(slot) == nullptr) return slot;
  }
  while (true) {
    const size_t slot = set.hand;
    set.hand = static_cast<uint8_t>((slot + 1) % kWays);
    const unsigned bit = 1u << slot;
    if ((set.used & bit) == 0) return slot;
    set.used = static_cast<uint8_t>(set.used & ~bit);
  }
}

bool InfoCache::MakeRoom(Shard& shard, uint64_t bytes) {
  for (size_t looked = 0; shard.record_bytes + bytes > record_bytes_max_; ++looked) {
    if (looked == std::min(kSweepMax, 2 * sets_)) return false;
    Set& set = shard.sets[shard.hand];
    shard.hand = (shard.hand + 1) % sets_;
    for (size_t slot = 0; slot < kWays; ++slot) {
      if ((set.used & 1u << slot) == 0) Empty(shard, set, slot);
    }
    set.used = 0;
  }
  return true;
}

void InfoCache::Empty(Shard& shard, Set& set, size_t slot) {
  char* const entry = set.entry(slot);
  if (entry == nullptr) return;
  shard.record_bytes -= kIdBytes + set.record_bytes[slot] + kAllocationBytes;
  set.entries[slot].store(nullptr, std::memory_order_relaxed);
  delete[] entry;
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
  if (!MakeRoom(shard, bytes)) return;
  shard.record_bytes += bytes;
  std::unique_ptr<char[]> entry(new char[kIdBytes + record.size()]);
  std::memcpy(entry.get(), id.data(), kIdBytes);
  std::memcpy(entry.get() + kIdBytes, record.data(), record.size());
  set.tags[slot].store(place.tag, std::memory_order_relaxed);
  set.record_bytes[slot] = static_cast<uint16_t>(record.size());
  set.used = static_cast<uint8_t>(set.used & ~(1u << slot));
  set.entries[slot].store(entry.release(), std::memory_order_relaxed);
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

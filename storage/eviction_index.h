// Which bytes of a full store are worth least: the policy of eviction, without any store.
#ifndef KVSTREAM_STORAGE_EVICTION_INDEX_H_
#define KVSTREAM_STORAGE_EVICTION_INDEX_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <queue>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/container/inlined_vector.h"
#include "absl/types/optional.h"
#include "absl/types/span.h"
#include "storage/chunk_store.h"

namespace kvstream {

// What can be removed is a unit: the finest segment that a chunk still has. Removing level n > 0
// costs quality; removing level 0 costs the chunk. The next unit of a chunk is worth
//
//   value    = clock + uses * saved * 2^-level / bytes
//   saved    = tokens * (1 + (first_token + tokens / 2) / 8192)
//
// `saved` is what recomputing the chunk costs: prefill is linear in the tokens plus attention,
// which grows with the position and takes about as long as the rest at 8192 tokens of prefix. The
// factor 2^-level says that a refinement is worth half of what it refines; since finer segments are
// also larger, the finest segments of a cold chunk go well before its base. `uses` counts loads, at
// most 64, so that old fame fades. The clock is GreedyDual's: it is the value of the last unit that
// was removed, and a chunk's term is that of its last use. So whoever is not used falls behind all
// others, sooner the less it is worth.
//
// A chunk's last unit is never offered while another stored chunk names it as its parent and comes
// later in the context: without a predecessor a chunk is never found. So contexts shrink from their
// end. (A chunk that claims to come before its parent is a lie, and lies could form a ring of which
// nothing may ever go.)
//
// Not thread-safe. Values are re-examined when they surface (a use only raises them), so a use
// costs a hash lookup. Memory: some 150 bytes a chunk.
class EvictionIndex {
 public:
  // A chunk's record of use, for keeping it across restarts.
  struct Usage {
    double clock = 0;   // when it was used last
    uint32_t uses = 1;  // at least 1
  };

  // A victim: the chunk keeps its levels below `keep_levels`; 0: nothing is left of it.
  struct Victim {
    ChunkId id = {};
    uint32_t keep_levels = 0;
    uint64_t bytes = 0;  // that this frees
  };

  EvictionIndex() : slots_(0, Hash{&entries_}, Same{&entries_}) {}
  EvictionIndex(const EvictionIndex&) = delete;
  EvictionIndex& operator=(const EvictionIndex&) = delete;

  // A chunk is stored now, or its levels have changed; then `usage` is ignored. Without `usage` it
  // counts as used now. `info` must have passed ValidateChunk.
  void Put(const ChunkId& id, const ChunkInfo& info,
           const absl::optional<Usage>& usage = absl::nullopt);
  // It is no longer stored. Nothing if it was not.
  void Remove(const ChunkId& id);
  // A load used it. Nothing if it is not stored.
  void Touch(const ChunkId& id);
  // While it is pinned it is never offered. Nothing if it is not stored; Remove ends it.
  void SetPinned(const ChunkId& id, bool pinned);

  // Takes units from the least valuable upwards until they free `bytes`, there are none, or they
  // belong to `victims_max` chunks, and counts them as removed. Chunks for which `held` is true are
  // passed over. The victims' order is that of the first unit taken. A victim that could not be
  // removed must be given back by Put() with the levels that it still has.
  std::vector<Victim> Take(uint64_t bytes, size_t victims_max,
                           const std::function<bool(const ChunkId&)>& held);

  absl::optional<Usage> usage(const ChunkId& id) const;
  double clock() const { return clock_; }
  // Of an earlier run, before any Put.
  void set_clock(double clock) { clock_ = clock; }
  // Chunks stored, and bytes of their segments.
  size_t chunks() const { return chunks_; }
  uint64_t payload_bytes() const { return payload_bytes_; }
  // The value of a stored chunk's next unit; none if it is not stored. For tests.
  absl::optional<double> value(const ChunkId& id) const;

 private:
  using Slot = uint32_t;
  static constexpr Slot kNone = UINT32_MAX;

  struct Entry {
    ChunkId id = {};
    // Stored: its own. Else a lower bound of its children's.
    uint64_t first_token = 0;
    Slot parent = kNone;
    uint32_t children = 0;  // entries that name it as their parent and are stored
    float saved = 0;
    uint16_t uses = 1;
    bool pinned = false;
    double used_at = 0;  // the clock of the last use
    // Empty: not stored, but some stored chunk's parent.
    absl::InlinedVector<uint32_t, 4> segment_bytes;
    // The least value of the heap's elements that stand for it, as far as known.
    double queued_value = std::numeric_limits<double>::infinity();
  };
  struct Hash {
    using is_transparent = void;
    const std::vector<Entry>* entries;
    size_t operator()(const ChunkId& id) const;
    size_t operator()(Slot slot) const { return (*this)((*entries)[slot].id); }
  };
  struct Same {
    using is_transparent = void;
    const std::vector<Entry>* entries;
    bool operator()(Slot a, Slot b) const { return a == b; }
    bool operator()(Slot a, const ChunkId& b) const { return (*entries)[a].id == b; }
    bool operator()(const ChunkId& a, Slot b) const { return (*entries)[b].id == a; }
  };

  Slot Find(const ChunkId& id) const;
  Slot FindOrAdd(const ChunkId& id);
  double ValueOf(const Entry& entry) const;
  // Whether the next unit may be offered at all.
  static bool Removable(const Entry& entry) {
    return !entry.pinned && (entry.segment_bytes.size() > 1 ||
                             (entry.segment_bytes.size() == 1 && entry.children == 0));
  }
  // If it is removable and no element stands for it at its value or less. Rebuilds the heap where
  // stale elements have come to outnumber the chunks.
  void Enqueue(Slot slot);
  // Takes the last level off; the entry goes if nothing refers to it.
  void DropSegment(Slot slot);
  // After the chunk has lost all its segments.
  void Unlink(Slot slot);
  void FreeIfUnused(Slot slot);
  void Link(Slot slot, const ChunkId& parent_id);

  std::vector<Entry> entries_;
  std::vector<Slot> free_slots_;
  absl::flat_hash_set<Slot, Hash, Same> slots_;
  // The value when queued, and for whom; least first. Elements of slots that were freed or are not
  // removable now are dropped when they surface.
  std::priority_queue<std::pair<double, Slot>, std::vector<std::pair<double, Slot>>,
                      std::greater<std::pair<double, Slot>>>
      heap_;
  double clock_ = 0;
  size_t chunks_ = 0;
  uint64_t payload_bytes_ = 0;
};

}  // namespace kvstream

#endif  // KVSTREAM_STORAGE_EVICTION_INDEX_H_

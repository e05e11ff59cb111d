// The pins of a store, in memory; drivers write them down beside it.
#ifndef KVSTREAM_STORAGE_PIN_TABLE_H_
#define KVSTREAM_STORAGE_PIN_TABLE_H_

#include <cstddef>
#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "absl/types/optional.h"
#include "absl/types/span.h"
#include "storage/chunk_store.h"

namespace kvstream {

// Thread-safe. Some 300 bytes of memory a pin. A caller must keep others from changing the pins of
// an id between a Set and what it may Undo.
class PinTable {
 public:
  static constexpr uint64_t kNoBound = UINT64_MAX;
  // Pins in all, since each costs memory.
  static constexpr size_t kPinsMax = size_t{1} << 18;

  // A chunk that is to be pinned, with the bytes of its segments and whose it is ("": nobody's).
  struct Item {
    ChunkId id = {};
    uint64_t payload_bytes = 0;
    std::string tenant = std::string();
  };
  // What Set has replaced: by item, the end of the owner's earlier pin, if there was one.
  using Before = std::vector<absl::optional<absl::Time>>;

  // Chunks that are pinned may have at most so many bytes together.
  explicit PinTable(uint64_t bytes_max) : bytes_max_(bytes_max) {}
  PinTable(const PinTable&) = delete;
  PinTable& operator=(const PinTable&) = delete;

  // All of them or, with RESOURCE_EXHAUSTED, none; pins that have ended count until they are
  // removed. Ids are different from each other.
  absl::Status Set(absl::Span<const Item> items, absl::string_view owner, absl::Time until,
                   Before* before);
  void Undo(absl::Span<const Item> items, absl::string_view owner, const Before& before);
  // From an earlier run: whatever the bounds.
  void Restore(const ChunkPin& pin, uint64_t payload_bytes, absl::string_view tenant = "");
  // Whether the pin was there.
  bool Remove(const ChunkId& id, absl::string_view owner);
  // Has no effect on a chunk that is not pinned.
  void SetPayloadBytes(const ChunkId& id, uint64_t payload_bytes);

  // Whether any pin of the chunk lasts beyond `now`.
  bool Pinned(const ChunkId& id, absl::Time now) const;
  // Of one chunk, in the order of owners, those included that have ended.
  std::vector<ChunkPin> Of(const ChunkId& id) const;
  // Up to `limit` pins whose end is at `now` or before, earliest first.
  std::vector<ChunkPin> Ended(absl::Time now, size_t limit) const;
  // See ChunkStore::ListPins.
  std::vector<ChunkPin> List(const absl::optional<ChunkPin>& after, size_t limit) const;

  // The same of the chunks of one tenant, whatever others have; "" has none.
  std::vector<ChunkPin> ListTenant(absl::string_view tenant, const absl::optional<ChunkPin>& after,
                                   size_t limit) const;

  uint64_t pins() const;
  uint64_t bytes() const;
  // Of one tenant's chunks.
  struct Use {
    uint64_t pins = 0;
    uint64_t bytes = 0;
  };
  Use UseOf(absl::string_view tenant) const;

 private:
  struct Entry {
    uint64_t payload_bytes = 0;
    std::map<std::string, absl::Time, std::less<>> owners;  // to the end of each
    std::string tenant;
  };
  using Chunks = std::map<ChunkId, Entry>;
  // That has a pin; places in chunks_, in the order of ids.
  struct Tenant {
    std::map<ChunkId, Chunks::const_iterator> chunks;
    Use use;
  };

  void Add(const Item& item, absl::string_view owner, absl::Time until)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool RemoveLocked(const ChunkId& id, absl::string_view owner)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const uint64_t bytes_max_;
  mutable absl::Mutex mutex_;
  Chunks chunks_ ABSL_GUARDED_BY(mutex_);
  std::map<std::string, Tenant, std::less<>> tenants_ ABSL_GUARDED_BY(mutex_);
  std::set<std::tuple<absl::Time, ChunkId, std::string>> ends_ ABSL_GUARDED_BY(mutex_);
  uint64_t bytes_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace kvstream

#endif  // KVSTREAM_STORAGE_PIN_TABLE_H_

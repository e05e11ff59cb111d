// Chunks and profiles by id. Payloads are bytes: the store knows neither their format nor the
// network.
#ifndef KVSTREAM_STORAGE_CHUNK_STORE_H_
#define KVSTREAM_STORAGE_CHUNK_STORE_H_

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "absl/types/optional.h"
#include "absl/types/span.h"
#include "storage/scrub.h"

namespace kvstream {

// 32 raw bytes each.
using ChunkId = std::array<uint8_t, 32>;
using StoredProfileId = std::array<uint8_t, 32>;

// What is known of a stored chunk without reading its payload.
struct ChunkInfo {
  absl::optional<ChunkId> parent;  // none: first chunk of its context
  StoredProfileId profile_id = {};
  std::string model;  // for people; at most 512 bytes
  uint64_t first_token = 0;
  uint32_t tokens = 0;
  std::vector<uint64_t> segment_bytes;  // per level that is there, level 0 first
  absl::Time created;
  // Finer levels than those, which the chunk had and has lost (Trim, eviction); 0 for a Put.
  uint32_t levels_lost = 0;
  // When the chunk may be removed unasked, to the nanosecond; InfiniteFuture: never.
  absl::Time expires = absl::InfiniteFuture();
  // Whose chunk it is, at most 64 bytes; empty: nobody's. TenantView sets it, and the ids by which
  // that tenant's clients know the chunk and its parent: none without a tenant.
  std::string tenant;
  absl::optional<ChunkId> outer_id;
  absl::optional<ChunkId> outer_parent;
};

// What is stored of one tenant. Exact.
struct TenantUse {
  uint64_t chunks = 0;
  uint64_t payload_bytes = 0;  // segments of all its chunks
  // As StoreStats has them of all, of its chunks.
  uint64_t pins = 0;
  uint64_t pinned_bytes = 0;
};

// Somebody's word that a chunk is to stay for a while.
struct ChunkPin {
  ChunkId id = {};
  std::string owner;  // 1 to 64 bytes
  absl::Time until;   // to the nanosecond
};

// Immutable bytes that stay valid for as long as this object lives, wherever it is moved. Releasing
// it may happen on any thread, but the store must outlive it.
class PinnedBytes {
 public:
  PinnedBytes() = default;
  // `release` runs once, on destruction.
  PinnedBytes(absl::string_view bytes, std::function<void()> release)
      : bytes_(bytes), release_(std::move(release)) {}
  ~PinnedBytes() { Release(); }
  PinnedBytes(PinnedBytes&& other) noexcept { *this = std::move(other); }
  PinnedBytes& operator=(PinnedBytes&& other) noexcept {
    if (this != &other) {
      Release();
      bytes_ = std::exchange(other.bytes_, {});
      release_ = std::exchange(other.release_, nullptr);
    }
    return *this;
  }

  absl::string_view bytes() const { return bytes_; }

 private:
  void Release() {
    if (release_) std::exchange(release_, nullptr)();
  }

  absl::string_view bytes_;
  std::function<void()> release_;
};

// Keeps chunks from being evicted or trimmed until it is destroyed, on any thread; the store must
// outlive it.
class ChunkHold {
 public:
  ChunkHold() = default;
  // `release` runs once, on destruction.
  explicit ChunkHold(std::function<void()> release) : release_(std::move(release)) {}
  ~ChunkHold() { Release(); }
  ChunkHold(ChunkHold&& other) noexcept { *this = std::move(other); }
  ChunkHold& operator=(ChunkHold&& other) noexcept {
    if (this != &other) {
      Release();
      release_ = std::exchange(other.release_, nullptr);
    }
    return *this;
  }

 private:
  void Release() {
    if (release_) std::exchange(release_, nullptr)();
  }

  std::function<void()> release_;
};

// A page of ScrubInfos.
struct ScrubbedInfos {
  std::vector<std::pair<ChunkId, ChunkInfo>> chunks;  // in id order
  std::vector<DamagedInfo> damaged;
  absl::optional<ChunkId> next;  // `after` of the next page; none: that was all
};

// Whether a store takes writes, as far as it knows from those that it has tried.
enum class WriteState {
  kTaken,
  kRefused,         // its medium has failed; it tries again by itself
  kRefusedForGood,  // only a restart of the process helps
};

struct StoreStats {
  uint64_t chunks = 0;         // may be an estimate where counting would scan
  uint64_t payload_bytes = 0;  // segments of all chunks; may be an estimate
  uint64_t tenant_chunks = 0;  // chunks that have a tenant
  uint64_t disk_bytes = 0;     // 0 for stores without a disk
  // What the store may hold, of the kind that it bounds: disk_bytes of a store with a disk, else
  // payload. 0: no bound.
  uint64_t capacity_bytes = 0;
  // Since the store was opened: segments that eviction removed, their bytes, and chunks of which
  // nothing is left.
  uint64_t evicted_segments = 0;
  uint64_t evicted_bytes = 0;
  uint64_t evicted_chunks = 0;
  // Since the store was opened: chunks that Expire removed.
  uint64_t expired_chunks = 0;
  // Pairs of a chunk and an owner, and bytes of the chunks that are pinned, each once.
  uint64_t pins = 0;
  uint64_t pinned_bytes = 0;
  WriteState writes = WriteState::kTaken;
  // Files in which background work has met damage and which it leaves as they are since.
  uint64_t damaged_files = 0;
};

// Thread-safe. Every method but TryReadSegment blocks; none calls back. Errors common to all:
// UNAVAILABLE or RESOURCE_EXHAUSTED from the medium (disk full), DATA_LOSS for stored bytes that
// fail a checksum; each names the operation and the chunk.
class ChunkStore {
 public:
  virtual ~ChunkStore() = default;

  // Stores a chunk: atomic, and durable on return. A chunk that exists is left as it is and false
  // is returned (chunks are immutable), except that levels that it has lost are restored: true, if
  // what is left of it are the same bytes as here. Either way a chunk that exists is renewed, see
  // Renew. segments.size() must equal info.segment_bytes.size(), with those sizes
  // (INVALID_ARGUMENT).
  //
  // A store with a capacity evicts to make room, which may take a while; RESOURCE_EXHAUSTED if
  // there is none to be had.
  virtual absl::StatusOr<bool> Put(const ChunkId& id, const ChunkInfo& info,
                                   absl::Span<const absl::string_view> segments) = 0;

  // Infos of chunks, absent where not stored; result[i] belongs to ids[i].
  virtual absl::StatusOr<std::vector<absl::optional<ChunkInfo>>> GetInfos(
      absl::Span<const ChunkId> ids) = 0;

  // Number of leading ids that are all stored. Cheaper than GetInfos for long chains.
  virtual absl::StatusOr<size_t> LongestPrefix(absl::Span<const ChunkId> ids) = 0;

  // One level's segment, pinned without a copy where the medium allows it. NOT_FOUND if the chunk
  // or level is absent.
  virtual absl::StatusOr<PinnedBytes> ReadSegment(const ChunkId& id, uint32_t level) = 0;

  // As ReadSegment if that need not wait for the medium (a hit in a cache), else nothing. The one
  // method that may be called where blocking is not allowed. By default always nothing.
  virtual absl::optional<absl::StatusOr<PinnedBytes>> TryReadSegment(const ChunkId& id,
                                                                     uint32_t level) {
    return absl::nullopt;
  }

  // Deletes chunks but those that somebody has pinned (Pin), which stay; returns how many existed
  // and are gone. Pinned bytes stay valid. To delete whatever the pins, Unpin first.
  virtual absl::StatusOr<size_t> Delete(absl::Span<const ChunkId> ids) = 0;

  // Takes the finest levels of chunks so that at most `keep_levels`, at least 1, are left
  // (INVALID_ARGUMENT); held and pinned chunks stay as they are. Atomic per chunk. Returns how many
  // lost any.
  virtual absl::StatusOr<size_t> Trim(absl::Span<const ChunkId> ids, uint32_t keep_levels) = 0;

  // Until the hold is destroyed these chunks are neither evicted, trimmed nor expired; Delete is
  // not affected. Take it before asking for their infos. May wait for a removal that is under way,
  // which is short. Ids need not be stored and may repeat.
  virtual ChunkHold Hold(absl::Span<const ChunkId> ids) = 0;

  // These chunks were of use: keeps them longer where there is a capacity. Never waits for a disk.
  // What was noted last may be lost in a crash.
  virtual void Touch(absl::Span<const ChunkId> ids) = 0;

  // Up to `limit` chunks with ids greater than `after` (none: from the beginning), in id order.
  virtual absl::StatusOr<std::vector<std::pair<ChunkId, ChunkInfo>>> List(
      const absl::optional<ChunkId>& after, size_t limit) = 0;

  // Lifetimes. A driver may lack them, with what is said here as the default.

  // Removes up to `limit` chunks whose `expires` has come, `now` or before, but for those that are
  // held or pinned: they go when they are not any more. Until it is called such chunks are stored
  // like any other. Takes note of pins that have ended. Reads only what is due, and never waits for
  // a disk that is behind with writes (UNAVAILABLE). What it removed may be back after a power cut.
  // Returns how many chunks are gone. Default: none.
  virtual absl::StatusOr<size_t> Expire(absl::Time now, size_t limit) { return 0; }

  // Durably makes the chunks' `expires` the later of their own and this one, and takes DeleteSoon
  // back. INVALID_ARGUMENT for a time that Put would refuse. Of a failed call some may be renewed.
  // Returns how many are stored. Default: renews none.
  virtual absl::StatusOr<size_t> Renew(absl::Span<const ChunkId> ids, absl::Time expires) {
    return CountStored(ids);
  }

  // Durably pins chunks until a time, which replaces that of an earlier pin of the same owner: they
  // are neither evicted, trimmed, expired nor deleted while any owner's pin lasts. Returns how many
  // are stored, and now pinned. INVALID_ARGUMENT for an owner or a time out of range;
  // RESOURCE_EXHAUSTED if the chunks that are pinned would be more than the store's bound (half of
  // what a bounded store holds): of a failed call some chunks may be pinned. Default:
  // UNIMPLEMENTED.
  virtual absl::StatusOr<size_t> Pin(absl::Span<const ChunkId> ids, absl::string_view owner,
                                     absl::Time until) {
    return absl::UnimplementedError(absl::StrCat("a store of kind ", driver(), " keeps no pins"));
  }
  // Durably ends the pins of one owner, or of all where none is given. Returns how many there were.
  virtual absl::StatusOr<size_t> Unpin(absl::Span<const ChunkId> ids,
                                       const absl::optional<std::string>& owner) {
    return 0;
  }
  // Pins, also such as have ended and were not taken note of yet, in the order of ids and owners:
  // up to `limit` that come after `after`, or all of some chunks.
  virtual absl::StatusOr<std::vector<ChunkPin>> ListPins(const absl::optional<ChunkPin>& after,
                                                         size_t limit) {
    return std::vector<ChunkPin>();
  }
  virtual absl::StatusOr<std::vector<ChunkPin>> PinsOf(absl::Span<const ChunkId> ids) {
    return std::vector<ChunkPin>();
  }

  // For chunks whose deletion was promised while somebody still reads them: durably notes that they
  // are to go. They stay as they are until Delete, or until the store is opened the next time,
  // which completes the deletion. Put or Renew of such a chunk takes the promise back. Pinned
  // chunks are passed over. Returns how many are stored and noted. Default: counts.
  virtual absl::StatusOr<size_t> DeleteSoon(absl::Span<const ChunkId> ids) {
    return CountStored(ids);
  }

  // Up to `limit` stored chunks that name this one, which need not be stored, as their parent, in
  // the order of ids. Default: UNIMPLEMENTED.
  virtual absl::StatusOr<std::vector<ChunkId>> Children(const ChunkId& id, size_t limit) {
    return absl::UnimplementedError(
        absl::StrCat("a store of kind ", driver(), " does not know the children of a chunk"));
  }

  // As List, of the chunks of one tenant ("": nobody's). By default it looks at all chunks.
  virtual absl::StatusOr<std::vector<std::pair<ChunkId, ChunkInfo>>> ListTenant(
      absl::string_view tenant, const absl::optional<ChunkId>& after, size_t limit);
  // As ListPins, of the chunks of one tenant, at a cost that does not depend on others' pins.
  // Default: UNIMPLEMENTED.
  virtual absl::StatusOr<std::vector<ChunkPin>> ListTenantPins(
      absl::string_view tenant, const absl::optional<ChunkPin>& after, size_t limit) {
    return absl::UnimplementedError("this store does not list pins by tenant");
  }
  // What a tenant has, nothing if it is not known; changes with the chunks, atomically, and
  // survives with them. A store on this machine never waits for a medium; one in a cluster asks it
  // now and then, once a second at most. UNIMPLEMENTED by default: such a store takes no quotas.
  virtual absl::StatusOr<TenantUse> GetTenantUse(absl::string_view tenant) {
    return absl::UnimplementedError("this store does not count what its tenants have");
  }

  // Profiles: opaque bytes by id, same durability. Put returns false if it existed.
  virtual absl::StatusOr<bool> PutProfile(const StoredProfileId& id, absl::string_view bytes) = 0;
  // NOT_FOUND if absent.
  virtual absl::StatusOr<std::string> GetProfile(const StoredProfileId& id) = 0;
  virtual absl::StatusOr<std::vector<StoredProfileId>> ListProfiles() = 0;

  // Looking for damage. By default what the methods above can tell; a store with a disk reads it
  // rather than its caches, and leaves these as they are.
  //
  // As List, but goes on behind damage, as far as the chunks there can be found.
  virtual absl::StatusOr<ScrubbedInfos> ScrubInfos(const absl::optional<ChunkId>& after,
                                                   size_t limit) {
    ScrubbedInfos page;
    auto listed = List(after, limit);
    if (!listed.ok()) return listed.status();
    if (listed->size() == limit && limit > 0) page.next = listed->back().first;
    page.chunks = *std::move(listed);
    return page;
  }
  // As ReadSegment.
  virtual absl::StatusOr<PinnedBytes> ScrubSegment(const ChunkId& id, uint32_t level) {
    return ReadSegment(id, level);
  }
  // Checks the store's own files from `after` on (empty: from the first), until `bytes` are read.
  // Damage to bytes that no chunk uses any more shows here only.
  virtual absl::StatusOr<ScrubbedFiles> ScrubFiles(const std::string& after, uint64_t bytes) {
    return ScrubbedFiles();
  }
  // As Delete, which passes over pinned chunks, also of chunks whose info cannot be read;
  // `payload_bytes` of Stats may then be off by what nobody can read any more. A Put stores them
  // again.
  virtual absl::StatusOr<size_t> Discard(absl::Span<const ChunkId> ids) { return Delete(ids); }

  // Makes a copy of the store as it is now in the directory `dir`, which must not exist while its
  // parent does (FAILED_PRECONDITION). Everything acknowledged before the call is in it, and every
  // chunk whole. UNIMPLEMENTED where there is nothing on a disk.
  virtual absl::Status Backup(const std::string& dir) {
    return absl::UnimplementedError("this store has nothing on a disk to back up");
  }

  virtual absl::StatusOr<StoreStats> Stats() = 0;
  // "rocksdb", "memory".
  virtual absl::string_view driver() const = 0;

 private:
  absl::StatusOr<size_t> CountStored(absl::Span<const ChunkId> ids) {
    const absl::StatusOr<std::vector<absl::optional<ChunkInfo>>> infos = GetInfos(ids);
    if (!infos.ok()) return infos.status();
    size_t stored = 0;
    for (const absl::optional<ChunkInfo>& info : *infos) stored += info.has_value() ? 1 : 0;
    return stored;
  }
};

inline absl::StatusOr<std::vector<std::pair<ChunkId, ChunkInfo>>> ChunkStore::ListTenant(
    absl::string_view tenant, const absl::optional<ChunkId>& after, size_t limit) {
  constexpr size_t kPage = 1000;
  std::vector<std::pair<ChunkId, ChunkInfo>> listed;
  absl::optional<ChunkId> from = after;
  while (listed.size() < limit) {
    auto page = List(from, kPage);
    if (!page.ok()) return page.status();
    if (page->empty()) break;
    from = page->back().first;
    for (auto& chunk : *page) {
      if (listed.size() == limit) break;
      if (chunk.second.tenant == tenant) listed.push_back(std::move(chunk));
    }
  }
  return listed;
}

}  // namespace kvstream

#endif  // KVSTREAM_STORAGE_CHUNK_STORE_H_

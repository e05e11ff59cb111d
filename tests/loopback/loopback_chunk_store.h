// A ChunkStore whose every answer has passed the protocol: what a client can tell of a server's
// store.
#ifndef KVSTREAM_TESTS_LOOPBACK_LOOPBACK_CHUNK_STORE_H_
#define KVSTREAM_TESTS_LOOPBACK_LOOPBACK_CHUNK_STORE_H_

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "kvstream/v1/kvstream.grpc.pb.h"
#include "server/service/kvstream_server.h"
#include "storage/chunk_store.h"

namespace kvstream {

// Which profile stands for which on the server, where a profile fixes the number of levels and has
// an id that follows from its bytes. Survives the server. Thread-safe.
class LoopbackProfiles {
 public:
  // Of the chunks that callers put with profile `id` and so many levels.
  static std::string BytesOf(const StoredProfileId& id, size_t levels);
  void Note(const StoredProfileId& on_server, const StoredProfileId& of_caller);
  // `on_server` where it is not known.
  StoredProfileId OfCaller(const StoredProfileId& on_server) const;
  // The profile on the server under which a chunk was put first or, if `stored`, last.
  void NoteChunk(const ChunkId& id, const StoredProfileId& on_server, bool stored);
  absl::optional<StoredProfileId> OfChunk(const ChunkId& id) const;

 private:
  mutable absl::Mutex mutex_;
  std::map<StoredProfileId, StoredProfileId> callers_ ABSL_GUARDED_BY(mutex_);
  std::map<ChunkId, StoredProfileId> chunks_ ABSL_GUARDED_BY(mutex_);
};

// A KvStreamServer of its own on loopback, with `store` behind it, and one client's connection to
// it. Through the protocol: Put, GetInfos (List of named chunks), LongestPrefix (Lookup), List,
// ReadSegment (a Load of one chunk at one level), Delete, Renew, Pin, Unpin, ListPins, PinsOf,
// Children (List, by parent), profiles, Stats.
//
// What no client asks for is done to the server's store itself, as the server does it: Trim
// (eviction), Expire (the sweep), Hold (a load's), Touch, DeleteSoon (a deletion during a load).
// What comes of it is seen through the protocol again.
//
// The server takes no bytes that are no segments: each is sealed in the form of fake_profile.h on
// the way in, and opened on the way out; sizes are those of the payload. Its clock stands still at
// `clock`, so that times to live become exact times. Thread-safe.
class LoopbackChunkStore final : public ChunkStore {
 public:
  static absl::StatusOr<std::unique_ptr<ChunkStore>> Create(
      std::unique_ptr<ChunkStore> store, absl::Time clock,
      std::shared_ptr<LoopbackProfiles> profiles);
  ~LoopbackChunkStore() override;

  absl::StatusOr<bool> Put(const ChunkId& id, const ChunkInfo& info,
                           absl::Span<const absl::string_view> segments) override;
  absl::StatusOr<std::vector<absl::optional<ChunkInfo>>> GetInfos(
      absl::Span<const ChunkId> ids) override;
  absl::StatusOr<size_t> LongestPrefix(absl::Span<const ChunkId> ids) override;
  absl::StatusOr<PinnedBytes> ReadSegment(const ChunkId& id, uint32_t level) override;
  // The server refuses a call as a whole where a chunk is pinned: then it is asked chunk by chunk.
  absl::StatusOr<size_t> Delete(absl::Span<const ChunkId> ids) override;
  absl::StatusOr<size_t> Trim(absl::Span<const ChunkId> ids, uint32_t keep_levels) override;
  ChunkHold Hold(absl::Span<const ChunkId> ids) override;
  void Touch(absl::Span<const ChunkId> ids) override;
  absl::StatusOr<std::vector<std::pair<ChunkId, ChunkInfo>>> List(
      const absl::optional<ChunkId>& after, size_t limit) override;
  absl::StatusOr<size_t> Expire(absl::Time now, size_t limit) override;
  absl::StatusOr<size_t> Renew(absl::Span<const ChunkId> ids, absl::Time expires) override;
  absl::StatusOr<size_t> Pin(absl::Span<const ChunkId> ids, absl::string_view owner,
                             absl::Time until) override;
  absl::StatusOr<size_t> Unpin(absl::Span<const ChunkId> ids,
                               const absl::optional<std::string>& owner) override;
  absl::StatusOr<std::vector<ChunkPin>> ListPins(const absl::optional<ChunkPin>& after,
                                                 size_t limit) override;
  absl::StatusOr<std::vector<ChunkPin>> PinsOf(absl::Span<const ChunkId> ids) override;
  absl::StatusOr<size_t> DeleteSoon(absl::Span<const ChunkId> ids) override;
  absl::StatusOr<std::vector<ChunkId>> Children(const ChunkId& id, size_t limit) override;
  absl::StatusOr<bool> PutProfile(const StoredProfileId& id, absl::string_view bytes) override;
  absl::StatusOr<std::string> GetProfile(const StoredProfileId& id) override;
  absl::StatusOr<std::vector<StoredProfileId>> ListProfiles() override;
  absl::StatusOr<StoreStats> Stats() override;
  absl::string_view driver() const override { return driver_; }

 private:
  using Listed = std::vector<std::pair<ChunkId, ChunkInfo>>;

  LoopbackChunkStore(std::unique_ptr<KvStreamServer> server, absl::Time clock,
                     std::shared_ptr<LoopbackProfiles> profiles);

  ChunkStore& server_store() { return *server_->environment().store; }
  // A time to live on the server's clock; endless is 0, which the server takes for that.
  google::protobuf::Duration Ttl(absl::Time until) const;
  absl::StatusOr<bool> Upload(const ChunkId& id, const ChunkInfo& info,
                              const StoredProfileId& profile,
                              absl::Span<const absl::string_view> segments);
  absl::StatusOr<size_t> DeleteTogether(absl::Span<const ChunkId> ids);
  // What a message says of a chunk, with the sizes of payloads. INTERNAL if it cannot be.
  absl::StatusOr<std::pair<ChunkId, ChunkInfo>> Told(const v1::StoredChunk& chunk) const;
  // All pages.
  absl::StatusOr<Listed> ListAll(v1::ListRequest request);
  absl::StatusOr<std::vector<ChunkPin>> ListAllPins(uint32_t page_size);

  const std::unique_ptr<KvStreamServer> server_;
  const absl::Time clock_;
  const std::shared_ptr<LoopbackProfiles> profiles_;
  std::unique_ptr<v1::KVStream::Stub> stub_;
  std::string driver_;
};

}  // namespace kvstream

#endif  // KVSTREAM_TESTS_LOOPBACK_LOOPBACK_CHUNK_STORE_H_

// The C++ client library: stores KV caches on a kvstreamd and loads them back into memory that the
// caller owns. docs/client.md is its guide.
#ifndef KVSTREAM_CLIENT_CLIENT_H_
#define KVSTREAM_CLIENT_CLIENT_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "absl/types/optional.h"
#include "absl/types/span.h"
#include "client/chunk_id.h"
#include "client/connection_security.h"
#include "client/device_target.h"
#include "client/load_observer.h"
#include "codec/kv_view.h"
#include "codec/profile.h"
#include "storage/chunk_store.h"

namespace kvstream {

struct PutResult {
  uint64_t chunks_stored = 0;
  uint64_t chunks_existing = 0;
  uint64_t bytes_stored = 0;
};

struct LookupResult {
  uint32_t matched_chunks = 0;
  uint64_t matched_tokens = 0;
  // Bytes that a client receives when all matched chunks come at level n (segments 0..n).
  std::vector<uint64_t> level_bytes;
};

enum class ClientPolicy { kDefault, kDeadline, kFastest, kCacheGen, kFixed, kRecompute };
enum class ClientRecomputeAbility { kNone, kSuffix, kAny, kFront };

// Recomputes tokens [first_token, first_token + count) of the context into the caller's KV memory.
// All tokens before first_token are in place and are not written to while it runs. It must write no
// other tokens. Runs on a thread of the client's; calls never overlap, come in context order unless
// a chunk arrives damaged, and always cover whole chunks. An error fails the load with that error.
// It is never interrupted: a load that fails or is cancelled returns once the call has.
using RecomputeFn = std::function<absl::Status(int64_t first_token, int64_t count)>;

// Tells a recompute callback that the bytes of its chunk have come before it was done. One per
// load.
class RecomputeWatch {
 public:
  // Thread-safe. When true the callback may return CANCELLED at once; the bytes are then decoded,
  // and what it has written of its range does not matter.
  bool superseded() const { return superseded_.load(std::memory_order_acquire); }
  // The client's.
  void set_superseded(bool superseded) { superseded_.store(superseded, std::memory_order_release); }

 private:
  std::atomic<bool> superseded_{false};
};

struct LoadOptions {
  ClientPolicy policy = ClientPolicy::kDefault;  // kDeadline with a deadline, else kFastest
  absl::optional<absl::Duration> deadline;       // wanted load delay, counted from the call
  int level = 0;                                 // kFixed; less for a chunk that has lost it
  int floor_level = 0;
  // kFastest with a floor_level above 0: at most this part of the tokens may come one level below
  // it, 0 to 1. docs/client.md says which share keeps a mean damage.
  double floor_below_share = 0;
  ClientRecomputeAbility ability = ClientRecomputeAbility::kNone;
  RecomputeFn recompute;  // required unless ability is kNone
  // Optional: a callback that looks at it can stop, so the server orders recompute sooner and lets
  // bytes and recompute race for the last chunk. Of this load only.
  std::shared_ptr<RecomputeWatch> recompute_watch;
  double prefill_seconds_per_token = 0;       // 0: unknown
  double prefill_seconds_per_token_pair = 0;  // see proto LoadStart
  double bandwidth_hint_bytes_per_second = 0;
  // Optional. Asked on the calling thread, at least every 50 ms and at most once an event; true
  // ends the load with CANCELLED.
  std::function<bool()> cancelled;
  // Optional. Told on the calling thread when more chunks have become ready (a chunk that is being
  // refined counts again when it is).
  std::function<void(uint32_t chunks_ready, uint32_t chunks)> progress;
  // Optional, borrowed. Also asks the server for its own view, which adds at most 32 KiB to its
  // last message.
  LoadObserver* observer = nullptr;
};

struct LoadedChunk {
  absl::optional<int> level;  // none: recomputed
  int64_t tokens = 0;
  uint64_t bytes = 0;  // received for it
};

struct LoadResult {
  absl::Duration load_delay;                       // from the call until every chunk was ready
  uint64_t bytes = 0;                              // of segments received
  double goodput_bytes_per_second = 0;             // bytes over load_delay
  double bandwidth_estimate_bytes_per_second = 0;  // the server's
  bool deadline_missed = false;
  std::vector<LoadedChunk> chunks;
  uint64_t recomputed_tokens = 0;
  absl::Duration recompute_time;
};

struct ListedChunk {
  ChunkId id;
  ChunkInfo info;
};

struct ListPage {
  std::vector<ListedChunk> chunks;
  std::string next_page_token;  // empty: this was the last page
};

// As proto StoreWrites.
enum class StoreWrites { kUnknown, kTaken, kRefused, kRefusedUntilRestart };
// "unknown", "taken", "refused", "refused_until_restart".
absl::string_view StoreWritesName(StoreWrites writes);

// As proto StatsResponse.
struct ServerStats {
  std::string version;
  absl::Duration uptime;
  std::string store;
  uint64_t chunks = 0;
  uint64_t payload_bytes = 0;
  uint64_t disk_bytes = 0;
  uint64_t capacity_bytes = 0;  // 0: no bound
  // Since the daemon's start, for lack of room.
  uint64_t evicted_segments = 0;
  uint64_t evicted_bytes = 0;
  uint64_t evicted_chunks = 0;  // of which nothing is left
  uint64_t expired_chunks = 0;
  uint64_t pins = 0;
  uint64_t pinned_bytes = 0;
  std::vector<ProfileId> profile_ids;
  uint32_t loads_in_flight = 0;
  uint64_t loads_finished = 0;
  uint64_t loads_failed = 0;
  uint64_t load_bytes_sent = 0;
  std::vector<uint64_t> chunks_by_level;
  uint64_t chunks_recomputed = 0;
  // Of the caller, where the server has tenants.
  std::string tenant;
  uint64_t tenant_bytes = 0;        // segments and profiles
  uint64_t tenant_quota_bytes = 0;  // 0: no quota
  struct Tenant {
    std::string name;
    uint64_t chunks = 0;
    uint64_t bytes = 0;
    uint64_t quota_bytes = 0;
  };
  std::vector<Tenant> tenants;  // for an admin: all of them
  // Unknown and 0 from a daemon that does not say it, and for a tenant that is no admin.
  StoreWrites store_writes = StoreWrites::kUnknown;
  uint64_t damaged_files = 0;  // of the store, not mended yet
};

struct PinPage {
  std::vector<ChunkPin> pins;
  std::string next_page_token;  // empty: this was the last page
};

// What DeleteMatching is to delete: all that was put with a model's label
// (ListedChunk::info.model), or, if `context_end` is given, a context from this last chunk back to
// where another context shares it.
struct DeleteWhat {
  absl::optional<ChunkId> context_end;
  std::string model;
};

// One step of it.
struct DeleteStep {
  uint64_t chunks = 0;  // gone, or that would go
  uint64_t payload_bytes = 0;
  uint64_t chunks_pinned = 0;   // that stay therefore
  std::string next_page_token;  // empty: this was the last step
};

// As proto ScrubDamage.
struct ScrubDamage {
  absl::optional<ChunkId> chunk_id;  // none: `file` is damaged
  std::string file;
  absl::optional<uint32_t> level;  // none: what is known of the chunk, or its profile
  std::string what;
  bool deleted = false;
};

// As proto ScrubResponse.
struct ScrubPage {
  uint64_t chunks = 0;
  uint64_t files = 0;
  uint64_t bytes = 0;
  std::vector<ScrubDamage> damage;
  std::string next_page_token;  // empty: this was the last page
};

// As proto BackupResponse.
struct BackupResult {
  std::string path;  // on the server's machine
  uint64_t chunks = 0;
  uint64_t payload_bytes = 0;
};

struct PingResult {
  absl::Duration round_trip;  // of the call, on a connection that is up
  bool serving = false;       // false: up, but starting or draining
};

// A connection to one daemon, or to several that serve the same chunks (client/failover_client.h
// says how calls move on from one that is UNAVAILABLE). Thread-safe; calls block and may overlap.
// Borrowed arguments (KV, tokens, callbacks) are used until the call returns and not after. Errors
// of the calls are the server's (see proto), or UNAVAILABLE and DEADLINE_EXCEEDED of the transport;
// messages name the server and, where there is something to do about it, say what.
class Client {
 public:
  struct Options {
    std::string server;  // host:port, or several separated by commas
    // Of the unary calls as a whole; of streams, how long the server may leave the client without
    // any answer or room to send.
    absl::Duration rpc_timeout = absl::Seconds(60);
    int decode_threads = 1;  // per Load, 1 to 64
    int encode_threads = 1;  // per Put, 1 to 64
    ConnectionSecurity security;
  };
  // Does not connect: the first call does. INVALID_ARGUMENT names the option, NOT_FOUND a file that
  // cannot be read.
  static absl::StatusOr<std::unique_ptr<Client>> Create(Options options);
  // No call may be running.
  virtual ~Client() = default;

  virtual absl::Status PutProfile(const Profile& profile) = 0;
  // DATA_LOSS if what the server sent is not the profile with that id.
  virtual absl::StatusOr<std::shared_ptr<const Profile>> GetProfile(const ProfileId& id) = 0;

  // Encodes and stores the KV of a whole context (kv.tokens == tokens.size()); stores the profile
  // first if the server lacks it. Chunks of the stored prefix are neither encoded nor sent; behind
  // a gap the server is asked once per 32 chunks, so that a few it has may be sent again, which is
  // harmless. Sent in steps of at most 32 chunks or about 64 MiB, each durable when the next
  // begins: on an error, chunks acknowledged before it stay stored, and calling again goes on from
  // there. `progress` (optional) is told, on the calling thread, the tokens stored so far; it
  // grows, and ends at tokens.size(). Memory: about encode_threads + 2 encoded chunks.
  //
  // `ttl`: how long the chunks are kept at least, 0 to 100 years; 0: as the server's default says.
  // Chunks that are stored already are renewed before anything is sent, and never shortened.
  virtual absl::StatusOr<PutResult> Put(std::shared_ptr<const Profile> profile,
                                        const ContextIdentity& identity,
                                        absl::Span<const int32_t> tokens, const KvView& kv,
                                        const std::function<void(int64_t)>& progress = nullptr,
                                        absl::Duration ttl = absl::ZeroDuration()) = 0;

  // As Put, from device memory: encoded there, in batches, behind what source.stream holds when the
  // call is made; the KV must not change until it returns. The source must be the whole model's,
  // and a chunk must begin where a block of a paged cache does. Errors: as Put, and before anything
  // is sent as LoadToDevice, FAILED_PRECONDITION also for a profile without calibration.
  virtual absl::StatusOr<PutResult> PutFromDevice(
      std::shared_ptr<const Profile> profile, const ContextIdentity& identity,
      absl::Span<const int32_t> tokens, const DeviceTarget& source,
      const std::function<void(int64_t)>& progress = nullptr,
      absl::Duration ttl = absl::ZeroDuration()) = 0;

  // The longest stored prefix. A profile that the server lacks is no match, not an error.
  virtual absl::StatusOr<LookupResult> Lookup(const Profile& profile,
                                              const ContextIdentity& identity,
                                              absl::Span<const int32_t> tokens) = 0;

  // Loads the KV of `tokens` into `out` (out.tokens == tokens.size()), decoding while receiving.
  // All of the tokens' chunks must be stored (NOT_FOUND names the first that is not): pass the
  // prefix that Lookup matched. Blocks until every chunk is in place. DATA_LOSS with the chunk's id
  // if a chunk is damaged and cannot be recomputed; never wrong KV. INTERNAL if the server breaks
  // the protocol, naming how. On an error the contents of `out` are unspecified, and nothing of
  // this call writes to it any more. Memory: the encoded bytes of the chunks (2 to 16 times less
  // than `out`), each freed when the chunk stands at its finest level.
  virtual absl::StatusOr<LoadResult> Load(std::shared_ptr<const Profile> profile,
                                          const ContextIdentity& identity,
                                          absl::Span<const int32_t> tokens,
                                          const LoadOptions& options, const MutableKvView& out) = 0;

  // As Load, into device memory: received bytes go to the device compressed, are decoded there, and
  // no KV passes through host memory. Network, copy and decoding overlap.
  //
  // Stream order: all writes are put on target.stream behind what it holds when the call is made.
  // When the call returns they are done, also on an error, so that any stream may read the KV.
  // Nothing else may write to the chunks' part of the target meanwhile.
  //
  // The recompute callback writes into device memory itself, for this shard, by whatever means:
  // when it returns, its work must be done or stand on target.stream. It runs once the chunks
  // before its range are complete on the device, so that any stream may read them; with work left
  // on target.stream, a load that is OK promises the recomputed KV to that stream only.
  //
  // Errors: as Load, and before anything is sent: FAILED_PRECONDITION (built without CUDA, or a
  // device that is too old) or UNAVAILABLE (no driver, no such device), one sentence each;
  // RESOURCE_EXHAUSTED if the decoder's tables and workspace do not fit the device;
  // INVALID_ARGUMENT for a target that does not fit, or a block table with an entry outside of its
  // cache (found while decoding). INTERNAL also if CUDA fails during the load. Host memory as for
  // Load; device memory as codec/cuda/device_decoder.h says, kept for the next load of the profile.
  virtual absl::StatusOr<LoadResult> LoadToDevice(std::shared_ptr<const Profile> profile,
                                                  const ContextIdentity& identity,
                                                  absl::Span<const int32_t> tokens,
                                                  const LoadOptions& options,
                                                  const DeviceTarget& target) = 0;

  // Sets up a decoder and measures it on one chunk of noise, so that the first load under a
  // deadline can already tell the server how long the last chunk's decode takes. Costs one encode
  // and one decode; worth it once per profile, at start.
  virtual absl::Status WarmUp(std::shared_ptr<const Profile> profile) = 0;

  // Sets up a device's decoder, so that the first LoadToDevice need not. Nothing is measured: the
  // first load's server counts with no time for decoding. Errors: as LoadToDevice before anything
  // is sent.
  virtual absl::Status WarmUpDevice(std::shared_ptr<const Profile> profile, int device_ordinal,
                                    const DeviceShard& shard) = 0;

  // Returns how many of them existed. FAILED_PRECONDITION, and nothing of a batch of 65,536 is
  // deleted, if any of it is pinned, unless `force` ends all their pins.
  virtual absl::StatusOr<uint64_t> Delete(absl::Span<const ChunkId> ids, bool force = false) = 0;
  // One step, which may be repeated; page_token: empty, or next_page_token of the step before.
  // dry_run: deletes nothing. force: ends the pins of what is to go.
  virtual absl::StatusOr<DeleteStep> DeleteMatching(const DeleteWhat& what,
                                                    const std::string& page_token, bool dry_run,
                                                    bool force) = 0;

  // Keeps stored chunks for at least `ttl` from now on, as Put; returns how many are stored.
  virtual absl::StatusOr<uint64_t> Renew(absl::Span<const ChunkId> ids, absl::Duration ttl) = 0;
  // Keeps stored chunks from being evicted, expired or deleted for `ttl`, which replaces the time
  // of an earlier pin of the owner (1 to 64 bytes); returns how many are stored and now pinned.
  // RESOURCE_EXHAUSTED if the server's bound on pinned chunks is reached; some may be pinned then.
  virtual absl::StatusOr<uint64_t> Pin(absl::Span<const ChunkId> ids, const std::string& owner,
                                       absl::Duration ttl) = 0;
  // Ends the pins of an owner, or of all where none is given; returns how many there were.
  virtual absl::StatusOr<uint64_t> Unpin(absl::Span<const ChunkId> ids,
                                         const absl::optional<std::string>& owner) = 0;
  // Pins in the order of the chunks' ids, of one owner or (empty) of all. Else as List.
  virtual absl::StatusOr<PinPage> ListPins(uint32_t page_size, const std::string& page_token,
                                           const std::string& owner) = 0;

  // Stored chunks in the order of their ids. page_size 0: the server's default. page_token: empty,
  // or next_page_token of the page before. model: only chunks with this label; empty: all.
  virtual absl::StatusOr<ListPage> List(uint32_t page_size, const std::string& page_token,
                                        const absl::optional<ProfileId>& profile,
                                        const std::string& model = "") = 0;
  virtual absl::StatusOr<ServerStats> Stats() = 0;
  // Checks the next max_bytes (0: the server's default) of what is stored. page_token: empty, or
  // next_page_token of the page before.
  virtual absl::StatusOr<ScrubPage> Scrub(const std::string& page_token, uint64_t max_bytes,
                                          bool delete_damaged) = 0;
  // Has the server copy its store to `name` within its --backup-dir. May take minutes.
  virtual absl::StatusOr<BackupResult> Backup(const std::string& name) = 0;
  // Asks the standard gRPC health service. UNAVAILABLE if nobody answers.
  virtual absl::StatusOr<PingResult> Ping() = 0;
};

}  // namespace kvstream

#endif  // KVSTREAM_CLIENT_CLIENT_H_

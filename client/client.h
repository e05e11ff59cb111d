// The C++ client library: stores KV caches on a kvstreamd and loads them back into memory that the
// caller owns.
#ifndef KVSTREAM_CLIENT_CLIENT_H_
#define KVSTREAM_CLIENT_CLIENT_H_

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
#include "codec/kv_view.h"
#include "codec/profile.h"
#include "storage/chunk_store.h"

namespace kvstream {

// What made the KV, beside the tokens. Everything here goes into the chunk ids, so that KV of
// different weights or tenants never meets.
struct ContextIdentity {
  std::string model;        // name@revision, for people too
  std::string adapter;      // LoRA; empty: none
  std::string tenant_salt;  // empty: none
};

// Ids of the chunks of a context: id[i] = SHA-256 over (tenant salt, model, adapter, profile id,
// id[i-1], the tokens of chunk i, its extra keys), each length-prefixed (docs/format.md). The last
// chunk may be shorter than chunk_tokens. extra_keys: empty, or one string per chunk (such as the
// hash of an image behind placeholder tokens).
std::vector<ChunkId> ContextChunkIds(const ContextIdentity& identity, const ProfileId& profile_id,
                                     int chunk_tokens, absl::Span<const int32_t> tokens,
                                     absl::Span<const std::string> extra_keys = {});

struct PutResult {
  uint64_t chunks_stored = 0;
  uint64_t chunks_existing = 0;
  uint64_t bytes_stored = 0;
};

struct LookupResult {
  uint32_t matched_chunks = 0;
  uint64_t matched_tokens = 0;
  std::vector<uint64_t> level_bytes;  // bytes of all matched chunks at each level
};

enum class ClientPolicy { kDefault, kDeadline, kFastest, kCacheGen, kFixed, kRecompute };
enum class ClientRecomputeAbility { kNone, kSuffix, kAny, kFront };

// Recomputes tokens [first_token, first_token + count) of the context into the caller's KV memory.
// All tokens before first_token are in place when it is called. Runs on a thread of the client's;
// calls never overlap. An error fails the load.
using RecomputeFn = std::function<absl::Status(int64_t first_token, int64_t count)>;

struct LoadOptions {
  ClientPolicy policy = ClientPolicy::kDefault;  // kDeadline with a deadline, else kFastest
  absl::optional<absl::Duration> deadline;       // wanted load delay
  int level = 0;                                 // kFixed
  int floor_level = 0;
  ClientRecomputeAbility ability = ClientRecomputeAbility::kNone;
  RecomputeFn recompute;                      // required unless ability is kNone
  double prefill_seconds_per_token = 0;       // 0: unknown
  double prefill_seconds_per_token_pair = 0;  // see proto LoadStart
  double bandwidth_hint_bytes_per_second = 0;
};

struct LoadedChunk {
  absl::optional<int> level;  // none: recomputed
  int64_t tokens = 0;
  uint64_t bytes = 0;  // received for it
};

struct LoadResult {
  absl::Duration load_delay;  // from the call until every chunk was ready
  uint64_t bytes = 0;         // of segments received
  double goodput_bytes_per_second = 0;
  double bandwidth_estimate_bytes_per_second = 0;  // the server's
  bool deadline_missed = false;
  std::vector<LoadedChunk> chunks;
};

// A connection to one daemon. Thread-safe. Errors of the calls are the server's (see proto), or
// UNAVAILABLE and DEADLINE_EXCEEDED of the transport; messages say what to do.
class Client {
 public:
  struct Options {
    std::string server;                              // host:port
    absl::Duration rpc_timeout = absl::Seconds(60);  // of the unary calls
    int decode_threads = 1;
  };
  static absl::StatusOr<std::unique_ptr<Client>> Create(Options options);
  virtual ~Client() = default;

  virtual absl::Status PutProfile(const Profile& profile) = 0;
  virtual absl::StatusOr<std::shared_ptr<const Profile>> GetProfile(const ProfileId& id) = 0;

  // Encodes and stores the KV of a whole context (kv.tokens == tokens.size()); stores the profile
  // first if the server lacks it. Chunks that the server already has are neither encoded nor sent.
  // On an error, chunks acknowledged before it stay stored. `progress` (optional) is told tokens
  // done so far.
  virtual absl::StatusOr<PutResult> Put(std::shared_ptr<const Profile> profile,
                                        const ContextIdentity& identity,
                                        absl::Span<const int32_t> tokens, const KvView& kv,
                                        const std::function<void(int64_t)>& progress = nullptr) = 0;

  virtual absl::StatusOr<LookupResult> Lookup(const Profile& profile,
                                              const ContextIdentity& identity,
                                              absl::Span<const int32_t> tokens) = 0;

  // Loads the KV of `tokens` into `out` (out.tokens == tokens.size()), decoding while receiving.
  // All of the tokens' chunks must be stored (NOT_FOUND names the first that is not): pass the
  // prefix that Lookup matched. Blocks until every chunk is in place. DATA_LOSS with the chunk's id
  // if a chunk is damaged and cannot be recomputed; never wrong KV.
  virtual absl::StatusOr<LoadResult> Load(std::shared_ptr<const Profile> profile,
                                          const ContextIdentity& identity,
                                          absl::Span<const int32_t> tokens,
                                          const LoadOptions& options, const MutableKvView& out) = 0;

  virtual absl::StatusOr<uint64_t> Delete(absl::Span<const ChunkId> ids) = 0;
};

}  // namespace kvstream

#endif  // KVSTREAM_CLIENT_CLIENT_H_

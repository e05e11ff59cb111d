#include "client/failover_client.h"

#include <algorithm>
#include <atomic>
#include <tuple>
#include <utility>

#include "client/monotonic_clock.h"

namespace kvstream {
namespace {

class FailoverClient final : public Client {
 public:
  explicit FailoverClient(std::vector<std::unique_ptr<RangeClient>> clients)
      : clients_(std::move(clients)) {}

  absl::Status PutProfile(const Profile& profile) override {
    return OnAny([&](Client& client) { return client.PutProfile(profile); });
  }
  absl::StatusOr<std::shared_ptr<const Profile>> GetProfile(const ProfileId& id) override {
    return OnAny([&](Client& client) { return client.GetProfile(id); });
  }
  absl::StatusOr<PutResult> Put(std::shared_ptr<const Profile> profile,
                                const ContextIdentity& identity, absl::Span<const int32_t> tokens,
                                const KvView& kv, const std::function<void(int64_t)>& progress,
                                absl::Duration ttl) override {
    return PutOnAny(*profile, tokens, progress,
                    [&](RangeClient& client, const std::function<void(int64_t)>& told,
                        PutResult* acknowledged) {
                      return client.PutCounted(profile, identity, tokens, kv, told, ttl,
                                               acknowledged);
                    });
  }
  absl::StatusOr<PutResult> PutFromDevice(std::shared_ptr<const Profile> profile,
                                          const ContextIdentity& identity,
                                          absl::Span<const int32_t> tokens,
                                          const DeviceTarget& source,
                                          const std::function<void(int64_t)>& progress,
                                          absl::Duration ttl) override {
    return PutOnAny(*profile, tokens, progress,
                    [&](RangeClient& client, const std::function<void(int64_t)>& told,
                        PutResult* acknowledged) {
                      return client.PutFromDeviceCounted(profile, identity, tokens, source, told,
                                                         ttl, acknowledged);
                    });
  }
  absl::StatusOr<LookupResult> Lookup(const Profile& profile, const ContextIdentity& identity,
                                      absl::Span<const int32_t> tokens) override {
    return OnAny([&](Client& client) { return client.Lookup(profile, identity, tokens); });
  }
  absl::StatusOr<LoadResult> Load(std::shared_ptr<const Profile> profile,
                                  const ContextIdentity& identity, absl::Span<const int32_t> tokens,
                                  const LoadOptions& options, const MutableKvView& out) override {
    return LoadOnAny(*profile, tokens, options,
                     [&](RangeClient& client, const LoadOptions& of_part, LoadRange* range) {
                       return client.LoadChunks(profile, identity, tokens, of_part, out, range);
                     });
  }
  absl::StatusOr<LoadResult> LoadToDevice(std::shared_ptr<const Profile> profile,
                                          const ContextIdentity& identity,
                                          absl::Span<const int32_t> tokens,
                                          const LoadOptions& options,
                                          const DeviceTarget& target) override {
    return LoadOnAny(*profile, tokens, options,
                     [&](RangeClient& client, const LoadOptions& of_part, LoadRange* range) {
                       return client.LoadChunksToDevice(profile, identity, tokens, of_part, target,
                                                        range);
                     });
  }
  absl::Status WarmUp(std::shared_ptr<const Profile> profile) override {
    // Decoders are the client's own.
    absl::Status status;
    for (const auto& client : clients_) status.Update(client->WarmUp(profile));
    return status;
  }
  absl::Status WarmUpDevice(std::shared_ptr<const Profile> profile, int device_ordinal,
                            const DeviceShard& shard) override {
    absl::Status status;
    for (const auto& client : clients_) {
      status.Update(client->WarmUpDevice(profile, device_ordinal, shard));
    }
    return status;
  }
  absl::StatusOr<uint64_t> Delete(absl::Span<const ChunkId> ids, bool force) override {
    return OnAny([&](Client& client) { return client.Delete(ids, force); });
  }
  // A step may go to another daemon than the one before: its token says where to go on.
  absl::StatusOr<DeleteStep> DeleteMatching(const DeleteWhat& what, const std::string& page_token,
                                            bool dry_run, bool force) override {
    return OnAny(
        [&](Client& client) { return client.DeleteMatching(what, page_token, dry_run, force); });
  }
  absl::StatusOr<uint64_t> Renew(absl::Span<const ChunkId> ids, absl::Duration ttl) override {
    return OnAny([&](Client& client) { return client.Renew(ids, ttl); });
  }
  absl::StatusOr<uint64_t> Pin(absl::Span<const ChunkId> ids, const std::string& owner,
                               absl::Duration ttl) override {
    return OnAny([&](Client& client) { return client.Pin(ids, owner, ttl); });
  }
  absl::StatusOr<uint64_t> Unpin(absl::Span<const ChunkId> ids,
                                 const absl::optional<std::string>& owner) override {
    return OnAny([&](Client& client) { return client.Unpin(ids, owner); });
  }
  absl::StatusOr<PinPage> ListPins(uint32_t page_size, const std::string& page_token,
                                   const std::string& owner) override {
    return OnAny([&](Client& client) { return client.ListPins(page_size, page_token, owner); });
  }
  absl::StatusOr<ListPage> List(uint32_t page_size, const std::string& page_token,
                                const absl::optional<ProfileId>& profile,
                                const std::string& model) override {
    return OnAny(
        [&](Client& client) { return client.List(page_size, page_token, profile, model); });
  }
  absl::StatusOr<ServerStats> Stats() override {
    return OnAny([](Client& client) { return client.Stats(); });
  }
  absl::StatusOr<ScrubPage> Scrub(const std::string& page_token, uint64_t max_bytes,
                                  bool delete_damaged) override {
    return OnAny(
        [&](Client& client) { return client.Scrub(page_token, max_bytes, delete_damaged); });
  }
  absl::StatusOr<BackupResult> Backup(const std::string& name) override {
    return OnAny([&](Client& client) { return client.Backup(name); });
  }
  absl::StatusOr<PingResult> Ping() override {
    return OnAny([](Client& client) { return client.Ping(); });
  }

 private:
  static const absl::Status& StatusOf(const absl::Status& status) { return status; }
  template <typename T>
  static const absl::Status& StatusOf(const absl::StatusOr<T>& result) {
    return result.status();
  }

  // The call's result on the first daemon that is not UNAVAILABLE, else on the last.
  template <typename Call>
  auto OnAny(const Call& call) -> decltype(call(std::declval<Client&>())) {
    const size_t first = current_.load();
    for (size_t tried = 1;; ++tried) {
      const size_t index = (first + tried - 1) % clients_.size();
      auto result = call(*clients_[index]);
      if (!absl::IsUnavailable(StatusOf(result))) current_.store(index);
      if (!absl::IsUnavailable(StatusOf(result)) || tried == clients_.size()) return result;
    }
  }

  template <typename PutCall>
  absl::StatusOr<PutResult> PutOnAny(const Profile& profile, absl::Span<const int32_t> tokens,
                                     const std::function<void(int64_t)>& progress,
                                     const PutCall& put) {
    PutResult acknowledged;
    int64_t told = 0;
    std::function<void(int64_t)> forwards;
    if (progress) {
      forwards = [&](int64_t stored) {
        told = std::max(told, stored);
        progress(told);
      };
    }
    absl::StatusOr<PutResult> result = OnAny([&](Client& client) {
      return put(static_cast<RangeClient&>(client), forwards, &acknowledged);
    });
    if (!result.ok()) return result;
    const auto chunk_tokens = static_cast<uint64_t>(profile.chunk_tokens());
    const uint64_t chunks = (tokens.size() + chunk_tokens - 1) / chunk_tokens;
    // A chunk that one daemon stored and another took again (their stores are two) counts once.
    result->chunks_stored = std::min(acknowledged.chunks_stored, chunks);
    result->chunks_existing = chunks - result->chunks_stored;
    result->bytes_stored = acknowledged.bytes_stored;
    return result;
  }

  // One part of a load on one daemon.
  using LoadPart = std::function<absl::StatusOr<LoadResult>(
      RangeClient& client, const LoadOptions& options, LoadRange* range)>;
  absl::StatusOr<LoadResult> LoadOnAny(const Profile& profile, absl::Span<const int32_t> tokens,
                                       const LoadOptions& options, const LoadPart& load);

  const std::vector<std::unique_ptr<RangeClient>> clients_;
  std::atomic<size_t> current_{0};
};

// A load in its parts.
struct MovedLoad {
  std::vector<absl::optional<LoadedChunk>> chunks;
  uint64_t bytes = 0;
  uint64_t recomputed_tokens = 0;

  void Keep(const LoadRange& range) {
    for (size_t i = 0; i < range.kept.size(); ++i) {
      if (!range.kept[i].has_value()) continue;
      chunks[range.first_chunk + i] = range.kept[i];
      bytes += range.kept[i]->bytes;
      if (!range.kept[i]->level.has_value()) {
        recomputed_tokens += static_cast<uint64_t>(range.kept[i]->tokens);
      }
    }
  }
  // What is still to be loaded, in one piece; empty: nothing.
  std::pair<uint32_t, uint32_t> Rest(bool to_the_end) const {
    const auto first = std::find(chunks.begin(), chunks.end(), absl::nullopt);
    const auto last = std::find(chunks.rbegin(), chunks.rend(), absl::nullopt);
    const auto begin = static_cast<uint32_t>(first - chunks.begin());
    const auto size = static_cast<uint32_t>(chunks.size());
    if (begin == size) return {size, size};
    return {begin, to_the_end ? size : static_cast<uint32_t>(chunks.rend() - last)};
  }
};

absl::StatusOr<LoadResult> FailoverClient::LoadOnAny(const Profile& profile,
                                                     absl::Span<const int32_t> tokens,
                                                     const LoadOptions& options,
                                                     const LoadPart& load) {
  LoadRange range;
  range.began = MonotonicNow();
  const size_t chunk_tokens = static_cast<size_t>(profile.chunk_tokens());
  MovedLoad moved;
  moved.chunks.resize((tokens.size() + chunk_tokens - 1) / chunk_tokens);
  const auto chunks = static_cast<uint32_t>(moved.chunks.size());
  range.end_chunk = chunks;
  LoadOptions part_options = options;
  if (options.progress) {
    part_options.progress = [&](uint32_t ready, uint32_t of) {
      options.progress(chunks - of + ready, chunks);
    };
  }
  const absl::StatusOr<LoadResult> last = OnAny([&](Client& client) -> absl::StatusOr<LoadResult> {
    if (range.first_chunk == range.end_chunk) {
      // The daemon went when all was in place.
      LoadResult result;
      result.load_delay = MonotonicNow() - range.began;
      return result;
    }
    range.kept.clear();
    absl::StatusOr<LoadResult> result =
        load(static_cast<RangeClient&>(client), part_options, &range);
    if (result.ok()) {
      for (size_t i = 0; i < result->chunks.size(); ++i) {
        moved.chunks[range.first_chunk + i] = result->chunks[i];
      }
    } else if (absl::IsUnavailable(result.status())) {
      moved.Keep(range);
      // Who can recompute a suffix only can recompute nothing in the middle.
      std::tie(range.first_chunk, range.end_chunk) =
          moved.Rest(options.ability == ClientRecomputeAbility::kSuffix);
    }
    return result;
  });
  const bool complete =
      std::find(moved.chunks.begin(), moved.chunks.end(), absl::nullopt) == moved.chunks.end();
  if (!last.ok() && !(complete && absl::IsUnavailable(last.status()))) return last.status();

  LoadResult result;
  if (last.ok()) result = *last;
  result.load_delay = last.ok() ? result.load_delay : MonotonicNow() - range.began;
  result.chunks.clear();
  for (const absl::optional<LoadedChunk>& chunk : moved.chunks) result.chunks.push_back(*chunk);
  result.bytes += moved.bytes;
  result.recomputed_tokens += moved.recomputed_tokens;
  result.goodput_bytes_per_second =
      static_cast<double>(result.bytes) / std::max(1e-9, absl::ToDoubleSeconds(result.load_delay));
  result.deadline_missed =
      result.deadline_missed ||
      (options.deadline.value_or(absl::ZeroDuration()) > absl::ZeroDuration() &&
       result.load_delay > *options.deadline);
  return result;
}

}  // namespace

std::unique_ptr<Client> MakeFailoverClient(std::vector<std::unique_ptr<RangeClient>> clients) {
  return std::make_unique<FailoverClient>(std::move(clients));
}

}  // namespace kvstream

#include "client/failover_client.h"

#include <algorithm>
#include <atomic>
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

absl::StatusOr<LoadResult> FailoverClient::LoadOnAny(const Profile& profile,
                                                     absl::Span<const int32_t> tokens,
                                                     const LoadOptions& options,
                                                     const LoadPart& load) {
  const size_t chunk_tokens = static_cast<size_t>(profile.chunk_tokens());
  const auto chunks = static_cast<uint32_t>((tokens.size() + chunk_tokens - 1) / chunk_tokens);
  const absl::Duration deadline = options.deadline.value_or(absl::ZeroDuration());
  const bool refines =
      options.policy == ClientPolicy::kDefault || options.policy == ClientPolicy::kDeadline;
  MovedLoad moved(chunks, options.ability, MonotonicNow(),
                  refines ? deadline : absl::ZeroDuration());
  LoadOptions part_options = options;
  if (options.progress) {
    part_options.progress = [&](uint32_t ready, uint32_t of) {
      options.progress(chunks - of + ready, chunks);
    };
  }
  absl::StatusOr<LoadResult> result = OnAny([&](Client& client) -> absl::StatusOr<LoadResult> {
    for (bool hold = true;; hold = false) {
      LoadRange range = moved.Next(hold, MonotonicNow());
      if (chunks > 0 && range.first_chunk == range.end_chunk) {
        return moved.AsItIs(MonotonicNow());
      }
      const absl::StatusOr<LoadResult> part =
          load(static_cast<RangeClient&>(client), part_options, &range);
      if (part.ok()) return moved.OnLoaded(range, *part);
      const bool again = range.held_refused;
      if (again || absl::IsUnavailable(part.status()))
        moved.OnLeft(std::move(range), MonotonicNow());
      if (!again) return part;
    }
  });
  if (absl::IsUnavailable(result.status()) && moved.complete()) {
    result = moved.AsItIs(MonotonicNow());
  }
  if (!result.ok()) return result;
  result->deadline_missed =
      result->deadline_missed || (deadline > absl::ZeroDuration() && result->load_delay > deadline);
  return result;
}

}  // namespace

std::unique_ptr<Client> MakeFailoverClient(std::vector<std::unique_ptr<RangeClient>> clients) {
  return std::make_unique<FailoverClient>(std::move(clients));
}

}  // namespace kvstream

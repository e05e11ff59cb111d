#include "client/client.h"

#include <google/protobuf/util/time_util.h>
#include <grpcpp/client_context.h>
#include <grpcpp/support/channel_arguments.h>

#include <algorithm>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "client/channel.h"
#include "client/client_factory.h"
#include "client/cuda_chunk_decoder.h"
#include "client/decode_pipeline.h"
#include "client/decoder_pool.h"
#include "client/device_decode_executor.h"
#include "client/device_decoder_pool.h"
#include "client/device_encode.h"
#include "client/encode_pipeline.h"
#include "client/failover_client.h"
#include "client/farewell.h"
#include "client/health_rpc.h"
#include "client/load_rpc.h"
#include "client/monotonic_clock.h"
#include "client/profile_rpc.h"
#include "client/proto_time.h"
#include "client/put_rpc.h"
#include "client/rpc_status.h"
#include "client/warm_up.h"
#include "kvstream/v1/kvstream.grpc.pb.h"

namespace kvstream {
namespace {

constexpr int kThreadsMax = 64;
constexpr size_t kIdsMax = 65536;  // of a Lookup, Delete or Load, as in the proto
// After the stored prefix, Put asks again for so many chunks at once.
constexpr size_t kAskedTogether = 32;
constexpr absl::Duration kTtlMax = absl::Hours(24 * 36525);
constexpr int kMessageBytesMax = 16 << 20;  // a page of List is the largest
// Between attempts to connect; and how long one may take, which is long for a far or busy daemon
// and short where another one could be asked instead of a machine that is gone.
constexpr int kReconnectMsMin = 100;
constexpr int kReconnectMsMax = 2000;
constexpr int kConnectMsMax = 3000;

std::string AsBytes(const std::array<uint8_t, 32>& id) { return std::string(id.begin(), id.end()); }

absl::Status CopyId(const std::string& bytes, absl::string_view what, std::array<uint8_t, 32>* id) {
  if (bytes.size() != id->size()) {
    return absl::InternalError(
        absl::StrCat("the server sent a ", what, " of ", bytes.size(), " bytes"));
  }
  std::copy(bytes.begin(), bytes.end(), id->begin());
  return absl::OkStatus();
}

absl::Status CheckTtl(absl::Duration ttl) {
  if (ttl >= absl::ZeroDuration() && ttl <= kTtlMax) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("a ttl of ", absl::FormatDuration(ttl), " is not from 0 to 100 years"));
}

class ClientImpl final : public RangeClient {
 public:
  ClientImpl(Options options, std::shared_ptr<grpc::Channel> channel,
             DeviceChunkDecoderFactory device_decoders, DeviceEncoderFactory device_encoders)
      : options_(std::move(options)),
        channel_(std::move(channel)),
        stub_(v1::KVStream::NewStub(channel_)),
        decoders_(static_cast<size_t>(options_.decode_threads)),
        device_decoders_(std::move(device_decoders)),
        device_encoders_(std::move(device_encoders)) {}

  absl::Status PutProfile(const Profile& profile) override {
    return RunPutProfile(stub_.get(), options_.server, options_.rpc_timeout, profile);
  }

  absl::StatusOr<std::shared_ptr<const Profile>> GetProfile(const ProfileId& id) override {
    return RunGetProfile(stub_.get(), options_.server, options_.rpc_timeout, id);
  }

  absl::StatusOr<PutResult> Put(std::shared_ptr<const Profile> profile,
                                const ContextIdentity& identity, absl::Span<const int32_t> tokens,
                                const KvView& kv, const std::function<void(int64_t)>& progress,
                                absl::Duration ttl) override {
    return PutCounted(std::move(profile), identity, tokens, kv, progress, ttl, nullptr);
  }
  absl::StatusOr<PutResult> PutCounted(std::shared_ptr<const Profile> profile,
                                       const ContextIdentity& identity,
                                       absl::Span<const int32_t> tokens, const KvView& kv,
                                       const std::function<void(int64_t)>& progress,
                                       absl::Duration ttl, PutResult* acknowledged) override;

  absl::StatusOr<PutResult> PutFromDevice(std::shared_ptr<const Profile> profile,
                                          const ContextIdentity& identity,
                                          absl::Span<const int32_t> tokens,
                                          const DeviceTarget& source,
                                          const std::function<void(int64_t)>& progress,
                                          absl::Duration ttl) override {
    return PutFromDeviceCounted(std::move(profile), identity, tokens, source, progress, ttl,
                                nullptr);
  }
  absl::StatusOr<PutResult> PutFromDeviceCounted(std::shared_ptr<const Profile> profile,
                                                 const ContextIdentity& identity,
                                                 absl::Span<const int32_t> tokens,
                                                 const DeviceTarget& source,
                                                 const std::function<void(int64_t)>& progress,
                                                 absl::Duration ttl,
                                                 PutResult* acknowledged) override;

  absl::StatusOr<LookupResult> Lookup(const Profile& profile, const ContextIdentity& identity,
                                      absl::Span<const int32_t> tokens) override;

  absl::StatusOr<LoadResult> Load(std::shared_ptr<const Profile> profile,
                                  const ContextIdentity& identity, absl::Span<const int32_t> tokens,
                                  const LoadOptions& options, const MutableKvView& out) override {
    LoadRange whole = WholeContext();
    return LoadRangeOf(std::move(profile), identity, tokens, options, out, whole, false);
  }
  absl::StatusOr<LoadResult> LoadChunks(std::shared_ptr<const Profile> profile,
                                        const ContextIdentity& identity,
                                        absl::Span<const int32_t> tokens,
                                        const LoadOptions& options, const MutableKvView& out,
                                        LoadRange* range) override {
    return LoadRangeOf(std::move(profile), identity, tokens, options, out, *range, true);
  }

  absl::StatusOr<LoadResult> LoadToDevice(std::shared_ptr<const Profile> profile,
                                          const ContextIdentity& identity,
                                          absl::Span<const int32_t> tokens,
                                          const LoadOptions& options,
                                          const DeviceTarget& target) override {
    LoadRange whole = WholeContext();
    return LoadRangeToDevice(std::move(profile), identity, tokens, options, target, whole, false);
  }
  absl::StatusOr<LoadResult> LoadChunksToDevice(std::shared_ptr<const Profile> profile,
                                                const ContextIdentity& identity,
                                                absl::Span<const int32_t> tokens,
                                                const LoadOptions& options,
                                                const DeviceTarget& target,
                                                LoadRange* range) override {
    return LoadRangeToDevice(std::move(profile), identity, tokens, options, target, *range, true);
  }

  absl::Status WarmUp(std::shared_ptr<const Profile> profile) override {
    return WarmUpDecoder(&decoders_, profile);
  }
  absl::Status WarmUpDevice(std::shared_ptr<const Profile> profile, int device_ordinal,
                            const DeviceShard& shard) override;
  absl::StatusOr<uint64_t> Delete(absl::Span<const ChunkId> ids, bool force) override;
  absl::StatusOr<DeleteStep> DeleteMatching(const DeleteWhat& what, const std::string& page_token,
                                            bool dry_run, bool force) override;
  absl::StatusOr<uint64_t> Renew(absl::Span<const ChunkId> ids, absl::Duration ttl) override;
  absl::StatusOr<uint64_t> Pin(absl::Span<const ChunkId> ids, const std::string& owner,
                               absl::Duration ttl) override;
  absl::StatusOr<uint64_t> Unpin(absl::Span<const ChunkId> ids,
                                 const absl::optional<std::string>& owner) override;
  absl::StatusOr<PinPage> ListPins(uint32_t page_size, const std::string& page_token,
                                   const std::string& owner) override;
  absl::StatusOr<ListPage> List(uint32_t page_size, const std::string& page_token,
                                const absl::optional<ProfileId>& profile,
                                const std::string& model) override;
  absl::StatusOr<ServerStats> Stats() override;
  absl::StatusOr<ScrubPage> Scrub(const std::string& page_token, uint64_t max_bytes,
                                  bool delete_damaged) override;
  absl::StatusOr<BackupResult> Backup(const std::string& name) override;
  absl::StatusOr<PingResult> Ping() override {
    return RunPing(channel_, options_.server, options_.rpc_timeout);
  }

 private:
  template <typename Request, typename Response>
  absl::Status Call(absl::string_view name,
                    grpc::Status (v1::KVStream::Stub::*method)(grpc::ClientContext*, const Request&,
                                                               Response*),
                    const Request& request, Response* response) {
    grpc::ClientContext context;
    context.set_deadline(absl::ToChronoTime(absl::Now() + options_.rpc_timeout));
    return FromRpcStatus((stub_.get()->*method)(&context, request, response), options_.server,
                         name);
  }

  // The stored prefix of one request's worth of ids. context_tokens 0: not to be counted as a
  // lookup of a context.
  absl::Status LookupIds(const ProfileId& profile, absl::Span<const ChunkId> ids,
                         uint64_t context_tokens, v1::LookupResponse* response);
  // Puts of both kinds, after their arguments were checked.
  absl::StatusOr<PutResult> PutEncoded(std::shared_ptr<const Profile> profile,
                                       const ContextIdentity& identity,
                                       absl::Span<const int32_t> tokens, EncodeWork work,
                                       const std::function<void(int64_t)>& progress,
                                       absl::Duration ttl, PutResult* acknowledged);
  // Of the chunks that Put need not send.
  absl::Status RenewStored(const std::vector<ChunkId>& ids, const std::vector<uint32_t>& missing,
                           absl::Duration ttl);
  absl::StatusOr<LoadResult> LoadRangeOf(std::shared_ptr<const Profile> profile,
                                         const ContextIdentity& identity,
                                         absl::Span<const int32_t> tokens,
                                         const LoadOptions& options, const MutableKvView& out,
                                         LoadRange& range, bool may_be_moved);
  absl::StatusOr<LoadResult> LoadRangeToDevice(std::shared_ptr<const Profile> profile,
                                               const ContextIdentity& identity,
                                               absl::Span<const int32_t> tokens,
                                               const LoadOptions& options,
                                               const DeviceTarget& target, LoadRange& range,
                                               bool may_be_moved);
  static LoadRange WholeContext() {
    LoadRange whole;
    whole.began = MonotonicNow();
    whole.end_chunk = std::numeric_limits<uint32_t>::max();
    return whole;
  }
  // What loads of both kinds have in common; the decoding is still to be said.
  LoadCall MakeLoadCall(std::shared_ptr<const Profile> profile, const ContextIdentity& identity,
                        absl::Span<const int32_t> tokens, const LoadOptions& options,
                        LoadRange& range, bool may_be_moved) const;
  // Stores the profile unless the server has it. Returns the indices of the chunks to send.
  absl::StatusOr<std::vector<uint32_t>> PreparePut(const Profile& profile,
                                                   const std::vector<ChunkId>& ids);

  const Options options_;
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<v1::KVStream::Stub> stub_;
  mutable Farewells farewells_;  // thread-safe
  DecoderPool decoders_;
  DeviceDecoderPool device_decoders_;
  const DeviceEncoderFactory device_encoders_;
};

absl::Status ClientImpl::LookupIds(const ProfileId& profile, absl::Span<const ChunkId> ids,
                                   uint64_t context_tokens, v1::LookupResponse* response) {
  v1::LookupRequest request;
  request.set_profile_id(AsBytes(profile));
  for (const ChunkId& id : ids) request.add_chunk_ids(AsBytes(id));
  request.set_context_tokens(context_tokens);
  if (absl::Status status = Call("lookup", &v1::KVStream::Stub::Lookup, request, response);
      !status.ok()) {
    return status;
  }
  if (response->matched_chunks() > ids.size()) {
    return absl::InternalError(absl::StrCat(options_.server,
                                            ": lookup: ", response->matched_chunks(),
                                            " matches of ", ids.size(), " chunks"));
  }
  return absl::OkStatus();
}

absl::StatusOr<LookupResult> ClientImpl::Lookup(const Profile& profile,
                                                const ContextIdentity& identity,
                                                absl::Span<const int32_t> tokens) {
  const std::vector<ChunkId> ids =
      ContextChunkIds(identity, profile.id(), profile.chunk_tokens(), tokens);
  LookupResult result;
  result.level_bytes.assign(static_cast<size_t>(profile.levels()), 0);
  for (size_t first = 0; first < ids.size(); first += kIdsMax) {
    const absl::Span<const ChunkId> part = absl::MakeConstSpan(ids).subspan(first, kIdsMax);
    const size_t first_token = first * static_cast<size_t>(profile.chunk_tokens());
    const size_t part_tokens = std::min(part.size() * static_cast<size_t>(profile.chunk_tokens()),
                                        tokens.size() - first_token);
    v1::LookupResponse response;
    absl::Status status = LookupIds(profile.id(), part, part_tokens, &response);
    if (absl::IsNotFound(status)) break;
    if (!status.ok()) return status;
    if (response.matched_tokens() > part_tokens) {
      return absl::InternalError(absl::StrCat(options_.server,
                                              ": lookup: ", response.matched_tokens(),
                                              " tokens match of ", part_tokens));
    }
    result.matched_chunks += response.matched_chunks();
    result.matched_tokens += response.matched_tokens();
    for (size_t level = 0; level < result.level_bytes.size() &&
                           level < static_cast<size_t>(response.level_bytes_size());
         ++level) {
      result.level_bytes[level] += response.level_bytes(static_cast<int>(level));
    }
    if (response.matched_chunks() < part.size()) break;
  }
  return result;
}

absl::StatusOr<std::vector<uint32_t>> ClientImpl::PreparePut(const Profile& profile,
                                                             const std::vector<ChunkId>& ids) {
  std::vector<uint32_t> missing;
  bool profile_known = false;
  for (size_t next = 0; next < ids.size();) {
    // The first question is for the prefix, later ones for a few chunks behind a gap each.
    const size_t asked = next == 0 ? kIdsMax : kAskedTogether;
    const absl::Span<const ChunkId> part = absl::MakeConstSpan(ids).subspan(next, asked);
    v1::LookupResponse response;
    absl::Status status = LookupIds(profile.id(), part, 0, &response);
    if (absl::IsNotFound(status)) {
      if (absl::Status put = PutProfile(profile); !put.ok()) return put;
      profile_known = true;
    } else if (!status.ok()) {
      return status;
    }
    // Chunks that have lost levels are sent again. Which ones after the first did is not known; the
    // server takes what it lacks.
    const uint32_t degraded = response.first_degraded();
    if (degraded > 0 && degraded <= response.matched_chunks()) {
      for (size_t chunk = next + degraded - 1; chunk < next + response.matched_chunks(); ++chunk) {
        missing.push_back(static_cast<uint32_t>(chunk));
      }
    }
    next += response.matched_chunks();
    if (response.matched_chunks() > 0) profile_known = true;
    if (response.matched_chunks() == part.size()) continue;
    // A gap: what lies just behind it is sent without asking chunk by chunk.
    for (const size_t end = std::min(ids.size(), next + kAskedTogether); next < end; ++next) {
      missing.push_back(static_cast<uint32_t>(next));
    }
  }
  if (!missing.empty() && !profile_known) {
    absl::StatusOr<ServerStats> stats = Stats();
    if (!stats.ok()) return stats.status();
    const auto& known = stats->profile_ids;
    if (std::find(known.begin(), known.end(), profile.id()) == known.end()) {
      if (absl::Status put = PutProfile(profile); !put.ok()) return put;
    }
  }
  return missing;
}

absl::StatusOr<PutResult> ClientImpl::PutCounted(std::shared_ptr<const Profile> profile,
                                                 const ContextIdentity& identity,
                                                 absl::Span<const int32_t> tokens, const KvView& kv,
                                                 const std::function<void(int64_t)>& progress,
                                                 absl::Duration ttl, PutResult* acknowledged) {
  if (kv.tokens != static_cast<int64_t>(tokens.size())) {
    return absl::InvalidArgumentError(
        absl::StrCat("put: KV of ", kv.tokens, " tokens for ", tokens.size(), " tokens"));
  }
  EncodeWork work = EncodeFromHost(profile, kv, options_.encode_threads);
  return PutEncoded(std::move(profile), identity, tokens, std::move(work), progress, ttl,
                    acknowledged);
}

absl::StatusOr<PutResult> ClientImpl::PutFromDeviceCounted(
    std::shared_ptr<const Profile> profile, const ContextIdentity& identity,
    absl::Span<const int32_t> tokens, const DeviceTarget& source,
    const std::function<void(int64_t)>& progress, absl::Duration ttl, PutResult* acknowledged) {
  if (tokens.empty()) return absl::InvalidArgumentError("put: no tokens");
  absl::Status status = ValidateDeviceTarget(profile->geometry(), tokens.size(), source);
  if (status.ok()) status = ValidateDeviceSource(*profile, source);
  if (!status.ok()) return status;
  absl::StatusOr<DeviceEncodeFn> encode = device_encoders_(profile, source.device_ordinal);
  if (!encode.ok()) return encode.status();
  return PutEncoded(std::move(profile), identity, tokens,
                    EncodeFromDevice(*std::move(encode), source), progress, ttl, acknowledged);
}

absl::Status ClientImpl::RenewStored(const std::vector<ChunkId>& ids,
                                     const std::vector<uint32_t>& missing, absl::Duration ttl) {
  std::vector<ChunkId> stored;
  stored.reserve(ids.size() - missing.size());
  auto next = missing.begin();
  for (uint32_t i = 0; i < ids.size(); ++i) {
    if (next != missing.end() && *next == i) {
      ++next;
    } else {
      stored.push_back(ids[i]);
    }
  }
  const absl::Status status = Renew(stored, ttl).status();
  // A server that is older keeps everything for ever.
  return absl::IsUnimplemented(status) && ttl == absl::ZeroDuration() ? absl::OkStatus() : status;
}

absl::StatusOr<PutResult> ClientImpl::PutEncoded(std::shared_ptr<const Profile> profile,
                                                 const ContextIdentity& identity,
                                                 absl::Span<const int32_t> tokens, EncodeWork work,
                                                 const std::function<void(int64_t)>& progress,
                                                 absl::Duration ttl, PutResult* acknowledged) {
  if (absl::Status status = CheckTtl(ttl); !status.ok()) return status;
  PutCall call;
  call.stub = stub_.get();
  call.server = options_.server;
  call.tokens = static_cast<int64_t>(tokens.size());
  call.chunk_ids = ContextChunkIds(identity, profile->id(), profile->chunk_tokens(), tokens);
  absl::StatusOr<std::vector<uint32_t>> missing = PreparePut(*profile, call.chunk_ids);
  if (!missing.ok()) return missing.status();
  if (absl::Status status = RenewStored(call.chunk_ids, *missing, ttl); !status.ok()) {
    return status;
  }
  const uint64_t existing = call.chunk_ids.size() - missing->size();
  if (progress) {
    const int64_t stored_chunks =
        missing->empty() ? static_cast<int64_t>(call.chunk_ids.size()) : int64_t{missing->front()};
    progress(std::min<int64_t>(stored_chunks * profile->chunk_tokens(), call.tokens));
  }
  call.profile = std::move(profile);
  call.model = ModelLabel(identity);
  call.ttl = ttl;
  call.missing = *std::move(missing);
  call.encode = std::move(work);
  call.stall_max = options_.rpc_timeout;
  call.progress = progress;
  call.acknowledged = acknowledged;
  absl::StatusOr<PutResult> result = RunPut(call);
  if (result.ok()) result->chunks_existing += existing;
  return result;
}

LoadCall ClientImpl::MakeLoadCall(std::shared_ptr<const Profile> profile,
                                  const ContextIdentity& identity, absl::Span<const int32_t> tokens,
                                  const LoadOptions& options, LoadRange& range,
                                  bool may_be_moved) const {
  LoadCall call;
  call.channel = channel_;
  call.server = options_.server;
  call.chunk_ids = ContextChunkIds(identity, profile->id(), profile->chunk_tokens(), tokens);
  const size_t end = std::min<size_t>(range.end_chunk, call.chunk_ids.size());
  call.chunk_ids = std::vector<ChunkId>(call.chunk_ids.begin() + range.first_chunk,
                                        call.chunk_ids.begin() + static_cast<ptrdiff_t>(end));
  const int64_t chunk_tokens = profile->chunk_tokens();
  call.tokens =
      std::min(static_cast<int64_t>(tokens.size()), static_cast<int64_t>(end) * chunk_tokens) -
      int64_t{range.first_chunk} * chunk_tokens;
  call.first_chunk = range.first_chunk;
  call.began = range.began;
  if (may_be_moved) {
    call.kept = &range.kept;
    call.held = &range.held;
    call.held_refused = &range.held_refused;
  }
  call.profile = std::move(profile);
  call.options = &options;
  call.farewells = &farewells_;
  call.silence_max = options_.rpc_timeout;
  return call;
}

absl::StatusOr<LoadResult> ClientImpl::LoadRangeOf(std::shared_ptr<const Profile> profile,
                                                   const ContextIdentity& identity,
                                                   absl::Span<const int32_t> tokens,
                                                   const LoadOptions& options,
                                                   const MutableKvView& out, LoadRange& range,
                                                   bool may_be_moved) {
  absl::Status status = ValidateLoad(*profile, tokens.size(), options);
  status.Update(ValidateLoadMemory(*profile, tokens.size(), out));
  if (!status.ok()) return status;
  LoadCall call = MakeLoadCall(profile, identity, tokens, options, range, may_be_moved);
  const int threads =
      std::min<int>(options_.decode_threads, static_cast<int>(call.chunk_ids.size()));
  call.make_executor = [&](std::function<void()> notify) {
    return std::make_unique<DecodePipeline>(&decoders_, profile, out, threads, std::move(notify));
  };
  return RunLoad(call);
}

absl::StatusOr<LoadResult> ClientImpl::LoadRangeToDevice(std::shared_ptr<const Profile> profile,
                                                         const ContextIdentity& identity,
                                                         absl::Span<const int32_t> tokens,
                                                         const LoadOptions& options,
                                                         const DeviceTarget& target,
                                                         LoadRange& range, bool may_be_moved) {
  absl::Status status = ValidateLoad(*profile, tokens.size(), options);
  status.Update(ValidateDeviceTarget(profile->geometry(), tokens.size(), target));
  if (!status.ok()) return status;
  DeviceDecoderKey key{profile->id(), target.device_ordinal, target.shard};
  if (status = ResolveShard(profile->geometry(), &key.shard); !status.ok()) return status;
  // Before the server hears of it: without a device there is nothing to ask it for.
  absl::StatusOr<std::unique_ptr<DeviceChunkDecoder>> decoder =
      device_decoders_.Acquire(profile, key);
  if (!decoder.ok()) return decoder.status();

  LoadCall call = MakeLoadCall(profile, identity, tokens, options, range, may_be_moved);
  call.make_executor = [&](std::function<void()> notify) {
    return std::make_unique<DeviceDecodeExecutor>(&device_decoders_, key, *std::move(decoder),
                                                  profile, target.kv, target.stream,
                                                  std::move(notify));
  };
  return RunLoad(call);
}

absl::Status ClientImpl::WarmUpDevice(std::shared_ptr<const Profile> profile, int device_ordinal,
                                      const DeviceShard& shard) {
  DeviceDecoderKey key{profile->id(), device_ordinal, shard};
  if (absl::Status status = ResolveShard(profile->geometry(), &key.shard); !status.ok()) {
    return status;
  }
  absl::StatusOr<std::unique_ptr<DeviceChunkDecoder>> decoder =
      device_decoders_.Acquire(profile, key);
  if (!decoder.ok()) return decoder.status();
  device_decoders_.Release(key, *std::move(decoder));
  return absl::OkStatus();
}

absl::StatusOr<uint64_t> ClientImpl::Delete(absl::Span<const ChunkId> ids, bool force) {
  uint64_t deleted = 0;
  for (size_t first = 0; first < ids.size(); first += kIdsMax) {
    v1::DeleteRequest request;
    for (const ChunkId& id : ids.subspan(first, kIdsMax)) request.add_chunk_ids(AsBytes(id));
    request.set_force(force);
    v1::DeleteResponse response;
    absl::Status status = Call("delete", &v1::KVStream::Stub::Delete, request, &response);
    if (!status.ok()) return status;
    deleted += response.chunks_deleted();
  }
  return deleted;
}

absl::StatusOr<DeleteStep> ClientImpl::DeleteMatching(const DeleteWhat& what,
                                                      const std::string& page_token, bool dry_run,
                                                      bool force) {
  v1::DeleteMatchingRequest request;
  if (what.context_end.has_value()) {
    request.set_context_end(AsBytes(*what.context_end));
  } else {
    request.set_model(what.model);
  }
  request.set_page_token(page_token);
  request.set_dry_run(dry_run);
  request.set_force(force);
  v1::DeleteMatchingResponse response;
  const absl::Status status =
      Call("delete matching", &v1::KVStream::Stub::DeleteMatching, request, &response);
  if (!status.ok()) return status;
  return DeleteStep{response.chunks(), response.payload_bytes(), response.chunks_pinned(),
                    response.next_page_token()};
}

absl::StatusOr<uint64_t> ClientImpl::Renew(absl::Span<const ChunkId> ids, absl::Duration ttl) {
  if (absl::Status status = CheckTtl(ttl); !status.ok()) return status;
  uint64_t renewed = 0;
  for (size_t first = 0; first < ids.size(); first += kIdsMax) {
    v1::RenewRequest request;
    for (const ChunkId& id : ids.subspan(first, kIdsMax)) request.add_chunk_ids(AsBytes(id));
    ToProto(ttl, request.mutable_ttl());
    v1::RenewResponse response;
    absl::Status status = Call("renew", &v1::KVStream::Stub::Renew, request, &response);
    if (!status.ok()) return status;
    renewed += response.chunks();
  }
  return renewed;
}

absl::StatusOr<uint64_t> ClientImpl::Pin(absl::Span<const ChunkId> ids, const std::string& owner,
                                         absl::Duration ttl) {
  if (absl::Status status = CheckTtl(ttl); !status.ok()) return status;
  uint64_t pinned = 0;
  for (size_t first = 0; first < ids.size(); first += kIdsMax) {
    v1::PinRequest request;
    for (const ChunkId& id : ids.subspan(first, kIdsMax)) request.add_chunk_ids(AsBytes(id));
    request.set_owner(owner);
    ToProto(ttl, request.mutable_ttl());
    v1::PinResponse response;
    absl::Status status = Call("pin", &v1::KVStream::Stub::Pin, request, &response);
    if (!status.ok()) return status;
    pinned += response.chunks();
  }
  return pinned;
}

absl::StatusOr<uint64_t> ClientImpl::Unpin(absl::Span<const ChunkId> ids,
                                           const absl::optional<std::string>& owner) {
  uint64_t ended = 0;
  for (size_t first = 0; first < ids.size(); first += kIdsMax) {
    v1::UnpinRequest request;
    for (const ChunkId& id : ids.subspan(first, kIdsMax)) request.add_chunk_ids(AsBytes(id));
    request.set_owner(owner.value_or(""));
    request.set_all_owners(!owner.has_value());
    v1::UnpinResponse response;
    absl::Status status = Call("unpin", &v1::KVStream::Stub::Unpin, request, &response);
    if (!status.ok()) return status;
    ended += response.pins();
  }
  return ended;
}

absl::StatusOr<PinPage> ClientImpl::ListPins(uint32_t page_size, const std::string& page_token,
                                             const std::string& owner) {
  v1::ListPinsRequest request;
  request.set_page_size(page_size);
  request.set_page_token(page_token);
  request.set_owner(owner);
  v1::ListPinsResponse response;
  absl::Status status = Call("list pins", &v1::KVStream::Stub::ListPins, request, &response);
  if (!status.ok()) return status;
  PinPage page;
  page.next_page_token = response.next_page_token();
  for (const v1::ChunkPin& listed : response.pins()) {
    ChunkPin pin;
    status = CopyId(listed.chunk_id(), "chunk id", &pin.id);
    if (!status.ok()) return status;
    pin.owner = listed.owner();
    pin.until = FromProto(listed.until());
    page.pins.push_back(std::move(pin));
  }
  return page;
}

absl::StatusOr<ListPage> ClientImpl::List(uint32_t page_size, const std::string& page_token,
                                          const absl::optional<ProfileId>& profile,
                                          const std::string& model) {
  v1::ListRequest request;
  request.set_model(model);
  request.set_page_size(page_size);
  request.set_page_token(page_token);
  if (profile.has_value()) request.set_profile_id(AsBytes(*profile));
  v1::ListResponse response;
  if (absl::Status status = Call("list", &v1::KVStream::Stub::List, request, &response);
      !status.ok()) {
    return status;
  }
  ListPage page;
  page.next_page_token = response.next_page_token();
  for (const v1::StoredChunk& stored : response.chunks()) {
    ListedChunk chunk;
    absl::Status status = CopyId(stored.chunk_id(), "chunk id", &chunk.id);
    status.Update(CopyId(stored.profile_id(), "profile id", &chunk.info.profile_id));
    if (!stored.parent_id().empty()) {
      chunk.info.parent.emplace();
      status.Update(CopyId(stored.parent_id(), "parent id", &*chunk.info.parent));
    }
    if (!status.ok()) return status;
    chunk.info.model = stored.model();
    chunk.info.first_token = stored.first_token();
    chunk.info.tokens = stored.tokens();
    chunk.info.segment_bytes.assign(stored.segment_bytes().begin(), stored.segment_bytes().end());
    chunk.info.levels_lost = stored.levels_lost();
    chunk.info.created = FromProto(stored.created());
    if (stored.has_expires()) chunk.info.expires = FromProto(stored.expires());
    page.chunks.push_back(std::move(chunk));
  }
  return page;
}

StoreWrites WritesFromProto(v1::StoreWrites writes) {
  switch (writes) {
    case v1::STORE_WRITES_TAKEN:
      return StoreWrites::kTaken;
    case v1::STORE_WRITES_REFUSED:
      return StoreWrites::kRefused;
    case v1::STORE_WRITES_REFUSED_UNTIL_RESTART:
      return StoreWrites::kRefusedUntilRestart;
    default:
      return StoreWrites::kUnknown;
  }
}

absl::StatusOr<ServerStats> ClientImpl::Stats() {
  v1::StatsResponse response;
  if (absl::Status status =
          Call("stats", &v1::KVStream::Stub::Stats, v1::StatsRequest(), &response);
      !status.ok()) {
    return status;
  }
  ServerStats stats;
  stats.version = response.version();
  stats.uptime = FromProto(response.uptime());
  stats.store = response.store();
  stats.chunks = response.chunks();
  stats.payload_bytes = response.payload_bytes();
  stats.disk_bytes = response.disk_bytes();
  stats.capacity_bytes = response.capacity_bytes();
  stats.evicted_segments = response.evicted_segments();
  stats.evicted_bytes = response.evicted_bytes();
  stats.evicted_chunks = response.evicted_chunks();
  stats.expired_chunks = response.expired_chunks();
  stats.pins = response.pins();
  stats.pinned_bytes = response.pinned_bytes();
  for (const std::string& bytes : response.profile_ids()) {
    stats.profile_ids.emplace_back();
    if (absl::Status status = CopyId(bytes, "profile id", &stats.profile_ids.back());
        !status.ok()) {
      return status;
    }
  }
  stats.loads_in_flight = response.loads_in_flight();
  stats.loads_finished = response.loads_finished();
  stats.loads_failed = response.loads_failed();
  stats.load_bytes_sent = response.load_bytes_sent();
  stats.chunks_by_level.assign(response.chunks_by_level().begin(),
                               response.chunks_by_level().end());
  stats.chunks_recomputed = response.chunks_recomputed();
  stats.tenant = response.tenant();
  stats.tenant_bytes = response.tenant_bytes();
  stats.tenant_quota_bytes = response.tenant_quota_bytes();
  for (const v1::TenantStats& tenant : response.tenants()) {
    stats.tenants.push_back({tenant.name(), tenant.chunks(), tenant.bytes(), tenant.quota_bytes()});
  }
  stats.store_writes = WritesFromProto(response.store_writes());
  stats.damaged_files = response.damaged_files();
  return stats;
}

absl::StatusOr<ScrubPage> ClientImpl::Scrub(const std::string& page_token, uint64_t max_bytes,
                                            bool delete_damaged) {
  v1::ScrubRequest request;
  request.set_page_token(page_token);
  request.set_max_bytes(max_bytes);
  request.set_delete_damaged(delete_damaged);
  v1::ScrubResponse response;
  if (absl::Status status = Call("scrub", &v1::KVStream::Stub::Scrub, request, &response);
      !status.ok()) {
    return status;
  }
  ScrubPage page;
  page.chunks = response.chunks();
  page.files = response.files();
  page.bytes = response.bytes();
  page.next_page_token = response.next_page_token();
  for (const v1::ScrubDamage& found : response.damage()) {
    ScrubDamage damage;
    if (!found.chunk_id().empty()) {
      damage.chunk_id.emplace();
      if (absl::Status status = CopyId(found.chunk_id(), "chunk id", &*damage.chunk_id);
          !status.ok()) {
        return status;
      }
    }
    damage.file = found.file();
    if (found.segment() > 0) damage.level = found.segment() - 1;
    damage.what = found.what();
    damage.deleted = found.deleted();
    page.damage.push_back(std::move(damage));
  }
  return page;
}

absl::StatusOr<BackupResult> ClientImpl::Backup(const std::string& name) {
  v1::BackupRequest request;
  request.set_name(name);
  v1::BackupResponse response;
  if (absl::Status status = Call("backup", &v1::KVStream::Stub::Backup, request, &response);
      !status.ok()) {
    return status;
  }
  return BackupResult{response.path(), response.chunks(), response.payload_bytes()};
}

}  // namespace

absl::string_view StoreWritesName(StoreWrites writes) {
  switch (writes) {
    case StoreWrites::kUnknown:
      break;
    case StoreWrites::kTaken:
      return "taken";
    case StoreWrites::kRefused:
      return "refused";
    case StoreWrites::kRefusedUntilRestart:
      return "refused_until_restart";
  }
  return "unknown";
}

absl::StatusOr<std::unique_ptr<Client>> Client::Create(Options options) {
  return CreateClient(std::move(options), CreateCudaChunkDecoder, CreateCudaEncoder);
}

absl::StatusOr<std::unique_ptr<Client>> CreateClient(
    Client::Options options, const DeviceChunkDecoderFactory& device_decoders,
    const DeviceEncoderFactory& device_encoders) {
  const std::vector<std::string> servers = absl::StrSplit(options.server, ',');
  for (const std::string& server : servers) {
    const size_t colon = server.rfind(':');
    if (colon == std::string::npos || colon == 0 || colon + 1 == server.size()) {
      return absl::InvalidArgumentError(absl::StrCat(
          "server \"", options.server, "\" is not host:port, or several separated by commas"));
    }
  }
  if (options.rpc_timeout <= absl::ZeroDuration()) {
    return absl::InvalidArgumentError("rpc_timeout must be positive");
  }
  for (int threads : {options.decode_threads, options.encode_threads}) {
    if (threads < 1 || threads > kThreadsMax) {
      return absl::InvalidArgumentError(
          absl::StrCat(threads, " threads is not in 1 to ", kThreadsMax));
    }
  }
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(kMessageBytesMax);
  // A store of caches is not reached through a web proxy, whatever the environment says.
  arguments.SetInt("grpc.enable_http_proxy", 0);
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, kReconnectMsMin);
  // gRPC's name for the time that an attempt has.
  arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, kConnectMsMax);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, kReconnectMsMax);
  std::vector<std::unique_ptr<RangeClient>> clients;
  for (const std::string& server : servers) {
    options.server = server;
    absl::StatusOr<std::shared_ptr<grpc::Channel>> channel =
        MakeChannel(server, options.security, arguments);
    if (!channel.ok()) return channel.status();
    clients.push_back(std::make_unique<ClientImpl>(options, *std::move(channel), device_decoders,
                                                   device_encoders));
  }
  if (clients.size() == 1) return std::unique_ptr<Client>(std::move(clients.front()));
  return MakeFailoverClient(std::move(clients));
}

}  // namespace kvstream

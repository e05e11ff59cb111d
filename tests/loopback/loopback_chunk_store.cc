#include "tests/loopback/loopback_chunk_store.h"

#include <grpcpp/create_channel.h>

#include <algorithm>
#include <cstring>
#include <limits>
#include <set>
#include <tuple>

#include "absl/memory/memory.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "client/proto_time.h"
#include "server/load/load_session.h"
#include "server/service/ids.h"
#include "server/service/log.h"
#include "server/service/testing/fake_profile.h"
#include "server/service/testing/test_server.h"

namespace kvstream {
namespace {

constexpr char kProfileName = 'a';
constexpr size_t kPieceBytes = 1 << 20;

absl::Status FromGrpc(const grpc::Status& status) {
  return absl::Status(static_cast<absl::StatusCode>(status.error_code()), status.error_message());
}

// Without their seals.
uint64_t PayloadOf(uint64_t bytes, uint64_t segments) { return bytes - segments * kFakeSealBytes; }

ChunkId IdOf(const std::string& bytes) {
  ChunkId id = {};
  std::memcpy(id.data(), bytes.data(), std::min(bytes.size(), id.size()));
  return id;
}

ServerOptions Options() {
  ServerOptions options = TestServer::Options();
  options.max_chunk_bytes = uint64_t{64} << 20;
  return options;
}

}  // namespace

std::string LoopbackProfiles::BytesOf(const StoredProfileId& id, size_t levels) {
  return absl::StrCat(
      FakeProfileBytes(static_cast<int>(levels), std::numeric_limits<int32_t>::max(), kProfileName),
      "#", IdHex(id));
}

void LoopbackProfiles::Note(const StoredProfileId& on_server, const StoredProfileId& of_caller) {
  absl::MutexLock lock(&mutex_);
  callers_[on_server] = of_caller;
}

StoredProfileId LoopbackProfiles::OfCaller(const StoredProfileId& on_server) const {
  absl::MutexLock lock(&mutex_);
  const auto found = callers_.find(on_server);
  return found == callers_.end() ? on_server : found->second;
}

void LoopbackProfiles::NoteChunk(const ChunkId& id, const StoredProfileId& on_server, bool stored) {
  absl::MutexLock lock(&mutex_);
  const auto [chunk, is_new] = chunks_.emplace(id, on_server);
  if (stored && !is_new) chunk->second = on_server;
}

absl::optional<StoredProfileId> LoopbackProfiles::OfChunk(const ChunkId& id) const {
  absl::MutexLock lock(&mutex_);
  const auto found = chunks_.find(id);
  if (found == chunks_.end()) return absl::nullopt;
  return found->second;
}

LoopbackChunkStore::LoopbackChunkStore(std::unique_ptr<KvStreamServer> server, absl::Time clock,
                                       std::shared_ptr<LoopbackProfiles> profiles)
    : server_(std::move(server)), clock_(clock), profiles_(std::move(profiles)) {
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  stub_ = v1::KVStream::NewStub(
      grpc::CreateCustomChannel(absl::StrCat("127.0.0.1:", server_->grpc_port()),
                                grpc::InsecureChannelCredentials(), arguments));
}

absl::StatusOr<std::unique_ptr<ChunkStore>> LoopbackChunkStore::Create(
    std::unique_ptr<ChunkStore> store, absl::Time clock,
    std::shared_ptr<LoopbackProfiles> profiles) {
  const ServerOptions options = Options();
  KvStreamServer::Parts parts;
  parts.store = std::move(store);
  parts.parse_profile = FakeProfileParser();
  parts.create_session = &LoadSession::Create;
  parts.log = std::make_unique<Log>("off", options.log_format);
  parts.now = [clock] { return clock; };
  absl::StatusOr<std::unique_ptr<KvStreamServer>> server =
      KvStreamServer::Create(options, std::move(parts));
  if (!server.ok()) return server.status();
  auto loopback =
      absl::WrapUnique(new LoopbackChunkStore(*std::move(server), clock, std::move(profiles)));
  grpc::ClientContext call;
  v1::StatsResponse stats;
  const grpc::Status status = loopback->stub_->Stats(&call, v1::StatsRequest(), &stats);
  if (!status.ok()) return FromGrpc(status);
  loopback->driver_ = stats.store();
  return loopback;
}

LoopbackChunkStore::~LoopbackChunkStore() {
  stub_.reset();
  server_->Stop(absl::ZeroDuration());
}

google::protobuf::Duration LoopbackChunkStore::Ttl(absl::Time until) const {
  google::protobuf::Duration ttl;
  if (until == absl::InfiniteFuture()) return ttl;
  const absl::Duration left = until - clock_;
  if (left < absl::ZeroDuration()) {
    ttl.set_seconds(-1);
  } else {
    ToProto(std::min(left, absl::Hours(24) * 366 * 1000), &ttl);
  }
  return ttl;
}

absl::StatusOr<bool> LoopbackChunkStore::Upload(const ChunkId& id, const ChunkInfo& info,
                                                const StoredProfileId& profile,
                                                absl::Span<const absl::string_view> segments) {
  grpc::ClientContext call;
  v1::PutResponse response;
  const auto writer = stub_->Put(&call, &response);
  v1::PutRequest request;
  request.mutable_start()->set_profile_id(IdBytes(profile));
  request.mutable_start()->set_model(info.model);
  *request.mutable_start()->mutable_ttl() = Ttl(info.expires);
  bool open = writer->Write(request);
  v1::PutChunk& chunk = *request.mutable_chunk();
  chunk.set_chunk_id(IdBytes(id));
  if (info.parent.has_value()) chunk.set_parent_id(IdBytes(*info.parent));
  chunk.set_first_token(info.first_token);
  chunk.set_tokens(info.tokens);
  for (const uint64_t bytes : info.segment_bytes) chunk.add_segment_bytes(bytes + kFakeSealBytes);
  open = open && writer->Write(request);
  for (size_t level = 0; level < segments.size() && open; ++level) {
    const std::string sealed =
        SealFakeSegment(kProfileName, static_cast<int>(level), info.tokens,
                        static_cast<int64_t>(info.first_token), segments[level]);
    for (size_t offset = 0; offset < sealed.size() && open; offset += kPieceBytes) {
      request.mutable_data()->set_level(static_cast<uint32_t>(level));
      request.mutable_data()->set_offset(offset);
      request.mutable_data()->set_data(sealed.substr(offset, kPieceBytes));
      open = writer->Write(request);
    }
  }
  writer->WritesDone();
  const grpc::Status status = writer->Finish();
  if (!status.ok()) return FromGrpc(status);
  return response.chunks_stored() > 0;
}

absl::StatusOr<bool> LoopbackChunkStore::Put(const ChunkId& id, const ChunkInfo& info,
                                             absl::Span<const absl::string_view> segments) {
  const std::string bytes = LoopbackProfiles::BytesOf(info.profile_id, info.segment_bytes.size());
  const StoredProfileId profile = FakeProfileId(bytes);
  profiles_->Note(profile, info.profile_id);
  profiles_->NoteChunk(id, profile, /*stored=*/false);
  absl::StatusOr<bool> put = Upload(id, info, profile, segments);
  if (absl::IsNotFound(put.status())) {
    const absl::StatusOr<bool> known = PutProfile(profile, bytes);
    if (!known.ok()) return known;
    put = Upload(id, info, profile, segments);
  }
  if (put.ok() && *put) profiles_->NoteChunk(id, profile, /*stored=*/true);
  return put;
}

absl::StatusOr<std::pair<ChunkId, ChunkInfo>> LoopbackChunkStore::Told(
    const v1::StoredChunk& chunk) const {
  ChunkInfo info;
  if (!chunk.parent_id().empty()) info.parent = IdOf(chunk.parent_id());
  info.profile_id = profiles_->OfCaller(IdOf(chunk.profile_id()));
  info.model = chunk.model();
  info.first_token = chunk.first_token();
  info.tokens = chunk.tokens();
  for (const uint64_t bytes : chunk.segment_bytes()) {
    info.segment_bytes.push_back(PayloadOf(bytes, 1));
  }
  info.created = FromProto(chunk.created());
  info.levels_lost = chunk.levels_lost();
  if (chunk.has_expires()) info.expires = FromProto(chunk.expires());
  if (info.created != clock_) {
    return absl::InternalError(absl::StrCat("created at ", absl::FormatTime(info.created),
                                            " on a clock that stood at ",
                                            absl::FormatTime(clock_)));
  }
  return std::make_pair(IdOf(chunk.chunk_id()), std::move(info));
}

absl::StatusOr<LoopbackChunkStore::Listed> LoopbackChunkStore::ListAll(v1::ListRequest request) {
  Listed listed;
  while (true) {
    grpc::ClientContext call;
    v1::ListResponse response;
    const grpc::Status status = stub_->List(&call, request, &response);
    if (!status.ok()) return FromGrpc(status);
    for (const v1::StoredChunk& chunk : response.chunks()) {
      auto told = Told(chunk);
      if (!told.ok()) return told.status();
      listed.push_back(*std::move(told));
    }
    if (response.next_page_token().empty()) return listed;
    request.set_page_token(response.next_page_token());
  }
}

absl::StatusOr<std::vector<absl::optional<ChunkInfo>>> LoopbackChunkStore::GetInfos(
    absl::Span<const ChunkId> ids) {
  // A page names all ids of the question again, so many ids are better asked for in parts.
  constexpr size_t kPart = 1000;
  std::vector<absl::optional<ChunkInfo>> infos(ids.size());
  for (size_t begin = 0; begin < ids.size(); begin += kPart) {
    const size_t end = std::min(begin + kPart, ids.size());
    v1::ListRequest request;
    request.set_page_size(kPart);
    for (size_t i = begin; i < end; ++i) request.add_chunk_ids(IdBytes(ids[i]));
    const absl::StatusOr<Listed> listed = ListAll(std::move(request));
    if (!listed.ok()) return listed.status();
    auto next = listed->begin();
    for (size_t i = begin; i < end && next != listed->end(); ++i) {
      if (next->first == ids[i]) infos[i] = (next++)->second;
    }
    if (next != listed->end()) return absl::InternalError("a chunk that was not asked for");
  }
  return infos;
}

absl::StatusOr<size_t> LoopbackChunkStore::LongestPrefix(absl::Span<const ChunkId> ids) {
  size_t length = 0;
  while (length < ids.size()) {
    // A lookup is of one profile; chunks that nobody has put may be of any.
    const absl::optional<StoredProfileId> profile = profiles_->OfChunk(ids[length]);
    v1::LookupRequest request;
    request.set_profile_id(IdBytes(profile.value_or(StoredProfileId{})));
    size_t asked = 0;
    for (; length + asked < ids.size(); ++asked) {
      if (profiles_->OfChunk(ids[length + asked]) != profile) break;
      request.add_chunk_ids(IdBytes(ids[length + asked]));
    }
    grpc::ClientContext call;
    v1::LookupResponse response;
    const grpc::Status status = stub_->Lookup(&call, request, &response);
    if (!status.ok()) return FromGrpc(status);
    length += response.matched_chunks();
    if (response.matched_chunks() < asked) break;
  }
  return length;
}

absl::StatusOr<PinnedBytes> LoopbackChunkStore::ReadSegment(const ChunkId& id, uint32_t level) {
  const absl::Status absent = absl::NotFoundError(
      absl::StrCat("chunk ", IdHex(id), " has no level ", level, " or is not stored"));
  const auto infos = GetInfos({&id, 1});
  if (!infos.ok()) return infos.status();
  const absl::optional<ChunkInfo>& info = infos->front();
  if (!info.has_value() || level >= info->segment_bytes.size()) return absent;
  v1::LoadStart start;
  const size_t levels = info->segment_bytes.size() + info->levels_lost;
  start.set_profile_id(IdBytes(FakeProfileId(LoopbackProfiles::BytesOf(info->profile_id, levels))));
  start.add_chunk_ids(IdBytes(id));
  start.set_policy(v1::POLICY_FIXED);
  start.set_level(level);
  const TestLoad load = RunLoad(*stub_, start);
  if (load.status.error_code() == grpc::StatusCode::NOT_FOUND) return absent;
  if (!load.status.ok()) return FromGrpc(load.status);
  if (!load.violation.empty()) return absl::InternalError(load.violation);
  // It may have lost the level meanwhile.
  if (load.levels[0] < static_cast<int>(level)) return absent;
  const std::vector<uint64_t>& sizes = load.segment_bytes[0];
  uint64_t offset = 0;
  for (uint32_t below = 0; below < level; ++below) offset += sizes[below];
  const auto payload = std::make_shared<const std::string>(
      FakePayload(absl::string_view(load.chunks[0]).substr(offset, sizes[level])));
  return PinnedBytes(*payload, [payload] {});
}

absl::StatusOr<size_t> LoopbackChunkStore::DeleteTogether(absl::Span<const ChunkId> ids) {
  grpc::ClientContext call;
  v1::DeleteRequest request;
  v1::DeleteResponse response;
  for (const ChunkId& id : ids) request.add_chunk_ids(IdBytes(id));
  const grpc::Status status = stub_->Delete(&call, request, &response);
  if (!status.ok()) return FromGrpc(status);
  return response.chunks_deleted();
}

absl::StatusOr<size_t> LoopbackChunkStore::Delete(absl::Span<const ChunkId> ids) {
  absl::StatusOr<size_t> deleted = DeleteTogether(ids);
  if (!absl::IsFailedPrecondition(deleted.status())) return deleted;
  size_t sum = 0;
  for (const ChunkId& id : ids) {
    deleted = DeleteTogether({&id, 1});
    if (!deleted.ok() && !absl::IsFailedPrecondition(deleted.status())) return deleted;
    sum += deleted.value_or(0);
  }
  return sum;
}

absl::StatusOr<size_t> LoopbackChunkStore::Trim(absl::Span<const ChunkId> ids,
                                                uint32_t keep_levels) {
  return server_store().Trim(ids, keep_levels);
}

ChunkHold LoopbackChunkStore::Hold(absl::Span<const ChunkId> ids) {
  return server_store().Hold(ids);
}

void LoopbackChunkStore::Touch(absl::Span<const ChunkId> ids) { server_store().Touch(ids); }

absl::StatusOr<LoopbackChunkStore::Listed> LoopbackChunkStore::List(
    const absl::optional<ChunkId>& after, size_t limit) {
  v1::ListRequest request;
  request.set_page_size(static_cast<uint32_t>(std::min<size_t>(std::max<size_t>(limit, 1), 1000)));
  absl::StatusOr<Listed> listed = ListAll(std::move(request));
  if (!listed.ok()) return listed;
  // A client cannot make a token for a place of its choice.
  const auto first = std::find_if(listed->begin(), listed->end(), [&](const auto& chunk) {
    return !after.has_value() || *after < chunk.first;
  });
  listed->erase(listed->begin(), first);
  listed->resize(std::min(limit, listed->size()));
  return listed;
}

absl::StatusOr<size_t> LoopbackChunkStore::Expire(absl::Time now, size_t limit) {
  return server_store().Expire(now, limit);
}

absl::StatusOr<size_t> LoopbackChunkStore::Renew(absl::Span<const ChunkId> ids,
                                                 absl::Time expires) {
  grpc::ClientContext call;
  v1::RenewRequest request;
  v1::RenewResponse response;
  for (const ChunkId& id : ids) request.add_chunk_ids(IdBytes(id));
  *request.mutable_ttl() = Ttl(expires);
  const grpc::Status status = stub_->Renew(&call, request, &response);
  if (!status.ok()) return FromGrpc(status);
  return response.chunks();
}

absl::StatusOr<size_t> LoopbackChunkStore::Pin(absl::Span<const ChunkId> ids,
                                               absl::string_view owner, absl::Time until) {
  grpc::ClientContext call;
  v1::PinRequest request;
  v1::PinResponse response;
  for (const ChunkId& id : ids) request.add_chunk_ids(IdBytes(id));
  request.set_owner(std::string(owner));
  *request.mutable_ttl() = Ttl(until);
  const grpc::Status status = stub_->Pin(&call, request, &response);
  if (!status.ok()) return FromGrpc(status);
  return response.chunks();
}

absl::StatusOr<size_t> LoopbackChunkStore::Unpin(absl::Span<const ChunkId> ids,
                                                 const absl::optional<std::string>& owner) {
  grpc::ClientContext call;
  v1::UnpinRequest request;
  v1::UnpinResponse response;
  for (const ChunkId& id : ids) request.add_chunk_ids(IdBytes(id));
  request.set_owner(owner.value_or(""));
  request.set_all_owners(!owner.has_value());
  const grpc::Status status = stub_->Unpin(&call, request, &response);
  if (!status.ok()) return FromGrpc(status);
  return response.pins();
}

absl::StatusOr<std::vector<ChunkPin>> LoopbackChunkStore::ListAllPins(uint32_t page_size) {
  std::vector<ChunkPin> pins;
  v1::ListPinsRequest request;
  request.set_page_size(page_size);
  while (true) {
    grpc::ClientContext call;
    v1::ListPinsResponse response;
    const grpc::Status status = stub_->ListPins(&call, request, &response);
    if (!status.ok()) return FromGrpc(status);
    for (const v1::ChunkPin& pin : response.pins()) {
      pins.push_back({IdOf(pin.chunk_id()), pin.owner(), FromProto(pin.until())});
    }
    if (response.next_page_token().empty()) return pins;
    request.set_page_token(response.next_page_token());
  }
}

absl::StatusOr<std::vector<ChunkPin>> LoopbackChunkStore::ListPins(
    const absl::optional<ChunkPin>& after, size_t limit) {
  absl::StatusOr<std::vector<ChunkPin>> pins = ListAllPins(static_cast<uint32_t>(limit));
  if (!pins.ok()) return pins;
  const auto first = std::find_if(pins->begin(), pins->end(), [&](const ChunkPin& pin) {
    return !after.has_value() || std::tie(after->id, after->owner) < std::tie(pin.id, pin.owner);
  });
  pins->erase(pins->begin(), first);
  if (pins->size() > limit) pins->erase(pins->begin() + static_cast<ptrdiff_t>(limit), pins->end());
  return pins;
}

absl::StatusOr<std::vector<ChunkPin>> LoopbackChunkStore::PinsOf(absl::Span<const ChunkId> ids) {
  absl::StatusOr<std::vector<ChunkPin>> pins = ListAllPins(0);
  if (!pins.ok()) return pins;
  const std::set<ChunkId> asked(ids.begin(), ids.end());
  pins->erase(std::remove_if(pins->begin(), pins->end(),
                             [&](const ChunkPin& pin) { return asked.count(pin.id) == 0; }),
              pins->end());
  return pins;
}

absl::StatusOr<size_t> LoopbackChunkStore::DeleteSoon(absl::Span<const ChunkId> ids) {
  return server_store().DeleteSoon(ids);
}

absl::StatusOr<std::vector<ChunkId>> LoopbackChunkStore::Children(const ChunkId& id, size_t limit) {
  const absl::StatusOr<Listed> listed = ListAll(v1::ListRequest());
  if (!listed.ok()) return listed.status();
  std::vector<ChunkId> children;
  for (const auto& [child, info] : *listed) {
    if (info.parent == id && children.size() < limit) children.push_back(child);
  }
  return children;
}

absl::StatusOr<bool> LoopbackChunkStore::PutProfile(const StoredProfileId& id,
                                                    absl::string_view bytes) {
  grpc::ClientContext call;
  v1::PutProfileResponse response;
  const auto writer = stub_->PutProfile(&call, &response);
  for (size_t offset = 0; offset < bytes.size(); offset += kPieceBytes) {
    v1::PutProfileRequest request;
    request.set_data(std::string(bytes.substr(offset, kPieceBytes)));
    if (!writer->Write(request)) break;
  }
  writer->WritesDone();
  const grpc::Status status = writer->Finish();
  if (!status.ok()) return FromGrpc(status);
  if (IdOf(response.profile_id()) != id) return absl::InternalError("the profile has another id");
  return response.created();
}

absl::StatusOr<std::string> LoopbackChunkStore::GetProfile(const StoredProfileId& id) {
  grpc::ClientContext call;
  v1::GetProfileRequest request;
  request.set_profile_id(IdBytes(id));
  const auto reader = stub_->GetProfile(&call, request);
  std::string bytes;
  v1::GetProfileResponse response;
  while (reader->Read(&response)) bytes += response.data();
  const grpc::Status status = reader->Finish();
  if (!status.ok()) return FromGrpc(status);
  return bytes;
}

absl::StatusOr<std::vector<StoredProfileId>> LoopbackChunkStore::ListProfiles() {
  grpc::ClientContext call;
  v1::StatsResponse stats;
  const grpc::Status status = stub_->Stats(&call, v1::StatsRequest(), &stats);
  if (!status.ok()) return FromGrpc(status);
  std::vector<StoredProfileId> ids;
  for (const std::string& id : stats.profile_ids()) ids.push_back(IdOf(id));
  return ids;
}

absl::StatusOr<StoreStats> LoopbackChunkStore::Stats() {
  grpc::ClientContext call;
  v1::StatsResponse told;
  const grpc::Status status = stub_->Stats(&call, v1::StatsRequest(), &told);
  if (!status.ok()) return FromGrpc(status);
  const absl::StatusOr<Listed> listed = ListAll(v1::ListRequest());
  if (!listed.ok()) return listed.status();
  const absl::StatusOr<std::vector<ChunkPin>> pins = ListAllPins(0);
  if (!pins.ok()) return pins.status();
  std::set<ChunkId> pinned;
  for (const ChunkPin& pin : *pins) pinned.insert(pin.id);
  uint64_t segments = 0, pinned_segments = 0;
  for (const auto& [id, info] : *listed) {
    segments += info.segment_bytes.size();
    if (pinned.count(id) > 0) pinned_segments += info.segment_bytes.size();
  }
  StoreStats stats;
  stats.chunks = told.chunks();
  stats.payload_bytes = PayloadOf(told.payload_bytes(), segments);
  stats.disk_bytes = told.disk_bytes();
  stats.capacity_bytes = told.capacity_bytes();
  stats.pins = told.pins();
  stats.pinned_bytes = PayloadOf(told.pinned_bytes(), pinned_segments);
  return stats;
}

}  // namespace kvstream

#include "server/service/put_upload.h"

#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/service/ids.h"
#include "server/service/ttl.h"
#include "storage/chunk_limits.h"

namespace kvstream {
namespace {

constexpr size_t kMaxDataBytes = 1 << 20;

}  // namespace

PutUpload::PutUpload(const RpcEnvironment* environment)
    : environment_(environment), room_(environment->upload_bytes, environment->tenant_uploads) {}

std::string PutUpload::ChunkName() const { return absl::StrCat("chunk ", IdHex(id_)); }

absl::Status PutUpload::OnMessage(const v1::PutRequest& message) {
  switch (message.message_case()) {
    case v1::PutRequest::kStart:
      return OnStart(message.start());
    case v1::PutRequest::kChunk:
      return OnChunk(message.chunk());
    case v1::PutRequest::kData:
      return OnData(message.data());
    case v1::PutRequest::MESSAGE_NOT_SET:
      break;
  }
  return absl::InvalidArgumentError("a message of the stream is empty");
}

absl::Status PutUpload::OnEnd() const {
  if (profile_ == nullptr) {
    return absl::InvalidArgumentError("the stream ended before its start message");
  }
  if (in_chunk_) {
    return absl::InvalidArgumentError(absl::StrCat("the stream ended amid ", ChunkName(),
                                                   ", level ", level_, " at byte ", offset_));
  }
  return absl::OkStatus();
}

absl::Status PutUpload::OnStart(const v1::PutStart& start) {
  if (profile_ != nullptr) return absl::InvalidArgumentError("a second start message");
  const absl::StatusOr<StoredProfileId> id = ParseId("profile_id", start.profile_id());
  if (!id.ok()) return id.status();
  if (start.model().size() > kMaxModelBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("model has ", start.model().size(), " bytes; at most ", kMaxModelBytes));
  }
  const absl::StatusOr<absl::Duration> ttl = ParseTtl("ttl", start.ttl());
  if (!ttl.ok()) return ttl.status();
  absl::StatusOr<std::shared_ptr<const ServiceProfile>> profile = environment_->profiles->Get(*id);
  if (!profile.ok()) return profile.status();
  profile_ = *std::move(profile);
  model_ = start.model();
  ttl_ = *ttl;
  return absl::OkStatus();
}

absl::Status PutUpload::ParseChunk(const v1::PutChunk& chunk) {
  const absl::StatusOr<ChunkId> id = ParseId("chunk_id", chunk.chunk_id());
  if (!id.ok()) return id.status();
  id_ = *id;
  info_ = ChunkInfo();
  info_.profile_id = profile_->id();
  info_.model = model_;
  info_.first_token = chunk.first_token();
  info_.tokens = chunk.tokens();
  if (!chunk.parent_id().empty()) {
    const absl::StatusOr<ChunkId> parent = ParseId("parent_id", chunk.parent_id());
    if (!parent.ok()) return parent.status();
    info_.parent = *parent;
  }
  if (info_.parent.has_value() != (info_.first_token > 0)) {
    return absl::InvalidArgumentError(absl::StrCat(
        ChunkName(),
        ": the first chunk of a context, and no other, has first_token 0 and no parent_id"));
  }
  if (info_.first_token > static_cast<uint64_t>(std::numeric_limits<int64_t>::max() / 2)) {
    return absl::InvalidArgumentError(absl::StrCat(ChunkName(), ": first_token is beyond 62 bits"));
  }
  if (info_.tokens < 1 || info_.tokens > static_cast<uint32_t>(profile_->chunk_tokens())) {
    return absl::InvalidArgumentError(absl::StrCat(ChunkName(), " has ", info_.tokens,
                                                   " tokens; the profile allows 1 to ",
                                                   profile_->chunk_tokens()));
  }
  if (chunk.segment_bytes_size() != profile_->levels()) {
    return absl::InvalidArgumentError(absl::StrCat(ChunkName(), " has ", chunk.segment_bytes_size(),
                                                   " segments; the profile has ",
                                                   profile_->levels(), " levels"));
  }
  const uint64_t limit = environment_->options->max_chunk_bytes;
  uint64_t total = 0;
  for (const uint64_t bytes : chunk.segment_bytes()) {
    if (bytes == 0) {
      return absl::InvalidArgumentError(absl::StrCat(ChunkName(), ": a segment has 0 bytes"));
    }
    if (bytes > limit - total) {
      return absl::InvalidArgumentError(absl::StrCat(ChunkName(), " is larger than ", limit,
                                                     " bytes, the server's --max-chunk-bytes"));
    }
    total += bytes;
    info_.segment_bytes.push_back(bytes);
  }
  return absl::OkStatus();
}

absl::Status PutUpload::OnChunk(const v1::PutChunk& chunk) {
  if (profile_ == nullptr)
    return absl::InvalidArgumentError("a chunk came before the start message");
  if (in_chunk_) {
    return absl::InvalidArgumentError(
        absl::StrCat("a chunk came amid ", ChunkName(), ", level ", level_, " at byte ", offset_));
  }
  const absl::Status status = ParseChunk(chunk);
  if (!status.ok()) return status;

  // From here on it must not vanish by a deletion that was acknowledged before.
  environment_->leases->Revive(id_);
  const absl::StatusOr<std::vector<absl::optional<ChunkInfo>>> stored =
      environment_->store->GetInfos({&id_, 1});
  if (!stored.ok()) return stored.status();
  // What eviction took of a chunk can be put again.
  exists_ = stored->front().has_value() && !RestoresLevels(*stored->front(), info_);
  if (stored->front().has_value() && stored->front()->profile_id != profile_->id()) {
    return absl::FailedPreconditionError(absl::StrCat(
        ChunkName(), " is stored with another profile, ", IdHex(stored->front()->profile_id)));
  }
  if (exists_) {
    // Now rather than when its bytes have come, which nobody needs: it may be about to expire.
    const absl::StatusOr<size_t> renewed = environment_->store->Renew(
        {&id_, 1}, ExpiresAfter(environment_->now(), ttl_, environment_->options->default_ttl));
    if (!renewed.ok()) return renewed.status();
    exists_ = *renewed > 0;
  }
  uint64_t total = 0;
  for (const uint64_t bytes : info_.segment_bytes) total += bytes;
  if (!exists_) {
    if (absl::Status status = room_.Take(total); !status.ok()) return status;
  }
  in_chunk_ = true;
  level_ = 0;
  offset_ = 0;
  segments_.clear();
  return absl::OkStatus();
}

absl::Status PutUpload::OnData(const v1::PutData& data) {
  if (!in_chunk_) {
    return absl::InvalidArgumentError("data came before the chunk that it belongs to");
  }
  const std::string& bytes = data.data();
  if (data.level() != level_ || data.offset() != offset_) {
    return absl::InvalidArgumentError(absl::StrCat(ChunkName(), ": data of level ", data.level(),
                                                   " at byte ", data.offset(), " came where level ",
                                                   level_, " at byte ", offset_, " was due"));
  }
  const uint64_t left = info_.segment_bytes[level_] - offset_;
  if (bytes.empty() || bytes.size() > kMaxDataBytes || bytes.size() > left) {
    return absl::InvalidArgumentError(
        absl::StrCat(ChunkName(), ": a data message of level ", level_, " has ", bytes.size(),
                     " bytes; 1 to ", kMaxDataBytes, " are allowed, ", left, " are due"));
  }
  if (!exists_) {
    if (offset_ == 0) {
      segments_.emplace_back();
      segments_.back().reserve(info_.segment_bytes[level_]);
    }
    // The one copy of an upload: gRPC's message ends with its handling, the segment lives until it
    // is complete.
    segments_.back().append(bytes);
  }
  offset_ += bytes.size();
  if (offset_ < info_.segment_bytes[level_]) return absl::OkStatus();
  if (!exists_) {
    const absl::Status status = CheckSegment();
    if (!status.ok()) return status;
  }
  ++level_;
  offset_ = 0;
  if (level_ < info_.segment_bytes.size()) return absl::OkStatus();
  return StoreChunk();
}

absl::Status PutUpload::CheckSegment() const {
  const absl::StatusOr<SegmentHeader> header = profile_->ValidateSegment(segments_.back());
  if (!header.ok()) {
    return absl::Status(header.status().code(), absl::StrCat(ChunkName(), ", level ", level_, ": ",
                                                             header.status().message()));
  }
  const auto mismatch = [this](absl::string_view what, int64_t in_segment, int64_t announced) {
    return absl::InvalidArgumentError(absl::StrCat(ChunkName(), ": the segment of level ", level_,
                                                   " says ", what, " ", in_segment, ", the upload ",
                                                   announced));
  };
  if (header->level != static_cast<int64_t>(level_)) {
    return mismatch("level", header->level, static_cast<int64_t>(level_));
  }
  if (header->tokens != info_.tokens) return mismatch("tokens", header->tokens, info_.tokens);
  if (header->first_position != static_cast<int64_t>(info_.first_token)) {
    return mismatch("first position", header->first_position,
                    static_cast<int64_t>(info_.first_token));
  }
  return absl::OkStatus();
}

absl::Status PutUpload::StoreChunk() {
  in_chunk_ = false;
  bool created = false;
  if (!exists_) {
    info_.created = environment_->now();
    info_.expires = ExpiresAfter(info_.created, ttl_, environment_->options->default_ttl);
    const std::vector<absl::string_view> segments(segments_.begin(), segments_.end());
    const absl::StatusOr<bool> put = environment_->store->Put(id_, info_, segments);
    if (!put.ok()) return put.status();
    created = *put;
  }
  if (created) {
    response_.set_chunks_stored(response_.chunks_stored() + 1);
    response_.set_bytes_stored(response_.bytes_stored() + room_.bytes());
    environment_->metrics->CountPutBytes(room_.bytes());
  } else {
    response_.set_chunks_existing(response_.chunks_existing() + 1);
  }
  segments_.clear();
  room_.Clear();
  return absl::OkStatus();
}

}  // namespace kvstream

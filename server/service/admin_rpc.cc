#include "server/service/admin_rpc.h"

#include <algorithm>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "server/service/ids.h"
#include "server/service/tenants.h"
#include "server/service/ttl.h"
#include "server/service/version.h"

namespace kvstream {
namespace {

constexpr uint32_t kDefaultPage = 1000;
constexpr uint32_t kMaxPage = 10000;
// gRPC clients take 4 MiB by default.
constexpr size_t kPageBytes = 3 << 20;
constexpr size_t kMaxScan = 100000;
constexpr size_t kScanBatch = 1000;
// Chunks of a chain that Lookup asks for at a time: few first, since a chain that is not stored
// misses at once.
constexpr size_t kFirstLookupBatch = 32;
// What this many infos take the allocator hands out again at once, which it does not of much more.
constexpr size_t kLookupBatch = 128;
// A client's word that ends in a counter; bounded so that a lie cannot spoil the counter.
constexpr uint64_t kMaxContextTokens = uint64_t{1} << 28;

v1::StoredChunk ToStoredChunk(const ChunkId& id, const ChunkInfo& info) {
  v1::StoredChunk chunk;
  chunk.set_chunk_id(IdBytes(id));
  if (info.parent.has_value()) chunk.set_parent_id(IdBytes(*info.parent));
  chunk.set_profile_id(IdBytes(info.profile_id));
  chunk.set_model(info.model);
  chunk.set_first_token(info.first_token);
  chunk.set_tokens(info.tokens);
  for (const uint64_t bytes : info.segment_bytes) chunk.add_segment_bytes(bytes);
  chunk.set_levels_lost(info.levels_lost);
  SetTimestamp(info.created, chunk.mutable_created());
  if (info.expires != absl::InfiniteFuture()) {
    SetTimestamp(info.expires, chunk.mutable_expires());
  }
  return chunk;
}

// Calls `visit` with the index and the info of every chunk of the longest stored prefix, each read
// once, and ends at the first error. Reads little of a chain that is not stored.
absl::Status VisitPrefix(ChunkStore& store, absl::Span<const ChunkId> ids,
                         absl::FunctionRef<absl::Status(size_t, const ChunkInfo&)> visit) {
  size_t visited = 0;
  for (size_t batch = kFirstLookupBatch; visited < ids.size(); batch = kLookupBatch) {
    const absl::Span<const ChunkId> asked = ids.subspan(visited, batch);
    absl::StatusOr<std::vector<absl::optional<ChunkInfo>>> infos = store.GetInfos(asked);
    if (absl::IsDataLoss(infos.status())) {
      // Perhaps of a chunk behind the end of the prefix.
      const absl::StatusOr<size_t> stored = store.LongestPrefix(asked);
      if (!stored.ok()) return stored.status();
      if (*stored < asked.size()) ids = ids.subspan(0, visited + *stored);
      infos = store.GetInfos(asked.subspan(0, *stored));
    }
    if (!infos.ok()) return infos.status();
    for (const absl::optional<ChunkInfo>& info : *infos) {
      if (!info.has_value()) return absl::OkStatus();
      if (absl::Status status = visit(visited, *info); !status.ok()) return status;
      ++visited;
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status HandleLookup(const RpcEnvironment& environment, const v1::LookupRequest& request,
                          v1::LookupResponse& response) {
  const absl::StatusOr<StoredProfileId> profile = ParseId("profile_id", request.profile_id());
  if (!profile.ok()) return profile.status();
  const absl::StatusOr<std::vector<ChunkId>> ids = ParseChunkIds(request.chunk_ids());
  if (!ids.ok()) return ids.status();
  const size_t visible = environment.leases->VisiblePrefix(*ids);

  uint64_t tokens = 0;
  uint32_t matched = 0;
  std::vector<uint64_t> level_bytes;
  const auto add = [&](size_t index, const ChunkInfo& info) {
    if (info.profile_id != *profile) {
      return absl::FailedPreconditionError(absl::StrCat("chunk ", index, " (", IdHex((*ids)[index]),
                                                        ") belongs to profile ",
                                                        IdHex(info.profile_id)));
    }
    level_bytes.resize(std::max(level_bytes.size(), info.segment_bytes.size()));
    uint64_t sum = 0;
    for (size_t level = 0; level < level_bytes.size(); ++level) {
      if (level < info.segment_bytes.size()) sum += info.segment_bytes[level];
      level_bytes[level] += sum;
    }
    tokens += info.tokens;
    ++matched;
    if (info.levels_lost > 0 && response.first_degraded() == 0) {
      response.set_first_degraded(matched);
    }
    return absl::OkStatus();
  };
  const absl::Span<const ChunkId> chain = absl::MakeConstSpan(*ids).subspan(0, visible);
  if (absl::Status status = VisitPrefix(*environment.store, chain, add); !status.ok()) {
    return status;
  }
  response.set_matched_chunks(matched);
  response.set_matched_tokens(tokens);
  for (const uint64_t bytes : level_bytes) response.add_level_bytes(bytes);
  const uint64_t context = std::min(request.context_tokens(), kMaxContextTokens);
  environment.metrics->ObserveLookup(tokens, context > tokens ? context - tokens : 0);
  return absl::OkStatus();
}

namespace {

// A page of List as it fills.
class ListPage {
 public:
  ListPage(const RpcEnvironment& environment, const v1::ListRequest& request,
           v1::ListResponse* response)
      : environment_(environment), request_(request), response_(*response) {
    const uint32_t asked = request.page_size() == 0 ? kDefaultPage : request.page_size();
    size_ = std::min(asked, kMaxPage);
  }

  absl::Status ParseFilters() {
    if (request_.profile_id().empty()) return absl::OkStatus();
    const absl::StatusOr<StoredProfileId> id = ParseId("profile_id", request_.profile_id());
    if (id.ok()) profile_ = *id;
    return id.status();
  }
  size_t room() const { return size_ - static_cast<size_t>(response_.chunks_size()); }
  bool full() const { return room() == 0 || bytes_ >= kPageBytes || scanned_ >= kMaxScan; }
  // Looks at a chunk, and adds it if it is what the request asks for.
  void Visit(const ChunkId& id, const ChunkInfo& info) {
    ++scanned_;
    if (profile_.has_value() && info.profile_id != *profile_) return;
    if (!request_.model().empty() && info.model != request_.model()) return;
    if (environment_.leases->Hidden(id)) return;
    v1::StoredChunk chunk = ToStoredChunk(id, info);
    bytes_ += chunk.ByteSizeLong();
    *response_.add_chunks() = std::move(chunk);
  }

 private:
  const RpcEnvironment& environment_;
  const v1::ListRequest& request_;
  v1::ListResponse& response_;
  absl::optional<StoredProfileId> profile_;
  size_t size_ = 0;
  size_t scanned_ = 0;
  size_t bytes_ = 0;
};

// Of request.chunk_ids. The token: the index to go on from, in decimal digits.
absl::Status ListNamed(const RpcEnvironment& environment, const v1::ListRequest& request,
                       ListPage* page, v1::ListResponse* response) {
  const absl::StatusOr<std::vector<ChunkId>> ids = ParseChunkIds(request.chunk_ids());
  if (!ids.ok()) return ids.status();
  size_t next = 0;
  if (!request.page_token().empty() &&
      (!absl::SimpleAtoi(request.page_token(), &next) || next > ids->size())) {
    return absl::InvalidArgumentError("page_token is none of a List of these chunks");
  }
  while (next < ids->size()) {
    const auto batch = absl::MakeConstSpan(*ids).subspan(next, kScanBatch);
    const auto infos = environment.store->GetInfos(batch);
    if (!infos.ok()) return infos.status();
    for (size_t i = 0; i < batch.size(); ++i, ++next) {
      if (page->full()) {
        response->set_next_page_token(absl::StrCat(next));
        return absl::OkStatus();
      }
      if ((*infos)[i].has_value()) page->Visit(batch[i], *(*infos)[i]);
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status HandleList(const RpcEnvironment& environment, const v1::ListRequest& request,
                        v1::ListResponse& response) {
  ListPage page(environment, request, &response);
  if (absl::Status status = page.ParseFilters(); !status.ok()) return status;
  if (request.chunk_ids_size() > 0) return ListNamed(environment, request, &page, &response);
  absl::optional<ChunkId> after;
  if (!request.page_token().empty()) {
    const absl::StatusOr<ChunkId> token = ParseId("page_token", request.page_token());
    if (!token.ok()) return token.status();
    after = *token;
  }
  while (true) {
    // One more than is left tells whether this page is the last.
    const size_t batch = std::min(kScanBatch, page.room() + 1);
    const auto chunks = environment.store->List(after, batch);
    if (!chunks.ok()) return chunks.status();
    for (const auto& [id, info] : *chunks) {
      if (page.full()) {
        if (after.has_value()) response.set_next_page_token(IdBytes(*after));
        return absl::OkStatus();
      }
      after = id;
      page.Visit(id, info);
    }
    if (chunks->size() < batch) return absl::OkStatus();
  }
}

namespace {

// What a tenant has, which is all that it may know of the store.
absl::Status FillTenantStats(const RpcEnvironment& environment, v1::StatsResponse& response) {
  TenantView& tenant = *environment.tenant;
  const absl::StatusOr<uint64_t> used_bytes = tenant.UsedBytes();
  if (!used_bytes.ok()) return used_bytes.status();
  response.set_tenant(tenant.tenant());
  response.set_tenant_bytes(*used_bytes);
  response.set_tenant_quota_bytes(tenant.quota_bytes());
  if (environment.tenants == nullptr) return absl::OkStatus();
  for (const TenantFigure& figure : environment.tenants->Figures()) {
    v1::TenantStats& stats = *response.add_tenants();
    stats.set_name(figure.name);
    stats.set_chunks(figure.chunks);
    stats.set_bytes(figure.used_bytes);
    stats.set_quota_bytes(figure.quota_bytes);
  }
  return absl::OkStatus();
}

v1::StoreWrites ToProto(WriteState writes) {
  switch (writes) {
    case WriteState::kTaken:
      return v1::STORE_WRITES_TAKEN;
    case WriteState::kRefused:
      return v1::STORE_WRITES_REFUSED;
    case WriteState::kRefusedForGood:
      return v1::STORE_WRITES_REFUSED_UNTIL_RESTART;
  }
  return v1::STORE_WRITES_UNSPECIFIED;
}

}  // namespace

absl::Status HandleStats(const RpcEnvironment& environment, const v1::StatsRequest& request,
                         v1::StatsResponse& response) {
  ChunkStore& seen =
      environment.whole_store != nullptr ? *environment.whole_store : *environment.store;
  const absl::StatusOr<StoreStats> stats = seen.Stats();
  if (!stats.ok()) return stats.status();
  const absl::StatusOr<std::vector<StoredProfileId>> profiles = environment.store->ListProfiles();
  if (!profiles.ok()) return profiles.status();
  if (environment.tenant != nullptr) {
    const absl::Status status = FillTenantStats(environment, response);
    if (!status.ok()) return status;
  }
  response.set_version(std::string(kServerVersion));
  absl::Duration rest;
  const absl::Duration uptime = std::max(absl::Now() - environment.started, absl::ZeroDuration());
  response.mutable_uptime()->set_seconds(absl::IDivDuration(uptime, absl::Seconds(1), &rest));
  response.mutable_uptime()->set_nanos(static_cast<int32_t>(absl::ToInt64Nanoseconds(rest)));
  response.set_chunks(stats->chunks);
  response.set_payload_bytes(stats->payload_bytes);
  response.set_disk_bytes(stats->disk_bytes);
  response.set_capacity_bytes(stats->capacity_bytes);
  response.set_evicted_segments(stats->evicted_segments);
  response.set_evicted_bytes(stats->evicted_bytes);
  response.set_evicted_chunks(stats->evicted_chunks);
  response.set_expired_chunks(stats->expired_chunks);
  response.set_pins(stats->pins);
  response.set_pinned_bytes(stats->pinned_bytes);
  for (const StoredProfileId& id : *profiles) response.add_profile_ids(IdBytes(id));
  response.set_store(std::string(seen.driver()));
  // How busy the server is, is for its operator to know.
  if (environment.tenant != nullptr && environment.whole_store == nullptr) return absl::OkStatus();
  const LoadTotals totals = environment.metrics->load_totals();
  response.set_store_writes(ToProto(stats->writes));
  response.set_damaged_files(stats->damaged_files);
  response.set_loads_in_flight(static_cast<uint32_t>(environment.loads->in_flight()));
  response.set_loads_finished(totals.finished);
  response.set_loads_failed(totals.failed);
  response.set_load_bytes_sent(totals.bytes_sent);
  for (const uint64_t chunks : totals.chunks_by_level) response.add_chunks_by_level(chunks);
  response.set_chunks_recomputed(totals.chunks_recomputed);
  return absl::OkStatus();
}

}  // namespace kvstream

#include "server/service/lifetime_rpc.h"

#include <algorithm>
#include <cstdint>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "server/service/ids.h"
#include "server/service/ttl.h"
#include "storage/chunk_limits.h"

namespace kvstream {
namespace {

constexpr uint32_t kDefaultPage = 1000;
constexpr uint32_t kMaxPage = 10000;
// Of one step of DeleteMatching. A store deletes 256 chunks at once, so that a crash amid a step
// leaves a context whole up to some chunk.
constexpr size_t kContextStep = 256;
constexpr size_t kModelStep = 4096;
constexpr size_t kScanStep = 100000;
constexpr size_t kScanBatch = 1000;
// Pins looked at for one page where an owner was asked for.
constexpr size_t kPinScan = 100000;
// Children of a chunk that are looked at to find one that is not being deleted.
constexpr size_t kChildrenMax = 1024;

constexpr size_t kIdBytes = sizeof(ChunkId);

// For the log; empty: there are no tenants.
std::string TenantName(const RpcEnvironment& environment) {
  return environment.tenant == nullptr ? "" : environment.tenant->tenant();
}

struct Deleted {
  uint64_t chunks = 0;
  uint64_t deferred = 0;
};

// Deletes now what nobody uses, and promises it for the rest.
absl::StatusOr<Deleted> DeleteChunks(const RpcEnvironment& environment,
                                     const std::vector<ChunkId>& ids) {
  const ChunkLeases::DeletePlan plan = environment.leases->BeginDelete(ids);
  const absl::StatusOr<size_t> deleted = environment.store->Delete(plan.now);
  environment.leases->EndDelete(plan.now);
  Deleted result;
  result.chunks = deleted.value_or(0);
  result.deferred = plan.deferred.size();
  absl::Status status = deleted.status();
  if (!plan.deferred.empty()) {
    const absl::StatusOr<size_t> noted = environment.store->DeleteSoon(plan.deferred);
    const std::vector<ChunkId> due = environment.leases->EndDefer(plan.deferred, noted.ok());
    result.chunks += noted.value_or(0);
    status.Update(noted.status());
    // Their last load has ended meanwhile.
    if (!due.empty()) {
      status.Update(environment.store->Delete(due).status());
      environment.leases->EndDelete(due);
    }
  }
  if (!status.ok()) return status;
  return result;
}

// Pins that last.
absl::StatusOr<std::vector<ChunkPin>> PinsNow(const RpcEnvironment& environment,
                                              absl::Span<const ChunkId> ids) {
  absl::StatusOr<std::vector<ChunkPin>> pins = environment.store->PinsOf(ids);
  if (!pins.ok()) return pins.status();
  const absl::Time now = absl::Now();
  pins->erase(std::remove_if(pins->begin(), pins->end(),
                             [now](const ChunkPin& pin) { return pin.until <= now; }),
              pins->end());
  return pins;
}

std::vector<ChunkId> Visible(const RpcEnvironment& environment, const std::vector<ChunkId>& ids) {
  std::vector<ChunkId> visible;
  for (const ChunkId& id : ids) {
    if (!environment.leases->Hidden(id)) visible.push_back(id);
  }
  return visible;
}

// What one step has found to delete.
struct Step {
  std::vector<ChunkId> ids;
  uint64_t payload_bytes = 0;
  uint64_t pinned = 0;
  std::string next;  // token

  void Add(const ChunkId& id, const ChunkInfo& info) {
    ids.push_back(id);
    payload_bytes += PayloadBytes(info);
  }
};

// Whether any chunk but `besides` follows `id` and is not being deleted.
absl::StatusOr<bool> IsFollowed(const RpcEnvironment& environment, const ChunkId& id,
                                const absl::optional<ChunkId>& besides) {
  const absl::StatusOr<std::vector<ChunkId>> children =
      environment.store->Children(id, kChildrenMax);
  if (!children.ok()) return children.status();
  for (const ChunkId& child : *children) {
    if (child != besides && !environment.leases->Hidden(child)) return true;
  }
  return children->size() == kChildrenMax;
}

// The token: the chunk to go on from, and its child that has gone before.
absl::Status FindContext(const RpcEnvironment& environment,
                         const v1::DeleteMatchingRequest& request, Step* step) {
  absl::optional<ChunkId> before;
  absl::StatusOr<ChunkId> last = ParseId("context_end", request.context_end());
  if (!last.ok()) return last.status();
  if (const std::string& token = request.page_token(); !token.empty()) {
    if (token.size() != 2 * kIdBytes) {
      return absl::InvalidArgumentError("page_token is none of a context");
    }
    last = ParseId("page_token", absl::string_view(token).substr(0, kIdBytes));
    before = *ParseId("page_token", absl::string_view(token).substr(kIdBytes));
  }
  ChunkId id = *last;
  while (true) {
    if (step->ids.size() >= kContextStep) {
      step->next = IdBytes(id) + IdBytes(*before);
      return absl::OkStatus();
    }
    const absl::StatusOr<std::vector<absl::optional<ChunkInfo>>> infos =
        environment.store->GetInfos({&id, 1});
    if (!infos.ok()) return infos.status();
    if (!infos->front().has_value() || environment.leases->Hidden(id)) return absl::OkStatus();
    const ChunkInfo& info = *infos->front();
    const absl::StatusOr<bool> followed = IsFollowed(environment, id, before);
    if (!followed.ok()) return followed.status();
    if (*followed) return absl::OkStatus();
    if (!request.force()) {
      const absl::StatusOr<std::vector<ChunkPin>> pins = PinsNow(environment, {&id, 1});
      if (!pins.ok()) return pins.status();
      step->pinned += pins->empty() ? 0 : 1;
      if (!pins->empty()) return absl::OkStatus();
    }
    // A parent that comes later would be a lie, and lies could form a ring.
    const bool goes_on = info.parent.has_value() && info.first_token > 0;
    step->Add(id, info);
    before = id;
    if (!goes_on) return absl::OkStatus();
    id = *info.parent;
  }
}

// The token: the last chunk that was looked at.
absl::Status FindModel(const RpcEnvironment& environment, const v1::DeleteMatchingRequest& request,
                       Step* step) {
  absl::optional<ChunkId> after;
  if (!request.page_token().empty()) {
    const absl::StatusOr<ChunkId> token = ParseId("page_token", request.page_token());
    if (!token.ok()) return token.status();
    after = *token;
  }
  for (size_t looked_at = 0; looked_at < kScanStep && step->ids.size() < kModelStep;) {
    const auto chunks = environment.store->List(after, kScanBatch);
    if (!chunks.ok()) return chunks.status();
    for (const auto& [id, info] : *chunks) {
      after = id;
      if (info.model != request.model() || environment.leases->Hidden(id)) continue;
      step->Add(id, info);
    }
    looked_at += chunks->size();
    if (chunks->size() < kScanBatch) {
      after.reset();
      break;
    }
  }
  if (after.has_value()) step->next = IdBytes(*after);
  if (request.force()) return absl::OkStatus();

  const absl::StatusOr<std::vector<ChunkPin>> pins = PinsNow(environment, step->ids);
  if (!pins.ok()) return pins.status();
  std::set<ChunkId> pinned;
  for (const ChunkPin& pin : *pins) pinned.insert(pin.id);
  if (pinned.empty()) return absl::OkStatus();
  step->pinned = pinned.size();
  const absl::StatusOr<std::vector<absl::optional<ChunkInfo>>> infos =
      environment.store->GetInfos(step->ids);
  if (!infos.ok()) return infos.status();
  const std::vector<ChunkId> ids = std::exchange(step->ids, {});
  step->payload_bytes = 0;
  for (size_t i = 0; i < ids.size(); ++i) {
    if ((*infos)[i].has_value() && pinned.count(ids[i]) == 0) step->Add(ids[i], *(*infos)[i]);
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status HandleDelete(const RpcEnvironment& environment, const v1::DeleteRequest& request,
                          v1::DeleteResponse& response) {
  const absl::StatusOr<std::vector<ChunkId>> ids = ParseChunkIds(request.chunk_ids());
  if (!ids.ok()) return ids.status();
  if (request.force()) {
    const absl::StatusOr<size_t> unpinned = environment.store->Unpin(*ids, absl::nullopt);
    if (!unpinned.ok()) return unpinned.status();
  } else {
    const absl::StatusOr<std::vector<ChunkPin>> pins = PinsNow(environment, *ids);
    if (!pins.ok()) return pins.status();
    if (!pins->empty()) {
      const ChunkPin& pin = pins->front();
      return absl::FailedPreconditionError(absl::StrCat(
          "chunk ", IdHex(pin.id), " is pinned by \"", absl::CHexEscape(pin.owner), "\" until ",
          absl::FormatTime(absl::RFC3339_sec, pin.until, absl::UTCTimeZone()),
          pins->size() == 1 ? "" : absl::StrCat(", and there are ", pins->size() - 1, " pins more"),
          "; nothing was deleted: unpin, or force it"));
    }
  }
  const absl::StatusOr<Deleted> deleted = DeleteChunks(environment, *ids);
  if (!deleted.ok()) return deleted.status();
  response.set_chunks_deleted(deleted->chunks);
  environment.log->Write(LogLevel::kInfo, "chunks deleted",
                         {{"tenant", TenantName(environment)},
                          {"asked", ids->size()},
                          {"deleted", deleted->chunks},
                          {"deferred", deleted->deferred}});
  return absl::OkStatus();
}

absl::Status HandleDeleteMatching(const RpcEnvironment& environment,
                                  const v1::DeleteMatchingRequest& request,
                                  v1::DeleteMatchingResponse& response) {
  Step step;
  absl::Status status;
  switch (request.what_case()) {
    case v1::DeleteMatchingRequest::kContextEnd:
      status = FindContext(environment, request, &step);
      break;
    case v1::DeleteMatchingRequest::kModel:
      status = FindModel(environment, request, &step);
      break;
    case v1::DeleteMatchingRequest::WHAT_NOT_SET:
      status = absl::InvalidArgumentError("neither context_end nor model says what to delete");
  }
  if (!status.ok()) return status;
  response.set_chunks(step.ids.size());
  response.set_payload_bytes(step.payload_bytes);
  response.set_chunks_pinned(step.pinned);
  response.set_next_page_token(step.next);
  if (request.dry_run() || step.ids.empty()) return absl::OkStatus();
  if (request.force()) {
    const absl::StatusOr<size_t> unpinned = environment.store->Unpin(step.ids, absl::nullopt);
    if (!unpinned.ok()) return unpinned.status();
  }
  const absl::StatusOr<Deleted> deleted = DeleteChunks(environment, step.ids);
  if (!deleted.ok()) return deleted.status();
  // Others may have deleted or pinned some meanwhile.
  response.set_chunks(deleted->chunks);
  environment.log->Write(LogLevel::kInfo, "chunks deleted",
                         {{"tenant", TenantName(environment)},
                          {"by", request.has_model() ? "model" : "context"},
                          {"asked", step.ids.size()},
                          {"deleted", deleted->chunks},
                          {"deferred", deleted->deferred},
                          {"pinned", step.pinned}});
  return absl::OkStatus();
}

absl::Status HandleRenew(const RpcEnvironment& environment, const v1::RenewRequest& request,
                         v1::RenewResponse& response) {
  const absl::StatusOr<std::vector<ChunkId>> ids = ParseChunkIds(request.chunk_ids());
  if (!ids.ok()) return ids.status();
  const absl::StatusOr<absl::Duration> ttl = ParseTtl("ttl", request.ttl());
  if (!ttl.ok()) return ttl.status();
  const absl::StatusOr<size_t> renewed = environment.store->Renew(
      Visible(environment, *ids),
      ExpiresAfter(environment.now(), *ttl, environment.options->default_ttl));
  if (!renewed.ok()) return renewed.status();
  response.set_chunks(*renewed);
  return absl::OkStatus();
}

absl::Status HandlePin(const RpcEnvironment& environment, const v1::PinRequest& request,
                       v1::PinResponse& response) {
  const absl::StatusOr<std::vector<ChunkId>> ids = ParseChunkIds(request.chunk_ids());
  if (!ids.ok()) return ids.status();
  const absl::StatusOr<absl::Duration> ttl = ParseTtl("ttl", request.ttl());
  if (!ttl.ok()) return ttl.status();
  if (*ttl == absl::ZeroDuration()) {
    return absl::InvalidArgumentError("ttl says for how long to pin; it must be more than 0");
  }
  const absl::StatusOr<size_t> pinned =
      environment.store->Pin(Visible(environment, *ids), request.owner(), environment.now() + *ttl);
  if (!pinned.ok()) return pinned.status();
  response.set_chunks(*pinned);
  environment.log->Write(LogLevel::kInfo, "chunks pinned",
                         {{"tenant", TenantName(environment)},
                          {"asked", ids->size()},
                          {"pinned", *pinned},
                          {"owner", absl::CHexEscape(request.owner())}});
  return absl::OkStatus();
}

absl::Status HandleUnpin(const RpcEnvironment& environment, const v1::UnpinRequest& request,
                         v1::UnpinResponse& response) {
  const absl::StatusOr<std::vector<ChunkId>> ids = ParseChunkIds(request.chunk_ids());
  if (!ids.ok()) return ids.status();
  if (request.owner().empty() != request.all_owners()) {
    return absl::InvalidArgumentError("give either an owner, or all_owners");
  }
  absl::optional<std::string> owner;
  if (!request.all_owners()) owner = request.owner();
  const absl::StatusOr<size_t> unpinned = environment.store->Unpin(*ids, owner);
  if (!unpinned.ok()) return unpinned.status();
  response.set_pins(*unpinned);
  return absl::OkStatus();
}

absl::Status HandleListPins(const RpcEnvironment& environment, const v1::ListPinsRequest& request,
                            v1::ListPinsResponse& response) {
  absl::optional<ChunkPin> after;
  if (const std::string& token = request.page_token(); !token.empty()) {
    const absl::StatusOr<ChunkId> id =
        ParseId("page_token", absl::string_view(token).substr(0, kIdBytes));
    if (!id.ok()) return id.status();
    if (token.size() > kIdBytes + kMaxPinOwnerBytes) {
      return absl::InvalidArgumentError("page_token is none of ListPins");
    }
    after = ChunkPin{*id, token.substr(kIdBytes), absl::Time()};
  }
  const uint32_t asked = request.page_size() == 0 ? kDefaultPage : request.page_size();
  const size_t page = std::min(asked, kMaxPage);
  const absl::Time now = absl::Now();
  for (size_t looked_at = 0; looked_at < kPinScan;) {
    const absl::StatusOr<std::vector<ChunkPin>> pins =
        environment.store->ListPins(after, kScanBatch);
    if (!pins.ok()) return pins.status();
    for (const ChunkPin& pin : *pins) {
      if (static_cast<size_t>(response.pins_size()) == page) {
        response.set_next_page_token(IdBytes(after->id) + after->owner);
        return absl::OkStatus();
      }
      after = pin;
      if (pin.until <= now || (!request.owner().empty() && pin.owner != request.owner())) continue;
      v1::ChunkPin& listed = *response.add_pins();
      listed.set_chunk_id(IdBytes(pin.id));
      listed.set_owner(pin.owner);
      SetTimestamp(pin.until, listed.mutable_until());
    }
    if (pins->size() < kScanBatch) return absl::OkStatus();
    looked_at += pins->size();
  }
  response.set_next_page_token(IdBytes(after->id) + after->owner);
  return absl::OkStatus();
}

}  // namespace kvstream

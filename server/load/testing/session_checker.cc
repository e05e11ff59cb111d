#include "server/load/testing/session_checker.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace kvstream {
namespace {

absl::Status Broken(uint32_t chunk, const char* what) {
  return absl::InternalError(absl::StrCat("chunk ", chunk, ": ", what));
}

}  // namespace

SessionChecker::SessionChecker(const LoadSpec& spec) : spec_(spec), chunks_(spec.chunks.size()) {
  for (size_t i = 0; i < spec.held_levels.size(); ++i) {
    chunks_[i].complete = spec.held_levels[i];
    chunks_[i].plan_level = spec.held_levels[i] - 1;
  }
}

absl::Status SessionChecker::OnPlan(const SendPlan& plan) {
  if (plan.chunk >= chunks_.size()) return Broken(plan.chunk, "plan for no chunk");
  Chunk& chunk = chunks_[plan.chunk];
  if (plan.first_plan_of_chunk == chunk.planned) return Broken(plan.chunk, "first plan is wrong");
  chunk.planned = true;
  if (chunk.recompute) return Broken(plan.chunk, "plan after recompute");
  if (!plan.decision.level) {
    if (spec_.ability == RecomputeAbility::kNone) return Broken(plan.chunk, "cannot recompute");
    const bool whole = chunk.complete > chunk.plan_level && chunk.plan_level >= 0;
    if (whole && plan.decision.reason != RecomputeReason::kDataLoss) {
      return Broken(plan.chunk, "recompute of what was sent whole");
    }
    if (chunk.by_order && plan.decision.reason != RecomputeReason::kDataLoss)
      return Broken(plan.chunk, "recompute of what the client has begun");
    chunk.recompute = true;
    if (inside_ == plan.chunk) inside_.reset();
    return absl::OkStatus();
  }
  const int level = *plan.decision.level;
  if (level < chunk.plan_level && level == chunk.complete - 1) {
    chunk.plan_level = level;
    chunk.offset = 0;
    if (inside_ == plan.chunk) inside_.reset();
    return absl::OkStatus();
  }
  if (level <= chunk.plan_level) return Broken(plan.chunk, "plan does not raise the level");
  if (level < spec_.lowest_level() ||
      level >= static_cast<int>(spec_.chunks[plan.chunk].segment_bytes.size())) {
    return Broken(plan.chunk, "plan outside the ladder");
  }
  chunk.plan_level = level;
  return absl::OkStatus();
}

absl::Status SessionChecker::OnOrder(const SendOrder& order) const {
  if (spec_.ability == RecomputeAbility::kNone) return Broken(order.first, "cannot recompute");
  if (order.first > order.end || order.end > chunks_.size()) {
    return Broken(order.first, "an order of no range");
  }
  if (order.anyway_at <= absl::ZeroDuration()) return Broken(order.first, "an order for the past");
  const bool may_judge =
      spec_.ability == RecomputeAbility::kSuffix && spec_.policy == LoadPolicy::kDeadline;
  if (!order.last_moments.empty() && (!may_judge || order.last_moments.size() < 2)) {
    return Broken(order.first, "an order with last moments");
  }
  return absl::OkStatus();
}

void SessionChecker::OnProgress(const ClientProgress& progress) {
  if (progress.taken) taken_ = progress.taken;
  const OrderProgress& order = progress.order;
  if (order.up_to == order.first) return;
  const bool suffix = spec_.ability == RecomputeAbility::kSuffix;
  const uint32_t end = suffix ? static_cast<uint32_t>(chunks_.size()) : order.up_to;
  // What an earlier report told is marked; a chunk that was given up is begun no more.
  for (uint32_t i = std::max(order.first, begun_); i < end; ++i) chunks_[i].by_order = true;
  begun_ = end;
  if (order.newest == OrderProgress::State::kGivenUp) chunks_[order.up_to - 1].by_order = false;
  if (inside_ && chunks_[*inside_].by_order) inside_.reset();
}

absl::Status SessionChecker::OnData(const SendData& data, uint64_t in_flight, uint64_t window) {
  if (data.chunk >= chunks_.size()) return Broken(data.chunk, "data for no chunk");
  Chunk& chunk = chunks_[data.chunk];
  before_last_ = chunk;
  if (chunk.recompute) return Broken(data.chunk, "data after recompute");
  if (static_cast<int>(data.level) > chunk.plan_level)
    return Broken(data.chunk, "data before plan");
  if (static_cast<int>(data.level) != chunk.complete) return Broken(data.chunk, "level order");
  if (data.offset != chunk.offset || data.size == 0) return Broken(data.chunk, "offset order");
  if (inside_.has_value() && *inside_ != data.chunk) {
    return Broken(data.chunk, "data inside another chunk's segment");
  }
  if (in_flight + data.size > window) return Broken(data.chunk, "window exceeded");
  const uint64_t segment = spec_.chunks[data.chunk].segment_bytes[data.level];
  chunk.offset += data.size;
  if (chunk.offset > segment) return Broken(data.chunk, "data beyond the segment");
  inside_ = data.chunk;
  if (chunk.offset == segment) {
    chunk.offset = 0;
    ++chunk.complete;
    inside_.reset();
  }
  return absl::OkStatus();
}

void SessionChecker::OnUnavailable(const SendData& data) {
  chunks_[data.chunk] = before_last_;
  inside_.reset();
  if (before_last_.offset > 0 && !before_last_.by_order) inside_ = data.chunk;
}

absl::Status SessionChecker::OnFinish(const Finish& finish, uint64_t bytes_sent) const {
  if (finish.bytes_sent != bytes_sent) return absl::InternalError("summary's bytes are wrong");
  if (finish.chunks.size() != chunks_.size()) return absl::InternalError("summary's chunks");
  double tokens = 0, below = 0;
  for (uint32_t i = 0; i < chunks_.size(); ++i) {
    tokens += spec_.chunks[i].tokens;
    const absl::optional<int> level = finish.chunks[i].level;
    if (level.has_value() && *level < spec_.floor_level) below += spec_.chunks[i].tokens;
  }
  if (below > spec_.floor_below_share * tokens) {
    return absl::InternalError("summary has too many chunks below the floor");
  }
  for (uint32_t i = 0; i < chunks_.size(); ++i) {
    const Chunk& chunk = chunks_[i];
    const absl::optional<int> level = finish.chunks[i].level;
    if (taken_) {
      if (static_cast<uint32_t>(level.value_or(-1) + 1) != taken_->chunks[i]) {
        return Broken(i, "summary is not what was taken");
      }
      continue;
    }
    const bool recompute =
        chunk.recompute || chunk.by_order || spec_.policy == LoadPolicy::kRecompute;
    if (level.has_value() == recompute) return Broken(i, "summary's decision is wrong");
    if (!level) continue;
    if (*level != chunk.plan_level || *level + 1 != chunk.complete) {
      return Broken(i, "finished without what was planned");
    }
  }
  return absl::OkStatus();
}

}  // namespace kvstream

// What the session makes of the client's reports and of losses.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "server/load/adaptive_load_session.h"

namespace kvstream {

absl::Status AdaptiveLoadSession::CheckOrderProgress(const OrderProgress& progress) const {
  absl::Status status = orders_.CheckReport(progress);
  if (!status.ok() || progress.up_to == progress.first) return status;
  if (forward() && policy_ != LoadPolicy::kRecompute && Open().begin < progress.first &&
      !orders_.begun()) {
    return absl::InvalidArgumentError(absl::StrCat("progress begins at chunk ", progress.first,
                                                   ", before which not all was sent"));
  }
  if (progress.newest == OrderProgress::State::kGivenUp &&
      delivery_.complete(progress.up_to - 1) <= BaseOf(progress.up_to - 1) &&
      !Lost(progress.up_to - 1)) {
    return absl::InvalidArgumentError(absl::StrCat("progress gives up chunk ", progress.up_to - 1,
                                                   ", of which not enough was sent"));
  }
  return absl::OkStatus();
}

absl::Status AdaptiveLoadSession::CheckTaken(const ClientProgress& progress) const {
  if (!progress.taken) return absl::OkStatus();
  if (policy_ != LoadPolicy::kDeadline) {
    return absl::InvalidArgumentError("progress takes chunks under a policy without that");
  }
  if (progress.taken->chunks.size() != size()) {
    return absl::InvalidArgumentError(
        absl::StrCat("progress takes ", progress.taken->chunks.size(), " chunks of ", size()));
  }
  const OrderProgress& order = progress.order;
  for (uint32_t chunk = 0; chunk < size(); ++chunk) {
    const uint32_t level_count = progress.taken->chunks[chunk];
    const bool begun = chunk >= order.first && chunk < order.up_to;
    const bool possible = level_count == 0
                              ? begun || delivery_.recompute(chunk)
                              : level_count > static_cast<uint32_t>(BaseOf(chunk)) &&
                                    level_count <= static_cast<uint32_t>(delivery_.complete(chunk));
    if (!possible) {
      return absl::InvalidArgumentError(
          absl::StrCat("progress takes chunk ", chunk, " as it cannot have it"));
    }
  }
  return absl::OkStatus();
}

absl::Status AdaptiveLoadSession::CheckProgress(const ClientProgress& progress) const {
  absl::Status status = CheckOrderProgress(progress.order);
  if (!status.ok()) return status;
  uint32_t deliverable = delivery_.deliverable();
  // Before what was reported the last time all is recomputed, or was given up.
  uint32_t begun = progress.order.first;
  if (orders_.begun()) begun = std::max(begun, orders_.progress().up_to - 1);
  for (uint32_t chunk = begun; chunk < progress.order.up_to; ++chunk) {
    if (!delivery_.recompute(chunk) && delivery_.complete(chunk) == 0) ++deliverable;
  }
  if (progress.chunks_ready > deliverable) {
    return absl::InvalidArgumentError(absl::StrCat("progress reports ", progress.chunks_ready,
                                                   " chunks ready of ", deliverable,
                                                   " that can be"));
  }
  status = CheckTaken(progress);
  if (!status.ok()) return status;
  if (progress.recompute_time < absl::ZeroDuration()) {
    return absl::InvalidArgumentError("progress reports a negative recompute time");
  }
  for (uint32_t chunk : progress.damaged_chunks) {
    if (chunk >= size() || (!delivery_.touched(chunk) && !delivery_.recompute(chunk))) {
      return absl::InvalidArgumentError(
          absl::StrCat("progress reports chunk ", chunk, " damaged, of which nothing was sent"));
    }
  }
  return absl::OkStatus();
}

absl::Status AdaptiveLoadSession::OnProgress(const ClientProgress& progress, absl::Duration now) {
  if (!failure_.ok()) return failure_;
  if (taken_.has_value()) {
    failure_ = absl::InvalidArgumentError("progress after the chunks were taken");
    return failure_;
  }
  absl::Status status = CheckProgress(progress);
  bool recomputed = false;
  const uint64_t acked = estimator_.acked_bytes();
  // The ledger is checked before the estimator changes: both are only changed by a report that is
  // possible as a whole.
  if (status.ok()) status = estimator_.CheckReport(progress.bytes_received, progress.clock);
  if (status.ok()) TakeOrderProgress(progress.order, now);
  if (status.ok()) {
    status = ledger_.OnReport(progress.recomputed_up_to, progress.recomputed_tokens,
                              progress.recompute_time, now, &recomputed);
  }
  if (status.ok()) status = estimator_.OnReport(progress.bytes_received, progress.clock, now);
  if (!status.ok()) {
    failure_ = status;
    return status;
  }
  PopArrived();
  if (options_.gate != nullptr) {
    options_.gate->OnAcknowledged(estimator_.acked_bytes() - acked, Demand(), now);
  }
  if (policy_ == LoadPolicy::kDeadline || ability_ != RecomputeAbility::kNone) {
    queue_.bytes(estimator_.unacked_bytes(), Estimate(now).rate, estimator_.rtt_min_s(), now);
  }
  if (ledger_.awaits_arrival(now)) ledger_.OnArrivalBy(ArrivalBy(now));
  decoder_.OnReport(estimator_.acked_bytes(), PromisedRecompute(now), now);
  if (progress.chunks_ready == delivery_.deliverable() && estimator_.unacked_bytes() == 0) {
    decoder_.OnIdle(now);
  }
  if (policy_ == LoadPolicy::kCacheGen) cachegen_.OnReport(progress.bytes_received, progress.clock);
  if (doubt_ready_ &&
      (progress.chunks_ready < size() || progress.recomputed_tokens > doubt_tokens_ ||
       progress.recomputed_up_to > doubt_up_to_)) {
    doubt_ready_ = false;
  }
  if (estimator_.acked_bytes() > acked || recomputed || progress.chunks_ready > chunks_ready_) {
    advanced_at_ = now;
  }
  chunks_ready_ = progress.chunks_ready;
  reported_at_ = now;
  taken_ = progress.taken;
  replan_ = true;
  for (uint32_t chunk : progress.damaged_chunks) {
    // A report may repeat what was answered already.
    if (!delivery_.recompute(chunk))
      LoseChunk(chunk, absl::DataLossError("damaged on arrival"), now);
  }
  return absl::OkStatus();
}

void AdaptiveLoadSession::TakeOrderProgress(const OrderProgress& progress, absl::Duration now) {
  if (progress.up_to == progress.first) return;
  const bool first_time = !orders_.begun();
  const uint32_t begin = first_time ? progress.first : orders_.progress().up_to;
  const bool gives_up = progress.newest == OrderProgress::State::kGivenUp &&
                        orders_.progress().newest != OrderProgress::State::kGivenUp;
  orders_.OnReport(progress);
  // With a suffix everything behind is settled at once.
  uint32_t end = progress.up_to;
  if (ability_ == RecomputeAbility::kSuffix) end = first_time ? size() : begin;
  for (uint32_t chunk = begin; chunk < end; ++chunk) {
    if (!delivery_.recompute(chunk)) ledger_.OnGiven(chunk, /*client_idle=*/false, now);
  }
  if (work_.has_value() && work_->chunk >= begin && work_->chunk < end) work_.reset();
  delivery_.MarkRecompute(begin, end, RecomputeReason::kFaster);
  for (uint32_t chunk = begin; chunk < end; ++chunk) delivery_.SetTold(chunk);
  if (gives_up && delivery_.recompute(progress.up_to - 1) && !Lost(progress.up_to - 1)) {
    ledger_.OnGivenUp(progress.up_to - 1);
    delivery_.UnmarkRecompute(progress.up_to - 1);
    // A refinement of it may have been cut short.
    lowered_.push_back(progress.up_to - 1);
  }
  if (work_.has_value() && work_->kind == Kind::kRace && orders_.newest_begun() != work_->chunk) {
    work_.reset();
  }
}

void AdaptiveLoadSession::PopArrived() {
  while (!in_flight_.empty() && in_flight_.front().end_offset <= estimator_.acked_bytes()) {
    const uint32_t chunk = in_flight_.front().chunk;
    in_flight_.pop_front();
    if (delivery_.complete(chunk) <= BaseOf(chunk)) continue;
    if (forward()) {
      arrived_ = std::max(arrived_, chunk + 1);
    } else {
      arrived_ = std::min(arrived_, chunk);
    }
  }
}

void AdaptiveLoadSession::OnSegmentUnavailable(uint32_t chunk, uint32_t level,
                                               const absl::Status& why, absl::Duration now) {
  if (chunk >= size()) return;
  if (last_sent_ && last_sent_->chunk == chunk && last_sent_->level == level) {
    if (!estimator_.OnUnsent(last_sent_->size)) {
      failure_ = absl::InvalidArgumentError("progress reports bytes received that were not sent");
      return;
    }
    delivery_.OnUnsent(*last_sent_);
    if (!in_flight_.empty()) in_flight_.back().end_offset -= last_sent_->size;
    if (options_.gate != nullptr) options_.gate->OnUnsent(last_sent_->size, now);
    last_sent_.reset();
  }
  if (delivery_.recompute(chunk)) {
    race_failed_ = true;
    if (work_.has_value() && work_->chunk == chunk) work_.reset();
  } else if (failure_.ok()) {
    LoseChunk(chunk, why, now);
  }
}

void AdaptiveLoadSession::LoseChunk(uint32_t chunk, const absl::Status& why, absl::Duration now) {
  if (ability_ == RecomputeAbility::kNone) {
    failure_ = absl::DataLossError(
        absl::StrCat("chunk ", chunk, " is lost and the client cannot recompute: ", why.message()));
    return;
  }
  const bool suffix = ability_ == RecomputeAbility::kSuffix;
  GiveToRecompute(chunk, suffix ? size() : chunk + 1, RecomputeReason::kDataLoss, now);
  replan_ = true;
}

}  // namespace kvstream

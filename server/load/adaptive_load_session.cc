#include "server/load/adaptive_load_session.h"

#include <algorithm>
#include <limits>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "server/load/send_window.h"

namespace kvstream {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
// A load that should do without recompute falls back to it when it takes this much longer.
constexpr double kLate = 1.3;
constexpr absl::Duration kLateGrace = absl::Milliseconds(50);
// How long a report of recompute may take beside the round trip.
constexpr absl::Duration kReportGrace = absl::Milliseconds(50);
// Without reports a plan that may still turn to recompute is looked at so often.
constexpr absl::Duration kReplanPeriod = absl::Milliseconds(50);
constexpr double kRecomputePatienceMaxSeconds = 3600;
// Where loads may share the link, a frame of one is what the others wait for.
constexpr double kSharedFrameSeconds = 0.004;
constexpr double kSharedFrameBytesMin = 16 << 10;

BaseOrder OrderFor(const LoadSpec& spec) {
  const bool splits = spec.policy == LoadPolicy::kDeadline || spec.policy == LoadPolicy::kFastest;
  const bool front =
      spec.ability == RecomputeAbility::kFront || spec.ability == RecomputeAbility::kAny;
  return splits && front ? BaseOrder::kBackward : BaseOrder::kForward;
}

int BaseLevelFor(const LoadSpec& spec) {
  return spec.policy == LoadPolicy::kFixed ? spec.level : spec.floor_level;
}

std::vector<int> StopsFor(const LoadSpec& spec, const ChunkTable& chunks,
                          const LoadSessionOptions& options) {
  if (spec.policy != LoadPolicy::kDeadline) return {};
  std::vector<uint64_t> level_bytes(chunks.levels());
  for (int level = 0; level < chunks.levels(); ++level) {
    level_bytes[level] = chunks.bytes(0, chunks.size(), level);
    if (level > 0) level_bytes[level] -= chunks.bytes(0, chunks.size(), level - 1);
  }
  return RefinementStops(level_bytes, options.level_weights, spec.floor_level);
}

absl::Duration MarginFor(const LoadSpec& spec, const LoadSessionOptions& options) {
  if (!spec.deadline) return absl::ZeroDuration();
  return std::min(options.deadline_margin + *spec.deadline / 100, *spec.deadline / 10);
}

}  // namespace

absl::StatusOr<std::unique_ptr<LoadSession>> LoadSession::Create(LoadSpec spec,
                                                                 const LoadSessionOptions& options,
                                                                 absl::Duration now) {
  absl::Status status = spec.Validate();
  if (!status.ok()) return status;
  status = options.Validate();
  if (!status.ok()) return status;
  if (!options.level_weights.empty() &&
      options.level_weights.size() != spec.chunks[0].segment_bytes.size()) {
    return absl::InvalidArgumentError("level_weights must have one value per level");
  }
  return std::unique_ptr<LoadSession>(new AdaptiveLoadSession(spec, options, now));
}

AdaptiveLoadSession::AdaptiveLoadSession(const LoadSpec& spec, const LoadSessionOptions& options,
                                         absl::Duration now)
    : policy_(spec.policy),
      ability_(spec.ability),
      options_(options),
      chunks_(spec.chunks),
      created_(now),
      deadline_(spec.deadline),
      margin_(MarginFor(spec, options)),
      base_level_(BaseLevelFor(spec)),
      decode_s_per_token_(spec.decode_seconds_per_token),
      can_stop_(spec.recompute_can_stop),
      startup_rate_(spec.bandwidth_hint_bytes_per_second > 0 ? spec.bandwidth_hint_bytes_per_second
                                                             : options.startup_bytes_per_second),
      estimator_(spec.bandwidth_hint_bytes_per_second),
      cachegen_(spec.bandwidth_hint_bytes_per_second),
      orders_(chunks_.size(), spec.ability, spec.recompute_can_stop),
      ledger_(&chunks_,
              PrefillModel(spec.prefill_seconds_per_token, spec.prefill_seconds_per_token_pair)),
      delivery_(&chunks_, OrderFor(spec), StopsFor(spec, chunks_, options)),
      boundary_(delivery_.order() == BaseOrder::kForward ? chunks_.size() : 0),
      arrived_(delivery_.order() == BaseOrder::kForward ? 0 : chunks_.size()),
      reported_at_(now),
      advanced_at_(now) {
  if (policy_ == LoadPolicy::kRecompute) {
    GiveToRecompute(0, size(), RecomputeReason::kPolicy, now);
    tellings_.clear();
    orders_.Want({0, size(), absl::InfiniteDuration()}, 0, absl::ZeroDuration());
  }
}

// ------------------------------------------------------------------------------------ the loop

LoadAction AdaptiveLoadSession::Next(absl::Duration now) {
  last_sent_.reset();
  refused_ = false;
  while (true) {
    if (!failure_.ok()) return Fail{failure_};
    if (taken_.has_value()) return Summary();
    if (absl::optional<SendPlan> plan = TellNext()) return *plan;
    if (absl::optional<SendOrder> order = orders_.Take()) return *order;
    if (replan_) {
      replan_ = false;
      Replan(now);
      continue;
    }
    if (work_.has_value()) {
      if (absl::optional<LoadAction> action = Proceed(now)) return *action;
      break;
    }
    if (!PickWork(now)) break;
  }
  if (Done()) return Summary();
  const absl::Duration idle_at = IdleAt();
  if (now >= idle_at) {
    failure_ = absl::DeadlineExceededError(
        absl::StrCat("client made no progress for ", absl::FormatDuration(now - advanced_at_)));
    return Fail{failure_};
  }
  // A silent link, or a client that is slow to recompute, must be noticed without an event.
  const bool watch = plans_splits() && !delivery_.all_decided() && ledger_.model().known() &&
                     ability_ != RecomputeAbility::kNone;
  absl::Duration until = idle_at;
  if (refused_) until = std::min(until, options_.gate->AskAgainAt());
  if (!watch) return Wait{until};
  replan_ = true;
  return Wait{std::min(until, now + kReplanPeriod)};
}

absl::optional<SendPlan> AdaptiveLoadSession::TellNext() {
  while (!lowered_.empty()) {
    const uint32_t chunk = lowered_.front();
    lowered_.pop_front();
    const int level = delivery_.complete(chunk) - 1;
    if (delivery_.recompute(chunk) || delivery_.plan_level(chunk) <= level) continue;
    SendPlan plan;
    plan.chunk = chunk;
    plan.decision.level = level;
    delivery_.SetPlanLevel(chunk, level);
    delivery_.DropPartial(chunk);
    return plan;
  }
  while (!tellings_.empty()) {
    Telling& telling = tellings_.front();
    if (telling.begin >= telling.end) {
      tellings_.pop_front();
      continue;
    }
    const uint32_t chunk = telling.begin++;
    if (delivery_.told_recompute(chunk)) continue;
    SendPlan plan;
    plan.chunk = chunk;
    plan.decision = delivery_.decision(chunk);
    plan.first_plan_of_chunk = !delivery_.planned(chunk);
    delivery_.SetTold(chunk);
    return plan;
  }
  return absl::nullopt;
}

absl::optional<LoadAction> AdaptiveLoadSession::Proceed(absl::Duration now) {
  const uint32_t chunk = work_->chunk;
  if (delivery_.plan_level(chunk) < work_->target) {
    SendPlan plan;
    plan.chunk = chunk;
    plan.decision.level = work_->target;
    plan.first_plan_of_chunk = !delivery_.planned(chunk);
    delivery_.SetPlanLevel(chunk, work_->target);
    return LoadAction(plan);
  }
  const BandwidthEstimate estimate = Estimate(now);
  const uint64_t window = Window(estimate, work_->kind == Kind::kRefinement);
  const uint64_t in_flight = estimator_.unacked_bytes();
  const bool certain = base_is_certain() && work_->kind != Kind::kRefinement &&
                       !(options_.gate != nullptr && options_.gate->shared());
  uint64_t frame = FrameBytes(estimate, certain, estimator_.sent_bytes(), options_);
  if (options_.gate != nullptr) {
    const double most = std::max(estimate.rate * kSharedFrameSeconds, kSharedFrameBytesMin);
    frame = static_cast<uint64_t>(std::min(static_cast<double>(frame), most));
  }
  const SendData piece = delivery_.NextPiece(chunk, std::min(frame, window));
  if (in_flight + piece.size > window || !Admitted(piece.size, now)) return absl::nullopt;

  if (in_flight == 0 && ledger_.idle()) advanced_at_ = std::max(advanced_at_, now);
  if (policy_ == LoadPolicy::kCacheGen && piece.level == 0 && piece.offset == 0) {
    cachegen_.OnChunkStart(estimator_.sent_bytes(), chunks_.bytes(chunk, chunk + 1, work_->target));
  }
  estimator_.OnSent(piece.size, now);
  queue_.OnSent(piece.size, estimate.rate, now);
  delivery_.OnSent(piece);
  if (in_flight_.empty() || in_flight_.back().chunk != chunk) in_flight_.push_back({chunk, 0});
  in_flight_.back().end_offset = estimator_.sent_bytes();
  last_sent_ = piece;
  if (delivery_.complete(chunk) > work_->target) FinishWork();
  return LoadAction(piece);
}

bool AdaptiveLoadSession::Admitted(uint64_t bytes, absl::Duration now) {
  if (options_.gate == nullptr) return true;
  if (options_.gate->Admit(bytes, Demand(), now)) return true;
  refused_ = true;
  if (options_.gate->shared()) estimator_.OnThrottled();
  // The client cannot be blamed for what it was not sent.
  if (estimator_.unacked_bytes() == 0 && ledger_.idle()) advanced_at_ = std::max(advanced_at_, now);
  return false;
}

SendDemand AdaptiveLoadSession::Demand() const {
  SendDemand demand;
  if (deadline_) {
    const double decode_s = chunks_.tokens(size() - 1) * decode_s_per_token_;
    demand.due = created_ + *deadline_ - absl::Seconds(decode_s);
  }
  if (work_.has_value() && work_->kind != Kind::kBase) {
    // It has begun, so it will be finished.
    const uint32_t chunk = work_->chunk;
    demand.bytes = delivery_.NextPiece(chunk, std::numeric_limits<uint64_t>::max()).size;
    for (int level = delivery_.complete(chunk) + 1; level <= work_->target; ++level) {
      demand.bytes += chunks_.segment_bytes(chunk, level);
    }
  }
  demand.refinement = true;
  if (delivery_.all_decided()) return demand;
  const OpenRange open = delivery_.open();
  const bool forward = delivery_.order() == BaseOrder::kForward;
  const uint32_t begin = forward ? open.begin : std::max(open.begin, boundary_);
  const uint32_t end = forward ? std::min(open.end, boundary_) : open.end;
  if (begin >= end) return demand;
  demand.refinement = false;
  const uint64_t bytes = chunks_.bytes(begin, end, base_level_);
  demand.bytes += bytes - std::min(bytes, open.sent_bytes);
  return demand;
}

BandwidthEstimate AdaptiveLoadSession::Estimate(absl::Duration now) const {
  const BandwidthEstimate own = estimator_.estimate(now);
  return options_.gate == nullptr ? own : options_.gate->Expect(own, now);
}

uint64_t AdaptiveLoadSession::Window(const BandwidthEstimate& estimate, bool refinement) const {
  if (base_is_certain() && !refinement) return options_.window_bytes_max;
  return WindowBytes(estimate, estimator_.rtt_min(), estimator_.acked_bytes(), options_);
}

void AdaptiveLoadSession::FinishWork() {
  if (work_->kind == Kind::kBase) decoder_.OnFirstOf(work_->chunk);
  if (!work_->with_first) {
    decoder_.OnSent(estimator_.sent_bytes(), chunks_.tokens(work_->chunk) * decode_s_per_token_,
                    work_->kind == Kind::kRefinement && recompute_reads_refined());
  }
  if (work_->kind == Kind::kBase) {
    delivery_.CloseFrontier();
    replan_ = true;
  }
  work_.reset();
}

// ------------------------------------------------------------------------------------ planning

double AdaptiveLoadSession::TimeLeft(absl::Duration now) const {
  if (!deadline_) return kInfinity;
  return absl::ToDoubleSeconds(*deadline_ - margin_ - (now - created_));
}

PlannerView AdaptiveLoadSession::View(absl::Duration now) {
  const BandwidthEstimate estimate = Estimate(now);
  PlannerView view;
  view.rate = estimate.known() ? estimate.rate : startup_rate_;
  view.rate_low = estimate.known() ? estimate.low : startup_rate_;
  // Giving a chunk to recompute is final: not as long as the link may well be faster than it shows.
  if (estimate.lower_bound) view.rate = std::max(view.rate, startup_rate_);
  view.rate_hoped = estimate.lower_bound ? view.rate : view.rate_low;
  if (!delivery_.all_decided() && !estimate.lower_bound) {
    // The link at its mean, where it takes long enough to return to it.
    const OpenRange open = delivery_.open();
    const double open_bytes =
        static_cast<double>(chunks_.bytes(open.begin, open.end, base_level_) - open.sent_bytes);
    const double forecast = estimate.Forecast(open_bytes / view.rate);
    view.rate_low *= forecast / view.rate;
    view.rate = forecast;
  }
  view.rtt_s = absl::ToDoubleSeconds(estimator_.rtt_min());
  const double queued = queue_.bytes(estimator_.unacked_bytes(), estimate.rate, view.rtt_s, now);
  const double shared_s =
      options_.gate == nullptr ? 0 : absl::ToDoubleSeconds(options_.gate->QueueDelay(now));
  view.latency_s = view.rtt_s + std::max(queued / view.rate, shared_s);
  view.latency_low_s = view.rtt_s + std::max(queued / view.rate_low, shared_s);
  view.decode_s_per_token = decode_s_per_token_;
  view.time_left_s = TimeLeft(now);
  return view;
}

void AdaptiveLoadSession::Replan(absl::Duration now) {
  if (!plans_splits() || delivery_.all_decided()) return;
  SplitInput input;
  input.chunks = &chunks_;
  input.order = delivery_.order();
  input.base_level = base_level_;
  input.open = delivery_.open();
  input.prefill = ledger_.model_now(front_end(), estimator_.rtt_min() + kReportGrace, now);
  input.may_recompute = ability_ != RecomputeAbility::kNone && input.prefill.known();
  if (!input.may_recompute) return;
  input.view = View(now);
  input.recompute_backlog_s = ledger_.backlog_s(front_end(), input.prefill, now);
  input.refinement_bytes = delivery_.refinement_bytes();
  const Split split =
      policy_ == LoadPolicy::kDeadline ? SplitForQuality(input) : SplitForSpeed(input);
  boundary_ = split.boundary;
  if (forward()) {
    OrderSuffix(input, split, now);
  } else {
    OrderFront(input, split, now);
  }
  // A chunk that is partly sent may wait: until the client has come to it, or the plan changes
  // back.
  if (work_.has_value() && work_->kind == Kind::kBase && !forward() && work_->chunk < boundary_) {
    work_.reset();
  }
  // A base that has to be sent after all does not wait for a refinement.
  if (work_.has_value() && work_->kind == Kind::kRefinement && StreamsFrontier()) {
    lowered_.push_back(work_->chunk);
    work_.reset();
  }
}

absl::Duration AdaptiveLoadSession::AnywayAt(const SplitInput& input, absl::Duration now) const {
  if (policy_ != LoadPolicy::kDeadline) return absl::InfiniteDuration();
  const uint32_t begin = forward() ? arrived_ : orders_.progress().up_to;
  const uint32_t end = forward() ? size() : arrived_;
  const double work_s = input.recompute_backlog_s +
                        input.prefill.safety() * input.prefill.seconds(chunks_, begin, end);
  const absl::Duration at = now - created_ + absl::Seconds(input.view.time_left_s - work_s);
  return at > now - created_ ? at : absl::InfiniteDuration();
}

void AdaptiveLoadSession::OrderSuffix(const SplitInput& input, const Split& split,
                                      absl::Duration now) {
  if (orders_.begun()) return;
  orders_.Want({split.boundary, size(), AnywayAt(input, now)}, input.open.begin, now - created_);
}

void AdaptiveLoadSession::OrderFront(const SplitInput& input, const Split& split,
                                     absl::Duration now) {
  const uint32_t next = orders_.progress().up_to;
  SendOrder order = {0, size(), absl::InfiniteDuration()};
  const absl::Duration late = now - created_ + absl::Seconds(kLate * split.expected_s) + kLateGrace;
  const bool link_unknown =
      estimator_.estimate(now).lower_bound && estimator_.estimate(now).hint == 0;
  bool wanted = split.boundary > input.open.begin || (can_stop_ && link_unknown);
  if (policy_ == LoadPolicy::kDeadline) {
    wanted = wanted || !split.finest;
  } else {
    // Both ends work until they meet, wherever that is.
    boundary_ = input.open.begin;
  }
  if (!wanted) {
    order.end = next;
    if (policy_ == LoadPolicy::kDeadline) {
      order.anyway_at = AnywayAt(input, now);
    } else if (can_stop_) {
      order.anyway_at = late;
    }
  } else if (!can_stop_ && policy_ == LoadPolicy::kDeadline) {
    // A chunk begun that would not be done in time could not be saved by its bytes.
    order.end = std::max(next, split.boundary);
    order.anyway_at = AnywayAt(input, now);
    if (order.anyway_at == absl::InfiniteDuration()) order.anyway_at = late;
  } else if (!can_stop_ && work_.has_value() && work_->kind == Kind::kBase &&
             work_->chunk == next && RaceIsWon(next, now)) {
    order.end = next;
  }
  orders_.Want(order, next, now - created_);
}

void AdaptiveLoadSession::GiveToRecompute(uint32_t begin, uint32_t end, RecomputeReason reason,
                                          absl::Duration now) {
  // The plan queues behind the data in flight.
  const absl::Duration arrives = ArrivalBy(now);
  for (uint32_t chunk = begin; chunk < end; ++chunk) {
    if (delivery_.recompute(chunk)) continue;
    if (estimator_.unacked_bytes() == 0 && ledger_.idle()) advanced_at_ = now;
    if (delivery_.complete(chunk) > 0) {
      doubt_ready_ = true;
      doubt_tokens_ = ledger_.reported_tokens();
      doubt_up_to_ = ledger_.recomputed_up_to();
    }
    const bool idle = ledger_.backlog_s(front_end(), ledger_.model(), now) <= 0;
    ledger_.OnGiven(chunk, idle, arrives);
  }
  if (work_.has_value() && work_->chunk >= begin && work_->chunk < end) work_.reset();
  delivery_.MarkRecompute(begin, end, reason);
  tellings_.push_back({begin, end});
}

bool AdaptiveLoadSession::PickWork(absl::Duration now) {
  if (delivery_.all_decided()) return PickRace(now) || PickRefinement(now);
  const uint32_t chunk = delivery_.frontier();
  if (policy_ == LoadPolicy::kCacheGen) {
    const bool text =
        (ability_ == RecomputeAbility::kAny || ability_ == RecomputeAbility::kSuffix) &&
        ledger_.model().known();
    absl::optional<double> recompute_s;
    if (text) recompute_s = ledger_.model().seconds(chunks_, chunk, size());
    // The paper knows no margin.
    const double left_s = absl::ToDoubleSeconds(*deadline_ - (now - created_));
    const absl::optional<int> level = DecideCacheGen(
        chunks_, chunk, base_level_, cachegen_.bytes_per_second(), left_s, recompute_s);
    if (!level) {
      const bool suffix = ability_ == RecomputeAbility::kSuffix;
      GiveToRecompute(chunk, suffix ? size() : chunk + 1, RecomputeReason::kFaster, now);
      return true;
    }
    work_ = Work{chunk, *level, Kind::kBase};
    return true;
  }
  if (!StreamsFrontier()) return PickRefinement(now);
  work_ = Work{chunk, base_level_, Kind::kBase};
  return true;
}

bool AdaptiveLoadSession::RaceIsWon(uint32_t chunk, absl::Duration now) {
  const PlannerView view = View(now);
  uint64_t bytes = chunks_.bytes(chunk, chunk + 1, base_level_);
  bytes -= std::min(bytes, delivery_.sent_bytes(chunk));
  const double arrives_s = view.latency_s - view.rtt_s / 2 +
                           static_cast<double>(bytes) / view.rate +
                           chunks_.tokens(chunk) * decode_s_per_token_;
  const PrefillModel model =
      ledger_.model_now(front_end(), estimator_.rtt_min() + kReportGrace, now);
  double recomputed_s = ledger_.backlog_s(front_end(), model, now);
  if (orders_.newest_begun() != chunk) recomputed_s += model.seconds(chunks_, chunk, chunk + 1);
  if (policy_ == LoadPolicy::kDeadline && recomputed_s * model.safety() <= view.time_left_s) {
    return false;
  }
  return arrives_s < recomputed_s;
}

bool AdaptiveLoadSession::PickRace(absl::Duration now) {
  const absl::optional<uint32_t> newest = orders_.newest_begun();
  if (!can_stop_ || race_failed_ || forward() || !newest ||
      delivery_.complete(*newest) > base_level_ || Lost(*newest) ||
      policy_ == LoadPolicy::kRecompute || !ledger_.model().known() || !RaceIsWon(*newest, now)) {
    return false;
  }
  work_ = Work{*newest, base_level_, Kind::kRace};
  return true;
}

absl::Duration AdaptiveLoadSession::ArrivalBy(absl::Duration now) {
  const PlannerView view = View(now);
  return now + absl::Seconds(view.latency_low_s - view.rtt_s / 2);
}

double AdaptiveLoadSession::PromisedRecompute(absl::Duration now) const {
  const PrefillModel& model = ledger_.model();
  double work_s = ledger_.backlog_s(size(), model, now);
  if (forward() && orders_.standing() && !orders_.begun() && plans_splits()) {
    work_s += model.seconds(chunks_, orders_.told_order().first, size());
  }
  return work_s * model.safety();
}

bool AdaptiveLoadSession::PickRefinement(absl::Duration now) {
  if (policy_ != LoadPolicy::kDeadline || !Estimate(now).known()) return false;
  // Segments of different chunks may only meet at segment boundaries.
  if (!delivery_.all_decided() && delivery_.touched(delivery_.frontier())) return false;
  const absl::optional<DeliveryState::Refinement> next = delivery_.NextRefinement();
  // What the client is at may not have arrived there.
  if (!next || (!forward() && next->chunk < orders_.progress().up_to)) return false;
  const double decoder_busy_s =
      decoder_.busy_s(recompute_reads_refined() ? PromisedRecompute(now) : 0, now);
  PlannerView view = View(now);
  // What comes too late costs nothing but the link's time: expectation instead of promise.
  view.rate_low = view.rate;
  view.latency_low_s = view.latency_s;
  view.time_left_s = absl::ToDoubleSeconds(*deadline_ - (now - created_));
  // A low estimate that nothing would ever correct.
  if (estimator_.unacked_bytes() == 0) view.rate_low *= 4;
  const double received_s = view.latency_low_s + static_cast<double>(next->bytes) / view.rate_low;
  // Not ahead of a cut that may still move.
  const bool with_first =
      (delivery_.all_decided() || !forward()) &&
      received_s < decoder_.first_begins_s(next->chunk, decoder_.busy_s(0, now));
  if (!with_first && !FitsInTime(view, next->bytes, chunks_.tokens(next->chunk), decoder_busy_s)) {
    return false;
  }
  work_ = Work{next->chunk, next->target, Kind::kRefinement, with_first};
  return true;
}

// ------------------------------------------------------------------------------------ events

absl::Status AdaptiveLoadSession::CheckOrderProgress(const OrderProgress& progress) const {
  absl::Status status = orders_.CheckReport(progress);
  if (!status.ok() || progress.up_to == progress.first) return status;
  if (forward() && policy_ != LoadPolicy::kRecompute && delivery_.open().begin < progress.first &&
      !orders_.begun()) {
    return absl::InvalidArgumentError(absl::StrCat("progress begins at chunk ", progress.first,
                                                   ", before which not all was sent"));
  }
  if (progress.newest == OrderProgress::State::kGivenUp &&
      delivery_.complete(progress.up_to - 1) <= base_level_ && !Lost(progress.up_to - 1)) {
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
                              : level_count > static_cast<uint32_t>(base_level_) &&
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
  for (uint32_t chunk = progress.order.first; chunk < progress.order.up_to; ++chunk) {
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
  ledger_.OnArrivalBy(ArrivalBy(now));
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
    if (delivery_.complete(chunk) <= base_level_) continue;
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

// ------------------------------------------------------------------------------------ the end

bool AdaptiveLoadSession::Done() const {
  if (!delivery_.all_decided() || work_.has_value() || !tellings_.empty() || !lowered_.empty() ||
      chunks_ready_ != size() || doubt_ready_) {
    return false;
  }
  // What is in flight for chunks that the client recomputed is nobody's any more.
  return estimator_.unacked_bytes() == 0 ||
         std::all_of(in_flight_.begin(), in_flight_.end(),
                     [this](const InFlight& sent) { return delivery_.recompute(sent.chunk); });
}

Finish AdaptiveLoadSession::Summary() const {
  Finish finish;
  finish.load_delay = reported_at_ - created_;
  finish.chunks.reserve(size());
  for (uint32_t chunk = 0; chunk < size(); ++chunk) {
    finish.chunks.push_back(delivery_.decision(chunk));
    if (!taken_) continue;
    if (taken_->chunks[chunk] == 0) {
      finish.chunks.back().level.reset();
    } else {
      finish.chunks.back().level = static_cast<int>(taken_->chunks[chunk]) - 1;
    }
  }
  finish.bandwidth_estimate_bytes_per_second = bandwidth_estimate_bytes_per_second();
  finish.bytes_sent = estimator_.sent_bytes();
  finish.deadline_missed =
      taken_ ? taken_->late : deadline_.has_value() && finish.load_delay > *deadline_;
  return finish;
}

absl::Duration AdaptiveLoadSession::IdleAt() const {
  const double extra_s =
      std::min(options_.recompute_patience * ledger_.outstanding_s(), kRecomputePatienceMaxSeconds);
  const absl::Duration expected =
      advanced_at_ + options_.client_idle_limit + absl::Seconds(extra_s);
  if (ledger_.idle()) return expected;
  // It may be slower than anybody thought, but says that it is there.
  const absl::Duration cap = advanced_at_ + absl::Seconds(kRecomputePatienceMaxSeconds);
  return std::max(expected, std::min(reported_at_ + options_.client_idle_limit, cap));
}

double AdaptiveLoadSession::bandwidth_estimate_bytes_per_second() const {
  return estimator_.measured_rate();
}

LoadSessionState AdaptiveLoadSession::state(absl::Duration now) const {
  const BandwidthEstimate estimate = Estimate(now);
  LoadSessionState state;
  state.bandwidth_bytes_per_second = estimate.rate;
  state.bandwidth_is_lower_bound = estimate.lower_bound;
  state.bandwidth_low_bytes_per_second = estimate.low;
  state.estimate_mean_square_log_error = estimator_.mean_square_log_error();
  state.rtt_min = estimator_.rtt_min();
  state.bytes_sent = estimator_.sent_bytes();
  state.bytes_acknowledged = estimator_.acked_bytes();
  state.window_bytes = Window(estimate, work_.has_value() && work_->kind == Kind::kRefinement);
  state.chunks_ready = chunks_ready_;
  state.chunks_to_recompute = delivery_.recompute_chunks();
  return state;
}

}  // namespace kvstream

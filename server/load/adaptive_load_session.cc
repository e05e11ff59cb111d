#include "server/load/adaptive_load_session.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "server/load/send_window.h"

namespace kvstream {
namespace {

// A profile's steps fall by three from level to level (docs/format.md), so mean squared errors fall
// by nine: what a level gains over the one below, where nobody says better.
constexpr double kDamagePerLevel = 9;
// Parts of a deadline that a window may hold, and its least queue.
constexpr double kQueueParts = 16;
constexpr double kQueueSecondsMin = 0.025;
// Without reports a plan that may still turn to recompute is looked at so often.
constexpr absl::Duration kReplanPeriod = absl::Milliseconds(50);
constexpr double kRecomputePatienceMaxSeconds = 3600;
// Where loads may share the link, a frame of one is what the others wait for.
constexpr double kSharedFrameSeconds = 0.004;
constexpr double kSharedFrameBytesMin = 16 << 10;
// As far as a frame grows while nothing is known of the link but that this load has it alone.
constexpr double kUnsharedFrameBytes = 256 << 10;

BaseOrder OrderFor(const LoadSpec& spec) {
  const bool splits = spec.policy == LoadPolicy::kDeadline || spec.policy == LoadPolicy::kFastest;
  const bool front =
      spec.ability == RecomputeAbility::kFront || spec.ability == RecomputeAbility::kAny;
  return splits && front ? BaseOrder::kBackward : BaseOrder::kForward;
}

int BaseLevelFor(const LoadSpec& spec) {
  return spec.policy == LoadPolicy::kFixed ? spec.level : spec.floor_level;
}

// What there is to send. Under kFastest nothing beyond the floor is: chunks that come below it are
// to all else as if they had lost the floor. Segments that the client holds count for nothing.
std::vector<StoredChunkSizes> ChunksToSend(const LoadSpec& spec) {
  std::vector<StoredChunkSizes> chunks = spec.chunks;
  double tokens = 0;
  for (const StoredChunkSizes& chunk : chunks) tokens += chunk.tokens;
  double allowed = spec.floor_below_share * tokens;
  const bool forward = OrderFor(spec) == BaseOrder::kForward;
  for (size_t n = 0; n < chunks.size() && spec.floor_below_share > 0; ++n) {
    const size_t i = forward ? n : chunks.size() - 1 - n;
    if (!spec.held_levels.empty() && spec.held_levels[i] > 0) continue;  // at the floor already
    allowed -= chunks[i].tokens;
    if (allowed < 0) break;
    chunks[i].segment_bytes.resize(spec.floor_level);
  }
  for (size_t i = 0; i < spec.held_levels.size(); ++i) {
    std::fill_n(chunks[i].segment_bytes.begin(), spec.held_levels[i], 0);
  }
  return chunks;
}

ChunkTable TableFor(const LoadSpec& spec) {
  const bool all = spec.held_levels.empty() && spec.floor_below_share == 0;
  return all ? ChunkTable(spec.chunks) : ChunkTable(ChunksToSend(spec));
}

// unheld: the table of ChunksToSend(); stops are those of the whole chunks.
std::vector<int> StopsFor(const LoadSpec& spec, const ChunkTable& unheld,
                          const LoadSessionOptions& options) {
  if (spec.policy != LoadPolicy::kDeadline) return {};
  absl::optional<ChunkTable> whole;
  if (!spec.held_levels.empty()) whole.emplace(spec.chunks);
  const ChunkTable& chunks = whole.has_value() ? *whole : unheld;
  std::vector<uint64_t> level_bytes(chunks.levels());
  for (int level = 0; level < chunks.levels(); ++level) {
    level_bytes[level] = chunks.bytes(0, chunks.size(), level);
    if (level > 0) level_bytes[level] -= chunks.bytes(0, chunks.size(), level - 1);
    // What it would be if all had it: weights are of a level, not of how many have it.
    const uint32_t count = chunks.with_level(0, chunks.size(), level);
    if (count == chunks.size()) continue;
    const double mean = static_cast<double>(level_bytes[level]) / count;
    level_bytes[level] = static_cast<uint64_t>(mean * chunks.size());
  }
  std::vector<double> weights = options.level_weights;
  for (double weight = 1; static_cast<int>(weights.size()) < chunks.levels();) {
    weights.push_back(weight);
    weight /= kDamagePerLevel;
  }
  return RefinementStops(level_bytes, weights, spec.floor_level);
}

absl::Duration MarginFor(const LoadSpec& spec, const LoadSessionOptions& options) {
  if (!spec.deadline) return absl::ZeroDuration();
  return std::min(options.deadline_margin + *spec.deadline / 100, *spec.deadline / 10);
}

// What waits before the link cannot be decided again: no large part of the time that there is.
double QueueSecondsFor(const LoadSpec& spec) {
  if (spec.policy != LoadPolicy::kDeadline) return kWindowQueueSeconds;
  const double part_s = absl::ToDoubleSeconds(*spec.deadline) / kQueueParts;
  return std::min(std::max(part_s, kQueueSecondsMin), kWindowQueueSeconds);
}

}  // namespace

// Callers hold this as a function that takes the specification over.
// NOLINTNEXTLINE(performance-unnecessary-value-param)
absl::StatusOr<std::unique_ptr<LoadSession>> LoadSession::Create(LoadSpec spec,
                                                                 const LoadSessionOptions& options,
                                                                 absl::Duration now) {
  absl::Status status = spec.Validate();
  if (!status.ok()) return status;
  status = options.Validate();
  if (!status.ok()) return status;
  if (!options.level_weights.empty() &&
      options.level_weights.size() != static_cast<size_t>(LevelsOf(spec.chunks))) {
    return absl::InvalidArgumentError("level_weights must have one value per level");
  }
  return std::unique_ptr<LoadSession>(new AdaptiveLoadSession(spec, options, now));
}

AdaptiveLoadSession::AdaptiveLoadSession(const LoadSpec& spec, const LoadSessionOptions& options,
                                         absl::Duration now)
    : policy_(spec.policy),
      ability_(spec.ability),
      options_(options),
      chunks_(TableFor(spec)),
      created_(now),
      deadline_(spec.deadline),
      due_(now + (spec.deadline ? *spec.deadline : absl::InfiniteDuration())),
      margin_(MarginFor(spec, options)),
      base_level_(std::min(BaseLevelFor(spec), chunks_.levels() - 1)),
      decode_s_per_token_(spec.decode_seconds_per_token),
      can_stop_(spec.recompute_can_stop),
      queue_s_(QueueSecondsFor(spec)),
      startup_rate_(spec.bandwidth_hint_bytes_per_second > 0 ? spec.bandwidth_hint_bytes_per_second
                                                             : options.startup_bytes_per_second),
      unknown_rtt_s_(spec.round_trip_hint_seconds > 0 ? spec.round_trip_hint_seconds
                                                      : kUnknownRttSeconds),
      estimator_(spec.bandwidth_hint_bytes_per_second),
      cachegen_(spec.bandwidth_hint_bytes_per_second),
      orders_(chunks_.size(), spec.ability, spec.recompute_can_stop),
      ledger_(&chunks_,
              PrefillModel(spec.prefill_seconds_per_token, spec.prefill_seconds_per_token_pair)),
      delivery_(&chunks_, OrderFor(spec), StopsFor(spec, chunks_, options), spec.held_levels),
      boundary_(delivery_.order() == BaseOrder::kForward ? chunks_.size() : 0),
      arrived_(delivery_.order() == BaseOrder::kForward ? delivery_.open().begin
                                                        : delivery_.open().end),
      reported_at_(now),
      advanced_at_(now) {
  if (policy_ == LoadPolicy::kRecompute) {
    GiveToRecompute(0, size(), RecomputeReason::kPolicy, now);
    tellings_.clear();
    orders_.Want({0, size(), absl::InfiniteDuration(), {}}, 0, absl::ZeroDuration());
  }
}

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
    double most = std::max(estimate.rate * kSharedFrameSeconds, kSharedFrameBytesMin);
    // Nobody has to wait yet, and what is on its way is many times this.
    if (certain && estimate.samples == 0) most = std::max(most, kUnsharedFrameBytes);
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
  sent_refinement_ = work_->kind == Kind::kRefinement;
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

OpenRange AdaptiveLoadSession::Open() const {
  OpenRange open = delivery_.open();
  if (open.begin < open.end) {
    const uint32_t chunk = delivery_.frontier();
    open.sent_bytes = std::min(open.sent_bytes, chunks_.bytes(chunk, chunk + 1, base_level_));
  }
  return open;
}

SendDemand AdaptiveLoadSession::Demand() const {
  SendDemand demand;
  if (deadline_) {
    const double decode_s = chunks_.tokens(size() - 1) * decode_s_per_token_;
    demand.due = due_ - absl::Seconds(decode_s);
  }
  if (work_.has_value()) {
    // It has begun, so it will be finished.
    const uint32_t chunk = work_->chunk;
    const bool open = work_->kind == Kind::kBase && delivery_.complete(chunk) <= BaseOf(chunk);
    demand.bytes =
        chunks_.bytes(chunk, chunk + 1, work_->target) -
        (open ? chunks_.bytes(chunk, chunk + 1, base_level_) : delivery_.sent_bytes(chunk));
  }
  demand.refinement = true;
  if (delivery_.all_decided()) return demand;
  const OpenRange open = Open();
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
  return WindowBytes(estimate, estimator_.rtt_min_s(), estimator_.acked_bytes(), options_,
                     queue_s_);
}

void AdaptiveLoadSession::FinishWork() {
  if (work_->kind == Kind::kBase) decoder_.OnFirstOf(work_->chunk);
  if (!work_->with_first) {
    decoder_.OnSent(estimator_.sent_bytes(), chunks_.tokens(work_->chunk) * decode_s_per_token_,
                    work_->kind == Kind::kRefinement && recompute_reads_refined());
  }
  // Its plan said more.
  if (delivery_.plan_level(work_->chunk) > work_->target) lowered_.push_back(work_->chunk);
  if (work_->kind == Kind::kBase) {
    delivery_.CloseFrontier();
    replan_ = true;
  }
  work_.reset();
}

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
  state.window_bytes =
      Window(estimate, work_.has_value() ? work_->kind == Kind::kRefinement : sent_refinement_);
  state.chunks_ready = chunks_ready_;
  state.chunks_to_recompute = delivery_.recompute_chunks();
  return state;
}

}  // namespace kvstream

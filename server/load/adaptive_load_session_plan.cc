// How the session decides: the division between link and recompute, the orders that follow from it,
// and what is sent next.
#include <algorithm>
#include <limits>
#include <vector>

#include "server/load/adaptive_load_session.h"
#include "server/load/send_window.h"

namespace kvstream {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
// A load that should do without recompute falls back to it when it takes this much longer.
constexpr double kLate = 1.3;
constexpr absl::Duration kLateGrace = absl::Milliseconds(50);
// What recompute may take longer than the model says where it is the last resort.
constexpr double kHedgeSafety = 1.03;
// When a client begins by its own judgement: with so many margins before the deadline and its work
// taken as so many times as long. First with enough in hand; where chunks came too late for that,
// with as much as timers need; and not at all where it is sure to be late.
struct Resort {
  double safety;
  double margins;
};
constexpr Resort kResorts[] = {{1.03, 0.5}, {1.005, 0.05}, {1, 0}};
// A refinement goes deeper at once where the link should carry this much more than that.
constexpr double kDeepDoubt = 1.2;
// How long a report of recompute may take beside the round trip.
constexpr absl::Duration kReportGrace = absl::Milliseconds(50);

}  // namespace

double AdaptiveLoadSession::TimeLeft(absl::Duration now) const {
  return deadline_ ? absl::ToDoubleSeconds(due_ - margin_ - now) : kInfinity;
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
    const OpenRange open = Open();
    const double open_bytes =
        static_cast<double>(chunks_.bytes(open.begin, open.end, base_level_) - open.sent_bytes);
    const double forecast = estimate.Forecast(open_bytes / view.rate);
    view.rate_low *= forecast / view.rate;
    view.rate = forecast;
  }
  view.rtt_s = estimator_.rtt_min_s();
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
  input.open = Open();
  input.prefill = ledger_.model_now(front_end(), estimator_.rtt_min() + kReportGrace, now);
  input.may_recompute = ability_ != RecomputeAbility::kNone && input.prefill.known();
  if (!input.may_recompute) return;
  input.view = View(now);
  // For speed it counts that a word which ends the order comes late.
  input.ordered = policy_ == LoadPolicy::kDeadline && !forward() && orders_.standing() &&
                  orders_.told_order().end == size();
  input.recompute_backlog_s = ledger_.backlog_s(front_end(), input.prefill, now);
  input.refinement_bytes = delivery_.refinement_bytes();
  if (policy_ == LoadPolicy::kDeadline) {
    input.insurance_s = InsuranceSeconds(input, input.prefill.safety(), now);
    if (forward() && AnywayAt(input.view, input.insurance_s, now) == absl::InfiniteDuration()) {
      input.insurance_s = kInfinity;
    }
  }
  // The client has begun, or will at any moment, with all that has not arrived; a suffix unless it
  // would be late.
  if ((insured_ || forward()) && orders_.told_order().anyway_at <= now - created_ &&
      !(forward() && MustHaveBegun(input.prefill, now))) {
    return;
  }
  const Split split =
      policy_ == LoadPolicy::kDeadline ? SplitForQuality(input) : SplitForSpeed(input);
  boundary_ = split.boundary;
  const bool was = insured_;
  insured_ = split.insured;
  if (!insured_ && was) LowerWorkToBase();
  if (delivery_.all_decided()) return;
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

bool AdaptiveLoadSession::MustHaveBegun(const PrefillModel& prefill, absl::Duration now) const {
  const double left_s = absl::ToDoubleSeconds(due_ - now) + estimator_.rtt_min_s();
  return left_s + absl::ToDoubleSeconds(kReportGrace) < prefill.seconds(chunks_, arrived_, size());
}

double AdaptiveLoadSession::InsuranceSeconds(const SplitInput& input, double safety,
                                             absl::Duration now) const {
  const uint32_t begin = forward() ? arrived_ : orders_.progress().up_to;
  const uint32_t end = forward() ? size() : arrived_;
  // What comes before a suffix has to be decoded first.
  const double wait_s = forward() ? std::max(decoder_.busy_s(0, now), 0.0) : 0;
  return std::max(input.recompute_backlog_s, wait_s) +
         safety * input.prefill.seconds(chunks_, begin, end);
}

void AdaptiveLoadSession::LowerWorkToBase() {
  if (!work_.has_value() || work_->kind != Kind::kBase) return;
  const int base = BaseOf(work_->chunk);
  if (work_->target <= base) return;
  work_->target = std::max(base, delivery_.complete(work_->chunk) - 1);
  if (delivery_.complete(work_->chunk) > work_->target) FinishWork();
}

absl::Duration AdaptiveLoadSession::AnywayAt(const PlannerView& view, double insurance_s,
                                             absl::Duration now) const {
  if (policy_ != LoadPolicy::kDeadline) return absl::InfiniteDuration();
  const absl::Duration at = now - created_ + absl::Seconds(view.time_left_s - insurance_s);
  // A suffix that is begun later than that is late; the client has to hear of it first.
  const double rtt_s = view.rtt_s > 0 ? view.rtt_s : unknown_rtt_s_;
  const bool told = orders_.told_order().anyway_at != absl::InfiniteDuration();
  const double word_s = told || !forward() ? 0 : view.latency_s - view.rtt_s + rtt_s;
  return at > now - created_ + absl::Seconds(word_s) ? at : absl::InfiniteDuration();
}

void AdaptiveLoadSession::OrderSuffix(const SplitInput& input, const Split& split,
                                      absl::Duration now) {
  if (orders_.begun()) return;
  // Where recompute is not promised in time it may still be in time, and is the only way left if
  // the link fails. No word would come through then; and one that comes late does harm.
  double insurance_s = input.insurance_s;
  if (!insured_) {
    insurance_s = InsuranceSeconds(input, kHedgeSafety, now);
    const bool told = orders_.told_order().anyway_at != absl::InfiniteDuration();
    const double in_hand_s = input.view.time_left_s - insurance_s - input.view.latency_s;
    const bool may_be_late = in_hand_s < absl::ToDoubleSeconds(kReportGrace);
    if (!told && estimator_.unacked_bytes() > 0 && may_be_late) insurance_s = kInfinity;
  }
  SendOrder order = {split.boundary, size(), AnywayAt(input.view, insurance_s, now), {}};
  if (policy_ == LoadPolicy::kDeadline) order.last_moments = LastMoments(input.prefill);
  orders_.Want(order, input.open.begin, now - created_);
}

std::vector<LastMoment> AdaptiveLoadSession::LastMoments(const PrefillModel& prefill) const {
  std::vector<LastMoment> moments;
  for (const Resort& resort : kResorts) {
    moments.push_back({*deadline_ - resort.margins * margin_,
                       resort.safety * prefill.seconds_per_token(),
                       resort.safety * prefill.seconds_per_token_pair()});
  }
  return moments;
}

void AdaptiveLoadSession::OrderFront(const SplitInput& input, const Split& split,
                                     absl::Duration now) {
  const uint32_t next = orders_.progress().up_to;
  SendOrder order = {0, size(), absl::InfiniteDuration(), {}};
  const absl::Duration late = now - created_ + absl::Seconds(kLate * split.expected_s) + kLateGrace;
  bool wanted = split.boundary > input.open.begin || (can_stop_ && estimator_.knows_nothing());
  if (policy_ == LoadPolicy::kDeadline) {
    wanted = wanted || !split.finest;
  } else {
    // Both ends work until they meet, wherever that is.
    boundary_ = input.open.begin;
  }
  if (!wanted) {
    order.end = next;
    if (policy_ == LoadPolicy::kDeadline) {
      order.anyway_at = AnywayAt(input.view, input.insurance_s, now);
    } else if (can_stop_) {
      order.anyway_at = late;
    }
  } else if (!can_stop_ && policy_ == LoadPolicy::kDeadline && !insured_) {
    // A chunk begun that would not be done in time could not be saved by its bytes.
    order.end = std::max(next, split.boundary);
    order.anyway_at = AnywayAt(input.view, input.insurance_s, now);
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
    const double left_s = absl::ToDoubleSeconds(due_ - now);
    const absl::optional<int> level = DecideCacheGen(
        chunks_, chunk, base_level_, cachegen_.bytes_per_second(), left_s, recompute_s);
    if (!level) {
      const bool suffix = ability_ == RecomputeAbility::kSuffix;
      GiveToRecompute(chunk, suffix ? size() : chunk + 1, RecomputeReason::kFaster, now);
      return true;
    }
    work_ = Work{chunk, std::min(*level, chunks_.finest(chunk)), Kind::kBase};
    return true;
  }
  if (!StreamsFrontier()) return PickRefinement(now);
  work_ = Work{chunk, insured_ ? chunks_.finest(chunk) : BaseOf(chunk), Kind::kBase};
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
      delivery_.complete(*newest) > BaseOf(*newest) || Lost(*newest) ||
      policy_ == LoadPolicy::kRecompute || !ledger_.model().known() || !RaceIsWon(*newest, now)) {
    return false;
  }
  work_ = Work{*newest, BaseOf(*newest), Kind::kRace};
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

void AdaptiveLoadSession::DeepenRefinement(const PlannerView& view, double decoder_busy_s,
                                           absl::Duration now,
                                           DeliveryState::Refinement* next) const {
  // Each decode costs the same at any level. Where there is time for all of them, level by level is
  // safest.
  const double decode_s = chunks_.tokens(next->chunk) * decode_s_per_token_;
  if (!(decode_s > 0)) return;
  const double left = std::min(next->left, size() - delivery_.recompute_chunks());
  const double decodes = std::max((view.time_left_s - decoder_busy_s) / decode_s, 1.0);
  if (decodes >= left * (chunks_.levels() - next->target)) return;
  const double count = std::min(left, decodes);
  const double link_s = std::max(view.time_left_s - view.latency_s, 0.0);
  const BandwidthEstimate estimate = Estimate(now);
  const double bytes = std::min(estimate.Forecast(link_s), estimate.rate) * link_s;
  while (next->target < chunks_.finest(next->chunk)) {
    const uint64_t deeper = next->bytes + chunks_.segment_bytes(next->chunk, next->target + 1);
    if (kDeepDoubt * count * static_cast<double>(deeper) > bytes) break;
    next->bytes = deeper;
    ++next->target;
  }
}

bool AdaptiveLoadSession::PickRefinement(absl::Duration now) {
  if (policy_ != LoadPolicy::kDeadline) return false;
  // Where the client holds every base, its first refinement has to tell what the link is like.
  const bool first = delivery_.all_decided() && estimator_.sent_bytes() == 0;
  if (!first && !Estimate(now).known()) return false;
  // Segments of different chunks may only meet at segment boundaries.
  if (!delivery_.all_decided() && delivery_.touched(delivery_.frontier())) return false;
  absl::optional<DeliveryState::Refinement> next = delivery_.NextRefinement();
  if (!next) return false;
  const double decoder_busy_s =
      decoder_.busy_s(recompute_reads_refined() ? PromisedRecompute(now) : 0, now);
  PlannerView view = View(now);
  // What comes too late costs nothing but the link's time: expectation instead of promise.
  view.rate_low = view.rate;
  view.latency_low_s = view.latency_s;
  view.time_left_s = absl::ToDoubleSeconds(due_ - now);
  // A low estimate that nothing would ever correct.
  if (estimator_.unacked_bytes() == 0) view.rate_low *= 4;
  DeepenRefinement(view, decoder_busy_s, now, &*next);
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

}  // namespace kvstream

#include "client/load_assembler.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <new>
#include <utility>

#include "absl/strings/str_cat.h"

namespace kvstream {
namespace {

// As in the proto.
constexpr uint64_t kDataBytesMax = 1 << 20;
// For a segment's headers and coder states, whatever its tokens.
constexpr int64_t kSegmentOverheadBytes = 64 << 10;
// Moments of an order beyond this never come.
constexpr uint64_t kNever = uint64_t{1} << 62;
constexpr int kLastMomentsMax = 8;

}  // namespace

LoadAssembler::LoadAssembler(LoadShape shape, std::vector<HeldChunk> held)
    : shape_(std::move(shape)), states_(shape_.chunk_ids.size()), begun_owed_(!held.empty()) {
  for (uint32_t chunk = 0; chunk < chunks(); ++chunk) {
    not_in_place_.insert(not_in_place_.end(), chunk);
    if (chunk < held.size() && held[chunk].levels > 0) Hold(chunk, std::move(held[chunk]));
  }
}

void LoadAssembler::Hold(uint32_t chunk, HeldChunk held) {
  ChunkState& state = states_[chunk];
  state.held = true;
  state.complete_levels = held.levels;
  state.first_level = state.planned_level = held.levels - 1;
  state.decoded_level = held.decoded_level;
  state.segments = std::move(held.segments);
  state.segment_bytes = std::move(held.segment_bytes);
  state.stored_levels = held.stored_levels;
  Update(chunk);
}

void LoadAssembler::SayHeld(v1::LoadStart* start) const {
  for (const ChunkState& state : states_) {
    start->add_held_levels(state.held ? static_cast<uint32_t>(state.complete_levels) : 0);
  }
}

absl::Status LoadAssembler::RefuseHeld(absl::string_view why) {
  held_refused_ = true;
  return absl::FailedPreconditionError(absl::StrCat("a load that goes on here: ", why));
}

int64_t LoadAssembler::TokensOf(uint32_t chunk) const {
  const int64_t first = int64_t{chunk} * shape_.chunk_tokens;
  return std::min<int64_t>(shape_.chunk_tokens, shape_.tokens - first);
}

int64_t LoadAssembler::SegmentBytesMax(int64_t tokens) const {
  return kSegmentOverheadBytes + 4 * tokens * shape_.values_per_token;
}

absl::Status LoadAssembler::Violation(absl::string_view what) const {
  return absl::InternalError(absl::StrCat("the server broke the protocol of Load: ", what));
}

absl::Status LoadAssembler::ChunkViolation(uint32_t chunk, absl::string_view what) const {
  return Violation(absl::StrCat("chunk ", chunk, " of ", chunks(), ": ", what));
}

// ------------------------------------------------------------------ from the server

absl::Status LoadAssembler::OnMessage(const v1::LoadResponse& message) {
  if (begun_owed_ && !message.has_begun()) {
    return RefuseHeld("the server does not know that chunks may be held");
  }
  switch (message.message_case()) {
    case v1::LoadResponse::kBegun:
      if (!begun_owed_) return Violation("a beginning where nothing is held, or a second one");
      begun_owed_ = false;
      return absl::OkStatus();
    case v1::LoadResponse::kPlan:
      return OnPlan(message.plan());
    case v1::LoadResponse::kData:
      return OnDataMessage(message.data());
    case v1::LoadResponse::kBatch:
      for (const v1::SegmentData& data : message.batch().data()) {
        if (absl::Status status = OnDataMessage(data); !status.ok()) return status;
      }
      return absl::OkStatus();
    case v1::LoadResponse::kSummary:
      return OnSummary(message.summary());
    case v1::LoadResponse::kOrder:
      return OnOrder(message.order());
    case v1::LoadResponse::MESSAGE_NOT_SET:
      break;
  }
  return Violation("a message that is neither beginning, plan, data, order, batch nor summary");
}

absl::Status LoadAssembler::CheckSizes(uint32_t chunk, const v1::ChunkPlan& plan) {
  const int64_t tokens = TokensOf(chunk);
  ChunkState& state = states_[chunk];
  if (plan.tokens() != 0 && plan.tokens() != static_cast<uint64_t>(tokens)) {
    return ChunkViolation(
        chunk, absl::StrCat("the plan says ", plan.tokens(), " tokens where there are ", tokens));
  }
  if (plan.segment_bytes_size() == 0) {
    if (plan.has_level() && (state.segment_bytes.empty() || state.held)) {
      return ChunkViolation(chunk, "its first plan gives no segment_bytes");
    }
    return absl::OkStatus();
  }
  // Fewer where the server has dropped the finest levels of a chunk for lack of room.
  if (plan.segment_bytes_size() > shape_.levels) {
    return ChunkViolation(chunk,
                          absl::StrCat("the plan gives the bytes of ", plan.segment_bytes_size(),
                                       " levels where there are ", shape_.levels));
  }
  const uint64_t bytes_max = static_cast<uint64_t>(SegmentBytesMax(tokens));
  for (uint64_t bytes : plan.segment_bytes()) {
    if (bytes == 0 || bytes > bytes_max) {
      return ChunkViolation(
          chunk, absl::StrCat("a segment of ", bytes, " bytes, not in 1 to ", bytes_max));
    }
  }
  const std::vector<uint64_t> announced(plan.segment_bytes().begin(), plan.segment_bytes().end());
  if (state.held) {
    // Encoded anew in between, its levels would not fit those that are here.
    if (announced.size() < state.segment_bytes.size() ||
        !std::equal(state.segment_bytes.begin(), state.segment_bytes.end(), announced.begin())) {
      return RefuseHeld(absl::StrCat("chunk ", chunk, " of ", chunks(),
                                     " is not stored as it was received before"));
    }
    state.held = false;
  } else if (!state.segment_bytes.empty() && state.segment_bytes != announced) {
    return ChunkViolation(chunk, "a later plan changes segment_bytes");
  }
  state.segment_bytes = announced;
  state.stored_levels = static_cast<int>(announced.size());
  return absl::OkStatus();
}

absl::Status LoadAssembler::OnPlan(const v1::ChunkPlan& plan) {
  if (has_summary_) return Violation("a plan after the summary");
  const uint32_t chunk = plan.chunk();
  if (chunk >= chunks()) {
    return Violation(absl::StrCat("a plan for chunk ", chunk, " of ", chunks()));
  }
  ChunkState& state = states_[chunk];
  if (absl::Status sizes = CheckSizes(chunk, plan); !sizes.ok()) return sizes;
  switch (plan.decision_case()) {
    case v1::ChunkPlan::kRecompute:
      if (shape_.ability == ClientRecomputeAbility::kNone) {
        return ChunkViolation(chunk, "planned as recompute, which the client said it cannot");
      }
      state.recompute_planned = true;
      break;
    case v1::ChunkPlan::kLevel:
      if (plan.level() >= state.segment_bytes.size()) {
        return ChunkViolation(chunk, absl::StrCat("planned at level ", plan.level(), " of ",
                                                  state.segment_bytes.size()));
      }
      if (state.recompute_planned) {
        return ChunkViolation(chunk, "planned at a level after it was planned as recompute");
      }
      if (static_cast<int>(plan.level()) < state.planned_level) {
        return LowerPlan(chunk, static_cast<int>(plan.level()));
      }
      state.planned_level = static_cast<int>(plan.level());
      if (state.first_level < 0) state.first_level = state.planned_level;
      break;
    case v1::ChunkPlan::DECISION_NOT_SET:
      return ChunkViolation(chunk, "a plan without a decision");
  }
  Update(chunk);
  return absl::OkStatus();
}

absl::Status LoadAssembler::LowerPlan(uint32_t chunk, int level) {
  ChunkState& state = states_[chunk];
  if (level + 1 != state.complete_levels) {
    return ChunkViolation(
        chunk, absl::StrCat("a later plan lowers level ", state.planned_level, " to ", level,
                            ", but ", state.complete_levels, " segments have come"));
  }
  state.planned_level = level;
  // It has arrived as far as it will.
  state.first_level = std::min(state.first_level, level);
  if (state.segments.size() > static_cast<size_t>(state.complete_levels)) {
    state.segments.pop_back();
  }
  state.filled = 0;
  Update(chunk);
  return absl::OkStatus();
}

absl::Status LoadAssembler::OnOrder(const v1::RecomputeOrder& order) {
  if (has_summary_) return Violation("an order after the summary");
  if (shape_.ability == ClientRecomputeAbility::kNone) {
    return Violation("an order to recompute, which the client said it cannot");
  }
  if (order.first() > order.end() || order.end() > chunks()) {
    return Violation(absl::StrCat("an order for the chunks ", order.first(), " to ", order.end(),
                                  " of ", chunks()));
  }
  order_first_ = order.first();
  order_end_ = order.end();
  anyway_at_ = order.anyway_at_ns() == 0 || order.anyway_at_ns() > kNever
                   ? absl::InfiniteDuration()
                   : absl::Nanoseconds(static_cast<int64_t>(order.anyway_at_ns()));
  return TakeLastMoments(order);
}

absl::Status LoadAssembler::TakeLastMoments(const v1::RecomputeOrder& order) {
  last_moments_.clear();
  const int count = order.last_moments_size();
  if (count == 0) return absl::OkStatus();
  if (shape_.ability != ClientRecomputeAbility::kSuffix || count < 2 || count > kLastMomentsMax) {
    return Violation(absl::StrCat("an order with ", count, " last moments"));
  }
  for (const v1::LastMoment& moment : order.last_moments()) {
    const auto possible = [](double cost_ns) { return cost_ns >= 0 && std::isfinite(cost_ns); };
    if (moment.done_by_ns() > kNever || !possible(moment.token_ns()) ||
        !possible(moment.pair_ns())) {
      return Violation("an order with a last moment that is none");
    }
  }
  last_moments_.assign(order.last_moments().begin(), order.last_moments().end());
  return absl::OkStatus();
}

absl::Duration LoadAssembler::LastMomentOf(int i, uint32_t chunk) const {
  const v1::LastMoment& moment = last_moments_[i];
  const double skipped = static_cast<double>(chunk) * shape_.chunk_tokens;
  const double tokens = static_cast<double>(shape_.tokens) - skipped;
  const double before = static_cast<double>(shape_.first_token) + skipped;
  const double cost_ns =
      tokens * moment.token_ns() + tokens * (before + tokens / 2) * moment.pair_ns();
  return absl::Nanoseconds(static_cast<int64_t>(moment.done_by_ns())) - absl::Nanoseconds(cost_ns);
}

bool LoadAssembler::LastMomentIsNow(uint32_t chunk, absl::Duration clock) const {
  const int limit = static_cast<int>(last_moments_.size()) - 1;
  if (limit < 0 || chunk != front_ || clock < PatientUntil() ||
      clock > LastMomentOf(limit, chunk)) {
    return false;
  }
  for (int i = 0; i < limit; ++i) {
    const absl::Duration at = LastMomentOf(i, chunk);
    if (front_since_ <= at && at <= clock) return true;
  }
  return false;
}

absl::Duration LoadAssembler::recompute_at(absl::Duration clock) const {
  absl::Duration next = absl::InfiniteDuration();
  if (not_in_place_.empty() || recompute_under_way_) return next;
  if (anyway_at_ > clock) next = anyway_at_;
  for (int i = 0; i + 1 < static_cast<int>(last_moments_.size()); ++i) {
    for (const absl::Duration at : {LastMomentOf(i, *not_in_place_.begin()), PatientUntil()}) {
      if (at > clock) next = std::min(next, at);
    }
  }
  return next;
}

absl::Status LoadAssembler::OnPlanWithData(const v1::ChunkPlan& plan, uint32_t chunk) {
  if (plan.chunk() == chunk) return OnPlan(plan);
  return Violation(absl::StrCat("a plan for chunk ", plan.chunk(), " with data of ", chunk));
}

absl::Status LoadAssembler::OnDataMessage(const v1::SegmentData& data) {
  if (data.has_plan()) {
    if (absl::Status plan = OnPlanWithData(data.plan(), data.chunk()); !plan.ok()) return plan;
  }
  SegmentFrame frame;
  frame.chunk = data.chunk();
  frame.level = data.level();
  frame.offset = data.offset();
  frame.size = data.data().size();
  frame.payload = {data.data()};
  return OnData(frame);
}

absl::Status LoadAssembler::OnData(const SegmentFrame& frame) {
  if (begun_owed_) return RefuseHeld("the server does not know that chunks may be held");
  if (!frame.plan.empty()) {
    v1::ChunkPlan plan;
    if (!plan.ParseFromString(frame.plan)) return Violation("not a LoadResponse");
    if (absl::Status status = OnPlanWithData(plan, frame.chunk); !status.ok()) return status;
  }
  if (has_summary_) return Violation("data after the summary");
  if (frame.chunk >= chunks()) {
    return Violation(absl::StrCat("data of chunk ", frame.chunk, " of ", chunks()));
  }
  ChunkState& state = states_[frame.chunk];
  if (state.planned_level < 0) return ChunkViolation(frame.chunk, "data before a plan of a level");
  if (state.recompute_planned) {
    return ChunkViolation(frame.chunk, "data of a chunk planned as recompute");
  }
  if (frame.level > static_cast<uint32_t>(state.planned_level)) {
    return ChunkViolation(frame.chunk, absl::StrCat("data of level ", frame.level,
                                                    " where the plan says ", state.planned_level));
  }
  if (frame.level != static_cast<uint32_t>(state.complete_levels)) {
    return ChunkViolation(frame.chunk, absl::StrCat("data of level ", frame.level, " where level ",
                                                    state.complete_levels, " is next"));
  }
  if (frame.offset != state.filled) {
    return ChunkViolation(frame.chunk, absl::StrCat("data at offset ", frame.offset, " where ",
                                                    state.filled, " is next"));
  }
  const uint64_t segment_bytes = state.segment_bytes[frame.level];
  if (frame.size == 0 || frame.size > kDataBytesMax || frame.size > segment_bytes - state.filled) {
    return ChunkViolation(frame.chunk,
                          absl::StrCat("a data message of ", frame.size, " bytes at offset ",
                                       frame.offset, " of a segment of ", segment_bytes));
  }
  // What was on its way when the chunk turned out to be damaged, or was recomputed, is dropped.
  if (!state.damaged && !state.recomputed && !state.suffix) {
    if (state.filled == 0) {
      std::unique_ptr<char[]> segment(new (std::nothrow) char[segment_bytes]);
      if (segment == nullptr) {
        return absl::ResourceExhaustedError(
            absl::StrCat("no memory for a segment of ", segment_bytes, " bytes"));
      }
      state.segments.push_back(std::move(segment));
    }
    // The one copy of the payload: from the transport's slices into the chunk's own segment.
    char* to = state.segments.back().get() + state.filled;
    for (absl::string_view piece : frame.payload) {
      std::memcpy(to, piece.data(), piece.size());
      to += piece.size();
    }
  }
  state.filled += frame.size;
  state.received += frame.size;
  bytes_received_ += frame.size;
  if (state.filled == segment_bytes) {
    state.filled = 0;
    ++state.complete_levels;
    Update(frame.chunk);
  }
  return absl::OkStatus();
}

absl::Status LoadAssembler::OnSummary(const v1::LoadSummary& summary) {
  if (has_summary_) return Violation("a second summary");
  if (summary.chunks_size() != static_cast<int>(chunks())) {
    return Violation(absl::StrCat("a summary of ", summary.chunks_size(), " chunks of ", chunks()));
  }
  double may_be_below = shape_.floor_below_share * static_cast<double>(shape_.tokens);
  if (!std::isfinite(summary.bandwidth_estimate_bytes_per_second())) {
    return Violation("a bandwidth estimate that is no number");
  }
  for (uint32_t chunk = 0; chunk < chunks(); ++chunk) {
    const ChunkState& state = states_[chunk];
    const v1::ChunkPlan& decision = summary.chunks(static_cast<int>(chunk));
    if (decision.chunk() != chunk) return ChunkViolation(chunk, "missing from the summary");
    if (state.damaged && !state.recompute_planned) continue;  // Verdict() has the better words
    if (state.recompute_planned || state.recomputed) {
      if (!decision.has_recompute()) {
        return ChunkViolation(chunk, "the summary is not what was planned");
      }
      continue;
    }
    if (!decision.has_level() || static_cast<int>(decision.level()) != state.planned_level) {
      return ChunkViolation(chunk, "the summary is not what was planned");
    }
    if (state.complete_levels != state.planned_level + 1 || state.filled != 0) {
      return ChunkViolation(chunk, "the summary came before all of its data");
    }
    const bool below = state.planned_level < shape_.floor_level;
    if (below) may_be_below -= static_cast<double>(TokensOf(chunk));
    if ((below && (may_be_below < 0 || state.planned_level + 1 < shape_.floor_level)) ||
        (shape_.fixed_level.has_value() && state.planned_level != FixedLevelOf(state))) {
      return ChunkViolation(chunk, absl::StrCat("delivered at level ", state.planned_level,
                                                ", which the client did not allow"));
    }
  }
  bandwidth_estimate_ = summary.bandwidth_estimate_bytes_per_second();
  has_summary_ = true;
  return absl::OkStatus();
}

// ------------------------------------------------------------------ local work

void LoadAssembler::Update(uint32_t chunk) {
  ChunkState& state = states_[chunk];
  const auto set_member = [chunk](std::set<uint32_t>* set, bool member) {
    if (member) {
      set->insert(chunk);
    } else {
      set->erase(chunk);
    }
  };
  const bool at_rest = !state.decoding && !state.recomputing;
  const bool in_place =
      state.recomputed || (at_rest && state.decoded_level >= 0 && !state.damaged &&
                           !state.recompute_planned && !state.suffix);
  const bool complete =
      state.planned_level >= 0 && (state.complete_levels == state.planned_level + 1 ||
                                   (state.decoded_level < 0 && Arrived(state)));
  const bool decodable = at_rest && complete && state.decoded_level + 1 < state.complete_levels &&
                         !state.recompute_planned && !state.damaged && !state.suffix &&
                         !state.recomputed;
  set_member(&not_in_place_, !in_place);
  set_member(&to_decode_, decodable && state.decoded_level < 0);
  set_member(&to_refine_, decodable && state.decoded_level >= 0);
  set_member(&to_recompute_,
             at_rest && (state.recompute_planned || state.suffix) && !state.recomputed);

  const bool ready =
      state.recomputed || (in_place && state.decoded_level + 1 == state.complete_levels);
  chunks_ready_ += static_cast<uint32_t>(ready) - static_cast<uint32_t>(state.ready);
  state.ready = ready;

  const bool finest = state.decoded_level + 1 == shape_.levels;
  if (at_rest &&
      (state.recompute_planned || state.suffix || state.recomputed || state.damaged || finest)) {
    std::vector<std::unique_ptr<char[]>>().swap(state.segments);
  }
}

absl::optional<DecodeJob> LoadAssembler::NextDecode(bool may_refine) {
  // In the order of arrival, which the server counts on.
  const bool backward = shape_.ability == ClientRecomputeAbility::kFront ||
                        shape_.ability == ClientRecomputeAbility::kAny;
  for (std::set<uint32_t>* candidates : {&to_decode_, &to_refine_}) {
    if (candidates == &to_refine_ && !may_refine) break;
    const auto lowest = candidates->lower_bound(undecodable_below_);
    if (lowest == candidates->end()) continue;
    const uint32_t chunk = backward ? *candidates->rbegin() : *lowest;
    ChunkState& state = states_[chunk];
    DecodeJob job;
    job.chunk = chunk;
    job.level = state.complete_levels - 1;
    job.first_unchecked_level = state.decoded_level + 1;
    job.first_token = shape_.first_token + int64_t{chunk} * shape_.chunk_tokens;
    job.tokens = TokensOf(chunk);
    for (int level = 0; level <= job.level; ++level) {
      job.segments.emplace_back(state.segments[level].get(), state.segment_bytes[level]);
    }
    state.decoding = true;
    ++decodes_under_way_;
    Update(chunk);
    return job;
  }
  return absl::nullopt;
}

absl::Status LoadAssembler::OnDecoded(uint32_t chunk, int level, const absl::Status& status) {
  ChunkState& state = states_[chunk];
  state.decoding = false;
  --decodes_under_way_;
  if (status.ok()) {
    state.decoded_level = level;
  } else if (absl::IsDataLoss(status)) {
    state.damaged = true;
    unreported_damage_.push_back(chunk);
    if (first_damage_.ok()) {
      first_damage_ = absl::DataLossError(
          absl::StrCat("chunk ", chunk, " (", ShortChunkId(shape_.chunk_ids[chunk]),
                       ") arrived damaged at level ", level, ": ", status.message()));
    }
  }
  Update(chunk);
  if (status.ok() || absl::IsDataLoss(status)) return absl::OkStatus();
  return absl::Status(status.code(),
                      absl::StrCat("decoding chunk ", chunk, " (",
                                   ShortChunkId(shape_.chunk_ids[chunk]), "): ", status.message()));
}

bool LoadAssembler::InOrder(uint32_t chunk, absl::Duration clock) const {
  const ChunkState& state = states_[chunk];
  if (state.decoding || state.recomputing || state.damaged || Arrived(state)) return false;
  if (chunk >= order_first_ && chunk < order_end_) return true;
  if (LastMomentIsNow(chunk, clock)) return true;
  const bool late = !last_moments_.empty() &&
                    clock > LastMomentOf(static_cast<int>(last_moments_.size()) - 1, chunk);
  return clock >= anyway_at_ && !late;
}

bool LoadAssembler::Ordered(uint32_t chunk, absl::Duration clock) const {
  if (ordered_.up_to() > ordered_.first()) {
    // One run of chunks, in which those that a plan gave to recompute count.
    if (ordered_.newest() == v1::OrderProgress::STATE_GIVEN_UP) return false;
    uint32_t next = ordered_.up_to();
    while (next < chunk && states_[next].recompute_planned) ++next;
    if (next != chunk) return false;
  }
  return InOrder(chunk, clock);
}

void LoadAssembler::BeginOrdered(uint32_t begin, uint32_t end) {
  if (ordered_.up_to() == ordered_.first()) ordered_.set_first(begin);
  ordered_.set_up_to(end);
  ordered_.set_newest(v1::OrderProgress::STATE_BEGUN);
  if (shape_.ability != ClientRecomputeAbility::kSuffix) return;
  for (uint32_t chunk = begin; chunk < chunks(); ++chunk) {
    states_[chunk].suffix = true;
    Update(chunk);
  }
}

bool LoadAssembler::recompute_superseded() const {
  if (!recompute_under_way_ || recompute_job_.chunks != 1) return false;
  const ChunkState& state = states_[recompute_job_.first_chunk];
  return !state.suffix && !state.recompute_planned && Arrived(state);
}

absl::optional<RecomputeJob> LoadAssembler::NextRecompute(absl::Duration clock) {
  if (recompute_under_way_ || not_in_place_.empty()) return absl::nullopt;
  if (const uint32_t front = *not_in_place_.begin(); front != front_) {
    // It goes back where a chunk arrived damaged or is refined.
    if (front > front_ && front_ > 0) front_took_ = (clock - front_since_) / (front - front_);
    front_ = front;
    front_since_ = clock;
  }
  RecomputeJob job;
  // It reads everything before it.
  job.first_chunk = *not_in_place_.begin();
  job.chunks = 1;
  const auto end = [&job] { return job.first_chunk + job.chunks; };
  const auto more = [&] {
    return job.chunks < shape_.recompute_run_chunks_max && end() < chunks();
  };
  if (to_recompute_.count(job.first_chunk) > 0) {
    while (more() && to_recompute_.count(end()) > 0) ++job.chunks;
    if (states_[job.first_chunk].suffix) ordered_.set_up_to(std::max(ordered_.up_to(), end()));
  } else {
    if (shape_.ability == ClientRecomputeAbility::kNone || !Ordered(job.first_chunk, clock)) {
      return absl::nullopt;
    }
    while (more() && !states_[end()].recompute_planned && InOrder(end(), clock)) ++job.chunks;
    BeginOrdered(job.first_chunk, end());
  }
  job.first_token = shape_.first_token + int64_t{job.first_chunk} * shape_.chunk_tokens;
  for (uint32_t i = 0; i < job.chunks; ++i) {
    const uint32_t chunk = job.first_chunk + i;
    job.tokens += TokensOf(chunk);
    states_[chunk].recomputing = true;
    Update(chunk);
  }
  recompute_under_way_ = true;
  undecodable_below_ = end();
  recomputed_up_to_ = std::max(recomputed_up_to_, end());
  recompute_job_ = job;
  return job;
}

absl::Status LoadAssembler::OnRecomputed(const RecomputeJob& job, const absl::Status& status,
                                         absl::Duration took) {
  const bool given_up = absl::IsCancelled(status) && recompute_superseded();
  recompute_under_way_ = false;
  undecodable_below_ = 0;
  for (uint32_t i = 0; i < job.chunks; ++i) {
    ChunkState& state = states_[job.first_chunk + i];
    state.recomputing = false;
    state.recomputed = status.ok();
    Update(job.first_chunk + i);
  }
  if (ordered_.up_to() == job.first_chunk + job.chunks &&
      ordered_.newest() == v1::OrderProgress::STATE_BEGUN) {
    ordered_.set_newest(given_up ? v1::OrderProgress::STATE_GIVEN_UP
                                 : v1::OrderProgress::STATE_DONE);
  }
  if (given_up) return absl::OkStatus();
  if (!status.ok()) {
    return absl::Status(status.code(),
                        absl::StrCat("recomputing tokens ", job.first_token, " to ",
                                     job.first_token + job.tokens - 1, ": ", status.message()));
  }
  recomputed_tokens_ += static_cast<uint64_t>(job.tokens);
  recompute_time_ += took;
  return absl::OkStatus();
}

// ------------------------------------------------------------------ reports

void LoadAssembler::Take(bool late, v1::LoadTaken* taken) const {
  taken->set_late(late);
  for (const ChunkState& state : states_) {
    taken->add_chunks(state.recomputed ? 0 : static_cast<uint32_t>(state.decoded_level) + 1);
  }
}

void LoadAssembler::TakeProgress(v1::LoadProgress* progress) {
  progress->set_bytes_received(bytes_received_);
  progress->set_chunks_ready(chunks_ready_);
  progress->set_recomputed_up_to(recomputed_up_to_);
  progress->set_recomputed_tokens(recomputed_tokens_);
  progress->set_recompute_seconds(absl::ToDoubleSeconds(recompute_time_));
  if (ordered_.up_to() > ordered_.first()) *progress->mutable_order() = ordered_;
  for (uint32_t chunk : unreported_damage_) progress->add_damaged_chunks(chunk);
  unreported_damage_.clear();
}

absl::Status LoadAssembler::Verdict() const {
  if (finished()) return absl::OkStatus();
  for (uint32_t chunk = 0; chunk < chunks(); ++chunk) {
    if (states_[chunk].damaged && !states_[chunk].recomputed) return first_damage_;
  }
  if (!has_summary_) return Violation("the stream ended without a summary");
  for (uint32_t chunk = 0; chunk < chunks(); ++chunk) {
    if (!states_[chunk].ready) return ChunkViolation(chunk, "not ready when the load ended");
  }
  return Violation("the load ended while work was under way");
}

int LoadAssembler::FixedLevelOf(const ChunkState& state) const {
  const int levels = static_cast<int>(state.segment_bytes.size());
  return std::min(shape_.fixed_level.value_or(0), std::max(levels - 1, 0));
}

std::vector<LoadedChunk> LoadAssembler::Result() const {
  std::vector<LoadedChunk> result(chunks());
  for (uint32_t chunk = 0; chunk < chunks(); ++chunk) {
    const ChunkState& state = states_[chunk];
    if (!state.recomputed) result[chunk].level = state.decoded_level;
    result[chunk].tokens = TokensOf(chunk);
    result[chunk].bytes = state.received;
  }
  return result;
}

bool LoadAssembler::Keeps(const ChunkState& state) const {
  // A decode that found damage may have written something all the same.
  const int needed = std::max(shape_.floor_level, FixedLevelOf(state));
  return state.recomputed || (!state.damaged && state.decoded_level >= needed);
}

std::vector<absl::optional<LoadedChunk>> LoadAssembler::Kept() const {
  const std::vector<LoadedChunk> result = Result();
  std::vector<absl::optional<LoadedChunk>> kept(result.size());
  for (size_t chunk = 0; chunk < result.size(); ++chunk) {
    if (Keeps(states_[chunk])) kept[chunk] = result[chunk];
  }
  return kept;
}

std::vector<HeldChunk> LoadAssembler::TakeHeld() {
  std::vector<HeldChunk> held(states_.size());
  for (size_t chunk = 0; chunk < states_.size(); ++chunk) {
    ChunkState& state = states_[chunk];
    if (state.recomputed || !Keeps(state)) continue;
    const bool whole = state.decoded_level + 1 == shape_.levels;
    // Given to recompute, its bytes are gone though what was decoded stands.
    if (!whole && state.segments.size() < static_cast<size_t>(state.complete_levels)) continue;
    HeldChunk& one = held[chunk];
    one.levels = state.complete_levels;
    one.decoded_level = state.decoded_level;
    one.segment_bytes = std::move(state.segment_bytes);
    one.segment_bytes.resize(static_cast<size_t>(one.levels));
    one.stored_levels = state.stored_levels;
    one.segments = std::move(state.segments);
    one.segments.resize(whole ? 0 : static_cast<size_t>(one.levels));  // without one begun
  }
  return held;
}

}  // namespace kvstream

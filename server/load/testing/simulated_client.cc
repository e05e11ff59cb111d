#include "server/load/testing/simulated_client.h"

#include <algorithm>
#include <numeric>

namespace kvstream {

ModelClient::ModelClient(const LoadSpec& spec, const SimulatedClient& model,
                         absl::Duration clock_zero)
    : spec_(spec), model_(model), clock_zero_(clock_zero), chunks_(spec.chunks.size()) {
  for (size_t i = 0; i < spec.held_levels.size(); ++i) {
    Chunk& chunk = chunks_[i];
    chunk.received = chunk.decoded = spec.held_levels[i];
    chunk.plan_level = chunk.received - 1;
    Refresh(chunk);
  }
}

void ModelClient::Refresh(Chunk& chunk) {
  const bool ready = chunk.recomputed ||
                     (!chunk.recompute && chunk.decoded > 0 && chunk.decoded == chunk.received);
  if (ready != chunk.ready) {
    chunk.ready = ready;
    ready_ += ready ? 1 : -1;
    dirty_ = true;
  }
}

void ModelClient::OnPlan(const SendPlan& plan, absl::Duration now) {
  Chunk& chunk = chunks_[plan.chunk];
  chunk.arrived |= Arrived(chunk);
  if (plan.decision.level) {
    chunk.plan_level = *plan.decision.level;
    // Lowered: what is there is all that comes.
    if (Arrived(chunk) && chunk.decoded < chunk.received && !chunk.queued && !chunk.recomputed &&
        !chunk.recompute && decoding_ != plan.chunk) {
      chunk.queued = true;
      decode_queue_.push_back(plan.chunk);
    }
  } else {
    if (chunk.received > 0) ++received_in_vain_;
    chunk.recompute = true;
    chunk.decoded = 0;
    in_place_ = std::min(in_place_, plan.chunk);
  }
  Refresh(chunk);
  Advance(now);
}

void ModelClient::OnOrder(const SendOrder& order, absl::Duration now) {
  order_ = order;
  Advance(now);
}

bool ModelClient::Ordered(uint32_t chunk, absl::Duration now) const {
  const OrderProgress& done = progress_.order;
  if (done.up_to > done.first) {
    if (spec_.ability == RecomputeAbility::kSuffix) return chunk >= done.first;
    if (done.newest == OrderProgress::State::kGivenUp) return false;
    // One run of chunks, in which those that a plan gave to recompute count.
    uint32_t next = done.up_to;
    while (next < chunk && chunks_[next].recompute) ++next;
    if (next != chunk) return false;
  }
  if (chunks_[chunk].arrived || Arrived(chunks_[chunk]) || chunks_[chunk].damaged) return false;
  if (LastMomentIsNow(chunk, now)) return true;
  const bool late =
      !order_.last_moments.empty() && now > LastMomentOf(order_.last_moments.size() - 1, chunk);
  if (now - clock_zero_ >= order_.anyway_at && !late) return true;
  return chunk >= order_.first && chunk < order_.end;
}

absl::Duration ModelClient::LastMomentOf(size_t i, uint32_t chunk) const {
  const uint64_t before = spec_.chunks[chunk].first_token;
  const StoredChunkSizes& last = spec_.chunks.back();
  return clock_zero_ +
         order_.last_moments[i].BeginBy(last.first_token + last.tokens - before, before);
}

bool ModelClient::LastMomentIsNow(uint32_t chunk, absl::Duration now) const {
  if (order_.last_moments.empty()) return false;
  const size_t limit = order_.last_moments.size() - 1;
  if (now < PatientUntil() || now > LastMomentOf(limit, chunk)) return false;
  for (size_t i = 0; i < limit; ++i) {
    const absl::Duration at = LastMomentOf(i, chunk);
    if (in_place_at_ <= at && at <= now) return true;
  }
  return false;
}

void ModelClient::Begin(uint32_t index) {
  Chunk& chunk = chunks_[index];
  OrderProgress& done = progress_.order;
  if (!chunk.recompute) {
    if (done.up_to == done.first) done.first = index;
    done.up_to = index + 1;
    done.newest = OrderProgress::State::kBegun;
    if (spec_.ability == RecomputeAbility::kSuffix) {
      // Whatever else arrives.
      for (uint32_t i = index; i < chunks_.size(); ++i) {
        if (chunks_[i].received > 0 && !chunks_[i].recompute) ++received_in_vain_;
        chunks_[i].recompute = true;
        chunks_[i].decoded = 0;
        Refresh(chunks_[i]);
      }
      done.up_to = static_cast<uint32_t>(chunks_.size());
    }
  }
  dirty_ = true;
}

void ModelClient::OnData(const SendData& data, absl::Duration now) {
  Chunk& chunk = chunks_[data.chunk];
  progress_.bytes_received += data.size;
  progress_.clock = now - clock_zero_;
  dirty_ = true;
  if (data.offset + data.size == spec_.chunks[data.chunk].segment_bytes[data.level] &&
      !chunk.recompute && !chunk.recomputed) {
    if (data.level == 0 && model_.damaged.count(data.chunk) > 0) {
      chunk.damaged = true;
      progress_.damaged_chunks.push_back(data.chunk);
      return;
    }
    chunk.received = data.level + 1;
    if (recomputing_ == data.chunk) {
      if (!spec_.recompute_can_stop || !Arrived(chunk)) return;
      recomputing_.reset();
      progress_.order.newest = OrderProgress::State::kGivenUp;
    }
    if (data.level >= chunk.plan_level && !chunk.queued) {
      chunk.queued = true;
      decode_queue_.push_back(data.chunk);
    }
    Refresh(chunk);
  }
  Advance(now);
}

double ModelClient::PrefillSeconds(uint32_t index) const {
  const double n = spec_.chunks[index].tokens;
  const double p = static_cast<double>(spec_.chunks[index].first_token);
  return n * model_.prefill_seconds_per_token +
         n * (p + n / 2) * model_.prefill_seconds_per_token_pair;
}

void ModelClient::Advance(absl::Duration now) {
  advanced_to_ = now;
  while (true) {
    bool moved = false;
    if (decoding_ && decode_ends_ <= now) {
      Chunk& chunk = chunks_[*decoding_];
      if (!chunk.recompute) chunk.decoded = decoding_to_;
      Refresh(chunk);
      decoding_.reset();
      moved = true;
    }
    if (recomputing_ && recompute_ends_ <= now) {
      Chunk& chunk = chunks_[*recomputing_];
      chunk.recomputed = true;
      if (*recomputing_ + 1 == progress_.order.up_to &&
          progress_.order.newest == OrderProgress::State::kBegun) {
        progress_.order.newest = OrderProgress::State::kDone;
      }
      progress_.recomputed_tokens += spec_.chunks[*recomputing_].tokens;
      progress_.recompute_time += absl::Seconds(PrefillSeconds(*recomputing_));
      Refresh(chunk);
      recomputing_.reset();
      dirty_ = moved = true;
    }
    const uint32_t was_in_place = in_place_;
    while (in_place_ < chunks_.size() && InPlace(chunks_[in_place_])) ++in_place_;
    if (in_place_ != was_in_place) {
      if (was_in_place > 0) in_place_took_ = (now - in_place_at_) / (in_place_ - was_in_place);
      in_place_at_ = now;
    }
    // A recompute reads what is before it: nothing of that may be decoded meanwhile.
    if (!recomputing_ && in_place_ < chunks_.size() && !(decoding_ && *decoding_ < in_place_) &&
        (chunks_[in_place_].recompute || Ordered(in_place_, now))) {
      Begin(in_place_);
      recomputing_ = in_place_;
      recompute_ends_ = now + absl::Seconds(PrefillSeconds(in_place_));
      moved = true;
    }
    while (!decode_queue_.empty() && chunks_[decode_queue_.front()].recompute) {
      decode_queue_.pop_front();
    }
    const auto next =
        std::find_if(decode_queue_.begin(), decode_queue_.end(), [this, now](uint32_t chunk) {
          if (recomputing_ && chunk <= *recomputing_) return false;
          return chunks_[chunk].decoded == 0 || now + DecodeTime(chunk) <= deadline_;
        });
    if (!decoding_ && next != decode_queue_.end()) {
      decoding_ = *next;
      decode_queue_.erase(next);
      Chunk& chunk = chunks_[*decoding_];
      chunk.queued = false;
      decoding_to_ = chunk.received;
      decode_ends_ = now + DecodeTime(*decoding_);
      moved = true;
    }
    if (!moved) break;
  }
  if (!recomputing_) return;
  progress_.recomputed_up_to = std::max(progress_.recomputed_up_to, *recomputing_ + 1);
}

absl::Duration ModelClient::next_at() const {
  absl::Duration at = absl::InfiniteDuration();
  if (decoding_) at = std::min(at, decode_ends_);
  if (recomputing_) {
    at = std::min(at, recompute_ends_);
  } else if (in_place_ < chunks_.size()) {
    const absl::Duration anyway = clock_zero_ + order_.anyway_at;
    if (anyway > advanced_to_) at = std::min(at, anyway);
    for (size_t i = 0; i + 1 < order_.last_moments.size(); ++i) {
      const absl::Duration moment = LastMomentOf(i, in_place_);
      for (const absl::Duration then : {moment, PatientUntil()}) {
        if (then > advanced_to_) at = std::min(at, then);
      }
    }
  }
  return at;
}

bool ModelClient::all_in_place() const {
  return std::all_of(chunks_.begin(), chunks_.end(), [](const Chunk& chunk) {
    return chunk.recomputed || (!chunk.recompute && chunk.decoded > 0);
  });
}

absl::Duration ModelClient::DecodeTime(uint32_t chunk) const {
  return absl::Seconds(spec_.chunks[chunk].tokens * model_.decode_seconds_per_token);
}

LoadTaken ModelClient::Take(bool late) {
  LoadTaken taken;
  taken.late = late;
  taken.chunks.reserve(chunks_.size());
  for (const Chunk& chunk : chunks_) {
    taken.chunks.push_back(chunk.recomputed ? 0 : static_cast<uint32_t>(chunk.decoded));
  }
  progress_.taken = taken;
  return taken;
}

double ModelClient::mean_level() const {
  const double finest = LevelsOf(spec_.chunks) - 1.0;
  double sum = 0;
  for (const Chunk& chunk : chunks_) {
    if (chunk.recomputed) {
      sum += finest;
    } else if (!chunk.recompute) {
      sum += std::max(chunk.decoded - 1, 0);
    }
  }
  return sum / static_cast<double>(chunks_.size());
}

uint64_t ModelClient::decoded_bytes() const {
  uint64_t bytes = 0;
  for (size_t i = 0; i < chunks_.size(); ++i) {
    if (chunks_[i].recompute || chunks_[i].recomputed) continue;
    const std::vector<uint64_t>& segments = spec_.chunks[i].segment_bytes;
    bytes += std::accumulate(segments.begin(), segments.begin() + chunks_[i].decoded, uint64_t{0});
  }
  return bytes;
}

uint32_t ModelClient::recomputed() const {
  return static_cast<uint32_t>(std::count_if(chunks_.begin(), chunks_.end(),
                                             [](const Chunk& chunk) { return chunk.recomputed; }));
}

ClientProgress ModelClient::TakeProgress() {
  dirty_ = false;
  progress_.chunks_ready = ready_;
  ClientProgress progress = progress_;
  progress_.damaged_chunks.clear();
  return progress;
}

}  // namespace kvstream

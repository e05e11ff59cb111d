#include "server/load/testing/simulated_client.h"

#include <algorithm>

namespace kvstream {

ModelClient::ModelClient(const LoadSpec& spec, const SimulatedClient& model)
    : spec_(spec), model_(model), chunks_(spec.chunks.size()) {}

void ModelClient::Refresh(Chunk& chunk) {
  const bool ready =
      chunk.recompute ? chunk.recomputed : chunk.decoded > 0 && chunk.decoded == chunk.received;
  if (ready != chunk.ready) {
    chunk.ready = ready;
    ready_ += ready ? 1 : -1;
    dirty_ = true;
  }
}

void ModelClient::OnPlan(const SendPlan& plan, absl::Duration now) {
  Chunk& chunk = chunks_[plan.chunk];
  if (plan.decision.level) {
    chunk.plan_level = *plan.decision.level;
  } else {
    if (chunk.received > 0) ++received_in_vain_;
    chunk.recompute = true;
    chunk.decoded = 0;
    in_place_ = std::min(in_place_, plan.chunk);
  }
  Refresh(chunk);
  Advance(now);
}

void ModelClient::OnData(const SendData& data, absl::Duration now, absl::Duration clock) {
  Chunk& chunk = chunks_[data.chunk];
  progress_.bytes_received += data.size;
  progress_.clock = clock;
  dirty_ = true;
  if (data.offset + data.size == spec_.chunks[data.chunk].segment_bytes[data.level] &&
      !chunk.recompute) {
    if (data.level == 0 && model_.damaged.count(data.chunk) > 0) {
      progress_.damaged_chunks.push_back(data.chunk);
      return;
    }
    chunk.received = data.level + 1;
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
      progress_.recomputed_tokens += spec_.chunks[*recomputing_].tokens;
      progress_.recompute_time += absl::Seconds(PrefillSeconds(*recomputing_));
      Refresh(chunk);
      recomputing_.reset();
      dirty_ = moved = true;
    }
    while (in_place_ < chunks_.size() && InPlace(chunks_[in_place_])) ++in_place_;
    // A recompute reads what is before it: nothing of that may be decoded meanwhile.
    if (!recomputing_ && in_place_ < chunks_.size() && chunks_[in_place_].recompute &&
        !(decoding_ && *decoding_ < in_place_)) {
      recomputing_ = in_place_;
      recompute_ends_ = now + absl::Seconds(PrefillSeconds(in_place_));
      moved = true;
    }
    const auto next =
        std::find_if(decode_queue_.begin(), decode_queue_.end(),
                     [this](uint32_t chunk) { return !recomputing_ || chunk > *recomputing_; });
    if (!decoding_ && next != decode_queue_.end()) {
      decoding_ = *next;
      decode_queue_.erase(next);
      Chunk& chunk = chunks_[*decoding_];
      chunk.queued = false;
      decoding_to_ = chunk.received;
      decode_ends_ =
          now + absl::Seconds(spec_.chunks[*decoding_].tokens * model_.decode_seconds_per_token);
      moved = true;
    }
    if (!moved) break;
  }
  if (!recomputing_) return;
  const uint32_t up_to = *recomputing_ + (spec_.ability == RecomputeAbility::kFront ? 1 : 0);
  progress_.recomputed_up_to = std::max(progress_.recomputed_up_to, up_to);
}

absl::Duration ModelClient::next_at() const {
  absl::Duration at = absl::InfiniteDuration();
  if (decoding_) at = std::min(at, decode_ends_);
  if (recomputing_) at = std::min(at, recompute_ends_);
  return at;
}

bool ModelClient::all_in_place() const {
  return std::all_of(chunks_.begin(), chunks_.end(), [](const Chunk& chunk) {
    return chunk.recompute ? chunk.recomputed : chunk.decoded > 0;
  });
}

double ModelClient::mean_level() const {
  const double finest = static_cast<double>(spec_.chunks[0].segment_bytes.size()) - 1;
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

ClientProgress ModelClient::TakeProgress() {
  dirty_ = false;
  progress_.chunks_ready = ready_;
  ClientProgress progress = progress_;
  progress_.damaged_chunks.clear();
  return progress;
}

}  // namespace kvstream

#include "server/load/delivery_state.h"

#include <algorithm>
#include <utility>

namespace kvstream {

DeliveryState::DeliveryState(const ChunkTable* chunks, BaseOrder order, std::vector<int> stops,
                             absl::Span<const uint8_t> held)
    : chunks_(chunks),
      order_(order),
      stops_(std::move(stops)),
      state_(chunks->size()),
      open_end_(chunks->size()),
      cursor_(chunks->size()) {
  if (held.empty()) return;
  uint32_t begin = chunks->size(), end = 0;
  for (uint32_t chunk = 0; chunk < chunks->size(); ++chunk) {
    if (held[chunk] == 0) {
      begin = std::min(begin, chunk);
      end = chunk + 1;
      continue;
    }
    Chunk& state = state_[chunk];
    state.complete = held[chunk];
    state.plan_level = static_cast<int8_t>(held[chunk] - 1);
    state.flags = kBase | kHeld;
    refinement_bytes_ += BytesAbove(chunk, state.complete);
    ++deliverable_;
  }
  // With nothing open the range is empty at the end where streaming stops.
  if (begin >= end) begin = end = order == BaseOrder::kForward ? chunks->size() : 0;
  open_begin_ = begin;
  open_end_ = end;
}

OpenRange DeliveryState::open() const {
  OpenRange range;
  range.begin = open_begin_;
  range.end = open_end_;
  if (!all_decided()) {
    range.sent_bytes = sent_bytes(frontier());
  }
  return range;
}

uint64_t DeliveryState::sent_bytes(uint32_t chunk) const {
  const Chunk& state = state_[chunk];
  if (state.complete == 0) return state.offset;
  return state.offset + chunks_->bytes(chunk, chunk + 1, state.complete - 1);
}

SendData DeliveryState::NextPiece(uint32_t chunk, uint64_t max_bytes) const {
  const Chunk& state = state_[chunk];
  SendData piece;
  piece.chunk = chunk;
  piece.level = state.complete;
  piece.offset = state.offset;
  piece.size = std::min(chunks_->segment_bytes(chunk, state.complete) - state.offset, max_bytes);
  return piece;
}

void DeliveryState::OnSent(const SendData& piece) {
  Chunk& state = state_[piece.chunk];
  state.offset += piece.size;
  const uint64_t segment = chunks_->segment_bytes(piece.chunk, state.complete);
  if (state.offset < segment) return;
  state.offset = 0;
  const bool recompute = (state.flags & kRecompute) != 0;
  if (state.complete++ == 0 && !recompute) ++deliverable_;
  if ((state.flags & kBase) && !recompute) refinement_bytes_ -= segment;
}

void DeliveryState::OnUnsent(const SendData& piece) {
  Chunk& state = state_[piece.chunk];
  if (state.complete > piece.level) {
    --state.complete;
    const bool recompute = (state.flags & kRecompute) != 0;
    if (state.complete == 0 && !recompute) --deliverable_;
    if ((state.flags & kBase) && !recompute) {
      refinement_bytes_ += chunks_->segment_bytes(piece.chunk, state.complete);
    }
  }
  state.offset = piece.offset;
}

void DeliveryState::CloseFrontier() {
  const uint32_t chunk = frontier();
  state_[chunk].flags |= kBase;
  refinement_bytes_ += BytesAbove(chunk, state_[chunk].complete);
  if (order_ == BaseOrder::kForward) {
    ++open_begin_;
  } else {
    --open_end_;
  }
  RefineAgain(chunk);
}

void DeliveryState::RefineAgain(uint32_t chunk) {
  if (stop_ > 0 || cursor_ <= Mirrored(chunk)) {
    stop_ = 0;
    cursor_ = std::max(cursor_, Mirrored(chunk) + 1);
  }
}

uint64_t DeliveryState::BytesAbove(uint32_t chunk, int complete) const {
  uint64_t bytes = 0;
  for (int level = complete; level <= chunks_->finest(chunk); ++level) {
    bytes += chunks_->segment_bytes(chunk, level);
  }
  return bytes;
}

void DeliveryState::MarkRecompute(uint32_t begin, uint32_t end, RecomputeReason reason) {
  for (uint32_t chunk = begin; chunk < end; ++chunk) {
    Chunk& state = state_[chunk];
    if (state.flags & kRecompute) continue;
    if (state.flags & kBase) refinement_bytes_ -= BytesAbove(chunk, state.complete);
    if (state.complete == 0) ++deliverable_;
    state.flags |= kRecompute;
    state.reason = reason;
    ++recompute_chunks_;
  }
  if (begin <= open_begin_) {
    open_begin_ = std::min(std::max(open_begin_, end), open_end_);
  } else if (end >= open_end_) {
    open_end_ = std::max(std::min(open_end_, begin), open_begin_);
  }
}

void DeliveryState::UnmarkRecompute(uint32_t chunk) {
  Chunk& state = state_[chunk];
  state.flags = static_cast<uint8_t>((state.flags & ~(kRecompute | kTold)) | kBase);
  refinement_bytes_ += BytesAbove(chunk, state.complete);
  --recompute_chunks_;
  RefineAgain(chunk);
}

absl::optional<DeliveryState::Refinement> DeliveryState::NextRefinement() {
  for (; stop_ < stops_.size(); ++stop_, cursor_ = chunks_->size()) {
    for (; cursor_ > 0; --cursor_) {
      const uint32_t chunk = Mirrored(cursor_ - 1);
      const Chunk& state = state_[chunk];
      const int target = std::min(stops_[stop_], chunks_->finest(chunk));
      if ((state.flags & kRecompute) || !(state.flags & kBase) || state.complete > target) continue;
      Refinement next;
      next.chunk = chunk;
      next.target = target;
      next.left = cursor_;
      for (int level = state.complete; level <= next.target; ++level) {
        next.bytes += chunks_->segment_bytes(chunk, level);
      }
      return next;
    }
  }
  return absl::nullopt;
}

ChunkDecision DeliveryState::decision(uint32_t chunk) const {
  const Chunk& state = state_[chunk];
  ChunkDecision decision;
  if (state.flags & kRecompute) {
    decision.reason = state.reason;
  } else {
    decision.level = state.complete - 1;
  }
  return decision;
}

}  // namespace kvstream

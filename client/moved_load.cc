#include "client/moved_load.h"

#include <algorithm>
#include <tuple>

namespace kvstream {

MovedLoad::MovedLoad(uint32_t chunks, ClientRecomputeAbility ability, absl::Duration began,
                     absl::Duration refine_until)
    : ability_(ability),
      began_(began),
      refine_until_(refine_until),
      chunks_(chunks),
      held_(chunks),
      given_(chunks, false) {}

bool MovedLoad::complete() const {
  return std::find(chunks_.begin(), chunks_.end(), absl::nullopt) == chunks_.end();
}

std::pair<uint32_t, uint32_t> MovedLoad::Missing() const {
  const auto size = static_cast<uint32_t>(chunks_.size());
  const auto first = std::find(chunks_.begin(), chunks_.end(), absl::nullopt);
  if (first == chunks_.end()) return {size, size};
  const auto begin = static_cast<uint32_t>(first - chunks_.begin());
  // Who can recompute a suffix only can recompute nothing in the middle.
  if (ability_ == ClientRecomputeAbility::kSuffix) return {begin, size};
  const auto last = std::find(chunks_.rbegin(), chunks_.rend(), absl::nullopt);
  return {begin, static_cast<uint32_t>(chunks_.rend() - last)};
}

std::pair<uint32_t, uint32_t> MovedLoad::MostRefinable() const {
  const auto size = static_cast<uint32_t>(chunks_.size());
  std::pair<uint32_t, uint32_t> best = {size, size};
  uint32_t most = 0;
  for (uint32_t begin = 0; begin < size; ++begin) {
    uint32_t end = begin, refinable = 0;
    for (; end < size && in_place(end); ++end) refinable += held_[end].refinable() ? 1 : 0;
    if (refinable > most) {
      most = refinable;
      best = {begin, end};
    }
    begin = end;
  }
  return best;
}

LoadRange MovedLoad::Next(bool hold, absl::Duration now) {
  LoadRange range;
  range.began = began_;
  std::fill(given_.begin(), given_.end(), false);
  const std::pair<uint32_t, uint32_t> missing = Missing();
  std::tie(range.first_chunk, range.end_chunk) = missing;
  if (!hold || now - began_ >= refine_until_) return range;
  uint32_t& begin = range.first_chunk;
  uint32_t& end = range.end_chunk;
  const auto size = static_cast<uint32_t>(chunks_.size());
  if (missing.first == missing.second) {
    std::tie(begin, end) = MostRefinable();
  } else {
    const bool front =
        ability_ == ClientRecomputeAbility::kFront || ability_ == ClientRecomputeAbility::kAny;
    while (!front && begin > 0 && in_place(begin - 1)) --begin;
    while (end < size && in_place(end)) ++end;
  }
  // What is finest at the ends needs nobody.
  const bool complete = missing.first == missing.second;
  while (begin < (complete ? end : missing.first) && !held_[begin].refinable()) ++begin;
  while (end > (complete ? begin : missing.second) && !held_[end - 1].refinable()) --end;
  if (end - begin == missing.second - missing.first) return range;
  range.held.resize(end - begin);
  for (uint32_t chunk = begin; chunk < end; ++chunk) {
    if (!complete && chunk >= missing.first && chunk < missing.second) continue;
    given_[chunk] = true;
    range.held[chunk - begin] = std::exchange(held_[chunk], {});
  }
  return range;
}

void MovedLoad::Note(uint32_t chunk, LoadedChunk now) {
  if (given_[chunk]) now.bytes += chunks_[chunk]->bytes;
  chunks_[chunk] = now;
}

void MovedLoad::OnLeft(LoadRange range, absl::Duration now) {
  for (size_t i = 0; i < range.kept.size(); ++i) {
    const auto chunk = range.first_chunk + static_cast<uint32_t>(i);
    held_[chunk] = i < range.held.size() ? std::move(range.held[i]) : HeldChunk();
    if (!range.kept[i].has_value()) {
      chunks_[chunk].reset();
      continue;
    }
    bytes_ += range.kept[i]->bytes;
    if (!range.kept[i]->level.has_value()) {
      recomputed_tokens_ += static_cast<uint64_t>(range.kept[i]->tokens);
    }
    Note(chunk, *range.kept[i]);
  }
  if (!complete()) {
    complete_at_.reset();
  } else if (!complete_at_.has_value()) {
    complete_at_ = now;
  }
}

LoadResult MovedLoad::Whole(LoadResult part) const {
  part.chunks.clear();
  for (const absl::optional<LoadedChunk>& chunk : chunks_) part.chunks.push_back(*chunk);
  part.bytes += bytes_;
  part.recomputed_tokens += recomputed_tokens_;
  part.goodput_bytes_per_second =
      static_cast<double>(part.bytes) / std::max(1e-9, absl::ToDoubleSeconds(part.load_delay));
  return part;
}

LoadResult MovedLoad::OnLoaded(const LoadRange& range, LoadResult part) {
  for (size_t i = 0; i < part.chunks.size(); ++i) {
    Note(range.first_chunk + static_cast<uint32_t>(i), part.chunks[i]);
  }
  return Whole(std::move(part));
}

LoadResult MovedLoad::AsItIs(absl::Duration now) const {
  LoadResult part;
  // The caller had it all at once; what came after that was for quality.
  part.load_delay = now - began_;
  if (refine_until_ > absl::ZeroDuration() && complete_at_.has_value()) {
    part.load_delay = std::max(*complete_at_ - began_, std::min(part.load_delay, refine_until_));
  }
  return Whole(std::move(part));
}

}  // namespace kvstream

#include "server/service/load_story.h"

#include <algorithm>

namespace kvstream {

LoadStory::LoadStory(uint32_t samples_max)
    : samples_max_(samples_max == 0 ? 0 : std::clamp<uint32_t>(samples_max, 2, kSamplesMax)) {}

bool LoadStory::wants(absl::Duration at) const {
  return samples_max_ > 0 && (samples_.empty() || at - samples_.back().at >= distance_);
}

void LoadStory::Add(absl::Duration at, const LoadSessionState& state) {
  if (!wants(at)) return;
  if (samples_.size() == samples_max_) {
    size_t kept = 0;
    for (size_t i = 0; i < samples_.size(); i += 2) samples_[kept++] = samples_[i];
    samples_.resize(kept);
    distance_ *= 2;
    if (!wants(at)) return;
  }
  samples_.push_back({at, state.bandwidth_bytes_per_second, state.bandwidth_low_bytes_per_second,
                      state.bandwidth_is_lower_bound, state.window_bytes, state.bytes_sent,
                      state.bytes_acknowledged});
}

void LoadStory::Write(v1::LoadSummary* summary) const {
  for (const Sample& sample : samples_) {
    v1::LoadStorySample& to = *summary->add_story();
    to.set_at_ns(static_cast<uint64_t>(absl::ToInt64Nanoseconds(sample.at)));
    to.set_bandwidth_estimate_bytes_per_second(sample.estimate);
    to.set_bandwidth_promised_bytes_per_second(sample.promised);
    to.set_bandwidth_is_lower_bound(sample.lower_bound);
    to.set_window_bytes(sample.window_bytes);
    to.set_bytes_sent(sample.bytes_sent);
    to.set_bytes_acknowledged(sample.bytes_acknowledged);
  }
}

}  // namespace kvstream

#include "client/decoder_pool.h"

#include <utility>

namespace kvstream {
namespace {

constexpr double kWeightOfNewest = 1.0 / 8;
// Profiles whose speed is remembered; more are forgotten all at once, which costs a few estimates.
constexpr size_t kProfilesMax = 64;

}  // namespace

absl::StatusOr<std::unique_ptr<ChunkDecoder>> DecoderPool::Acquire(
    const std::shared_ptr<const Profile>& profile) {
  std::vector<std::unique_ptr<ChunkDecoder>> discarded;  // destroyed after the lock
  {
    absl::MutexLock lock(&mutex_);
    if (idle_profile_ != profile->id()) {
      idle_profile_ = profile->id();
      discarded.swap(idle_);
    } else if (!idle_.empty()) {
      std::unique_ptr<ChunkDecoder> decoder = std::move(idle_.back());
      idle_.pop_back();
      return decoder;
    }
  }
  return ChunkDecoder::Create(profile);
}

void DecoderPool::Release(const Profile& profile, std::unique_ptr<ChunkDecoder> decoder) {
  absl::MutexLock lock(&mutex_);
  if (idle_profile_ == profile.id() && idle_.size() < idle_max_) {
    idle_.push_back(std::move(decoder));
  }
}

double DecoderPool::SecondsPerToken(const ProfileId& profile) const {
  absl::MutexLock lock(&mutex_);
  const auto found = seconds_per_token_.find(profile);
  return found == seconds_per_token_.end() ? 0 : found->second;
}

void DecoderPool::RecordDecode(const ProfileId& profile, int64_t tokens, absl::Duration took) {
  if (tokens < 1) return;
  const double sample = absl::ToDoubleSeconds(took) / static_cast<double>(tokens);
  absl::MutexLock lock(&mutex_);
  if (seconds_per_token_.size() >= kProfilesMax && seconds_per_token_.count(profile) == 0) {
    seconds_per_token_.clear();
  }
  const auto [entry, first] = seconds_per_token_.emplace(profile, sample);
  if (!first) entry->second += kWeightOfNewest * (sample - entry->second);
}

}  // namespace kvstream

#include "client/decoder_pool.h"

#include <utility>

namespace kvstream {
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

}  // namespace kvstream

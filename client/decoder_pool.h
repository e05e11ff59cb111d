// Chunk decoders kept between loads, and how fast they were.
#ifndef KVSTREAM_CLIENT_DECODER_POOL_H_
#define KVSTREAM_CLIENT_DECODER_POOL_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "client/decode_speed.h"
#include "codec/decoder.h"
#include "codec/profile.h"

namespace kvstream {

// Thread-safe. Decoders hold scratch memory that is dear to set up; those of the profile used last
// are kept idle, up to idle_max.
class DecoderPool {
 public:
  explicit DecoderPool(size_t idle_max) : idle_max_(idle_max) {}

  // An idle decoder of the profile, or a new one.
  absl::StatusOr<std::unique_ptr<ChunkDecoder>> Acquire(
      const std::shared_ptr<const Profile>& profile);
  void Release(const Profile& profile, std::unique_ptr<ChunkDecoder> decoder);

  // As DecodeSpeed.
  double SecondsPerToken(const ProfileId& profile) const { return speed_.SecondsPerToken(profile); }
  void RecordDecode(const ProfileId& profile, int64_t tokens, absl::Duration took) {
    speed_.Record(profile, tokens, took);
  }

 private:
  const size_t idle_max_;
  DecodeSpeed<ProfileId> speed_;
  absl::Mutex mutex_;
  ProfileId idle_profile_ ABSL_GUARDED_BY(mutex_) = {};
  std::vector<std::unique_ptr<ChunkDecoder>> idle_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace kvstream

#endif  // KVSTREAM_CLIENT_DECODER_POOL_H_

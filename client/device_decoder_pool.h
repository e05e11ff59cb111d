// Device decoders kept between loads, and how fast they were.
#ifndef KVSTREAM_CLIENT_DEVICE_DECODER_POOL_H_
#define KVSTREAM_CLIENT_DEVICE_DECODER_POOL_H_

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "client/decode_speed.h"
#include "client/device_chunk_decoder.h"
#include "codec/profile.h"

namespace kvstream {

// One profile's decoders for one part of a model on one device. The shard must be resolved.
struct DeviceDecoderKey {
  ProfileId profile = {};
  int device_ordinal = 0;
  DeviceShard shard;

  friend bool operator<(const DeviceDecoderKey& a, const DeviceDecoderKey& b) {
    const auto fields = [](const DeviceDecoderKey& key) {
      const DeviceShard& shard = key.shard;
      return std::tie(key.profile, key.device_ordinal, shard.first_layer, shard.layers,
                      shard.first_head, shard.heads);
    };
    return fields(a) < fields(b);
  }
};

// Thread-safe. The tables of a profile go to a device once: the first decoder of a key is kept to
// make siblings of, and is never lent itself. Idle decoders and tables of one profile are kept,
// that of the newest Acquire: device memory is scarce.
class DeviceDecoderPool {
 public:
  // What every decoder of the pool can be given.
  static constexpr int kBatchChunks = 4;
  static constexpr int kCallsUnderWay = 2;

  explicit DeviceDecoderPool(DeviceChunkDecoderFactory factory) : factory_(std::move(factory)) {}

  // An idle decoder, or a new one. Errors: the factory's.
  absl::StatusOr<std::unique_ptr<DeviceChunkDecoder>> Acquire(
      const std::shared_ptr<const Profile>& profile, const DeviceDecoderKey& key);
  // For a decoder all of whose calls are finished, and went well; others are destroyed instead.
  void Release(const DeviceDecoderKey& key, std::unique_ptr<DeviceChunkDecoder> decoder);

  // As DecodeSpeed; `took` is the time that a batch added.
  double SecondsPerToken(const DeviceDecoderKey& key) const { return speed_.SecondsPerToken(key); }
  void RecordDecode(const DeviceDecoderKey& key, int64_t tokens, absl::Duration took) {
    speed_.Record(key, tokens, took);
  }

 private:
  struct Kept {
    std::shared_ptr<const DeviceChunkDecoder> root;  // shared with those that make siblings now
    std::vector<std::unique_ptr<DeviceChunkDecoder>> idle;
  };
  using KeptByKey = std::map<DeviceDecoderKey, Kept>;

  const DeviceChunkDecoderFactory factory_;
  DecodeSpeed<DeviceDecoderKey> speed_;
  absl::Mutex mutex_;
  KeptByKey kept_ ABSL_GUARDED_BY(mutex_);  // all of one profile
};

}  // namespace kvstream

#endif  // KVSTREAM_CLIENT_DEVICE_DECODER_POOL_H_

// Device decoders kept between loads, and how fast they were.
#ifndef KVSTREAM_CLIENT_DEVICE_DECODER_POOL_H_
#define KVSTREAM_CLIENT_DEVICE_DECODER_POOL_H_

#include <cstdint>
#include <list>
#include <map>
#include <memory>
#include <tuple>
#include <utility>

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

// Thread-safe. Device memory is scarce: decoders that are made while others of their key exist
// share those's tables, and idle ones are kept of one profile only, that of the newest Acquire.
class DeviceDecoderPool {
 public:
  // What every decoder of the pool can be given.
  static constexpr int kBatchChunks = 4;
  static constexpr int kCallsUnderWay = 2;

  explicit DeviceDecoderPool(DeviceChunkDecoderFactory factory) : factory_(std::move(factory)) {}

  // An idle decoder, or a new one. Errors: the factory's. What was acquired must be given back.
  absl::StatusOr<std::unique_ptr<DeviceChunkDecoder>> Acquire(
      const std::shared_ptr<const Profile>& profile, const DeviceDecoderKey& key);
  // All calls of the decoder must be finished. One that is not `reusable` is destroyed before this
  // returns.
  void Release(const DeviceDecoderKey& key, std::unique_ptr<DeviceChunkDecoder> decoder,
               bool reusable = true);

  // As DecodeSpeed; `took` is the time that a batch added.
  double SecondsPerToken(const DeviceDecoderKey& key) const { return speed_.SecondsPerToken(key); }
  void RecordDecode(const DeviceDecoderKey& key, int64_t tokens, absl::Duration took) {
    speed_.Record(key, tokens, took);
  }

 private:
  struct Lent {
    const DeviceChunkDecoder* decoder;
    DeviceDecoderKey key;
    int siblings_in_making;  // it must live for them
  };

  const DeviceChunkDecoderFactory factory_;
  DecodeSpeed<DeviceDecoderKey> speed_;
  absl::Mutex mutex_;
  // All of one profile; some of every key.
  std::multimap<DeviceDecoderKey, std::unique_ptr<DeviceChunkDecoder>> idle_
      ABSL_GUARDED_BY(mutex_);
  std::list<Lent> lent_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace kvstream

#endif  // KVSTREAM_CLIENT_DEVICE_DECODER_POOL_H_

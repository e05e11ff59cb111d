#include "client/device_decoder_pool.h"

#include <utility>

namespace kvstream {
namespace {

// Loads of one key that usually overlap; more of them set up anew each time.
constexpr size_t kIdleMax = 4;
// Parts of models times devices that one client serves; beyond it all are dropped.
constexpr size_t kKeysMax = 16;

}  // namespace

absl::StatusOr<std::unique_ptr<DeviceChunkDecoder>> DeviceDecoderPool::Acquire(
    const std::shared_ptr<const Profile>& profile, const DeviceDecoderKey& key) {
  std::shared_ptr<const DeviceChunkDecoder> root;
  KeptByKey discarded;  // destroyed without the lock
  {
    absl::MutexLock lock(&mutex_);
    const bool other_profile = !kept_.empty() && kept_.begin()->first.profile != key.profile;
    if (other_profile || (kept_.size() >= kKeysMax && kept_.count(key) == 0)) {
      discarded.swap(kept_);
    }
    const auto found = kept_.find(key);
    if (found != kept_.end()) {
      Kept& kept = found->second;
      if (!kept.idle.empty()) {
        std::unique_ptr<DeviceChunkDecoder> decoder = std::move(kept.idle.back());
        kept.idle.pop_back();
        return decoder;
      }
      root = kept.root;
    }
  }
  discarded.clear();  // before memory is asked for
  if (root == nullptr) {
    DeviceChunkDecoderOptions options;
    options.device_ordinal = key.device_ordinal;
    options.shard = key.shard;
    options.max_batch_chunks = kBatchChunks;
    options.calls_under_way = kCallsUnderWay;
    absl::StatusOr<std::unique_ptr<DeviceChunkDecoder>> created = factory_(profile, options);
    if (!created.ok()) return created.status();
    root = *std::move(created);
    absl::MutexLock lock(&mutex_);
    const bool wanted = kept_.empty() || kept_.begin()->first.profile == key.profile;
    if (wanted) {
      std::shared_ptr<const DeviceChunkDecoder>& kept = kept_[key].root;
      if (kept == nullptr) kept = root;  // of two that were made at once, the first stays
    }
  }
  return root->CreateSibling();
}

void DeviceDecoderPool::Release(const DeviceDecoderKey& key,
                                std::unique_ptr<DeviceChunkDecoder> decoder) {
  absl::MutexLock lock(&mutex_);
  const auto found = kept_.find(key);
  if (found != kept_.end() && found->second.idle.size() < kIdleMax) {
    found->second.idle.push_back(std::move(decoder));
  }
}

}  // namespace kvstream

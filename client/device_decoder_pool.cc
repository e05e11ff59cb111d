#include "client/device_decoder_pool.h"

#include <algorithm>
#include <cstddef>
#include <utility>

namespace kvstream {
namespace {

// Each holds a workspace; see codec/cuda/device_decoder.h.
constexpr size_t kIdleMaxOfKey = 2;
// For the parts of a model and the devices that one client serves.
constexpr size_t kIdleMax = 16;

}  // namespace

absl::StatusOr<std::unique_ptr<DeviceChunkDecoder>> DeviceDecoderPool::Acquire(
    const std::shared_ptr<const Profile>& profile, const DeviceDecoderKey& key) {
  Lent* elder = nullptr;      // one with the tables
  decltype(idle_) discarded;  // destroyed without the lock
  {
    absl::MutexLock lock(&mutex_);
    if (!idle_.empty() && idle_.begin()->first.profile != key.profile) discarded.swap(idle_);
    if (const auto found = idle_.find(key); found != idle_.end()) {
      std::unique_ptr<DeviceChunkDecoder> decoder = std::move(found->second);
      idle_.erase(found);
      lent_.push_back({decoder.get(), key, 0});
      return decoder;
    }
    for (Lent& lent : lent_) {
      if (!(lent.key < key) && !(key < lent.key)) elder = &lent;
    }
    if (elder != nullptr) ++elder->siblings_in_making;
  }
  discarded.clear();  // before memory is asked for
  DeviceChunkDecoderOptions options;
  options.device_ordinal = key.device_ordinal;
  options.shard = key.shard;
  options.max_batch_chunks = kBatchChunks;
  options.calls_under_way = kCallsUnderWay;
  absl::StatusOr<std::unique_ptr<DeviceChunkDecoder>> created =
      elder != nullptr ? elder->decoder->CreateSibling() : factory_(profile, options);
  absl::MutexLock lock(&mutex_);
  if (elder != nullptr) --elder->siblings_in_making;
  if (created.ok()) lent_.push_back({created->get(), key, 0});
  return created;
}

void DeviceDecoderPool::Release(const DeviceDecoderKey& key,
                                std::unique_ptr<DeviceChunkDecoder> decoder, bool reusable) {
  {
    absl::MutexLock lock(&mutex_);
    const auto lent = std::find_if(lent_.begin(), lent_.end(), [&](const Lent& candidate) {
      return candidate.decoder == decoder.get();
    });
    const auto alone = [&lent] { return lent->siblings_in_making == 0; };
    mutex_.Await(absl::Condition(&alone));
    lent_.erase(lent);
    const bool of_profile = idle_.empty() || idle_.begin()->first.profile == key.profile;
    if (reusable && of_profile && idle_.size() < kIdleMax && idle_.count(key) < kIdleMaxOfKey) {
      idle_.emplace(key, std::move(decoder));
    }
  }
  decoder.reset();
}

}  // namespace kvstream

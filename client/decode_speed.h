// How fast decoders were, for the server's planner.
#ifndef KVSTREAM_CLIENT_DECODE_SPEED_H_
#define KVSTREAM_CLIENT_DECODE_SPEED_H_

#include <cstddef>
#include <cstdint>
#include <map>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

namespace kvstream {

// Seconds per token for each key (what is decoded, and where). Thread-safe.
//
// An exponentially weighted mean over the decodes recorded: each moves it an eighth of the way. It
// follows a change of level or machine load within some ten decodes and is not thrown by one that
// was preempted.
template <typename Key>
class DecodeSpeed {
 public:
  // 0: none recorded yet.
  double SecondsPerToken(const Key& key) const {
    absl::MutexLock lock(&mutex_);
    const auto found = seconds_per_token_.find(key);
    return found == seconds_per_token_.end() ? 0 : found->second;
  }

  void Record(const Key& key, int64_t tokens, absl::Duration took) {
    if (tokens < 1) return;
    const double sample = absl::ToDoubleSeconds(took) / static_cast<double>(tokens);
    absl::MutexLock lock(&mutex_);
    if (seconds_per_token_.size() >= kKeysMax && seconds_per_token_.count(key) == 0) {
      seconds_per_token_.clear();
    }
    const auto [entry, first] = seconds_per_token_.emplace(key, sample);
    if (!first) entry->second += kWeightOfNewest * (sample - entry->second);
  }

 private:
  static constexpr double kWeightOfNewest = 1.0 / 8;
  // More are forgotten all at once, which costs a few estimates.
  static constexpr size_t kKeysMax = 64;

  mutable absl::Mutex mutex_;
  std::map<Key, double> seconds_per_token_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace kvstream

#endif  // KVSTREAM_CLIENT_DECODE_SPEED_H_

// When a load's client reports its progress.
#ifndef KVSTREAM_CLIENT_PROGRESS_PACE_H_
#define KVSTREAM_CLIENT_PROGRESS_PACE_H_

#include <algorithm>

#include "absl/time/time.h"

namespace kvstream {

// A report is a message up the link, a wake-up at both ends and a step of the server. What only
// adds to the last one (bytes, decoded chunks) follows it after kPause at the soonest, so that a
// link of several gigabytes a second is not asked ten times a millisecond; the server's estimator
// takes no sample of a shorter time anyway. The first few, each of which may open the server's
// window fourfold, and what may change the server's mind go at once. Slower links, where a message
// takes longer than kPause, see no difference.
//
// One thread. `now` is any clock that does not go back.
class ProgressPace {
 public:
  static constexpr absl::Duration kPause = absl::Milliseconds(1);
  static constexpr int kAtOnce = 8;  // reports of a load

  void Due() { due_ = true; }
  void DueAtOnce() { due_ = urgent_ = true; }

  // Until the next report; infinite if there is nothing to report, zero if it may be sent.
  absl::Duration Wait(absl::Duration now) const {
    if (!due_) return absl::InfiniteDuration();
    if (urgent_ || sent_ < kAtOnce) return absl::ZeroDuration();
    return std::max(earliest_ - now, absl::ZeroDuration());
  }
  bool MaySend(absl::Duration now) const { return Wait(now) == absl::ZeroDuration(); }
  void Sent(absl::Duration now) {
    due_ = urgent_ = false;
    sent_ = std::min(sent_ + 1, kAtOnce);
    earliest_ = now + kPause;
  }

 private:
  bool due_ = false;
  bool urgent_ = false;
  int sent_ = 0;  // at most kAtOnce
  absl::Duration earliest_ = -absl::InfiniteDuration();
};

}  // namespace kvstream

#endif  // KVSTREAM_CLIENT_PROGRESS_PACE_H_

// One direction of an emulated bottleneck link: a bounded queue, a rate, a propagation delay. Pure
// logic; time is an argument.
#ifndef KVSTREAM_CLIENT_LINK_MODEL_H_
#define KVSTREAM_CLIENT_LINK_MODEL_H_

#include <cstdint>
#include <deque>
#include <string>

#include "absl/time/time.h"
#include "absl/types/optional.h"
#include "client/rate_trace.h"

namespace kvstream {

// Bytes of one connection on their way, or a sign that travels in order with them.
struct LinkItem {
  enum class Kind { kBytes, kEnd, kReset };
  uint64_t connection = 0;
  Kind kind = Kind::kBytes;
  std::string bytes;  // empty unless kBytes
};

// Items of all connections share the rate and leave in the order in which they came. Not
// thread-safe. Times are durations since any fixed moment, at which the trace begins, and must not
// go back from call to call.
//
// The queue earns bytes at the trace's rate while it is not empty, and only then: an idle link
// saves nothing up. What is earned leaves in quanta of about a millisecond. A caller who comes late
// gets what was missed, but never more than about 10 ms worth at once; the rest is lost, as if the
// link had paused. So, with a caller that comes when NextEvent() says, the long-run rate is exact.
class LinkModel {
 public:
  LinkModel(RateTrace trace, absl::Duration delay);

  // Bytes that the queue still takes: 50 ms worth at the present rate, 64 KiB at least, less what
  // is in it. Never negative.
  int64_t Room(absl::Duration now) const;

  // Queues an item. Room() is a promise of the caller's, not checked here.
  void Push(absl::Duration now, LinkItem item);

  // The next item that has crossed the link by `now`, in pieces as they left the queue; none if
  // there is none. Cost: amortised constant, plus a copy of the piece where an item is cut.
  absl::optional<LinkItem> Pop(absl::Duration now);

  // When to call Pop() next; InfiniteDuration() if the link is empty. May be in the past.
  absl::Duration NextEvent() const;

  // The most bytes that can be queued or under way at any time.
  int64_t capacity_bytes() const;

 private:
  struct UnderWay {
    absl::Duration arrival;
    LinkItem item;
  };

  int64_t QuantumBytes(absl::Duration time) const;
  void Advance(absl::Duration now);
  // Moves `bytes` from the queue onto the way, and the signs behind them.
  void Release(int64_t bytes, absl::Duration now);

  const RateTrace trace_;
  const absl::Duration delay_;
  std::deque<LinkItem> queue_;
  int64_t queued_bytes_ = 0;
  double earned_bytes_ = 0;  // as of last_, of the busy period
  absl::Duration last_;      // when earned_bytes_ was brought up to date
  std::deque<UnderWay> under_way_;
};

}  // namespace kvstream

#endif  // KVSTREAM_CLIENT_LINK_MODEL_H_

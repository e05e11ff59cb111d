// How much of what was sent still waits before the link.
#ifndef KVSTREAM_SERVER_LOAD_LINK_QUEUE_H_
#define KVSTREAM_SERVER_LOAD_LINK_QUEUE_H_

#include <algorithm>
#include <cstdint>

#include "absl/time/time.h"

namespace kvstream {

// Unacknowledged bytes are either before the link (in buffers) or past it (under way, or in a
// report under way). What is before it delays the next byte, the rest does not: a byte sent now is
// acknowledged after
//     rtt + q / rate.
// q grows by what is sent and shrinks by rate * time; and as whatever passed the link a round trip
// ago is acknowledged by now, always
//     unacknowledged - rate * rtt <= q <= unacknowledged.
// A burst into an empty link thus counts in full, while in a steady flow q is what exceeds the
// pipe. Rates in bytes a second; 0: unknown, then q is all that is unacknowledged.
// Thread-compatible.
class LinkQueue {
 public:
  void OnSent(uint64_t bytes, double rate, absl::Duration now) {
    Drain(rate, now);
    queued_ += static_cast<double>(bytes);
  }
  double bytes(uint64_t unacked, double rate, double rtt_s, absl::Duration now) {
    Drain(rate, now);
    const double all = static_cast<double>(unacked);
    queued_ = std::min(std::max(queued_, all - rate * rtt_s), all);
    return queued_;
  }

 private:
  void Drain(double rate, absl::Duration now) {
    const double elapsed_s = std::max(absl::ToDoubleSeconds(now - at_), 0.0);
    queued_ = std::max(queued_ - rate * elapsed_s, 0.0);
    at_ = std::max(at_, now);
  }

  double queued_ = 0;
  absl::Duration at_;
};

}  // namespace kvstream

#endif  // KVSTREAM_SERVER_LOAD_LINK_QUEUE_H_

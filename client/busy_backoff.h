// When a load that the server refused for want of room is tried again.
#ifndef KVSTREAM_CLIENT_BUSY_BACKOFF_H_
#define KVSTREAM_CLIENT_BUSY_BACKOFF_H_

#include <algorithm>
#include <cstdint>

#include "absl/strings/numbers.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "absl/types/optional.h"

namespace kvstream {

// The server says after how long (grpc-retry-pushback-ms, gRPC proposal A6). Waits are that, half
// as much again per refusal before, times 0.75 to 1.5 at random so that those who were refused
// together do not come together.
class BusyBackoff {
 public:
  static constexpr int kAttemptsMax = 64;

  // until: no attempt begins later, on the clock of `now`.
  explicit BusyBackoff(absl::Duration until) : until_(until) {}

  // pushback_ms: the metadata's text, none if there was none. random: uniform in [0, 1). None: give
  // up, because the server did not ask to come again, or time or patience is over.
  absl::optional<absl::Duration> Next(absl::optional<absl::string_view> pushback_ms, double random,
                                      absl::Duration now) {
    int64_t ms = 0;
    // Negative is the server's word for "do not".
    if (!pushback_ms || !absl::SimpleAtoi(*pushback_ms, &ms) || ms < 0) return absl::nullopt;
    if (attempts_++ >= kAttemptsMax) return absl::nullopt;
    const absl::Duration wait =
        std::min(absl::Milliseconds(std::min<int64_t>(ms, kWaitMaxMs)) * growth_,
                 absl::Milliseconds(kWaitMaxMs)) *
        (0.75 + 0.75 * random);
    growth_ = std::min(growth_ * 1.5, 1e3);
    if (now + wait >= until_) return absl::nullopt;
    return std::max(wait, absl::Milliseconds(1));
  }

 private:
  static constexpr int64_t kWaitMaxMs = 30000;

  const absl::Duration until_;
  int attempts_ = 0;
  double growth_ = 1;
};

}  // namespace kvstream

#endif  // KVSTREAM_CLIENT_BUSY_BACKOFF_H_

// The clock by which the client measures: never set back, unlike absl::Now().
#ifndef KVSTREAM_CLIENT_MONOTONIC_CLOCK_H_
#define KVSTREAM_CLIENT_MONOTONIC_CLOCK_H_

#include <chrono>

#include "absl/time/time.h"

namespace kvstream {

// Since an arbitrary origin that is fixed for the life of the process.
inline absl::Duration MonotonicNow() {
  return absl::FromChrono(std::chrono::steady_clock::now().time_since_epoch());
}

}  // namespace kvstream

#endif  // KVSTREAM_CLIENT_MONOTONIC_CLOCK_H_

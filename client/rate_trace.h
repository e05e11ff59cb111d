// The speed of a link over time.
#ifndef KVSTREAM_CLIENT_RATE_TRACE_H_
#define KVSTREAM_CLIENT_RATE_TRACE_H_

#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace kvstream {

// A piecewise constant rate from time zero on. Immutable value; thread-safe. Times before zero have
// the first rate.
class RateTrace {
 public:
  // Precondition: bytes_per_second > 0.
  static RateTrace Constant(double bytes_per_second);

  // Text of lines `<seconds> <rate>`, such as
  //   0    100Mbit   # empty lines and what follows a # are skipped
  //   2.5  10Mbit
  //   4    0         # the link is down
  //   10   loop      # optional, last: the trace starts again
  // The first time must be 0, times must grow; without `loop` the last rate holds for ever.
  // INVALID_ARGUMENT naming the line, also if the rate is 0 for ever. At most 1 MiB and 100,000
  // rates.
  static absl::StatusOr<RateTrace> Parse(absl::string_view text);

  double BytesPerSecondAt(absl::Duration time) const;
  double max_bytes_per_second() const { return max_rate_; }

  // Bytes that a busy link carries in [from, to). Cost: linear in the steps of at most one period
  // in between.
  double BytesBetween(absl::Duration from, absl::Duration to) const;

  // When a link that is busy from `from` on has carried `bytes`; InfiniteDuration() if it never
  // does. Same cost.
  absl::Duration TimeToCarry(absl::Duration from, double bytes) const;

 private:
  struct Step {
    absl::Duration start;
    double bytes_per_second;
  };
  // The rate at `time` and when it ends (InfiniteDuration(): never).
  struct Span {
    double bytes_per_second;
    absl::Duration end;
  };

  RateTrace(std::vector<Step> steps, absl::Duration period);
  Span SpanAt(absl::Duration time) const;

  std::vector<Step> steps_;  // not empty; the first starts at 0
  absl::Duration period_;    // InfiniteDuration(): no loop
  double max_rate_ = 0;
  double bytes_per_period_ = 0;  // 0 without a loop
};

}  // namespace kvstream

#endif  // KVSTREAM_CLIENT_RATE_TRACE_H_

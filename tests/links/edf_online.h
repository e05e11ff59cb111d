// How many deadlines on one link are missed by somebody who does not know its future, and the
// levels that loads reach.
#ifndef KVSTREAM_TESTS_LINKS_EDF_ONLINE_H_
#define KVSTREAM_TESTS_LINKS_EDF_ONLINE_H_

#include <vector>

#include "absl/time/time.h"
#include "client/rate_trace.h"
#include "tests/links/edf_bound.h"

namespace kvstream {
namespace links {

struct OnlineSender {
  // After which it sees what the link has carried and how fast it was. What is in flight meanwhile
  // waits in one queue and cannot be put in order any more.
  absl::Duration round_trip;
  double floor = 0;  // of the link, for those without a deadline or without hope; 0 to 1
  // Above 0: it sees the link only while its own bytes are before it. Until then it believes what
  // it saw last, and at first this speed, in bytes a second.
  double record = 0;
};

struct OnlineOutcome {
  int misses = 0;
  double levels = 0;  // sum over the jobs, LevelOf; 0 for one that missed
};

// A fluid: bytes of any size, no decoding, exact measurement of the link, no slow start. In flight
// is what the link is seen to need and 5 ms. Whenever the bytes up to some deadline exceed 1.2
// times the forecast (BandwidthEstimate::Forecast) the largest load is given up; of the others the
// earliest deadline goes first. `others` have no deadline; they share with what is finer than the
// base. A reference for what knowing the
// future is worth, not a bound: another rule may do better on some trace. In steps of 1 ms.
OnlineOutcome ServeOnline(const std::vector<EdfJob>& jobs, const std::vector<EdfJob>& others,
                          const RateTrace& trace, const OnlineSender& sender);

}  // namespace links
}  // namespace kvstream

#endif  // KVSTREAM_TESTS_LINKS_EDF_ONLINE_H_

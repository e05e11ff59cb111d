// How much may be in flight, and in what portions: pure functions of the estimate.
#ifndef KVSTREAM_SERVER_LOAD_SEND_WINDOW_H_
#define KVSTREAM_SERVER_LOAD_SEND_WINDOW_H_

#include <cstdint>

#include "absl/time/time.h"
#include "server/load/bandwidth_estimator.h"
#include "server/load/load_session.h"

namespace kvstream {

// What a window holds beyond the round trip, in seconds of the link.
constexpr double kWindowQueueSeconds = 0.075;
// Round trip assumed before the first acknowledgement.
constexpr double kUnknownRttSeconds = 0.040;

// Unacknowledged bytes allowed. queue_s: kWindowQueueSeconds, or less where what waits before the
// link would be a large part of the time that there is. What is in the buffers of kernel and gRPC
// can neither be taken back nor be seen moving: at 5 Mbit/s a socket buffer of 4 MB would be a
// decision six seconds old. Hence, between window_bytes_min and window_bytes_max,
//     window = rate * (rtt_min_s + queue_s):
// enough to keep the link busy through a report's delay and a bad estimate (the queue lets the
// estimator see the link itself), not more. While all samples are lower bounds
//     window = max(window_bytes_min + 3 * acked bytes, rate * (1.25 * rtt_min_s + 10 ms),
//                  hint * (rtt_min_s, or kUnknownRttSeconds, less by as much as queue_s is, before
//                          it is known, + queue_s)):
// it grows fourfold a round trip, and just enough beyond the estimate for a queue to show that the
// link is full. A hint is believed from the first byte: where it is too high by some factor, what
// is in flight waits that many times queue_s.
uint64_t WindowBytes(const BandwidthEstimate& estimate, double rtt_min_s, uint64_t acked_bytes,
                     const LoadSessionOptions& options, double queue_s = kWindowQueueSeconds);

// Largest SendData: 25 ms of the link in steps of 4 KiB, at least 4 KiB, at most frame_bytes and,
// while the window is still growing, half the smallest window. Without an estimate 16 KiB, and the
// first frame 4 KiB, so that the round trip is measured before a queue builds up. Where all that is
// sent is `certain` to be sent whatever the link does, frames serve the reports alone: they do not
// wait for the window to grow, and without an estimate they are an eighth of what was sent if that
// is more.
uint64_t FrameBytes(const BandwidthEstimate& estimate, bool certain, uint64_t sent_bytes,
                    const LoadSessionOptions& options);

}  // namespace kvstream

#endif  // KVSTREAM_SERVER_LOAD_SEND_WINDOW_H_

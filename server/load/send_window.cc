#include "server/load/send_window.h"

#include <algorithm>

namespace kvstream {
namespace {

constexpr double kFrameSeconds = 0.025;
constexpr uint64_t kFrameStep = 4 << 10;
constexpr uint64_t kFrameUnknown = 16 << 10;

}  // namespace

uint64_t WindowBytes(const BandwidthEstimate& estimate, double rtt_s, uint64_t acked_bytes,
                     const LoadSessionOptions& options, double queue_s) {
  const double cap = static_cast<double>(options.window_bytes_max);
  double window = 0;
  if (estimate.lower_bound) {
    window = static_cast<double>(options.window_bytes_min) + 3 * static_cast<double>(acked_bytes);
    const double path_s =
        (acked_bytes > 0 ? rtt_s : kUnknownRttSeconds * queue_s / kWindowQueueSeconds) + queue_s;
    window = std::max(window, estimate.hint * path_s);
    if (estimate.samples > 0) window = std::max(window, estimate.rate * (1.25 * rtt_s + 0.010));
  } else {
    window = estimate.rate * (rtt_s + queue_s);
  }
  return std::max(options.window_bytes_min, static_cast<uint64_t>(std::min(window, cap)));
}

uint64_t FrameBytes(const BandwidthEstimate& estimate, bool certain, uint64_t sent_bytes,
                    const LoadSessionOptions& options) {
  uint64_t frame = sent_bytes == 0 ? kFrameStep : kFrameUnknown;
  if (certain) frame = std::max(frame, sent_bytes / 8 / kFrameStep * kFrameStep);
  if (estimate.samples > 0) {
    const double bytes = std::min(estimate.rate * kFrameSeconds, 1e9);
    frame = std::max(static_cast<uint64_t>(bytes) / kFrameStep * kFrameStep, kFrameStep);
  }
  const uint64_t half_window = std::max<uint64_t>(options.window_bytes_min / 2, 1);
  frame = std::min(frame, options.frame_bytes);
  return estimate.lower_bound && !certain ? std::min(frame, half_window) : frame;
}

}  // namespace kvstream

// How fast the link delivers, learnt from what the client reports.
#ifndef KVSTREAM_SERVER_LOAD_BANDWIDTH_ESTIMATOR_H_
#define KVSTREAM_SERVER_LOAD_BANDWIDTH_ESTIMATOR_H_

#include <cstdint>
#include <deque>

#include "absl/status/status.h"
#include "absl/time/time.h"

namespace kvstream {

// What is believed about the link at one moment. Rates in bytes a second, always finite.
struct BandwidthEstimate {
  double rate = 0;  // expected; 0: nothing is known, not even a hint
  double low =
      0;  // confidence value that the deadline planner promises on; 0 exactly when rate is 0
  // Every sample so far was taken while the sender held back, so the link may be much faster than
  // `rate`. True as well without a sample.
  bool lower_bound = true;
  int samples = 0;  // 0: rate is the hint, or the crude bound of the first report
  double hint = 0;  // as given, 0: none
  // Mean over the last seconds, the hint counting as one of them; 0: nothing is known. A link that
  // changes returns to it: Forecast.
  double mean = 0;

  // What the link is expected to carry a second, on average over the next `horizon_s` seconds. The
  // deviation from the mean is taken to fade with kCoherence, as in a process of Ornstein and
  // Uhlenbeck:
  //     mean + (rate - mean) * (tau / h) * (1 - exp(-h / tau)).
  double Forecast(double horizon_s) const;
  bool known() const { return rate > 0; }
};

// Samples. A report says that b bytes had arrived when the client's clock showed c. Two reports
// give
//     sample = (b1 - b0) / (c1 - c0)
// if they are kMinInterval apart, or kMinIntervalOfMany and kManyBytes; so neither the delay of the
// link nor of the report is in it. The reference point (b0, c0) is dropped when the sender had
// nothing in flight in between: the gap would be counted as slowness of the link. What such a first
// report after a gap still proves is
//     rate >= (bytes since the gap) / (server's time from the send after the gap to the report).
//
// Limited samples. A sender that holds back (application or window) measures itself, not the link
// (the idea of QUIC's bandwidth sampler). A sample is taken as the link's own speed only if the
// link had a queue all the while, which shows in the round trips: every frame of it was
// acknowledged more than rtt_min + max(kQueueFloor, rtt_min / 8) after it was sent. (The first
// frame after a pause finds no queue, even if the burst that follows makes one.) Every other sample
// is a lower bound and may only raise the estimate.
//
// Filter. Quick to fall, steady to rise: with dt the sample's interval, k the samples so far,
// x the sample and tau kTauFall or kTauRise,
//     rate += g * (x - rate),   g = max(1 - exp(-dt / tau), 1 / (k + 1)).
// One sample leaves at least kMaxFall of the rate and counts at most kMaxRise times the
// rate, so that neither a short stall nor a burst out of a buffer decides alone. The first
// unlimited sample replaces all that limited samples, and most of what a hint, had said.
//
// Uncertainty. Each kErrorHorizon of client time the mean rate r of that time is compared to the
// estimate e at its beginning; log(r / e) squared goes into an exponential mean s^2 (halved where
// the link was faster than foreseen). Then
//     low = rate * exp(-s - 0.3 / sqrt(k)),
// without samples low = rate / 2 (a hint is a guess).
//
// Silence. Reports may stop while bytes are in flight. estimate(now) then scales both rates by
// kSilence / (kSilence + overdue), where overdue counts from when the next report should have come.
// This is not stored: the next report's sample contains the silence.
//
// Mean. Bytes and time of the samples that were not limited, fading with kMeanSeconds, and the hint
// as one second more at the start.
//
// Thread-compatible. Memory is bounded by the frames in flight. All calls are O(1), amortised.
class BandwidthEstimator {
 public:
  // hint_bytes_per_second: a weak prior, 0 for none. interval_min: no sample is shorter; where
  // reports come in bursts, longer than these are apart. bounds_count_whole: a limited sample above
  // the rate replaces it at once instead of with kTauRise, for who opens its window by what it
  // sees of the queue and would only hold back the estimate.
  explicit BandwidthEstimator(double hint_bytes_per_second,
                              absl::Duration interval_min = absl::ZeroDuration(),
                              bool bounds_count_whole = false);

  // `bytes` more were handed to the transport.
  void OnSent(uint64_t bytes, absl::Duration now);
  // The newest OnSent, of as many bytes, did not happen after all. False, and nothing changed, if
  // the client has acknowledged some of them.
  bool OnUnsent(uint64_t bytes);
  // Whether OnReport would take this report: INVALID_ARGUMENT for counters or a clock that go back,
  // more bytes than were sent, a clock that is no time of a load.
  absl::Status CheckReport(uint64_t bytes_received, absl::Duration client_clock) const;
  // So many bytes that are in flight will not be reported, or not so that it says anything: they no
  // longer count, and round trips are not taken before what was sent until now is settled.
  void Abandon(uint64_t bytes);
  // Something else than the link or the application held the sender back just now: the sample that
  // is being taken is limited.
  void OnThrottled() { queued_ = false; }
  // The client's report. Errors as CheckReport, with nothing changed.
  absl::Status OnReport(uint64_t bytes_received, absl::Duration client_clock, absl::Duration now);

  BandwidthEstimate estimate(absl::Duration now) const;

  // Neither a hint nor a sample of the link's own speed.
  bool knows_nothing() const { return lower_bound_ && hint_ == 0; }

  // The rate measured, without hint and silence; 0: no report yet that says anything.
  double measured_rate() const { return samples_ > 0 ? rate_ : crude_bound_; }

  uint64_t sent_bytes() const { return sent_bytes_; }
  uint64_t acked_bytes() const { return acked_bytes_; }
  uint64_t unacked_bytes() const { return sent_bytes_ - acked_bytes_; }
  // Shortest time from sending a frame to its acknowledgement: propagation both ways, and the
  // client's reporting. Zero: none seen.
  absl::Duration rtt_min() const { return rtt_seen_ ? rtt_min_ : absl::ZeroDuration(); }
  double rtt_min_s() const { return rtt_min_s_; }
  // Of the newest frame acknowledged; zero: none seen.
  absl::Duration newest_rtt() const { return newest_rtt_; }
  // Mean square of log(actual / estimated), see above: the error as a metric. 0: not yet measured.
  double mean_square_log_error() const { return error_count_ > 0 ? log_error_square_ : 0; }

 private:
  struct SentFrame {
    uint64_t end;  // sent_bytes_ after it
    absl::Duration at;
  };

  static constexpr absl::Duration kMinInterval = absl::Milliseconds(5);
  static constexpr absl::Duration kMinIntervalOfMany = absl::Milliseconds(1);
  static constexpr uint64_t kManyBytes = 256 << 10;
  static constexpr absl::Duration kQueueFloor = absl::Milliseconds(2);
  static constexpr double kTauFall = 0.040;
  static constexpr double kTauRise = 0.250;
  static constexpr double kMaxFall = 0.4;
  static constexpr double kMaxRise = 4;
  static constexpr absl::Duration kErrorHorizon = absl::Milliseconds(80);
  static constexpr double kSilence = 0.060;
  static constexpr double kMeanSeconds = 5;

  // Takes the round trips of the frames that this report acknowledges; returns whether all of them
  // found a queue. The newest frame is enough for rtt_min, as it waited least for the report.
  bool PopAcked(uint64_t bytes_received, absl::Duration now);
  void AddSample(double rate, double interval_s, bool limited);
  void TrackError(bool limited, absl::Duration client_clock);
  void UpdateLowFactor();

  const double hint_;
  const absl::Duration interval_min_;
  const bool bounds_count_whole_;
  double rate_ = 0;
  int samples_ = 0;
  bool lower_bound_ = true;
  double crude_bound_ = 0;  // of first reports after a gap, while there is no sample

  uint64_t sent_bytes_ = 0;
  uint64_t acked_bytes_ = 0;
  absl::Duration client_clock_;
  std::deque<SentFrame> in_flight_;
  bool rtt_seen_ = false;
  absl::Duration rtt_min_;
  double rtt_min_s_ = 0;            // the same
  absl::Duration queue_rtt_;        // a longer round trip has found a queue
  absl::Duration report_patience_;  // silence that means nothing
  absl::Duration newest_rtt_;
  absl::Duration last_report_at_;
  uint64_t settled_at_ = 0;  // sent_bytes_ at the newest Abandon

  // Reference point of the next sample.
  bool have_reference_ = false;
  uint64_t reference_bytes_ = 0;
  absl::Duration reference_clock_;
  bool queued_ = true;  // since the reference point every frame found a queue
  // Where sending began after the newest gap.
  uint64_t restart_offset_ = 0;
  absl::Duration restart_at_;

  bool have_horizon_ = false;
  uint64_t horizon_bytes_ = 0;
  absl::Duration horizon_clock_;
  double horizon_rate_ = 0;
  bool horizon_limited_ = false;
  double log_error_square_ = 0;
  double low_factor_ = 1;  // low / rate, see above; of use once there are samples
  int error_count_ = 0;

  // Of unlimited samples, both fading with kMeanSeconds.
  double mean_bytes_ = 0;
  double mean_s_ = 0;
  double mean_ = 0;  // their quotient
};

}  // namespace kvstream

#endif  // KVSTREAM_SERVER_LOAD_BANDWIDTH_ESTIMATOR_H_

#include "server/load/bandwidth_estimator.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"

namespace kvstream {
namespace {

constexpr double kMinRate = 1;     // byte a second
constexpr double kMaxRate = 1e12;  // no link of this world
constexpr double kCoherence = 0.5;
constexpr absl::Duration kMaxClock = absl::Hours(24 * 30);
// How much later than a round trip and a transfer a report may come without a meaning.
constexpr absl::Duration kReportSlack = absl::Milliseconds(40);

double Clamp(double value, double low, double high) { return std::min(std::max(value, low), high); }

}  // namespace

constexpr absl::Duration BandwidthEstimator::kMinInterval;
constexpr absl::Duration BandwidthEstimator::kMinIntervalOfMany;
constexpr absl::Duration BandwidthEstimator::kQueueFloor;
constexpr absl::Duration BandwidthEstimator::kErrorHorizon;

BandwidthEstimator::BandwidthEstimator(double hint_bytes_per_second, absl::Duration interval_min,
                                       bool bounds_count_whole)
    : hint_(hint_bytes_per_second > 0 ? Clamp(hint_bytes_per_second, kMinRate, kMaxRate) : 0),
      interval_min_(interval_min),
      bounds_count_whole_(bounds_count_whole),
      report_patience_(kReportSlack),
      mean_bytes_(hint_),
      mean_s_(hint_ > 0 ? 1 : 0),
      mean_(hint_) {}

double BandwidthEstimate::Forecast(double horizon_s) const {
  if (!(mean > 0) || lower_bound) return rate;
  const double h = std::max(horizon_s / kCoherence, 1e-6);
  // Beyond kFar nothing is left of the exponential in double precision.
  constexpr double kFar = 40;
  const double faded = h > kFar ? 0 : std::exp(-h);
  return mean + (rate - mean) * (h < 1e-3 ? 1 : (1 - faded) / h);
}

void BandwidthEstimator::OnSent(uint64_t bytes, absl::Duration now) {
  if (unacked_bytes() == 0) {
    restart_offset_ = sent_bytes_;
    restart_at_ = now;
    have_reference_ = false;
    have_horizon_ = false;
  }
  sent_bytes_ += bytes;
  in_flight_.push_back({sent_bytes_, now});
}

bool BandwidthEstimator::OnUnsent(uint64_t bytes) {
  if (bytes > unacked_bytes() || in_flight_.empty()) return false;
  in_flight_.pop_back();
  sent_bytes_ -= bytes;
  return true;
}

void BandwidthEstimator::Abandon(uint64_t bytes) {
  bytes = std::min(bytes, unacked_bytes());
  acked_bytes_ += bytes;
  restart_offset_ += bytes;
  settled_at_ = sent_bytes_;
  while (!in_flight_.empty() && in_flight_.front().end <= acked_bytes_) in_flight_.pop_front();
  have_reference_ = have_horizon_ = false;
}

absl::Status BandwidthEstimator::CheckReport(uint64_t bytes_received,
                                             absl::Duration client_clock) const {
  if (bytes_received > sent_bytes_) {
    return absl::InvalidArgumentError(absl::StrCat("progress reports ", bytes_received,
                                                   " bytes received of ", sent_bytes_, " sent"));
  }
  if (bytes_received < acked_bytes_) {
    return absl::InvalidArgumentError(
        absl::StrCat("progress goes back from ", acked_bytes_, " to ", bytes_received, " bytes"));
  }
  if (client_clock < absl::ZeroDuration() || client_clock > kMaxClock) {
    return absl::InvalidArgumentError("progress reports a clock outside 0 to 30 days");
  }
  if (client_clock < client_clock_) {
    return absl::InvalidArgumentError("progress reports a clock that goes back");
  }
  return absl::OkStatus();
}

absl::Status BandwidthEstimator::OnReport(uint64_t bytes_received, absl::Duration client_clock,
                                          absl::Duration now) {
  absl::Status status = CheckReport(bytes_received, client_clock);
  if (!status.ok()) return status;
  client_clock_ = client_clock;
  if (bytes_received == acked_bytes_) return absl::OkStatus();

  queued_ &= PopAcked(bytes_received, now);
  acked_bytes_ = bytes_received;
  last_report_at_ = now;

  // What was sent since the gap, in all of the time since: a bound that needs no second report.
  const double elapsed = std::max(absl::ToDoubleSeconds(now - restart_at_), 1e-4);
  const double bound = static_cast<double>(bytes_received - restart_offset_) / elapsed;
  if (samples_ == 0) crude_bound_ = Clamp(std::max(crude_bound_, bound), kMinRate, kMaxRate);
  if (!have_reference_) {
    if (samples_ > 0 && bound > rate_) {
      AddSample(bound, elapsed, /*limited=*/true);
      UpdateLowFactor();
    }
    have_reference_ = true;
    reference_bytes_ = bytes_received;
    reference_clock_ = client_clock;
    queued_ = true;
    return absl::OkStatus();
  }
  const absl::Duration interval = client_clock - reference_clock_;
  const bool many = bytes_received - reference_bytes_ >= kManyBytes;
  if (interval < std::max(interval_min_, many ? kMinIntervalOfMany : kMinInterval)) {
    return absl::OkStatus();
  }
  const double interval_s = absl::ToDoubleSeconds(interval);
  const double sample = static_cast<double>(bytes_received - reference_bytes_) / interval_s;
  AddSample(sample, interval_s, /*limited=*/!queued_);
  TrackError(/*limited=*/!queued_, client_clock);
  UpdateLowFactor();
  reference_bytes_ = bytes_received;
  reference_clock_ = client_clock;
  queued_ = true;
  return absl::OkStatus();
}

bool BandwidthEstimator::PopAcked(uint64_t bytes_received, absl::Duration now) {
  bool popped = false;
  bool settled = true;
  absl::Duration rtt;
  while (!in_flight_.empty() && in_flight_.front().end <= bytes_received) {
    settled = in_flight_.front().end > settled_at_;
    rtt = std::max(now - in_flight_.front().at, absl::ZeroDuration());
    in_flight_.pop_front();
    popped = true;
  }
  if (!popped) return true;
  if (!settled) return false;  // which frame these bytes belong to is not known
  if (!rtt_seen_ || rtt < rtt_min_) {
    rtt_min_ = rtt;
    rtt_min_s_ = absl::ToDoubleSeconds(rtt);
    queue_rtt_ = rtt + std::max(kQueueFloor, rtt / 8);
    report_patience_ = rtt + kReportSlack;
  }
  rtt_seen_ = true;
  newest_rtt_ = rtt;
  return rtt > queue_rtt_;
}

void BandwidthEstimator::AddSample(double sample, double interval_s, bool limited) {
  sample = Clamp(sample, kMinRate, kMaxRate);
  if (!limited) {
    const double fade = std::exp(-interval_s / kMeanSeconds);
    mean_bytes_ = mean_bytes_ * fade + sample * interval_s;
    mean_s_ = mean_s_ * fade + interval_s;
    mean_ = mean_bytes_ / mean_s_;
  }
  if (lower_bound_ && !limited) {
    // The first word about the link itself. A hint keeps a sixth.
    rate_ =
        samples_ == 0 && hint_ > 0 ? sample + (std::min(hint_, 4 * sample) - sample) / 6 : sample;
    lower_bound_ = false;
    samples_ = 1;
    have_horizon_ = false;
    return;
  }
  if (samples_ == 0) {
    rate_ = std::max(sample, crude_bound_);
    samples_ = 1;
    return;
  }
  if (limited && sample <= rate_) return;
  const double tau = sample < rate_ ? kTauFall : kTauRise;
  double gain = std::max(1 - std::exp(-interval_s / tau), 1.0 / (samples_ + 1));
  // Nothing but lower bounds so far: the highest of them is the best.
  if (lower_bound_ || (limited && bounds_count_whole_)) gain = 1;
  sample = Clamp(sample, kMaxFall * rate_, lower_bound_ ? kMaxRate : kMaxRise * rate_);
  rate_ = Clamp(rate_ + gain * (sample - rate_), kMinRate, kMaxRate);
  if (samples_ < 1 << 20) ++samples_;
}

void BandwidthEstimator::TrackError(bool limited, absl::Duration client_clock) {
  if (!have_horizon_) {
    have_horizon_ = true;
    horizon_bytes_ = acked_bytes_;
    horizon_clock_ = client_clock;
    horizon_rate_ = rate_;
    horizon_limited_ = false;
    return;
  }
  horizon_limited_ |= limited;
  const absl::Duration length = client_clock - horizon_clock_;
  if (length < kErrorHorizon) return;
  const double actual =
      static_cast<double>(acked_bytes_ - horizon_bytes_) / absl::ToDoubleSeconds(length);
  double error = Clamp(std::log(std::max(actual, kMinRate) / horizon_rate_), -3, 3);
  if (!(horizon_limited_ && error < 0)) {
    if (error > 0) error /= 2;
    const double gain = std::max(0.2, 1.0 / (error_count_ + 1));
    log_error_square_ += gain * (error * error - log_error_square_);
    if (error_count_ < 1 << 20) ++error_count_;
  }
  have_horizon_ = false;
  TrackError(limited, client_clock);
}

void BandwidthEstimator::UpdateLowFactor() {
  low_factor_ = std::exp(-std::sqrt(log_error_square_) - 0.3 / std::sqrt(samples_));
}

BandwidthEstimate BandwidthEstimator::estimate(absl::Duration now) const {
  BandwidthEstimate result;
  result.samples = samples_;
  result.lower_bound = lower_bound_;
  result.hint = hint_;
  result.mean = mean_;
  if (samples_ > 0) {
    result.rate = rate_;
    result.low = rate_ * low_factor_;
  } else if (hint_ > 0 || crude_bound_ > 0) {
    result.rate = std::max(hint_, crude_bound_);
    result.low = result.rate / 2;
  } else {
    return result;
  }
  if (!in_flight_.empty()) {
    // The oldest byte's report is due a round trip after the later of its send and the report
    // before it.
    const absl::Duration since = std::max(in_flight_.front().at, last_report_at_);
    // Most calls come sooner: spares them the rest.
    if (now <= since + report_patience_) return result;
    const double frame = static_cast<double>(in_flight_.front().end - acked_bytes_);
    const double due = absl::ToDoubleSeconds(report_patience_) + frame / result.rate;
    const double overdue = absl::ToDoubleSeconds(now - since) - due;
    if (overdue > 0 && rtt_seen_) {
      const double factor = kSilence / (kSilence + overdue);
      result.rate = std::max(result.rate * factor, kMinRate);
      result.low = std::max(result.low * factor, kMinRate / 2);
    }
  }
  return result;
}

}  // namespace kvstream

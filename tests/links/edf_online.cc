#include "tests/links/edf_online.h"

#include <algorithm>
#include <cmath>
#include <deque>
#include <limits>

namespace kvstream {
namespace links {
namespace {

constexpr double kStep = 0.001;
constexpr int kMaxSteps = 600000;
constexpr double kQueueSeconds = 0.005;
constexpr double kHope = 1.2;
constexpr double kMeanSeconds = 5;
constexpr double kCoherence = 0.5;
constexpr double kTolerance = 1;  // bytes

struct Load {
  double release, due;
  double to_send, to_carry;
  bool over;
};

class Fluid {
 public:
  Fluid(const std::vector<EdfJob>& jobs, const std::vector<EdfJob>& others, const RateTrace& trace,
        const OnlineSender& sender)
      : trace_(trace),
        sender_(sender),
        lag_(std::max(1, static_cast<int>(std::lround(
                             absl::FDivDuration(sender.round_trip, absl::Seconds(kStep)))))),
        rate_(sender.record),
        mean_bytes_(sender.record),
        mean_s_(sender.record > 0 ? 1 : 0) {
    for (const EdfJob& job : jobs) {
      loads_.push_back({absl::ToDoubleSeconds(job.release), absl::ToDoubleSeconds(job.due),
                        job.bytes, job.bytes, false});
    }
    for (const EdfJob& job : others) {
      loads_.push_back({absl::ToDoubleSeconds(job.release), std::numeric_limits<double>::infinity(),
                        job.bytes, job.bytes, false});
    }
    open_ = loads_.size();
  }

  int Run() {
    for (int step = 0; open_ > 0 && step < kMaxSteps; ++step) Step(step);
    return misses_;
  }

 private:
  void Step(int step) {
    const double now = step * kStep;
    carries_.push_back(
        trace_.BytesBetween(absl::Seconds(now), absl::Seconds(now) + absl::Seconds(kStep)));
    See(step);
    for (Load& load : loads_) {
      if (!load.over && now > load.due) End(load, /*missed=*/true);
    }
    Send(now, step >= lag_ ? carried_[step - lag_] : 0);
    busy_.push_back(!queue_.empty());
    double left = carries_.back();
    while (left > 0 && !queue_.empty()) {
      Load& load = loads_[queue_.front().first];
      double& bytes = queue_.front().second;
      const double part = std::min(left, bytes);
      left -= part;
      bytes -= part;
      all_carried_ += part;
      load.to_carry -= part;
      if (load.to_carry <= kTolerance && !load.over) End(load, /*missed=*/false);
      if (bytes <= 0) queue_.pop_front();
    }
    carried_.push_back(all_carried_);
  }

  void See(int step) {
    const int newest = std::max(0, step - lag_);
    const int oldest = std::max(0, newest - 10);
    double bytes = 0;
    int seen = 0;
    for (int i = oldest; i <= newest; ++i) {
      if (sender_.record > 0 && (i >= static_cast<int>(busy_.size()) || !busy_[i])) continue;
      bytes += carries_[i];
      ++seen;
    }
    if (seen == 0) return;
    rate_ = bytes / (kStep * seen);
    const double fade = std::exp(-kStep / kMeanSeconds);
    mean_bytes_ = mean_bytes_ * fade + rate_ * kStep;
    mean_s_ = mean_s_ * fade + kStep;
  }

  double Forecast(double horizon_s) const {
    const double mean = mean_bytes_ / mean_s_;
    const double h = std::max(horizon_s / kCoherence, 1e-6);
    return mean + (rate_ - mean) * (1 - std::exp(-h)) / h;
  }

  void End(Load& load, bool missed) {
    load.over = true;
    load.to_send = 0;
    --open_;
    misses_ += missed;
  }

  double Give(size_t index, double bytes) {
    bytes = std::min(bytes, loads_[index].to_send);
    if (bytes <= 0) return 0;
    loads_[index].to_send -= bytes;
    sent_ += bytes;
    queue_.push_back({index, bytes});
    return bytes;
  }

  void Share(const std::vector<size_t>& indices, double bytes) {
    double among = static_cast<double>(indices.size());
    for (const size_t index : indices) bytes -= Give(index, bytes / among--);
  }

  void Send(double now, double acknowledged) {
    const double rtt_s = absl::ToDoubleSeconds(sender_.round_trip);
    const double in_flight = sent_ - acknowledged;
    const double room = rate_ * (rtt_s + kQueueSeconds + kStep) - in_flight;
    const double queued = std::max(0.0, in_flight - rate_ * rtt_s);
    std::vector<size_t> due, kept, rest;
    for (size_t i = 0; i < loads_.size(); ++i) {
      if (loads_[i].release > now || loads_[i].to_send <= 0) continue;
      (std::isinf(loads_[i].due) ? rest : due).push_back(i);
    }
    std::sort(due.begin(), due.end(),
              [this](size_t a, size_t b) { return loads_[a].due < loads_[b].due; });
    double chain = queued;
    for (const size_t i : due) {
      kept.push_back(i);
      chain += loads_[i].to_send;
      const double left_s = loads_[i].due - now;
      if (chain <= kHope * Forecast(left_s) * left_s) continue;
      const auto largest = std::max_element(kept.begin(), kept.end(), [this](size_t a, size_t b) {
        return loads_[a].to_send < loads_[b].to_send;
      });
      chain -= loads_[*largest].to_send;
      rest.push_back(*largest);
      kept.erase(largest);
    }
    if (room <= 0) return;
    const double before = sent_;
    Share(rest, kept.empty() ? room : room * sender_.floor);
    for (const size_t i : kept) Give(i, room - (sent_ - before));
    Share(rest, room - (sent_ - before));
  }

  const RateTrace& trace_;
  const OnlineSender sender_;
  const int lag_;  // of the round trip, in steps
  std::vector<Load> loads_;
  size_t open_ = 0;
  int misses_ = 0;
  std::deque<std::pair<size_t, double>> queue_;  // before the link: load, bytes
  std::vector<double> carries_;                  // by step: what the link can carry
  std::vector<bool> busy_;                       // something was before it
  std::vector<double> carried_;                  // and has carried until its end
  double all_carried_ = 0, sent_ = 0;
  double rate_, mean_bytes_, mean_s_;
};

}  // namespace

int OnlineMisses(const std::vector<EdfJob>& jobs, const std::vector<EdfJob>& others,
                 const RateTrace& trace, const OnlineSender& sender) {
  return Fluid(jobs, others, trace, sender).Run();
}

}  // namespace links
}  // namespace kvstream

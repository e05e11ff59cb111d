#include "tests/links/edf_online.h"

#include <algorithm>
#include <cmath>
#include <deque>
#include <limits>
#include <numeric>

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
  EdfJob job;
  double release, due;
  double base_to_send, finer_to_send;
  double carried = 0;
  bool usable = false;
  bool over = false;

  explicit Load(const EdfJob& job)
      : job(job),
        release(absl::ToDoubleSeconds(job.release)),
        due(absl::ToDoubleSeconds(job.due)),
        base_to_send(job.bytes),
        finer_to_send(std::accumulate(job.finer.begin(), job.finer.end(), 0.0)) {}
  double all() const {
    return std::accumulate(job.finer.begin(), job.finer.end(), job.bytes) - kTolerance;
  }
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
    for (const EdfJob& job : jobs) loads_.emplace_back(job);
    for (const EdfJob& job : others) {
      loads_.emplace_back(job);
      loads_.back().due = std::numeric_limits<double>::infinity();
    }
    open_ = loads_.size();
  }

  OnlineOutcome Run() {
    for (int step = 0; open_ > 0 && step < kMaxSteps; ++step) Step(step);
    return outcome_;
  }

 private:
  void Step(int step) {
    const double now = step * kStep;
    carries_.push_back(
        trace_.BytesBetween(absl::Seconds(now), absl::Seconds(now) + absl::Seconds(kStep)));
    See(step);
    for (Load& load : loads_) {
      if (!load.over && now > load.due) End(load);
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
      load.carried += part;
      load.usable = load.usable || (!load.over && load.carried >= load.job.bytes - kTolerance);
      if (load.carried >= load.all() && !load.over) End(load);
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

  void End(Load& load) {
    load.over = true;
    load.base_to_send = load.finer_to_send = 0;
    --open_;
    if (std::isinf(load.due)) return;
    outcome_.misses += !load.usable;
    if (load.usable) outcome_.levels += LevelOf(load.job, load.carried);
  }

  double Give(size_t index, double bytes) {
    double& left =
        loads_[index].base_to_send > 0 ? loads_[index].base_to_send : loads_[index].finer_to_send;
    bytes = std::min(bytes, left);
    if (bytes <= 0) return 0;
    left -= bytes;
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
      if (loads_[i].release > now) continue;
      if (loads_[i].base_to_send <= 0 && loads_[i].finer_to_send <= 0) continue;
      const bool finer = loads_[i].base_to_send <= 0;
      (finer || std::isinf(loads_[i].due) ? rest : due).push_back(i);
    }
    std::sort(due.begin(), due.end(),
              [this](size_t a, size_t b) { return loads_[a].due < loads_[b].due; });
    double chain = queued;
    for (const size_t i : due) {
      kept.push_back(i);
      chain += loads_[i].base_to_send;
      const double left_s = loads_[i].due - now;
      if (chain <= kHope * Forecast(left_s) * left_s) continue;
      const auto largest = std::max_element(kept.begin(), kept.end(), [this](size_t a, size_t b) {
        return loads_[a].base_to_send < loads_[b].base_to_send;
      });
      chain -= loads_[*largest].base_to_send;
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
  OnlineOutcome outcome_;
  std::deque<std::pair<size_t, double>> queue_;  // before the link: load, bytes
  std::vector<double> carries_;                  // by step: what the link can carry
  std::vector<bool> busy_;                       // something was before it
  std::vector<double> carried_;                  // and has carried until its end
  double all_carried_ = 0, sent_ = 0;
  double rate_, mean_bytes_, mean_s_;
};

}  // namespace

OnlineOutcome ServeOnline(const std::vector<EdfJob>& jobs, const std::vector<EdfJob>& others,
                          const RateTrace& trace, const OnlineSender& sender) {
  return Fluid(jobs, others, trace, sender).Run();
}

}  // namespace links
}  // namespace kvstream

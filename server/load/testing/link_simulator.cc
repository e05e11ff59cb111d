#include "server/load/testing/link_simulator.h"

#include <algorithm>
#include <deque>
#include <memory>
#include <utility>

#include "absl/types/variant.h"
#include "server/load/link_groups.h"
#include "server/load/testing/session_checker.h"
#include "server/load/testing/simulated_client.h"

namespace kvstream {
namespace {

constexpr uint64_t kMaxEvents = 20000000;

// When the last of `bytes`, which begin at `start`, has left a link of this trace.
absl::Duration Departure(const std::vector<RateStep>& trace, absl::Duration start, double bytes) {
  size_t step = 0;
  while (step + 1 < trace.size() && trace[step + 1].at <= start) ++step;
  absl::Duration at = start;
  while (true) {
    const double rate = trace[step].bytes_per_second;
    const absl::Duration end =
        step + 1 < trace.size() ? trace[step + 1].at : absl::InfiniteDuration();
    if (rate > 0) {
      const absl::Duration done = at + absl::Seconds(bytes / rate);
      if (done <= end) return done;
      bytes -= rate * absl::ToDoubleSeconds(end - at);
    }
    if (end == absl::InfiniteDuration()) return end;
    at = end;
    ++step;
  }
}

// The link keeps the order of messages, and so does the way back: what can happen next is the first
// arrival, the first report or one of three timers.
class Simulation {
 public:
  Simulation(const LoadSpec& spec, const LoadSessionOptions& options, const SimulatedLink& link,
             const SimulatedClient& model, const SimulatedStore& store, bool keep_samples)
      : spec_(spec),
        link_(link),
        model_(model),
        store_(store),
        keep_samples_(keep_samples),
        client_(spec, model, kOrigin - link.one_way),
        checker_(spec) {
    LoadSessionOptions gated = options;
    if (link.gated) {
      LinkGroups::Options limits;
      limits.window_bytes_min = options.window_bytes_min;
      limits.window_bytes_max = options.window_bytes_max;
      groups_ = std::make_unique<LinkGroups>(limits, kOrigin);
      gate_ = groups_->Join(
          "link", spec.bandwidth_hint_bytes_per_second, [this] { woken_ = true; }, kOrigin);
      gated.gate = gate_.get();
    }
    auto session = LoadSession::Create(spec, gated, kOrigin);
    if (!session.ok()) {
      Stop(session.status());
      return;
    }
    session_ = std::move(*session);
    Set(&wait_, kOrigin);
    Set(&tick_, kOrigin + model_.report_period);
    if (spec.deadline) {
      Set(&deadline_, kOrigin + *spec.deadline - link.one_way);
      if (spec.policy == LoadPolicy::kDeadline) client_.set_deadline(deadline_.at);
    }
  }

  SimulationResult Run() {
    uint64_t count = 0;
    while (!stopped_ && Step()) {
      if (++count > kMaxEvents) Stop(absl::InternalError("does not end"));
    }
    if (!stopped_) Stop(absl::InternalError("nothing can happen any more"));
    result_.received_in_vain = client_.received_in_vain();
    return std::move(result_);
  }

 private:
  // What is due at the same time happens in the order in which it was arranged.
  struct Due {
    absl::Duration at = absl::InfiniteDuration();
    uint64_t order = 0;
    bool Before(const Due& other) const {
      return at != other.at ? at < other.at : order < other.order;
    }
  };
  struct Arrival {
    Due due;
    absl::variant<SendPlan, SendOrder, SendData> message;
  };
  struct Returning {
    Due due;
    ClientProgress progress;
  };
  // The session must not depend on where its clock begins.
  static constexpr absl::Duration kOrigin = absl::Seconds(1000);

  void Set(Due* due, absl::Duration at) { *due = {at, order_++}; }
  void Stop(absl::Status status) {
    if (stopped_) return;
    stopped_ = true;
    result_.status = std::move(status);
  }
  void Check(const absl::Status& status) {
    if (!status.ok()) Stop(status);
  }

  // The next event; false if there is none.
  bool Step() {
    Due next = wait_;
    for (const Due* due : {&tick_, &client_wakes_, &deadline_}) {
      if (due->Before(next)) next = *due;
    }
    if (!arrivals_.empty() && arrivals_.front().due.Before(next)) next = arrivals_.front().due;
    if (!reports_.empty() && reports_.front().due.Before(next)) next = reports_.front().due;
    if (next.at == absl::InfiniteDuration()) return false;
    now_ = next.at;
    if (!arrivals_.empty() && next.order == arrivals_.front().due.order) {
      const Arrival arrival = std::move(arrivals_.front());
      arrivals_.pop_front();
      Arrive(arrival);
    } else if (!reports_.empty() && next.order == reports_.front().due.order) {
      const ClientProgress progress = std::move(reports_.front().progress);
      reports_.pop_front();
      OnReport(progress);
    } else if (next.order == deadline_.order) {
      // After what else happens at this moment.
      Judge();
      deadline_.at = absl::InfiniteDuration();
      judged_ = true;
      TakeIfInPlace(/*late=*/false);
    } else if (next.order == tick_.order) {
      if (client_.dirty()) Report();
      Set(&tick_, now_ + model_.report_period);
    } else if (next.order == client_wakes_.order) {
      client_wakes_.at = absl::InfiniteDuration();
      client_.Advance(now_);
      AfterClient();
    } else {
      Serve();
    }
    return true;
  }

  void Serve() {
    wait_.at = absl::InfiniteDuration();
    while (!stopped_) {
      woken_ = false;
      if (link_.gated) window_ = session_->state(now_).window_bytes;
      const LoadAction action = session_->Next(now_);
      if (const auto* plan = absl::get_if<SendPlan>(&action)) {
        Check(checker_.OnPlan(*plan));
        Deliver(0, *plan);
      } else if (const auto* order = absl::get_if<SendOrder>(&action)) {
        Check(checker_.OnOrder(*order));
        ++result_.orders;
        Deliver(0, *order);
      } else if (const auto* data = absl::get_if<SendData>(&action)) {
        Send(*data);
      } else if (const auto* wait = absl::get_if<Wait>(&action)) {
        if (wait->until <= now_) return Stop(absl::InternalError("waits for the past"));
        if (woken_) continue;
        return Set(&wait_, wait->until);
      } else if (const auto* finish = absl::get_if<Finish>(&action)) {
        return End(*finish);
      } else {
        return Stop(absl::get<Fail>(action).status);
      }
    }
  }

  void Send(const SendData& data) {
    // Neither estimate nor window depends on what was sent just now.
    const LoadSessionState state = session_->state(now_);
    const uint64_t in_flight = state.bytes_sent - state.bytes_acknowledged - data.size;
    // A gate may have moved the estimate since.
    Check(checker_.OnData(data, in_flight, std::max(window_, state.window_bytes)));
    if (!store_.unreadable.empty() && store_.unreadable.count({data.chunk, data.level}) > 0) {
      checker_.OnUnavailable(data);
      session_->OnSegmentUnavailable(data.chunk, data.level, absl::DataLossError("unreadable"),
                                     now_);
      return;
    }
    ++result_.frames;
    result_.bytes += data.size;
    result_.max_in_flight = std::max(result_.max_in_flight, in_flight + data.size);
    Deliver(static_cast<double>(data.size), data);
  }

  // In order, through the link. What a link never carries never arrives.
  void Deliver(double bytes, absl::variant<SendPlan, SendOrder, SendData> message) {
    const absl::Duration start = std::max(now_, link_free_) - kOrigin;
    link_free_ =
        kOrigin + (link_.carry ? link_.carry(start, bytes) : Departure(link_.trace, start, bytes));
    Arrival arrival;
    arrival.message = std::move(message);
    Set(&arrival.due, link_free_ + link_.one_way);
    arrivals_.push_back(std::move(arrival));
  }

  void Arrive(const Arrival& arrival) {
    if (const auto* plan = absl::get_if<SendPlan>(&arrival.message)) {
      client_.OnPlan(*plan, now_);
    } else if (const auto* order = absl::get_if<SendOrder>(&arrival.message)) {
      client_.OnOrder(*order, now_);
    } else {
      client_.OnData(absl::get<SendData>(arrival.message), now_);
      if (model_.report_every_frame) Report();
    }
    AfterClient();
  }

  void Judge() {
    result_.usable_at_deadline = client_.all_in_place();
    result_.mean_level_at_deadline = client_.mean_level();
    result_.received_at_deadline = client_.received_bytes();
    result_.decoded_at_deadline = client_.decoded_bytes();
    result_.recomputed_at_deadline = client_.recomputed();
  }

  // At the deadline or after it the client takes what it has and is gone.
  void TakeIfInPlace(bool late) {
    if (spec_.policy != LoadPolicy::kDeadline || taken_ || !client_.all_in_place()) return;
    taken_ = true;
    client_.Take(late);
    Report();
  }

  void AfterClient() {
    if (judged_) TakeIfInPlace(/*late=*/true);
    if (client_.all_ready() && !was_ready_) {
      result_.client_ready_at = now_ - kOrigin;
      Report();
    }
    was_ready_ = client_.all_ready();
    const absl::Duration next = client_.next_at();
    if (next != client_wakes_.at) Set(&client_wakes_, next);
  }

  void Report() {
    if (taken_ && was_taken_) return;
    was_taken_ = taken_;
    if (now_ - kOrigin >= model_.vanishes_at) return;
    Returning report;
    report.progress = client_.TakeProgress();
    Set(&report.due, now_ + link_.one_way);
    reports_.push_back(std::move(report));
  }

  void OnReport(const ClientProgress& progress) {
    const absl::Status status = session_->OnProgress(progress, now_);
    if (!status.ok()) return Stop(absl::InternalError(status.message()));
    checker_.OnProgress(progress);
    if (keep_samples_) result_.samples.push_back({now_ - kOrigin, session_->state(now_)});
    Serve();
  }

  void End(const Finish& finish) {
    result_.finish = finish;
    Stop(checker_.OnFinish(finish, result_.bytes));
    if (!judged_) Judge();
    const int finest = LevelsOf(spec_.chunks) - 1;
    result_.min_level = finest;
    for (const ChunkDecision& chunk : finish.chunks) {
      if (!chunk.level) ++result_.recomputed;
      const int level = chunk.level.value_or(finest);
      result_.mean_level += static_cast<double>(level) / finish.chunks.size();
      result_.min_level = std::min(result_.min_level, level);
    }
  }

  const LoadSpec& spec_;
  const SimulatedLink& link_;
  const SimulatedClient& model_;
  const SimulatedStore& store_;
  const bool keep_samples_;
  std::unique_ptr<LinkGroups> groups_;  // null: no gate
  std::unique_ptr<LinkGate> gate_;
  bool woken_ = false;   // by the gate, since the session was asked
  uint64_t window_ = 0;  // with a gate: when the session was asked
  std::unique_ptr<LoadSession> session_;
  ModelClient client_;
  SessionChecker checker_;
  std::deque<Arrival> arrivals_;
  std::deque<Returning> reports_;
  Due wait_, tick_, client_wakes_, deadline_;
  bool judged_ = false;
  bool taken_ = false, was_taken_ = false;
  uint64_t order_ = 1;
  absl::Duration now_ = kOrigin;
  absl::Duration link_free_ = kOrigin;
  bool was_ready_ = false;
  bool stopped_ = false;
  SimulationResult result_;
};

constexpr absl::Duration Simulation::kOrigin;

}  // namespace

SimulationResult Simulate(const LoadSpec& spec, const LoadSessionOptions& options,
                          const SimulatedLink& link, const SimulatedClient& client,
                          const SimulatedStore& store, bool keep_samples) {
  return Simulation(spec, options, link, client, store, keep_samples).Run();
}

}  // namespace kvstream

#include "server/load/testing/link_simulator.h"

#include <algorithm>
#include <functional>
#include <limits>
#include <memory>
#include <queue>
#include <utility>

#include "absl/types/variant.h"
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

class Simulation {
 public:
  Simulation(const LoadSpec& spec, const LoadSessionOptions& options, const SimulatedLink& link,
             const SimulatedClient& model, const SimulatedStore& store, bool keep_samples)
      : spec_(spec),
        link_(link),
        model_(model),
        store_(store),
        keep_samples_(keep_samples),
        client_(spec, model),
        checker_(spec) {
    auto session = LoadSession::Create(spec, options, kOrigin);
    if (!session.ok()) {
      Stop(session.status());
      return;
    }
    session_ = std::move(*session);
    At(kOrigin, [this] { Serve(); });
    At(kOrigin + model_.report_period, [this] { Tick(); });
  }

  SimulationResult Run() {
    uint64_t count = 0;
    while (!stopped_ && !events_.empty()) {
      Event event = events_.top();
      events_.pop();
      now_ = event.at;
      if (++count > kMaxEvents) Stop(absl::InternalError("does not end"));
      event.run();
    }
    if (!stopped_) Stop(absl::InternalError("nothing can happen any more"));
    result_.received_in_vain = client_.received_in_vain();
    return std::move(result_);
  }

 private:
  struct Event {
    absl::Duration at;
    uint64_t order;
    std::function<void()> run;
    bool operator<(const Event& other) const {
      return at != other.at ? at > other.at : order > other.order;
    }
  };
  // The session must not depend on where its clock begins.
  static constexpr absl::Duration kOrigin = absl::Seconds(1000);

  void At(absl::Duration at, std::function<void()> run) {
    if (at != absl::InfiniteDuration()) events_.push({at, order_++, std::move(run)});
  }
  void Stop(absl::Status status) {
    if (stopped_) return;
    stopped_ = true;
    result_.status = std::move(status);
  }
  void Check(const absl::Status& status) {
    if (!status.ok()) Stop(status);
  }

  void Serve() {
    while (!stopped_) {
      const LoadSessionState before = session_->state(now_);
      const LoadAction action = session_->Next(now_);
      if (const auto* plan = absl::get_if<SendPlan>(&action)) {
        Check(checker_.OnPlan(*plan));
        Deliver(0, [this, plan = *plan] { client_.OnPlan(plan, now_); });
      } else if (const auto* data = absl::get_if<SendData>(&action)) {
        Send(*data, before);
      } else if (const auto* wait = absl::get_if<Wait>(&action)) {
        if (wait->until <= now_) return Stop(absl::InternalError("waits for the past"));
        const uint64_t turn = ++wait_turn_;
        At(wait->until, [this, turn] {
          if (turn == wait_turn_) Serve();
        });
        return;
      } else if (const auto* finish = absl::get_if<Finish>(&action)) {
        return End(*finish);
      } else {
        return Stop(absl::get<Fail>(action).status);
      }
    }
  }

  void Send(const SendData& data, const LoadSessionState& before) {
    const uint64_t in_flight = before.bytes_sent - before.bytes_acknowledged;
    Check(checker_.OnData(data, in_flight, before.window_bytes));
    if (store_.unreadable.count({data.chunk, data.level}) > 0) {
      checker_.OnUnavailable(data);
      session_->OnSegmentUnavailable(data.chunk, data.level, absl::DataLossError("unreadable"),
                                     now_);
      return;
    }
    ++result_.frames;
    result_.bytes += data.size;
    result_.max_in_flight = std::max(result_.max_in_flight, in_flight + data.size);
    Deliver(static_cast<double>(data.size), [this, data] {
      client_.OnData(data, now_, now_ - kOrigin + link_.one_way);
      if (model_.report_every_frame) Report();
    });
  }

  // In order, through the link.
  void Deliver(double bytes, std::function<void()> run) {
    const absl::Duration start = std::max(now_, link_free_);
    link_free_ = kOrigin + Departure(link_.trace, start - kOrigin, bytes);
    At(link_free_ + link_.one_way, [this, run = std::move(run)] {
      run();
      AfterClient();
    });
  }

  void AfterClient() {
    if (client_.all_ready()) {
      if (!was_ready_) {
        result_.client_ready_at = now_ - kOrigin;
        Report();
      }
    }
    was_ready_ = client_.all_ready();
    const absl::Duration next = client_.next_at();
    if (next == client_wakes_) return;
    client_wakes_ = next;
    At(next, [this] {
      client_.Advance(now_);
      AfterClient();
    });
  }

  void Tick() {
    if (client_.dirty()) Report();
    At(now_ + model_.report_period, [this] { Tick(); });
  }

  void Report() {
    if (now_ - kOrigin >= model_.vanishes_at) return;
    At(now_ + link_.one_way, [this, progress = client_.TakeProgress()] {
      const absl::Status status = session_->OnProgress(progress, now_);
      if (!status.ok()) return Stop(absl::InternalError(status.message()));
      if (keep_samples_) result_.samples.push_back({now_ - kOrigin, session_->state(now_)});
      Serve();
    });
  }

  void End(const Finish& finish) {
    result_.finish = finish;
    Stop(checker_.OnFinish(finish, result_.bytes));
    const int finest = static_cast<int>(spec_.chunks[0].segment_bytes.size()) - 1;
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
  std::unique_ptr<LoadSession> session_;
  ModelClient client_;
  SessionChecker checker_;
  std::priority_queue<Event> events_;
  uint64_t order_ = 0;
  uint64_t wait_turn_ = 0;
  absl::Duration now_ = kOrigin;
  absl::Duration link_free_ = kOrigin;
  absl::Duration client_wakes_ = absl::InfiniteDuration();
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

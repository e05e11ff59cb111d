#include "server/load/testing/shared_link.h"

#include <algorithm>
#include <deque>
#include <memory>
#include <queue>
#include <tuple>
#include <utility>

#include "absl/types/optional.h"
#include "absl/types/variant.h"
#include "server/load/link_groups.h"
#include "server/load/link_record.h"
#include "server/load/testing/session_checker.h"
#include "server/load/testing/simulated_client.h"

namespace kvstream {
namespace {

constexpr uint64_t kMaxEvents = 50000000;
constexpr double kSlice = 16 << 10;
constexpr absl::Duration kOrigin = absl::Seconds(1000);
constexpr char kLinkName[] = "link";

using Message = absl::variant<SendPlan, SendOrder, SendData>;

class SharedSimulation {
 public:
  SharedSimulation(const std::vector<SharedLoad>& loads, const SharedLink& link)
      : loads_(loads), link_(link), record_(16), groups_(GroupOptions(link), kOrigin) {
    result_.loads.resize(loads.size());
    states_.resize(loads.size());
    for (size_t i = 0; i < loads.size(); ++i) At(kOrigin + loads[i].at, Kind::kBegin, i);
  }

  SharedLinkResult Run() {
    while (!events_.empty() && result_.events < kMaxEvents) {
      const Event event = events_.top();
      events_.pop();
      now_ = event.at;
      ++result_.events;
      Handle(event);
      // Whoever was let go asks at once, but never inside another one's call.
      while (!woken_.empty()) {
        const size_t load = woken_.front();
        woken_.pop_front();
        Serve(load);
      }
    }
    for (size_t i = 0; i < loads_.size(); ++i) {
      if (!states_[i].over) End(i, absl::InternalError("does not end"));
    }
    return std::move(result_);
  }

 private:
  enum class Kind { kBegin, kServe, kLinkFree, kArrive, kReport, kTick, kClient, kDeadline };
  struct Event {
    absl::Duration at;
    uint64_t order;
    Kind kind;
    size_t load;
    bool operator<(const Event& other) const {
      return std::tie(at, order) > std::tie(other.at, other.order);  // the top is the first
    }
  };
  struct Queued {
    Message message;
    double left;  // bytes not yet on the link
    uint64_t order;
  };
  struct State {
    std::unique_ptr<LinkGate> gate;
    std::unique_ptr<LoadSession> session;
    std::unique_ptr<ModelClient> client;
    std::unique_ptr<SessionChecker> checker;
    LoadSpec spec;
    std::deque<Queued> queue;  // before the link
    std::deque<Message> under_way;
    std::deque<ClientProgress> reports;
    absl::Duration serve_at = absl::InfiniteDuration();
    absl::Duration client_at = absl::InfiniteDuration();
    double served = 0;       // by the link, for kInTurn
    double before_link = 0;  // bytes
    bool full = false;       // the transport
    bool was_ready = false;
    bool judged = false;
    bool taken = false;
    bool over = false;
  };

  static LinkGroups::Options GroupOptions(const SharedLink& link) {
    LinkGroups::Options options;
    options.window_bytes_min = link.session.window_bytes_min;
    options.window_bytes_max = link.session.window_bytes_max;
    options.egress_bytes_per_second = link.egress_bytes_per_second;
    return options;
  }

  void At(absl::Duration at, Kind kind, size_t load) {
    if (at < absl::InfiniteDuration()) events_.push({at, order_++, kind, load});
  }

  void Handle(const Event& event) {
    State& state = states_[event.load];
    if (state.over && event.kind != Kind::kLinkFree) return;
    switch (event.kind) {
      case Kind::kBegin:
        return Begin(event.load);
      case Kind::kServe:
        if (event.at == state.serve_at) Serve(event.load);
        return;
      case Kind::kLinkFree:
        return LinkFree();
      case Kind::kArrive:
        return Arrive(event.load);
      case Kind::kReport:
        return OnReport(event.load);
      case Kind::kTick:
        if (state.client->dirty()) Report(event.load);
        return At(now_ + loads_[event.load].client.report_period, Kind::kTick, event.load);
      case Kind::kClient:
        if (event.at != state.client_at) return;
        state.client_at = absl::InfiniteDuration();
        state.client->Advance(now_);
        return AfterClient(event.load);
      case Kind::kDeadline:
        return Judge(event.load);
    }
  }

  void Begin(size_t load) {
    State& state = states_[load];
    state.spec = loads_[load].spec;
    LoadSessionOptions options = link_.session;
    if (link_.scheduled) {
      const double hint = link_.recorded ? record_.Expected(kLinkName, now_) : 0;
      state.gate = groups_.Join(
          kLinkName, hint, [this, load] { woken_.push_back(load); }, now_);
      options.gate = state.gate.get();
    }
    if (link_.recorded) {
      state.spec.bandwidth_hint_bytes_per_second = record_.Expected(kLinkName, now_);
      state.spec.round_trip_hint_seconds =
          absl::ToDoubleSeconds(record_.RoundTrip(kLinkName, now_));
    }
    auto session = LoadSession::Create(state.spec, options, now_);
    if (!session.ok()) return End(load, session.status());
    state.session = std::move(*session);
    state.client =
        std::make_unique<ModelClient>(loads_[load].spec, loads_[load].client, now_ - link_.one_way);
    state.checker = std::make_unique<SessionChecker>(loads_[load].spec);
    At(now_ + loads_[load].client.report_period, Kind::kTick, load);
    if (state.spec.deadline) {
      const absl::Duration at = now_ + *state.spec.deadline - link_.one_way;
      if (state.spec.policy == LoadPolicy::kDeadline) state.client->set_deadline(at);
      At(at, Kind::kDeadline, load);
    }
    Serve(load);
  }

  void Serve(size_t load) {
    State& state = states_[load];
    if (state.over || state.full) return;
    state.serve_at = absl::InfiniteDuration();
    while (!state.over) {
      const LoadSessionState before = state.session->state(now_);
      const LoadAction action = state.session->Next(now_);
      if (const auto* plan = absl::get_if<SendPlan>(&action)) {
        Check(load, state.checker->OnPlan(*plan));
        Enqueue(load, *plan, 0);
      } else if (const auto* order = absl::get_if<SendOrder>(&action)) {
        Check(load, state.checker->OnOrder(*order));
        Enqueue(load, *order, 0);
      } else if (const auto* data = absl::get_if<SendData>(&action)) {
        const uint64_t in_flight = before.bytes_sent - before.bytes_acknowledged;
        // The gate may have moved the estimate since; what the window bounds is checked of all.
        const uint64_t window =
            std::max(before.window_bytes, state.session->state(now_).window_bytes);
        Check(load, state.checker->OnData(*data, in_flight, window));
        in_flight_ += data->size;
        result_.max_in_flight = std::max(result_.max_in_flight, in_flight_);
        result_.loads[load].bytes += data->size;
        Enqueue(load, *data, static_cast<double>(data->size));
        state.full = state.before_link > link_.transport_bytes;
        if (state.full) return;
      } else if (const auto* wait = absl::get_if<Wait>(&action)) {
        if (wait->until <= now_) return End(load, absl::InternalError("waits for the past"));
        state.serve_at = wait->until;
        return At(wait->until, Kind::kServe, load);
      } else if (const auto* finish = absl::get_if<Finish>(&action)) {
        result_.loads[load].finish = *finish;
        return End(load, state.checker->OnFinish(*finish, result_.loads[load].bytes));
      } else {
        return End(load, absl::get<Fail>(action).status);
      }
    }
  }

  // ------------------------------------------------------------------------------- the link

  void Enqueue(size_t load, Message message, double bytes) {
    State& state = states_[load];
    // Who was idle does not get to make up for it.
    if (state.queue.empty()) state.served = std::max(state.served, link_served_);
    state.queue.push_back({std::move(message), bytes, order_++});
    state.before_link += bytes;
    waiting_ += static_cast<uint64_t>(bytes);
    result_.max_waiting = std::max(result_.max_waiting, waiting_);
    if (!link_busy_) LinkFree();
  }

  // Starts the next slice.
  void LinkFree() {
    if (link_busy_) {
      link_busy_ = false;
      result_.busy += now_ - busy_since_;
      State& last = states_[on_link_];
      if (!last.queue.empty() && last.queue.front().left <= 0) Depart(on_link_);
    }
    absl::optional<size_t> next;
    for (size_t i = 0; i < states_.size(); ++i) {
      if (states_[i].queue.empty()) continue;
      if (!next || Sooner(states_[i], states_[*next])) next = i;
    }
    if (!next) return;
    State& state = states_[*next];
    double& left = state.queue.front().left;
    const double slice = std::min(left, kSlice);
    left -= slice;
    state.before_link -= slice;
    waiting_ -= static_cast<uint64_t>(slice);
    if (state.full && state.before_link <= link_.transport_bytes) {
      state.full = false;
      state.serve_at = now_;
      At(now_, Kind::kServe, *next);
    }
    link_served_ = state.served;
    state.served += slice;
    on_link_ = *next;
    link_busy_ = true;
    busy_since_ = now_;
    At(kOrigin + link_.carry(now_ - kOrigin, slice), Kind::kLinkFree, *next);
  }

  bool Sooner(const State& a, const State& b) const {
    if (link_.queueing == SharedQueueing::kInTurn && a.served != b.served) {
      return a.served < b.served;
    }
    return a.queue.front().order < b.queue.front().order;
  }

  void Depart(size_t load) {
    State& state = states_[load];
    state.under_way.push_back(std::move(state.queue.front().message));
    state.queue.pop_front();
    At(now_ + link_.one_way, Kind::kArrive, load);
  }

  // ------------------------------------------------------------------------------- the client

  void Arrive(size_t load) {
    State& state = states_[load];
    const Message message = std::move(state.under_way.front());
    state.under_way.pop_front();
    if (const auto* plan = absl::get_if<SendPlan>(&message)) {
      state.client->OnPlan(*plan, now_);
    } else if (const auto* order = absl::get_if<SendOrder>(&message)) {
      state.client->OnOrder(*order, now_);
    } else {
      state.client->OnData(absl::get<SendData>(message), now_);
      if (loads_[load].client.report_every_frame) Report(load);
    }
    AfterClient(load);
  }

  // At the deadline or after it the client takes what it has and is gone.
  void TakeIfInPlace(size_t load, bool late) {
    State& state = states_[load];
    if (state.spec.policy != LoadPolicy::kDeadline || state.taken || state.over ||
        !state.client->all_in_place()) {
      return;
    }
    state.client->Take(late);
    Report(load);
    state.taken = true;
  }

  void AfterClient(size_t load) {
    State& state = states_[load];
    if (state.judged) TakeIfInPlace(load, /*late=*/true);
    const bool ready = state.client->all_ready();
    if (ready && !state.was_ready) Report(load);
    state.was_ready = ready;
    const absl::Duration next = state.client->next_at();
    if (next == state.client_at) return;
    state.client_at = next;
    At(next, Kind::kClient, load);
  }

  void Report(size_t load) {
    if (states_[load].taken) return;
    if (now_ - kOrigin - loads_[load].at >= loads_[load].client.vanishes_at) return;
    states_[load].reports.push_back(states_[load].client->TakeProgress());
    At(now_ + link_.one_way, Kind::kReport, load);
  }

  void OnReport(size_t load) {
    State& state = states_[load];
    const ClientProgress progress = std::move(state.reports.front());
    state.reports.pop_front();
    const uint64_t before = state.session->state(now_).bytes_acknowledged;
    const absl::Status status = state.session->OnProgress(progress, now_);
    if (!status.ok()) return End(load, absl::InternalError(status.message()));
    state.checker->OnProgress(progress);
    in_flight_ -= progress.bytes_received - before;
    if (link_.on_report) link_.on_report(now_ - kOrigin, load, progress.bytes_received);
    Serve(load);
  }

  void Judge(size_t load) {
    State& state = states_[load];
    if (state.judged) return;
    state.judged = true;
    result_.loads[load].usable_at_deadline = state.client->all_in_place();
    result_.loads[load].mean_level_at_deadline = state.client->mean_level();
    TakeIfInPlace(load, /*late=*/false);
  }

  void Check(size_t load, const absl::Status& status) {
    if (!status.ok()) End(load, status);
  }

  void End(size_t load, const absl::Status& status) {
    State& state = states_[load];
    if (state.over) return;
    state.over = true;
    SharedLoadResult& result = result_.loads[load];
    result.status = status;
    result.ended_at = now_ - kOrigin;
    if (state.session == nullptr) return;
    Judge(load);
    result.mean_level = state.client->mean_level();
    const LoadSessionState last = state.session->state(now_);
    in_flight_ -= last.bytes_sent - last.bytes_acknowledged;
    if (status.ok() && link_.recorded) Observe(state, result, last);
    state.session.reset();
    state.gate.reset();
  }

  // What the server does when a load has finished.
  void Observe(State& state, const SharedLoadResult& result, const LoadSessionState& last) {
    const double seconds = absl::ToDoubleSeconds(result.finish.load_delay);
    record_.ObserveRoundTrip(kLinkName, last.rtt_min, now_);
    if (state.gate != nullptr) {
      const BandwidthEstimate link = state.gate->LinkEstimate(now_);
      if (!link.lower_bound) record_.Observe(kLinkName, link.mean, seconds, now_);
    } else if (!last.bandwidth_is_lower_bound) {
      record_.Observe(kLinkName, result.finish.bandwidth_estimate_bytes_per_second, seconds, now_);
    }
  }

  const std::vector<SharedLoad>& loads_;
  const SharedLink& link_;
  LinkRecord record_;
  LinkGroups groups_;
  std::vector<State> states_;  // after groups_, which their gates use
  std::priority_queue<Event> events_;
  std::deque<size_t> woken_;
  uint64_t order_ = 1;
  absl::Duration now_ = kOrigin;
  bool link_busy_ = false;
  size_t on_link_ = 0;
  absl::Duration busy_since_;
  double link_served_ = 0;
  uint64_t in_flight_ = 0;
  uint64_t waiting_ = 0;
  SharedLinkResult result_;
};

}  // namespace

SharedLinkResult SimulateShared(const std::vector<SharedLoad>& loads, const SharedLink& link) {
  return SharedSimulation(loads, link).Run();
}

}  // namespace kvstream

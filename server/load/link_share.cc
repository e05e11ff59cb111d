#include "server/load/link_share.h"

#include <algorithm>
#include <queue>
#include <tuple>

#include "server/load/load_session.h"
#include "server/load/send_window.h"

namespace kvstream {

constexpr double LinkShare::kLag;
constexpr absl::Duration LinkShare::kFloorPatience;
constexpr absl::Duration LinkShare::kUrgentSlack;
constexpr absl::Duration LinkShare::kRecent;
constexpr absl::Duration LinkShare::kPoll;
constexpr absl::Duration LinkShare::kStall;
constexpr absl::Duration LinkShare::kProbe;
constexpr absl::Duration LinkShare::kPlanPeriod;

namespace {

// Frames of several loads come through together; a shorter sample would see that, not the link.
constexpr absl::Duration kSampleMin = absl::Milliseconds(10);
// Loads are given up only if they could not make it on a link so much faster than expected.
constexpr double kHope = 1.2;
// On a link of which nothing is known: what socket buffers would take in any case.
constexpr uint64_t kFirstWindow = 4 << 20;
// Before the first acknowledgement a record counts for so many seconds of the link, and a third of
// the round trip that is assumed then: who comes next waits behind what proves to be too much.
constexpr double kFirstQueueSeconds = 0.025;
// What a window holds beyond 9/8 of the round trip, in seconds of the link: with several loads,
// since whoever becomes urgent waits behind it, and with one.
constexpr double kSharedQueueSeconds = 0.005;
constexpr double kSoloQueueSeconds = 0.015;
// Round trips that are longer by less show that the window does not fill the link.
constexpr absl::Duration kNoQueue = absl::Milliseconds(8);
// A window grows at most to so many times what a load alone would have.
constexpr double kGrowthMax = 16;
constexpr double kBurstGain = 1.0 / 16;
// What the others may have saved up beside an urgent load.
constexpr double kFloorCreditMax = 512 << 10;

struct Due {
  bool refinement;
  absl::Duration at;
  LinkShare::MemberId id;
  bool operator<(const Due& other) const {
    return std::tie(refinement, at, id) < std::tie(other.refinement, other.at, other.id);
  }
};

}  // namespace

LinkShare::LinkShare(const LinkShareOptions& options, absl::Duration now)
    : options_(options),
      origin_(now),
      estimator_(options.hint_bytes_per_second, kSampleMin, /*bounds_count_whole=*/true),
      moved_at_(now),
      planned_at_(now),
      tokens_(options.fixed_bytes_per_second * kWindowQueueSeconds),
      tokens_at_(now) {}

void LinkShare::Join(MemberId id, absl::Duration now) {
  Member& member = members_[id];
  member.moved_at = member.granted_at = now;
  member.served = virtual_served_;
  stale_ = true;
}

void LinkShare::Leave(MemberId id, absl::Duration now) {
  const auto found = members_.find(id);
  if (found == members_.end()) return;
  Member& member = found->second;
  StopWaiting(id, member);
  Forget(member.in_flight);
  members_.erase(found);
  stale_ = true;
  if (in_flight_ == 0) moved_at_ = now;
}

// ------------------------------------------------------------------------------------ the window

BandwidthEstimate LinkShare::estimate(absl::Duration now) const {
  if (!fixed()) return estimator_.estimate(now);
  BandwidthEstimate known;
  known.rate = known.low = known.mean = options_.fixed_bytes_per_second;
  known.lower_bound = false;
  known.samples = 1;
  return known;
}

uint64_t LinkShare::window_bytes(absl::Duration now) const {
  if (fixed()) return static_cast<uint64_t>(std::max(Tokens(now), 0.0));
  LoadSessionOptions limits;
  limits.window_bytes_min = options_.window_bytes_min;
  limits.window_bytes_max = options_.window_bytes_max;
  const BandwidthEstimate link = estimator_.estimate(now);
  const uint64_t plain = WindowBytes(link, estimator_.rtt_min_s(), estimator_.acked_bytes(), limits,
                                     kFirstQueueSeconds);
  double window;
  if (link.lower_bound) {
    const bool unknown = members_.size() == 1 && !(link.hint > 0);
    window =
        static_cast<double>(unknown ? options_.window_bytes_max : std::max(plain, kFirstWindow));
  } else {
    window =
        std::max(SteadyWindow(link), std::min(grown_, kGrowthMax * static_cast<double>(plain)));
  }
  window = std::min(window, static_cast<double>(options_.window_bytes_max));
  return std::max(options_.window_bytes_min, static_cast<uint64_t>(window));
}

double LinkShare::SteadyWindow(const BandwidthEstimate& link) const {
  const double queue_s = members_.size() > 1 ? kSharedQueueSeconds : kSoloQueueSeconds;
  return link.rate * (9.0 / 8 * estimator_.rtt_min_s() + queue_s) + 2 * burst_;
}

void LinkShare::GrowWindow(uint64_t acknowledged, absl::Duration now) {
  const double bytes = static_cast<double>(acknowledged);
  burst_ += kBurstGain * (bytes - burst_);
  const absl::Duration rtt = estimator_.rtt_min();
  const double steady = SteadyWindow(estimator_.estimate(now));
  if (estimator_.newest_rtt() - rtt >= std::max(kNoQueue, rtt / 16)) {
    grown_ = steady;
  } else {
    grown_ = std::max(grown_, steady);
    if (!waiting_.empty()) grown_ += bytes;
  }
}

double LinkShare::Tokens(absl::Duration now) const {
  const double grown =
      tokens_ + options_.fixed_bytes_per_second * absl::ToDoubleSeconds(now - tokens_at_);
  return std::min(grown, options_.fixed_bytes_per_second * kWindowQueueSeconds);
}

bool LinkShare::HasRoom(uint64_t bytes, absl::Duration now) const {
  // A frame larger than the bucket goes once it is full, and leaves a debt.
  if (fixed()) {
    const double most = options_.fixed_bytes_per_second * kWindowQueueSeconds;
    return Tokens(now) >= std::min(static_cast<double>(bytes), most);
  }
  return in_flight_ == 0 || in_flight_ + bytes <= window_bytes(now);
}

absl::Duration LinkShare::AskAgainAt(uint64_t bytes, absl::Duration now) const {
  const absl::Duration poll = kPoll * (1 + static_cast<double>(waiting_.size()) / 16);
  if (!fixed()) return now + poll;
  const double most = options_.fixed_bytes_per_second * kWindowQueueSeconds;
  const double lacking = std::min(static_cast<double>(bytes), most) - Tokens(now);
  if (lacking <= 0) return now + poll;
  const absl::Duration filled = absl::Seconds(lacking / options_.fixed_bytes_per_second);
  return now + std::min(std::max(filled, absl::Milliseconds(1)), poll);
}

bool LinkShare::MayProbe(const Member& member, absl::Duration now) const {
  const absl::Duration silence = kProbe + 2 * estimator_.rtt_min();
  return !fixed() && member.in_flight == 0 && now - moved_at_ >= silence &&
         now - probed_at_ >= kProbe;
}

void LinkShare::Forget(uint64_t bytes) {
  if (bytes == 0) return;
  in_flight_ -= bytes;
  acknowledged_ += bytes;
  estimator_.Abandon(bytes);
}

// ------------------------------------------------------------------------------------ the order

void LinkShare::SetWaiting(MemberId id, Member& member, uint64_t wanted) {
  member.wanted = wanted;
  member.waiting = true;
  waiting_.emplace(member.served, id);
}

void LinkShare::StopWaiting(MemberId id, Member& member) {
  if (member.waiting) waiting_.erase({member.served, id});
  member.waiting = member.woken = false;
}

LinkShare::Member* LinkShare::First(const Member* asker, absl::Duration now) {
  for (const MemberId id : urgent_) {
    const auto found = members_.find(id);
    if (found == members_.end()) continue;
    Member& member = found->second;
    if (member.demand.bytes == 0) continue;
    if (member.woken && now - member.woken_at > kRecent) StopWaiting(id, member);
    if (&member == asker || member.waiting || now - member.granted_at < kRecent) return &member;
  }
  return nullptr;
}

LinkShare::Member* LinkShare::NextFair(const Member* first, absl::Duration now, MemberId* id) {
  for (auto next = waiting_.begin(); next != waiting_.end();) {
    *id = next->second;
    ++next;
    Member& member = members_.at(*id);
    if (&member == first || Pauses(member, first)) continue;
    if (!member.woken || now - member.woken_at <= kRecent) return &member;
    // It was told and did not come: it has changed its mind, or its transport is full.
    StopWaiting(*id, member);
  }
  return nullptr;
}

bool LinkShare::Pauses(const Member& member, const Member* first) {
  return first != nullptr && first != &member && !first->demand.refinement &&
         member.demand.refinement;
}

bool LinkShare::Ask(MemberId id, uint64_t bytes, const SendDemand& demand, absl::Duration now) {
  Member& member = members_.at(id);
  const bool waited = member.waiting;
  StopWaiting(id, member);
  if (member.demand.due != demand.due || (member.demand.bytes == 0) != (demand.bytes == 0)) {
    stale_ = true;
  }
  member.demand = demand;
  // Who had nothing to send does not make up for it; who waited does.
  if (!waited && now - member.granted_at > kRecent) {
    member.served = std::max(member.served, virtual_served_ - kLag);
  }
  PlanIfStale(now);
  if (MayProbe(member, now)) {
    probed_at_ = now;
    return true;
  }
  // One frame at a time, until one is acknowledged. It does not wait: nobody is to wake it.
  if (member.stalled && now - member.granted_at < kStall) return false;
  const Member* const first = First(&member, now);
  MemberId next_id = 0;
  const Member* const next = NextFair(first, now, &next_id);
  const bool turn = first == &member || next == nullptr || member.served <= next->served;
  if (turn && !Pauses(member, first) && MayGo(bytes, first == &member, first, next, now))
    return true;
  SetWaiting(id, member, bytes);
  return false;
}

bool LinkShare::MayGo(uint64_t bytes, bool is_first, const Member* first, const Member* next,
                      absl::Duration now) const {
  if (!is_first) {
    if (first != nullptr && floor_credit_ < static_cast<double>(bytes)) return false;
    return HasRoom(bytes, now);
  }
  // What is owed to the others is not taken from them.
  const bool owed = next != nullptr && floor_credit_ >= static_cast<double>(next->wanted);
  return HasRoom(bytes + (owed ? next->wanted : 0), now);
}

void LinkShare::Commit(MemberId id, uint64_t bytes, absl::Duration now) {
  Member& member = members_.at(id);
  const Member* const first = First(&member, now);
  if (first == &member) {
    // Only where somebody else wants it.
    const bool patient = now - urgent_since_ < kFloorPatience;
    const double credit = patient ? 0 : static_cast<double>(bytes) * kFloor / (1 - kFloor);
    floor_credit_ = waiting_.empty() ? 0 : std::min(floor_credit_ + credit, kFloorCreditMax);
  } else {
    if (first != nullptr) floor_credit_ -= static_cast<double>(bytes);
    virtual_served_ = std::max(virtual_served_, member.served);
    member.served += static_cast<double>(bytes);
  }
  member.demand.bytes -= std::min(member.demand.bytes, bytes);
  if (member.in_flight == 0) {
    member.moved_at = now;
    member.patience = Patience();
  }
  if (in_flight_ == 0) moved_at_ = now;
  member.granted_at = now;
  member.in_flight += bytes;
  in_flight_ += bytes;
  if (fixed()) {
    tokens_ = Tokens(now) - static_cast<double>(bytes);
    tokens_at_ = now;
  }
  estimator_.OnSent(bytes, now);
}

void LinkShare::OnUnsent(MemberId id, uint64_t bytes, absl::Duration now) {
  Member& member = members_.at(id);
  bytes = std::min(bytes, member.in_flight);
  member.in_flight -= bytes;
  member.served -= static_cast<double>(bytes);
  // Others may have sent since, so it is forgotten rather than taken back.
  Forget(bytes);
  if (fixed()) {
    tokens_ = Tokens(now) + static_cast<double>(bytes);
    tokens_at_ = now;
  }
}

void LinkShare::OnAcknowledged(MemberId id, uint64_t bytes, const SendDemand& demand,
                               absl::Duration now) {
  Member& member = members_.at(id);
  member.demand = demand;
  const uint64_t known = std::min(bytes, member.written_off);
  member.written_off -= known;
  const uint64_t counted = std::min(bytes - known, member.in_flight);
  if (bytes == 0) return;
  // What it has in flight now waits behind what all have.
  member.patience = Patience();
  member.moved_at = moved_at_ = now;
  member.stalled = false;
  member.in_flight -= counted;
  in_flight_ -= counted;
  acknowledged_ += counted;
  // Cannot be refused: no more than was sent, on a clock that does not go back.
  if (counted == 0) return;
  estimator_.OnReport(acknowledged_, now - origin_, now).IgnoreError();
  GrowWindow(counted, now);
}

absl::optional<LinkShare::MemberId> LinkShare::NextToWake(absl::Duration now) {
  PlanIfStale(now);
  const auto wake = [now](Member& member) {
    member.woken = true;
    member.woken_at = now;
  };
  const Member* const first = First(nullptr, now);
  MemberId id = 0;
  Member* const next = NextFair(first, now, &id);
  if (next != nullptr && !next->woken &&
      MayGo(next->wanted, /*is_first=*/false, first, nullptr, now)) {
    wake(*next);
    return id;
  }
  if (first == nullptr || !first->waiting || first->woken) return absl::nullopt;
  if (!MayGo(first->wanted, /*is_first=*/true, first, next, now)) return absl::nullopt;
  for (const MemberId urgent : urgent_) {
    const auto found = members_.find(urgent);
    if (found == members_.end() || &found->second != first) continue;
    wake(found->second);
    return urgent;
  }
  return absl::nullopt;
}

// ------------------------------------------------------------------------------------ the plan

void LinkShare::PlanIfStale(absl::Duration now) {
  if (!stale_ && now - planned_at_ < kPlanPeriod) return;
  stale_ = false;
  planned_at_ = now;
  Plan(now);
}

void LinkShare::Plan(absl::Duration now) {
  const BandwidthEstimate link = estimate(now);
  WriteOffStalled(now);
  Rank(link, now);
}

absl::Duration LinkShare::Patience() const {
  // By what was measured, since silence is what is in question.
  const double rate = std::max(estimator_.measured_rate(), 1.0);
  const double queue_s = 3 * static_cast<double>(in_flight_) / rate;
  return kStall + 4 * estimator_.rtt_min() +
         std::min(absl::Seconds(std::min(queue_s, 60.0)), 8 * kStall);
}

void LinkShare::WriteOffStalled(absl::Duration now) {
  if (fixed()) return;
  for (auto& entry : members_) {
    Member& member = entry.second;
    if (member.in_flight == 0 || now - member.moved_at < member.patience) continue;
    // The link as a whole may stand still; then nobody's bytes are lost.
    if (moved_at_ - member.moved_at < member.patience / 2) continue;
    Forget(member.in_flight);
    member.written_off += member.in_flight;
    member.in_flight = 0;
    member.stalled = true;
  }
}

void LinkShare::Rank(const BandwidthEstimate& link, absl::Duration now) {
  // What makes a load usable goes before what refines another, whichever is due first.
  std::vector<Due> due;
  size_t active = 0;
  for (auto& entry : members_) {
    Member& member = entry.second;
    member.was_urgent = member.standing == LinkStanding::kUrgent;
    member.standing = LinkStanding::kFair;
    member.slack = absl::InfiniteDuration();
    active += member.waiting || member.in_flight > 0 || member.demand.bytes > 0;
    if (member.demand.bytes > 0 && member.demand.due < absl::InfiniteDuration()) {
      due.push_back({member.demand.refinement, member.demand.due, entry.first});
    }
  }
  std::sort(due.begin(), due.end());
  const double usable = active > 1 ? 1 - kFloor : 1;
  const double rtt_s = estimator_.rtt_min_s();
  // What is in flight and not yet past the link goes before everything; what is sent last still has
  // to be acknowledged.
  const double queued =
      fixed() ? 0 : std::max(static_cast<double>(in_flight_) - link.rate * rtt_s, 0.0);
  const double patience_s = absl::ToDoubleSeconds(
      urgent_.empty() ? kFloorPatience : urgent_since_ + kFloorPatience - now);
  const auto carries = [&](double rate, absl::Duration until) {
    const double left_s = absl::ToDoubleSeconds(until - now) - rtt_s;
    const double floor_s = std::max(left_s - std::max(patience_s, 0.0), 0.0);
    return rate * (left_s - (1 - usable) * floor_s) - queued;
  };

  // Moore and Hodgson: as few as possible are late. Lower bounds of the speed prove nothing.
  double chain = 0;
  if (link.known() && !link.lower_bound) {
    std::priority_queue<std::pair<uint64_t, MemberId>> kept;
    for (const Due& entry : due) {
      Member& member = members_.at(entry.id);
      chain += static_cast<double>(member.demand.bytes);
      if (entry.refinement) kept = {};  // base is not given up for it
      kept.emplace(member.demand.bytes, entry.id);
      // Giving up is the harsher mistake: what is given up by a low estimate is late for sure.
      const double expected = link.Forecast(absl::ToDoubleSeconds(entry.at - now));
      if (chain <= kHope / usable * carries(expected, entry.at)) continue;
      chain -= static_cast<double>(kept.top().first);
      members_.at(kept.top().second).standing = LinkStanding::kLate;
      kept.pop();
    }
  }

  std::vector<MemberId> in_time, refining;
  size_t urgent = 0;
  double urgent_bytes = 0;
  chain = 0;
  for (const Due& entry : due) {
    Member& member = members_.at(entry.id);
    const double bytes = static_cast<double>(member.demand.bytes);
    const bool late = member.standing == LinkStanding::kLate;
    if (!late) {
      chain += bytes;
      if (!entry.refinement) in_time.push_back(entry.id);
    }
    if (link.known()) {
      const double needed_s = (queued + chain + (late ? bytes : 0)) / (link.rate * usable);
      member.slack = entry.at - now - absl::Seconds(std::min(needed_s + rtt_s, 1e9));
    }
    if (late) continue;
    member.share = usable * bytes / chain;
    const double spare = link.low * usable * absl::ToDoubleSeconds(kUrgentSlack);
    const double sure = carries(link.low, entry.at);
    const double demand = member.was_urgent ? kStillUrgentDemand : kUrgentDemand;
    if (!link.known() || chain > std::min(demand * sure, sure - spare)) {
      // Whoever is due before an urgent load goes before it.
      if (entry.refinement) {
        refining.push_back(entry.id);
      } else {
        urgent = in_time.size();
      }
      urgent_bytes = chain;
    }
  }
  in_time.resize(urgent);
  in_time.insert(in_time.end(), refining.begin(), refining.end());
  for (const MemberId id : in_time) members_.at(id).standing = LinkStanding::kUrgent;
  if (urgent_.empty()) urgent_since_ = now;
  urgent_ = std::move(in_time);
  if (urgent_.empty()) floor_credit_ = 0;
  Divide(static_cast<uint64_t>(urgent_bytes));
}

void LinkShare::Divide(uint64_t urgent_bytes) {
  // A load of b bytes that shares is done when the urgent are and each of the others has had
  // min(its own bytes, b): b of so many bytes is what it gets of the link. One that only refines
  // has no end in sight; it counts on what is shared now, and counts with b for the others.
  std::vector<double> sizes;
  size_t endless = 0;
  for (const auto& entry : members_) {
    const Member& member = entry.second;
    if (member.standing == LinkStanding::kUrgent) continue;
    if (member.demand.bytes > 0) {
      sizes.push_back(static_cast<double>(member.demand.bytes));
    } else if (member.waiting || member.in_flight > 0) {
      ++endless;
    }
  }
  std::sort(sizes.begin(), sizes.end());
  std::vector<double> sums(sizes.size() + 1, 0);
  for (size_t i = 0; i < sizes.size(); ++i) sums[i + 1] = sums[i] + sizes[i];
  const double urgent = static_cast<double>(urgent_bytes);
  for (auto& entry : members_) {
    Member& member = entry.second;
    if (member.standing == LinkStanding::kUrgent) continue;
    const double bytes = static_cast<double>(member.demand.bytes);
    if (bytes > 0) {
      const size_t smaller = std::upper_bound(sizes.begin(), sizes.end(), bytes) - sizes.begin();
      const double before =
          sums[smaller] + bytes * static_cast<double>(sizes.size() - smaller + endless);
      member.share = bytes / (urgent + std::max(before, bytes));
    } else {
      const bool counted = member.waiting || member.in_flight > 0;
      const double others = static_cast<double>(sizes.size() + endless + (counted ? 0 : 1));
      member.share = (urgent_bytes > 0 ? kFloor : 1) / std::max(others, 1.0);
    }
  }
}

BandwidthEstimate LinkShare::Expect(MemberId id, const BandwidthEstimate& own, absl::Duration now) {
  PlanIfStale(now);
  BandwidthEstimate link = estimate(now);
  const double share = members_.at(id).share;
  if (fixed()) {
    // No more than this; how much of it the way behind can carry is not known here.
    BandwidthEstimate capped = own;
    const double most = link.rate * share;
    if (own.rate >= most) capped.lower_bound = false;
    for (double* rate : {&capped.rate, &capped.low, &capped.mean, &capped.hint}) {
      *rate = std::min(*rate, most);
    }
    return capped;
  }
  const bool alone = members_.size() == 1;
  if (!link.known() || (alone && (!own.lower_bound || link.lower_bound))) return own;
  link.rate *= share;
  link.low *= share;
  link.mean *= share;
  link.hint *= share;
  // Its own connection may be the narrower one.
  const bool own_is_lower = own.known() && !own.lower_bound && own.rate < link.rate;
  return own_is_lower ? own : link;
}

absl::Duration LinkShare::QueueDelay(absl::Duration now) const {
  const BandwidthEstimate link = estimate(now);
  if (fixed() || !link.known()) return absl::ZeroDuration();
  const double queued_s = static_cast<double>(in_flight_) / link.rate;
  return std::max(absl::Seconds(std::min(queued_s, 1e6)) - estimator_.rtt_min(),
                  absl::ZeroDuration());
}

LinkShareView LinkShare::View(MemberId id, absl::Duration now) {
  PlanIfStale(now);
  const Member& member = members_.at(id);
  return {member.standing, members_.size(), member.share, member.slack};
}

}  // namespace kvstream

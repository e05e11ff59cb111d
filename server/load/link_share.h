// Whose bytes go next where several loads share a link.
#ifndef KVSTREAM_SERVER_LOAD_LINK_SHARE_H_
#define KVSTREAM_SERVER_LOAD_LINK_SHARE_H_

#include <cstddef>
#include <cstdint>
#include <set>
#include <unordered_map>
#include <utility>
#include <vector>

#include "absl/time/time.h"
#include "absl/types/optional.h"
#include "server/load/bandwidth_estimator.h"
#include "server/load/send_gate.h"

namespace kvstream {

struct LinkShareOptions {
  // Bytes in flight of all loads together, as LoadSessionOptions has them for one.
  uint64_t window_bytes_min = 64 << 10;
  uint64_t window_bytes_max = 128 << 20;
  // What earlier loads saw of this link; 0: nothing.
  double hint_bytes_per_second = 0;
  // Above 0: the link's speed is known, nothing is measured, and bytes are let through at that
  // speed (a token bucket of kWindowQueueSeconds) rather than by what is in flight.
  double fixed_bytes_per_second = 0;
};

// How a load stands among those that share its link.
enum class LinkStanding {
  kFair,    // no deadline, or time enough: shares equally
  kUrgent,  // needs more than kUrgentDemand of the link until its deadline: goes first
  kLate,    // cannot make its deadline any more: shares equally, behind those that can
};

// What one load may know of it.
struct LinkShareView {
  LinkStanding standing = LinkStanding::kFair;
  size_t loads = 1;                                 // on this link
  double share = 1;                                 // of the link's speed, that it may count on
  absl::Duration slack = absl::InfiniteDuration();  // until its deadline, beyond what it and those
                                                    // before it need; InfiniteDuration(): no
                                                    // deadline, or the link's speed is not known
};

// One link and the loads on it.
//
// Window. What is in flight of all loads together is at most
//     rate * (9/8 * rtt_min + 5 ms) + 2 * burst,
// burst being what one report acknowledges on average: just enough for the link never to be idle,
// and far less queue before it than a load alone has (send_window.h). One queue, whoever's bytes
// are in it: the order in which bytes are let through is the order in which the link carries them,
// whether it serves its connections in turn or first come first served, and a load that becomes
// urgent waits for no more than that queue. A load alone has 15 ms instead of 5. On a link of
// which nothing is known, not even a record, a load alone has all of window_bytes_max until the
// link's own speed is seen: its transport takes no more than the socket's buffer before the link.
//   So small a window hardly shows that the link has become faster. Hence it grows by what is
// acknowledged, twofold a round trip, while loads wait for it and round trips show less queue than
// it should make (kNoQueue); the first that show more set it back to the formula, which knows by
// then what the larger window has measured.
//
// Order. Loads with a deadline that have something that must be sent are put in order of deadline,
// those that only finish a refinement behind the others.
// By Moore and Hodgson's rule as few of them as possible are given up (kLate): whenever the bytes
// up to some deadline exceed what the link is expected to carry until then, the largest of them
// goes. Of the others those are urgent that need, with those before them, more than kUrgentDemand
// of what the link is sure to carry (kStillUrgentDemand once they are), or all but kUrgentSlack of
// it. While there are urgent loads the earliest deadline gets the link: all of it for
// kFloorPatience, since that is soon over or made up for, then all but kFloor, which all others
// share. Refinement gets nothing of that floor while somebody's base is urgent: who refines is
// usable already, and its deadline ends the wait. Without urgent loads all share.
//
//   Why by deadline: let C(t) be the bytes that the link carries by t. In the time of C the link is
//   a machine of speed one, deadlines are C(d) in the same order, and preemptive EDF meets
//   all deadlines on one machine if any order does (exchange argument: swapping two pieces into the
//   order of their deadlines makes neither late). It need not know C. Once no order meets all,
//   Moore and Hodgson's rule gives up as few as possible among loads that are there.
//
// Sharing is fair queueing by bytes: each load has a counter of what it was let through while
// sharing; the lowest goes next, and who comes new or was idle starts where the others are. So two
// loads that both always have something to send differ by a frame each and kLag at most. As what is
// shared is never less than kFloor, of n loads none gets less than kFloor / n of the link, but for
// kFloorPatience in one piece.
//
// Estimate. The link's speed is measured with a BandwidthEstimator over all loads' bytes, on the
// server's clock; lower bounds above it are believed at once. A load's own estimator, whose samples
// are limited by this scheduler and marked so, is used as far as it is lower: Expect().
//
// Stalls. Bytes of a load that acknowledges nothing while others go on are written off after
// kStall and what the link's queue may take: they do not hold up the others. It gets a frame per
// kStall until it acknowledges something. And when nobody acknowledges anything, a load with
// nothing in flight may still probe, one frame per kProbe.
//
// Work conserving: whenever the window has room for its bytes, a load that asks is refused only
// while another one waits or was let through within kRecent, and is told to ask again at most
// kPoll * (1 + waiting / 16) later.
//
// Thread-compatible. Costs O(log n) a call and O(n log n) once per kPlanPeriod; some 250 bytes a
// load. Times never go back.
class LinkShare {
 public:
  using MemberId = uint64_t;

  static constexpr double kFloor = 0.125;
  static constexpr absl::Duration kFloorPatience = absl::Milliseconds(500);
  static constexpr double kUrgentDemand = 0.25;
  static constexpr double kStillUrgentDemand = 0.125;
  static constexpr absl::Duration kUrgentSlack = absl::Milliseconds(150);
  static constexpr double kLag = 256 << 10;
  static constexpr absl::Duration kRecent = absl::Milliseconds(20);
  static constexpr absl::Duration kPoll = absl::Milliseconds(20);
  static constexpr absl::Duration kStall = absl::Milliseconds(250);
  static constexpr absl::Duration kProbe = absl::Milliseconds(100);
  static constexpr absl::Duration kPlanPeriod = absl::Milliseconds(10);

  LinkShare(const LinkShareOptions& options, absl::Duration now);

  // `id` is the caller's, unique. What follows takes only ids of members.
  void Join(MemberId id, absl::Duration now);
  void Leave(MemberId id, absl::Duration now);

  // Whether the member may send now. Nothing is counted yet: Commit() is to follow if it does. A
  // member that is refused waits.
  bool Ask(MemberId id, uint64_t bytes, const SendDemand& demand, absl::Duration now);
  void Commit(MemberId id, uint64_t bytes, absl::Duration now);
  // When a member that was just refused should ask again.
  absl::Duration AskAgainAt(uint64_t bytes, absl::Duration now) const;
  // The newest Commit of the member was not sent.
  void OnUnsent(MemberId id, uint64_t bytes, absl::Duration now);
  void OnAcknowledged(MemberId id, uint64_t bytes, const SendDemand& demand, absl::Duration now);

  // A waiting member that may send now; call after each of the above until it returns none, and let
  // each Ask().
  absl::optional<MemberId> NextToWake(absl::Duration now);

  BandwidthEstimate Expect(MemberId id, const BandwidthEstimate& own, absl::Duration now);
  // How long the newest byte in flight takes to come to the head of the link's queue.
  absl::Duration QueueDelay(absl::Duration now) const;
  LinkShareView View(MemberId id, absl::Duration now);

  size_t size() const { return members_.size(); }
  uint64_t in_flight_bytes() const { return in_flight_; }
  // Of all loads together; of a link of known speed what the bucket holds.
  uint64_t window_bytes(absl::Duration now) const;
  BandwidthEstimate estimate(absl::Duration now) const;

 private:
  struct Member {
    uint64_t in_flight = 0;
    uint64_t written_off = 0;  // not in in_flight any more, may still be acknowledged
    SendDemand demand;
    uint64_t wanted = 0;  // of the newest refusal
    bool waiting = false;
    bool woken = false;
    bool stalled = false;  // acknowledged nothing since its bytes were written off
    absl::Duration woken_at;
    absl::Duration granted_at;  // newest, or when it joined
    absl::Duration moved_at;    // newest acknowledgement, or first byte after nothing in flight
    absl::Duration patience;    // from then on
    double served = 0;          // fair queueing's counter
    LinkStanding standing = LinkStanding::kFair;
    bool was_urgent = false;  // in the plan before
    double share = 1;
    absl::Duration slack = absl::InfiniteDuration();
  };

  bool fixed() const { return options_.fixed_bytes_per_second > 0; }
  bool HasRoom(uint64_t bytes, absl::Duration now) const;
  double Tokens(absl::Duration now) const;
  // What the formula gives for a link whose own speed was seen.
  double SteadyWindow(const BandwidthEstimate& link) const;
  void GrowWindow(uint64_t acknowledged, absl::Duration now);
  // The urgent load that is served now; null: all share. `asker` counts as ready.
  Member* First(const Member* asker, absl::Duration now);
  // Whether the window has room for bytes whose turn it is: those of the urgent load that is served
  // now, or of one that shares beside it. `next` as below.
  bool MayGo(uint64_t bytes, bool is_first, const Member* first, const Member* next,
             absl::Duration now) const;
  // A refinement is not sent while somebody else's base is urgent, also if it was begun.
  static bool Pauses(const Member& member, const Member* first);
  // Whom of those that wait sharing serves next, the urgent one that is served now excepted; null:
  // nobody.
  Member* NextFair(const Member* first, absl::Duration now, MemberId* id);
  void SetWaiting(MemberId id, Member& member, uint64_t wanted);
  void StopWaiting(MemberId id, Member& member);
  bool MayProbe(const Member& member, absl::Duration now) const;
  // Bytes that will not be acknowledged, or whose acknowledgement says nothing.
  void Forget(uint64_t bytes);

  void PlanIfStale(absl::Duration now);
  void Plan(absl::Duration now);
  // How long what is sent now may stay unacknowledged.
  absl::Duration Patience() const;
  void WriteOffStalled(absl::Duration now);
  void Rank(const BandwidthEstimate& estimate, absl::Duration now);
  void Divide(uint64_t urgent_bytes);

  const LinkShareOptions options_;
  const absl::Duration origin_;
  BandwidthEstimator estimator_;
  std::unordered_map<MemberId, Member> members_;
  std::set<std::pair<double, MemberId>> waiting_;  // by served
  std::vector<MemberId> urgent_;                   // by deadline; may hold ids that have left
  uint64_t in_flight_ = 0;
  double burst_ = 0;           // mean bytes that one report acknowledges
  double grown_ = 0;           // window, see GrowWindow
  uint64_t acknowledged_ = 0;  // with what was forgotten
  double virtual_served_ = 0;
  absl::Duration urgent_since_;  // without a break
  double floor_credit_ = 0;      // bytes that the others may send beside an urgent load
  absl::Duration moved_at_;      // newest acknowledgement of anybody
  absl::Duration probed_at_ = -absl::InfiniteDuration();
  bool stale_ = true;
  absl::Duration planned_at_;
  double tokens_ = 0;
  absl::Duration tokens_at_;
};

}  // namespace kvstream

#endif  // KVSTREAM_SERVER_LOAD_LINK_SHARE_H_

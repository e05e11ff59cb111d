// The one implementation of LoadSession: joins estimator, planner and the state of delivery.
#ifndef KVSTREAM_SERVER_LOAD_ADAPTIVE_LOAD_SESSION_H_
#define KVSTREAM_SERVER_LOAD_ADAPTIVE_LOAD_SESSION_H_

#include <algorithm>
#include <cstdint>
#include <deque>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "absl/types/optional.h"
#include "server/load/bandwidth_estimator.h"
#include "server/load/cachegen_policy.h"
#include "server/load/chunk_table.h"
#include "server/load/decoder_model.h"
#include "server/load/delivery_state.h"
#include "server/load/level_planner.h"
#include "server/load/link_queue.h"
#include "server/load/load_session.h"
#include "server/load/recompute_ledger.h"
#include "server/load/standing_orders.h"

namespace kvstream {

// Contract: LoadSession. Made by LoadSession::Create with a spec and options that pass
// Validate().
//
// Next() does the first of these that applies:
//   1. a failure: Fail; the client has taken the chunks: Finish
//   2. a decision to recompute that the client was not told: SendPlan, SendOrder
//   3. planning, where something changed since the last
//   4. the segment that was begun, as no other data may come inside it while it is needed
//   5. the base of the next chunk that the plan streams
//   6. the chunk that the client is recomputing, where the bytes may come first
//   7. a refinement that is promised in time (kDeadline)
//   8. everything sent, acknowledged and ready: Finish
//   9. Wait
class AdaptiveLoadSession final : public LoadSession {
 public:
  AdaptiveLoadSession(const LoadSpec& spec, const LoadSessionOptions& options, absl::Duration now);

  LoadAction Next(absl::Duration now) override;
  absl::Status OnProgress(const ClientProgress& progress, absl::Duration now) override;
  void OnSegmentUnavailable(uint32_t chunk, uint32_t level, const absl::Status& why,
                            absl::Duration now) override;
  double bandwidth_estimate_bytes_per_second() const override;
  LoadSessionState state(absl::Duration now) const override;

 private:
  // kRace: the base of a chunk that the client is recomputing.
  enum class Kind { kBase, kRefinement, kRace };
  // The chunk whose segments are being sent, up to `target`.
  struct Work {
    uint32_t chunk;
    int target;
    Kind kind;
    bool with_first = false;  // a refinement that arrives before the chunk's first decode begins
  };
  // Data of a chunk in flight, in the order of sending.
  struct InFlight {
    uint32_t chunk;
    uint64_t end_offset;
  };
  struct Telling {
    uint32_t begin, end;
  };

  bool plans_splits() const {
    return policy_ == LoadPolicy::kDeadline || policy_ == LoadPolicy::kFastest;
  }
  // Whether what is recomputed comes after what is refined, and so reads it.
  bool recompute_reads_refined() const {
    return forward() && (!ledger_.idle() || (orders_.standing() && !orders_.begun()));
  }
  // Before it the client can recompute what it was told to, see RecomputeLedger.
  uint32_t front_end() const {
    return forward() ? size() : std::max(delivery_.open().begin, orders_.progress().up_to);
  }
  bool forward() const { return delivery_.order() == BaseOrder::kForward; }
  uint32_t size() const { return chunks_.size(); }
  // The level at which the chunk is usable, or which it is to have: its finest where it lacks that.
  int BaseOf(uint32_t chunk) const { return std::min(base_level_, chunks_.finest(chunk)); }
  // What is sent now, if it is no refinement, has to be sent whatever the link does: nothing is
  // gained by keeping it back.
  bool base_is_certain() const {
    return ability_ == RecomputeAbility::kNone && policy_ != LoadPolicy::kCacheGen;
  }
  uint64_t Window(const BandwidthEstimate& estimate, bool refinement) const;
  // What this load can count on: its own estimate, or its part of a link that is shared.
  BandwidthEstimate Estimate(absl::Duration now) const;
  SendDemand Demand() const;
  // What is undecided; no more than the base counts as sent of the frontier.
  OpenRange Open() const;
  // Whether `bytes` may go out now, for all that others need.
  bool Admitted(uint64_t bytes, absl::Duration now);
  double TimeLeft(absl::Duration now) const;
  PlannerView View(absl::Duration now);

  // When a message sent now would reach the client, behind the data in flight; a promise.
  absl::Duration ArrivalBy(absl::Duration now);
  // Seconds until the client has surely recomputed what it was told to.
  double PromisedRecompute(absl::Duration now) const;
  // When, on the client's clock, it has to begin at the latest with what has not arrived, to be
  // through before the deadline; infinite if that is too late now.
  absl::Duration AnywayAt(const PlannerView& view, double insurance_s, absl::Duration now) const;
  // Seconds until the client has recomputed all that has not arrived, if it begins now, its work
  // taken as `safety` times as long.
  double InsuranceSeconds(const SplitInput& input, double safety, absl::Duration now) const;
  // A base that goes deeper than it has to goes on only as far as it has come.
  void LowerWorkToBase();
  // Whether a client that begins a suffix at its last moments (LastMoments) would have said so by
  // now; if it has not, it waits for more to arrive.
  bool MustHaveBegun(const PrefillModel& prefill, absl::Duration now) const;
  // What a suffix order leaves to the client's own judgement, which sees the link sooner.
  std::vector<LastMoment> LastMoments(const PrefillModel& prefill) const;
  // The orders that follow from a division, see docs/streaming.md.
  void OrderFront(const SplitInput& input, const Split& split, absl::Duration now);
  void OrderSuffix(const SplitInput& input, const Split& split, absl::Duration now);

  absl::optional<SendPlan> TellNext();
  // Divides the open range anew. May give chunks to recompute.
  void Replan(absl::Duration now);
  void GiveToRecompute(uint32_t begin, uint32_t end, RecomputeReason reason, absl::Duration now);
  // Sets work_, or decides that a chunk is recomputed; false if there is nothing to do now.
  bool PickWork(absl::Duration now);
  // Whether the plan streams the frontier. Requires that not all is decided.
  bool StreamsFrontier() const {
    const uint32_t chunk = delivery_.frontier();
    return forward() ? chunk < boundary_ : chunk >= boundary_;
  }
  bool PickRefinement(absl::Duration now);
  // Raises the target as far as the link should carry it for all that can still be decoded.
  void DeepenRefinement(const PlannerView& view, double decoder_busy_s, absl::Duration now,
                        DeliveryState::Refinement* next) const;
  bool PickRace(absl::Duration now);
  bool Lost(uint32_t chunk) const {
    return delivery_.recompute(chunk) &&
           delivery_.decision(chunk).reason == RecomputeReason::kDataLoss;
  }
  // Whether the bytes of the chunk that the client is recomputing are expected before it is done.
  bool RaceIsWon(uint32_t chunk, absl::Duration now);
  // Plan or data of work_, or nothing while the window is full.
  absl::optional<LoadAction> Proceed(absl::Duration now);
  void FinishWork();
  // The chunk's bytes cannot be had.
  void LoseChunk(uint32_t chunk, const absl::Status& why, absl::Duration now);
  absl::Status CheckProgress(const ClientProgress& progress) const;
  absl::Status CheckOrderProgress(const OrderProgress& progress) const;
  // What the client has begun under orders is recomputed from now on.
  void TakeOrderProgress(const OrderProgress& progress, absl::Duration now);
  void PopArrived();
  absl::Status CheckTaken(const ClientProgress& progress) const;

  bool Done() const;
  Finish Summary() const;
  // When the client is given up.
  absl::Duration IdleAt() const;

  const LoadPolicy policy_;
  const RecomputeAbility ability_;
  const LoadSessionOptions options_;
  const ChunkTable chunks_;
  const absl::Duration created_;
  const absl::optional<absl::Duration> deadline_;
  const absl::Duration due_;  // the same, absolute; InfiniteDuration(): none
  const absl::Duration margin_;
  const int base_level_;
  const double decode_s_per_token_;
  const bool can_stop_;
  const double queue_s_;  // of the window
  const double startup_rate_;
  const double unknown_rtt_s_;  // taken until a round trip is seen

  BandwidthEstimator estimator_;
  CacheGenThroughput cachegen_;
  StandingOrders orders_;
  RecomputeLedger ledger_;
  DeliveryState delivery_;
  DecoderModel decoder_;
  LinkQueue queue_;

  absl::Status failure_;
  absl::optional<LoadTaken> taken_;
  absl::optional<Work> work_;
  std::deque<Telling> tellings_;
  std::deque<uint32_t> lowered_;  // chunks whose refinement was cut short, not yet told
  std::deque<InFlight> in_flight_;
  uint32_t boundary_;     // of the newest Split
  bool insured_ = false;  // the same
  // All chunks on the stream's side of it have arrived: before it (kForward), from it on
  // (kBackward).
  uint32_t arrived_;
  bool replan_ = true;
  bool race_failed_ = false;  // the bytes of the chunk cannot be had
  absl::optional<SendData> last_sent_;
  bool sent_refinement_ = false;  // the newest data
  bool refused_ = false;          // by the gate, in this Next()

  uint32_t chunks_ready_ = 0;
  absl::Duration reported_at_;  // newest report
  // Newest sign of life: a report with something new, or new work for an idle client.
  absl::Duration advanced_at_;
  // A chunk that the client may have counted as ready is to be recomputed: its chunks_ready is not
  // believed until it shows that it knows.
  bool doubt_ready_ = false;
  uint64_t doubt_tokens_ = 0;
  uint32_t doubt_up_to_ = 0;
};

}  // namespace kvstream

#endif  // KVSTREAM_SERVER_LOAD_ADAPTIVE_LOAD_SESSION_H_

// One adaptive load, without transport and without a clock of its own: what to send next, given
// what has happened.
#ifndef KVSTREAM_SERVER_LOAD_LOAD_SESSION_H_
#define KVSTREAM_SERVER_LOAD_LOAD_SESSION_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/optional.h"
#include "absl/types/span.h"
#include "absl/types/variant.h"
#include "server/load/send_gate.h"

namespace kvstream {

enum class LoadPolicy { kDeadline, kFastest, kCacheGen, kFixed, kRecompute };
enum class RecomputeAbility { kNone, kSuffix, kAny, kFront };
enum class RecomputeReason { kFaster, kDataLoss, kPolicy };

// A chunk as the store has it.
struct StoredChunkSizes {
  uint32_t tokens = 0;
  uint64_t first_token = 0;
  std::vector<uint64_t> segment_bytes;  // level 0 first; fewer than others where it lost levels
};
// Levels of the chunk that has most.
int LevelsOf(absl::Span<const StoredChunkSizes> chunks);

// The client's words, validated and with defaults applied. Units as in proto LoadStart.
struct LoadSpec {
  // Context order, at least one. A chunk that has fewer levels than others goes as deep as it can.
  std::vector<StoredChunkSizes> chunks;
  LoadPolicy policy = LoadPolicy::kFastest;
  absl::optional<absl::Duration> deadline;  // from the moment the session is created
  int level = 0;        // kFixed; a chunk that lacks it is sent at its own finest
  int floor_level = 0;  // every chunk has it
  // kFastest: chunks with at most this part of all tokens come one level below the floor, those
  // that are streamed first; 0 to 1. The floor is then a mean: see FloorBelowShare.
  double floor_below_share = 0;
  RecomputeAbility ability = RecomputeAbility::kNone;
  double prefill_seconds_per_token = 0;
  double prefill_seconds_per_token_pair = 0;
  double decode_seconds_per_token = 0;
  double bandwidth_hint_bytes_per_second = 0;  // 0: none
  double round_trip_hint_seconds = 0;          // the same
  bool recompute_can_stop = false;
  // Per chunk, how many levels the client holds already, decoded, from level 0 on; empty: nothing.
  // They are not sent, and the chunk counts as one whose base was. As proto LoadStart.held_levels.
  std::vector<uint8_t> held_levels;

  // INVALID_ARGUMENT naming the first field that is out of range: a number that is not finite or
  // negative, a level that no chunk has or a floor that one lacks, a chunk without tokens or
  // levels, a segment without bytes, a deadline that is not positive, a policy that lacks its
  // deadline or ability, chunks held below the base or in an order that no load leaves. What passes
  // cannot overflow the planner's sums. O(chunks * levels).
  absl::Status Validate() const;

  // No chunk comes below it.
  int lowest_level() const { return floor_level - (floor_below_share > 0 ? 1 : 0); }
};

// The largest floor_below_share with which the mean damage of a context (KL, or any other measure
// that is a mean over tokens) is at most `most`: `floor` is the damage of the floor level, `below`
// that of the level below. 0 to 1; 0 where the floor itself has more damage or nothing is gained.
double FloorBelowShare(double most, double floor, double below);

// What the client has begun under standing orders, as in proto OrderProgress: chunks [first,
// up_to), all done but for the newest, of which `newest` tells.
struct OrderProgress {
  enum class State { kBegun, kDone, kGivenUp };
  uint32_t first = 0;
  uint32_t up_to = 0;
  State newest = State::kBegun;
};

// The client takes the chunks as they are, as in proto LoadTaken.
struct LoadTaken {
  std::vector<uint32_t> chunks;
  bool late = false;
};

// What the client reports, as in proto LoadProgress.
struct ClientProgress {
  uint64_t bytes_received = 0;
  absl::Duration clock;  // client's, since it sent its request
  uint32_t chunks_ready = 0;
  uint32_t recomputed_up_to = 0;
  uint64_t recomputed_tokens = 0;
  absl::Duration recompute_time;
  std::vector<uint32_t> damaged_chunks;
  OrderProgress order;
  absl::optional<LoadTaken> taken;
};

// The decision about one chunk: a level, or recompute.
struct ChunkDecision {
  absl::optional<int> level;  // none: recompute
  RecomputeReason reason = RecomputeReason::kFaster;
};

struct SendPlan {
  uint32_t chunk = 0;
  ChunkDecision decision;
  bool first_plan_of_chunk = false;
};
// As in proto LastMoment.
struct LastMoment {
  absl::Duration done_by;  // client's clock
  double seconds_per_token = 0;
  double seconds_per_token_pair = 0;

  // When recompute of so many tokens that follow `before` others has to begin, client's clock.
  absl::Duration BeginBy(uint64_t tokens, uint64_t before) const {
    const double n = static_cast<double>(tokens);
    return done_by -
           absl::Seconds(n * seconds_per_token +
                         n * (static_cast<double>(before) + n / 2) * seconds_per_token_pair);
  }
};
// A standing order to recompute, as in proto RecomputeOrder.
struct SendOrder {
  uint32_t first = 0;
  uint32_t end = 0;
  absl::Duration anyway_at = absl::InfiniteDuration();  // client's clock
  std::vector<LastMoment> last_moments;                 // ascending; the last is only a limit
};
struct SendData {
  uint32_t chunk = 0;
  uint32_t level = 0;
  uint64_t offset = 0;
  uint64_t size = 0;
};
// Nothing may be sent before `until` (absolute, session time) or the next event, whichever is
// first. InfiniteDuration: only an event.
struct Wait {
  absl::Duration until;
};
// The load is over and the summary may be sent; Next() is not called again.
struct Finish {
  absl::Duration load_delay;
  std::vector<ChunkDecision> chunks;
  double bandwidth_estimate_bytes_per_second = 0;  // 0: no sample
  uint64_t bytes_sent = 0;
  bool deadline_missed = false;
};
// The load cannot go on (a damaged chunk that the client cannot recompute, a client that lies, an
// idle client past its limit).
struct Fail {
  absl::Status status;
};
using LoadAction = absl::variant<SendPlan, SendOrder, SendData, Wait, Finish, Fail>;

struct LoadSessionOptions {
  uint64_t frame_bytes = 256 << 10;       // largest SendData
  uint64_t window_bytes_min = 64 << 10;   // unacknowledged bytes allowed before any estimate
  uint64_t window_bytes_max = 128 << 20;  // and at most
  absl::Duration client_idle_limit =
      absl::Seconds(30);  // no progress for so long while some is owed: Fail(DEADLINE_EXCEEDED)
  // A client that recomputes is given this many times the expected duration of its work on top of
  // the limit, at most an hour.
  double recompute_patience = 3;
  // Link assumed before the first sample where there is no hint: a chunk is given to recompute that
  // early only if it would be ready sooner that way even on such a link.
  double startup_bytes_per_second = 125e6;
  // kDeadline: what is kept free before the deadline for reports and scheduling is this, plus 1 %
  // of the deadline, at most 10 % of it.
  absl::Duration deadline_margin = absl::Milliseconds(20);
  // kDeadline: quality gained by each level over the one below (index is the level), finite and not
  // negative; sets which levels are refined as one step. Empty: each level gains a ninth of the one
  // below, as any profile's steps have it.
  std::vector<double> level_weights;
  // Asked before anything is sent; null: the load is alone on its link. Borrowed; must outlive the
  // session.
  SendGate* gate = nullptr;

  // INVALID_ARGUMENT naming the option. level_weights must be empty or as many as LevelsOf the
  // load's chunks, which Create checks.
  absl::Status Validate() const;
};

// A load's state, for metrics and for drawing its story.
struct LoadSessionState {
  double bandwidth_bytes_per_second = 0;  // the estimate; 0: none
  // Nothing but lower bounds were measured, or nothing at all.
  bool bandwidth_is_lower_bound = true;
  double bandwidth_low_bytes_per_second = 0;  // what the deadline planner counts on
  double estimate_mean_square_log_error = 0;  // see BandwidthEstimator; 0: not yet measured
  absl::Duration rtt_min;
  uint64_t bytes_sent = 0;
  uint64_t bytes_acknowledged = 0;
  uint64_t window_bytes = 0;
  uint32_t chunks_ready = 0;
  uint32_t chunks_to_recompute = 0;
};

// What to expect of it (docs/streaming.md has the reasons):
//   cost     Next() and OnProgress() are O(1), amortised, but for the planning that follows a
//            report: O(log chunks), with ability SUFFIX O(undecided chunks).
//   memory   8 * (levels + 5) bytes a chunk, 4 * levels + 1 more where chunks have unequal levels,
//            and 16 a frame in flight; nothing else grows.
//   failure  Fail is final: Next() returns it again. OnProgress() with an error changes nothing
//            but makes Next() fail with it.
//
// Single-threaded: the caller serialises all calls. Times are absolute on one monotonic clock of
// the caller's choice, expressed as a Duration since an arbitrary origin, and never go back.
class LoadSession {
 public:
  static absl::StatusOr<std::unique_ptr<LoadSession>> Create(LoadSpec spec,
                                                             const LoadSessionOptions& options,
                                                             absl::Duration now);
  virtual ~LoadSession() = default;

  // What to do now. SendPlan, SendOrder and SendData count as done when returned. Call again until
  // it returns Wait, Finish or Fail. The window bounds what is in flight, so the caller needs no
  // queue beyond the transport's one message.
  virtual LoadAction Next(absl::Duration now) = 0;

  // The client's report. INVALID_ARGUMENT if it is impossible (more bytes than were sent, counters
  // that go back): the caller ends the load with it.
  virtual absl::Status OnProgress(const ClientProgress& progress, absl::Duration now) = 0;

  // The store could not read a segment that SendData asked for. Nothing of that SendData was sent.
  // To be called before the next Next(); reports may come in between.
  virtual void OnSegmentUnavailable(uint32_t chunk, uint32_t level, const absl::Status& why,
                                    absl::Duration now) = 0;

  // For metrics. 0: no sample yet.
  virtual double bandwidth_estimate_bytes_per_second() const = 0;
  virtual LoadSessionState state(absl::Duration now) const { return {}; }
};

}  // namespace kvstream

#endif  // KVSTREAM_SERVER_LOAD_LOAD_SESSION_H_

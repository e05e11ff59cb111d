// The state of one load on the client: what the server has planned and sent, and what is decoded or
// recomputed.
#ifndef KVSTREAM_CLIENT_LOAD_ASSEMBLER_H_
#define KVSTREAM_CLIENT_LOAD_ASSEMBLER_H_

#include <cstdint>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "absl/types/optional.h"
#include "client/client.h"
#include "client/held_chunk.h"
#include "client/segment_frame.h"
#include "kvstream/v1/kvstream.pb.h"

namespace kvstream {

// What a load is about; all of it is the caller's own word, none the server's.
struct LoadShape {
  std::vector<ChunkId> chunk_ids;  // in context order, at least one
  int64_t tokens = 0;              // of these chunks; the last one holds the rest
  int64_t first_token = 0;         // of the first chunk: where the context's other part ends
  int chunk_tokens = 0;
  int levels = 0;                // of the profile
  int64_t values_per_token = 0;  // of the geometry
  int floor_level = 0;
  double floor_below_share = 0;     // see LoadOptions
  absl::optional<int> fixed_level;  // a chunk that lacks it comes at its own finest
  ClientRecomputeAbility ability = ClientRecomputeAbility::kNone;
  // Neighbours that are recomputed in one call of the callback, where the server has planned them
  // all.
  uint32_t recompute_run_chunks_max = 1;
};

// One chunk to decode now, at `level`, from borrowed segments 0..level. They stay valid until
// OnDecoded.
struct DecodeJob {
  uint32_t chunk = 0;
  int level = 0;
  int first_unchecked_level = 0;  // segments below it have been decoded before
  int64_t first_token = 0;
  int64_t tokens = 0;
  std::vector<absl::string_view> segments;
};

// Chunks to recompute now, in one call.
struct RecomputeJob {
  uint32_t first_chunk = 0;
  uint32_t chunks = 0;
  int64_t first_token = 0;
  int64_t tokens = 0;
};

// Takes the server's messages in the order of their arrival and the outcomes of local work, holds
// the received bytes, and says what to decode and what to recompute next. No transport, threads or
// clock; not thread-safe.
//
// Rules of what it hands out:
// - A chunk is decoded when all segments up to its planned level are there, for the first time when
//   those of its first plan are: chunks never decoded before go before refined ones, lower
//   positions first. One decode a chunk at a time.
// - Chunks planned as recompute, and those that a RecomputeOrder covers and that have not arrived,
//   are recomputed in context order, once every chunk before them is in place; neighbours of which
//   that is true at that moment go into one call, up to the shape's limit.
// - A chunk that arrives while it is being recomputed under an order supersedes that: the recompute
//   may be given up (OnRecomputed with CANCELLED), else its bytes are dropped.
// - While a recompute runs, no chunk before or in it is decoded: the callback reads their KV.
//
// Every field of a message is checked before use; the first message that breaks the protocol gives
// INTERNAL, naming the field, and ends the load. Memory: the segments announced for the planned
// levels, allocated when their first byte comes, each at most SegmentBytesMax(); freed when a chunk
// stands at the finest level or is recomputed.
class LoadAssembler {
 public:
  // held: what is in place since before the load, per chunk, or empty; as proto
  // LoadStart.held_levels is to say it. The load then begins with the server's word that it counts:
  // without that, or where a plan shows that the stored chunk is another one than what is held,
  // messages give FAILED_PRECONDITION and held_refused().
  explicit LoadAssembler(LoadShape shape, std::vector<HeldChunk> held = {});
  LoadAssembler(const LoadAssembler&) = delete;

  // Largest segment that is believed of a chunk of that many tokens: twice its uncompressed KV, and
  // headers.
  int64_t SegmentBytesMax(int64_t tokens) const;

  // From the server. INTERNAL: protocol violation. RESOURCE_EXHAUSTED: no memory for a segment.
  absl::Status OnData(const SegmentFrame& frame);
  absl::Status OnMessage(const v1::LoadResponse& message);

  // Local work. Next...() hand out a job that is then under way until it is reported done. Errors:
  // those of the work that end the load. Damage (DATA_LOSS from decoding) does not: the next
  // progress message reports it, and the server decides.
  // may_refine: whether chunks may be handed out that are decoded at some level already.
  absl::optional<DecodeJob> NextDecode(bool may_refine = true);
  absl::Status OnDecoded(uint32_t chunk, int level, const absl::Status& status);
  // clock: since the start was sent.
  absl::optional<RecomputeJob> NextRecompute(absl::Duration clock = absl::ZeroDuration());
  // The chunk under recompute has arrived, so CANCELLED would be a good answer.
  bool recompute_superseded() const;
  // The clock, after `clock`, at which NextRecompute should be asked again without an event;
  // infinite: never.
  absl::Duration recompute_at(absl::Duration clock) const;
  absl::Status OnRecomputed(const RecomputeJob& job, const absl::Status& status,
                            absl::Duration took);

  // Fills all fields but clock_ns. Damage is put into exactly one message, so every message made
  // must be sent.
  void TakeProgress(v1::LoadProgress* progress);

  // Every chunk is decoded at some level or recomputed, and nothing is under way.
  bool all_in_place() const { return not_in_place_.empty() && !working(); }
  // What the caller takes. Precondition: all_in_place().
  void Take(bool late, v1::LoadTaken* taken) const;

  bool damage_unreported() const { return !unreported_damage_.empty(); }
  bool working() const { return decodes_under_way_ > 0 || recompute_under_way_; }
  uint32_t chunks() const { return static_cast<uint32_t>(states_.size()); }
  uint32_t chunks_ready() const { return chunks_ready_; }
  uint64_t bytes_received() const { return bytes_received_; }
  bool has_summary() const { return has_summary_; }
  // The load is over: the summary has come, all chunks are ready and no work is under way.
  bool finished() const { return has_summary_ && chunks_ready_ == chunks() && !working(); }

  // Why a stream that the server ended with OK is not a finished load: DATA_LOSS for the first
  // damaged chunk, else INTERNAL for the first chunk that is missing. OK if finished().
  // Precondition: no work is under way and none is to be had.
  absl::Status Verdict() const;
  // The first damage with its chunk's id, if there was any: more telling than the server's
  // DATA_LOSS.
  const absl::Status& first_damage() const { return first_damage_; }

  // Precondition: has_summary().
  double bandwidth_estimate_bytes_per_second() const { return bandwidth_estimate_; }
  std::vector<LoadedChunk> Result() const;
  // Of a load that has failed and whose local work is over: the chunks that are in place, none
  // where one is not or is coarser than the floor or the fixed level.
  std::vector<absl::optional<LoadedChunk>> Kept() const;
  // The same with their bytes, which leave the assembler; nothing of chunks that were recomputed.
  std::vector<HeldChunk> TakeHeld();
  // What was held stands as it did, or finer; a load without it may go well.
  bool held_refused() const { return held_refused_; }
  // Of what was held when the load began.
  void SayHeld(v1::LoadStart* start) const;
  uint64_t recomputed_tokens() const { return recomputed_tokens_; }
  absl::Duration recompute_time() const { return recompute_time_; }

 private:
  struct ChunkState {
    int planned_level = -1;  // none yet
    int first_level = -1;    // of the first plan: what the chunk needs to have arrived
    bool recompute_planned = false;
    bool suffix = false;  // behind the cut of an order that was begun: to be recomputed
    bool decoding = false;
    bool recomputing = false;
    bool recomputed = false;
    bool damaged = false;
    bool ready = false;
    bool held = false;        // since before the load, and no plan since
    int stored_levels = 0;    // at the server; of a chunk that is held, at the one before
    int complete_levels = 0;  // segments received whole
    int decoded_level = -1;
    uint64_t filled = 0;  // bytes of segment complete_levels
    uint64_t received = 0;
    std::vector<uint64_t> segment_bytes;            // empty before the first plan with a level
    std::vector<std::unique_ptr<char[]>> segments;  // those begun
  };

  void Hold(uint32_t chunk, HeldChunk held);
  absl::Status RefuseHeld(absl::string_view why);
  // Whether the chunk is good enough to go on with elsewhere.
  bool Keeps(const ChunkState& state) const;
  absl::Status OnPlan(const v1::ChunkPlan& plan);
  absl::Status OnDataMessage(const v1::SegmentData& data);
  absl::Status OnPlanWithData(const v1::ChunkPlan& plan, uint32_t chunk);
  absl::Status OnOrder(const v1::RecomputeOrder& order);
  absl::Status OnSummary(const v1::LoadSummary& summary);
  // A later plan takes a refinement back.
  absl::Status LowerPlan(uint32_t chunk, int level);
  bool Arrived(const ChunkState& state) const {
    return !state.damaged && state.first_level >= 0 && state.complete_levels > state.first_level;
  }
  // Whether an order makes the client begin with this chunk, all before it being in place.
  bool Ordered(uint32_t chunk, absl::Duration clock) const;
  bool InOrder(uint32_t chunk, absl::Duration clock) const;
  void BeginOrdered(uint32_t begin, uint32_t end);
  absl::Status TakeLastMoments(const v1::RecomputeOrder& order);
  // Before it the next chunk may still come as the one before did.
  absl::Duration PatientUntil() const { return front_since_ + 2 * front_took_; }
  // The clock of the order's i-th last moment, with `chunk` to begin at.
  absl::Duration LastMomentOf(int i, uint32_t chunk) const;
  // Whether the order's last moments make the client begin with the first chunk not in place.
  bool LastMomentIsNow(uint32_t chunk, absl::Duration clock) const;
  // shape_.fixed_level, or the chunk's finest where it lost that; 0 where none is asked for.
  int FixedLevelOf(const ChunkState& state) const;
  absl::Status CheckSizes(uint32_t chunk, const v1::ChunkPlan& plan);
  absl::Status Violation(absl::string_view what) const;
  absl::Status ChunkViolation(uint32_t chunk, absl::string_view what) const;
  // Adjusts the sets and counters below after a change to a chunk. O(log chunks).
  void Update(uint32_t chunk);
  int64_t TokensOf(uint32_t chunk) const;

  const LoadShape shape_;
  std::vector<ChunkState> states_;
  std::set<uint32_t> to_decode_;     // complete to the planned level, never decoded
  std::set<uint32_t> to_refine_;     // the same, decoded at a lower level
  std::set<uint32_t> to_recompute_;  // planned, not begun
  std::set<uint32_t>
      not_in_place_;  // not readable: neither decoded at some level and at rest, nor recomputed
  uint32_t decodes_under_way_ = 0;
  bool recompute_under_way_ = false;
  uint32_t undecodable_below_ = 0;  // while a recompute runs: the end of its chunks
  // The standing order, and what was begun under any.
  uint32_t order_first_ = 0;
  uint32_t order_end_ = 0;
  absl::Duration anyway_at_ = absl::InfiniteDuration();
  std::vector<v1::LastMoment> last_moments_;
  uint32_t front_ = 0;          // the first chunk not in place, when NextRecompute was asked
  absl::Duration front_since_;  // when it was asked first while that was so
  absl::Duration front_took_;   // the chunk before, the same way
  v1::OrderProgress ordered_;
  RecomputeJob recompute_job_;
  uint32_t chunks_ready_ = 0;
  uint32_t recomputed_up_to_ = 0;
  uint64_t recomputed_tokens_ = 0;
  absl::Duration recompute_time_;
  uint64_t bytes_received_ = 0;
  std::vector<uint32_t> unreported_damage_;
  absl::Status first_damage_;
  bool begun_owed_ = false;  // the server has yet to say that it counts what is held
  bool held_refused_ = false;
  bool has_summary_ = false;
  double bandwidth_estimate_ = 0;
};

}  // namespace kvstream

#endif  // KVSTREAM_CLIENT_LOAD_ASSEMBLER_H_

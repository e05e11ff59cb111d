// The modelled client of the link simulator.
#ifndef KVSTREAM_SERVER_LOAD_TESTING_SIMULATED_CLIENT_H_
#define KVSTREAM_SERVER_LOAD_TESTING_SIMULATED_CLIENT_H_

#include <cstdint>
#include <deque>
#include <vector>

#include "absl/time/time.h"
#include "absl/types/optional.h"
#include "server/load/load_session.h"
#include "server/load/testing/link_simulator.h"

namespace kvstream {

// Decodes a chunk when the level that its plan names has arrived, one chunk at a time; recomputes
// what plans and orders say, in context order, one chunk at a time, a chunk whose predecessors are
// in place, and decodes none of those meanwhile. Moves only when it is told the time: next_at()
// says when it wants to be.
class ModelClient {
 public:
  // clock_zero: when the client's clock shows 0.
  ModelClient(const LoadSpec& spec, const SimulatedClient& model, absl::Duration clock_zero);

  void OnPlan(const SendPlan& plan, absl::Duration now);
  void OnOrder(const SendOrder& order, absl::Duration now);
  void OnData(const SendData& data, absl::Duration now);
  // Finishes the work that ends at `now` and starts the next.
  void Advance(absl::Duration now);
  // When the current decode or recompute ends; InfiniteDuration if there is none.
  absl::Duration next_at() const;

  // Its deadline, on the clock of `now`: no refinement is decoded that would end after it.
  void set_deadline(absl::Duration at) { deadline_ = at; }
  // What it has of every chunk. Requires all_in_place().
  LoadTaken Take(bool late);

  // Every chunk was decoded at some level or recomputed.
  bool all_in_place() const;
  // Of what was decoded; recomputed chunks count as the finest, those not in place as 0.
  double mean_level() const;
  uint64_t received_bytes() const { return progress_.bytes_received; }
  // Of chunks that are not recomputed. O(chunks).
  uint64_t decoded_bytes() const;
  uint32_t recomputed() const;
  bool all_ready() const { return ready_ == chunks_.size(); }
  // Something to report since the last TakeProgress.
  bool dirty() const { return dirty_; }
  ClientProgress TakeProgress();
  uint32_t received_in_vain() const { return received_in_vain_; }

 private:
  struct Chunk {
    int plan_level = -1;
    bool recompute = false;
    bool recomputed = false;
    bool arrived = false;  // at an earlier plan's level
    int received = 0;      // segments whole
    int decoded = 0;       // segments decoded
    bool queued = false;
    bool ready = false;
    bool damaged = false;
  };
  bool Arrived(const Chunk& chunk) const {
    return chunk.plan_level >= 0 && chunk.received > chunk.plan_level;
  }
  // Whether an order makes the client begin with this chunk, the first that is not in place.
  bool Ordered(uint32_t chunk, absl::Duration now) const;
  // When the order's i-th last moment is with this chunk to begin at; not after the limit.
  absl::Duration LastMomentOf(size_t i, uint32_t chunk) const;
  // Before it the next chunk may still come as the one before did.
  absl::Duration PatientUntil() const { return in_place_at_ + 2 * in_place_took_; }
  // Whether it has come.
  bool LastMomentIsNow(uint32_t chunk, absl::Duration now) const;
  // Takes note that the chunk, which is to be recomputed, is begun.
  void Begin(uint32_t chunk);
  void Refresh(Chunk& chunk);
  bool InPlace(const Chunk& chunk) const { return chunk.recomputed || chunk.decoded > 0; }
  double PrefillSeconds(uint32_t chunk) const;
  absl::Duration DecodeTime(uint32_t chunk) const;

  const LoadSpec& spec_;
  const SimulatedClient& model_;
  const absl::Duration clock_zero_;
  SendOrder order_;
  absl::Duration advanced_to_;
  absl::Duration deadline_ = absl::InfiniteDuration();
  std::vector<Chunk> chunks_;
  std::deque<uint32_t> decode_queue_;
  absl::optional<uint32_t> decoding_, recomputing_;
  int decoding_to_ = 0;
  absl::Duration decode_ends_, recompute_ends_;
  uint32_t in_place_ = 0;         // all chunks before it are in place
  absl::Duration in_place_at_;    // since when
  absl::Duration in_place_took_;  // the chunk before
  uint32_t ready_ = 0;
  uint32_t received_in_vain_ = 0;
  ClientProgress progress_;
  bool dirty_ = false;
};

}  // namespace kvstream

#endif  // KVSTREAM_SERVER_LOAD_TESTING_SIMULATED_CLIENT_H_

// What was given to the client to recompute, and how far it is by its own word.
#ifndef KVSTREAM_SERVER_LOAD_RECOMPUTE_LEDGER_H_
#define KVSTREAM_SERVER_LOAD_RECOMPUTE_LEDGER_H_

#include <algorithm>
#include <cstdint>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "server/load/chunk_table.h"
#include "server/load/prefill_model.h"

namespace kvstream {

// Owns the load's prefill model and teaches it. The client works on one chunk at a time, in context
// order, and can only work where all before it is in place: of what it was given, the chunks before
// `front_end` (size() where that is everything). If front_end is less, all chunks before it were
// given. Thread-compatible; calls are O(1) or O(log chunks).
class RecomputeLedger {
 public:
  // `chunks` is borrowed and must outlive the ledger.
  RecomputeLedger(const ChunkTable* chunks, PrefillModel declared);

  // The client was told to recompute this chunk. client_idle: it has nothing else to do until then;
  // `arrives` is when it knows, and has what comes before.
  void OnGiven(uint32_t chunk, bool client_idle, absl::Duration arrives);
  // The client has stopped at this chunk, which was given.
  void OnGivenUp(uint32_t chunk);
  // Everything that was sent has arrived by then. Changes nothing unless awaits_arrival().
  void OnArrivalBy(absl::Duration arrives) { busy_since_ = std::min(busy_since_, arrives); }

  // The client is taken to begin later than now, since what it needs is under way.
  bool awaits_arrival(absl::Duration now) const { return busy_since_ > now; }

  // Cumulative counters as in ClientProgress. INVALID_ARGUMENT, with nothing changed, if one goes
  // back or is more than there is. *advanced: whether the client did something since its last
  // report.
  absl::Status OnReport(uint32_t recomputed_up_to, uint64_t recomputed_tokens,
                        absl::Duration recompute_time, absl::Duration now, bool* advanced);

  const PrefillModel& model() const { return model_; }

  // The model for planning at `now`. A chunk that takes longer than it should makes the model
  // slower by as much, before any report says so; grace is what a report may need to get here.
  PrefillModel model_now(uint32_t front_end, absl::Duration grace, absl::Duration now) const;

  // Seconds until the client is through with the front, given that it has been on the current chunk
  // since the last report.
  double backlog_s(uint32_t front_end, const PrefillModel& model, absl::Duration now) const;

  // Seconds that all outstanding work should take; with no idea of the client's speed 20 ms a
  // token.
  double outstanding_s() const;

  bool idle() const { return done_tokens() >= given_tokens_; }
  uint64_t reported_tokens() const { return reported_tokens_; }
  uint32_t recomputed_up_to() const { return recomputed_up_to_; }

 private:
  struct Work {
    uint64_t tokens = 0;
    double pairs = 0;
  };
  uint64_t done_tokens() const;
  // What is given, can be worked on and is not done.
  Work remaining(uint32_t front_end) const;
  // The model's cost of a chunk of average size of that.
  double current_chunk_s(const Work& remaining, const PrefillModel& model) const;

  const ChunkTable* const chunks_;
  PrefillModel model_;
  uint32_t first_chunk_;  // lowest given; size() if none
  uint64_t given_chunks_ = 0;
  uint64_t given_tokens_ = 0;
  double given_pairs_ = 0;
  uint32_t recomputed_up_to_ = 0;
  uint64_t reported_tokens_ = 0;
  absl::Duration reported_time_;
  absl::Duration busy_since_;
};

}  // namespace kvstream

#endif  // KVSTREAM_SERVER_LOAD_RECOMPUTE_LEDGER_H_

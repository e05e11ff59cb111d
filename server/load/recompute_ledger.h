// What was given to the client to recompute, and how far it is by its own word.
#ifndef KVSTREAM_SERVER_LOAD_RECOMPUTE_LEDGER_H_
#define KVSTREAM_SERVER_LOAD_RECOMPUTE_LEDGER_H_

#include <cstdint>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "server/load/chunk_table.h"
#include "server/load/prefill_model.h"

namespace kvstream {

// Owns the load's prefill model and teaches it. The client works on one chunk at a time, in context
// order. Thread-compatible; O(1) calls, but OnReport O(log chunks).
class RecomputeLedger {
 public:
  // `chunks` is borrowed and must outlive the ledger.
  RecomputeLedger(const ChunkTable* chunks, PrefillModel declared);

  // The client was told to recompute this chunk.
  void OnGiven(uint32_t chunk, absl::Duration now);

  // Cumulative counters as in ClientProgress. INVALID_ARGUMENT, with nothing changed, if one goes
  // back or is more than there is. *advanced: whether the client did something since its last
  // report.
  absl::Status OnReport(uint32_t recomputed_up_to, uint64_t recomputed_tokens,
                        absl::Duration recompute_time, absl::Duration now, bool* advanced);

  const PrefillModel& model() const { return model_; }

  // The model for planning at `now`. A chunk that takes longer than it should makes the model
  // slower by as much, before any report says so; grace is what a report may need to get here.
  PrefillModel model_now(absl::Duration now, absl::Duration grace) const;

  // Seconds of work that the client still has, given that it has been on the current chunk since
  // the last report.
  double backlog_s(absl::Duration now, const PrefillModel& model) const;

  // Seconds that all outstanding work should take; with no idea of the client's speed 20 ms a
  // token.
  double outstanding_s() const;

  bool idle() const { return done_tokens() >= given_tokens_; }
  uint64_t reported_tokens() const { return reported_tokens_; }
  uint32_t recomputed_up_to() const { return recomputed_up_to_; }

 private:
  uint64_t done_tokens() const;
  // The model's cost of all that is given and not done.
  double remaining_s(const PrefillModel& model) const;
  // ... of a chunk of average size of those that are left.
  double current_chunk_s(const PrefillModel& model) const;

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

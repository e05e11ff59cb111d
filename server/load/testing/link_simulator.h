// A load under a virtual clock: the real session, a modelled link and a modelled client.
#ifndef KVSTREAM_SERVER_LOAD_TESTING_LINK_SIMULATOR_H_
#define KVSTREAM_SERVER_LOAD_TESTING_LINK_SIMULATOR_H_

#include <cstdint>
#include <functional>
#include <set>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "server/load/load_session.h"

namespace kvstream {

// From `at` (since the load began) on the link carries so many bytes a second; 0 is a stall.
struct RateStep {
  absl::Duration at;
  double bytes_per_second = 0;
};

struct SimulatedLink {
  std::vector<RateStep> trace;  // ascending, the first at 0; the last holds for ever
  absl::Duration one_way;       // delay in each direction; reports take no bandwidth
  // If set, used instead of the trace: when the last of so many bytes, which begin at a moment
  // since the load began, have left the link. InfiniteDuration(): never.
  std::function<absl::Duration(absl::Duration from, double bytes)> carry;
  // The load passes a scheduler of shared links (LinkGroups) as in the server, alone on its link.
  // Its frames are then 4 ms of the link at most, so the simulation takes several times as long.
  bool gated = false;
};

struct SimulatedClient {
  // What recompute and decoding really cost; the spec says what the client declares.
  double prefill_seconds_per_token = 0;
  double prefill_seconds_per_token_pair = 0;
  double decode_seconds_per_token = 0;
  bool report_every_frame = true;
  absl::Duration report_period = absl::Milliseconds(20);
  std::set<uint32_t> damaged;  // chunks whose first segment arrives damaged
  absl::Duration vanishes_at = absl::InfiniteDuration();  // no report after that
};

struct SimulatedStore {
  std::set<std::pair<uint32_t, uint32_t>> unreadable;  // (chunk, level)
};

struct SimulationResult {
  // OK; the session's failure; or INTERNAL if the session broke an invariant, see Simulate.
  absl::Status status;
  Finish finish;                   // if OK
  absl::Duration client_ready_at;  // since the session began, when the client had every chunk
  // The client at the moment whose report reaches the session at the deadline: whether every chunk
  // was in place, decoded at some level or recomputed; and their mean level, 0 for a chunk that was
  // not. Without a deadline, or if the load ended before: as at the end.
  bool usable_at_deadline = false;
  double mean_level_at_deadline = 0;
  // At the same moment: bytes that the client had received, those of them that were decoded and
  // belong to chunks that it did not recompute, and chunks that it had recomputed.
  uint64_t received_at_deadline = 0;
  uint64_t decoded_at_deadline = 0;
  uint32_t recomputed_at_deadline = 0;
  uint64_t frames = 0;
  uint64_t orders = 0;
  uint64_t bytes = 0;
  uint64_t max_in_flight = 0;
  uint32_t recomputed = 0;        // chunks
  uint32_t received_in_vain = 0;  // chunks recomputed although a segment of them had arrived whole
  double mean_level = 0;          // recompute counts as the finest
  int min_level = 0;
  struct Sample {
    absl::Duration at;
    LoadSessionState state;
  };
  std::vector<Sample> samples;  // one a report, if asked for
};

// Runs one load to its end. Deterministic. Costs less than a microsecond an event beside the
// session's own work; there are two events a frame. Checks at every step what LoadSession and the
// proto promise: a plan before its data, levels and offsets in order without gaps, no foreign data
// inside a segment, nothing for a chunk that was told to be recomputed, no recompute for the sake
// of speed of a chunk that was sent whole, levels that only rise, in flight at most the window, no
// wait for a moment that is over, an end.
SimulationResult Simulate(const LoadSpec& spec, const LoadSessionOptions& options,
                          const SimulatedLink& link, const SimulatedClient& client,
                          const SimulatedStore& store = {}, bool keep_samples = false);

}  // namespace kvstream

#endif  // KVSTREAM_SERVER_LOAD_TESTING_LINK_SIMULATOR_H_

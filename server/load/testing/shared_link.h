// Several loads on one link under a virtual clock: the real sessions, with or without the real
// scheduler between them.
#ifndef KVSTREAM_SERVER_LOAD_TESTING_SHARED_LINK_H_
#define KVSTREAM_SERVER_LOAD_TESTING_SHARED_LINK_H_

#include <cstdint>
#include <functional>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "server/load/load_session.h"
#include "server/load/testing/link_simulator.h"

namespace kvstream {

struct SharedLoad {
  absl::Duration at;  // when it begins
  LoadSpec spec;
  SimulatedClient client;
};

// How the link serves what waits before it.
enum class SharedQueueing {
  kInTurn,          // 16 KiB of each load that has something: connections that share fairly
  kFirstComeFirst,  // one queue without a limit
};

struct SharedLink {
  // When the last of so many bytes that begin at `from` have left the link; `from` counts from the
  // beginning of the simulation.
  std::function<absl::Duration(absl::Duration from, double bytes)> carry;
  absl::Duration one_way;
  SharedQueueing queueing = SharedQueueing::kInTurn;
  // The loads are members of one link of LinkGroups; else each is on its own.
  bool scheduled = true;
  // A LinkRecord tells a load what earlier ones saw, as in the server.
  bool recorded = true;
  double egress_bytes_per_second = 0;  // of LinkGroups
  // What a load's connection takes before the link, in kernel and gRPC; with more in it the session
  // is not asked for the next message.
  double transport_bytes = 4 << 20;
  LoadSessionOptions session;
  // Optional: bytes that this load has acknowledged so far.
  std::function<void(absl::Duration at, size_t load, uint64_t acknowledged)> on_report;
};

struct SharedLoadResult {
  absl::Status status;  // OK; the session's failure; INTERNAL for a broken promise
  Finish finish;
  absl::Duration ended_at;
  // As SimulationResult.
  bool usable_at_deadline = false;
  double mean_level_at_deadline = 0;
  double mean_level = 0;
  uint64_t bytes = 0;
};

struct SharedLinkResult {
  std::vector<SharedLoadResult> loads;  // as given
  uint64_t max_in_flight = 0;           // of all together
  uint64_t max_waiting = 0;             // bytes before the link
  absl::Duration busy;                  // of the link
  uint64_t events = 0;
};

// Runs all loads to their end. Deterministic. What Simulate() checks of a session is checked here
// of each.
SharedLinkResult SimulateShared(const std::vector<SharedLoad>& loads, const SharedLink& link);

}  // namespace kvstream

#endif  // KVSTREAM_SERVER_LOAD_TESTING_SHARED_LINK_H_

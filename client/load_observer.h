// What one load does while it runs, for whoever wants to record it.
#ifndef KVSTREAM_CLIENT_LOAD_OBSERVER_H_
#define KVSTREAM_CLIENT_LOAD_OBSERVER_H_

#include <cstdint>

#include "absl/time/time.h"
#include "absl/types/span.h"

namespace kvstream {

// One thing that happened. Fields that a kind does not name keep their defaults.
struct LoadEvent {
  enum class Kind {
    kStarted,         // the request was handed to the transport; decode_seconds_per_token
    kPlan,            // a plan came: chunk, level (-1: recompute)
    kData,            // payload came: chunk, level, offset, bytes
    kDecodeBegin,     // chunk, level
    kDecodeEnd,       // chunk, level, ok
    kRecomputeBegin,  // chunk (the first), chunks
    kRecomputeEnd,    // the same, ok
    kProgress,        // a report was handed to the transport: bytes (all so far), chunks (ready)
    kSummary,         // the server's last message came
  };
  Kind kind = Kind::kStarted;
  absl::Duration at;  // since the call of Load; never goes back
  uint32_t chunk = 0;
  uint32_t chunks = 0;
  int level = -1;
  uint64_t offset = 0;
  uint64_t bytes = 0;
  bool ok = true;
  double decode_seconds_per_token = 0;  // 0: unknown
};

// What the server knew of the load at one moment, as in proto LoadStorySample.
struct ServerSample {
  absl::Duration at;                     // since the server's receipt of the request
  double estimate_bytes_per_second = 0;  // 0: none yet
  double promised_bytes_per_second = 0;  // what plans under a deadline counted on
  bool lower_bound = false;              // the link itself had not been seen at its limit
  uint64_t window_bytes = 0;
  uint64_t bytes_sent = 0;
  uint64_t bytes_acknowledged = 0;
};

// Called on the thread that called Load, with no lock held; must not call the client. Every begin
// of a load that ends has its end, unless the load fails.
class LoadObserver {
 public:
  virtual ~LoadObserver() = default;
  virtual void OnEvent(const LoadEvent& event) = 0;
  // Once, just before kSummary, from servers that tell: at most kStorySamplesMax, in order of time,
  // all numbers finite. Borrowed for the call.
  virtual void OnServerSamples(absl::Span<const ServerSample> samples) = 0;
};

// How many samples a client with an observer asks for.
inline constexpr uint32_t kStorySamplesMax = 512;

}  // namespace kvstream

#endif  // KVSTREAM_CLIENT_LOAD_OBSERVER_H_

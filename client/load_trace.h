// The story of one load as its client saw it: recorded here, written by load_trace_json.h,
// explained by load_story.h.
#ifndef KVSTREAM_CLIENT_LOAD_TRACE_H_
#define KVSTREAM_CLIENT_LOAD_TRACE_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/optional.h"
#include "client/client.h"
#include "client/load_observer.h"

namespace kvstream {

// A value. Times are milliseconds since the call of Load unless they say otherwise.
struct LoadTrace {
  static constexpr uint32_t kChunksMax = 65536;
  static constexpr size_t kEventsMax = 16384;
  static constexpr size_t kBinsMax = 512;
  static constexpr size_t kProgressMax = 512;

  struct Request {
    std::string policy;      // "deadline", "fastest", "cachegen", "fixed", "recompute"
    std::string ability;     // "none", "suffix", "any", "front"
    double deadline_ms = 0;  // 0: none
    uint64_t tokens = 0;
    uint32_t chunk_tokens = 0;
    uint32_t chunks = 0;
    int levels = 0;
    int floor_level = 0;
    uint64_t values_per_token = 0;
    double prefill_seconds_per_token = 0;
    double prefill_seconds_per_token_pair = 0;
    double decode_seconds_per_token = 0;  // as told to the server; 0: unknown
    double bandwidth_hint_bytes_per_second = 0;
  };

  enum class Kind { kPlan, kSegment, kDecode, kRecompute };
  struct Event {
    Kind kind = Kind::kPlan;
    double begin_ms = 0;  // of a segment: its first bytes; of a plan: its arrival
    double end_ms = 0;    // not before begin_ms; of a segment: its last bytes
    uint32_t chunk = 0;
    uint32_t chunks = 1;  // more than one only in kRecompute
    int level = -1;       // kPlan: -1 is recompute; kRecompute: -1
    uint64_t bytes = 0;   // kSegment
  };

  struct Progress {
    double at_ms = 0;
    uint64_t bytes = 0;  // received so far
    uint32_t chunks_ready = 0;
  };

  Request request;
  double sent_ms = 0;  // when the request was handed to the transport: connecting is before it

  // In order of begin_ms. Where there were more than kEventsMax, every one_in-th of them was kept,
  // in the order in which they ended.
  std::vector<Event> events;
  uint64_t events_seen = 0;
  uint32_t one_in = 1;

  // Payload bytes that arrived in each bin of bin_ms, from 0 on: exact whatever was thinned.
  double bin_ms = 1;
  std::vector<uint64_t> arrivals;  // at most kBinsMax
  double first_byte_ms = -1;       // -1: none came
  double last_byte_ms = -1;

  // Reports to the server, thinned to kProgressMax.
  std::vector<Progress> progress;
  uint64_t progress_sent = 0;

  // The server's own view, its times since its receipt of the request (which is sent_ms and half a
  // round trip later); empty if it does not tell.
  std::vector<ServerSample> server;

  // How it ended.
  bool ok = false;
  std::string error;       // of a load that failed
  double delay_ms = 0;     // load delay; of a failed load: until the failure
  double summary_ms = -1;  // when the summary came; -1: it did not
  uint64_t bytes = 0;
  double estimate_bytes_per_second = 0;  // the server's last
  bool deadline_missed = false;
  std::vector<int> levels;  // per chunk, in context order; -1: recomputed. Empty if it failed
};

// "deadline" and so on.
std::string PolicyName(ClientPolicy policy, bool has_deadline);
std::string AbilityName(ClientRecomputeAbility ability);

// What is asked for, from the arguments of Client::Load.
LoadTrace::Request TracedRequest(const Profile& profile, size_t tokens, const LoadOptions& options);

// Records one load. Memory: one open segment, decode and recompute a chunk (48 bytes) and the
// limits above. O(1) an event, amortised.
class LoadTraceRecorder final : public LoadObserver {
 public:
  // request.chunks: 1 to kChunksMax; decode_seconds_per_token is filled in from the load.
  explicit LoadTraceRecorder(LoadTrace::Request request);

  void OnEvent(const LoadEvent& event) override;
  void OnServerSamples(absl::Span<const ServerSample> samples) override;

  // Call once, after the load. `delay`: until now, for a load that failed.
  LoadTrace Finish(const absl::StatusOr<LoadResult>& result, absl::Duration delay) &&;

 private:
  struct Open {
    double segment_begin_ms = -1;  // -1: no segment has begun
    double segment_end_ms = 0;
    uint64_t segment_bytes = 0;
    int segment_level = 0;
    double decode_begin_ms = -1;
    double recompute_begin_ms = -1;
  };

  void Keep(const LoadTrace::Event& event);
  void CloseSegment(uint32_t chunk);
  void Arrive(double at_ms, uint64_t bytes);
  void KeepProgress(const LoadTrace::Progress& progress);

  LoadTrace trace_;
  std::vector<Open> open_;
  uint64_t progress_one_in_ = 1;
};

}  // namespace kvstream

#endif  // KVSTREAM_CLIENT_LOAD_TRACE_H_

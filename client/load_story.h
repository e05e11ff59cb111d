// What a load's trace means: what its delay was spent on, in figures and in plain words.
#ifndef KVSTREAM_CLIENT_LOAD_STORY_H_
#define KVSTREAM_CLIENT_LOAD_STORY_H_

#include <array>
#include <cstddef>
#include <string>
#include <vector>

#include "absl/types/optional.h"
#include "client/load_trace.h"

namespace kvstream {

// What a load can wait for.
enum class LoadCause {
  kConnect,      // the request was not yet handed to the transport
  kFirstAnswer,  // from then until the first byte or plan: a round trip and the server's start
  kLink,         // bytes were arriving
  kStall,        // nothing arrived for longer than kSilenceMs though bytes were under way
  kServer,  // nothing arrived for so long and, as far as the trace knows, nothing was under way
  kDecode,
  kRecompute,
  kClient,  // a decode or recompute that could have begun had not: busy threads, scheduling
};
inline constexpr size_t kLoadCauses = 8;
const char* LoadCauseName(LoadCause cause);

// A message holds up to 25 ms of the link, so shorter gaps are the link at work.
inline constexpr double kSilenceMs = 60;

// The delay is followed backwards along what had to happen last: from the end of the load to the
// last decode or recompute, from its begin to what ended last before it (another decode or
// recompute, the arrival of the chunk's bytes or of its plan), and from the first arrival so met to
// the load's begin along the network. Every moment of the delay belongs to exactly one cause. With
// a thinned trace (one_in > 1) links of that chain may be missing, which counts as kClient.
struct LoadStory {
  std::array<double, kLoadCauses> cause_ms = {};  // sums up to the trace's delay_ms
  LoadCause bound = LoadCause::kLink;             // the largest of them

  // When every chunk had been decoded at some level or recomputed for the first time; none if that
  // never was, or the trace is thinned.
  absl::optional<double> all_in_place_ms;
  double decode_busy_ms = 0;  // sums of the events' lengths, of all threads together
  double recompute_busy_ms = 0;
  int chunks_recomputed = 0;
  std::vector<int> chunks_by_level;      // index is the level
  double arriving_bytes_per_second = 0;  // received bytes over first to last byte; 0: none

  // Sentences, one a line, without an end of line: the first says what bound the delay.
  std::vector<std::string> words;
};

// O(events log events) for what loads do; O(events squared) for any trace that can be read.
LoadStory ExplainLoad(const LoadTrace& trace);

}  // namespace kvstream

#endif  // KVSTREAM_CLIENT_LOAD_STORY_H_

// What the server knew of one load over time, for the client that asked to draw it.
#ifndef KVSTREAM_SERVER_SERVICE_LOAD_STORY_H_
#define KVSTREAM_SERVER_SERVICE_LOAD_STORY_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/time/time.h"
#include "kvstream/v1/kvstream.pb.h"
#include "server/load/load_session.h"

namespace kvstream {

// Keeps samples at least 5 ms apart; when there are too many, every second one goes and the
// distance doubles, so that they stay evenly spread over a load of any length. Memory: 56 bytes a
// sample, of at most 512. Not thread-safe.
class LoadStory {
 public:
  static constexpr uint32_t kSamplesMax = 512;

  // samples_max: what the client asked for; 0 keeps nothing, 1 counts as 2.
  explicit LoadStory(uint32_t samples_max);

  // Whether Add() would keep a sample of that moment: state() of a session need not be asked
  // before.
  bool wants(absl::Duration at) const;
  // `at`: since the receipt of the start, not before the moment of the last call.
  void Add(absl::Duration at, const LoadSessionState& state);
  // Appends the samples to the summary.
  void Write(v1::LoadSummary* summary) const;

 private:
  struct Sample {
    absl::Duration at;
    double estimate;
    double promised;
    bool lower_bound;
    uint64_t window_bytes;
    uint64_t bytes_sent;
    uint64_t bytes_acknowledged;
  };

  size_t samples_max_;
  absl::Duration distance_ = absl::Milliseconds(5);
  std::vector<Sample> samples_;
};

}  // namespace kvstream

#endif  // KVSTREAM_SERVER_SERVICE_LOAD_STORY_H_

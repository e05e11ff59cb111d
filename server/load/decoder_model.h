// When the client's decoder will be through with what was sent to it.
#ifndef KVSTREAM_SERVER_LOAD_DECODER_MODEL_H_
#define KVSTREAM_SERVER_LOAD_DECODER_MODEL_H_

#include <algorithm>
#include <cstdint>
#include <deque>
#include <vector>

#include "absl/time/time.h"

namespace kvstream {

// One decoder that takes jobs in the order in which they arrive. A job is known to have arrived
// when its last byte is acknowledged; the decoder then begins it, or has begun it, at the latest
// when it is through with the one before. A refinement of a chunk that a recompute reads waits for
// the end of that recompute. Thread-compatible; memory for the jobs in flight, and 8 bytes a chunk.
class DecoderModel {
 public:
  // A job of `seconds` was sent that is complete at this offset of all bytes sent. Ascending.
  void OnSent(uint64_t end_offset, double seconds, bool waits_for_recompute) {
    if (!(seconds > 0)) return;
    in_flight_.push_back({end_offset, seconds, waits_for_recompute});
    in_flight_s_ += seconds;
    sum_s_ += seconds;
  }
  // A chunk's first job, which OnSent is told of next.
  void OnFirstOf(uint32_t chunk) {
    if (sum_before_.size() <= chunk) sum_before_.resize(chunk + 1, -1);
    sum_before_[chunk] = sum_s_;
  }
  // Seconds until the chunk's first job begins, if the decoder is busy until then; what arrives
  // before is decoded with it. Not positive: it may have begun.
  double first_begins_s(uint32_t chunk, double busy_s) const {
    if (chunk >= sum_before_.size() || sum_before_[chunk] < 0) return -1;
    return busy_s - (sum_s_ - sum_before_[chunk]);
  }

  // recompute_s: until the client has recomputed all that it was told to.
  void OnReport(uint64_t acked_bytes, double recompute_s, absl::Duration now) {
    while (!in_flight_.empty() && in_flight_.front().end_offset <= acked_bytes) {
      const Job& job = in_flight_.front();
      const absl::Duration start = job.waits_for_recompute ? now + absl::Seconds(recompute_s) : now;
      busy_until_ = std::max(busy_until_, start) + absl::Seconds(job.seconds);
      in_flight_s_ -= job.seconds;
      in_flight_.pop_front();
    }
    if (in_flight_.empty()) in_flight_s_ = 0;
  }
  // The client says that all that it has is decoded.
  void OnIdle(absl::Duration now) { busy_until_ = std::min(busy_until_, now); }

  // Seconds until all that was sent is decoded, if it arrives soon enough. recompute_s: as in
  // OnReport if the jobs in flight wait for it, else 0.
  double busy_s(double recompute_s, absl::Duration now) const {
    return std::max(absl::ToDoubleSeconds(busy_until_ - now), recompute_s) + in_flight_s_;
  }

 private:
  struct Job {
    uint64_t end_offset;
    double seconds;
    bool waits_for_recompute;
  };
  std::deque<Job> in_flight_;
  double in_flight_s_ = 0;
  double sum_s_ = 0;                // of all jobs
  std::vector<double> sum_before_;  // by chunk, of the jobs before its first; -1: none yet
  absl::Duration busy_until_;
};

}  // namespace kvstream

#endif  // KVSTREAM_SERVER_LOAD_DECODER_MODEL_H_

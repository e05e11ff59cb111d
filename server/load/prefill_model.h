// What recomputing chunks costs the client: first its word, then what its progress shows.
#ifndef KVSTREAM_SERVER_LOAD_PREFILL_MODEL_H_
#define KVSTREAM_SERVER_LOAD_PREFILL_MODEL_H_

#include <cstdint>

#include "absl/time/time.h"
#include "server/load/chunk_table.h"

namespace kvstream {

// Recomputing n tokens after p tokens takes
//     n * a + n * (p + n / 2) * b   seconds:
// a is the work per token (projections, MLPs), b the work per pair of tokens (attention), so that
// the cost of a chunk grows with its position. Summed over chunks this is a * (tokens) + b * (token
// pairs), hence O(1) for any range of chunks.
//
// Learning. The client reports r tokens recomputed so far in t seconds. With m the model's cost of
// those r tokens, t / m is by how much the declared model is wrong; both coefficients are scaled by
//     s = (kPriorTokens * 1 + r * (t / m)) / (kPriorTokens + r),
// so the client's declaration weighs as much as kPriorTokens measured tokens. Nothing declared: a =
// t / r, b = 0. Sentinel: known() is false as long as nothing was declared and nothing measured;
// costs are then 0 and mean nothing. Thread-compatible value type.
class PrefillModel {
 public:
  PrefillModel() = default;
  PrefillModel(double seconds_per_token, double seconds_per_token_pair)
      : declared_token_s_(seconds_per_token), declared_pair_s_(seconds_per_token_pair) {}

  bool known() const { return learnt_tokens_ > 0 || declared_token_s_ > 0 || declared_pair_s_ > 0; }

  // `tokens` recomputed since the load began, `token_pairs` of them (ChunkTable), in `time`.
  // Cumulative; a report of nothing or of no time is ignored.
  void Learn(uint64_t tokens, double token_pairs, absl::Duration time);

  double seconds(uint64_t tokens, double token_pairs) const {
    return seconds_per_token() * static_cast<double>(tokens) +
           seconds_per_token_pair() * token_pairs;
  }
  double seconds(const ChunkTable& chunks, uint32_t begin, uint32_t end) const {
    return begin >= end ? 0 : seconds(chunks.tokens(begin, end), chunks.token_pairs(begin, end));
  }
  double seconds_per_token() const {
    return undeclared() ? learnt_token_s_ : declared_token_s_ * scale_;
  }
  double seconds_per_token_pair() const { return declared_pair_s_ * scale_; }

  // The same, slower by a factor of at least 1.
  PrefillModel Slower(double factor) const {
    PrefillModel slower = *this;
    slower.scale_ *= factor;
    slower.learnt_token_s_ *= factor;
    return slower;
  }

  // Factor to multiply a cost by before promising that it fits a deadline: 1.15 on the client's
  // word alone, down to 1.04 as measurements come in.
  double safety() const;

 private:
  static constexpr double kPriorTokens = 256;
  bool undeclared() const { return declared_token_s_ <= 0 && declared_pair_s_ <= 0; }

  double declared_token_s_ = 0;
  double declared_pair_s_ = 0;
  double scale_ = 1;
  double learnt_token_s_ = 0;
  uint64_t learnt_tokens_ = 0;
};

}  // namespace kvstream

#endif  // KVSTREAM_SERVER_LOAD_PREFILL_MODEL_H_

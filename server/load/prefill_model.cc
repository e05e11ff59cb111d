#include "server/load/prefill_model.h"

#include <algorithm>

namespace kvstream {

void PrefillModel::Learn(uint64_t tokens, double token_pairs, absl::Duration time) {
  const double seconds = absl::ToDoubleSeconds(time);
  if (tokens == 0 || !(seconds > 0)) return;
  const double count = static_cast<double>(tokens);
  if (undeclared()) {
    learnt_token_s_ = seconds / count;
  } else {
    const double declared = declared_token_s_ * count + declared_pair_s_ * token_pairs;
    if (!(declared > 0)) return;
    const double ratio = std::min(std::max(seconds / declared, 1e-3), 1e3);
    scale_ = (kPriorTokens + count * ratio) / (kPriorTokens + count);
  }
  learnt_tokens_ = tokens;
}

double PrefillModel::safety() const {
  return 1.04 + 0.11 * kPriorTokens / (kPriorTokens + static_cast<double>(learnt_tokens_));
}

}  // namespace kvstream

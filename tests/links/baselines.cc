#include "tests/links/baselines.h"

#include <algorithm>

namespace kvstream {
namespace links {

BaselineResult FixedBits(const Model& model, uint32_t tokens, double bits, const LinkView& link) {
  BaselineResult result;
  result.bytes = tokens * model.values_per_token * bits / 8;
  result.delay_s = absl::ToDoubleSeconds(link.rtt) + link.CarryS(result.bytes);
  return result;
}

BaselineResult RecomputeAll(const Model& model, uint32_t tokens, const LinkView& link) {
  BaselineResult result;
  result.delay_s = absl::ToDoubleSeconds(link.rtt) + PrefillSeconds(model, 0, tokens);
  return result;
}

BaselineResult CacheGen(const Model& model, uint32_t tokens, double deadline_s,
                        const LinkView& link) {
  const Ladder& ladder = CacheGenLadder();
  const double rtt_s = absl::ToDoubleSeconds(link.rtt);
  BaselineResult result;
  double now_s = 0;  // on the link
  double throughput = 0;
  for (uint32_t begin = 0; begin < tokens; begin += kCacheGenChunkTokens) {
    const uint32_t chunk = std::min(kCacheGenChunkTokens, tokens - begin);
    const double bytes_per_bit = model.values_per_token / 8;
    size_t level = ladder.bits.size() / 2;
    if (throughput > 0) {
      level = ladder.bits.size() - 1;
      const double left_s = deadline_s - rtt_s - now_s;
      while (level > 0 &&
             (tokens - begin) * bytes_per_bit * ladder.bits[level] / throughput > left_s) {
        --level;
      }
    }
    const double bytes = chunk * bytes_per_bit * ladder.bits[level];
    const LinkView rest = {link.trace, link.start + absl::Seconds(now_s), link.rtt};
    const double took_s = rest.CarryS(bytes);
    throughput = bytes / std::max(took_s, 1e-9);
    now_s += took_s;
    const double share = static_cast<double>(chunk) / tokens;
    result.bytes += bytes;
    result.mean_kl += share * ladder.kl[level];
    result.mean_level += share * static_cast<double>(level);
  }
  result.delay_s = rtt_s + now_s;
  return result;
}

}  // namespace links
}  // namespace kvstream

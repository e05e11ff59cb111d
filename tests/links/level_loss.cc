#include "tests/links/level_loss.h"

#include <algorithm>
#include <map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace kvstream {
namespace links {
namespace {

struct Loss {
  int loads = 0;  // that the clairvoyant makes
  int missed_loads = 0;
  double bound = 0, level = 0;
  double missed = 0, cut = 0, idle = 0, vain = 0, order = 0;
  double recomputed = 0, bound_recomputed = 0;  // shares of the chunks

  void Add(const Loss& other) {
    loads += other.loads;
    missed_loads += other.missed_loads;
    bound += other.bound;
    level += other.level;
    missed += other.missed;
    cut += other.cut;
    idle += other.idle;
    vain += other.vain;
    order += other.order;
    recomputed += other.recomputed;
    bound_recomputed += other.bound_recomputed;
  }
  std::string Row(const std::string& name) const {
    const double n = std::max(loads, 1);
    return absl::StrFormat(
        "| %s | %d | %d | %.3f | %.3f | %.3f | %.3f | %.3f | %.3f | %.3f | %.2f | %.2f |\n", name,
        loads, missed_loads, level / std::max(bound, 1e-9), bound / n, missed / n, cut / n,
        idle / n, vain / n, order / n, recomputed / n, bound_recomputed / n);
  }
};

Loss LossOf(const Case& one, const LoadSpec& spec, const LoadResult& result) {
  Loss loss;
  const DeadlineBound bound = ClairvoyantQuality(spec, one.link);
  if (!bound.feasible) return loss;
  const double n = static_cast<double>(spec.chunks.size());
  const double finest = static_cast<double>(spec.chunks[0].segment_bytes.size() - 1);
  loss.loads = 1;
  loss.bound = bound.mean_level;
  loss.level = result.mean_level;
  loss.recomputed = result.recomputed_chunks / n;
  loss.bound_recomputed = 1 - bound.streamed / n;
  if (result.unusable) {
    loss.missed_loads = 1;
    loss.missed = bound.mean_level - result.mean_level;
    return loss;
  }
  const uint32_t streamed = static_cast<uint32_t>(n) - result.recomputed_chunks;
  const double exact = finest * result.recomputed_chunks;
  const double decode_s = spec.chunks[0].tokens * spec.decode_seconds_per_token;
  const double possible =
      one.link.Bytes(absl::ToDoubleSeconds(*spec.deadline - one.link.rtt) - decode_s);
  const auto level = [&](double bytes) { return (MostLevels(spec, streamed, bytes) + exact) / n; };
  const double with_cut = level(possible);
  const double received = level(std::min(result.received_bytes, possible));
  const double decoded = level(result.decoded_bytes);
  loss.cut = bound.mean_level - with_cut;
  loss.idle = with_cut - received;
  loss.vain = received - decoded;
  loss.order = decoded - result.mean_level;
  return loss;
}

}  // namespace

absl::StatusOr<std::string> LevelLoss(const std::vector<Case>& cases, const Ladder& ladder,
                                      RecomputeAbility ability, Prior prior,
                                      const LoadSessionOptions& options) {
  std::map<std::string, Loss> rows;
  Loss all;
  for (const Case& one : cases) {
    for (double factor : kDeadlineFactors) {
      const LoadSpec spec = DeadlineSpec(one, ladder, ability, prior, factor);
      const auto result = RunSession(one, spec, ladder, options);
      if (!result.ok()) return result.status();
      const Loss loss = LossOf(one, spec, *result);
      rows[absl::StrFormat("%s, %4.1f", one.trace->family, factor)].Add(loss);
      rows[absl::StrFormat("all, %4.1f", factor)].Add(loss);
      all.Add(loss);
    }
  }
  std::string text =
      "| family, deadline | loads | missed | ratio | clairvoyant | missed | cut | idle | vain | "
      "order | recomputed | clairvoyant |\n|---|---|---|---|---|---|---|---|---|---|---|---|\n";
  for (const auto& row : rows) absl::StrAppend(&text, row.second.Row(row.first));
  absl::StrAppend(&text, all.Row("all"));
  return text;
}

}  // namespace links
}  // namespace kvstream

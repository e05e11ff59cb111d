#include "tests/links/clairvoyant.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <iostream>
#include <limits>
#include <vector>

namespace kvstream {
namespace links {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

// Of one chunk, cumulative.
std::vector<double> LevelBytes(const LoadSpec& spec) {
  std::vector<double> sums;
  double sum = 0;
  for (uint64_t bytes : spec.chunks[0].segment_bytes) {
    sums.push_back(sum += static_cast<double>(bytes));
  }
  return sums;
}

struct Problem {
  Problem(const LoadSpec& spec, const LinkView& link)
      : spec(spec),
        link(link),
        n(static_cast<int>(spec.chunks.size())),
        rtt_s(absl::ToDoubleSeconds(link.rtt)),
        decode_s(spec.chunks[0].tokens * spec.decode_seconds_per_token),
        level_bytes(LevelBytes(spec)) {
    const std::vector<uint64_t>& segments = spec.chunks[0].segment_bytes;
    // The first has to be bought whatever it costs.
    if (!std::is_sorted(segments.begin() + 1, segments.end())) Die("refinements must grow");
    for (const StoredChunkSizes& chunk : spec.chunks) {
      if (chunk.tokens != spec.chunks[0].tokens ||
          chunk.segment_bytes != spec.chunks[0].segment_bytes) {
        Die("chunks must be equal");
      }
    }
    floor_bytes = level_bytes[spec.floor_level];
  }
  static void Die(const char* why) {
    std::cerr << "clairvoyant: " << why << "\n";
    std::abort();
  }

  // S(1)..S(n) at [1..n], and the given value at [0]. S(k) = max(S(k - 1), rtt + C(k b)) + d, the
  // recursion of the maximum in the header.
  std::vector<double> StreamS(double at_zero) const {
    std::vector<double> result(n + 1, at_zero);
    double previous = rtt_s;
    absl::Duration at = link.start;
    for (int k = 1; k <= n; ++k) {
      at = link.trace->TimeToCarry(at, floor_bytes);
      previous = std::max(previous, rtt_s + absl::ToDoubleSeconds(at - link.start)) + decode_s;
      result[k] = previous;
    }
    return result;
  }
  double Recompute(int begin, int end) const {
    return RecomputeSeconds(spec, static_cast<uint32_t>(begin), static_cast<uint32_t>(end));
  }

  const LoadSpec& spec;
  const LinkView& link;
  const int n;
  const double rtt_s;
  const double decode_s;
  const std::vector<double> level_bytes;
  double floor_bytes = 0;
};

// Sum of levels of k chunks that share `bytes`, of which the floor is paid; see the header.
double Knapsack(const std::vector<double>& level_bytes, int floor_level, int k, double bytes) {
  double sum = static_cast<double>(floor_level) * k;
  bytes -= level_bytes[floor_level] * k;
  const int levels = static_cast<int>(level_bytes.size());
  for (int level = floor_level + 1; level < levels && bytes > 0; ++level) {
    const double segment = level_bytes[level] - level_bytes[level - 1];
    const double bought = std::min(static_cast<double>(k), bytes / segment);
    sum += bought;
    bytes -= bought * segment;
  }
  return sum;
}

struct Costs {
  const std::vector<double>& level_bytes;
  int floor_level;
  double decode_s;
  double rtt_s;
};

// The sum of levels of k chunks before a recompute that takes recompute_s, see the header; negative
// if it is not in time. `bytes`: B.
double BeforeSuffix(const Costs& costs, absl::FunctionRef<double(double)> bytes_by, int k,
                    double stream_s, double recompute_s, double deadline_s, double bytes) {
  const double left_s = deadline_s - recompute_s - stream_s;
  if (left_s < 0) return -1;
  const double most = Knapsack(costs.level_bytes, costs.floor_level, k, bytes);
  if (costs.decode_s <= 0) return most;
  const double floor_bytes = costs.level_bytes[costs.floor_level];
  const int j_max = static_cast<int>(std::min(std::floor(left_s / costs.decode_s), double(k)));
  const int step = std::max(j_max / 64, 1);
  double best = 0;
  for (int j = 0; j <= j_max && best < most; j += step) {
    // For all of [j, last] at once: the earlier bound on time, the later on chunks.
    const int last = std::min(j + step - 1, j_max);
    const double before =
        bytes_by(deadline_s - recompute_s - (j + 1) * costs.decode_s - costs.rtt_s) -
        j * floor_bytes;
    if (before >= bytes * (k - j) / (k - j + last)) return most;
    best = std::max(best, Knapsack(costs.level_bytes, costs.floor_level, k - j, before) +
                              Knapsack(costs.level_bytes, costs.floor_level, last, bytes - before));
  }
  return std::min(best, most);
}

}  // namespace

double ClairvoyantDelay(const LoadSpec& spec, const LinkView& link) {
  const Problem problem(spec, link);
  const int n = problem.n;
  switch (spec.ability) {
    case RecomputeAbility::kNone:
      return problem.StreamS(0)[n];
    case RecomputeAbility::kSuffix: {
      const std::vector<double> stream = problem.StreamS(problem.rtt_s);
      double best = kInfinity;
      for (int k = 0; k <= n; ++k) best = std::min(best, stream[k] + problem.Recompute(k, n));
      return best;
    }
    default: {
      const std::vector<double> stream = problem.StreamS(0);
      double best = stream[n];
      for (int m = 1; m <= n; ++m) {
        best = std::min(best, std::max(stream[n - m], problem.rtt_s + problem.Recompute(0, m)));
      }
      return best;
    }
  }
}

DeadlineBound ClairvoyantQuality(const LoadSpec& spec, const LinkView& link) {
  const Problem problem(spec, link);
  const int n = problem.n;
  const double deadline_s = absl::ToDoubleSeconds(*spec.deadline);
  const int finest = static_cast<int>(problem.level_bytes.size()) - 1;
  const bool suffix = spec.ability == RecomputeAbility::kSuffix;
  const double bytes = link.Bytes(deadline_s - problem.rtt_s - problem.decode_s);
  const std::vector<double> stream = problem.StreamS(suffix ? problem.rtt_s : 0);
  const Costs costs = {problem.level_bytes, spec.floor_level, problem.decode_s, problem.rtt_s};
  const auto bytes_by = [&link](double seconds) { return link.Bytes(seconds); };
  DeadlineBound best;
  for (int k = 0; k <= n; ++k) {
    double ready_s = stream[k];
    if (spec.ability == RecomputeAbility::kNone) {
      if (k < n) continue;
    } else if (suffix) {
      ready_s += problem.Recompute(k, n);
    } else if (k < n) {
      ready_s = std::max(ready_s, problem.rtt_s + problem.Recompute(0, n - k));
    }
    if (ready_s > deadline_s) continue;
    const double exact = static_cast<double>(finest) * (n - k);
    double sum = Knapsack(problem.level_bytes, spec.floor_level, k, bytes);
    if (suffix && k > 0 && k < n && (sum + exact) / n > best.mean_level) {
      sum = BeforeSuffix(costs, bytes_by, k, stream[k], problem.Recompute(k, n), deadline_s, bytes);
    }
    sum += exact;
    if (best.feasible && sum / n <= best.mean_level) continue;
    best.feasible = true;
    best.mean_level = sum / n;
    best.streamed = static_cast<uint32_t>(k);
  }
  return best;
}

double RecomputeSeconds(const LoadSpec& spec, uint32_t begin, uint32_t end) {
  const double tokens = spec.chunks[0].tokens;
  const double count = (end - begin) * tokens;
  return count * spec.prefill_seconds_per_token +
         count * (begin * tokens + count / 2) * spec.prefill_seconds_per_token_pair;
}

std::vector<double> BaseInPlace(const LoadSpec& spec, const LinkView& link) {
  return Problem(spec, link).StreamS(absl::ToDoubleSeconds(link.rtt));
}

double LevelOfCut(const LoadSpec& spec, absl::Duration rtt, uint32_t cut, double stream_s,
                  absl::FunctionRef<double(double)> bytes_by) {
  const std::vector<double> level_bytes = LevelBytes(spec);
  const uint32_t n = static_cast<uint32_t>(spec.chunks.size());
  const int k = static_cast<int>(cut);
  const double deadline_s = absl::ToDoubleSeconds(*spec.deadline);
  const Costs costs = {level_bytes, spec.floor_level,
                       spec.chunks[0].tokens * spec.decode_seconds_per_token,
                       absl::ToDoubleSeconds(rtt)};
  const double recompute_s = RecomputeSeconds(spec, cut, n);
  if (stream_s + recompute_s > deadline_s) return -1;
  const double bytes = bytes_by(deadline_s - costs.rtt_s - costs.decode_s);
  double sum = static_cast<double>(level_bytes.size() - 1) * (n - cut);
  if (cut == n) {
    sum += Knapsack(level_bytes, spec.floor_level, k, bytes);
  } else if (cut > 0) {
    sum += BeforeSuffix(costs, bytes_by, k, stream_s, recompute_s, deadline_s, bytes);
  }
  return sum / n;
}

double MostLevels(const LoadSpec& spec, uint32_t streamed, double bytes) {
  return Knapsack(LevelBytes(spec), spec.floor_level, static_cast<int>(streamed), bytes);
}

}  // namespace links
}  // namespace kvstream

#include "tests/links/sweep.h"

#include <algorithm>
#include <random>

#include "absl/strings/str_cat.h"
#include "server/load/testing/link_simulator.h"

namespace kvstream {
namespace links {
namespace {

// The same numbers everywhere, unlike the standard distributions.
double Unit(std::mt19937_64* bits) { return static_cast<double>((*bits)() >> 11) * 0x1p-53; }

// Frames grow with the load, so that a huge context does not cost a thousand times a small one: at
// most some 2,000 frames, and no frame above 4 MiB, 3.4 ms of the fastest link.
uint64_t FrameBytes(double load_bytes, uint64_t normal) {
  const double wanted = std::min(load_bytes / 2000, 4.0 * (1 << 20));
  return std::max(normal, static_cast<uint64_t>(wanted));
}

}  // namespace

std::vector<Case> MakeCases(const std::vector<NamedTrace>& traces, const SweepOptions& options) {
  std::vector<Case> cases;
  std::mt19937_64 bits(options.seed);
  for (const NamedTrace& trace : traces) {
    if (trace.tuning != options.tuning) continue;
    const double mean = trace.rate.BytesBetween(absl::ZeroDuration(), absl::Seconds(40)) / 40;
    std::vector<Case> of_trace;
    for (const Model& model : Models()) {
      for (uint32_t tokens : model.contexts) {
        const absl::Duration start = absl::Seconds(11 + 29 * Unit(&bits));
        const double prior =
            trace.rate.BytesBetween(start - absl::Seconds(10), start - absl::Seconds(5)) / 5;
        of_trace.push_back(
            {&trace, &model, tokens, {&trace.rate, start, trace.rtt}, prior, mean, options.gated});
      }
    }
    if (options.contexts_per_trace > 0) {
      for (size_t i = of_trace.size(); i > 1; --i) {
        std::swap(of_trace[i - 1], of_trace[static_cast<size_t>(Unit(&bits) * i)]);
      }
      of_trace.resize(std::min<size_t>(of_trace.size(), options.contexts_per_trace));
    }
    cases.insert(cases.end(), of_trace.begin(), of_trace.end());
  }
  return cases;
}

const char* AbilityName(RecomputeAbility ability) {
  switch (ability) {
    case RecomputeAbility::kNone:
      return "NONE";
    case RecomputeAbility::kSuffix:
      return "SUFFIX";
    case RecomputeAbility::kAny:
      return "ANY";
    default:
      return "FRONT";
  }
}

absl::StatusOr<LoadResult> RunSession(const Case& one, const LoadSpec& spec, const Ladder& ladder,
                                      const LoadSessionOptions& options) {
  SimulatedLink link;
  link.gated = one.gated;
  link.one_way = one.link.rtt / 2;
  const LinkView view = one.link;
  link.carry = [view](absl::Duration from, double bytes) {
    return view.trace->TimeToCarry(view.start + from, bytes) - view.start;
  };
  LoadSessionOptions scaled = options;
  const int level = spec.policy == LoadPolicy::kFastest ? spec.floor_level
                                                        : static_cast<int>(ladder.bits.size()) - 1;
  scaled.frame_bytes = FrameBytes(one.tokens * one.model->values_per_token * ladder.bits[level] / 8,
                                  options.frame_bytes);
  SimulationResult run = Simulate(spec, scaled, link, MakeClient(*one.model));
  if (!run.status.ok()) {
    return absl::InternalError(absl::StrCat(one.trace->name, ", ", one.model->name, ", ",
                                            one.tokens, " tokens, ", AbilityName(spec.ability),
                                            ": ", run.status.ToString()));
  }
  LoadResult result;
  result.delay_s = absl::ToDoubleSeconds(run.finish.load_delay);
  result.unusable = !run.usable_at_deadline;
  result.mean_level = run.mean_level_at_deadline;
  result.bytes = static_cast<double>(run.bytes);
  const double n = static_cast<double>(run.finish.chunks.size());
  result.recomputed = run.recomputed / n;
  result.received_bytes = static_cast<double>(run.received_at_deadline);
  result.decoded_bytes = static_cast<double>(run.decoded_at_deadline);
  result.recomputed_chunks = run.recomputed_at_deadline;
  for (const ChunkDecision& chunk : run.finish.chunks) {
    if (chunk.level) result.mean_kl += ladder.kl[*chunk.level] / n;
  }
  return result;
}

LoadSpec FastestSpec(const Case& one, const Ladder& ladder, RecomputeAbility ability, Prior prior,
                     int floor_level) {
  LoadSpec spec = MakeSpec(*one.model, one.tokens, ladder);
  spec.policy = LoadPolicy::kFastest;
  spec.floor_level = floor_level;
  spec.ability = ability;
  if (prior == Prior::kRecord) {
    spec.bandwidth_hint_bytes_per_second = one.prior_bytes_per_second;
    spec.round_trip_hint_seconds = absl::ToDoubleSeconds(one.link.rtt);
  }
  return spec;
}

LoadSpec DeadlineSpec(const Case& one, const Ladder& ladder, RecomputeAbility ability, Prior prior,
                      double factor) {
  LoadSpec spec = FastestSpec(one, ladder, ability, prior, 0);
  spec.policy = LoadPolicy::kDeadline;
  const double bytes = one.tokens * one.model->values_per_token * ladder.bits[0] / 8;
  spec.deadline = one.link.rtt + absl::Milliseconds(50) +
                  absl::Seconds(kChunkTokens * one.model->decode_s_per_token) +
                  absl::Seconds(factor * bytes / one.mean_bytes_per_second);
  return spec;
}

}  // namespace links
}  // namespace kvstream

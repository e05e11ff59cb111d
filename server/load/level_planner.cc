#include "server/load/level_planner.h"

#include <algorithm>

#include "absl/types/optional.h"

namespace kvstream {
namespace {

// Recomputing must be expected to be this much faster than streaming the rest.
constexpr double kStreamingBonus = 0.97;
// The finest level must be promised in this share of the time, or chunks are recomputed.
constexpr double kDoubt = 2;
// What the client may come to itself waits while the link could bring it in this share of the time,
// and some more for reports.
constexpr double kPatience = 2;
constexpr double kPatienceSeconds = 0.05;
// A deadline is not given up as long as a link so many times faster than expected would save it.
constexpr double kHope = 4;
// Where a quality is looked at all over the range.
constexpr uint32_t kPlaces = 32;
// Cuts that are dismissed together.
constexpr uint32_t kCutsAtOnce = 16;

// Seconds until the chunks [begin, end), which include the one that is partly sent, are received,
// decoded and acknowledged.
double StreamSeconds(const SplitInput& in, uint32_t begin, uint32_t end, int level, double rate,
                     double latency_s, uint64_t extra_bytes) {
  const ChunkTable& chunks = *in.chunks;
  double bytes = static_cast<double>(extra_bytes);
  double decode_s = 0;
  double last_decode_s = 0;
  if (begin < end) {
    // sent_bytes are below the base level's size of one chunk of the range.
    bytes += static_cast<double>(chunks.bytes(begin, end, level) - in.open.sent_bytes);
    decode_s = static_cast<double>(chunks.tokens(begin, end)) * in.view.decode_s_per_token;
    const uint32_t last = in.order == BaseOrder::kForward ? end - 1 : begin;
    last_decode_s = chunks.tokens(last) * in.view.decode_s_per_token;
  }
  // Decoding overlaps the transfer, except for the chunk that comes last.
  return latency_s + std::max(bytes / rate + last_decode_s, decode_s);
}

double Stream(const SplitInput& in, uint32_t begin, uint32_t end) {
  return StreamSeconds(in, begin, end, in.base_level, in.view.rate, in.view.latency_s, 0);
}

double StreamLow(const SplitInput& in, uint32_t begin, uint32_t end) {
  return StreamSeconds(in, begin, end, in.base_level, in.view.rate_low, in.view.latency_low_s, 0);
}

double StreamHoped(const SplitInput& in, uint32_t begin, uint32_t end, int level,
                   uint64_t extra_bytes) {
  const double queued_low_s = in.view.latency_low_s - in.view.rtt_s;
  const double latency_s = in.view.rtt_s + queued_low_s * in.view.rate_low / in.view.rate_hoped;
  return StreamSeconds(in, begin, end, level, in.view.rate_hoped, latency_s, extra_bytes);
}

// The client's own work on [begin, end): it begins when the client is through with its backlog and
// the plan, which queues behind the data in flight, has arrived, and ends with a report.
double Recompute(const SplitInput& in, uint32_t begin, uint32_t end) {
  if (begin >= end && in.recompute_backlog_s <= 0) return 0;
  const double word_s = in.ordered ? 0 : in.view.latency_s;
  return std::max(in.recompute_backlog_s + in.view.rtt_s, word_s) +
         in.prefill.seconds(*in.chunks, begin, end);
}

double ForwardExpected(const SplitInput& in, uint32_t cut) {
  const double recompute = in.prefill.seconds(*in.chunks, cut, in.open.end);
  if (cut == in.open.begin) return std::max(in.view.latency_s, in.view.rtt_s) + recompute;
  return Stream(in, in.open.begin, cut) + recompute;
}

// Below what any cut of [begin, end) is expected to take: streaming ends no sooner than that of the
// first, and recompute is no shorter than that of the last.
double ForwardLeast(const SplitInput& in, uint32_t begin, uint32_t end) {
  const double recompute = in.prefill.seconds(*in.chunks, end - 1, in.open.end);
  if (begin == in.open.begin) return recompute;
  const ChunkTable& chunks = *in.chunks;
  const double bytes =
      static_cast<double>(chunks.bytes(in.open.begin, begin, in.base_level) - in.open.sent_bytes);
  const double decode_s =
      static_cast<double>(chunks.tokens(in.open.begin, begin)) * in.view.decode_s_per_token;
  return in.view.latency_s + std::max(bytes / in.view.rate, decode_s) + recompute;
}

double ForwardPromised(const SplitInput& in, uint32_t cut, double safety) {
  const double recompute = safety * in.prefill.seconds(*in.chunks, cut, in.open.end);
  if (cut == in.open.begin) return std::max(in.view.latency_low_s, in.view.rtt_s) + recompute;
  return StreamLow(in, in.open.begin, cut) + recompute;
}

double BackwardExpected(const SplitInput& in, uint32_t meet) {
  const double stream = meet < in.open.end ? Stream(in, meet, in.open.end) : in.view.latency_s;
  return std::max(stream, Recompute(in, in.open.begin, meet));
}

Split StreamAll(const SplitInput& in) {
  Split split;
  split.boundary = in.order == BaseOrder::kForward ? in.open.end : in.open.begin;
  split.expected_s = Stream(in, in.open.begin, in.open.end);
  split.in_time = StreamLow(in, in.open.begin, in.open.end) <= in.view.time_left_s;
  return split;
}

bool PromisedBackward(const SplitInput& in, uint32_t meet, double safety) {
  const bool stream_in_time =
      meet >= in.open.end ||
      StreamHoped(in, meet, in.open.end, in.base_level, 0) <= in.view.time_left_s;
  return stream_in_time && safety * Recompute(in, in.open.begin, meet) <= in.view.time_left_s;
}

// The smallest m in [low, high] with holds(m), for a predicate that never turns false again; high +
// 1 if none.
template <typename Predicate>
uint32_t FirstThat(uint32_t low, uint32_t high, Predicate holds) {
  uint64_t from = low, to = uint64_t{high} + 1;
  while (from < to) {
    const uint64_t middle = from + (to - from) / 2;
    if (holds(static_cast<uint32_t>(middle))) {
      to = middle;
    } else {
      from = middle + 1;
    }
  }
  return static_cast<uint32_t>(from);
}

// Levels that refinement brings all chunks before `cut` together, if the client can decode
// `decodes` of them a second time and the link carries `bytes` until then.
double RefinedLevels(const SplitInput& in, uint32_t cut, double decodes, double bytes) {
  const ChunkTable& chunks = *in.chunks;
  double levels = 0;
  double below = static_cast<double>(chunks.bytes(0, chunks.size(), in.base_level));
  for (int level = in.base_level + 1; level < chunks.levels() && bytes > 0; ++level) {
    const double upto = static_cast<double>(chunks.bytes(0, chunks.size(), level));
    const double segment = (upto - below) / chunks.with_level(0, chunks.size(), level);
    const double count = std::min(static_cast<double>(chunks.with_level(0, cut, level)), decodes);
    const double bought = std::min(count, bytes / segment);
    levels += bought;
    bytes -= bought * segment;
    below = upto;
  }
  return levels;
}

// The mean level that a cut brings, times the chunks; negative if it is not promised in time.
// What is before the cut cannot be decoded while the suffix is recomputed, so that refinement is
// decoded in what then is left.
double CutValue(const SplitInput& in, uint32_t cut) {
  const double stream_s = cut == in.open.begin ? std::max(in.view.latency_low_s, in.view.rtt_s)
                                               : StreamLow(in, in.open.begin, cut);
  const double recompute_s = in.prefill.safety() * in.prefill.seconds(*in.chunks, cut, in.open.end);
  const double slack_s = in.view.time_left_s - stream_s - recompute_s;
  if (!(slack_s >= 0)) return -1;
  const double decode_s = in.chunks->tokens(0) * in.view.decode_s_per_token;
  const double decodes = decode_s > 0 ? slack_s / decode_s : cut;
  const double bytes = in.view.rate * (recompute_s + slack_s);
  return (in.chunks->levels() - 1.0) * (in.open.end - cut) +
         in.base_level * static_cast<double>(cut) + RefinedLevels(in, cut, decodes, bytes);
}

// The cut with the highest value. The value is looked at in some places all over the range, then
// around the best of them.
Split BestCut(const SplitInput& in) {
  Split best;
  best.boundary = in.open.end;
  double best_value = -1;
  const auto look = [&](uint32_t cut) {
    const double value = CutValue(in, cut);
    if (value <= best_value) return;
    best_value = value;
    best.boundary = cut;
  };
  uint32_t stride = std::max<uint32_t>((in.open.end - in.open.begin) / kPlaces, 1);
  for (uint64_t cut = in.open.begin; cut < in.open.end; cut += stride) {
    look(static_cast<uint32_t>(cut));
  }
  look(in.open.end);
  for (stride /= 2; stride > 0; stride /= 2) {
    const uint32_t center = best.boundary;
    if (center >= in.open.begin + stride) look(center - stride);
    if (center + stride <= in.open.end) look(center + stride);
  }
  best.in_time = best_value >= 0;
  best.expected_s = best.boundary == in.open.end ? Stream(in, in.open.begin, in.open.end)
                                                 : ForwardExpected(in, best.boundary);
  return best;
}

// The cut that would be in time on the slowest link, nothing but that being promised; none if even
// that link is more than kHope times as fast as expected.
absl::optional<Split> CutOfSlowestLink(const SplitInput& in) {
  const ChunkTable& chunks = *in.chunks;
  double slowest = kHope * in.view.rate;
  absl::optional<uint32_t> found;
  const auto look = [&](uint32_t cut) {
    double left_s =
        in.view.time_left_s - in.view.latency_s - in.prefill.seconds(chunks, cut, in.open.end);
    double bytes = 0;
    if (cut > in.open.begin) {
      bytes =
          static_cast<double>(chunks.bytes(in.open.begin, cut, in.base_level) - in.open.sent_bytes);
      left_s -= chunks.tokens(cut - 1) * in.view.decode_s_per_token;
    }
    if (!(left_s > 0) || bytes >= slowest * left_s) return;
    slowest = bytes / left_s;
    found = cut;
  };
  const uint32_t stride = std::max<uint32_t>((in.open.end - in.open.begin) / kPlaces, 1);
  for (uint64_t cut = in.open.begin; cut < in.open.end; cut += stride) {
    look(static_cast<uint32_t>(cut));
  }
  look(in.open.end);
  if (!found.has_value()) return absl::nullopt;
  Split split;
  split.boundary = *found;
  split.expected_s =
      *found == in.open.end ? Stream(in, in.open.begin, in.open.end) : ForwardExpected(in, *found);
  return split;
}

}  // namespace

Split SplitForSpeed(const SplitInput& in) {
  Split best = StreamAll(in);
  if (!in.may_recompute || in.open.begin >= in.open.end) return best;
  const double safety = in.prefill.safety();
  if (in.order == BaseOrder::kForward) {
    double best_value = best.expected_s * kStreamingBonus;
    uint32_t best_cut = in.open.end;
    for (uint32_t begin = in.open.begin; begin < in.open.end;) {
      const uint32_t end = std::min(in.open.end, begin + kCutsAtOnce);
      const bool hopeless = ForwardLeast(in, begin, end) >= best_value;
      for (uint32_t cut = begin; cut < end && !hopeless; ++cut) {
        const double value = ForwardExpected(in, cut);
        if (value < best_value) {
          best_value = value;
          best_cut = cut;
        }
      }
      begin = end;
    }
    if (best_cut == in.open.end) return best;
    return {best_cut, best_value, ForwardPromised(in, best_cut, safety) <= in.view.time_left_s};
  }
  // Recompute grows with the meeting point and streaming shrinks: the best is where they cross, or
  // just before.
  const uint32_t cross = FirstThat(in.open.begin, in.open.end, [&](uint32_t meet) {
    return meet == in.open.end ||
           Recompute(in, in.open.begin, meet) >= Stream(in, meet, in.open.end);
  });
  uint32_t meet = cross;
  if (cross > in.open.begin && BackwardExpected(in, cross - 1) <= BackwardExpected(in, cross)) {
    meet = cross - 1;
  }
  if (BackwardExpected(in, meet) >= best.expected_s * kStreamingBonus) return best;
  return {meet, BackwardExpected(in, meet), PromisedBackward(in, meet, safety)};
}

Split SplitForQuality(const SplitInput& in) {
  const Split all = StreamAll(in);
  if (!in.may_recompute || in.open.begin >= in.open.end) return all;
  const double finest =
      StreamHoped(in, in.open.begin, in.open.end, in.chunks->levels() - 1, in.refinement_bytes);
  // Where both ends work at once recompute is a cheap insurance.
  const double doubt = in.order == BaseOrder::kBackward ? kDoubt : 1;
  if (doubt * finest <= in.view.time_left_s || in.insurance_s <= in.view.time_left_s) {
    Split streamed = all;
    streamed.finest = doubt * finest <= in.view.time_left_s;
    streamed.insured = in.insurance_s <= in.view.time_left_s;
    if (streamed.finest || in.order == BaseOrder::kBackward) return streamed;
    // Recompute is needed anyway: the sooner the better.
    SplitInput whole = in;
    whole.base_level = in.chunks->levels() - 1;
    streamed = SplitForSpeed(whole);
    streamed.insured = true;
    return streamed;
  }
  if (in.order == BaseOrder::kForward) {
    const Split best = BestCut(in);
    if (best.in_time) return best;
    const Split fastest = SplitForSpeed(in);
    if (fastest.expected_s <= in.view.time_left_s) return fastest;
    return CutOfSlowestLink(in).value_or(fastest);
  }
  const double safety = in.prefill.safety();
  // The most that can be recomputed in time; streaming the others must be in time as well.
  const uint32_t too_far = FirstThat(in.open.begin, in.open.end, [&](uint32_t meet) {
    return safety * Recompute(in, in.open.begin, meet) > in.view.time_left_s;
  });
  if (too_far > in.open.begin && PromisedBackward(in, too_far - 1, safety)) {
    uint32_t meet = too_far - 1;
    // What the client comes to only if it is faster than promised can wait, as long as its bytes
    // would be in time on a much slower link.
    const double stream_s = StreamHoped(in, meet, in.open.end, in.base_level, 0);
    if (kPatience * stream_s + kPatienceSeconds <= in.view.time_left_s) {
      meet = FirstThat(meet, in.open.end,
                       [&](uint32_t farther) {
                         return Recompute(in, in.open.begin, farther) > in.view.time_left_s;
                       }) -
             1;
    }
    return {meet, BackwardExpected(in, meet), true};
  }
  return all.in_time ? all : SplitForSpeed(in);
}

bool FitsInTime(const PlannerView& view, uint64_t bytes, uint32_t tokens, double decoder_busy_s) {
  const double received_s = view.latency_low_s + static_cast<double>(bytes) / view.rate_low;
  return std::max(received_s, decoder_busy_s) + tokens * view.decode_s_per_token <=
         view.time_left_s;
}

std::vector<int> RefinementStops(absl::Span<const uint64_t> level_bytes,
                                 absl::Span<const double> weights, int base_level) {
  struct Step {
    int stop;
    double gain;
    double bytes;
  };
  std::vector<Step> steps;
  for (int level = base_level + 1; level < static_cast<int>(level_bytes.size()); ++level) {
    const double gain = weights.empty() ? 0 : weights[level];
    Step step = {level, gain, static_cast<double>(level_bytes[level])};
    // gain / bytes must fall; equal stays apart.
    while (!steps.empty() && step.gain * steps.back().bytes > steps.back().gain * step.bytes) {
      step.gain += steps.back().gain;
      step.bytes += steps.back().bytes;
      steps.pop_back();
    }
    steps.push_back(step);
  }
  std::vector<int> stops;
  stops.reserve(steps.size());
  for (const Step& step : steps) stops.push_back(step.stop);
  return stops;
}

}  // namespace kvstream

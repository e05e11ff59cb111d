#include "tests/links/online_cut.h"

#include <algorithm>
#include <cmath>

namespace kvstream {
namespace links {
namespace {

// Decisions between two chunks are this part of the deadline apart.
constexpr double kMoments = 32;

// The link as it was up to known_s, and as somebody imagines it afterwards. Seconds since the load
// began, at the link.
struct Belief {
  const LinkView* link;
  double known_s;
  double known_bytes;
  double rate;  // of the rest where there is no future
  const Future* future = nullptr;
  double scale = 1;

  double Bytes(double seconds) const {
    if (seconds <= known_s) return link->Bytes(seconds);
    const double rest = seconds - known_s;
    if (future == nullptr) return known_bytes + rate * rest;
    return known_bytes +
           scale * future->trace->BytesBetween(future->from, future->from + absl::Seconds(rest));
  }
  double CarryS(double bytes) const {
    if (bytes <= known_bytes) return link->CarryS(bytes);
    const double rest = bytes - known_bytes;
    if (future == nullptr) return known_s + rest / rate;
    return known_s + absl::ToDoubleSeconds(future->trace->TimeToCarry(future->from, rest / scale) -
                                           future->from);
  }
};

class Chooser {
 public:
  Chooser(const LoadSpec& spec, const LinkView& link, CutRule rule,
          const std::vector<Future>& futures, const Careful& careful)
      : spec_(spec),
        link_(link),
        rule_(rule),
        futures_(futures),
        careful_(careful),
        n_(static_cast<uint32_t>(spec.chunks.size())),
        rtt_s_(absl::ToDoubleSeconds(link.rtt)),
        decode_s_(spec.chunks[0].tokens * spec.decode_seconds_per_token),
        stream_(BaseInPlace(spec, link)) {
    for (int level = 0; level <= spec.floor_level; ++level) {
      floor_bytes_ += static_cast<double>(spec.chunks[0].segment_bytes[level]);
    }
  }

  absl::optional<uint32_t> Choose() const {
    const double deadline_s = absl::ToDoubleSeconds(*spec_.deadline - careful_.margin);
    for (uint32_t j = 0; j < n_; ++j) {
      const double last_s = deadline_s - careful_.safety * RecomputeSeconds(spec_, j, n_);
      if (last_s < stream_[j]) continue;
      if (rule_ == CutRule::kSoonest || last_s < stream_[j + 1]) return j;
      if (rule_ == CutRule::kLast) continue;
      for (double at_s = stream_[j]; at_s < stream_[j + 1]; at_s += deadline_s / kMoments) {
        if (Begins(j, at_s)) return j;
      }
    }
    if (stream_[n_] > absl::ToDoubleSeconds(*spec_.deadline)) return absl::nullopt;
    return n_;
  }

 private:
  // Whether no later cut promises more, as things look at at_s.
  bool Begins(uint32_t j, double at_s) const {
    Belief belief = {&link_, std::max(at_s - rtt_s_, 0.0), 0, 0};
    belief.known_bytes = link_.Bytes(belief.known_s);
    // A moment before what is known ends, since that may be a step.
    const double seen = link_.trace->BytesPerSecondAt(link_.start + absl::Seconds(belief.known_s) -
                                                      absl::Nanoseconds(1));
    const double mean =
        belief.known_s > 0 ? belief.known_bytes / belief.known_s : std::max(seen, 1.0);
    belief.rate = std::max(rule_ == CutRule::kMean ? mean : seen, 1.0);
    std::vector<double> values(1, 0);
    for (uint32_t step = 1; step < n_ - j; step *= 2) values.push_back(0);
    values.push_back(0);
    if (rule_ == CutRule::kFutures) {
      for (const Future& future : futures_) {
        belief.future = &future;
        // A link that stands still comes back as fast as it was.
        const double base = seen > 0 ? seen : mean;
        belief.scale =
            std::max(base, 1.0) / std::max(future.trace->BytesPerSecondAt(future.from), 1.0);
        AddValues(belief, j, &values);
      }
    } else {
      AddValues(belief, j, &values);
    }
    return std::max_element(values.begin() + 1, values.end())[0] <= values[0];
  }

  void AddValues(const Belief& belief, uint32_t j, std::vector<double>* values) const {
    const double now = Value(belief, j, stream_[j]);
    (*values)[0] += now;
    size_t index = 1;
    for (uint32_t step = 1; index < values->size(); step *= 2, ++index) {
      const uint32_t cut = std::min(j + step, n_);
      const double stream_s = std::max(rtt_s_ + belief.CarryS(cut * floor_bytes_) + decode_s_,
                                       stream_[j] + (cut - j) * decode_s_);
      const double value = Value(belief, cut, stream_s);
      // If that does not come in time the client begins with what it has.
      (*values)[index] += value < 0 ? now : value;
    }
  }
  double Value(const Belief& belief, uint32_t cut, double stream_s) const {
    return LevelOfCut(spec_, link_.rtt, cut, stream_s,
                      [&belief](double seconds) { return belief.Bytes(seconds); });
  }

  const LoadSpec& spec_;
  const LinkView& link_;
  const CutRule rule_;
  const std::vector<Future>& futures_;
  const Careful careful_;
  const uint32_t n_;
  const double rtt_s_;
  const double decode_s_;
  const std::vector<double> stream_;
  double floor_bytes_ = 0;
};

}  // namespace

absl::optional<uint32_t> OnlineCut(const LoadSpec& spec, const LinkView& link, CutRule rule,
                                   const std::vector<Future>& futures, const Careful& careful) {
  return Chooser(spec, link, rule, futures, careful).Choose();
}

absl::optional<double> CarefulClairvoyant(const LoadSpec& spec, const LinkView& link,
                                          const Careful& careful) {
  const std::vector<double> stream = BaseInPlace(spec, link);
  const uint32_t n = static_cast<uint32_t>(spec.chunks.size());
  const double deadline_s = absl::ToDoubleSeconds(*spec.deadline);
  const double margin_s = absl::ToDoubleSeconds(careful.margin);
  absl::optional<double> best;
  for (uint32_t cut = 0; cut <= n; ++cut) {
    const double recompute_s = RecomputeSeconds(spec, cut, n);
    if (cut < n && stream[cut] + careful.safety * recompute_s + margin_s > deadline_s) continue;
    const double level = LevelOfCut(spec, link.rtt, cut, stream[cut],
                                    [&link](double seconds) { return link.Bytes(seconds); });
    if (level < 0) continue;
    best = std::max(best.value_or(0), level);
  }
  return best;
}

}  // namespace links
}  // namespace kvstream

#include "client/rate_trace.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "client/units.h"

namespace kvstream {
namespace {

constexpr size_t kTextBytesMax = size_t{1} << 20;
constexpr size_t kStepsMax = 100000;
constexpr double kSecondsMax = 1e7;
// A link that carries less than this in a loop would need time beyond every measure.
constexpr double kBytesPerPeriodMin = 1;

}  // namespace

RateTrace RateTrace::Constant(double bytes_per_second) {
  return RateTrace({{absl::ZeroDuration(), bytes_per_second}}, absl::InfiniteDuration());
}

RateTrace::RateTrace(std::vector<Step> steps, absl::Duration period)
    : steps_(std::move(steps)), period_(period) {
  for (const Step& step : steps_) max_rate_ = std::max(max_rate_, step.bytes_per_second);
  if (period_ == absl::InfiniteDuration()) return;
  for (size_t i = 0; i < steps_.size(); ++i) {
    const absl::Duration end = i + 1 < steps_.size() ? steps_[i + 1].start : period_;
    bytes_per_period_ += absl::ToDoubleSeconds(end - steps_[i].start) * steps_[i].bytes_per_second;
  }
}

absl::StatusOr<RateTrace> RateTrace::Parse(absl::string_view text) {
  if (text.size() > kTextBytesMax) {
    return absl::InvalidArgumentError(
        absl::StrCat("trace: ", text.size(), " bytes, must be at most ", kTextBytesMax));
  }
  std::vector<Step> steps;
  absl::Duration period = absl::InfiniteDuration();
  int line_number = 0;
  for (absl::string_view line : absl::StrSplit(text, '\n')) {
    ++line_number;
    const auto wrong = [line_number](absl::string_view what) {
      return absl::InvalidArgumentError(absl::StrCat("trace: line ", line_number, ": ", what));
    };
    line = absl::StripAsciiWhitespace(line.substr(0, line.find('#')));
    if (line.empty()) continue;
    if (period != absl::InfiniteDuration()) return wrong("nothing may follow `loop`");
    const size_t gap = line.find_first_of(" \t");
    if (gap == absl::string_view::npos) return wrong("must be `<seconds> <rate>`");
    double seconds;
    if (!absl::SimpleAtod(line.substr(0, gap), &seconds) ||
        !(seconds >= 0 && seconds <= kSecondsMax)) {
      return wrong(absl::StrCat("its time must be a number of seconds of 0 to ", kSecondsMax));
    }
    const absl::Duration start = absl::Seconds(seconds);
    if (steps.empty() ? start != absl::ZeroDuration() : start <= steps.back().start) {
      return wrong(steps.empty() ? "the first time must be 0" : "times must grow");
    }
    const absl::string_view rest = absl::StripAsciiWhitespace(line.substr(gap));
    if (rest == "loop") {
      if (steps.empty()) return wrong("there is nothing to loop");
      period = start;
      continue;
    }
    const absl::StatusOr<double> rate = ParseRate(rest);
    if (!rate.ok()) return wrong(rate.status().message());
    steps.push_back({start, *rate});
    if (steps.size() > kStepsMax) return wrong(absl::StrCat("more than ", kStepsMax, " rates"));
  }
  if (steps.empty()) return absl::InvalidArgumentError("trace: has no line `<seconds> <rate>`");
  RateTrace trace(std::move(steps), period);
  const bool stops = period == absl::InfiniteDuration()
                         ? trace.steps_.back().bytes_per_second == 0
                         : trace.bytes_per_period_ < kBytesPerPeriodMin;
  if (stops) {
    return absl::InvalidArgumentError(
        "trace: the link is down for ever; end with a rate above 0 or with `<seconds> loop`");
  }
  return trace;
}

RateTrace::Span RateTrace::SpanAt(absl::Duration time) const {
  time = std::max(time, absl::ZeroDuration());
  absl::Duration turn = absl::ZeroDuration();  // when the current round of the loop began
  if (time >= period_) turn = absl::Floor(time, period_);
  const auto next =
      std::upper_bound(steps_.begin(), steps_.end(), time - turn,
                       [](absl::Duration value, const Step& step) { return value < step.start; });
  const absl::Duration end = next != steps_.end() ? turn + next->start : turn + period_;
  return {std::prev(next)->bytes_per_second, end};
}

double RateTrace::BytesPerSecondAt(absl::Duration time) const {
  return SpanAt(time).bytes_per_second;
}

double RateTrace::BytesBetween(absl::Duration from, absl::Duration to) const {
  double bytes = 0;
  if (to - from > period_) {
    const absl::Duration rounds = absl::Floor(to - from, period_);
    bytes = absl::FDivDuration(rounds, period_) * bytes_per_period_;
    to -= rounds;
  }
  while (from < to) {
    const Span span = SpanAt(from);
    const absl::Duration end = std::min(span.end, to);
    bytes += absl::ToDoubleSeconds(end - from) * span.bytes_per_second;
    from = end;
  }
  return bytes;
}

absl::Duration RateTrace::TimeToCarry(absl::Duration from, double bytes) const {
  if (bytes <= 0) return from;
  if (bytes_per_period_ > 0 && bytes > bytes_per_period_) {
    const double rounds = std::floor(bytes / bytes_per_period_);
    from += period_ * rounds;
    bytes -= rounds * bytes_per_period_;
  }
  while (from < absl::InfiniteDuration()) {
    const Span span = SpanAt(from);
    const double fits = absl::ToDoubleSeconds(span.end - from) * span.bytes_per_second;
    if (span.bytes_per_second > 0 && fits >= bytes) {
      return from + absl::Seconds(bytes / span.bytes_per_second);
    }
    // 0 * infinity is no number: a link that is down for ever carries nothing.
    if (span.end == absl::InfiniteDuration()) return absl::InfiniteDuration();
    bytes -= fits;
    from = span.end;
  }
  return from;
}

}  // namespace kvstream

#include "client/cli/explain_html.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <iterator>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "client/cli/explain_text.h"
#include "client/units.h"

namespace kvstream::cli {
namespace {

using Kind = LoadTrace::Kind;

constexpr double kLeft = 70, kWidth = 900, kRatesTop = 20, kRatesHeight = 180;
constexpr double kChunksTop = 240, kChunksHeight = 420;

// From coarse to fine; finer ones share the last.
constexpr const char* kLevelColours[] = {"#c6dbef", "#6baed6", "#2171b5", "#08306b"};

constexpr char kHead[] =
    "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n"
    "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; "
    "style-src 'unsafe-inline'\">\n<title>A load's story</title>\n<style>\n"
    "body{font:14px sans-serif;margin:24px;max-width:1020px;color:#222}\n"
    "svg text{font:11px sans-serif;fill:#444}\n"
    "td{padding:1px 12px 1px 0;text-align:right}td:first-child{text-align:left}\n"
    "</style></head><body>\n";

const char* LevelColour(int level) {
  const int last = static_cast<int>(std::size(kLevelColours)) - 1;
  return kLevelColours[std::clamp(level, 0, last)];
}

std::string Ms(double ms) { return FormatMillis(absl::Milliseconds(ms)); }

// A few round numbers from 0 to `top`.
double TickStep(double top) {
  const double decade = std::pow(10, std::floor(std::log10(top)));
  for (const double step : {0.1, 0.2, 0.5, 1.0}) {
    if (top / (step * decade) <= 8) return step * decade;
  }
  return 2 * decade;
}

class Page {
 public:
  Page(const LoadTrace& trace, const LoadStory& story)
      : trace_(trace), story_(story), picture_ms_(PictureMs(trace)) {}

  std::string Draw() {
    absl::StrAppend(&html_, kHead, "<h1>A load's story</h1>\n<p>policy ",
                    EscapeHtml(trace_.request.policy), ", ability ",
                    EscapeHtml(trace_.request.ability));
    if (trace_.request.deadline_ms > 0) {
      absl::StrAppend(&html_, ", deadline ", Ms(trace_.request.deadline_ms));
    }
    absl::StrAppend(&html_, ", ", trace_.request.tokens, " tokens in ", trace_.request.chunks,
                    " chunks; ", trace_.ok ? "ready after " : "failed after ", Ms(trace_.delay_ms),
                    "</p>\n");
    for (const std::string& line : story_.words) {
      absl::StrAppend(&html_, "<p>", EscapeHtml(line), "</p>\n");
    }
    absl::StrAppendFormat(&html_, "<svg width=\"%.0f\" height=\"%.0f\" role=\"img\">\n",
                          kLeft + kWidth + 40, kChunksTop + kChunksHeight + 40);
    Rates();
    Chunks();
    TimeAxis();
    absl::StrAppend(&html_, "</svg>\n");
    Legend();
    Causes();
    absl::StrAppend(&html_, "</body></html>\n");
    return std::move(html_);
  }

 private:
  double X(double ms) const { return kLeft + kWidth * std::clamp(ms / picture_ms_, 0.0, 1.0); }
  static double RateY(double rate, double top) {
    return kRatesTop + kRatesHeight * (1 - std::clamp(rate / top, 0.0, 1.0));
  }

  void Text(double x, double y, const char* anchor, const std::string& text) {
    absl::StrAppendFormat(&html_, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\">%s</text>\n", x,
                          y, anchor, EscapeHtml(text));
  }
  void Line(double x1, double y1, double x2, double y2, const char* colour) {
    absl::StrAppendFormat(&html_,
                          "<line x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\" stroke=\"%s\"/>\n",
                          x1, y1, x2, y2, colour);
  }
  void Box(double x1, double x2, double y, double height, const char* colour) {
    absl::StrAppendFormat(
        &html_, "<rect x=\"%.2f\" y=\"%.2f\" width=\"%.2f\" height=\"%.2f\" fill=\"%s\"/>\n", x1, y,
        std::max(x2 - x1, 0.6), height, colour);
  }

  void Rates() {
    double top = 1;
    for (const uint64_t bytes : trace_.arrivals) {
      top = std::max(top, static_cast<double>(bytes) / trace_.bin_ms * 1000);
    }
    for (const ServerSample& sample : trace_.server) {
      top = std::max(top, sample.estimate_bytes_per_second);
    }
    const double step = TickStep(top * 8);  // in bits, as links are named
    for (double bits = 0; bits <= top * 8 * 1.0001; bits += step) {
      Line(kLeft, RateY(bits / 8, top), kLeft + kWidth, RateY(bits / 8, top), "#eee");
      Text(kLeft - 4, RateY(bits / 8, top) + 4, "end", FormatRate(bits / 8));
    }
    for (size_t bin = 0; bin < trace_.arrivals.size(); ++bin) {
      if (trace_.arrivals[bin] == 0) continue;
      const double begin = static_cast<double>(bin) * trace_.bin_ms;
      const double rate = static_cast<double>(trace_.arrivals[bin]) / trace_.bin_ms * 1000;
      Box(X(begin), X(begin + trace_.bin_ms), RateY(rate, top),
          kRatesTop + kRatesHeight - RateY(rate, top), "#9ecae1");
    }
    Series(top, "#d95f02", &ServerSample::estimate_bytes_per_second);
    Series(top, "#7570b3", &ServerSample::promised_bytes_per_second);
  }

  void Series(double top, const char* colour, double ServerSample::*rate) {
    if (trace_.server.empty()) return;
    absl::StrAppend(&html_, "<polyline fill=\"none\" stroke=\"", colour, "\" points=\"");
    for (const ServerSample& sample : trace_.server) {
      absl::StrAppendFormat(&html_, "%.1f,%.1f ",
                            X(absl::ToDoubleMilliseconds(sample.at) + trace_.sent_ms),
                            RateY(sample.*rate, top));
    }
    absl::StrAppend(&html_, "\"/>\n");
  }

  // Arrivals in the upper half of a chunk's row, decodes in the lower one.
  void Chunks() {
    const double row = kChunksHeight / trace_.request.chunks;
    for (const LoadTrace::Event& event : trace_.events) {
      const double y = kChunksTop + row * event.chunk;
      switch (event.kind) {
        case Kind::kPlan:
          Box(X(event.begin_ms), X(event.begin_ms), y, row, event.level < 0 ? "#d62728" : "#bbb");
          break;
        case Kind::kSegment:
          Box(X(event.begin_ms), X(event.end_ms), y, row / 2, LevelColour(event.level));
          break;
        case Kind::kDecode:
          Box(X(event.begin_ms), X(event.end_ms), y + row / 2, row / 2, "#31a354");
          break;
        case Kind::kRecompute:
          Box(X(event.begin_ms), X(event.end_ms), y + row / 4, row * (event.chunks - 0.5),
              "#fd8d3c");
          break;
      }
    }
    Line(kLeft, kChunksTop, kLeft, kChunksTop + kChunksHeight, "#444");
    Text(kLeft - 4, kChunksTop + 10, "end", "chunk 0");
    Text(kLeft - 4, kChunksTop + kChunksHeight, "end", absl::StrCat(trace_.request.chunks - 1));
  }

  void TimeAxis() {
    const double step = TickStep(picture_ms_);
    for (double ms = 0; ms <= picture_ms_; ms += step) {
      Line(X(ms), kChunksTop + kChunksHeight, X(ms), kChunksTop + kChunksHeight + 4, "#444");
      Text(X(ms), kChunksTop + kChunksHeight + 16, "middle", ms == 0 ? "0" : Ms(ms));
    }
    Mark(trace_.delay_ms, "#000", trace_.ok ? "ready" : "failed");
    if (story_.all_in_place_ms.has_value()) {
      Mark(*story_.all_in_place_ms, "#31a354", "all in place");
    }
    const double deadline = trace_.request.deadline_ms;
    if (deadline > 0 && deadline <= picture_ms_) Mark(deadline, "#d62728", "deadline");
  }

  void Mark(double ms, const char* colour, const char* name) {
    Line(X(ms), kRatesTop, X(ms), kChunksTop + kChunksHeight, colour);
    Text(X(ms), kChunksTop - 6 - 11 * marks_++, "end", name);
  }

  void Legend() {
    absl::StrAppend(&html_, "<p>Upper picture: bytes arriving");
    absl::StrAppend(&html_, trace_.server.empty()
                                ? " (the server told no estimates)"
                                : ", the server's estimate (orange) and what it promised on "
                                  "(violet)");
    absl::StrAppend(&html_,
                    ". Lower picture, a row a chunk: arrivals in blue, darker for finer levels; "
                    "decodes in green; recompute in orange; plans as ticks, red for recompute.</p>"
                    "\n");
  }

  void Causes() {
    absl::StrAppend(&html_, "<table><caption>What the delay was spent on</caption>\n");
    for (size_t i = 0; i < kLoadCauses; ++i) {
      const double ms = story_.cause_ms[i];
      if (ms <= 0) continue;
      absl::StrAppendFormat(&html_, "<tr><td>%s</td><td>%s</td><td>%.1f %%</td></tr>\n",
                            LoadCauseName(static_cast<LoadCause>(i)), Ms(ms),
                            trace_.delay_ms > 0 ? 100 * ms / trace_.delay_ms : 0.0);
    }
    absl::StrAppend(&html_, "</table>\n");
  }

  const LoadTrace& trace_;
  const LoadStory& story_;
  const double picture_ms_;
  int marks_ = 0;
  std::string html_;
};

}  // namespace

std::string EscapeHtml(absl::string_view text) {
  std::string escaped;
  for (const char sign : Printable(text)) {
    switch (sign) {
      case '&':
        escaped += "&amp;";
        break;
      case '<':
        escaped += "&lt;";
        break;
      case '>':
        escaped += "&gt;";
        break;
      case '"':
        escaped += "&quot;";
        break;
      case '\'':
        escaped += "&#39;";
        break;
      default:
        escaped += sign;
    }
  }
  return escaped;
}

std::string ExplainHtml(const LoadTrace& trace, const LoadStory& story) {
  return Page(trace, story).Draw();
}

}  // namespace kvstream::cli

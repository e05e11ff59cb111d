#include "client/cli/explain_text.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "client/units.h"

namespace kvstream::cli {
namespace {

using Kind = LoadTrace::Kind;

constexpr int kColumns = 72;
constexpr uint32_t kRowsMax = 24;

// What a chunk is like, from furthest behind to best; a level stands at kLevel + level.
constexpr int kNothing = 0;
constexpr int kArriving = 1;
constexpr int kLevel = 2;
constexpr int kRecomputing = 1000;
constexpr int kRecomputed = 1001;

char Sign(int state) {
  if (state == kNothing) return '.';
  if (state == kArriving) return '-';
  if (state == kRecomputing) return 'r';
  if (state == kRecomputed) return 'R';
  const int level = state - kLevel;
  return level < 10 ? static_cast<char>('0' + level) : '+';
}

std::string Ms(double ms) { return FormatMillis(absl::Milliseconds(ms)); }

// The column that shows a moment.
int ColumnOf(double ms, double picture_ms) {
  return static_cast<int>(std::clamp(ms / picture_ms * kColumns, 0.0, kColumns - 1.0));
}

std::string Spark(const std::vector<double>& rates, double top) {
  static constexpr const char* kBars[] = {" ", "▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"};
  std::string line;
  for (const double rate : rates) {
    const int bar = top > 0 ? static_cast<int>(std::lround(rate / top * 8)) : 0;
    line += kBars[rate > 0 ? std::clamp(bar, 1, 8) : 0];
  }
  return line;
}

// Bytes a second of each column; a bin's bytes are spread evenly over it.
std::vector<double> ArrivalRates(const LoadTrace& trace, double picture_ms) {
  const double column_ms = picture_ms / kColumns;
  std::vector<double> rates(kColumns);
  for (size_t bin = 0; bin < trace.arrivals.size(); ++bin) {
    if (trace.arrivals[bin] == 0) continue;
    const double begin = static_cast<double>(bin) * trace.bin_ms;
    const double end = begin + trace.bin_ms;
    for (int column = ColumnOf(begin, picture_ms); column < kColumns; ++column) {
      const double from = std::max(begin, column * column_ms);
      const double to = std::min(end, (column + 1) * column_ms);
      if (to <= from) break;
      rates[column] += static_cast<double>(trace.arrivals[bin]) * (to - from) / trace.bin_ms;
    }
  }
  for (double& rate : rates) rate *= 1000 / column_ms;
  return rates;
}

// The server's estimate at the end of each column; 0 before the first and after the load.
std::vector<double> Estimates(const LoadTrace& trace, double picture_ms) {
  std::vector<double> rates(kColumns);
  size_t next = 0;
  double rate = 0;
  for (int column = 0; column < kColumns; ++column) {
    const double end = (column + 1) * picture_ms / kColumns;
    while (next < trace.server.size() &&
           absl::ToDoubleMilliseconds(trace.server[next].at) + trace.sent_ms <= end) {
      rate = trace.server[next++].estimate_bytes_per_second;
    }
    if (column * picture_ms / kColumns < trace.delay_ms) rates[column] = rate;
  }
  return rates;
}

// The states of each chunk at the end of each column, merged into rows: the chunk that is furthest
// behind stands for its row.
std::vector<std::vector<int>> ChunkRows(const LoadTrace& trace, uint32_t chunks_per_row,
                                        double picture_ms) {
  const uint32_t chunks = trace.request.chunks;
  const uint32_t rows = (chunks + chunks_per_row - 1) / chunks_per_row;
  std::vector<std::vector<int>> states(chunks, std::vector<int>(kColumns, kNothing));
  const auto raise_between = [&](uint32_t chunk, double from_ms, double to_ms, int state) {
    const int last = ColumnOf(to_ms, picture_ms);
    for (int column = ColumnOf(from_ms, picture_ms); column <= last; ++column) {
      states[chunk][column] = std::max(states[chunk][column], state);
    }
  };
  const auto raise_from = [&](uint32_t chunk, double ms, int state) {
    for (int column = ColumnOf(ms, picture_ms); column < kColumns; ++column) {
      states[chunk][column] = std::max(states[chunk][column], state);
    }
  };
  for (const LoadTrace::Event& event : trace.events) {
    switch (event.kind) {
      case Kind::kPlan:
      case Kind::kOrder:
        break;
      case Kind::kSegment:
        raise_from(event.chunk, event.begin_ms, kArriving);
        break;
      case Kind::kDecode:
        if (event.ok) raise_from(event.chunk, event.end_ms, kLevel + event.level);
        break;
      case Kind::kRecompute:
        for (uint32_t chunk = event.chunk; chunk < event.chunk + event.chunks; ++chunk) {
          raise_between(chunk, event.begin_ms, event.end_ms, kRecomputing);
          if (event.ok) raise_from(chunk, event.end_ms, kRecomputed);
        }
        break;
    }
  }
  std::vector<std::vector<int>> merged(rows, std::vector<int>(kColumns, kRecomputed));
  for (uint32_t chunk = 0; chunk < chunks; ++chunk) {
    std::vector<int>& row = merged[chunk / chunks_per_row];
    for (int column = 0; column < kColumns; ++column) {
      row[column] = std::min(row[column], states[chunk][column]);
    }
  }
  return merged;
}

std::string Head(const LoadTrace& trace) {
  const LoadTrace::Request& request = trace.request;
  std::string head = absl::StrCat("policy ", Printable(request.policy));
  if (request.deadline_ms > 0) absl::StrAppend(&head, ", deadline ", Ms(request.deadline_ms));
  absl::StrAppend(&head, ", ability ", Printable(request.ability), ", ", request.tokens,
                  " tokens in ", request.chunks, " chunks, ", request.levels, " levels\n");
  absl::StrAppend(&head, trace.ok ? "ready after " : "failed after ", Ms(trace.delay_ms), ", ",
                  FormatBytes(trace.bytes), " received\n\n");
  return head;
}

std::string Rates(const LoadTrace& trace, double picture_ms) {
  const std::vector<double> arriving = ArrivalRates(trace, picture_ms);
  const std::vector<double> estimates = Estimates(trace, picture_ms);
  const double top_arriving = *std::max_element(arriving.begin(), arriving.end());
  const double top_estimate = *std::max_element(estimates.begin(), estimates.end());
  // One scale, so that they can be compared.
  const double top = std::max(top_arriving, top_estimate);
  std::string text =
      absl::StrCat("arriving ", Spark(arriving, top), " up to ", FormatRate(top_arriving), "\n");
  if (trace.server.empty()) {
    absl::StrAppend(&text, "estimate (the server tells none over time)\n");
  } else {
    absl::StrAppend(&text, "estimate ", Spark(estimates, top), " up to ", FormatRate(top_estimate),
                    "\n");
  }
  return text;
}

std::string Axis(const LoadTrace& trace, double picture_ms) {
  std::string line(kColumns, '-');
  const double deadline = trace.request.deadline_ms;
  if (deadline > 0 && deadline <= picture_ms) line[ColumnOf(deadline, picture_ms)] = 'D';
  std::string text = absl::StrCat("         ", line, "\n");
  const std::string end = Ms(picture_ms);
  absl::StrAppend(&text, "         0 ms", std::string(kColumns - 4 - end.size(), ' '), end, "\n");
  return text;
}

std::string Chunks(const LoadTrace& trace, double picture_ms) {
  const uint32_t chunks = trace.request.chunks;
  const uint32_t per_row = (chunks + kRowsMax - 1) / kRowsMax;
  std::string text;
  uint32_t first = 0;
  for (const std::vector<int>& row : ChunkRows(trace, per_row, picture_ms)) {
    absl::StrAppendFormat(&text, "%8d ", first);
    for (const int state : row) text += Sign(state);
    text += '\n';
    first += per_row;
  }
  absl::StrAppend(&text, Axis(trace, picture_ms), "         . nothing  - arriving  0.. in place, ",
                  "level  r recomputing  R recomputed",
                  trace.request.deadline_ms > 0 ? "  D deadline\n" : "\n");
  if (per_row > 1) {
    absl::StrAppend(&text, "         a row is ", per_row,
                    " chunks and shows the one that is furthest behind\n");
  }
  return text;
}

std::string Causes(const LoadTrace& trace, const LoadStory& story) {
  std::string text = "\nwhat the delay was spent on\n";
  for (size_t i = 0; i < kLoadCauses; ++i) {
    const double ms = story.cause_ms[i];
    if (ms <= 0) continue;
    absl::StrAppendFormat(&text, "  %-14s %9s %5.1f %%\n", LoadCauseName(static_cast<LoadCause>(i)),
                          Ms(ms), trace.delay_ms > 0 ? 100 * ms / trace.delay_ms : 0.0);
  }
  return text;
}

}  // namespace

double PictureMs(const LoadTrace& trace) {
  double picture = std::max(trace.delay_ms, 1.0);
  if (trace.request.deadline_ms <= 1.5 * picture) {
    picture = std::max(picture, trace.request.deadline_ms * 1.02);
  }
  return picture;
}

std::string Printable(absl::string_view text) {
  std::string printable(text);
  for (char& sign : printable) {
    if (!absl::ascii_isprint(static_cast<unsigned char>(sign))) sign = '?';
  }
  return printable;
}

std::string ExplainText(const LoadTrace& trace, const LoadStory& story) {
  const double picture_ms = PictureMs(trace);
  std::string text = absl::StrCat(Head(trace), Rates(trace, picture_ms), Chunks(trace, picture_ms),
                                  Causes(trace, story), "\n");
  for (const std::string& line : story.words) absl::StrAppend(&text, Printable(line), "\n");
  return text;
}

}  // namespace kvstream::cli

#include "client/load_story.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "client/units.h"

namespace kvstream {
namespace {

using Kind = LoadTrace::Kind;

// Times of the trace are rounded to microseconds.
constexpr double kRoundingMs = 0.002;

double& Of(LoadStory* story, LoadCause cause) {
  return story->cause_ms[static_cast<size_t>(cause)];
}

bool IsWork(const LoadTrace::Event& event) {
  return event.kind == Kind::kDecode || event.kind == Kind::kRecompute;
}

bool Covers(const LoadTrace::Event& work, const LoadTrace::Event& arrival) {
  return arrival.chunk >= work.chunk && arrival.chunk - work.chunk < work.chunks &&
         (work.kind == Kind::kRecompute || arrival.level <= work.level);
}

// Whether bytes were under way at `at_ms`, as the server's sample nearest before it says; its clock
// starts about when the request was sent.
bool UnderWay(const LoadTrace& trace, double at_ms) {
  const absl::Duration at = absl::Milliseconds(at_ms - trace.sent_ms);
  const auto after =
      std::upper_bound(trace.server.begin(), trace.server.end(), at,
                       [](absl::Duration a, const ServerSample& b) { return a < b.at; });
  if (after == trace.server.begin()) return false;
  return (after - 1)->bytes_sent > (after - 1)->bytes_acknowledged;
}

// Gives [from, to] to the link, and gaps in it that are long to whoever made them.
void ShareArrivals(const LoadTrace& trace, double from, double to, LoadStory* story) {
  double cursor = from;
  // The end of the last bin with bytes.
  double heard = from;
  const auto silence_until = [&](double end) {
    if (end - heard <= kSilenceMs) return;
    Of(story, LoadCause::kLink) += heard - cursor;
    // Whoever is silent is asked about in the middle.
    const LoadCause cause =
        UnderWay(trace, (heard + end) / 2) ? LoadCause::kStall : LoadCause::kServer;
    Of(story, cause) += end - heard;
    cursor = end;
  };
  for (size_t bin = 0; bin < trace.arrivals.size(); ++bin) {
    if (trace.arrivals[bin] == 0) continue;
    const double begin = std::clamp(static_cast<double>(bin) * trace.bin_ms, from, to);
    const double end = std::clamp(static_cast<double>(bin + 1) * trace.bin_ms, from, to);
    silence_until(begin);
    heard = std::max(heard, end);
  }
  silence_until(to);
  Of(story, LoadCause::kLink) += to - cursor;
}

// [0, to], which ends with an arrival.
void ShareNetwork(const LoadTrace& trace, double to, LoadStory* story) {
  const double sent = std::min(trace.sent_ms, to);
  Of(story, LoadCause::kConnect) += sent;
  double first = trace.first_byte_ms >= 0 ? trace.first_byte_ms : to;
  for (const LoadTrace::Event& event : trace.events) {
    if (event.kind == Kind::kPlan) {
      first = std::min(first, event.begin_ms);
      break;
    }
  }
  first = std::clamp(first, sent, to);
  Of(story, LoadCause::kFirstAnswer) += first - sent;
  ShareArrivals(trace, first, to, story);
}

// The last of `events` that ends by `until`, of those that `fits` takes; null: none.
template <typename Fits>
const LoadTrace::Event* LastBefore(const std::vector<const LoadTrace::Event*>& by_end, double until,
                                   const Fits& fits) {
  auto at = std::upper_bound(
      by_end.begin(), by_end.end(), until + kRoundingMs,
      [](double end_ms, const LoadTrace::Event* event) { return end_ms < event->end_ms; });
  while (at != by_end.begin()) {
    --at;
    if (fits(**at)) return *at;
  }
  return nullptr;
}

void FollowBack(const LoadTrace& trace, LoadStory* story) {
  std::vector<const LoadTrace::Event*> work, arrivals;
  std::vector<std::vector<const LoadTrace::Event*>> by_chunk(trace.request.chunks);
  for (const LoadTrace::Event& event : trace.events) {
    (IsWork(event) ? work : arrivals).push_back(&event);
  }
  const auto ends_first = [](const LoadTrace::Event* a, const LoadTrace::Event* b) {
    return a->end_ms < b->end_ms;
  };
  std::stable_sort(work.begin(), work.end(), ends_first);
  std::stable_sort(arrivals.begin(), arrivals.end(), ends_first);
  for (const LoadTrace::Event* event : arrivals) by_chunk[event->chunk].push_back(event);

  double cursor = trace.delay_ms;
  const LoadTrace::Event* at =
      LastBefore(work, cursor, [](const LoadTrace::Event&) { return true; });
  while (at != nullptr) {
    const double end = std::min(at->end_ms, cursor);
    const double begin = std::min(at->begin_ms, end);
    Of(story, LoadCause::kClient) += cursor - end;
    Of(story, at->kind == Kind::kDecode ? LoadCause::kDecode : LoadCause::kRecompute) +=
        end - begin;
    cursor = begin;
    const LoadTrace::Event* arrival = nullptr;
    for (uint32_t chunk = at->chunk; chunk < at->chunk + at->chunks; ++chunk) {
      const LoadTrace::Event* one =
          LastBefore(by_chunk[chunk], cursor,
                     [at](const LoadTrace::Event& event) { return Covers(*at, event); });
      if (one != nullptr && (arrival == nullptr || one->end_ms > arrival->end_ms)) arrival = one;
    }
    // Only what began earlier can be a reason, so that this ends.
    const LoadTrace::Event* const before =
        LastBefore(work, cursor, [at, cursor](const LoadTrace::Event& event) {
          return &event != at && event.begin_ms < cursor;
        });
    if (arrival != nullptr && (before == nullptr || arrival->end_ms >= before->end_ms)) {
      const double arrived = std::min(arrival->end_ms, cursor);
      Of(story, LoadCause::kClient) += cursor - arrived;
      cursor = arrived;
      break;
    }
    at = before;
  }
  ShareNetwork(trace, cursor, story);
}

// When each chunk had first been in place.
absl::optional<double> AllInPlace(const LoadTrace& trace) {
  if (trace.one_in > 1) return absl::nullopt;
  std::vector<double> first(trace.request.chunks, -1);
  for (const LoadTrace::Event& event : trace.events) {
    if (!IsWork(event)) continue;
    for (uint32_t chunk = event.chunk; chunk < event.chunk + event.chunks; ++chunk) {
      if (first[chunk] < 0 || event.end_ms < first[chunk]) first[chunk] = event.end_ms;
    }
  }
  double last = 0;
  for (const double ms : first) {
    if (ms < 0) return absl::nullopt;
    last = std::max(last, ms);
  }
  return last;
}

std::string Ms(double ms) { return FormatMillis(absl::Milliseconds(ms)); }

std::string Percent(double part, double whole) {
  return absl::StrFormat("%.0f %%", whole > 0 ? 100 * part / whole : 0.0);
}

std::string Verdict(const LoadTrace& trace, const LoadStory& story) {
  const double ms = story.cause_ms[static_cast<size_t>(story.bound)];
  const std::string share =
      absl::StrCat(Ms(ms), " of ", Ms(trace.delay_ms), " (", Percent(ms, trace.delay_ms), ")");
  switch (story.bound) {
    case LoadCause::kConnect:
      return absl::StrCat("Connecting bound the delay: ", share,
                          " had passed before the request was sent. Keep a connection up.");
    case LoadCause::kFirstAnswer:
      return absl::StrCat("The round trip and the server's start bound the delay: ", share,
                          " until its first answer.");
    case LoadCause::kLink:
      return absl::StrCat("The link bound the delay: for ", share, " bytes were arriving, at ",
                          FormatRate(story.arriving_bytes_per_second), " on average.");
    case LoadCause::kStall:
      return absl::StrCat("The link stood still: for ", share,
                          " nothing arrived though bytes were under way.");
    case LoadCause::kServer:
      return absl::StrCat("The server, or a link that stood still, bound the delay: for ", share,
                          trace.server.empty()
                              ? " nothing arrived; whether bytes were under way is not known."
                              : " nothing arrived and the server had nothing under way.");
    case LoadCause::kDecode:
      return absl::StrCat("Decoding bound the delay: ", share,
                          " of it was spent on decodes that the end had to wait for.");
    case LoadCause::kRecompute:
      return absl::StrCat("Recompute bound the delay: ", share,
                          " of it was spent on recompute that the end had to wait for.");
    case LoadCause::kClient:
      return absl::StrCat("The client bound the delay: for ", share,
                          " work that could have begun had not (threads, scheduling).");
  }
  return "";
}

std::string AboutDeadline(const LoadTrace& trace, const LoadStory& story) {
  const double deadline = trace.request.deadline_ms;
  std::string text = trace.deadline_missed || trace.delay_ms > deadline
                         ? absl::StrCat("The deadline of ", Ms(deadline), " was missed by ",
                                        Ms(std::max(0.0, trace.delay_ms - deadline)), ".")
                         : absl::StrCat("The deadline of ", Ms(deadline), " was met with ",
                                        Ms(deadline - trace.delay_ms), " to spare.");
  if (story.all_in_place_ms.has_value() && *story.all_in_place_ms < trace.delay_ms) {
    absl::StrAppend(&text, " Every chunk was in place at ", Ms(*story.all_in_place_ms),
                    "; the time after that went into refinement.");
  }
  return text;
}

std::string AboutChunks(const LoadTrace& trace, const LoadStory& story) {
  std::string text =
      absl::StrCat(trace.request.chunks, " chunks, ", trace.request.tokens, " tokens: ");
  const char* separator = "";
  for (size_t level = 0; level < story.chunks_by_level.size(); ++level) {
    if (story.chunks_by_level[level] == 0) continue;
    absl::StrAppend(&text, separator, story.chunks_by_level[level], " at level ", level);
    separator = ", ";
  }
  if (story.chunks_recomputed > 0) {
    absl::StrAppend(&text, separator, story.chunks_recomputed, " recomputed");
  }
  return absl::StrCat(text, "; ", FormatBytes(trace.bytes), " received.");
}

void FindWords(const LoadTrace& trace, LoadStory* story) {
  std::vector<std::string>& words = story->words;
  if (!trace.ok) words.push_back(absl::StrCat("The load failed: ", trace.error));
  words.push_back(Verdict(trace, *story));
  if (trace.ok) {
    if (trace.request.deadline_ms > 0) words.push_back(AboutDeadline(trace, *story));
    words.push_back(AboutChunks(trace, *story));
  }
  if (trace.one_in > 1) {
    words.push_back(absl::StrCat("One of ", trace.one_in, " events was kept of ", trace.events_seen,
                                 "; arrivals and levels are complete."));
  }
}

}  // namespace

const char* LoadCauseName(LoadCause cause) {
  switch (cause) {
    case LoadCause::kConnect:
      return "connecting";
    case LoadCause::kFirstAnswer:
      return "first answer";
    case LoadCause::kLink:
      return "link";
    case LoadCause::kStall:
      return "stalled link";
    case LoadCause::kServer:
      return "server silent";
    case LoadCause::kDecode:
      return "decode";
    case LoadCause::kRecompute:
      return "recompute";
    case LoadCause::kClient:
      return "client";
  }
  return "unknown";
}

LoadStory ExplainLoad(const LoadTrace& trace) {
  LoadStory story;
  FollowBack(trace, &story);
  story.bound = static_cast<LoadCause>(
      std::max_element(story.cause_ms.begin(), story.cause_ms.end()) - story.cause_ms.begin());
  story.all_in_place_ms = AllInPlace(trace);
  for (const LoadTrace::Event& event : trace.events) {
    if (event.kind == Kind::kDecode) story.decode_busy_ms += event.end_ms - event.begin_ms;
    if (event.kind == Kind::kRecompute) story.recompute_busy_ms += event.end_ms - event.begin_ms;
  }
  for (const int level : trace.levels) {
    if (level < 0) {
      ++story.chunks_recomputed;
      continue;
    }
    if (story.chunks_by_level.size() <= static_cast<size_t>(level)) {
      story.chunks_by_level.resize(static_cast<size_t>(level) + 1);
    }
    ++story.chunks_by_level[static_cast<size_t>(level)];
  }
  const double arriving_ms = trace.last_byte_ms - trace.first_byte_ms;
  if (trace.first_byte_ms >= 0 && arriving_ms > 0) {
    story.arriving_bytes_per_second = static_cast<double>(trace.bytes) / arriving_ms * 1000;
  }
  FindWords(trace, &story);
  return story;
}

}  // namespace kvstream

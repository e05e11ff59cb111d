#include "client/load_trace.h"

#include <algorithm>
#include <cmath>
#include <utility>

namespace kvstream {
namespace {

// Microseconds are as fine as anybody reads.
double Millis(absl::Duration duration) {
  return std::round(absl::ToDoubleMicroseconds(duration)) / 1000;
}

}  // namespace

std::string PolicyName(ClientPolicy policy, bool has_deadline) {
  switch (policy) {
    case ClientPolicy::kDefault:
      return has_deadline ? "deadline" : "fastest";
    case ClientPolicy::kDeadline:
      return "deadline";
    case ClientPolicy::kFastest:
      return "fastest";
    case ClientPolicy::kCacheGen:
      return "cachegen";
    case ClientPolicy::kFixed:
      return "fixed";
    case ClientPolicy::kRecompute:
      return "recompute";
  }
  return "unknown";
}

std::string AbilityName(ClientRecomputeAbility ability) {
  switch (ability) {
    case ClientRecomputeAbility::kNone:
      return "none";
    case ClientRecomputeAbility::kSuffix:
      return "suffix";
    case ClientRecomputeAbility::kAny:
      return "any";
    case ClientRecomputeAbility::kFront:
      return "front";
  }
  return "unknown";
}

LoadTrace::Request TracedRequest(const Profile& profile, size_t tokens,
                                 const LoadOptions& options) {
  LoadTrace::Request request;
  request.policy = PolicyName(options.policy, options.deadline.has_value());
  request.ability = AbilityName(options.ability);
  if (options.deadline.has_value())
    request.deadline_ms = absl::ToDoubleMilliseconds(*options.deadline);
  request.tokens = tokens;
  request.chunk_tokens = static_cast<uint32_t>(profile.chunk_tokens());
  request.chunks =
      static_cast<uint32_t>((tokens + request.chunk_tokens - 1) / request.chunk_tokens);
  request.levels = profile.levels();
  request.floor_level = options.floor_level;
  request.values_per_token = static_cast<uint64_t>(profile.geometry().values_per_token());
  request.prefill_seconds_per_token = options.prefill_seconds_per_token;
  request.prefill_seconds_per_token_pair = options.prefill_seconds_per_token_pair;
  request.bandwidth_hint_bytes_per_second = options.bandwidth_hint_bytes_per_second;
  return request;
}

LoadTraceRecorder::LoadTraceRecorder(LoadTrace::Request request) : open_(request.chunks) {
  trace_.request = std::move(request);
}

void LoadTraceRecorder::OnEvent(const LoadEvent& event) {
  const double at = Millis(event.at);
  switch (event.kind) {
    case LoadEvent::Kind::kStarted:
      trace_.sent_ms = at;
      trace_.request.decode_seconds_per_token = event.decode_seconds_per_token;
      return;
    case LoadEvent::Kind::kProgress:
      KeepProgress({at, event.bytes, event.chunks});
      return;
    case LoadEvent::Kind::kSummary:
      trace_.summary_ms = at;
      return;
    default:
      break;
  }
  if (event.chunk >= open_.size()) return;
  Open& open = open_[event.chunk];
  switch (event.kind) {
    case LoadEvent::Kind::kPlan:
      Keep({LoadTrace::Kind::kPlan, at, at, event.chunk, 1, event.level, 0});
      return;
    case LoadEvent::Kind::kData:
      if (open.segment_begin_ms >= 0 && event.level != open.segment_level) {
        CloseSegment(event.chunk);
      }
      if (open.segment_begin_ms < 0) open.segment_begin_ms = at;
      open.segment_level = event.level;
      open.segment_end_ms = at;
      open.segment_bytes += event.bytes;
      Arrive(at, event.bytes);
      return;
    case LoadEvent::Kind::kDecodeBegin:
      // What is decoded has arrived.
      if (open.segment_begin_ms >= 0 && open.segment_level <= event.level) {
        CloseSegment(event.chunk);
      }
      open.decode_begin_ms = at;
      return;
    case LoadEvent::Kind::kDecodeEnd:
      if (open.decode_begin_ms < 0) return;
      Keep({LoadTrace::Kind::kDecode, open.decode_begin_ms, at, event.chunk, 1, event.level, 0});
      open.decode_begin_ms = -1;
      return;
    case LoadEvent::Kind::kRecomputeBegin:
      open.recompute_begin_ms = at;
      return;
    case LoadEvent::Kind::kRecomputeEnd:
      if (open.recompute_begin_ms < 0) return;
      Keep({LoadTrace::Kind::kRecompute, open.recompute_begin_ms, at, event.chunk, event.chunks, -1,
            0});
      open.recompute_begin_ms = -1;
      return;
    default:
      return;
  }
}

void LoadTraceRecorder::OnServerSamples(absl::Span<const ServerSample> samples) {
  trace_.server.assign(samples.begin(), samples.end());
}

void LoadTraceRecorder::Keep(const LoadTrace::Event& event) {
  if (trace_.events_seen++ % trace_.one_in != 0) return;
  if (trace_.events.size() == LoadTrace::kEventsMax) {
    for (size_t i = 0; 2 * i < LoadTrace::kEventsMax; ++i) trace_.events[i] = trace_.events[2 * i];
    trace_.events.resize(LoadTrace::kEventsMax / 2);
    trace_.one_in *= 2;
    if ((trace_.events_seen - 1) % trace_.one_in != 0) return;
  }
  trace_.events.push_back(event);
}

void LoadTraceRecorder::CloseSegment(uint32_t chunk) {
  Open& open = open_[chunk];
  Keep({LoadTrace::Kind::kSegment, open.segment_begin_ms, open.segment_end_ms, chunk, 1,
        open.segment_level, open.segment_bytes});
  open.segment_begin_ms = -1;
  open.segment_bytes = 0;
}

void LoadTraceRecorder::Arrive(double at_ms, uint64_t bytes) {
  if (trace_.first_byte_ms < 0) trace_.first_byte_ms = at_ms;
  trace_.last_byte_ms = at_ms;
  std::vector<uint64_t>& bins = trace_.arrivals;
  while (at_ms >= trace_.bin_ms * LoadTrace::kBinsMax) {
    // Twice as wide: neighbours become one.
    for (size_t i = 0; i < bins.size(); ++i) {
      if (i % 2 == 0) {
        bins[i / 2] = bins[i];
      } else {
        bins[i / 2] += bins[i];
      }
    }
    bins.resize((bins.size() + 1) / 2);
    trace_.bin_ms *= 2;
  }
  const size_t bin = static_cast<size_t>(at_ms / trace_.bin_ms);
  if (bins.size() <= bin) bins.resize(bin + 1);
  bins[bin] += bytes;
}

void LoadTraceRecorder::KeepProgress(const LoadTrace::Progress& progress) {
  if (trace_.progress_sent++ % progress_one_in_ != 0) return;
  if (trace_.progress.size() == LoadTrace::kProgressMax) {
    for (size_t i = 0; 2 * i < LoadTrace::kProgressMax; ++i) {
      trace_.progress[i] = trace_.progress[2 * i];
    }
    trace_.progress.resize(LoadTrace::kProgressMax / 2);
    progress_one_in_ *= 2;
    if ((trace_.progress_sent - 1) % progress_one_in_ != 0) return;
  }
  trace_.progress.push_back(progress);
}

LoadTrace LoadTraceRecorder::Finish(const absl::StatusOr<LoadResult>& result,
                                    absl::Duration delay) && {
  for (uint32_t chunk = 0; chunk < open_.size(); ++chunk) {
    if (open_[chunk].segment_begin_ms >= 0) CloseSegment(chunk);
  }
  std::stable_sort(
      trace_.events.begin(), trace_.events.end(),
      [](const LoadTrace::Event& a, const LoadTrace::Event& b) { return a.begin_ms < b.begin_ms; });
  trace_.ok = result.ok();
  if (result.ok()) {
    trace_.delay_ms = Millis(result->load_delay);
    trace_.bytes = result->bytes;
    trace_.estimate_bytes_per_second = result->bandwidth_estimate_bytes_per_second;
    trace_.deadline_missed = result->deadline_missed;
    for (const LoadedChunk& chunk : result->chunks) {
      trace_.levels.push_back(chunk.level.has_value() ? *chunk.level : -1);
    }
  } else {
    trace_.error = std::string(result.status().ToString());
    trace_.delay_ms = Millis(delay);
    for (uint64_t bytes : trace_.arrivals) trace_.bytes += bytes;
  }
  return std::move(trace_);
}

}  // namespace kvstream

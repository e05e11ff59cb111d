#include "client/load_trace.h"

#include <gtest/gtest.h>

#include <utility>

namespace kvstream {
namespace {

using Kind = LoadEvent::Kind;

LoadTrace::Request Request(uint32_t chunks) {
  LoadTrace::Request request;
  request.policy = "fastest";
  request.ability = "none";
  request.chunks = chunks;
  request.levels = 4;
  return request;
}

LoadEvent At(Kind kind, int ms, uint32_t chunk = 0, int level = -1, uint64_t bytes = 0) {
  LoadEvent event;
  event.kind = kind;
  event.at = absl::Milliseconds(ms);
  event.chunk = chunk;
  event.level = level;
  event.bytes = bytes;
  return event;
}

LoadTrace Done(LoadTraceRecorder&& recorder) {
  LoadResult result;
  result.load_delay = absl::Milliseconds(100);
  result.chunks.resize(2);
  result.chunks[1].level = 2;
  return std::move(recorder).Finish(result, absl::Milliseconds(200));
}

TEST(LoadTraceRecorderTest, FoldsMessagesIntoSegmentsAndJobsIntoEvents) {
  LoadTraceRecorder recorder(Request(2));
  LoadEvent started = At(Kind::kStarted, 3);
  started.decode_seconds_per_token = 0.25;
  recorder.OnEvent(started);
  recorder.OnEvent(At(Kind::kPlan, 10, 1, 2));
  for (int ms : {11, 12, 14}) recorder.OnEvent(At(Kind::kData, ms, 1, 0, 100));
  for (int ms : {15, 20}) recorder.OnEvent(At(Kind::kData, ms, 1, 1, 7));
  recorder.OnEvent(At(Kind::kProgress, 16, 0, -1, 307));
  recorder.OnEvent(At(Kind::kDecodeBegin, 21, 1, 1));
  recorder.OnEvent(At(Kind::kDecodeEnd, 25, 1, 1));
  LoadEvent recompute = At(Kind::kRecomputeBegin, 30);
  recompute.chunks = 1;
  recorder.OnEvent(recompute);
  recompute.kind = Kind::kRecomputeEnd;
  recompute.at = absl::Milliseconds(90);
  recorder.OnEvent(recompute);
  recorder.OnEvent(At(Kind::kSummary, 95));
  const LoadTrace trace = Done(std::move(recorder));

  EXPECT_EQ(trace.sent_ms, 3);
  EXPECT_EQ(trace.request.decode_seconds_per_token, 0.25);
  ASSERT_EQ(trace.events.size(), 5u);
  EXPECT_EQ(trace.events[0].kind, LoadTrace::Kind::kPlan);
  EXPECT_EQ(trace.events[1].kind, LoadTrace::Kind::kSegment);
  EXPECT_EQ(trace.events[1].begin_ms, 11);
  EXPECT_EQ(trace.events[1].end_ms, 14);
  EXPECT_EQ(trace.events[1].bytes, 300u);
  EXPECT_EQ(trace.events[2].level, 1);
  EXPECT_EQ(trace.events[2].bytes, 14u);
  EXPECT_EQ(trace.events[3].kind, LoadTrace::Kind::kDecode);
  EXPECT_EQ(trace.events[3].end_ms, 25);
  EXPECT_EQ(trace.events[4].kind, LoadTrace::Kind::kRecompute);
  EXPECT_EQ(trace.events[4].end_ms, 90);
  ASSERT_EQ(trace.arrivals.size(), 21u);
  EXPECT_EQ(trace.arrivals[12], 100u);
  EXPECT_EQ(trace.first_byte_ms, 11);
  EXPECT_EQ(trace.last_byte_ms, 20);
  ASSERT_EQ(trace.progress.size(), 1u);
  EXPECT_EQ(trace.progress[0].bytes, 307u);
  EXPECT_EQ(trace.summary_ms, 95);
  EXPECT_TRUE(trace.ok);
  EXPECT_EQ(trace.delay_ms, 100);
  EXPECT_EQ(trace.levels, (std::vector<int>{-1, 2}));
}

TEST(LoadTraceRecorderTest, StaysWithinItsLimitsAndLosesNoArrivals) {
  constexpr uint32_t kChunks = 40000;
  LoadTraceRecorder recorder(Request(kChunks));
  uint64_t bytes = 0;
  for (uint32_t chunk = 0; chunk < kChunks; ++chunk) {
    const int ms = static_cast<int>(chunk);
    recorder.OnEvent(At(Kind::kPlan, ms, chunk, 0));
    recorder.OnEvent(At(Kind::kData, ms, chunk, 0, chunk));
    recorder.OnEvent(At(Kind::kDecodeBegin, ms, chunk, 0));
    recorder.OnEvent(At(Kind::kDecodeEnd, ms, chunk, 0));
    recorder.OnEvent(At(Kind::kProgress, ms, 0, -1, bytes));
    bytes += chunk;
  }
  const LoadTrace trace = Done(std::move(recorder));
  EXPECT_EQ(trace.events_seen, 3u * kChunks);
  EXPECT_EQ(trace.one_in, 8u);
  EXPECT_EQ(trace.events.size(), 3u * kChunks / 8);
  EXPECT_LE(trace.events.size(), LoadTrace::kEventsMax);
  EXPECT_LE(trace.progress.size(), LoadTrace::kProgressMax);
  EXPECT_GT(trace.progress.size(), LoadTrace::kProgressMax / 4);
  EXPECT_EQ(trace.progress_sent, kChunks);
  EXPECT_LE(trace.arrivals.size(), LoadTrace::kBinsMax);
  uint64_t sum = 0;
  for (uint64_t bin : trace.arrivals) sum += bin;
  EXPECT_EQ(sum, bytes);
}

TEST(LoadTraceRecorderTest, KeepsTheStoryOfALoadThatFailed) {
  LoadTraceRecorder recorder(Request(1));
  recorder.OnEvent(At(Kind::kStarted, 1));
  recorder.OnEvent(At(Kind::kData, 5, 0, 0, 10));
  const LoadTrace trace =
      std::move(recorder).Finish(absl::UnavailableError("gone"), absl::Milliseconds(70));
  EXPECT_FALSE(trace.ok);
  EXPECT_EQ(trace.error, "UNAVAILABLE: gone");
  EXPECT_EQ(trace.delay_ms, 70);
  EXPECT_EQ(trace.bytes, 10u);
  ASSERT_EQ(trace.events.size(), 1u);
  EXPECT_EQ(trace.events[0].bytes, 10u);
  EXPECT_TRUE(trace.levels.empty());
}

}  // namespace
}  // namespace kvstream

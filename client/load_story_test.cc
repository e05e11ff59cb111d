#include "client/load_story.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <numeric>
#include <string>

namespace kvstream {
namespace {

using Kind = LoadTrace::Kind;
using ::testing::HasSubstr;

// Two chunks; the request left after 5 ms.
LoadTrace Base() {
  LoadTrace trace;
  trace.request.chunks = 2;
  trace.request.tokens = 32;
  trace.request.levels = 4;
  trace.sent_ms = 5;
  trace.ok = true;
  trace.levels = {0, 0};
  return trace;
}

double Ms(const LoadStory& story, LoadCause cause) {
  return story.cause_ms[static_cast<size_t>(cause)];
}

void ExpectWhole(const LoadTrace& trace, const LoadStory& story) {
  EXPECT_NEAR(std::accumulate(story.cause_ms.begin(), story.cause_ms.end(), 0.0), trace.delay_ms,
              1e-6);
  for (const double ms : story.cause_ms) EXPECT_GE(ms, -1e-9);
}

void Arriving(LoadTrace* trace, int from_ms, int to_ms) {
  trace->arrivals.resize(static_cast<size_t>(to_ms));
  for (int ms = from_ms; ms < to_ms; ++ms) trace->arrivals[static_cast<size_t>(ms)] = 1000;
  if (trace->first_byte_ms < 0) trace->first_byte_ms = from_ms;
  trace->last_byte_ms = to_ms;
  trace->bytes += 1000u * static_cast<uint64_t>(to_ms - from_ms);
}

TEST(LoadStoryTest, ALoadThatTheLinkBinds) {
  LoadTrace trace = Base();
  Arriving(&trace, 25, 205);
  trace.events = {{Kind::kSegment, 25, 115, 0, 1, 0, 90000},
                  {Kind::kDecode, 115, 125, 0, 1, 0, 0},
                  {Kind::kSegment, 115, 205, 1, 1, 0, 90000},
                  {Kind::kDecode, 206, 215, 1, 1, 0, 0}};
  trace.delay_ms = 215;
  const LoadStory story = ExplainLoad(trace);
  ExpectWhole(trace, story);
  EXPECT_EQ(story.bound, LoadCause::kLink);
  EXPECT_EQ(Ms(story, LoadCause::kConnect), 5);
  EXPECT_EQ(Ms(story, LoadCause::kFirstAnswer), 20);
  EXPECT_EQ(Ms(story, LoadCause::kLink), 180);
  EXPECT_EQ(Ms(story, LoadCause::kDecode), 9);
  EXPECT_EQ(Ms(story, LoadCause::kClient), 1);
  EXPECT_EQ(*story.all_in_place_ms, 215);
  EXPECT_EQ(story.decode_busy_ms, 19);
  EXPECT_THAT(story.words[0], HasSubstr("The link bound the delay: for 180 ms of 215 ms (84 %)"));
  EXPECT_NEAR(story.arriving_bytes_per_second, 1e6, 1);
}

TEST(LoadStoryTest, ALoadThatDecodingBinds) {
  LoadTrace trace = Base();
  Arriving(&trace, 10, 20);
  trace.events = {{Kind::kSegment, 10, 15, 0, 1, 0, 5000},
                  {Kind::kDecode, 15, 115, 0, 1, 0, 0},
                  {Kind::kSegment, 15, 20, 1, 1, 0, 5000},
                  {Kind::kDecode, 115, 215, 1, 1, 0, 0}};
  trace.delay_ms = 215;
  const LoadStory story = ExplainLoad(trace);
  ExpectWhole(trace, story);
  EXPECT_EQ(story.bound, LoadCause::kDecode);
  EXPECT_EQ(Ms(story, LoadCause::kDecode), 200);
  EXPECT_EQ(Ms(story, LoadCause::kLink), 5);
}

TEST(LoadStoryTest, ALoadThatRecomputeBinds) {
  LoadTrace trace = Base();
  trace.events = {{Kind::kPlan, 30, 30, 0, 1, -1, 0},
                  {Kind::kPlan, 30, 30, 1, 1, -1, 0},
                  {Kind::kRecompute, 30, 330, 0, 2, -1, 0}};
  trace.delay_ms = 330;
  trace.levels = {-1, -1};
  const LoadStory story = ExplainLoad(trace);
  ExpectWhole(trace, story);
  EXPECT_EQ(story.bound, LoadCause::kRecompute);
  EXPECT_EQ(Ms(story, LoadCause::kRecompute), 300);
  EXPECT_EQ(Ms(story, LoadCause::kFirstAnswer), 25);
  EXPECT_EQ(story.chunks_recomputed, 2);
}

// 30 to 430 ms without a byte; whose silence that was, the server's samples say.
LoadTrace Silent(bool under_way) {
  LoadTrace trace = Base();
  Arriving(&trace, 10, 30);
  Arriving(&trace, 430, 440);
  trace.events = {{Kind::kSegment, 10, 30, 0, 1, 0, 20000},
                  {Kind::kSegment, 430, 440, 1, 1, 0, 10000},
                  {Kind::kDecode, 440, 441, 1, 1, 0, 0}};
  trace.delay_ms = 441;
  ServerSample sample;
  sample.at = absl::Milliseconds(20);
  sample.bytes_sent = 30000;
  sample.bytes_acknowledged = under_way ? 10000 : 30000;
  trace.server = {sample};
  return trace;
}

TEST(LoadStoryTest, TellsAStalledLinkFromASilentServer) {
  const LoadTrace stalled = Silent(true), silent = Silent(false);
  LoadStory story = ExplainLoad(stalled);
  ExpectWhole(stalled, story);
  EXPECT_EQ(story.bound, LoadCause::kStall);
  EXPECT_EQ(Ms(story, LoadCause::kStall), 400);
  story = ExplainLoad(silent);
  ExpectWhole(silent, story);
  EXPECT_EQ(story.bound, LoadCause::kServer);
  EXPECT_EQ(Ms(story, LoadCause::kServer), 400);
  EXPECT_FALSE(story.all_in_place_ms.has_value()) << "nothing says that chunk 0 was decoded";
}

TEST(LoadStoryTest, SaysWhatADeadlineWasUsedFor) {
  LoadTrace trace = Base();
  trace.request.deadline_ms = 400;
  Arriving(&trace, 10, 300);
  trace.events = {{Kind::kSegment, 10, 20, 0, 1, 0, 1},  {Kind::kDecode, 20, 30, 0, 1, 0, 0},
                  {Kind::kSegment, 20, 40, 1, 1, 0, 1},  {Kind::kDecode, 40, 50, 1, 1, 0, 0},
                  {Kind::kSegment, 50, 300, 1, 1, 1, 1}, {Kind::kDecode, 300, 310, 1, 1, 1, 0}};
  trace.delay_ms = 310;
  trace.levels = {0, 1};
  const LoadStory story = ExplainLoad(trace);
  ExpectWhole(trace, story);
  EXPECT_EQ(*story.all_in_place_ms, 50);
  EXPECT_THAT(story.words[1], HasSubstr("met with 90 ms to spare. Every chunk was in place at 50"));
}

TEST(LoadStoryTest, ALoadThatFailedOrWasEmptyHasAStoryToo) {
  LoadTrace trace = Base();
  trace.ok = false;
  trace.error = "UNAVAILABLE: gone";
  trace.delay_ms = 70;
  const LoadStory story = ExplainLoad(trace);
  ExpectWhole(trace, story);
  EXPECT_EQ(story.words[0], "The load failed: UNAVAILABLE: gone");
  EXPECT_EQ(story.bound, LoadCause::kFirstAnswer);
}

// Whatever order events have, the walk ends and no moment is counted twice.
TEST(LoadStoryTest, EveryMomentIsCountedOnceInOddTraces) {
  LoadTrace trace = Base();
  trace.delay_ms = 50;
  trace.events = {{Kind::kDecode, 0, 500, 0, 1, 3, 0},  {Kind::kDecode, 0, 0, 0, 1, 3, 0},
                  {Kind::kDecode, 10, 10, 1, 1, 3, 0},  {Kind::kDecode, 10, 10, 1, 1, 3, 0},
                  {Kind::kSegment, 30, 90, 1, 1, 3, 0}, {Kind::kRecompute, 40, 45, 0, 2, -1, 0}};
  ExpectWhole(trace, ExplainLoad(trace));
  trace.sent_ms = 1000;
  ExpectWhole(trace, ExplainLoad(trace));
  trace.first_byte_ms = 3;
  trace.arrivals = {5, 0, 0, 9};
  trace.bin_ms = 1e9;
  ExpectWhole(trace, ExplainLoad(trace));
}

}  // namespace
}  // namespace kvstream

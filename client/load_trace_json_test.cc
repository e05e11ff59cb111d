#include "client/load_trace_json.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>
#include <string>

#include "absl/strings/str_replace.h"

namespace kvstream {
namespace {

using ::testing::HasSubstr;

LoadTrace Example() {
  LoadTrace trace;
  trace.request.policy = "deadline";
  trace.request.ability = "any";
  trace.request.deadline_ms = 500;
  trace.request.tokens = 40;
  trace.request.chunk_tokens = 16;
  trace.request.chunks = 3;
  trace.request.levels = 4;
  trace.request.floor_level = 1;
  trace.request.values_per_token = 64;
  trace.request.decode_seconds_per_token = 1e-6;
  trace.sent_ms = 1.5;
  trace.events = {{LoadTrace::Kind::kPlan, 10, 10, 0, 1, -1, 0},
                  {LoadTrace::Kind::kSegment, 11, 12.25, 2, 1, 3, 77},
                  {LoadTrace::Kind::kDecode, 12.25, 14, 2, 1, 3, 0},
                  {LoadTrace::Kind::kRecompute, 13, 19, 0, 2, -1, 0}};
  trace.events_seen = 4;
  trace.arrivals = {0, 0, 77};
  trace.bin_ms = 4;
  trace.first_byte_ms = 11;
  trace.last_byte_ms = 12.25;
  trace.progress = {{12, 77, 1}};
  trace.progress_sent = 1;
  ServerSample sample;
  sample.at = absl::Milliseconds(9);
  sample.estimate_bytes_per_second = 1e6;
  sample.promised_bytes_per_second = 5e5;
  sample.lower_bound = true;
  sample.window_bytes = 65536;
  sample.bytes_sent = 77;
  sample.bytes_acknowledged = 70;
  trace.server = {sample};
  trace.ok = true;
  trace.delay_ms = 19;
  trace.summary_ms = 20;
  trace.bytes = 77;
  trace.estimate_bytes_per_second = 1e6;
  trace.levels = {-1, -1, 3};
  return trace;
}

TEST(LoadTraceJsonTest, ReadsWhatItWrote) {
  const std::string text = LoadTraceToJson(Example());
  const absl::StatusOr<LoadTrace> trace = ParseLoadTrace(text);
  ASSERT_TRUE(trace.ok()) << trace.status();
  EXPECT_EQ(LoadTraceToJson(*trace), text);
  EXPECT_EQ(trace->events.size(), 4u);
  EXPECT_EQ(trace->events[3].chunks, 2u);
  EXPECT_EQ(trace->levels, Example().levels);
  EXPECT_EQ(trace->server[0].at, absl::Milliseconds(9));
  EXPECT_TRUE(trace->server[0].lower_bound);
}

TEST(LoadTraceJsonTest, ReadsWhatItWroteOfAHostileServer) {
  LoadTrace trace = Example();
  trace.ok = false;
  trace.error = std::string(10000, '\xff') + "</script>";
  trace.server[0].estimate_bytes_per_second = std::numeric_limits<double>::max();
  trace.server[0].window_bytes = std::numeric_limits<uint64_t>::max();
  trace.server[0].at = absl::Hours(24 * 365 * 100);
  trace.levels.clear();
  const absl::StatusOr<LoadTrace> read = ParseLoadTrace(LoadTraceToJson(trace));
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_FALSE(read->ok);
}

TEST(LoadTraceJsonTest, NamesTheKeyThatIsWrong) {
  const std::string text = LoadTraceToJson(Example());
  const struct {
    const char* from;
    const char* to;
    const char* error;
  } cases[] = {
      {"{\"kvstream_load_trace\":1", "{\"kvstream_load_trace\":2", "version 2"},
      {"{\"kvstream_load_trace\":1", "{\"other\":1", "no trace"},
      {"\"chunks\":3", "\"chunks\":0", "request.chunks"},
      {"\"chunks\":3", "\"chunks\":-3", "request.chunks"},
      {"\"chunks\":3", "\"chunks\":70000", "request.chunks"},
      {"\"chunks\":3", "\"chunks\":\"3\"", "request.chunks"},
      {"\"levels\":4", "\"levels\":1000000", "request.levels"},
      {"\"sent_ms\":1.5", "\"sent_ms\":1e300", "sent_ms"},
      {"\"kind\":\"segment\"", "\"kind\":\"segments\"", "kind"},
      {"\"kind\":\"segment\"", "\"kind\":{}", "kind"},
      {"\"begin_ms\":11.0", "\"begin_ms\":9.0", "events are not in order"},
      {"\"end_ms\":12.25", "\"end_ms\":10.0", "end_ms"},
      {"\"chunk\":2", "\"chunk\":3", "chunk"},
      {"\"chunks\":2", "\"chunks\":4", "chunks"},
      {"\"bytes\":77", "\"bytes\":7.5", "bytes"},
      {"\"bytes\":77", "\"bytes\":99999999999999999999", "bytes"},
      {"\"arrivals\":[0,0,77]", "\"arrivals\":[0,0,null]", "arrivals"},
      {"\"arrivals\":[0,0,77]", "\"arrivals\":{}", "arrivals is no array"},
      {"\"bin_ms\":4.0", "\"bin_ms\":0", "bin_ms"},
      {"\"levels\":[null,null,3]", "\"levels\":[null,null,4]", "levels"},
      {"\"levels\":[null,null,3]", "\"levels\":[null]", "levels"},
      {"\"server\":[{", "\"server\":[1,{", "server[]"},
  };
  for (const auto& one : cases) {
    const std::string broken = absl::StrReplaceAll(text, {{one.from, one.to}});
    ASSERT_NE(broken, text) << one.from;
    const absl::StatusOr<LoadTrace> trace = ParseLoadTrace(broken);
    EXPECT_EQ(trace.status().code(), absl::StatusCode::kInvalidArgument) << one.to;
    EXPECT_THAT(std::string(trace.status().message()), HasSubstr(one.error)) << one.to;
  }
}

TEST(LoadTraceJsonTest, RefusesWhatIsNoJsonOrTooMuch) {
  for (const std::string& text :
       {std::string(), std::string("null"), std::string("[]"), std::string("{"),
        std::string("{\"kvstream_load_trace\":1}"), std::string(1 << 20, '['),
        std::string(kLoadTraceBytesMax + 1, ' ')}) {
    EXPECT_EQ(ParseLoadTrace(text).status().code(), absl::StatusCode::kInvalidArgument);
  }
  LoadTrace many = Example();
  many.events.resize(LoadTrace::kEventsMax + 1, many.events[0]);
  EXPECT_FALSE(ParseLoadTrace(LoadTraceToJson(many)).ok());
  LoadTrace again = Example();
  again.events.resize(20, again.events.back());
  EXPECT_THAT(std::string(ParseLoadTrace(LoadTraceToJson(again)).status().message()),
              HasSubstr("recompute more chunks"));
}

}  // namespace
}  // namespace kvstream

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <iterator>
#include <string>

#include "client/cli/explain_html.h"
#include "client/cli/explain_text.h"
#include "client/load_story.h"
#include "client/load_trace_json.h"

namespace kvstream::cli {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

std::string Read(const std::string& name) {
  std::ifstream file("client/testing/" + name, std::ios::binary);
  EXPECT_TRUE(file.good()) << name;
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

LoadTrace Golden() {
  absl::StatusOr<LoadTrace> trace = ParseLoadTrace(Read("golden_load.json"));
  EXPECT_TRUE(trace.ok()) << trace.status();
  return *std::move(trace);
}

// After a change that is meant: kvstreamctl explain client/testing/golden_load.json >
// client/testing/golden_load.txt
TEST(ExplainTest, DrawsTheGoldenLoad) {
  const LoadTrace trace = Golden();
  EXPECT_EQ(ExplainText(trace, ExplainLoad(trace)), Read("golden_load.txt"));
}

TEST(ExplainTest, ManyChunksShareRows) {
  LoadTrace trace = Golden();
  trace.request.chunks = LoadTrace::kChunksMax;
  const std::string text = ExplainText(trace, ExplainLoad(trace));
  EXPECT_THAT(text, HasSubstr("a row is 2731 chunks"));
}

TEST(ExplainTest, PageIsSelfContained) {
  const LoadTrace trace = Golden();
  const std::string page = ExplainHtml(trace, ExplainLoad(trace));
  EXPECT_THAT(page, HasSubstr("<svg"));
  EXPECT_THAT(page, HasSubstr("deadline"));
  EXPECT_THAT(page, HasSubstr("default-src 'none'"));
  for (const char* fetched : {"http:", "https:", "src=", "href", "url(", "<script", "@import"}) {
    EXPECT_THAT(page, Not(HasSubstr(fetched)));
  }
}

TEST(ExplainTest, ForeignTextCanNeitherBeMarkupNorSteerATerminal) {
  LoadTrace trace = Golden();
  trace.ok = false;
  trace.request.policy = "\x1b[2Jx<script>alert(1)</script>";
  trace.request.ability = "\"'&\n";
  trace.error = "<img src=x>\x07\xc3\xa4";
  const LoadStory story = ExplainLoad(trace);
  const std::string page = ExplainHtml(trace, story);
  EXPECT_THAT(page, Not(HasSubstr("<script")));
  EXPECT_THAT(page, Not(HasSubstr("<img")));
  EXPECT_THAT(page, HasSubstr("?[2Jx&lt;script&gt;alert(1)&lt;/script&gt;"));
  EXPECT_THAT(page, HasSubstr("&quot;&#39;&amp;?"));
  const std::string text = ExplainText(trace, story);
  EXPECT_EQ(text.find('\x1b'), std::string::npos);
  EXPECT_EQ(text.find('\x07'), std::string::npos);
}

TEST(ExplainTest, AnEmptyFailedLoadIsDrawn) {
  LoadTrace trace;
  trace.request.chunks = 1;
  trace.request.levels = 1;
  const LoadStory story = ExplainLoad(trace);
  EXPECT_THAT(ExplainText(trace, story), HasSubstr("failed after"));
  EXPECT_THAT(ExplainHtml(trace, story), HasSubstr("</html>"));
}

}  // namespace
}  // namespace kvstream::cli

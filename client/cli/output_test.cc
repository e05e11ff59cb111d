#include "client/cli/output.h"

#include <fstream>
#include <string>

#include "absl/strings/str_cat.h"
#include "client/cli/command.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace kvstream::cli {
namespace {

using ::testing::HasSubstr;

TEST(ErrorLineTest, IsOneLineWhateverTheMessage) {
  EXPECT_EQ(ErrorLine("load", absl::NotFoundError("no\nsuch\r\n\tchunk\n")),
            "kvstreamctl load: no such   chunk");
  EXPECT_EQ(ErrorLine("", absl::InvalidArgumentError("bad")), "kvstreamctl: bad");
  EXPECT_EQ(ErrorLine("put", absl::Status(absl::StatusCode::kUnavailable, "")),
            "kvstreamctl put: UNAVAILABLE");
}

TEST(PrintTest, WritesOneLineOfJsonOrTheText) {
  testing::internal::CaptureStdout();
  EXPECT_TRUE(Print(Format::kJson, {{"b", 1}, {"a", "\xff"}}, "text").ok());
  EXPECT_EQ(testing::internal::GetCapturedStdout(), "{\"b\":1,\"a\":\"\xEF\xBF\xBD\"}\n");
  testing::internal::CaptureStdout();
  EXPECT_TRUE(Print(Format::kHuman, {{"b", 1}}, "text").ok());
  EXPECT_EQ(testing::internal::GetCapturedStdout(), "text\n");
}

TEST(ProgressBarTest, IsSilentWithoutATerminal) {
  testing::internal::CaptureStderr();
  {
    ProgressBar bar(Format::kHuman, "working", 10);
    for (int i = 0; i <= 10; ++i) bar.Update(i);
  }
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "");
}

TEST(HexIdTest, ParsesWhatItPrints) {
  ChunkId id;
  for (size_t i = 0; i < id.size(); ++i) id[i] = static_cast<uint8_t>(i * 9);
  const auto parsed = ParseHexId(HexOf(id));
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  EXPECT_EQ(*parsed, id);
  for (const std::string& text : {std::string(), std::string(63, 'a'), std::string(65, 'a'),
                                  std::string(63, 'a') + "g", std::string(64, ' ')}) {
    EXPECT_EQ(ParseHexId(text).status().code(), absl::StatusCode::kInvalidArgument) << text;
  }
}

TEST(ReadFileTest, NamesThePathInErrors) {
  const std::string path = absl::StrCat(testing::TempDir(), "/file");
  std::ofstream(path) << "12345";
  EXPECT_EQ(*ReadFile(path, 5), "12345");
  EXPECT_THAT(std::string(ReadFile(path, 4).status().message()), HasSubstr("5 bytes, more than 4"));
  EXPECT_EQ(ReadFile(absl::StrCat(path, "-absent"), 5).status().code(),
            absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(ReadFile(testing::TempDir(), 5).status().message()),
              HasSubstr(testing::TempDir()));
  EXPECT_FALSE(ReadFile(testing::TempDir(), ~uint64_t{0}).ok());
}

}  // namespace
}  // namespace kvstream::cli

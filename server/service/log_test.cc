#include "server/service/log.h"

#include <gtest/gtest.h>
#include <spdlog/sinks/ostream_sink.h>

#include <limits>
#include <nlohmann/json.hpp>
#include <sstream>

namespace kvstream {
namespace {

std::string Written(absl::string_view level, LogFormat format, LogLevel of, absl::string_view event,
                    std::initializer_list<LogField> fields) {
  std::ostringstream out;
  Log log(level, format, std::make_shared<spdlog::sinks::ostream_sink_mt>(out));
  log.Write(of, event, fields);
  return out.str();
}

TEST(LogTest, JsonLineHasTheFieldsWithTheirTypes) {
  const std::string line = Written("info", LogFormat::kJson, LogLevel::kWarn, "load failed",
                                   {{"chunks", 12},
                                    {"ratio", 0.5},
                                    {"ok", true},
                                    {"peer", "ipv4:1"},
                                    {"none", std::numeric_limits<double>::quiet_NaN()}});
  const auto json = nlohmann::json::parse(line);
  EXPECT_EQ(json["event"], "load failed");
  EXPECT_EQ(json["level"], "warning");
  EXPECT_EQ(json["chunks"], 12);
  EXPECT_EQ(json["ratio"], 0.5);
  EXPECT_EQ(json["ok"], true);
  EXPECT_EQ(json["peer"], "ipv4:1");
  EXPECT_TRUE(json["none"].is_null());
  EXPECT_TRUE(json["time"].is_string());
}

TEST(LogTest, HostileTextStaysOneLineOfValidJson) {
  const std::string hostile("a\nb\"}\x01\xff\0{}", 11);
  const std::string line =
      Written("info", LogFormat::kJson, LogLevel::kInfo, "event", {{"name", hostile}});
  EXPECT_EQ(line.find('\n'), line.size() - 1);
  EXPECT_TRUE(nlohmann::json::accept(line)) << line;
  const std::string text =
      Written("info", LogFormat::kText, LogLevel::kInfo, "event", {{"name", hostile}});
  EXPECT_EQ(text.find('\n'), text.size() - 1);
}

TEST(LogTest, TextQuotesWhatHasSpaces) {
  const std::string line = Written("info", LogFormat::kText, LogLevel::kInfo, "ready",
                                   {{"a", "plain"}, {"b", "two words"}, {"c", ""}, {"n", 3}});
  EXPECT_NE(line.find("ready a=plain b=\"two words\" c=\"\" n=3"), std::string::npos) << line;
}

TEST(LogTest, LowerSeveritiesAreLeftOut) {
  EXPECT_EQ(Written("error", LogFormat::kText, LogLevel::kWarn, "x", {}), "");
  EXPECT_NE(Written("error", LogFormat::kText, LogLevel::kError, "x", {}), "");
  EXPECT_EQ(Written("off", LogFormat::kText, LogLevel::kError, "x", {}), "");
}

}  // namespace
}  // namespace kvstream

#include "server/service/options.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <map>

#include "server/service/options_sources.h"
#include "server/service/units.h"

namespace kvstream {
namespace {

using ::testing::HasSubstr;

Environment FakeEnvironment(std::map<std::string, std::string> values) {
  return [values](const std::string& name) -> absl::optional<std::string> {
    const auto value = values.find(name);
    if (value == values.end()) return absl::nullopt;
    return value->second;
  };
}

std::string WriteConfig(const std::string& name, const std::string& text) {
  const std::string path = ::testing::TempDir() + name;
  std::ofstream(path) << text;
  return path;
}

std::string ErrorOf(const std::vector<std::string>& arguments,
                    std::map<std::string, std::string> environment = {}) {
  const auto line = ReadOptions(arguments, FakeEnvironment(std::move(environment)));
  return line.ok() ? "" : std::string(line.status().message());
}

TEST(UnitsTest, ReadsSizes) {
  EXPECT_EQ(*ParseByteSize("65536"), 65536u);
  EXPECT_EQ(*ParseByteSize("64MiB"), uint64_t{64} << 20);
  EXPECT_EQ(*ParseByteSize(" 1.5 gib "), uint64_t{3} << 29);
  EXPECT_EQ(*ParseByteSize("2GB"), 2000000000u);
  EXPECT_EQ(*ParseByteSize("0"), 0u);
  EXPECT_EQ(*ParseByteSize("9223372036854775807"), uint64_t{9223372036854775807u});
}

TEST(UnitsTest, RefusesWhatIsNoSize) {
  for (const char* text :
       {"", "MiB", "-1", "1.2.3MiB", "12XB", "0.3", "1e6", "9223372036854775808", "8388608TiB",
        "99999999999999999999999999999999999999999999", ".5GiB", "1.0000000000GiB", "1 2"}) {
    EXPECT_FALSE(ParseByteSize(text).ok()) << text;
  }
}

TEST(UnitsTest, SizesComeBackFromTheirText) {
  for (uint64_t bytes : {uint64_t{0}, uint64_t{1}, uint64_t{1000}, uint64_t{4096},
                         uint64_t{3} << 29, uint64_t{5} << 40}) {
    EXPECT_EQ(*ParseByteSize(FormatByteSize(bytes)), bytes);
  }
  EXPECT_EQ(FormatByteSize(uint64_t{64} << 20), "64MiB");
}

TEST(UnitsTest, ReadsDelaysAndRefusesWhatIsNone) {
  EXPECT_EQ(*ParseDelay("500ms"), absl::Milliseconds(500));
  EXPECT_EQ(*ParseDelay("1m30s"), absl::Seconds(90));
  for (const char* text : {"", "5", "-1s", "inf", "soon"})
    EXPECT_FALSE(ParseDelay(text).ok()) << text;
}

TEST(OptionsTest, DefaultsAreValidAndEveryFieldRoundTrips) {
  const ServerOptions defaults;
  ASSERT_TRUE(defaults.Validate().ok());
  for (const OptionField& field : OptionFields()) {
    ServerOptions options;
    EXPECT_TRUE(field.set(field.get(defaults), options).ok()) << field.name;
    EXPECT_EQ(field.get(options), field.get(defaults)) << field.name;
  }
}

TEST(OptionsTest, FlagsWinOverEnvironmentOverFileOverDefaults) {
  const std::string file = WriteConfig(
      "precedence.yaml", "max-loads: 1\nmax-puts: 2\ndata-dir: /file\nlog-format: json\n");
  const auto line = ReadOptions(
      {"--config", file, "--max-loads=3"},
      FakeEnvironment({{"KVSTREAM_MAX_LOADS", "4"}, {"KVSTREAM_DATA_DIR", "/environment"}}));
  ASSERT_TRUE(line.ok()) << line.status();
  EXPECT_EQ(line->options.max_loads, 3);
  EXPECT_EQ(line->options.data_dir, "/environment");
  EXPECT_EQ(line->options.max_puts, 2);
  EXPECT_EQ(line->options.log_format, LogFormat::kJson);
  EXPECT_EQ(line->options.listen, "127.0.0.1:7411");
}

TEST(OptionsTest, FlagThatRepeatsTheDefaultStillWins) {
  const auto line =
      ReadOptions({"--max-puts", "64"}, FakeEnvironment({{"KVSTREAM_MAX_PUTS", "5"}}));
  ASSERT_TRUE(line.ok()) << line.status();
  EXPECT_EQ(line->options.max_puts, 64);
}

TEST(OptionsTest, EnvironmentNamesTheConfigurationFile) {
  const std::string file = WriteConfig("named.yaml", "put-buffer-bytes: 512MiB\n");
  const auto line = ReadOptions({}, FakeEnvironment({{"KVSTREAM_CONFIG", file}}));
  ASSERT_TRUE(line.ok()) << line.status();
  EXPECT_EQ(line->options.put_buffer_bytes, uint64_t{512} << 20);
}

TEST(OptionsTest, ErrorsNameTheirSourceAndWhatToDo) {
  EXPECT_THAT(ErrorOf({"--no-such-flag"}), HasSubstr("--no-such-flag"));
  EXPECT_THAT(ErrorOf({"--max-loads=many"}), HasSubstr("--max-loads: \"many\""));
  EXPECT_THAT(ErrorOf({"stray"}), HasSubstr("stray"));
  EXPECT_THAT(ErrorOf({}, {{"KVSTREAM_FRAME_BYTES", "1ZiB"}}), HasSubstr("KVSTREAM_FRAME_BYTES"));
  EXPECT_THAT(ErrorOf({"--config", "/no/such/file"}), HasSubstr("/no/such/file"));
  EXPECT_THAT(ErrorOf({"--listen", "7411"}), HasSubstr("--listen"));
  EXPECT_THAT(ErrorOf({"--store", "redis"}), HasSubstr("rocksdb|memory"));
}

TEST(OptionsTest, FileWithUnknownRepeatedOrNestedKeysIsRefused) {
  ServerOptions options;
  EXPECT_THAT(std::string(ApplyYaml("max-load: 3", "f", options).message()), HasSubstr("max-load"));
  EXPECT_THAT(std::string(ApplyYaml("max-loads: 3\nmax-loads: 4", "f", options).message()),
              HasSubstr("twice"));
  EXPECT_FALSE(ApplyYaml("max-loads: {a: 1}", "f", options).ok());
  EXPECT_FALSE(ApplyYaml("- max-loads", "f", options).ok());
  EXPECT_FALSE(ApplyYaml("max-loads: [", "f", options).ok());
  EXPECT_FALSE(ApplyYaml("[1]: 2", "f", options).ok());
  EXPECT_TRUE(ApplyYaml("", "f", options).ok());
  EXPECT_TRUE(ApplyYaml("# only a comment\n", "f", options).ok());
}

TEST(OptionsTest, RangesAreChecked) {
  for (const char* flag :
       {"--max-loads=0", "--frame-bytes=2MiB", "--frame-bytes=1", "--window-bytes-min=256MiB",
        "--listen=127.0.0.1:65536", "--listen=::1:7411", "--http-listen=:7412",
        "--data-dir=", "--log-level=loud", "--client-idle-timeout=0s", "--read-threads=0",
        "--max-chunk-bytes=2GiB", "--put-buffer-bytes=1MiB", "--rados-timeout=0s",
        "--rados-staleness=21s"}) {
    EXPECT_NE(ErrorOf({flag}), "") << flag;
  }
  EXPECT_EQ(ErrorOf({"--store=memory", "--data-dir=", "--listen=[::1]:0"}), "");
  EXPECT_EQ(ErrorOf({"--store=memory", "--capacity-bytes=1GiB"}), "");
  EXPECT_EQ(ErrorOf({"--put-buffer-bytes-per-tenant=256MiB"}), "");
  EXPECT_NE(ErrorOf({"--put-buffer-bytes-per-tenant=255MiB"}), "");
  EXPECT_NE(ErrorOf({"--max-puts-per-tenant=-1"}), "");
  EXPECT_EQ(ErrorOf({"--store=rados", "--data-dir=", "--rados-namespace=kv"}), "");
  EXPECT_NE(ErrorOf({"--store=rados", "--rados-pool="}), "");
  EXPECT_EQ(ErrorOf({"--store=rados", "--capacity-bytes=1GiB"}), "");
  EXPECT_EQ(ErrorOf({"--store=rados", "--rados-capacity-bytes=4096TiB"}), "");
  EXPECT_NE(ErrorOf({"--store=rados", "--rados-capacity-bytes=1GiB", "--capacity-bytes=2GiB"}), "");
  EXPECT_NE(ErrorOf({"--store=rados", "--rados-capacity-bytes=1MiB"}), "");
  EXPECT_NE(ErrorOf({"--rados-capacity-bytes=1GiB"}), "") << "RocksDB's is another";
  EXPECT_EQ(ErrorOf({"--store=rados", "--rados-shards=1024"}), "");
  EXPECT_NE(ErrorOf({"--store=rados", "--rados-shards=1000"}), "");
  EXPECT_NE(ErrorOf({"--store=rados", "--rados-shards=8192"}), "");
  EXPECT_NE(ErrorOf({"--rados-shards=256"}), "") << "RocksDB has none";
  EXPECT_EQ(ErrorOf({"--store=tiered", "--capacity-bytes=1GiB"}), "");
  EXPECT_NE(ErrorOf({"--store=tiered"}), "") << "a cache without a bound";
  EXPECT_NE(ErrorOf({"--store=tiered", "--capacity-bytes=1GiB", "--data-dir="}), "");
}

TEST(OptionsTest, PrintedConfigurationReadsBackTheSame) {
  const auto printed =
      ReadOptions({"--print-config", "--max-loads=77", "--data-dir=/a b: c"}, FakeEnvironment({}));
  ASSERT_TRUE(printed.ok()) << printed.status();
  ASSERT_TRUE(printed->text.has_value());
  ServerOptions options;
  ASSERT_TRUE(ApplyYaml(*printed->text, "printed", options).ok());
  EXPECT_EQ(options.max_loads, 77);
  EXPECT_EQ(options.data_dir, "/a b: c");
  for (const OptionField& field : OptionFields()) {
    EXPECT_EQ(field.get(options), field.get(printed->options)) << field.name;
  }
}

TEST(OptionsTest, HelpAndVersionAreTexts) {
  const auto help = ReadOptions({"--help"}, FakeEnvironment({}));
  ASSERT_TRUE(help.ok()) << help.status();
  for (const OptionField& field : OptionFields()) {
    EXPECT_THAT(*help->text, HasSubstr("--" + std::string(field.name)));
  }
  const auto version = ReadOptions({"--version"}, FakeEnvironment({}));
  ASSERT_TRUE(version.ok()) << version.status();
  EXPECT_THAT(*version->text, HasSubstr("kvstreamd "));
}

}  // namespace
}  // namespace kvstream

#include "server/service/tenants_file.h"

#include <gtest/gtest.h>

#include <fstream>
#include <random>
#include <string>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace kvstream {
namespace {

std::string Hash(char digit) { return std::string(64, digit); }

std::string Good() {
  return absl::StrCat(
      "tenants:\n"
      "  - name: team-a\n"
      "    quota-bytes: 2GiB\n"
      "    token-sha256: [",
      Hash('a'), ", ", Hash('B'),
      "]\n"
      "    certificates: a.example.com\n"
      "    pin-bytes: 1MiB\n"
      "    max-loads: 7\n"
      "    max-puts: 3\n"
      "    put-buffer-bytes: 1GiB\n"
      "  - name: operator\n"
      "    token-sha256: ",
      Hash('c'),
      "\n"
      "    admin: true\n"
      "  - name: gone\n");
}

void ExpectRefused(const std::string& yaml, absl::string_view saying) {
  const auto entries = ParseTenants(yaml, "the file");
  EXPECT_TRUE(absl::IsInvalidArgument(entries.status())) << yaml;
  EXPECT_TRUE(absl::StartsWith(entries.status().message(), "the file: ")) << entries.status();
  EXPECT_TRUE(absl::StrContains(entries.status().message(), saying)) << entries.status();
}

TEST(TenantsFileTest, ReadsEveryKey) {
  const auto entries = ParseTenants(Good(), "the file");
  ASSERT_TRUE(entries.ok()) << entries.status();
  ASSERT_EQ(entries->size(), 3);
  const TenantEntry& a = (*entries)[0];
  EXPECT_EQ(a.name, "team-a");
  EXPECT_EQ(a.quota_bytes, uint64_t{2} << 30);
  ASSERT_EQ(a.token_hashes.size(), 2);
  EXPECT_EQ(a.token_hashes[0][0], 0xaa);
  EXPECT_EQ(a.token_hashes[1][31], 0xbb);
  EXPECT_EQ(a.certificates, std::vector<std::string>{"a.example.com"});
  EXPECT_FALSE(a.admin);
  EXPECT_EQ(a.pin_bytes, uint64_t{1} << 20);
  EXPECT_EQ(a.max_loads, 7);
  EXPECT_FALSE((*entries)[1].pin_bytes.has_value());
  EXPECT_EQ(a.max_puts, 3);
  EXPECT_EQ(a.put_buffer_bytes, uint64_t{1} << 30);
  EXPECT_FALSE((*entries)[1].max_loads.has_value());
  EXPECT_FALSE((*entries)[1].max_puts.has_value());
  EXPECT_FALSE((*entries)[1].put_buffer_bytes.has_value());
  EXPECT_TRUE((*entries)[1].admin);
  EXPECT_EQ((*entries)[1].quota_bytes, 0);
  EXPECT_TRUE((*entries)[2].token_hashes.empty());
}

TEST(TenantsFileTest, SaysWhatIsWrong) {
  ExpectRefused("", "one key \"tenants\"");
  for (const std::string value : {"-1", "100001", "1.5", "many", "[1]", "\"\""}) {
    for (const std::string key : {"max-loads", "max-puts"}) {
      ExpectRefused(absl::StrCat("tenants:\n  - name: a\n    ", key, ": ", value, "\n"),
                    "not a number from 0 to 100000");
    }
  }
  ExpectRefused("tenants:\n  - name: a\n    pin-bytes: [1]\n", "is not a size");
  ExpectRefused("tenants:\n  - name: a\n    put-buffer-bytes: {}\n", "is not a size");
  ExpectRefused("tenants: 3", "one key \"tenants\"");
  ExpectRefused("tenants: []", "0 entries");
  ExpectRefused("tenants: [{name: a}]\nmore: 1", "one key");
  ExpectRefused("tenants: [3]", "entry 1: is not a mapping");
  ExpectRefused("tenants: [{name: a}, {admin: true}]", "entry 2: has no name");
  ExpectRefused("tenants: [{name: a}, {name: a}]", "entry 2: \"name\" a is the name of two");
  ExpectRefused("tenants: [{name: a, nmae: b}]", "\"nmae\" is not a key");
  ExpectRefused("tenants: [{name: a, quota-bytes: much}]", "\"quota-bytes\"");
  ExpectRefused("tenants: [{name: a, quota-bytes: [1]}]", "is not a size");
  ExpectRefused("tenants: [{name: a, admin: maybe}]", "neither true nor false");
  ExpectRefused("tenants: [{name: a, certificates: \"\"}]", "a name of 0 bytes");
  ExpectRefused("tenants: [{name: a, certificates: [[x]]}]", "not a text");
  ExpectRefused("tenants: [{name: a, certificates: x}, {name: b, certificates: x}]", "twice");
  ExpectRefused(absl::StrCat("tenants: [{name: a, token-sha256: ", Hash('1'),
                             "}, {name: b, token-sha256: ", Hash('1'), "}]"),
                "twice");
  ExpectRefused("tenants: [{name: a", "end of");
  ExpectRefused(std::string(kMaxTenantsFileBytes + 1, ' '), "bytes; at most");
}

TEST(TenantsFileTest, RefusesNamesThatAreNone) {
  for (const std::string& name :
       {std::string(), std::string(65, 'a'), std::string("a b"), std::string("-a"),
        std::string("\\xff"), std::string("\\0"), std::string("../a"), std::string("a\\n")}) {
    ExpectRefused(absl::StrCat("tenants: [{name: \"", name, "\"}]"), "letters, digits");
  }
  EXPECT_TRUE(ParseTenants(absl::StrCat("tenants: [{name: ", std::string(64, 'a'), "}]"), "").ok());
}

// Whoever writes a token where its hash belongs must not find it in a log.
TEST(TenantsFileTest, DoesNotRepeatTokens) {
  const auto entries = ParseTenants("tenants: [{name: a, token-sha256: my-secret}]", "the file");
  EXPECT_TRUE(absl::StrContains(entries.status().message(), "64 hexadecimal digits"));
  EXPECT_FALSE(absl::StrContains(entries.status().message(), "secret")) << entries.status();
}

TEST(TenantsFileTest, BoundsItsLists) {
  std::string many = "tenants: [{name: a, certificates: [";
  for (size_t i = 0; i <= kMaxTenantCredentials; ++i) absl::StrAppend(&many, "n", i, ", ");
  ExpectRefused(many + "]}]", "17 values; at most 16");
  many = "tenants: [";
  for (size_t i = 0; i <= kMaxTenants; ++i) absl::StrAppend(&many, "{name: n", i, "}, ");
  ExpectRefused(many + "]", "1025 entries");
}

TEST(TenantsFileTest, MutationsAreRefusedOrReadWhole) {
  std::mt19937_64 random(7);
  for (int i = 0; i < 4000; ++i) {
    std::string yaml = Good();
    for (uint64_t edits = 1 + random() % 4; edits-- > 0;) {
      const size_t at = random() % yaml.size();
      switch (random() % 3) {
        case 0:
          yaml[at] = static_cast<char>(random());
          break;
        case 1:
          yaml.erase(at, 1 + random() % 8);
          break;
        default:
          yaml.insert(at, 1 + random() % 3, "[]{}:-&*#\"'\n \t"[random() % 14]);
      }
      if (yaml.empty()) yaml = "x";
    }
    const auto entries = ParseTenants(yaml, "the file");
    if (!entries.ok()) continue;
    for (const TenantEntry& entry : *entries) {
      EXPECT_FALSE(entry.name.empty());
      EXPECT_LE(entry.name.size(), 64);
    }
  }
}

TEST(TenantsFileTest, NamesAFileThatCannotBeRead) {
  const auto entries = ReadTenantsFile("/nonexistent/tenants.yaml");
  EXPECT_TRUE(absl::IsNotFound(entries.status()));
  EXPECT_TRUE(absl::StrContains(entries.status().message(), "--tenants-file /nonexistent"));
  EXPECT_FALSE(ReadTenantsFile("/").ok());
}

}  // namespace
}  // namespace kvstream

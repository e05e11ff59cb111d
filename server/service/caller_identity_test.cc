#include "server/service/caller_identity.h"

#include <gtest/gtest.h>
#include <openssl/sha.h>

#include <string>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace kvstream {
namespace {

TenantEntry Entry(const std::string& name, const std::string& token, const std::string& san) {
  TenantEntry entry;
  entry.name = name;
  if (!token.empty()) {
    entry.token_hashes.emplace_back();
    SHA256(reinterpret_cast<const unsigned char*>(token.data()), token.size(),
           entry.token_hashes.back().data());
  }
  if (!san.empty()) entry.certificates.push_back(san);
  return entry;
}

class CallerIdentityTest : public testing::Test {
 protected:
  absl::StatusOr<size_t> Identify(std::vector<std::string> authorization,
                                  std::vector<std::string> names = {}) {
    return identities_.Identify({std::move(authorization), std::move(names), {}});
  }
  void ExpectNobody(std::vector<std::string> authorization, std::vector<std::string> names,
                    absl::string_view saying) {
    const auto caller = Identify(std::move(authorization), std::move(names));
    EXPECT_EQ(caller.status().code(), absl::StatusCode::kUnauthenticated) << caller.status();
    EXPECT_TRUE(absl::StrContains(caller.status().message(), saying)) << caller.status();
  }

  const CallerIdentities identities_{
      {Entry("a", "token-a", "a.example"), Entry("b", "token-b", "b.example"), Entry("c", "", "")}};
};

TEST_F(CallerIdentityTest, KnowsTokensAndCertificates) {
  EXPECT_EQ(Identify({"Bearer token-a"}).value_or(9), 0);
  EXPECT_EQ(Identify({"bearer token-b"}).value_or(9), 1);
  EXPECT_EQ(Identify({}, {"b.example"}).value_or(9), 1);
  EXPECT_EQ(Identify({}, {"10.0.0.1", "a.example"}).value_or(9), 0);
  EXPECT_EQ(Identify({"Bearer token-a"}, {"a.example"}).value_or(9), 0);
  EXPECT_EQ(Identify({"Bearer token-a"}, {"node.cluster"}).value_or(9), 0);
  EXPECT_EQ(identities_.Find("c").value_or(9), 2);
  EXPECT_FALSE(identities_.Find("").has_value());
}

TEST_F(CallerIdentityTest, RefusesEverythingElse) {
  ExpectNobody({}, {}, "wants to know the tenant");
  ExpectNobody({}, {"node.cluster", ""}, "wants to know the tenant");
  ExpectNobody({"Bearer token-x"}, {}, "not known");
  ExpectNobody({"Bearer "}, {}, "not known");
  ExpectNobody({"Bearer token-a "}, {}, "not known");
  ExpectNobody({"token-a"}, {}, "Bearer");
  ExpectNobody({"Basic dG9rZW4tYQ=="}, {}, "Bearer");
  ExpectNobody({""}, {"a.example"}, "Bearer");
  ExpectNobody({std::string("Bearer token-a\0", 15)}, {}, "not known");
  ExpectNobody({absl::StrCat("Bearer ", std::string(1 << 20, 'x'))}, {}, "not known");
  ExpectNobody({"Bearer token-a", "Bearer token-a"}, {}, "twice");
}

TEST_F(CallerIdentityTest, TokenAndCertificateMustAgree) {
  ExpectNobody({"Bearer token-a"}, {"b.example"}, "of two tenants");
  ExpectNobody({"Bearer token-x"}, {"b.example"}, "not known");
  ExpectNobody({}, {"a.example", "b.example"}, "names two tenants");
  ExpectNobody({"Bearer token-a"}, {"a.example", "b.example"}, "names two tenants");
}

}  // namespace
}  // namespace kvstream

// TLS and client certificates, over loopback.
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "client/client.h"
#include "server/load/load_session.h"
#include "server/service/kvstream_server.h"
#include "server/service/log.h"
#include "server/service/testing/fake_profile.h"
#include "storage/memory/memory_chunk_store.h"
#include "tests/tenants/tenant_server.h"
#include "tests/tenants/test_certificates.h"

namespace kvstream {
namespace {

class TlsTest : public testing::Test {
 protected:
  TlsTest() {
    options_ = TestServer::Options();
    options_.tls_cert = server_pair_.certificate;
    options_.tls_key = server_pair_.key;
  }
  ConnectionSecurity Tls(const std::string& token = "") const {
    ConnectionSecurity security;
    security.tls_ca_file = certificates_.authority();
    security.token = token;
    return security;
  }
  ConnectionSecurity Tls(const TestCertificates::Pair& pair, const std::string& token = "") const {
    ConnectionSecurity security = Tls(token);
    security.tls_cert_file = pair.certificate;
    security.tls_key_file = pair.key;
    return security;
  }
  grpc::StatusCode Ask(const TestServer& server, const ConnectionSecurity& security) {
    v1::StatsResponse stats;
    return Caller(const_cast<TestServer&>(server).server().grpc_port(), security)
        .Stats(&stats)
        .error_code();
  }
  // What creating a server says; it must fail.
  std::string Refusal(absl::StatusCode code) {
    KvStreamServer::Parts parts;
    parts.store = store_ != nullptr ? std::move(store_) : *MemoryChunkStore::Create();
    parts.parse_profile = FakeProfileParser();
    parts.create_session = &LoadSession::Create;
    parts.log = std::make_unique<Log>("off", LogFormat::kText);
    const auto server = KvStreamServer::Create(options_, std::move(parts));
    EXPECT_EQ(server.status().code(), code) << server.status();
    return std::string(server.status().message());
  }

  TestCertificates certificates_;
  const TestCertificates::Pair server_pair_ = certificates_.Sign("server", "IP:127.0.0.1");
  ServerOptions options_;
  std::unique_ptr<ChunkStore> store_;
};

TEST_F(TlsTest, LoadsThroughTls) {
  const TestServer server(options_);
  Caller caller(const_cast<TestServer&>(server).server().grpc_port(), Tls());
  TestContext context;
  context.segment_bytes = {300000, 2000, 1 << 20};
  ASSERT_TRUE(caller.Put(context).ok());
  const TestLoad load = caller.Load(context);
  ASSERT_TRUE(load.status.ok()) << load.status.error_message();
  EXPECT_EQ(load.violation, "");
  EXPECT_EQ(load.bytes, context.bytes_at(2));
  for (int chunk = 0; chunk < context.chunks; ++chunk) {
    std::string expected;
    for (int level = 0; level < 3; ++level) expected += context.segment(chunk, level);
    EXPECT_TRUE(load.chunks[static_cast<size_t>(chunk)] == expected);
  }
  // Neither without TLS nor trusting somebody else.
  EXPECT_EQ(Ask(server, {}), grpc::StatusCode::UNAVAILABLE);
  const TestCertificates others;
  ConnectionSecurity wrong = Tls();
  wrong.tls_ca_file = others.authority();
  EXPECT_EQ(Ask(server, wrong), grpc::StatusCode::UNAVAILABLE);
}

TEST_F(TlsTest, TheCertificateSaysWhoCalls) {
  options_.tls_client_ca = certificates_.authority();
  options_.tenants_file = TestFile(
      "tls_tenants.yaml",
      absl::StrCat("tenants:\n  - name: a\n    certificates: team-a.example\n",
                   TokenLine("token-a"), "  - name: b\n    certificates: [spiffe://x/b, b]\n",
                   TokenLine("token-b")));
  const TestServer server(options_);
  const auto a = certificates_.Sign("a", "DNS:team-a.example");
  const auto b = certificates_.Sign("b", "DNS:node7,URI:spiffe://x/b");
  const auto cluster = certificates_.Sign("cluster", "DNS:node.cluster");
  const auto both = certificates_.Sign("both", "DNS:team-a.example,DNS:b");
  v1::StatsResponse stats;
  const int port = const_cast<TestServer&>(server).server().grpc_port();
  ASSERT_TRUE(Caller(port, Tls(a)).Stats(&stats).ok());
  EXPECT_EQ(stats.tenant(), "a");
  ASSERT_TRUE(Caller(port, Tls(b)).Stats(&stats).ok());
  EXPECT_EQ(stats.tenant(), "b");
  ASSERT_TRUE(Caller(port, Tls(a, "token-a")).Stats(&stats).ok());
  EXPECT_EQ(stats.tenant(), "a");
  ASSERT_TRUE(Caller(port, Tls(cluster, "token-b")).Stats(&stats).ok());
  EXPECT_EQ(stats.tenant(), "b");
  constexpr auto kNobody = grpc::StatusCode::UNAUTHENTICATED;
  EXPECT_EQ(Ask(server, Tls(b, "token-a")), kNobody);
  EXPECT_EQ(Ask(server, Tls(a, "token-b")), kNobody);
  EXPECT_EQ(Ask(server, Tls(a, "nonsense")), kNobody);
  EXPECT_EQ(Ask(server, Tls(cluster)), kNobody);
  EXPECT_EQ(Ask(server, Tls(both)), kNobody);
  // Without a certificate of that authority there is no connection at all.
  EXPECT_EQ(Ask(server, Tls("token-a")), grpc::StatusCode::UNAVAILABLE);
  TestCertificates others;
  EXPECT_EQ(Ask(server, Tls(others.Sign("a", "DNS:team-a.example"))),
            grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(Ask(server, {}), grpc::StatusCode::UNAVAILABLE);
}

TEST_F(TlsTest, TheClientLibraryConnectsWithTlsAndAToken) {
  options_.tenants_file = TestFile("client_tenants.yaml",
                                   absl::StrCat("tenants:\n  - name: a\n", TokenLine("token-a")));
  TestServer server(options_);
  Client::Options options;
  options.server = absl::StrCat("127.0.0.1:", server.server().grpc_port());
  options.security = Tls("token-a");
  auto client = Client::Create(options);
  ASSERT_TRUE(client.ok()) << client.status();
  const auto stats = (*client)->Stats();
  ASSERT_TRUE(stats.ok()) << stats.status();
  EXPECT_EQ(stats->tenant, "a");
  // Health is for everybody who can connect.
  options.security = Tls();
  client = Client::Create(options);
  EXPECT_TRUE((*client)->Ping().ok());
  EXPECT_EQ((*client)->Stats().status().code(), absl::StatusCode::kUnauthenticated);

  const auto expect_refused = [&](const ConnectionSecurity& security) {
    options.security = security;
    EXPECT_FALSE(Client::Create(options).ok());
  };
  ConnectionSecurity security = Tls();
  security.tls_cert_file = server_pair_.certificate;
  expect_refused(security);
  security = {};
  security.tls_cert_file = server_pair_.certificate;
  security.tls_key_file = server_pair_.key;
  expect_refused(security);
  expect_refused(Tls("two words"));
  expect_refused(Tls(std::string(5000, 't')));
  security = Tls();
  security.tls_ca_file = "/nonexistent";
  expect_refused(security);
}

TEST_F(TlsTest, SaysWhatIsWrongWithItsFiles) {
  constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
  const ServerOptions good = options_;
  const auto other = certificates_.Sign("other", "DNS:other");
  const std::string junk = certificates_.Write("junk.pem", "-----BEGIN CERTIFICATE-----\nxx\n");
  options_.tls_cert = "/nonexistent";
  EXPECT_TRUE(absl::StrContains(Refusal(absl::StatusCode::kNotFound), "--tls-cert /nonexistent"));
  options_ = good;
  options_.tls_cert = junk;
  EXPECT_TRUE(absl::StrContains(Refusal(kInvalid), "holds no certificate"));
  options_ = good;
  options_.tls_key = junk;
  EXPECT_TRUE(absl::StrContains(Refusal(kInvalid), "holds no private key"));
  options_.tls_key = other.key;
  EXPECT_TRUE(absl::StrContains(Refusal(kInvalid), "is not the key of --tls-cert"));
  options_ = good;
  options_.tls_client_ca = junk;
  EXPECT_TRUE(absl::StrContains(Refusal(kInvalid), "--tls-client-ca"));
}

TEST_F(TlsTest, RefusesToServeWhatItCannotKeepApart) {
  options_ = TestServer::Options();
  options_.tenants_file =
      TestFile("certificates.yaml", "tenants: [{name: a, certificates: team-a.example}]");
  EXPECT_TRUE(absl::StrContains(Refusal(absl::StatusCode::kInvalidArgument), "--tls-client-ca"));
  options_.tenants_file = "/nonexistent";
  EXPECT_TRUE(absl::StrContains(Refusal(absl::StatusCode::kNotFound), "--tenants-file"));
  // Without the file everybody could reach what tenants have stored.
  options_.tenants_file.clear();
  store_ = *MemoryChunkStore::Create();
  ChunkInfo info;
  info.tenant = "a";
  info.segment_bytes = {1};
  info.created = absl::UnixEpoch();
  ASSERT_TRUE(store_->Put(ChunkId{}, info, {"x"}).ok());
  EXPECT_TRUE(
      absl::StrContains(Refusal(absl::StatusCode::kFailedPrecondition), "1 chunks of tenants"));
}

}  // namespace
}  // namespace kvstream

// Files of tenants and TLS that are read again while the server runs.
#include <gtest/gtest.h>

#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "server/service/ids.h"
#include "tests/tenants/tenant_server.h"
#include "tests/tenants/test_certificates.h"

namespace kvstream {
namespace {

constexpr char kTenantsFile[] = "reload_tenants.yaml";

std::string Entry(const std::string& name, const std::string& token, const std::string& more = "") {
  return absl::StrCat("  - name: ", name, "\n", TokenLine(token), more);
}

void WriteTenants(const std::string& entries) {
  TestFile(kTenantsFile, absl::StrCat("tenants:\n", entries));
}

// An upload that stays unfinished; cancelled on destruction.
class UnfinishedUpload {
 public:
  explicit UnfinishedUpload(v1::KVStream::Stub& stub) : stream_(stub.Put(&call_, &response_)) {}
  ~UnfinishedUpload() {
    call_.TryCancel();
    stream_->Finish().ok();
  }
  bool Write(const v1::PutRequest& message) { return stream_->Write(message); }

 private:
  grpc::ClientContext call_;
  v1::PutResponse response_;
  const std::unique_ptr<grpc::ClientWriter<v1::PutRequest>> stream_;
};

class ReloadTest : public testing::Test {
 protected:
  void Start() { server_ = std::make_unique<TestServer>(options_); }
  void StartWith(const std::string& entries) {
    WriteTenants(entries);
    options_.tenants_file = absl::StrCat(testing::TempDir(), "/", kTenantsFile);
    Start();
  }
  Caller As(const std::string& token, const std::string& acting_for = "") {
    ConnectionSecurity security = security_;
    security.token = token;
    security.acting_for = acting_for;
    return Caller(server_->server().grpc_port(), security);
  }
  grpc::StatusCode Ask(Caller caller) {
    v1::StatsResponse stats;
    return caller.Stats(&stats).error_code();
  }
  double Metric(const std::string& sample) {
    return MetricValue(server_->server().MetricsText(), sample);
  }

  ServerOptions options_ = TestServer::Options();
  ConnectionSecurity security_;
  std::unique_ptr<TestServer> server_;
  const TestContext context_ = {};
};

TEST_F(ReloadTest, TokensChangeAtOnceAndConnectionsStay) {
  StartWith(absl::StrCat(Entry("a", "old"), Entry("b", "token-b")));
  Caller a = As("old"), b = As("token-b");
  ASSERT_TRUE(a.Put(context_).ok());
  ASSERT_TRUE(b.Put(context_).ok());
  WriteTenants(absl::StrCat(Entry("a", "new"), Entry("b", "token-b"), Entry("c", "token-c")));
  EXPECT_EQ(Ask(As("new")), grpc::StatusCode::UNAUTHENTICATED) << "not before it is told to";
  ASSERT_TRUE(server_->server().Reload().ok());
  v1::StatsResponse stats;
  EXPECT_EQ(a.Stats(&stats).error_code(), grpc::StatusCode::UNAUTHENTICATED);
  EXPECT_TRUE(b.Stats(&stats).ok());
  // The same tenant, with what it had.
  ASSERT_TRUE(As("new").Stats(&stats).ok());
  EXPECT_EQ(stats.tenant(), "a");
  EXPECT_EQ(stats.chunks(), 4u);
  EXPECT_EQ(As("new").Load(context_).bytes, context_.bytes_at(2));
  ASSERT_TRUE(As("token-c").Put(context_).ok());
  EXPECT_EQ(Metric("kvstream_tenant_chunks{tenant=\"c\"}"), 4);
  EXPECT_EQ(Metric("kvstream_reloads_total{result=\"ok\"}"), 1);
  EXPECT_EQ(Metric("kvstream_reloads_total{result=\"failed\"}"), 0);
}

TEST_F(ReloadTest, AWrongFileChangesNothing) {
  StartWith(Entry("a", "token-a", "    quota-bytes: 1GiB\n"));
  for (const std::string& wrong :
       {std::string("tenants: ["), std::string("tenants: []\n"),
        absl::StrCat("tenants:\n", Entry("b", "token-b", "    no-such-key: 1\n")),
        absl::StrCat("tenants:\n", Entry("b", "token-b"), Entry("b", "token-c")),
        // Certificates, which nobody shows here.
        absl::StrCat("tenants:\n", Entry("b", "token-b", "    certificates: b.example\n"))}) {
    TestFile(kTenantsFile, wrong);
    const absl::Status status = server_->server().Reload();
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << status;
    EXPECT_TRUE(absl::StrContains(status.message(), kTenantsFile)) << status;
    EXPECT_EQ(Ask(As("token-a")), grpc::StatusCode::OK);
    EXPECT_EQ(Ask(As("token-b")), grpc::StatusCode::UNAUTHENTICATED);
  }
  EXPECT_EQ(Metric("kvstream_reloads_total{result=\"failed\"}"), 5);
  EXPECT_EQ(Metric("kvstream_tenant_quota_bytes{tenant=\"a\"}"), 1 << 30);
  EXPECT_EQ(Metric("kvstream_tenant_chunks{tenant=\"b\"}"), 0);
  ASSERT_EQ(remove(options_.tenants_file.c_str()), 0);
  EXPECT_TRUE(absl::IsNotFound(server_->server().Reload()));
  EXPECT_EQ(Ask(As("token-a")), grpc::StatusCode::OK);
}

TEST_F(ReloadTest, QuotasAndAdminsAreWhatTheFileSaysLast) {
  StartWith(absl::StrCat(Entry("a", "token-a", "    quota-bytes: 100\n"), Entry("b", "token-b")));
  EXPECT_EQ(As("token-a").Put(context_).error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_EQ(Ask(As("token-b", "a")), grpc::StatusCode::PERMISSION_DENIED);
  WriteTenants(absl::StrCat(Entry("a", "token-a"), Entry("b", "token-b", "    admin: true\n")));
  ASSERT_TRUE(server_->server().Reload().ok());
  ASSERT_TRUE(As("token-a").Put(context_).ok());
  v1::StatsResponse stats;
  ASSERT_TRUE(As("token-b").Stats(&stats).ok());
  EXPECT_EQ(stats.tenants_size(), 2);
  EXPECT_EQ(stats.chunks(), 4u) << "an admin sees the whole server";
  ASSERT_TRUE(As("token-b", "a").Stats(&stats).ok());
  EXPECT_EQ(stats.tenant_quota_bytes(), 0u);
  EXPECT_FALSE(absl::StrContains(server_->server().MetricsText(), "kvstream_tenant_quota_bytes{"));
  // Above a new quota nothing is lost, but nothing more is taken.
  WriteTenants(
      absl::StrCat(Entry("a", "token-a", "    quota-bytes: 100\n"), Entry("b", "token-b")));
  ASSERT_TRUE(server_->server().Reload().ok());
  EXPECT_EQ(As("token-a").Load(context_).bytes, context_.bytes_at(2));
  TestContext more = context_;
  more.name = 'y';
  EXPECT_EQ(As("token-a").Put(more).error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_EQ(Ask(As("token-b", "a")), grpc::StatusCode::PERMISSION_DENIED);
}

TEST_F(ReloadTest, LoadsOfATenantThatIsGoneEndByThemselves) {
  StartWith(absl::StrCat(Entry("a", "token-a"), Entry("b", "token-b")));
  Caller a = As("token-a");
  ASSERT_TRUE(a.Put(context_).ok());
  ManualLoad load(a.stub());
  v1::LoadStart start = StartOf(context_);
  start.set_policy(v1::POLICY_FIXED);
  ASSERT_TRUE(load.SendStart(start));
  ASSERT_TRUE(load.Receive().has_value());
  WriteTenants(Entry("b", "token-b"));
  ASSERT_TRUE(server_->server().Reload().ok());
  EXPECT_EQ(Ask(As("token-a")), grpc::StatusCode::UNAUTHENTICATED);
  EXPECT_EQ(Metric("kvstream_tenant_loads_in_flight{tenant=\"a\"}"), 1);
  EXPECT_EQ(Metric("kvstream_tenant_chunks{tenant=\"a\"}"), 4) << "what it has is there";
  uint64_t bytes = 0;
  while (bytes < context_.bytes_at(0)) {
    const absl::optional<v1::LoadResponse> response = load.Receive();
    ASSERT_TRUE(response.has_value());
    bytes += response->data().data().size();
  }
  ASSERT_TRUE(load.SendProgress(bytes, 4));
  EXPECT_TRUE(load.Finish().ok());
  // It comes back, and has what it had.
  WriteTenants(absl::StrCat(Entry("a", "token-a2"), Entry("b", "token-b")));
  ASSERT_TRUE(server_->server().Reload().ok());
  EXPECT_EQ(As("token-a2").Load(context_).bytes, context_.bytes_at(2));
}

TEST_F(ReloadTest, OneTenantsUploadsLeaveOthersTheirs) {
  options_.max_chunk_bytes = 0;
  for (const uint64_t bytes : context_.segment_bytes) options_.max_chunk_bytes += bytes;
  options_.max_puts_per_tenant = 2;
  const std::string little = absl::StrCat("    put-buffer-bytes: ", options_.max_chunk_bytes, "\n");
  StartWith(absl::StrCat(Entry("a", "token-a"), Entry("b", "token-b", "    max-puts: 1\n"),
                         Entry("c", "token-c", little)));
  Caller a = As("token-a"), b = As("token-b"), c = As("token-c");
  const std::vector<v1::PutRequest> messages = TestServer::PutMessages(context_);
  // Each has the profile, and its first chunk's bytes are reserved.
  const auto begin = [&](Caller& caller) {
    auto upload = std::make_unique<UnfinishedUpload>(caller.stub());
    for (size_t i = 0; i < 2; ++i) EXPECT_TRUE(upload->Write(messages[i]));
    return upload;
  };
  for (Caller* caller : {&a, &b, &c}) ASSERT_TRUE(caller->PutProfile(context_).ok());
  std::vector<std::unique_ptr<UnfinishedUpload>> uploads;
  for (Caller* caller : {&a, &a, &b, &c}) uploads.push_back(begin(*caller));
  const auto reserved = [&](const std::string& tenant) {
    return Metric(absl::StrCat("kvstream_tenant_put_buffer_bytes{tenant=\"", tenant, "\"}"));
  };
  ASSERT_TRUE(Eventually([&] {
    return reserved("a") == 2 * reserved("b") && reserved("b") > 0 && reserved("c") > 0;
  }));
  EXPECT_EQ(Metric("kvstream_tenant_puts_in_flight{tenant=\"a\"}"), 2);
  EXPECT_EQ(Metric("kvstream_tenant_puts_in_flight{tenant=\"b\"}"), 1);
  for (Caller* caller : {&a, &b}) {
    const grpc::Status refused = caller->Put(context_);
    EXPECT_EQ(refused.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
    EXPECT_TRUE(absl::StrContains(refused.error_message(), "max-puts")) << refused.error_message();
  }
  // Bytes are c's limit, not their number; it is refused the chunks, while the others go on.
  const grpc::Status refused = c.Put(context_);
  EXPECT_EQ(refused.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_TRUE(absl::StrContains(refused.error_message(), "put-buffer-bytes"))
      << refused.error_message();
  uploads.clear();
  ASSERT_TRUE(Eventually([&] { return server_->server().environment().puts->in_flight() == 0; }));
  for (const char* tenant : {"a", "b", "c"}) EXPECT_EQ(reserved(tenant), 0) << tenant;
  for (Caller* caller : {&a, &b, &c}) EXPECT_TRUE(caller->Put(context_).ok());
  // The limits of the file come at once.
  WriteTenants(absl::StrCat(Entry("a", "token-a", "    put-buffer-bytes: 1\n")));
  EXPECT_TRUE(absl::IsInvalidArgument(server_->server().Reload())) << "no chunk would fit";
  WriteTenants(absl::StrCat(Entry("a", "token-a", "    max-puts: 1\n"), Entry("b", "token-b")));
  ASSERT_TRUE(server_->server().Reload().ok());
  const auto only = begin(a);
  ASSERT_TRUE(
      Eventually([&] { return Metric("kvstream_tenant_puts_in_flight{tenant=\"a\"}") == 1; }));
  EXPECT_EQ(a.Put(context_).error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
}

TEST_F(ReloadTest, OneTenantsLoadsAndPinsLeaveOthersTheirs) {
  options_.max_loads_per_tenant = 1;
  StartWith(absl::StrCat(Entry("a", "token-a", "    pin-bytes: 10\n"), Entry("b", "token-b"),
                         Entry("c", "token-c", "    max-loads: 2\n")));
  Caller a = As("token-a"), b = As("token-b"), c = As("token-c");
  v1::LoadStart start = StartOf(context_);
  start.set_policy(v1::POLICY_FIXED);
  for (Caller* caller : {&a, &b, &c}) ASSERT_TRUE(caller->Put(context_).ok());
  ManualLoad first(a.stub());
  ASSERT_TRUE(first.SendStart(start));
  ASSERT_TRUE(first.Receive().has_value());
  TestLoad refused = a.Load(context_);
  EXPECT_EQ(refused.status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_TRUE(absl::StrContains(refused.status.error_message(), "max-loads"));
  EXPECT_EQ(Metric("kvstream_load_refusals_total{reason=\"loads_per_tenant\"}"), 1);
  EXPECT_TRUE(b.Load(context_).status.ok());
  ManualLoad of_c(c.stub());
  ASSERT_TRUE(of_c.SendStart(start));
  ASSERT_TRUE(of_c.Receive().has_value());
  EXPECT_TRUE(c.Load(context_).status.ok());
  // The limit of the file comes at once, and comes before the option.
  WriteTenants(absl::StrCat(Entry("a", "token-a", "    max-loads: 0\n    pin-bytes: 10\n"),
                            Entry("b", "token-b"), Entry("c", "token-c")));
  ASSERT_TRUE(server_->server().Reload().ok());
  EXPECT_TRUE(a.Load(context_).status.ok());
  first.Cancel();
  of_c.Cancel();
  first.Finish();
  of_c.Finish();

  v1::PinRequest pin;
  for (const ChunkId& id : context_.ids()) pin.add_chunk_ids(IdBytes(id));
  pin.set_owner("job");
  pin.mutable_ttl()->set_seconds(1000);
  const auto pin_as = [&pin](Caller& caller) {
    grpc::ClientContext call;
    v1::PinResponse response;
    return caller.stub().Pin(&call, pin, &response).error_code();
  };
  EXPECT_EQ(pin_as(a), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_EQ(pin_as(b), grpc::StatusCode::OK);
}

// Serial number of the certificate that the server shows to a new connection; "": none.
std::string ServedSerial(int port, const TestCertificates& certificates,
                         const TestCertificates::Pair* client) {
  const std::string out = absl::StrCat(testing::TempDir(), "/served.pem");
  std::string command = absl::StrCat("openssl s_client -connect 127.0.0.1:", port,
                                     " -alpn h2 -CAfile ", certificates.authority());
  if (client != nullptr) {
    absl::StrAppend(&command, " -cert ", client->certificate, " -key ", client->key);
  }
  absl::StrAppend(&command, " < /dev/null 2> /dev/null | openssl x509 -noout -serial > ", out,
                  " 2> /dev/null");
  if (system(command.c_str()) != 0) return "";
  std::ifstream file(out);
  std::string serial;
  std::getline(file, serial);
  return serial;
}

void CopyFile(const std::string& from, const std::string& to) {
  std::ifstream in(from, std::ios::binary);
  std::ofstream(to, std::ios::binary) << in.rdbuf();
}

TEST_F(ReloadTest, ACertificateIsReplacedUnderTheConnectionsThatAreThere) {
  TestCertificates certificates, others;
  const auto first = certificates.Sign("first", "IP:127.0.0.1");
  const auto second = certificates.Sign("second", "IP:127.0.0.1");
  const auto client = certificates.Sign("client", "DNS:client.example");
  const auto stranger = others.Sign("stranger", "DNS:client.example");
  const auto live = certificates.Write("live.pem", "");
  const auto live_key = certificates.Write("live.key", "");
  const auto live_ca = certificates.Write("live.ca", "");
  CopyFile(first.certificate, live);
  CopyFile(first.key, live_key);
  CopyFile(certificates.authority(), live_ca);
  options_.tls_cert = live;
  options_.tls_key = live_key;
  options_.tls_client_ca = live_ca;
  Start();
  const int port = server_->server().grpc_port();
  security_.tls_ca_file = certificates.authority();
  security_.tls_cert_file = client.certificate;
  security_.tls_key_file = client.key;
  Caller there = As("");
  ASSERT_TRUE(there.Put(context_).ok());
  const std::string before = ServedSerial(port, certificates, &client);
  ASSERT_NE(before, "");
  ConnectionSecurity of_stranger = security_;
  of_stranger.tls_cert_file = stranger.certificate;
  of_stranger.tls_key_file = stranger.key;
  EXPECT_EQ(Ask(Caller(port, of_stranger)), grpc::StatusCode::UNAVAILABLE);

  // A key that is not the certificate's: all stays as it is.
  CopyFile(second.certificate, live);
  EXPECT_TRUE(absl::IsInvalidArgument(server_->server().Reload()));
  EXPECT_EQ(ServedSerial(port, certificates, &client), before);
  // So with a wrong authority beside a good pair.
  CopyFile(second.key, live_key);
  certificates.Write("live.ca", "no certificate");
  EXPECT_TRUE(absl::IsInvalidArgument(server_->server().Reload()));
  EXPECT_EQ(ServedSerial(port, certificates, &client), before);

  CopyFile(others.authority(), live_ca);
  ASSERT_TRUE(server_->server().Reload().ok());
  // New connections, from then on for good.
  EXPECT_TRUE(Eventually([&] {
    const std::string served = ServedSerial(port, certificates, &stranger);
    return !served.empty() && served != before;
  }));
  EXPECT_TRUE(Eventually([&] { return Ask(Caller(port, of_stranger)) == grpc::StatusCode::OK; }));
  EXPECT_EQ(Ask(As("")), grpc::StatusCode::UNAVAILABLE) << "of the authority that was before";
  // The connection that was there goes on.
  EXPECT_EQ(there.Load(context_).bytes, context_.bytes_at(2));
}

}  // namespace
}  // namespace kvstream

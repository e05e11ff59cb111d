// What is not one call: health, reflection, HTTP, draining, starting.
#include "server/service/kvstream_server.h"

#include <gmock/gmock.h>
#include <grpcpp/generic/generic_stub.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <fstream>
#include <nlohmann/json.hpp>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "server/service/testing/test_server.h"
#include "storage/forwarding_chunk_store.h"
#include "storage/memory/memory_chunk_store.h"

namespace kvstream {
namespace {

using ::testing::HasSubstr;

// One request over a plain socket; the whole answer with its head.
std::string Http(int port, const std::string& request) {
  const int fd = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  EXPECT_EQ(connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
  EXPECT_EQ(send(fd, request.data(), request.size(), MSG_NOSIGNAL),
            static_cast<ssize_t>(request.size()));
  std::string answer;
  char buffer[4096];
  ssize_t got = 0;
  while ((got = read(fd, buffer, sizeof(buffer))) > 0)
    answer.append(buffer, static_cast<size_t>(got));
  close(fd);
  return answer;
}

std::string Get(int port, const std::string& path) {
  return Http(port, absl::StrCat("GET ", path, " HTTP/1.1\r\nHost: localhost\r\n\r\n"));
}

std::string BodyOf(const std::string& answer) {
  const size_t end = answer.find("\r\n\r\n");
  return end == std::string::npos ? "" : answer.substr(end + 4);
}

// Calls a method with a hand-made message and returns the first answer's bytes.
std::string CallByName(TestServer& server, const std::string& method, const std::string& message) {
  grpc::GenericStub stub(server.NewChannel());
  grpc::ClientContext context;
  grpc::CompletionQueue queue;
  void* tag = nullptr;
  bool ok = false;
  const auto call = stub.PrepareCall(&context, method, &queue);
  call->StartCall(nullptr);
  EXPECT_TRUE(queue.Next(&tag, &ok));
  const grpc::Slice slice(message);
  call->WriteLast(grpc::ByteBuffer(&slice, 1), grpc::WriteOptions(), nullptr);
  EXPECT_TRUE(queue.Next(&tag, &ok));
  grpc::ByteBuffer answer;
  call->Read(&answer, nullptr);
  EXPECT_TRUE(queue.Next(&tag, &ok));
  std::string bytes;
  std::vector<grpc::Slice> slices;
  if (ok && answer.Dump(&slices).ok()) {
    for (const grpc::Slice& part : slices) {
      bytes.append(reinterpret_cast<const char*>(part.begin()), part.size());
    }
  }
  grpc::Status status;
  call->Finish(&status, nullptr);
  EXPECT_TRUE(queue.Next(&tag, &ok));
  EXPECT_TRUE(status.ok()) << status.error_message();
  return bytes;
}

// grpc.health.v1: HealthCheckRequest{service = 1}, HealthCheckResponse{status = 1}.
constexpr char kHealthCheck[] = "/grpc.health.v1.Health/Check";
const char kServing[] = "\x08\x01";
const char kNotServing[] = "\x08\x02";

std::string HealthRequest(const std::string& service) {
  return service.empty() ? "" : absl::StrCat("\x0a", std::string(1, service.size()), service);
}

TEST(KvStreamServerTest, HealthServiceAnswersForTheServerAndTheService) {
  TestServer server;
  EXPECT_EQ(CallByName(server, kHealthCheck, HealthRequest("")), kServing);
  EXPECT_EQ(CallByName(server, kHealthCheck, HealthRequest("kvstream.v1.KVStream")), kServing);
}

TEST(KvStreamServerTest, ReflectionListsTheService) {
  TestServer server;
  // ServerReflectionRequest{list_services = 7}
  const std::string answer = CallByName(
      server, "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", "\x3a\x01*");
  EXPECT_THAT(answer, HasSubstr("kvstream.v1.KVStream"));
  EXPECT_THAT(answer, HasSubstr("grpc.health.v1.Health"));
}

TEST(KvStreamServerTest, HttpHealthIsJsonAboutTheServer) {
  TestServer server;
  const std::string answer = Get(server.server().http_port(), "/health");
  EXPECT_THAT(answer, HasSubstr("200 OK"));
  EXPECT_THAT(answer, HasSubstr("application/json"));
  const auto health = nlohmann::json::parse(BodyOf(answer));
  EXPECT_EQ(health["role"], "kvstreamd");
  EXPECT_EQ(health["ready"], true);
  EXPECT_EQ(health["status"], "serving");
  EXPECT_EQ(health["store"], "memory");
  EXPECT_EQ(health["writable"], true);
  EXPECT_EQ(health["restart_needed"], false);
  EXPECT_EQ(health["loads_in_flight"], 0);
  EXPECT_GE(health["uptime_seconds"], 0);
  EXPECT_TRUE(health["version"].is_string());
}

// Says of its writes what a test sets.
class TroubledStore final : public ForwardingChunkStore {
 public:
  TroubledStore(std::unique_ptr<ChunkStore> inner, std::shared_ptr<std::atomic<WriteState>> writes)
      : ForwardingChunkStore(std::move(inner)), writes_(std::move(writes)) {}
  absl::StatusOr<StoreStats> Stats() override {
    absl::StatusOr<StoreStats> stats = ForwardingChunkStore::Stats();
    if (stats.ok()) stats->writes = writes_->load();
    return stats;
  }

 private:
  const std::shared_ptr<std::atomic<WriteState>> writes_;
};

TEST(KvStreamServerTest, AStoreThatTakesNoWritesShowsInHealthAndMetricsAndIsStillReady) {
  const auto writes = std::make_shared<std::atomic<WriteState>>(WriteState::kTaken);
  std::atomic<int> restarts_needed{0};
  ServerOptions options = TestServer::Options();
  options.expiry_interval = absl::Milliseconds(10);
  TestServer server(options, nullptr,
                    std::make_unique<TroubledStore>(*MemoryChunkStore::Create(), writes),
                    [&restarts_needed] { ++restarts_needed; });
  const auto health = [&](const char* key) {
    return nlohmann::json::parse(server.server().HealthText())[key].get<bool>();
  };
  const auto writes_health = [&] {
    return CallByName(server, kHealthCheck, HealthRequest("kvstream.v1.KVStream.writes"));
  };
  EXPECT_EQ(writes_health(), kServing);

  writes->store(WriteState::kRefused);
  ASSERT_TRUE(Eventually([&] { return !health("writable"); }));
  EXPECT_FALSE(health("restart_needed"));
  EXPECT_TRUE(health("ready"));
  EXPECT_EQ(writes_health(), kNotServing);
  EXPECT_THAT(server.server().MetricsText(), HasSubstr("kvstream_store_writable 0"));
  EXPECT_THAT(server.server().MetricsText(), HasSubstr("kvstream_store_restart_needed 0"));
  writes->store(WriteState::kTaken);
  ASSERT_TRUE(Eventually([&] { return health("writable"); }));
  EXPECT_EQ(writes_health(), kServing);
  EXPECT_THAT(server.server().MetricsText(), HasSubstr("kvstream_store_writable 1"));
  EXPECT_EQ(restarts_needed, 0);

  writes->store(WriteState::kRefusedForGood);
  ASSERT_TRUE(Eventually([&] { return restarts_needed > 0; }));
  EXPECT_TRUE(health("restart_needed"));
  EXPECT_TRUE(health("ready"));
  EXPECT_THAT(server.server().MetricsText(), HasSubstr("kvstream_store_restart_needed 1"));
  EXPECT_TRUE(server.Stop(absl::Minutes(5)));
  EXPECT_EQ(restarts_needed, 1);
}

TEST(KvStreamServerTest, HttpMetricsHaveEveryFamilyAfterALoad) {
  TestServer server;
  TestContext context;
  context.segment_bytes = {30000, 30000, 30000};
  ASSERT_TRUE(server.PutContext(context).ok());
  v1::LoadStart start = StartOf(context);
  start.mutable_deadline()->set_seconds(10);
  ASSERT_TRUE(RunLoad(server.stub(), start).status.ok());
  RunLoad(server.stub(), v1::LoadStart());  // an error
  const std::string answer = Get(server.server().http_port(), "/metrics");
  EXPECT_THAT(answer, HasSubstr("200 OK"));
  EXPECT_THAT(answer, HasSubstr("text/plain; version=0.0.4"));
  const std::string metrics = BodyOf(answer);
  for (const char* family : {"kvstream_load_delay_seconds histogram",
                             "kvstream_load_bandwidth_estimate_bytes_per_second histogram",
                             "kvstream_load_goodput_bytes_per_second histogram",
                             "kvstream_load_bytes_total counter",
                             "kvstream_load_chunks_total counter",
                             "kvstream_recompute_chunks_total counter",
                             "kvstream_deadline_total counter",
                             "kvstream_bandwidth_estimator_error_ratio histogram",
                             "kvstream_lookup_tokens_total counter",
                             "kvstream_store_operation_seconds histogram",
                             "kvstream_store_chunks gauge",
                             "kvstream_store_payload_bytes gauge",
                             "kvstream_store_disk_bytes gauge",
                             "kvstream_loads_in_flight gauge",
                             "kvstream_puts_in_flight gauge",
                             "kvstream_put_bytes_total counter",
                             "kvstream_put_buffer_bytes gauge",
                             "kvstream_rpc_errors_total counter",
                             "kvstream_build_info gauge",
                             "kvstream_load_first_byte_seconds histogram",
                             "kvstream_load_all_ready_seconds histogram",
                             "kvstream_load_round_trip_seconds histogram",
                             "kvstream_load_window_bytes histogram",
                             "kvstream_deadline_slack_seconds histogram",
                             "kvstream_load_refinements_total counter",
                             "kvstream_recompute_told_total counter",
                             "kvstream_recompute_tokens_total counter",
                             "kvstream_recompute_seconds_total counter"}) {
    EXPECT_THAT(metrics, HasSubstr(absl::StrCat("# TYPE ", family, "\n")));
  }
  EXPECT_EQ(MetricValue(metrics, R"(kvstream_deadline_total{result="hit"})"), 1);
  EXPECT_EQ(MetricValue(metrics, "kvstream_store_chunks"), 4);
  EXPECT_EQ(MetricValue(metrics, "kvstream_store_payload_bytes"),
            static_cast<double>(context.bytes_at(2)));
  EXPECT_EQ(
      MetricValue(metrics, R"(kvstream_load_delay_seconds_count{outcome="ok",policy="deadline"})"),
      1);
  EXPECT_EQ(MetricValue(metrics, "kvstream_load_goodput_bytes_per_second_count"), 1);
  // Of the load's story: base, refinements and the end, in time.
  EXPECT_EQ(MetricValue(metrics, "kvstream_load_first_byte_seconds_count"), 1);
  EXPECT_EQ(MetricValue(metrics, R"(kvstream_load_all_ready_seconds_count{policy="deadline"})"), 1);
  EXPECT_EQ(MetricValue(metrics, "kvstream_deadline_slack_seconds_count"), 1);
  EXPECT_GE(MetricValue(metrics, R"(kvstream_load_refinements_total{level="2"})"), 1);
}

TEST(KvStreamServerTest, HttpRefusesWhatItDoesNotServe) {
  TestServer server;
  const int port = server.server().http_port();
  EXPECT_THAT(Get(port, "/"), HasSubstr("404 "));
  EXPECT_THAT(Get(port, "/../../etc/passwd"), ::testing::Not(HasSubstr("root:")));
  EXPECT_THAT(Http(port, "POST /health HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n"),
              HasSubstr("405 "));
  const std::string head = Http(port, "HEAD /health HTTP/1.1\r\nHost: h\r\n\r\n");
  EXPECT_THAT(head, HasSubstr("200 OK"));
  EXPECT_EQ(BodyOf(head), "");
  Http(port, std::string(100000, 'x'));  // no request at all
  EXPECT_THAT(Get(port, "/health"), HasSubstr("200 OK"));
}

TEST(KvStreamServerTest, DrainingLetsALoadFinishAndRefusesNewOnes) {
  TestServer server;
  const TestContext context;
  ASSERT_TRUE(server.PutContext(context).ok());
  absl::Notification reached, release;
  std::atomic<bool> first{true};
  server.faults().OnRead([&](const ChunkId& id, uint32_t level) {
    if (first.exchange(false)) {
      reached.Notify();
      release.WaitForNotification();
    }
    return absl::OkStatus();
  });
  TestLoad load;
  std::thread loader([&] { load = RunLoad(server.stub(), StartOf(context)); });
  reached.WaitForNotification();
  bool drained = false;
  std::thread stopper([&] { drained = server.Stop(absl::Minutes(5)); });
  ASSERT_TRUE(Eventually([&] { return !server.server().ready(); }));
  EXPECT_EQ(CallByName(server, kHealthCheck, HealthRequest("kvstream.v1.KVStream")), kNotServing);
  EXPECT_EQ(CallByName(server, kHealthCheck, HealthRequest("")), kNotServing);
  const std::string http = Get(server.server().http_port(), "/health");
  EXPECT_THAT(http, HasSubstr("503 "));
  EXPECT_EQ(nlohmann::json::parse(BodyOf(http))["ready"], false);
  const TestLoad refused = RunLoad(server.stub(), StartOf(context));
  EXPECT_EQ(refused.status.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_THAT(refused.status.error_message(), HasSubstr("draining"));
  v1::PutResponse response;
  EXPECT_EQ(server.SendPut(TestServer::PutMessages(context), &response).error_code(),
            grpc::StatusCode::UNAVAILABLE);
  release.Notify();
  loader.join();
  stopper.join();
  EXPECT_TRUE(load.status.ok()) << load.status.error_message();
  EXPECT_TRUE(drained);
}

TEST(KvStreamServerTest, LoadsThatOutlastTheDrainTimeoutAreEnded) {
  TestServer server;
  const TestContext context;
  ASSERT_TRUE(server.PutContext(context).ok());
  ManualLoad load(server.stub());
  ASSERT_TRUE(load.SendStart(StartOf(context)));
  ASSERT_TRUE(load.Receive().has_value());
  grpc::ClientContext client;
  v1::PutResponse ignored;
  auto upload = server.stub().Put(&client, &ignored);
  ASSERT_TRUE(upload->Write(TestServer::PutMessages(context)[0]));
  ASSERT_TRUE(Eventually([&] { return server.server().environment().puts->in_flight() == 1; }));
  EXPECT_FALSE(server.Stop(absl::Milliseconds(10)));
  EXPECT_EQ(load.Finish().error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(upload->Finish().error_code(), grpc::StatusCode::UNAVAILABLE);
}

TEST(KvStreamServerTest, HurryEndsTheDraining) {
  TestServer server;
  const TestContext context;
  ASSERT_TRUE(server.PutContext(context).ok());
  ManualLoad load(server.stub());
  ASSERT_TRUE(load.SendStart(StartOf(context)));
  ASSERT_TRUE(load.Receive().has_value());
  std::thread stopper([&] { EXPECT_FALSE(server.Stop(absl::Hours(1))); });
  ASSERT_TRUE(Eventually([&] { return !server.server().ready(); }));
  server.server().Hurry();
  stopper.join();
  EXPECT_EQ(load.Finish().error_code(), grpc::StatusCode::UNAVAILABLE);
}

TEST(KvStreamServerTest, StoppingWithAClientThatHoldsUnreadBytesReleasesTheStore) {
  ServerOptions options = TestServer::Options();
  options.window_bytes_max = 64 << 20;
  options.window_bytes_min = 64 << 20;
  TestServer server(options);
  TestContext context;
  context.segment_bytes = {4 << 20, 4 << 20, 4 << 20};
  ASSERT_TRUE(server.PutContext(context).ok());
  v1::LoadStart start = StartOf(context);
  start.set_policy(v1::POLICY_FIXED);
  start.set_level(2);
  ManualLoad load(server.stub());
  ASSERT_TRUE(load.SendStart(start));
  ASSERT_TRUE(Eventually([&] {
    return MetricValue(server.server().MetricsText(),
                       R"(kvstream_store_operation_seconds_count{operation="read_segment"})") > 0;
  }));
  EXPECT_FALSE(server.Stop(absl::ZeroDuration()));  // would report an error and hang if pins stayed
  EXPECT_FALSE(load.Finish().ok());
}

KvStreamServer::Parts PartsOfAServer() {
  KvStreamServer::Parts parts;
  parts.store = *MemoryChunkStore::Create();
  parts.parse_profile = FakeProfileParser();
  parts.create_session = &LoadSession::Create;
  parts.log = std::make_unique<Log>("off", LogFormat::kText);
  return parts;
}

TEST(KvStreamServerTest, APortInUseIsNamedWithWhatToDo) {
  TestServer server;
  ServerOptions options = TestServer::Options();
  options.listen = absl::StrCat("127.0.0.1:", server.server().grpc_port());
  const auto grpc_taken = KvStreamServer::Create(options, PartsOfAServer());
  EXPECT_EQ(grpc_taken.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(grpc_taken.status().message()), HasSubstr("--listen"));
  options = TestServer::Options();
  options.http_listen = absl::StrCat("127.0.0.1:", server.server().http_port());
  const auto http_taken = KvStreamServer::Create(options, PartsOfAServer());
  EXPECT_THAT(std::string(http_taken.status().message()), HasSubstr("--http-listen"));
  options = TestServer::Options();
  options.listen = "no.such.host.invalid:0";
  EXPECT_FALSE(KvStreamServer::Create(options, PartsOfAServer()).ok());
}

TEST(KvStreamServerTest, ThePortsFileHasTheChosenPorts) {
  ServerOptions options = TestServer::Options();
  options.ports_file = ::testing::TempDir() + "ports.json";
  TestServer server(options);
  std::ifstream file(options.ports_file);
  const auto ports = nlohmann::json::parse(file);
  EXPECT_EQ(ports["grpc"], server.server().grpc_port());
  EXPECT_EQ(ports["http"], server.server().http_port());
  options.ports_file = "/no/such/directory/ports.json";
  const auto failed = KvStreamServer::Create(options, PartsOfAServer());
  EXPECT_THAT(std::string(failed.status().message()), HasSubstr("--ports-file"));
}

}  // namespace
}  // namespace kvstream

// A thousand loads at once: what each costs the server while its client does nothing, and that all
// of them end well. The server is a process of its own, forked before gRPC has any thread, so that
// its memory can be told from the clients'.
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <fstream>
#include <memory>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "grpcpp/create_channel.h"
#include "server/service/testing/test_server.h"

namespace kvstream {
namespace {

constexpr int kLoads = 1000;
constexpr int kThreads = 8;

int server_port = 0;
pid_t server_pid = 0;

TestContext Context() {
  TestContext context;
  context.chunks = 32;
  context.segment_bytes = {40000, 40000, 80000};
  return context;
}

// The child: serves until its standard input ends.
[[noreturn]] void Serve(int from_parent, int to_parent) {
  ServerOptions options = TestServer::Options();
  options.client_idle_timeout = absl::Minutes(10);
  {
    TestServer server(options);
    server.StoreContext(Context());
    const int port = server.server().grpc_port();
    if (write(to_parent, &port, sizeof(port)) != sizeof(port)) _exit(1);
    char ignored;
    while (read(from_parent, &ignored, 1) > 0) {
    }
    server.Stop(absl::ZeroDuration());
  }
  _exit(0);
}

// Kilobytes of the server's resident memory that are its own.
int64_t ServerBytes() {
  std::ifstream file(absl::StrCat("/proc/", server_pid, "/status"));
  std::string word;
  while (file >> word) {
    int64_t kilobytes = 0;
    if (word == "RssAnon:" && file >> kilobytes) return kilobytes * 1024;
  }
  return 0;
}

std::unique_ptr<v1::KVStream::Stub> Connect() {
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);  // a connection of its own
  return v1::KVStream::NewStub(grpc::CreateCustomChannel(
      absl::StrCat("127.0.0.1:", server_port), grpc::InsecureChannelCredentials(), arguments));
}

v1::LoadStart Start() {
  v1::LoadStart start = StartOf(Context());
  start.set_policy(v1::POLICY_FIXED);
  start.set_level(0);
  return start;
}

// Takes everything that the server still has for this load.
grpc::Status Drain(ManualLoad& load) {
  const TestContext context = Context();
  uint64_t bytes = 0;
  uint32_t ready = 0;
  while (const auto response = load.Receive()) {
    if (!response->has_data()) continue;
    bytes += response->data().data().size();
    ready = static_cast<uint32_t>(bytes / context.segment_bytes[0]);
    load.SendProgress(bytes, ready);
  }
  EXPECT_EQ(ready, static_cast<uint32_t>(context.chunks));
  return load.Finish();
}

TEST(ManyLoadsTest, AThousandAtOnceCostLittleAndAllEnd) {
  // 20 connections, so that no connection has more streams than a server usually meets.
  std::vector<std::unique_ptr<v1::KVStream::Stub>> stubs;
  for (int i = 0; i < 20; ++i) stubs.push_back(Connect());
  // Threads, pools and connections are there before the count begins.
  for (const auto& stub : stubs) {
    ManualLoad load(*stub);
    ASSERT_TRUE(load.SendStart(Start()));
    EXPECT_TRUE(Drain(load).ok());
  }
  const int64_t before = ServerBytes();
  std::vector<std::unique_ptr<ManualLoad>> loads;
  for (int i = 0; i < kLoads; ++i) {
    loads.push_back(std::make_unique<ManualLoad>(*stubs[i % stubs.size()]));
    ASSERT_TRUE(loads.back()->SendStart(Start()));
    // Its session is there once something came; the client then stops reading.
    ASSERT_TRUE(loads.back()->Receive().has_value());
  }
  const int64_t each = (ServerBytes() - before) / kLoads;
  std::printf("server: %.1f MiB before, %.1f KiB a load that its client does not read\n",
              static_cast<double>(before) / (1 << 20), static_cast<double>(each) / 1024);
  RecordProperty("bytes_per_idle_load", static_cast<int>(each));
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__) && !defined(__clang__)
  constexpr int64_t kIdleLoadBytesMax = 64 << 10;
  EXPECT_LE(each, kIdleLoadBytesMax);
#endif
  // Somebody who comes now is served all the same.
  const TestLoad active = RunLoad(*Connect(), Start());
  EXPECT_TRUE(active.status.ok()) << active.status.error_message();

  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&loads, t] {
      for (size_t i = t; i < loads.size(); i += kThreads) {
        const grpc::Status status = Drain(*loads[i]);
        EXPECT_TRUE(status.ok()) << i << ": " << status.error_message();
        loads[i].reset();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  std::printf("server: %.1f KiB a load stay after the end\n",
              static_cast<double>(ServerBytes() - before) / 1024 / kLoads);
}

}  // namespace

int ManyLoadsMain(int argc, char** argv) {
  int down[2], up[2];
  if (pipe(down) != 0 || pipe(up) != 0) return 1;
  server_pid = fork();
  if (server_pid < 0) return 1;
  if (server_pid == 0) {
    close(down[1]);
    close(up[0]);
    Serve(down[0], up[1]);
  }
  close(down[0]);
  close(up[1]);
  int result = 1;
  if (read(up[0], &server_port, sizeof(server_port)) == sizeof(server_port)) {
    testing::InitGoogleTest(&argc, argv);
    result = RUN_ALL_TESTS();
  }
  close(down[1]);
  int status = 0;
  waitpid(server_pid, &status, 0);
  return status == 0 ? result : 1;
}

}  // namespace kvstream

int main(int argc, char** argv) { return kvstream::ManyLoadsMain(argc, argv); }

// Two clients behind one slow relay, for real: the one whose deadline is tight goes first. Judged
// by the order of bytes, not by time.
#include <gtest/gtest.h>

#include <atomic>
#include <cstdio>
#include <functional>
#include <memory>
#include <thread>

#include "absl/strings/str_cat.h"
#include "client/relay.h"
#include "grpcpp/create_channel.h"
#include "server/service/testing/test_server.h"

namespace kvstream {
namespace {

TestContext Context(char name, int chunks) {
  TestContext context;
  context.name = name;
  context.chunks = chunks;
  context.segment_bytes = {100000, 1000};
  return context;
}

// Takes what comes, as an honest client whose decoder takes no time; `received` may be read from
// other threads.
grpc::Status Take(v1::KVStream::Stub& stub, const v1::LoadStart& start,
                  std::atomic<uint64_t>* received, const std::function<void()>& on_data = nullptr) {
  ManualLoad load(stub);
  load.SendStart(start);
  while (const auto response = load.Receive()) {
    if (!response->has_data()) continue;
    *received += response->data().data().size();
    if (on_data) on_data();
    // Only level 0 is sent: the segments follow one another.
    load.SendProgress(*received, static_cast<uint32_t>(*received / 100000));
  }
  return load.Finish();
}

TEST(SharedRelayTest, TheTightDeadlineGoesFirst) {
  ServerOptions options = TestServer::Options();
  options.link_sharing = LinkSharing::kHost;  // both come from loopback
  TestServer server(options);
  const TestContext large = Context('l', 120);
  const TestContext small = Context('s', 20);
  server.StoreContext(large);
  server.StoreContext(small);

  Relay::Options relay_options;
  relay_options.listen = {"127.0.0.1", 0};
  relay_options.target = {"127.0.0.1", server.server().grpc_port()};
  relay_options.trace = RateTrace::Constant(2.5e6);
  auto relay = Relay::Create(relay_options);
  ASSERT_TRUE(relay.ok()) << relay.status();
  std::thread runs([&] { EXPECT_TRUE((*relay)->Run().ok()); });
  const auto connect = [&] {
    grpc::ChannelArguments arguments;
    arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
    return v1::KVStream::NewStub(
        grpc::CreateCustomChannel(absl::StrCat("127.0.0.1:", (*relay)->address().port),
                                  grpc::InsecureChannelCredentials(), arguments));
  };
  const auto one = connect();
  const auto two = connect();

  std::atomic<uint64_t> first{0}, second{0};
  std::thread background([&] {
    v1::LoadStart start = StartOf(large);
    start.set_policy(v1::POLICY_FASTEST);
    EXPECT_TRUE(Take(*one, start, &first).ok());
  });
  // The link is known, and what was sent before it was has gone.
  ASSERT_TRUE(Eventually([&] { return first > 6000000; }));
  const uint64_t before = first;
  v1::LoadStart start = StartOf(small);
  start.mutable_deadline()->set_seconds(1);
  start.mutable_deadline()->set_nanos(400000000);  // 0.8 s of the link
  uint64_t beside = 0;  // what the other one got until the small one was usable
  const grpc::Status status = Take(*two, start, &second, [&] {
    if (beside == 0 && second >= small.bytes_at(0)) beside = first - before;
  });
  EXPECT_TRUE(status.ok()) << status.error_message();
  EXPECT_GE(second, small.bytes_at(0));
  // Equal shares would be 2 MB; an eighth of the link, and what was before it already, is some 0.7
  // MB.
  std::printf("%.2f MB beside %.2f\n", static_cast<double>(beside) / 1e6,
              static_cast<double>(small.bytes_at(0)) / 1e6);
  EXPECT_GT(beside, 0u);
  EXPECT_LT(beside, small.bytes_at(0) * 3 / 4);
  background.join();
  EXPECT_EQ(first, large.bytes_at(0));
  (*relay)->Stop();
  runs.join();
}

}  // namespace
}  // namespace kvstream

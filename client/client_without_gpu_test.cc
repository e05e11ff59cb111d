// The path that users take on a machine without a GPU. A test of its own: the CUDA runtime looks
// for a driver here, and ThreadSanitizer's suppressions do not outlive that.
#include <gtest/gtest.h>

#include <atomic>
#include <memory>
#include <vector>

#include "client/client.h"
#include "client/testing/fake_device.h"
#include "client/testing/scripted_server.h"
#include "client/testing/synthetic_context.h"

namespace kvstream {
namespace {

// No machine has a device of this number, so that this holds where there is a GPU, too.
constexpr int kNoDevice = 9999;

TEST(ClientWithoutGpuTest, SaysWhatIsMissingBeforeTheServerIsAsked) {
  const SyntheticContext context(40);
  const std::vector<EncodedChunk> chunks = context.Encode();
  ScriptedServer server;
  std::atomic<int> loads{0};
  server.service().load = [&](grpc::ServerContext*, LoadStream* stream) {
    ++loads;
    LoadScript load(stream, chunks, &context);
    for (uint32_t chunk : {0, 1, 2}) load.Send(chunk, 0, 1);
    load.ReadUntilReady();
    load.Summary();
    return grpc::Status::OK;
  };
  Client::Options options;
  options.server = server.address();
  const auto client = *Client::Create(options);
  const absl::Status status = client->WarmUpDevice(context.profile, kNoDevice, {});
  EXPECT_TRUE(absl::IsUnavailable(status) || absl::IsFailedPrecondition(status)) << status;
  EXPECT_FALSE(status.message().empty());

  KvBlock out(context.profile->geometry(), 40);
  DeviceTarget target;
  target.kv = DeviceViewOf(&out, context.profile->geometry(), 40);
  target.device_ordinal = kNoDevice;
  EXPECT_EQ(
      client->LoadToDevice(context.profile, context.identity, context.tokens, {}, target).status(),
      status);
  EXPECT_EQ(loads, 0);
  const auto loaded =
      client->Load(context.profile, context.identity, context.tokens, {}, out.mutable_view());
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  EXPECT_EQ(out.values(), context.Expected({1, 1, 1}).values());
}

}  // namespace
}  // namespace kvstream

// Client::LoadToDevice against a scripted server, with host memory that plays the device's.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "client/client.h"
#include "client/client_factory.h"
#include "client/cuda_chunk_decoder.h"
#include "client/testing/fake_device.h"
#include "client/testing/scripted_server.h"
#include "client/testing/synthetic_context.h"
#include "codec/cuda/testing/host_device.h"
#include "codec/float16.h"

namespace kvstream {
namespace {

using ::testing::HasSubstr;

constexpr uint32_t kChunks = 12;
constexpr int64_t kTokens = kChunks * 16 - 8;  // the last chunk is half a one

class ClientDeviceLoadTest : public testing::Test {
 protected:
  ClientDeviceLoadTest() : context_(kTokens), chunks_(context_.Encode()) {}

  void SetUp() override {
    Client::Options options;
    options.server = server_.address();
    options.rpc_timeout = absl::Seconds(20);
    absl::StatusOr<std::unique_ptr<Client>> client = CreateClient(options, device_.Factory());
    ASSERT_TRUE(client.ok()) << client.status();
    client_ = *std::move(client);
  }

  void Script(std::function<grpc::Status(LoadScript&)> script) {
    server_.service().load = [this, script = std::move(script)](grpc::ServerContext*,
                                                                LoadStream* stream) {
      ++loads_seen_;
      LoadScript load(stream, chunks_, &context_);
      return script(load);
    };
  }
  // Every chunk at the level that was asked for.
  void ScriptFixedLevel() {
    Script([](LoadScript& load) {
      for (uint32_t chunk = 0; chunk < kChunks; ++chunk) {
        load.Send(chunk, 0, static_cast<int>(load.start().level()));
      }
      load.ReadUntilReady();
      load.Summary();
      return grpc::Status::OK;
    });
  }

  const KvGeometry& geometry() const { return context_.profile->geometry(); }
  KvBlock Memory() const { return KvBlock(geometry(), kTokens); }
  DeviceTarget Target(KvBlock* block) {
    DeviceTarget target;
    target.kv = DeviceViewOf(block, geometry(), kTokens);
    target.stream = &stream_;
    return target;
  }
  absl::StatusOr<LoadResult> Load(const DeviceTarget& target, const LoadOptions& options = {}) {
    return client_->LoadToDevice(context_.profile, context_.identity, context_.tokens, options,
                                 target);
  }
  static LoadOptions Fixed(int level) {
    LoadOptions options;
    options.policy = ClientPolicy::kFixed;
    options.level = level;
    return options;
  }
  void ExpectKv(const KvBlock& out, const std::vector<int>& levels) {
    const KvBlock expected = context_.Expected(levels);
    for (uint32_t chunk = 0; chunk < kChunks; ++chunk) {
      const int64_t tokens = context_.ChunkTokens(chunk);
      EXPECT_EQ(out.Tokens(chunk * 16, tokens), expected.Tokens(chunk * 16, tokens))
          << "chunk " << chunk;
    }
  }
  static void ExpectError(const absl::StatusOr<LoadResult>& result, absl::StatusCode code,
                          const std::string& what) {
    EXPECT_EQ(result.status().code(), code) << result.status();
    EXPECT_THAT(std::string(result.status().message()), HasSubstr(what));
  }

  const SyntheticContext context_;
  std::vector<EncodedChunk> chunks_;
  FakeDevice device_;
  ScriptedServer server_;
  std::atomic<int> loads_seen_{0};
  std::unique_ptr<Client> client_;
  int stream_ = 0;
};

TEST_F(ClientDeviceLoadTest, EveryLevelIsWhatTheHostDecodes) {
  ScriptFixedLevel();
  for (int level = 0; level < context_.profile->levels(); ++level) {
    KvBlock out = Memory();
    const absl::StatusOr<LoadResult> result = Load(Target(&out), Fixed(level));
    ASSERT_TRUE(result.ok()) << result.status();
    ExpectKv(out, std::vector<int>(kChunks, level));
    ASSERT_EQ(result->chunks.size(), kChunks);
    for (const LoadedChunk& chunk : result->chunks) EXPECT_EQ(chunk.level, level);
  }
  for (const FakeDevice::Call& call : device_.calls()) EXPECT_EQ(call.stream, &stream_);
  EXPECT_EQ(device_.roots_created(), 1) << "one decoder serves load after load";
  EXPECT_EQ(device_.siblings_created(), 0);
}

TEST_F(ClientDeviceLoadTest, RefinesChunksOnTheDevice) {
  Script([](LoadScript& load) {
    for (uint32_t chunk = 0; chunk < kChunks; ++chunk) load.Send(chunk, 0, 0);
    load.ReadUntilReady();
    for (uint32_t chunk : {1, 5}) load.Send(chunk, 1, 3);
    load.ReadUntilReady();
    load.Summary();
    return grpc::Status::OK;
  });
  KvBlock out = Memory();
  const absl::StatusOr<LoadResult> result = Load(Target(&out));
  ASSERT_TRUE(result.ok()) << result.status();
  ExpectKv(out, {0, 3, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0});
}

TEST_F(ClientDeviceLoadTest, AMovedLoadGoesOnFromWhatIsInPlace) {
  constexpr uint32_t kArrived = 7;
  Script([](LoadScript& load) {
    for (uint32_t chunk = 0; chunk < kArrived; ++chunk) load.Send(chunk, 0, 1);
    load.ReadUntil(
        [](const v1::LoadProgress& progress) { return progress.chunks_ready() == kArrived; });
    return grpc::Status(grpc::StatusCode::UNAVAILABLE, "gone");
  });
  ScriptedServer second;
  const std::vector<EncodedChunk> rest(chunks_.begin() + kArrived, chunks_.end());
  const SyntheticContext sizes_of_rest(kTokens - kArrived * 16);
  std::atomic<int> asked{0};
  second.service().load = [&](grpc::ServerContext*, LoadStream* stream) {
    LoadScript load(stream, rest, &sizes_of_rest);
    asked = load.start().chunk_ids_size();
    for (uint32_t chunk = 0; chunk < rest.size(); ++chunk) load.Send(chunk, 0, 2);
    load.ReadUntilReady();
    load.Summary();
    return grpc::Status::OK;
  };
  Client::Options options;
  options.server = absl::StrCat(server_.address(), ",", second.address());
  options.rpc_timeout = absl::Seconds(20);
  client_ = *CreateClient(options, device_.Factory());
  PagedMemory paged(geometry(), kTokens, 16);
  DeviceTarget target;
  target.kv = paged.view();
  std::vector<uint32_t> progress;
  LoadOptions load;
  load.progress = [&](uint32_t ready, uint32_t of) {
    EXPECT_EQ(of, kChunks);
    progress.push_back(ready);
  };
  const absl::StatusOr<LoadResult> result = Load(target, load);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(asked, kChunks - kArrived) << "what has arrived is not asked for again";
  ExpectKv(paged.Gather(), {1, 1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2});
  ASSERT_EQ(result->chunks.size(), kChunks);
  uint64_t bytes = 0;
  for (uint32_t chunk = 0; chunk < kChunks; ++chunk) {
    EXPECT_EQ(result->chunks[chunk].level, chunk < kArrived ? 1 : 2);
    bytes += result->chunks[chunk].bytes;
  }
  EXPECT_EQ(result->bytes, bytes);
  EXPECT_TRUE(std::is_sorted(progress.begin(), progress.end()));
  EXPECT_EQ(device_.chunks_written(), kChunks);
}

TEST_F(ClientDeviceLoadTest, WritesIntoTheBlocksOfAPagedCache) {
  ScriptFixedLevel();
  for (const int64_t block_size : {5, 16, 64}) {
    PagedMemory paged(geometry(), kTokens, block_size);
    DeviceTarget target;
    target.kv = paged.view();
    const absl::StatusOr<LoadResult> result = Load(target, Fixed(2));
    ASSERT_TRUE(result.ok()) << result.status();
    ExpectKv(paged.Gather(), std::vector<int>(kChunks, 2));
  }
  for (const FakeDevice::Call& call : device_.calls()) EXPECT_TRUE(call.paged);
}

TEST_F(ClientDeviceLoadTest, LoadsLatentsIntoEitherKindOfMemory) {
  const SyntheticContext latent(40, 1, true, true);
  const KvGeometry& shape = latent.profile->geometry();
  const std::vector<EncodedChunk> chunks = latent.Encode();
  server_.service().load = [&](grpc::ServerContext*, LoadStream* stream) {
    LoadScript load(stream, chunks, &latent);
    for (uint32_t chunk : {0, 1, 2}) load.Send(chunk, 0, 3);
    load.ReadUntilReady();
    load.Summary();
    return grpc::Status::OK;
  };
  KvBlock out(shape, 40);
  PagedMemory paged(shape, 40, 16);
  for (const DeviceKv& kv : {DeviceKv(DeviceViewOf(&out, shape, 40)), DeviceKv(paged.view())}) {
    DeviceTarget target;
    target.kv = kv;
    const absl::StatusOr<LoadResult> result =
        client_->LoadToDevice(latent.profile, latent.identity, latent.tokens, {}, target);
    ASSERT_TRUE(result.ok()) << result.status();
  }
  EXPECT_EQ(out.values(), latent.Expected({3, 3, 3}).values());
  EXPECT_EQ(paged.Gather().values(), out.values());
}

TEST_F(ClientDeviceLoadTest, WritesOneShardAndNothingElse) {
  ScriptFixedLevel();
  KvBlock out = Memory();
  const KvBlock untouched = out;
  DeviceTarget target = Target(&out);
  target.device_ordinal = 5;
  target.shard = {1, 1, 1, 0};
  target.kv = DeviceViewOf(&out, geometry(), kTokens, target.shard);
  ASSERT_TRUE(Load(target, Fixed(1)).ok());
  ASSERT_EQ(device_.options().size(), 1);
  EXPECT_EQ(device_.options()[0].device_ordinal, 5);
  EXPECT_EQ(device_.options()[0].shard.heads, 1) << "resolved";
  const KvBlock expected = context_.Expected(std::vector<int>(kChunks, 1));
  const auto compare = [&](int layer, int head, const KvBlock& with) {
    const KvView a = out.view();
    const KvView b = with.view();
    for (int64_t token = 0; token < kTokens; ++token) {
      for (int channel = 0; channel < geometry().head_size; ++channel) {
        ASSERT_EQ(a.keys[layer].at(token, head)[channel], b.keys[layer].at(token, head)[channel]);
      }
    }
  };
  compare(1, 1, expected);
  compare(0, 1, untouched);
  compare(1, 0, untouched);
}

TEST_F(ClientDeviceLoadTest, TellsTheServerHowFastTheDeviceDecodes) {
  std::vector<double> seconds;
  Script([&](LoadScript& load) {
    seconds.push_back(load.start().decode_seconds_per_token());
    for (uint32_t chunk = 0; chunk < kChunks; ++chunk) load.Send(chunk, 0, 0);
    load.ReadUntilReady();
    load.Summary();
    return grpc::Status::OK;
  });
  ASSERT_TRUE(client_->WarmUp(context_.profile).ok());
  ASSERT_TRUE(client_->WarmUpDevice(context_.profile, 0, {}).ok());
  EXPECT_EQ(device_.roots_created(), 1);
  KvBlock out = Memory();
  ASSERT_TRUE(Load(Target(&out)).ok());
  ASSERT_TRUE(Load(Target(&out)).ok());
  EXPECT_EQ(device_.roots_created(), 1) << "what the warm-up has set up";
  ASSERT_EQ(seconds.size(), 2);
  EXPECT_EQ(seconds[0], 0) << "the host's decoder says nothing of the device";
  EXPECT_GT(seconds[1], 0);
}

TEST_F(ClientDeviceLoadTest, TheNetworkGoesOnWhileTheDeviceIsBusy) {
  device_.Pause();
  Script([this](LoadScript& load) {
    load.Send(0, 0, 0);
    device_.WaitForCalls(1);
    for (uint32_t chunk = 1; chunk < kChunks; ++chunk) load.Send(chunk, 0, 0);
    load.ReadUntil([&](const v1::LoadProgress& progress) {
      return progress.bytes_received() == load.bytes_sent();
    });
    EXPECT_EQ(load.progress().back().chunks_ready(), 0);
    EXPECT_EQ(device_.chunks_written(), 0);
    device_.Resume();
    load.ReadUntilReady();
    load.Summary();
    return grpc::Status::OK;
  });
  KvBlock out = Memory();
  const absl::StatusOr<LoadResult> result = Load(Target(&out));
  ASSERT_TRUE(result.ok()) << result.status();
  ExpectKv(out, std::vector<int>(kChunks, 0));
}

// ------------------------------------------------------------------ recompute

TEST_F(ClientDeviceLoadTest, RecomputesOnceTheChunksBeforeAreCompleteOnTheDevice) {
  Script([](LoadScript& load) {
    load.PlanRecompute(3);
    load.PlanRecompute(7);
    for (uint32_t chunk = 0; chunk < kChunks; ++chunk) {
      if (chunk != 3 && chunk != 7) load.Send(chunk, 0, 1);
    }
    load.ReadUntilReady();
    load.Summary();
    return grpc::Status::OK;
  });
  KvBlock out = Memory();
  const KvBlock expected = context_.Expected({1, 1, 1, -1, 1, 1, 1, -1, 1, 1, 1, 1});
  LoadOptions options;
  options.ability = ClientRecomputeAbility::kAny;
  std::vector<int64_t> calls;
  options.recompute = [&](int64_t first, int64_t count) {
    calls.push_back(first);
    EXPECT_EQ(out.Tokens(0, first), expected.Tokens(0, first));
    out.CopyTokens(context_.kv, first, count);
    return absl::OkStatus();
  };
  const absl::StatusOr<LoadResult> result = Load(Target(&out), options);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(calls, (std::vector<int64_t>{48, 112}));
  EXPECT_EQ(out.values(), expected.values());
  EXPECT_EQ(result->recomputed_tokens, 32);
}

// ------------------------------------------------------------------ damage and failures

TEST_F(ClientDeviceLoadTest, OneDamagedChunkIsRecomputedAndTheOthersStand) {
  enum class Finder { kSegmentCheck, kDecoder, kDevice };
  for (const Finder finder : {Finder::kSegmentCheck, Finder::kDecoder, Finder::kDevice}) {
    chunks_ = context_.Encode();
    device_.refuse = device_.find = nullptr;
    const auto fourth = [](int64_t first_token) {
      return first_token == 64 ? absl::DataLossError("a block") : absl::OkStatus();
    };
    if (finder == Finder::kSegmentCheck) chunks_[4].segments[0].back() ^= 1;
    if (finder == Finder::kDecoder) device_.refuse = fourth;
    if (finder == Finder::kDevice) device_.find = fourth;
    Script([](LoadScript& load) {
      for (uint32_t chunk = 0; chunk < kChunks; ++chunk) load.Send(chunk, 0, 1);
      load.ReadUntil([](const v1::LoadProgress& p) { return p.damaged_chunks_size() > 0; });
      EXPECT_EQ(load.progress().back().damaged_chunks(0), 4);
      load.PlanRecompute(4);
      load.ReadUntilReady();
      load.Summary();
      return grpc::Status::OK;
    });
    KvBlock out = Memory();
    LoadOptions options;
    options.ability = ClientRecomputeAbility::kAny;
    options.recompute = [&](int64_t first, int64_t count) {
      out.CopyTokens(context_.kv, first, count);
      return absl::OkStatus();
    };
    const absl::StatusOr<LoadResult> result = Load(Target(&out), options);
    ASSERT_TRUE(result.ok()) << result.status();
    ExpectKv(out, {1, 1, 1, 1, -1, 1, 1, 1, 1, 1, 1, 1});
  }
}

TEST_F(ClientDeviceLoadTest, ADamagedChunkWithoutRecomputeIsDataLossWithItsId) {
  device_.find = [](int64_t first_token) {
    return first_token == 64 ? absl::DataLossError("a block does not end") : absl::OkStatus();
  };
  Script([](LoadScript& load) {
    for (uint32_t chunk = 0; chunk < kChunks; ++chunk) load.Send(chunk, 0, 1);
    load.ReadUntil([](const v1::LoadProgress& p) { return p.damaged_chunks_size() > 0; });
    return grpc::Status(grpc::StatusCode::DATA_LOSS, "a chunk is damaged");
  });
  KvBlock out = Memory();
  const absl::StatusOr<LoadResult> result = Load(Target(&out));
  ExpectError(result, absl::StatusCode::kDataLoss, ShortChunkId(context_.chunk_ids[4]));
  ExpectError(result, absl::StatusCode::kDataLoss, "a block does not end");
}

TEST_F(ClientDeviceLoadTest, AnErrorOfCudaEndsTheLoadAndNothingWritesAfterwards) {
  Script([this](LoadScript& load) {
    for (uint32_t chunk : {0, 1, 2}) load.Send(chunk, 0, 0);
    load.ReadUntil([](const v1::LoadProgress& p) { return p.chunks_ready() == 3; });
    device_.Break(absl::InternalError("CUDA: unspecified launch failure"));
    for (uint32_t chunk = 3; chunk < kChunks; ++chunk) load.Send(chunk, 0, 0);
    load.ReadUntilReady();
    return grpc::Status::CANCELLED;
  });
  KvBlock out = Memory();
  ExpectError(Load(Target(&out)), absl::StatusCode::kInternal, "unspecified launch failure");
  EXPECT_EQ(device_.chunks_written(), 3);
  const std::vector<uint16_t> values = out.values();
  EXPECT_EQ(device_.decoders_alive(), 0) << "the failed decoder is gone";
  EXPECT_EQ(out.values(), values);
}

TEST_F(ClientDeviceLoadTest, ABlockTableOutsideOfTheCacheIsTheCallersError) {
  ScriptFixedLevel();
  PagedMemory paged(geometry(), kTokens, 16);
  paged.table()[6] = -1;
  DeviceTarget target;
  target.kv = paged.view();
  ExpectError(Load(target), absl::StatusCode::kInvalidArgument, "block table");
}

TEST_F(ClientDeviceLoadTest, CancellationWaitsForTheDevice) {
  Script([this](LoadScript& load) {
    load.Send(0, 0, 0);
    load.ReadUntil([](const v1::LoadProgress& p) { return p.chunks_ready() == 1; });
    device_.Pause();
    load.Send(1, 0, 0);
    load.ReadUntil([](const v1::LoadProgress&) { return false; });
    return grpc::Status::CANCELLED;
  });
  KvBlock out = Memory();
  LoadOptions options;
  std::atomic<bool> cancelled{false};
  options.cancelled = [&] { return cancelled.load(); };
  std::thread canceller([&] {
    device_.WaitForCalls(2);
    cancelled = true;
    device_.Resume();
  });
  ExpectError(Load(Target(&out), options), absl::StatusCode::kCancelled, "the caller cancelled");
  canceller.join();
  const std::vector<uint16_t> values = out.values();
  EXPECT_EQ(device_.chunks_written(), 2);
  ScriptFixedLevel();
  KvBlock other = Memory();
  ASSERT_TRUE(Load(Target(&other), Fixed(3)).ok()) << "the decoder serves on";
  EXPECT_EQ(out.values(), values);
  EXPECT_EQ(device_.roots_created(), 1);
}

TEST_F(ClientDeviceLoadTest, LoadsThatOverlapHaveDecodersOfTheirOwn) {
  ScriptFixedLevel();
  std::vector<KvBlock> outs(4, Memory());
  std::vector<std::thread> threads;
  std::atomic<int> succeeded{0};
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&, i] {
      for (int round = 0; round < 3; ++round) succeeded += Load(Target(&outs[i]), Fixed(i)).ok();
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(succeeded, 12);
  for (int i = 0; i < 4; ++i) ExpectKv(outs[i], std::vector<int>(kChunks, i));
  EXPECT_LE(device_.most_decoders_alive(), 4);
}

// ------------------------------------------------------------------ before anything is sent

TEST_F(ClientDeviceLoadTest, WithoutADeviceTheServerIsNotAsked) {
  device_.create_status = absl::UnavailableError("no CUDA driver on this machine");
  ScriptFixedLevel();
  KvBlock out = Memory();
  EXPECT_EQ(Load(Target(&out)).status(), device_.create_status);
  EXPECT_EQ(client_->WarmUpDevice(context_.profile, 0, {}), device_.create_status);
  EXPECT_EQ(loads_seen_, 0);
  // Host memory goes on working.
  ASSERT_TRUE(
      client_
          ->Load(context_.profile, context_.identity, context_.tokens, Fixed(1), out.mutable_view())
          .ok());
  ExpectKv(out, std::vector<int>(kChunks, 1));
}

TEST_F(ClientDeviceLoadTest, RefusesTargetsAndOptionsThatDoNotFit) {
  ScriptFixedLevel();
  KvBlock out = Memory();
  DeviceTarget target = Target(&out);
  target.shard.first_layer = 2;
  ExpectError(Load(target), absl::StatusCode::kInvalidArgument, "the model has 2");
  EXPECT_EQ(client_->WarmUpDevice(context_.profile, 0, target.shard).code(),
            absl::StatusCode::kInvalidArgument);
  ExpectError(Load(Target(&out), Fixed(9)), absl::StatusCode::kInvalidArgument, "level 9");
  absl::get<DeviceKvView>(target.kv).tokens = 3;
  target.shard = {};
  ExpectError(Load(target), absl::StatusCode::kInvalidArgument, "for 3 tokens");
  EXPECT_EQ(loads_seen_, 0);
  EXPECT_EQ(device_.roots_created(), 0);
}

// The kernels' own code, run on the host: what is left out is the hardware.
TEST_F(ClientDeviceLoadTest, TheKernelsCodeGivesTheHostsKvWithinRounding) {
  Client::Options options;
  options.server = server_.address();
  const auto client = *CreateClient(
      options,
      [](std::shared_ptr<const Profile> profile, const DeviceChunkDecoderOptions& wanted)
          -> absl::StatusOr<std::unique_ptr<DeviceChunkDecoder>> {
        DeviceDecoderOptions device;
        device.shard = wanted.shard;
        device.max_batch_chunks = wanted.max_batch_chunks;
        device.staging_slots = wanted.calls_under_way + 1;
        auto decoder = CreateHostDeviceDecoder(std::move(profile), device);
        if (!decoder.ok()) return decoder.status();
        return WrapDeviceDecoder(*std::move(decoder));
      });
  Script([](LoadScript& load) {
    for (uint32_t chunk = 0; chunk < kChunks; ++chunk) load.Send(chunk, 0, 1);
    load.ReadUntilReady();
    for (uint32_t chunk : {2, 3}) load.Send(chunk, 2, 3);
    load.ReadUntilReady();
    load.Summary();
    return grpc::Status::OK;
  });
  KvBlock out = Memory();
  PagedMemory paged(geometry(), kTokens, 32);
  for (const DeviceKv& kv : {Target(&out).kv, DeviceKv(paged.view())}) {
    DeviceTarget target;
    target.kv = kv;
    const absl::StatusOr<LoadResult> result =
        client->LoadToDevice(context_.profile, context_.identity, context_.tokens, {}, target);
    ASSERT_TRUE(result.ok()) << result.status();
  }
  EXPECT_EQ(paged.Gather().values(), out.values());
  const KvBlock expected = context_.Expected({1, 1, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1});
  for (size_t i = 0; i < expected.values().size(); ++i) {
    ASSERT_NEAR(FloatFromHalf(out.values()[i]), FloatFromHalf(expected.values()[i]), 0.01) << i;
  }
  // A damaged segment is found by either check, and is one chunk's.
  chunks_[4].segments[1].back() ^= 1;
  Script([](LoadScript& load) {
    for (uint32_t chunk = 0; chunk < kChunks; ++chunk) load.Send(chunk, 0, 1);
    load.ReadUntil([](const v1::LoadProgress& p) { return p.damaged_chunks_size() > 0; });
    return grpc::Status(grpc::StatusCode::DATA_LOSS, "");
  });
  ExpectError(
      client->LoadToDevice(context_.profile, context_.identity, context_.tokens, {}, Target(&out)),
      absl::StatusCode::kDataLoss, ShortChunkId(context_.chunk_ids[4]));
  // Its own word on a block table that leads out of the cache.
  ScriptFixedLevel();
  paged.table()[2] = 1 << 20;
  DeviceTarget target;
  target.kv = paged.view();
  ExpectError(
      client->LoadToDevice(context_.profile, context_.identity, context_.tokens, {}, target),
      absl::StatusCode::kInvalidArgument, "the block table");
}

}  // namespace
}  // namespace kvstream

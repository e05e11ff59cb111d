// Loads that are moved from a daemon that goes to one that goes on from what is in place.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "client/client.h"
#include "client/client_factory.h"
#include "client/testing/fake_device.h"
#include "client/testing/scripted_server.h"
#include "client/testing/synthetic_context.h"

namespace kvstream {
namespace {

using ::testing::ElementsAre;

constexpr int64_t kTokens = 48;  // three chunks of four levels

grpc::Status Gone() { return {grpc::StatusCode::UNAVAILABLE, "gone"}; }

class FailoverLoadTest : public testing::Test {
 protected:
  FailoverLoadTest() : context_(kTokens), chunks_(context_.Encode()) {}

  // What the daemons do with the loads that they are asked for, in the order of asking.
  void Script(ScriptedServer* server, std::vector<std::function<grpc::Status(LoadScript&)>> loads) {
    auto left = std::make_shared<std::vector<std::function<grpc::Status(LoadScript&)>>>(
        loads.rbegin(), loads.rend());
    server->service().load = [this, left](grpc::ServerContext*, LoadStream* stream) {
      LoadScript load(stream, chunks_, &context_);
      std::function<grpc::Status(LoadScript&)> script;
      {
        absl::MutexLock lock(&mutex_);
        starts_.push_back(load.start());
        if (left->empty()) return grpc::Status(grpc::StatusCode::INTERNAL, "one load too many");
        script = std::move(left->back());
        left->pop_back();
      }
      return script(load);
    };
  }
  std::vector<v1::LoadStart> starts() {
    absl::MutexLock lock(&mutex_);
    return starts_;
  }
  static std::vector<int> HeldOf(const v1::LoadStart& start) {
    return {start.held_levels().begin(), start.held_levels().end()};
  }

  std::unique_ptr<Client> Connect(const std::vector<ScriptedServer*>& servers) {
    Client::Options options;
    for (const ScriptedServer* server : servers) {
      absl::StrAppend(&options.server, options.server.empty() ? "" : ",", server->address());
    }
    options.rpc_timeout = absl::Hours(1);
    return *CreateClient(options, device_.Factory());
  }
  absl::StatusOr<LoadResult> Load(const std::vector<ScriptedServer*>& servers, KvBlock* out,
                                  const LoadOptions& options) {
    return Connect(servers)->Load(context_.profile, context_.identity, context_.tokens, options,
                                  out->mutable_view());
  }
  KvBlock Memory() const { return KvBlock(context_.profile->geometry(), kTokens); }
  // Far away: nothing here waits for it.
  static LoadOptions WithDeadline() {
    LoadOptions options;
    options.deadline = absl::Minutes(10);
    return options;
  }
  void Expect(const absl::StatusOr<LoadResult>& result, const KvBlock& out,
              const std::vector<int>& levels) {
    ASSERT_TRUE(result.ok()) << result.status();
    std::vector<int> got;
    for (const LoadedChunk& chunk : result->chunks) got.push_back(chunk.level.value_or(-1));
    EXPECT_EQ(got, levels);
    EXPECT_TRUE(out.values() == context_.Expected(levels).values());
    EXPECT_FALSE(result->deadline_missed);
  }
  uint64_t BytesAt(const std::vector<int>& levels) const {
    uint64_t bytes = 0;
    for (size_t chunk = 0; chunk < levels.size(); ++chunk) {
      for (int level = 0; level <= levels[chunk]; ++level) {
        bytes += chunks_[chunk].segments[static_cast<size_t>(level)].size();
      }
    }
    return bytes;
  }

  // All bases, and then the daemon goes.
  static grpc::Status Bases(LoadScript& load) {
    for (uint32_t chunk : {0, 1, 2}) load.Send(chunk, 0, 0);
    load.ReadUntilReady();
    return Gone();
  }
  static grpc::Status RefineAll(LoadScript& load) {
    load.Begun();
    for (uint32_t chunk : {0, 1, 2}) load.Send(chunk, 1, 3);
    load.ReadUntilReady();
    load.Summary();
    return grpc::Status::OK;
  }

  const SyntheticContext context_;
  const std::vector<EncodedChunk> chunks_;
  FakeDevice device_;
  ScriptedServer first_, second_, third_;
  absl::Mutex mutex_;
  std::vector<v1::LoadStart> starts_ ABSL_GUARDED_BY(mutex_);
};

TEST_F(FailoverLoadTest, WhatIsInPlaceIsRefinedByTheNextDaemon) {
  Script(&first_, {Bases});
  Script(&second_, {RefineAll});
  KvBlock out = Memory();
  const auto result = Load({&first_, &second_}, &out, WithDeadline());
  Expect(result, out, {3, 3, 3});
  EXPECT_EQ(result->bytes, BytesAt({3, 3, 3})) << "nothing came twice";
  for (size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(result->chunks[i].bytes, BytesAt({3, 3, 3}) - BytesAt([i] {
                                         std::vector<int> others(3, 3);
                                         others[i] = -1;
                                         return others;
                                       }()));
  }
  EXPECT_THAT(HeldOf(starts()[1]), ElementsAre(1, 1, 1));
}

TEST_F(FailoverLoadTest, SoItIsInDeviceMemory) {
  Script(&first_, {Bases});
  Script(&second_, {RefineAll});
  KvBlock out = Memory();
  int stream = 0;
  DeviceTarget target;
  target.kv = DeviceViewOf(&out, context_.profile->geometry(), kTokens);
  target.stream = &stream;
  const auto result = Connect({&first_, &second_})
                          ->LoadToDevice(context_.profile, context_.identity, context_.tokens,
                                         WithDeadline(), target);
  Expect(result, out, {3, 3, 3});
}

TEST_F(FailoverLoadTest, MissingChunksComeWithThoseThatAreHeld) {
  Script(&first_, {[](LoadScript& load) {
    for (uint32_t chunk : {0, 1}) load.Send(chunk, 0, 1);
    load.ReadUntil([](const v1::LoadProgress& told) { return told.chunks_ready() == 2; });
    return Gone();
  }});
  Script(&second_, {[](LoadScript& load) {
    load.Begun();
    load.Send(2, 0, 0);
    load.Send(0, 2, 2);
    load.ReadUntilReady();
    load.Summary();
    return grpc::Status::OK;
  }});
  KvBlock out = Memory();
  Expect(Load({&first_, &second_}, &out, WithDeadline()), out, {2, 1, 0});
  EXPECT_THAT(HeldOf(starts()[1]), ElementsAre(2, 2, 0));
}

TEST_F(FailoverLoadTest, WhatCameOfARefinementIsNotLost) {
  Script(&first_, {[](LoadScript& load) {
    for (uint32_t chunk : {0, 1, 2}) load.Send(chunk, 0, 0);
    load.ReadUntilReady();
    // One level of two: nothing is decoded of it yet.
    load.Plan(1, 2);
    load.Segment(1, 1);
    load.ReadUntil(
        [&](const v1::LoadProgress& told) { return told.bytes_received() == load.bytes_sent(); });
    return Gone();
  }});
  Script(&second_, {[](LoadScript& load) {
    load.Begun();
    load.ReadUntil([](const v1::LoadProgress& told) { return told.chunks_ready() == 3; });
    load.Send(1, 2, 3);
    load.ReadUntilReady();
    load.Summary();
    return grpc::Status::OK;
  }});
  KvBlock out = Memory();
  const auto result = Load({&first_, &second_}, &out, WithDeadline());
  Expect(result, out, {0, 3, 0});
  EXPECT_EQ(result->bytes, BytesAt({0, 3, 0}));
  EXPECT_THAT(HeldOf(starts()[1]), ElementsAre(1, 2, 1));
}

TEST_F(FailoverLoadTest, AThirdDaemonGoesOnFromTheSecond) {
  Script(&first_, {Bases});
  Script(&second_, {[](LoadScript& load) {
    load.Begun();
    load.Send(2, 1, 2);
    load.ReadUntilReady();
    return Gone();
  }});
  Script(&third_, {[](LoadScript& load) {
    load.Begun();
    load.Send(2, 3, 3);
    load.ReadUntilReady();
    load.Summary();
    return grpc::Status::OK;
  }});
  KvBlock out = Memory();
  Expect(Load({&first_, &second_, &third_}, &out, WithDeadline()), out, {0, 0, 3});
  EXPECT_THAT(HeldOf(starts()[2]), ElementsAre(1, 1, 3));
}

TEST_F(FailoverLoadTest, WithNobodyLeftItIsAsItIs) {
  Script(&first_, {Bases});
  Script(&second_, {[](LoadScript&) { return Gone(); }});
  KvBlock out = Memory();
  Expect(Load({&first_, &second_}, &out, WithDeadline()), out, {0, 0, 0});
}

// As one that was built before held_levels: it plans and sends everything.
TEST_F(FailoverLoadTest, ADaemonThatDoesNotKnowOfHeldChunksIsAskedForTheRest) {
  const auto everything = [](LoadScript& load) {
    for (uint32_t chunk : {0, 1, 2}) load.Send(chunk, 0, 0);
    load.ReadUntilReady();
    return grpc::Status::OK;
  };
  Script(&first_, {[](LoadScript& load) {
    for (uint32_t chunk : {1, 2}) load.Send(chunk, 0, 0);
    load.ReadUntil([](const v1::LoadProgress& told) { return told.chunks_ready() == 2; });
    return Gone();
  }});
  Script(&second_, {everything, [](LoadScript& load) {
                      LoadScript rest(load, 1);
                      rest.Send(0, 0, 2);
                      rest.ReadUntilReady();
                      rest.Summary();
                      return grpc::Status::OK;
                    }});
  KvBlock out = Memory();
  Expect(Load({&first_, &second_}, &out, WithDeadline()), out, {2, 0, 0});
  const std::vector<v1::LoadStart> asked = starts();
  ASSERT_EQ(asked.size(), 3u);
  EXPECT_THAT(HeldOf(asked[1]), ElementsAre(0, 1, 1));
  EXPECT_EQ(asked[2].chunk_ids_size(), 1);
  EXPECT_EQ(asked[2].held_levels_size(), 0);
}

TEST_F(FailoverLoadTest, NothingIsAskedForTwiceWhereAllIsInPlace) {
  // It does not know of held chunks; one of them is gone; it has no room; they are others.
  const std::vector<std::function<grpc::Status(LoadScript&)>> refusals = {
      [](LoadScript& load) {
        load.Send(0, 0, 0);
        load.ReadUntilReady();
        return grpc::Status::OK;
      },
      [](LoadScript&) { return grpc::Status(grpc::StatusCode::NOT_FOUND, "chunk 1"); },
      [](LoadScript&) { return grpc::Status(grpc::StatusCode::RESOURCE_EXHAUSTED, "full"); },
      [](LoadScript& load) {
        load.Begun();
        v1::LoadResponse other;
        other.mutable_plan()->set_chunk(1);
        other.mutable_plan()->set_level(1);
        other.mutable_plan()->set_tokens(16);
        for (const uint64_t bytes : {7, 8, 9, 10}) other.mutable_plan()->add_segment_bytes(bytes);
        load.Write(other);
        load.ReadUntilReady();
        return grpc::Status::OK;
      },
  };
  for (const auto& refusal : refusals) {
    ScriptedServer first, second;
    Script(&first, {Bases});
    Script(&second, {refusal});
    KvBlock out = Memory();
    Expect(Load({&first, &second}, &out, WithDeadline()), out, {0, 0, 0});
  }
}

TEST_F(FailoverLoadTest, TheDeadlineDoesNotWaitForTheNextDaemon) {
  Script(&first_, {Bases});
  // It takes the load and says nothing.
  const auto silent = [](LoadScript& load) {
    load.ReadUntil([](const v1::LoadProgress&) { return false; });
    return grpc::Status::OK;
  };
  Script(&second_, {silent});
  KvBlock out = Memory();
  LoadOptions options;
  options.deadline = absl::Seconds(1);
  const auto result = Load({&first_, &second_}, &out, options);
  // The other way out is after an hour.
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_TRUE(out.values() == context_.Expected({0, 0, 0}).values());
}

TEST_F(FailoverLoadTest, OtherPoliciesAskForWhatIsMissingOnly) {
  Script(&first_, {[](LoadScript& load) {
    for (uint32_t chunk : {1, 2}) load.Send(chunk, 0, 1);
    load.ReadUntil([](const v1::LoadProgress& told) { return told.chunks_ready() == 2; });
    return Gone();
  }});
  Script(&second_, {[](LoadScript& load) {
    LoadScript rest(load, 1);
    rest.Send(0, 0, 1);
    rest.ReadUntilReady();
    rest.Summary();
    return grpc::Status::OK;
  }});
  KvBlock out = Memory();
  LoadOptions options;
  options.policy = ClientPolicy::kFixed;
  options.level = 1;
  Expect(Load({&first_, &second_}, &out, options), out, {1, 1, 1});
  EXPECT_EQ(starts()[1].held_levels_size(), 0);
  EXPECT_EQ(starts()[1].chunk_ids_size(), 1);
}

TEST_F(FailoverLoadTest, ADamagedRefinementIsRecomputedOrFailsTheLoad) {
  for (const bool can : {true, false}) {
    ScriptedServer first, second;
    Script(&first, {Bases});
    Script(&second, {[](LoadScript& load) {
      load.Begun();
      load.Plan(1, 1);
      load.DamagedSegment(1, 1);
      if (!load.ReadUntil(
              [](const v1::LoadProgress& told) { return told.damaged_chunks_size() > 0; })) {
        return grpc::Status(grpc::StatusCode::INTERNAL, "no damage was reported");
      }
      if (load.start().recompute_ability() == v1::RECOMPUTE_ABILITY_NONE) {
        return grpc::Status(grpc::StatusCode::DATA_LOSS, "chunk 1");
      }
      load.PlanRecompute(1);
      load.ReadUntilReady();
      load.Summary();
      return grpc::Status::OK;
    }});
    KvBlock out = Memory();
    LoadOptions options = WithDeadline();
    if (can) {
      options.ability = ClientRecomputeAbility::kAny;
      options.recompute = [&](int64_t first_token, int64_t count) {
        out.CopyTokens(context_.kv, first_token, count);
        return absl::OkStatus();
      };
    }
    const auto result = Load({&first, &second}, &out, options);
    if (can) {
      Expect(result, out, {0, -1, 0});
    } else {
      EXPECT_EQ(result.status().code(), absl::StatusCode::kDataLoss) << result.status();
    }
  }
}

}  // namespace
}  // namespace kvstream

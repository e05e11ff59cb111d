// Load over loopback: what an honest client gets, and what hostile, slow and vanishing ones cost.
#include "server/service/load_rpc.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <fstream>
#include <limits>
#include <thread>

#include "absl/synchronization/notification.h"
#include "grpcpp/generic/generic_stub.h"
#include "server/service/ids.h"
#include "server/service/testing/test_server.h"

namespace kvstream {
namespace {

using ::testing::HasSubstr;

int ThreadsOfThisProcess() {
  std::ifstream status("/proc/self/status");
  std::string word;
  int threads = 0;
  while (status >> word) {
    if (word == "Threads:") status >> threads;
  }
  return threads;
}

TEST(LoadRpcTest, AnHonestClientGetsTheStoredBytesInTheOrderPromised) {
  TestServer server;
  const TestContext context;
  ASSERT_TRUE(server.PutContext(context).ok());
  v1::LoadStart start = StartOf(context);
  start.set_policy(v1::POLICY_FIXED);
  start.set_level(2);
  const TestLoad load = RunLoad(server.stub(), start);
  ASSERT_TRUE(load.status.ok()) << load.status.error_message();
  EXPECT_EQ(load.violation, "");
  for (int i = 0; i < context.chunks; ++i) {
    EXPECT_EQ(load.chunks[i],
              context.segment(i, 0) + context.segment(i, 1) + context.segment(i, 2));
  }
  ASSERT_TRUE(load.summary.has_value());
  EXPECT_EQ(load.summary->bytes_sent(), context.bytes_at(2));
  ASSERT_EQ(load.summary->chunks_size(), context.chunks);
  for (int i = 0; i < context.chunks; ++i) {
    EXPECT_EQ(load.summary->chunks(i).chunk(), static_cast<uint32_t>(i));
    EXPECT_EQ(load.summary->chunks(i).level(), 2u);
  }
}

TEST(LoadRpcTest, PlansTravelWithTheirDataToWhoTakesThemSo) {
  TestServer server;
  const TestContext context;
  ASSERT_TRUE(server.PutContext(context).ok());
  for (const v1::Policy policy : {v1::POLICY_DEADLINE, v1::POLICY_FASTEST, v1::POLICY_FIXED}) {
    for (const bool takes : {false, true}) {
      v1::LoadStart start = StartOf(context);
      start.set_policy(policy);
      start.mutable_deadline()->set_seconds(5);
      start.set_takes_plan_with_data(takes);
      const TestLoad load = RunLoad(server.stub(), start);
      ASSERT_TRUE(load.status.ok()) << policy << load.status.error_message();
      EXPECT_EQ(load.violation, "") << policy;
      for (int i = 0; i < context.chunks; ++i) {
        std::string expected;
        for (int level = 0; level <= load.levels[i]; ++level) expected += context.segment(i, level);
        EXPECT_EQ(load.chunks[i], expected) << policy;
      }
      // The first chunk's data follow at once, whatever the link.
      EXPECT_EQ(load.plans_with_data > 0, takes) << policy;
    }
  }
}

TEST(LoadRpcTest, APlanWhoseDataCannotBeReadStillComes) {
  TestServer server;
  const TestContext context;
  ASSERT_TRUE(server.PutContext(context).ok());
  server.faults().OnRead([&context](const ChunkId& id, uint32_t) {
    return id == context.id(1) ? absl::DataLossError("rotten") : absl::OkStatus();
  });
  v1::LoadStart start = StartOf(context);
  start.set_policy(v1::POLICY_FIXED);
  start.set_level(1);
  start.set_recompute_ability(v1::RECOMPUTE_ABILITY_ANY);
  start.set_takes_plan_with_data(true);
  const TestLoad load = RunLoad(server.stub(), start);
  ASSERT_TRUE(load.status.ok()) << load.status.error_message();
  EXPECT_EQ(load.violation, "");
  EXPECT_EQ(load.levels, (std::vector<int>{1, -1, 1, 1}));
}

// The real session, on a link that is known to be very fast.
class FastLinkSession final : public LoadSession {
 public:
  explicit FastLinkSession(std::unique_ptr<LoadSession> real) : real_(std::move(real)) {}

  static absl::StatusOr<std::unique_ptr<LoadSession>> Create(const LoadSpec& spec,
                                                             const LoadSessionOptions& options,
                                                             absl::Duration now) {
    absl::StatusOr<std::unique_ptr<LoadSession>> real = LoadSession::Create(spec, options, now);
    if (!real.ok()) return real.status();
    return std::make_unique<FastLinkSession>(*std::move(real));
  }

  LoadAction Next(absl::Duration now) override { return real_->Next(now); }
  absl::Status OnProgress(const ClientProgress& progress, absl::Duration now) override {
    return real_->OnProgress(progress, now);
  }
  void OnSegmentUnavailable(uint32_t chunk, uint32_t level, const absl::Status& why,
                            absl::Duration now) override {
    real_->OnSegmentUnavailable(chunk, level, why, now);
  }
  double bandwidth_estimate_bytes_per_second() const override { return 1e9; }

 private:
  const std::unique_ptr<LoadSession> real_;
};

TEST(LoadRpcTest, SmallSegmentsOfAFastLinkTravelTogetherToWhoTakesThemSo) {
  TestServer server({}, &FastLinkSession::Create);
  TestContext context;
  context.chunks = 200;  // more than a message takes
  ASSERT_TRUE(server.PutContext(context).ok());
  for (const bool takes : {false, true}) {
    for (const bool with_plan : {false, true}) {
      v1::LoadStart start = StartOf(context);
      start.set_policy(v1::POLICY_FIXED);
      start.set_level(1);
      start.set_takes_batches(takes);
      start.set_takes_plan_with_data(with_plan);
      const TestLoad load = RunLoad(server.stub(), start);
      ASSERT_TRUE(load.status.ok()) << load.status.error_message();
      EXPECT_EQ(load.violation, "");
      for (int i = 0; i < context.chunks; ++i) {
        ASSERT_EQ(load.chunks[i], context.segment(i, 0) + context.segment(i, 1));
      }
      // A plan of its own ends a message.
      EXPECT_EQ(load.batches > 0, takes) << with_plan;
    }
  }
}

TEST(LoadRpcTest, ASegmentThatCannotBeReadLeavesTheOthersOfItsMessage) {
  TestServer server({}, &FastLinkSession::Create);
  TestContext context;
  context.chunks = 20;
  ASSERT_TRUE(server.PutContext(context).ok());
  server.faults().OnRead([&context](const ChunkId& id, uint32_t) {
    return id == context.id(3) ? absl::DataLossError("rotten") : absl::OkStatus();
  });
  v1::LoadStart start = StartOf(context);
  start.set_policy(v1::POLICY_FIXED);
  start.set_level(1);
  start.set_recompute_ability(v1::RECOMPUTE_ABILITY_ANY);
  start.set_takes_batches(true);
  start.set_takes_plan_with_data(true);
  const TestLoad load = RunLoad(server.stub(), start);
  ASSERT_TRUE(load.status.ok()) << load.status.error_message();
  EXPECT_EQ(load.violation, "");
  for (int i = 0; i < context.chunks; ++i) EXPECT_EQ(load.levels[i], i == 3 ? -1 : 1) << i;
  EXPECT_GT(load.batches, 0);
}

TEST(LoadRpcTest, TellsTheStoryToWhoAskedForItOnly) {
  TestServer server;
  TestContext context;
  context.segment_bytes = {100000, 200000};
  ASSERT_TRUE(server.PutContext(context).ok());
  v1::LoadStart start = StartOf(context);
  TestLoad load = RunLoad(server.stub(), start);
  ASSERT_TRUE(load.status.ok()) << load.status.error_message();
  ASSERT_TRUE(load.summary.has_value());
  EXPECT_EQ(load.summary->story_size(), 0);
  start.set_story_samples_max(0xffffffff);
  load = RunLoad(server.stub(), start);
  ASSERT_TRUE(load.status.ok()) << load.status.error_message();
  ASSERT_TRUE(load.summary.has_value());
  ASSERT_GE(load.summary->story_size(), 1);
  EXPECT_LE(load.summary->story_size(), 512);
  uint64_t last = 0;
  for (const v1::LoadStorySample& sample : load.summary->story()) {
    EXPECT_GE(sample.at_ns(), last);
    last = sample.at_ns();
    EXPECT_GE(sample.bytes_sent(), sample.bytes_acknowledged());
    EXPECT_GT(sample.window_bytes(), 0u);
  }
}

TEST(LoadRpcTest, EveryPolicyDeliversAtLeastTheFloor) {
  TestServer server;
  TestContext context;
  context.chunks = 20;
  ASSERT_TRUE(server.PutContext(context).ok());
  for (const v1::Policy policy : {v1::POLICY_UNSPECIFIED, v1::POLICY_DEADLINE, v1::POLICY_FASTEST,
                                  v1::POLICY_CACHEGEN, v1::POLICY_FIXED}) {
    v1::LoadStart start = StartOf(context);
    start.set_policy(policy);
    start.set_floor_level(1);
    start.set_level(1);
    start.mutable_deadline()->set_seconds(5);
    const TestLoad load = RunLoad(server.stub(), start);
    ASSERT_TRUE(load.status.ok()) << policy << load.status.error_message();
    EXPECT_EQ(load.violation, "") << policy;
    for (int i = 0; i < context.chunks; ++i) {
      ASSERT_GE(load.levels[i], 1) << policy;
      std::string expected;
      for (int level = 0; level <= load.levels[i]; ++level) expected += context.segment(i, level);
      EXPECT_EQ(load.chunks[i], expected) << policy;
    }
  }
}

TEST(LoadRpcTest, AMeanFloorLowersAsManyChunksAsAllowed) {
  TestServer server;
  TestContext context;
  context.chunks = 20;
  ASSERT_TRUE(server.PutContext(context).ok());
  v1::LoadStart start = StartOf(context);
  start.set_policy(v1::POLICY_FASTEST);
  start.set_floor_level(2);
  start.set_floor_below_share(0.3);
  const TestLoad load = RunLoad(server.stub(), start);
  ASSERT_TRUE(load.status.ok()) << load.status.error_message();
  EXPECT_EQ(load.violation, "");
  EXPECT_EQ(std::count(load.levels.begin(), load.levels.end(), 1), 6);
  EXPECT_EQ(std::count(load.levels.begin(), load.levels.end(), 2), 14);
}

TEST(LoadRpcTest, RecomputeSendsPlansAndNoBytes) {
  TestServer server;
  const TestContext context;
  ASSERT_TRUE(server.PutContext(context).ok());
  v1::LoadStart start = StartOf(context);
  start.set_policy(v1::POLICY_RECOMPUTE);
  start.set_recompute_ability(v1::RECOMPUTE_ABILITY_ANY);
  const TestLoad load = RunLoad(server.stub(), start);
  ASSERT_TRUE(load.status.ok()) << load.status.error_message();
  EXPECT_EQ(load.bytes, 0u);
  EXPECT_EQ(load.levels, std::vector<int>(4, -1));
  EXPECT_EQ(load.summary->chunks(0).recompute().reason(), v1::Recompute::REASON_POLICY);
}

TEST(LoadRpcTest, SegmentsLargerThanAFrameComeInFrames) {
  ServerOptions options = TestServer::Options();
  options.frame_bytes = 8 << 10;
  TestServer server(options);
  TestContext context;
  context.segment_bytes = {50000, 8192, 100001};
  ASSERT_TRUE(server.PutContext(context).ok());
  v1::LoadStart start = StartOf(context);
  start.set_policy(v1::POLICY_FIXED);
  start.set_level(2);
  ManualLoad load(server.stub());
  ASSERT_TRUE(load.SendStart(start));
  size_t largest = 0;
  uint64_t bytes = 0;
  uint32_t ready = 0;
  while (auto response = load.Receive()) {
    if (response->has_summary()) break;
    if (!response->has_data()) continue;
    largest = std::max(largest, response->data().data().size());
    bytes += response->data().data().size();
    ready = static_cast<uint32_t>(bytes / (context.bytes_at(2) / 4));
    load.SendProgress(bytes, ready);
  }
  EXPECT_EQ(largest, size_t{8} << 10);
  EXPECT_EQ(bytes, context.bytes_at(2));
  EXPECT_TRUE(load.Finish().ok());
}

struct BadStart {
  const char* name;
  std::function<void(v1::LoadStart&)> change;
  grpc::StatusCode code;
  std::string message;
};

TEST(LoadRpcTest, HostileStartsAreRefusedByName) {
  TestServer server;
  const TestContext context;
  ASSERT_TRUE(server.PutContext(context).ok());
  TestContext other;
  other.profile_name = 'b';
  other.name = 'y';
  ASSERT_TRUE(server.PutContext(other).ok());
  constexpr auto kInvalid = grpc::StatusCode::INVALID_ARGUMENT;
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const std::vector<BadStart> cases = {
      {"no profile", [](auto& s) { s.clear_profile_id(); }, kInvalid, "profile_id has 0 bytes"},
      {"long profile", [](auto& s) { s.mutable_profile_id()->append("x"); }, kInvalid, "33 bytes"},
      {"unknown profile", [](auto& s) { s.set_profile_id(std::string(32, 'u')); },
       grpc::StatusCode::NOT_FOUND, "profile 7575"},
      {"no chunks", [](auto& s) { s.clear_chunk_ids(); }, kInvalid, "chunk_ids is empty"},
      {"short id", [](auto& s) { s.set_chunk_ids(2, "short"); }, kInvalid, "chunk_ids[2]"},
      {"unknown chunk", [](auto& s) { s.set_chunk_ids(3, std::string(32, '\x01')); },
       grpc::StatusCode::NOT_FOUND, "chunk 3 (0101"},
      {"chunk of another profile", [&](auto& s) { s.set_chunk_ids(0, IdBytes(other.id(0))); },
       grpc::StatusCode::FAILED_PRECONDITION, "chunk 0"},
      {"not consecutive", [](auto& s) { s.mutable_chunk_ids()->SwapElements(0, 2); }, kInvalid,
       "consecutive"},
      {"unknown policy", [](auto& s) { s.set_policy(static_cast<v1::Policy>(77)); }, kInvalid,
       "policy 77"},
      {"unknown ability",
       [](auto& s) { s.set_recompute_ability(static_cast<v1::RecomputeAbility>(-1)); }, kInvalid,
       "recompute_ability"},
      {"deadline policy without deadline", [](auto& s) { s.set_policy(v1::POLICY_DEADLINE); },
       kInvalid, "deadline"},
      {"negative deadline", [](auto& s) { s.mutable_deadline()->set_seconds(-1); }, kInvalid,
       "deadline"},
      {"huge deadline",
       [](auto& s) { s.mutable_deadline()->set_seconds(std::numeric_limits<int64_t>::max()); },
       kInvalid, "deadline"},
      {"bad nanos", [](auto& s) { s.mutable_deadline()->set_nanos(-5); }, kInvalid, "deadline"},
      {"level too fine",
       [](auto& s) {
         s.set_policy(v1::POLICY_FIXED);
         s.set_level(3);
       },
       kInvalid, "level is 3"},
      {"floor too fine", [](auto& s) { s.set_floor_level(4000000000u); }, kInvalid, "floor_level"},
      {"a mean floor under a deadline",
       [](auto& s) {
         s.mutable_deadline()->set_seconds(1);
         s.set_floor_level(1);
         s.set_floor_below_share(0.5);
       },
       kInvalid, "floor_below_share"},
      {"a mean floor of level 0", [](auto& s) { s.set_floor_below_share(0.5); }, kInvalid,
       "floor_below_share"},
      {"NaN below the floor", [=](auto& s) { s.set_floor_below_share(nan); }, kInvalid,
       "floor_below_share"},
      {"recompute without ability", [](auto& s) { s.set_policy(v1::POLICY_RECOMPUTE); }, kInvalid,
       ""},
      {"negative prefill", [](auto& s) { s.set_prefill_seconds_per_token(-1); }, kInvalid,
       "prefill_seconds_per_token"},
      {"NaN pair", [=](auto& s) { s.set_prefill_seconds_per_token_pair(nan); }, kInvalid,
       "prefill_seconds_per_token_pair"},
      {"infinite decode", [](auto& s) { s.set_decode_seconds_per_token(INFINITY); }, kInvalid,
       "decode_seconds_per_token"},
      {"one level held for four chunks", [](auto& s) { s.add_held_levels(1); }, kInvalid,
       "held_levels has 1 values for 4 chunks"},
      {"more levels held than there are",
       [](auto& s) {
         for (const uint32_t held : {1, 1, 4, 1}) s.add_held_levels(held);
       },
       kInvalid, "held_levels of chunk 2 is 4"},
      {"held in pieces",
       [](auto& s) {
         for (const uint32_t held : {0, 1, 0, 1}) s.add_held_levels(held);
       },
       kInvalid, "held_levels: chunks 0 to 2 of 4"},
      {"NaN hint", [=](auto& s) { s.set_bandwidth_hint_bytes_per_second(nan); }, kInvalid,
       "bandwidth_hint"},
  };
  for (const BadStart& bad : cases) {
    v1::LoadStart start = StartOf(context);
    bad.change(start);
    const TestLoad load = RunLoad(server.stub(), start);
    EXPECT_EQ(load.status.error_code(), bad.code)
        << bad.name << ": " << load.status.error_message();
    EXPECT_THAT(load.status.error_message(), HasSubstr(bad.message)) << bad.name;
    EXPECT_EQ(load.bytes, 0u) << bad.name;
  }
  EXPECT_TRUE(RunLoad(server.stub(), StartOf(context)).status.ok());
}

TEST(LoadRpcTest, TooManyChunksAreRefused) {
  TestServer server;
  const TestContext context;
  ASSERT_TRUE(server.PutContext(context).ok());
  v1::LoadStart start = StartOf(context);
  while (start.chunk_ids_size() <= 65536) start.add_chunk_ids(std::string(32, 'c'));
  const TestLoad load = RunLoad(server.stub(), start);
  EXPECT_EQ(load.status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(load.status.error_message(), HasSubstr("65536"));
}

TEST(LoadRpcTest, IllegalOrderOfMessagesEndsTheLoad) {
  TestServer server;
  const TestContext context;
  ASSERT_TRUE(server.PutContext(context).ok());
  {
    ManualLoad load(server.stub());
    load.SendProgress(0, 0);
    EXPECT_EQ(load.Finish().error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  }
  {
    ManualLoad load(server.stub());
    load.SendStart(StartOf(context));
    load.SendStart(StartOf(context));
    EXPECT_EQ(load.Finish().error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  }
  {
    ManualLoad load(server.stub());
    load.Send(v1::LoadRequest());
    EXPECT_EQ(load.Finish().error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  }
  {
    ManualLoad load(server.stub());
    load.HalfClose();
    EXPECT_EQ(load.Finish().error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  }
}

TEST(LoadRpcTest, HalfCloseBeforeTheSummaryEndsTheLoad) {
  TestServer server;
  const TestContext context;
  ASSERT_TRUE(server.PutContext(context).ok());
  ManualLoad load(server.stub());
  ASSERT_TRUE(load.SendStart(StartOf(context)));
  ASSERT_TRUE(load.HalfClose());
  const grpc::Status status = load.Finish();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(status.error_message(), HasSubstr("half-closed"));
}

TEST(LoadRpcTest, ImpossibleProgressEndsTheLoad) {
  TestServer server;
  const TestContext context;
  ASSERT_TRUE(server.PutContext(context).ok());
  const std::vector<std::function<void(v1::LoadProgress&)>> lies = {
      [](auto& p) { p.set_bytes_received(uint64_t{1} << 60); },
      [](auto& p) { p.set_chunks_ready(4000000000u); },
      [](auto& p) { p.set_clock_ns(~uint64_t{0}); },
      [](auto& p) { p.set_recompute_seconds(std::numeric_limits<double>::quiet_NaN()); },
      [](auto& p) { p.set_recompute_seconds(-1); },
      [](auto& p) { p.set_recomputed_up_to(77); },
      [](auto& p) { p.add_damaged_chunks(1000); },
      [](auto& p) { p.mutable_order()->set_up_to(1); },
      [](auto& p) { p.mutable_order()->set_first(4000000000u); },
      [](auto& p) { p.mutable_order()->set_newest(static_cast<v1::OrderProgress::State>(77)); },
      [](auto& p) { p.mutable_taken(); },
      [](auto& p) { p.mutable_taken()->add_chunks(4000000000u); },
  };
  for (size_t i = 0; i < lies.size(); ++i) {
    ManualLoad load(server.stub());
    ASSERT_TRUE(load.SendStart(StartOf(context)));
    v1::LoadRequest request;
    lies[i](*request.mutable_progress());
    load.Send(request);
    const grpc::Status status = load.Finish();
    EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT)
        << "lie " << i << ": " << status.error_message();
  }
}

// Bytes that are no LoadRequest, over the generic client.
TEST(LoadRpcTest, GarbageInsteadOfAMessageEndsTheLoad) {
  TestServer server;
  grpc::GenericStub generic(server.NewChannel());
  for (const std::string& garbage :
       {std::string("\xff\xff\xff\xff"), std::string("\x0a\xff\xff\xff\xff\x0f"),
        std::string(3 << 20, '\x08'), std::string(1000, '\0')}) {
    grpc::ClientContext context;
    grpc::CompletionQueue queue;
    auto call = generic.PrepareCall(&context, "/kvstream.v1.KVStream/Load", &queue);
    void* tag = nullptr;
    bool ok = false;
    const auto next = [&] { ASSERT_TRUE(queue.Next(&tag, &ok)); };
    call->StartCall(nullptr);
    next();
    const grpc::Slice slice(garbage);
    call->Write(grpc::ByteBuffer(&slice, 1), nullptr);
    next();
    grpc::Status status;
    call->Finish(&status, nullptr);
    next();
    EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT) << status.error_message();
    queue.Shutdown();
    while (queue.Next(&tag, &ok)) {
    }
  }
}

TEST(LoadRpcTest, AMessageBeyondTheReceiveLimitIsRefusedByTheTransport) {
  TestServer server;
  ManualLoad load(server.stub());
  v1::LoadRequest request;
  request.mutable_start()->set_profile_id(std::string(5 << 20, 'x'));
  load.Send(request);
  EXPECT_EQ(load.Finish().error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
}

TEST(LoadRpcTest, AClientThatVanishesLeavesNothingBehind) {
  TestServer server;
  TestContext context;
  context.segment_bytes = {100000, 200000, 400000};
  ASSERT_TRUE(server.PutContext(context).ok());
  for (int i = 0; i < 10; ++i) {
    auto load = std::make_unique<ManualLoad>(server.stub());
    ASSERT_TRUE(load->SendStart(StartOf(context)));
    ASSERT_TRUE(load->Receive().has_value());
    load->Cancel();
    EXPECT_EQ(load->Finish().error_code(), grpc::StatusCode::CANCELLED);
  }
  const RpcEnvironment& environment = server.server().environment();
  EXPECT_TRUE(Eventually([&] { return environment.loads->in_flight() == 0; }));
  EXPECT_TRUE(Eventually([&] { return environment.load_chunks->used() == 0; }));
  EXPECT_GT(MetricValue(server.server().MetricsText(),
                        R"(kvstream_rpc_errors_total{code="CANCELLED",method="Load"})"),
            0);
  EXPECT_TRUE(RunLoad(server.stub(), StartOf(context)).status.ok());
}

TEST(LoadRpcTest, AConnectionThatBreaksLeavesNothingBehind) {
  TestServer server;
  TestContext context;
  context.segment_bytes = {100000, 200000, 400000};
  ASSERT_TRUE(server.PutContext(context).ok());
  {
    auto stub = v1::KVStream::NewStub(server.NewChannel());
    ManualLoad load(*stub);
    ASSERT_TRUE(load.SendStart(StartOf(context)));
    ASSERT_TRUE(load.Receive().has_value());
  }  // closes the stream and its connection
  EXPECT_TRUE(Eventually([&] { return server.server().environment().loads->in_flight() == 0; }));
}

TEST(LoadRpcTest, AClientThatStallsHoldsAWindowAndIsCutOff) {
  ServerOptions options = TestServer::Options();
  options.client_idle_timeout = absl::Milliseconds(300);
  options.window_bytes_max = 1 << 20;
  TestServer server(options);
  TestContext context;
  context.chunks = 8;
  context.segment_bytes = {1 << 20, 1 << 20, 1 << 20};
  server.StoreContext(context);
  v1::LoadStart start = StartOf(context);
  start.set_policy(v1::POLICY_FIXED);
  start.set_level(2);
  ManualLoad load(server.stub());
  ASSERT_TRUE(load.SendStart(start));
  // Never reads, never reports.
  EXPECT_TRUE(Eventually([&] { return server.server().environment().loads->in_flight() == 1; }));
  EXPECT_TRUE(Eventually([&] { return server.server().environment().loads->in_flight() == 0; }));
  const grpc::Status status = load.Finish();
  EXPECT_TRUE(status.error_code() == grpc::StatusCode::DEADLINE_EXCEEDED ||
              status.error_code() == grpc::StatusCode::CANCELLED)
      << status.error_code() << status.error_message();
  const std::string metrics = server.server().MetricsText();
  EXPECT_EQ(
      MetricValue(metrics, R"(kvstream_rpc_errors_total{code="DEADLINE_EXCEEDED",method="Load"})"),
      1);
  EXPECT_LE(MetricValue(metrics, R"(kvstream_load_bytes_total{level="0"})"), 1 << 20);
}

TEST(LoadRpcTest, AClientThatNeverStartsIsCutOff) {
  ServerOptions options = TestServer::Options();
  options.client_idle_timeout = absl::Milliseconds(50);
  TestServer server(options);
  ManualLoad load(server.stub());
  EXPECT_EQ(load.Finish().error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
}

TEST(LoadRpcTest, LoadsBeyondTheLimitAreRefusedUntilOneEnds) {
  ServerOptions options = TestServer::Options();
  options.max_loads = 1;
  TestServer server(options);
  const TestContext context;
  ASSERT_TRUE(server.PutContext(context).ok());
  ManualLoad first(server.stub());
  ASSERT_TRUE(first.SendStart(StartOf(context)));
  ASSERT_TRUE(first.Receive().has_value());
  const TestLoad refused = RunLoad(server.stub(), StartOf(context));
  EXPECT_EQ(refused.status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_THAT(refused.status.error_message(), HasSubstr("--max-loads"));
  first.Cancel();
  first.Finish();
  EXPECT_TRUE(Eventually([&] { return RunLoad(server.stub(), StartOf(context)).status.ok(); }));
}

TEST(LoadRpcTest, ARefusedLoadIsToldWhenToComeAgain) {
  ServerOptions options = TestServer::Options();
  options.max_loads_per_peer = 1;
  TestServer server(options);
  const TestContext context;
  ASSERT_TRUE(server.PutContext(context).ok());
  ManualLoad first(server.stub());
  ASSERT_TRUE(first.SendStart(StartOf(context)));
  ASSERT_TRUE(first.Receive().has_value());

  grpc::ClientContext call;
  const auto stream = server.stub().Load(&call);
  const grpc::Status status = stream->Finish();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_THAT(status.error_message(), HasSubstr("--max-loads-per-peer"));
  const auto& trailing = call.GetServerTrailingMetadata();
  const auto pushback = trailing.find("grpc-retry-pushback-ms");
  ASSERT_NE(pushback, trailing.end());
  const int ms = std::stoi(std::string(pushback->second.data(), pushback->second.size()));
  EXPECT_GE(ms, 50);
  EXPECT_LE(ms, 5000);
  EXPECT_EQ(MetricValue(server.server().MetricsText(),
                        "kvstream_load_refusals_total{reason=\"loads_per_peer\"}"),
            1);
  first.Cancel();
  first.Finish();
  EXPECT_TRUE(Eventually([&] { return RunLoad(server.stub(), StartOf(context)).status.ok(); }));
}

TEST(LoadRpcTest, LoadsOfOneHostAreOneLinkWhileTheyLast) {
  ServerOptions options = TestServer::Options();
  options.link_sharing = LinkSharing::kHost;
  options.egress_bytes_per_second = uint64_t{1} << 30;
  TestServer server(options);
  const TestContext context;
  ASSERT_TRUE(server.PutContext(context).ok());
  std::vector<std::unique_ptr<ManualLoad>> loads;
  for (int i = 0; i < 3; ++i) {
    loads.push_back(std::make_unique<ManualLoad>(server.stub()));
    ASSERT_TRUE(loads.back()->SendStart(StartOf(context)));
    ASSERT_TRUE(loads.back()->Receive().has_value());
  }
  EXPECT_EQ(MetricValue(server.server().MetricsText(), "kvstream_links"), 1);
  // The answer to the start may come before anything is under way.
  EXPECT_TRUE(Eventually([&] {
    return MetricValue(server.server().MetricsText(), "kvstream_load_in_flight_bytes") > 0;
  }));
  // Whoever does not acknowledge holds nobody up.
  v1::LoadStart start = StartOf(context);
  start.set_policy(v1::POLICY_FIXED);
  start.set_level(2);
  EXPECT_TRUE(RunLoad(server.stub(), start).status.ok());
  for (auto& load : loads) {
    load->Cancel();
    load->Finish();
  }
  EXPECT_TRUE(Eventually([&] {
    const std::string text = server.server().MetricsText();
    return MetricValue(text, "kvstream_links") == 0 &&
           MetricValue(text, "kvstream_load_in_flight_bytes") == 0;
  }));
  EXPECT_EQ(MetricValue(server.server().MetricsText(), "kvstream_link_loads_count"), 4);
}

TEST(LoadRpcTest, ChunksOfAllLoadsTogetherAreBounded) {
  ServerOptions options = TestServer::Options();
  options.max_load_chunks = 7;
  TestServer server(options);
  const TestContext context;  // 4 chunks
  ASSERT_TRUE(server.PutContext(context).ok());
  ManualLoad first(server.stub());
  ASSERT_TRUE(first.SendStart(StartOf(context)));
  ASSERT_TRUE(first.Receive().has_value());
  const TestLoad refused = RunLoad(server.stub(), StartOf(context));
  EXPECT_EQ(refused.status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_THAT(refused.status.error_message(), HasSubstr("--max-load-chunks"));
  first.Cancel();
  first.Finish();
}

TEST(LoadRpcTest, AnUnreadableChunkIsRecomputedWhereTheClientCan) {
  TestServer server;
  const TestContext context;
  ASSERT_TRUE(server.PutContext(context).ok());
  server.faults().OnRead([&](const ChunkId& id, uint32_t level) {
    return id == context.id(1) ? absl::DataLossError("checksum") : absl::OkStatus();
  });
  v1::LoadStart start = StartOf(context);
  start.set_recompute_ability(v1::RECOMPUTE_ABILITY_ANY);
  const TestLoad load = RunLoad(server.stub(), start);
  ASSERT_TRUE(load.status.ok()) << load.status.error_message();
  EXPECT_EQ(load.levels[1], -1);
  EXPECT_EQ(load.summary->chunks(1).recompute().reason(), v1::Recompute::REASON_DATA_LOSS);
  EXPECT_GE(load.levels[0], 0);
  EXPECT_EQ(MetricValue(server.server().MetricsText(),
                        R"(kvstream_recompute_chunks_total{reason="data_loss"})"),
            1);
}

TEST(LoadRpcTest, AnUnreadableChunkEndsTheLoadWhereTheClientCannotRecompute) {
  TestServer server;
  const TestContext context;
  ASSERT_TRUE(server.PutContext(context).ok());
  server.faults().OnRead([&](const ChunkId& id, uint32_t level) {
    return id == context.id(1) ? absl::DataLossError("checksum") : absl::OkStatus();
  });
  const TestLoad load = RunLoad(server.stub(), StartOf(context));
  EXPECT_EQ(load.status.error_code(), grpc::StatusCode::DATA_LOSS) << load.status.error_message();
}

TEST(LoadRpcTest, DeletingChunksDoesNotBreakALoadInFlight) {
  TestServer server;
  TestContext context;
  context.segment_bytes = {60000, 60000, 60000};
  ASSERT_TRUE(server.PutContext(context).ok());
  // The load is held at its second chunk until the deletion has been answered.
  absl::Notification reached, deleted;
  std::atomic<bool> first{true};
  server.faults().OnRead([&](const ChunkId& id, uint32_t level) {
    if (id == context.id(1) && first.exchange(false)) {
      reached.Notify();
      deleted.WaitForNotification();
    }
    return absl::OkStatus();
  });
  TestLoad load;
  v1::LoadStart start = StartOf(context);
  start.set_policy(v1::POLICY_FIXED);
  start.set_level(2);
  std::thread loader([&] { load = RunLoad(server.stub(), start); });
  reached.WaitForNotification();
  {
    grpc::ClientContext client;
    v1::DeleteRequest request;
    for (const ChunkId& id : context.ids()) request.add_chunk_ids(IdBytes(id));
    v1::DeleteResponse response;
    ASSERT_TRUE(server.stub().Delete(&client, request, &response).ok());
    EXPECT_EQ(response.chunks_deleted(), 4u);
  }
  // Gone for everybody else, at once.
  EXPECT_EQ(RunLoad(server.stub(), start).status.error_code(), grpc::StatusCode::NOT_FOUND);
  deleted.Notify();
  loader.join();
  EXPECT_TRUE(load.status.ok()) << load.status.error_message();
  EXPECT_EQ(load.bytes, context.bytes_at(2));
  EXPECT_TRUE(
      Eventually([&] { return server.server().environment().store->Stats()->chunks == 0; }));
}

TEST(LoadRpcTest, TwoHundredLoadsAtOnceRunOnFewThreads) {
  ServerOptions options = TestServer::Options();
  options.read_threads = 3;
  TestServer server(options);
  TestContext context;
  context.segment_bytes = {20000, 30000, 40000};
  ASSERT_TRUE(server.PutContext(context).ok());
  const int threads_before = ThreadsOfThisProcess();
  constexpr int kLoads = 200;
  // One client thread: all loads are opened, then each is brought to its end.
  std::vector<std::unique_ptr<ManualLoad>> loads;
  for (int i = 0; i < kLoads; ++i) {
    loads.push_back(std::make_unique<ManualLoad>(server.stub()));
    v1::LoadStart start = StartOf(context);
    start.set_policy(v1::POLICY_FIXED);
    start.set_level(2);
    ASSERT_TRUE(loads.back()->SendStart(start));
  }
  EXPECT_TRUE(
      Eventually([&] { return server.server().environment().loads->in_flight() == kLoads; }));
  EXPECT_LT(ThreadsOfThisProcess() - threads_before, 40);
  for (const std::unique_ptr<ManualLoad>& load : loads) {
    uint64_t bytes = 0;
    bool summary = false;
    while (auto response = load->Receive()) {
      summary = response->has_summary();
      if (summary) break;
      if (!response->has_data()) continue;
      bytes += response->data().data().size();
      load->SendProgress(bytes, static_cast<uint32_t>(bytes / (context.bytes_at(2) / 4)));
    }
    EXPECT_TRUE(summary);
    EXPECT_TRUE(load->Finish().ok());
  }
  EXPECT_TRUE(Eventually([&] { return server.server().environment().loads->in_flight() == 0; }));
}

// Many clients at once, some of which cancel: the counters add up and nothing is left.
TEST(LoadRpcTest, ConcurrentLoadsWithCancellationsAddUp) {
  TestServer server;
  TestContext context;
  context.segment_bytes = {5000, 9000, 70000};
  ASSERT_TRUE(server.PutContext(context).ok());
  std::vector<std::thread> threads;
  std::atomic<int> finished{0};
  for (int t = 0; t < 8; ++t) {
    threads.emplace_back([&, t] {
      auto stub = v1::KVStream::NewStub(server.NewChannel());
      for (int i = 0; i < 12; ++i) {
        if ((i + t) % 3 == 0) {
          ManualLoad load(*stub);
          load.SendStart(StartOf(context));
          if (i % 2 == 0) load.Receive();
          load.Cancel();
          load.Finish();
        } else {
          const TestLoad load = RunLoad(*stub, StartOf(context));
          EXPECT_TRUE(load.status.ok()) << load.status.error_message();
          EXPECT_EQ(load.violation, "");
          ++finished;
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  const RpcEnvironment& environment = server.server().environment();
  EXPECT_TRUE(Eventually([&] { return environment.loads->in_flight() == 0; }));
  EXPECT_EQ(environment.metrics->load_totals().finished, static_cast<uint64_t>(finished));
  EXPECT_EQ(environment.load_chunks->used(), 0u);
}

}  // namespace
}  // namespace kvstream

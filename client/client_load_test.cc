// Client::Load against servers that behave, lie, stall and vanish.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <functional>
#include <limits>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/synchronization/notification.h"
#include "client/client.h"
#include "client/testing/scripted_server.h"
#include "client/testing/synthetic_context.h"

namespace kvstream {
namespace {

using ::testing::HasSubstr;

class ClientLoadTest : public testing::Test {
 protected:
  ClientLoadTest() : context_(40), chunks_(context_.Encode()) {}  // chunks of 16, 16 and 8 tokens

  void SetUp() override {
    Client::Options options;
    options.server = server_.address();
    options.rpc_timeout = absl::Seconds(20);
    Connect(options);
  }

  void Connect(const Client::Options& options) {
    absl::StatusOr<std::unique_ptr<Client>> client = Client::Create(options);
    ASSERT_TRUE(client.ok()) << client.status();
    client_ = *std::move(client);
  }

  void Script(std::function<grpc::Status(LoadScript&)> script) {
    server_.service().load = [this, script = std::move(script)](grpc::ServerContext*,
                                                                LoadStream* stream) {
      LoadScript load(stream, chunks_, &context_);
      return script(load);
    };
  }

  absl::StatusOr<LoadResult> Load(KvBlock* out, const LoadOptions& options = {}) {
    return client_->Load(context_.profile, context_.identity, context_.tokens, options,
                         out->mutable_view());
  }
  KvBlock Memory() const {
    return KvBlock(context_.profile->geometry(), static_cast<int64_t>(context_.tokens.size()));
  }
  // Options with a callback that copies the exact KV.
  LoadOptions Recomputing(KvBlock* out, ClientRecomputeAbility ability) {
    LoadOptions options;
    options.ability = ability;
    options.recompute = [this, out](int64_t first, int64_t count) {
      recomputed_.emplace_back(first, count);
      out->CopyTokens(context_.kv, first, count);
      return absl::OkStatus();
    };
    return options;
  }
  void ExpectKv(const KvBlock& out, const std::vector<int>& levels) {
    const KvBlock expected = context_.Expected(levels);
    for (uint32_t chunk = 0; chunk < levels.size(); ++chunk) {
      const int64_t first = chunk * 16;
      EXPECT_EQ(out.Tokens(first, context_.ChunkTokens(chunk)),
                expected.Tokens(first, context_.ChunkTokens(chunk)))
          << "chunk " << chunk;
    }
  }
  static void ExpectError(const absl::StatusOr<LoadResult>& result, absl::StatusCode code,
                          const std::string& what) {
    EXPECT_EQ(result.status().code(), code) << result.status();
    EXPECT_THAT(std::string(result.status().message()), HasSubstr(what));
  }

  const SyntheticContext context_;
  const std::vector<EncodedChunk> chunks_;
  ScriptedServer server_;
  std::unique_ptr<Client> client_;
  std::vector<std::pair<int64_t, int64_t>> recomputed_;
};

TEST_F(ClientLoadTest, DecodesEveryLevelAsTheCodecDoesLocally) {
  ASSERT_EQ(context_.profile->levels(), 4);
  Script([](LoadScript& load) {
    for (uint32_t chunk : {0, 1, 2}) load.Send(chunk, 0, static_cast<int>(load.start().level()));
    load.ReadUntilReady();
    load.Summary();
    return grpc::Status::OK;
  });
  for (int level = 0; level < 4; ++level) {
    KvBlock out = Memory();
    LoadOptions options;
    options.policy = ClientPolicy::kFixed;
    options.level = level;
    const absl::StatusOr<LoadResult> result = Load(&out, options);
    ASSERT_TRUE(result.ok()) << result.status();
    ExpectKv(out, {level, level, level});
    ASSERT_EQ(result->chunks.size(), 3);
    uint64_t bytes = 0;
    for (const LoadedChunk& chunk : result->chunks) {
      EXPECT_EQ(chunk.level, level);
      bytes += chunk.bytes;
    }
    EXPECT_EQ(result->chunks[2].tokens, 8);
    EXPECT_EQ(result->bytes, bytes);
    EXPECT_GT(bytes, 0);
    EXPECT_GT(result->load_delay, absl::ZeroDuration());
    EXPECT_GT(result->goodput_bytes_per_second, 0);
    EXPECT_EQ(result->bandwidth_estimate_bytes_per_second, 123456);
    EXPECT_FALSE(result->deadline_missed);
  }
}

TEST_F(ClientLoadTest, ComesAgainWhenABusyServerSaysSo) {
  std::atomic<int> calls{0};
  server_.service().load = [&](grpc::ServerContext* context, LoadStream* stream) {
    if (++calls < 3) {
      context->AddTrailingMetadata("grpc-retry-pushback-ms", "1");
      return grpc::Status(grpc::StatusCode::RESOURCE_EXHAUSTED, "full");
    }
    LoadScript load(stream, chunks_, &context_);
    for (uint32_t chunk : {0, 1, 2}) load.Send(chunk, 0, 0);
    load.ReadUntilReady();
    load.Summary();
    return grpc::Status::OK;
  };
  KvBlock out = Memory();
  const absl::StatusOr<LoadResult> result = Load(&out);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(calls, 3);
  ExpectKv(out, {0, 0, 0});
}

TEST_F(ClientLoadTest, DoesNotComeAgainUnaskedOrTooLate) {
  std::atomic<int> calls{0};
  std::string pushback;
  server_.service().load = [&](grpc::ServerContext* context, LoadStream*) {
    ++calls;
    if (!pushback.empty()) context->AddTrailingMetadata("grpc-retry-pushback-ms", pushback);
    return grpc::Status(grpc::StatusCode::RESOURCE_EXHAUSTED, "full");
  };
  KvBlock out = Memory();
  ExpectError(Load(&out), absl::StatusCode::kResourceExhausted, "full");
  EXPECT_EQ(calls, 1);
  LoadOptions options;
  options.deadline = absl::Seconds(5);
  pushback = "20000";  // beyond the deadline
  ExpectError(Load(&out, options), absl::StatusCode::kResourceExhausted, "full");
  EXPECT_EQ(calls, 2);
  options.cancelled = [] { return true; };
  pushback = "1000";
  ExpectError(Load(&out, options), absl::StatusCode::kCancelled, "cancelled");
}

TEST_F(ClientLoadTest, RefinesChunksThatItHasDecodedBefore) {
  Script([](LoadScript& load) {
    for (uint32_t chunk : {2, 1, 0}) load.Send(chunk, 0, 0);
    load.ReadUntilReady();
    for (uint32_t chunk : {1, 2}) load.Send(chunk, 1, 3);
    load.ReadUntilReady();
    load.Summary();
    return grpc::Status::OK;
  });
  KvBlock out = Memory();
  const absl::StatusOr<LoadResult> result = Load(&out);
  ASSERT_TRUE(result.ok()) << result.status();
  ExpectKv(out, {0, 3, 3});
}

// Keeps what it is told.
class Notes final : public LoadObserver {
 public:
  void OnEvent(const LoadEvent& event) override { events.push_back(event); }
  void OnServerSamples(absl::Span<const ServerSample> told) override {
    ++tellings;
    samples.assign(told.begin(), told.end());
  }
  int Count(LoadEvent::Kind kind) const {
    return static_cast<int>(std::count_if(
        events.begin(), events.end(), [kind](const LoadEvent& one) { return one.kind == kind; }));
  }
  std::vector<LoadEvent> events;
  std::vector<ServerSample> samples;
  int tellings = 0;
};

TEST_F(ClientLoadTest, TellsAnObserverTheWholeStory) {
  uint32_t samples_max = 0;
  Script([&](LoadScript& load) {
    samples_max = load.start().story_samples_max();
    load.PlanRecompute(0);
    for (uint32_t chunk : {1, 2}) load.Send(chunk, 0, 1);
    load.ReadUntilReady();
    load.Send(2, 2, 2);
    load.ReadUntilReady();
    load.Summary();
    return grpc::Status::OK;
  });
  KvBlock out = Memory();
  LoadOptions options = Recomputing(&out, ClientRecomputeAbility::kAny);
  Notes notes;
  options.observer = &notes;
  const absl::StatusOr<LoadResult> result = Load(&out, options);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(samples_max, kStorySamplesMax);
  using Kind = LoadEvent::Kind;
  ASSERT_FALSE(notes.events.empty());
  EXPECT_EQ(notes.events.front().kind, Kind::kStarted);
  EXPECT_EQ(notes.Count(Kind::kStarted), 1);
  EXPECT_EQ(notes.Count(Kind::kPlan), 4);
  EXPECT_EQ(notes.Count(Kind::kRecomputeBegin), 1);
  EXPECT_EQ(notes.Count(Kind::kRecomputeEnd), 1);
  EXPECT_EQ(notes.Count(Kind::kDecodeBegin), notes.Count(Kind::kDecodeEnd));
  EXPECT_GE(notes.Count(Kind::kDecodeEnd), 3);
  EXPECT_EQ(notes.Count(Kind::kSummary), 1);
  EXPECT_EQ(notes.tellings, 1);
  uint64_t bytes = 0;
  absl::Duration last;
  for (const LoadEvent& event : notes.events) {
    EXPECT_GE(event.at, last);
    last = event.at;
    if (event.kind == Kind::kData) bytes += event.bytes;
  }
  EXPECT_EQ(bytes, result->bytes);
}

TEST_F(ClientLoadTest, GivesAnObserverOnlySamplesThatAreGood) {
  Script([](LoadScript& load) {
    for (uint32_t chunk : {0, 1, 2}) load.Send(chunk, 0, 0);
    load.ReadUntilReady();
    v1::LoadResponse response;
    v1::LoadSummary& summary = *response.mutable_summary();
    for (uint32_t chunk : {0, 1, 2}) {
      v1::ChunkPlan& decision = *summary.add_chunks();
      decision.set_chunk(chunk);
      decision.set_level(0);
    }
    const auto add = [&summary](uint64_t at_ns, double estimate) {
      v1::LoadStorySample& sample = *summary.add_story();
      sample.set_at_ns(at_ns);
      sample.set_bandwidth_estimate_bytes_per_second(estimate);
    };
    add(1000, 5);
    add(500, 6);  // goes back
    add(2000, std::numeric_limits<double>::quiet_NaN());
    add(2000, -1);
    for (int i = 0; i < 5000; ++i) add(UINT64_MAX, 7);
    load.Write(response);
    return grpc::Status::OK;
  });
  KvBlock out = Memory();
  LoadOptions options;
  Notes notes;
  options.observer = &notes;
  const absl::StatusOr<LoadResult> result = Load(&out, options);
  ASSERT_TRUE(result.ok()) << result.status();
  ASSERT_EQ(notes.samples.size(), kStorySamplesMax);
  EXPECT_EQ(notes.samples[0].at, absl::Microseconds(1));
  EXPECT_EQ(notes.samples[1].estimate_bytes_per_second, 7);
}

TEST_F(ClientLoadTest, SendsWhatItWasAskedForAndReportsWhatItHas) {
  v1::LoadStart start;
  std::vector<v1::LoadProgress> progress;
  Script([&](LoadScript& load) {
    start = load.start();
    for (uint32_t chunk : {0, 1, 2}) load.Send(chunk, 0, 1);
    load.ReadUntilReady();
    load.Summary();
    progress = load.progress();
    return grpc::Status::OK;
  });
  KvBlock out = Memory();
  LoadOptions options = Recomputing(&out, ClientRecomputeAbility::kFront);
  options.deadline = absl::Seconds(100);
  options.floor_level = 1;
  options.prefill_seconds_per_token = 0.25;
  options.prefill_seconds_per_token_pair = 0.5;
  options.bandwidth_hint_bytes_per_second = 1e6;
  std::vector<uint32_t> ready;
  options.progress = [&ready](uint32_t chunks_ready, uint32_t chunks) {
    EXPECT_EQ(chunks, 3);
    ready.push_back(chunks_ready);
  };
  ASSERT_TRUE(Load(&out, options).ok());
  EXPECT_EQ(start.profile_id(),
            std::string(context_.profile->id().begin(), context_.profile->id().end()));
  ASSERT_EQ(start.chunk_ids_size(), 3);
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(start.chunk_ids(i),
              std::string(context_.chunk_ids[i].begin(), context_.chunk_ids[i].end()));
  }
  EXPECT_EQ(start.policy(), v1::POLICY_UNSPECIFIED);
  EXPECT_LE(start.deadline().seconds(), 100);
  EXPECT_GE(start.deadline().seconds(), 60) << "connecting uses up some of it";
  EXPECT_EQ(start.floor_level(), 1);
  EXPECT_EQ(start.recompute_ability(), v1::RECOMPUTE_ABILITY_FRONT);
  EXPECT_EQ(start.prefill_seconds_per_token(), 0.25);
  EXPECT_EQ(start.prefill_seconds_per_token_pair(), 0.5);
  EXPECT_EQ(start.bandwidth_hint_bytes_per_second(), 1e6);
  EXPECT_EQ(start.decode_seconds_per_token(), 0) << "nothing was decoded yet";

  ASSERT_FALSE(progress.empty());
  for (size_t i = 1; i < progress.size(); ++i) {
    EXPECT_GE(progress[i].bytes_received(), progress[i - 1].bytes_received());
    EXPECT_GE(progress[i].clock_ns(), progress[i - 1].clock_ns());
    if (progress[i].bytes_received() == progress[i - 1].bytes_received()) {
      EXPECT_EQ(progress[i].clock_ns(), progress[i - 1].clock_ns()) << "of the newest bytes";
    }
  }
  EXPECT_EQ(progress.back().chunks_ready(), 3);
  EXPECT_EQ(ready.back(), 3);
  EXPECT_TRUE(recomputed_.empty());

  ASSERT_TRUE(Load(&out, options).ok());
  EXPECT_GT(start.decode_seconds_per_token(), 0) << "measured in the load before";
}

TEST_F(ClientLoadTest, TakesWhatIsInPlaceAtTheDeadline) {
  v1::LoadProgress last;
  absl::Notification read;
  Script([&](LoadScript& load) {
    for (uint32_t chunk : {0, 1, 2}) load.Send(chunk, 0, chunk);
    // A refinement of which only the plan ever comes.
    load.Plan(0, 3);
    load.ReadUntil([](const v1::LoadProgress& progress) { return progress.has_taken(); });
    last = load.progress().back();
    read.Notify();
    return grpc::Status::OK;
  });
  KvBlock out = Memory();
  LoadOptions options;
  options.deadline = absl::Milliseconds(300);
  const absl::StatusOr<LoadResult> result = Load(&out, options);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_GE(result->load_delay, absl::Milliseconds(300));
  ExpectKv(out, {0, 1, 2});
  // The call may return before the script has read the message.
  read.WaitForNotification();
  ASSERT_EQ(last.taken().chunks_size(), 3);
  for (int chunk : {0, 1, 2}) EXPECT_EQ(last.taken().chunks(chunk), chunk + 1);
  EXPECT_EQ(last.taken().late(), result->deadline_missed);
}

TEST_F(ClientLoadTest, WarmUpMeasuresTheDecoderBeforeTheFirstLoad) {
  ASSERT_TRUE(client_->WarmUp(context_.profile).ok());
  double seconds = 0;
  Script([&](LoadScript& load) {
    seconds = load.start().decode_seconds_per_token();
    return grpc::Status(grpc::StatusCode::NOT_FOUND, "chunk 2 is not stored");
  });
  KvBlock out = Memory();
  ExpectError(Load(&out), absl::StatusCode::kNotFound, "chunk 2 is not stored");
  EXPECT_GT(seconds, 0);
}

// ------------------------------------------------------------------ recompute

TEST_F(ClientLoadTest, RecomputesWhatTheServerPlansAndDecodesTheRest) {
  for (const auto ability : {ClientRecomputeAbility::kSuffix, ClientRecomputeAbility::kAny,
                             ClientRecomputeAbility::kFront}) {
    recomputed_.clear();
    const bool suffix = ability == ClientRecomputeAbility::kSuffix;
    Script([suffix](LoadScript& load) {
      for (uint32_t chunk : {1u, suffix ? 2u : 0u}) load.PlanRecompute(chunk);
      load.Send(suffix ? 0 : 2, 0, 2);
      load.ReadUntilReady();
      load.Summary();
      return grpc::Status::OK;
    });
    KvBlock out = Memory();
    const absl::StatusOr<LoadResult> result = Load(&out, Recomputing(&out, ability));
    ASSERT_TRUE(result.ok()) << result.status();
    if (suffix) {
      ExpectKv(out, {2, -1, -1});
      EXPECT_EQ(recomputed_, (std::vector<std::pair<int64_t, int64_t>>{{16, 24}})) << "one call";
      EXPECT_EQ(result->recomputed_tokens, 24);
    } else {
      ExpectKv(out, {-1, -1, 2});
      EXPECT_EQ(recomputed_, (std::vector<std::pair<int64_t, int64_t>>{{0, 16}, {16, 16}}));
      EXPECT_EQ(result->recomputed_tokens, 32);
    }
    EXPECT_FALSE(result->chunks[1].level.has_value());
    EXPECT_EQ(result->chunks[1].bytes, 0);
  }
}

TEST_F(ClientLoadTest, AFailingRecomputeFailsTheLoadWithItsError) {
  Script([](LoadScript& load) {
    load.PlanRecompute(0);
    load.ReadUntilReady();
    return grpc::Status::CANCELLED;
  });
  KvBlock out = Memory();
  LoadOptions options;
  options.ability = ClientRecomputeAbility::kAny;
  options.recompute = [](int64_t, int64_t) { return absl::AbortedError("out of GPU memory"); };
  ExpectError(Load(&out, options), absl::StatusCode::kAborted, "out of GPU memory");
}

TEST_F(ClientLoadTest, ADamagedChunkIsRecomputed) {
  std::vector<EncodedChunk> damaged = chunks_;
  damaged[1].segments[0].back() ^= 1;
  server_.service().load = [&](grpc::ServerContext*, LoadStream* stream) {
    LoadScript load(stream, damaged, &context_);
    for (uint32_t chunk : {0, 1, 2}) load.Send(chunk, 0, 1);
    load.ReadUntil([](const v1::LoadProgress& p) { return p.damaged_chunks_size() > 0; });
    EXPECT_EQ(load.progress().back().damaged_chunks(0), 1);
    load.PlanRecompute(1);
    load.ReadUntilReady();
    load.Summary();
    return grpc::Status::OK;
  };
  KvBlock out = Memory();
  const absl::StatusOr<LoadResult> result =
      Load(&out, Recomputing(&out, ClientRecomputeAbility::kAny));
  ASSERT_TRUE(result.ok()) << result.status();
  ExpectKv(out, {1, -1, 1});
}

TEST_F(ClientLoadTest, ADamagedChunkWithoutRecomputeIsDataLossWithItsId) {
  std::vector<EncodedChunk> damaged = chunks_;
  damaged[1].segments[1][5] ^= 1;
  for (const bool server_lies : {false, true}) {
    server_.service().load = [&](grpc::ServerContext*, LoadStream* stream) {
      LoadScript load(stream, damaged, &context_);
      for (uint32_t chunk : {0, 1, 2}) load.Send(chunk, 0, 1);
      load.ReadUntil([](const v1::LoadProgress& p) { return p.damaged_chunks_size() > 0; });
      if (!server_lies) return grpc::Status(grpc::StatusCode::DATA_LOSS, "a chunk is damaged");
      load.Summary();
      return grpc::Status::OK;
    };
    KvBlock out = Memory();
    ExpectError(Load(&out), absl::StatusCode::kDataLoss, ShortChunkId(context_.chunk_ids[1]));
  }
}

TEST_F(ClientLoadTest, AWholeSegmentOfAnotherChunkIsDamageToo) {
  std::vector<EncodedChunk> swapped = chunks_;
  swapped[0].segments.swap(swapped[1].segments);
  server_.service().load = [&](grpc::ServerContext*, LoadStream* stream) {
    LoadScript load(stream, swapped, &context_);
    load.Send(0, 0, 0);
    load.ReadUntil([](const v1::LoadProgress& p) { return p.damaged_chunks_size() > 0; });
    return grpc::Status(grpc::StatusCode::DATA_LOSS, "");
  };
  KvBlock out = Memory();
  ExpectError(Load(&out), absl::StatusCode::kDataLoss, "at position 16 in place of level 0");
}

// ------------------------------------------------------------------ servers that misbehave

TEST_F(ClientLoadTest, AStreamThatEndsWithoutSummaryIsAnErrorWithEverythingReady) {
  Script([](LoadScript& load) {
    for (uint32_t chunk : {0, 1, 2}) load.Send(chunk, 0, 0);
    load.ReadUntilReady();
    return grpc::Status::OK;
  });
  KvBlock out = Memory();
  ExpectError(Load(&out), absl::StatusCode::kInternal, "without a summary");
}

TEST_F(ClientLoadTest, ASummaryWithAChunkMissingIsAnError) {
  Script([](LoadScript& load) {
    load.Send(0, 0, 0);
    load.Send(1, 0, 0);
    load.Summary();
    load.ReadUntilReady();
    return grpc::Status::OK;
  });
  KvBlock out = Memory();
  ExpectError(Load(&out), absl::StatusCode::kInternal, "chunk 2 of 3");
}

TEST_F(ClientLoadTest, ASummaryBeforeTheLastDecodeWaitsForIt) {
  Script([](LoadScript& load) {
    for (uint32_t chunk : {0, 1, 2}) load.Send(chunk, 0, 3);
    load.Summary();
    return grpc::Status::OK;
  });
  KvBlock out = Memory();
  const absl::StatusOr<LoadResult> result = Load(&out);
  ASSERT_TRUE(result.ok()) << result.status();
  ExpectKv(out, {3, 3, 3});
}

TEST_F(ClientLoadTest, BytesThatWereNotAnnouncedAreAnError) {
  Script([](LoadScript& load) {
    v1::LoadResponse response;
    response.mutable_data()->set_data("surprise");
    load.Write(response);
    load.ReadUntilReady();
    return grpc::Status::OK;
  });
  KvBlock out = Memory();
  ExpectError(Load(&out), absl::StatusCode::kInternal, "data before a plan");
}

TEST_F(ClientLoadTest, AServerThatVanishesIsUnavailable) {
  absl::Notification half_sent;
  Script([&](LoadScript& load) {
    load.Send(0, 0, 0);
    half_sent.Notify();
    load.ReadUntilReady();
    return grpc::Status::CANCELLED;
  });
  std::thread killer([&] {
    half_sent.WaitForNotification();
    server_.Kill();
  });
  KvBlock out = Memory();
  const absl::StatusOr<LoadResult> result = Load(&out);
  killer.join();
  EXPECT_EQ(result.status().code(), absl::StatusCode::kUnavailable) << result.status();
  EXPECT_THAT(std::string(result.status().message()), HasSubstr(server_.address()));
}

TEST_F(ClientLoadTest, AnAddressWithoutServerIsUnavailableAndSaysWhatToCheck) {
  Client::Options options;
  options.server = server_.address();
  server_.Kill();
  Connect(options);
  KvBlock out = Memory();
  ExpectError(Load(&out), absl::StatusCode::kUnavailable, "check that kvstreamd runs");
}

TEST_F(ClientLoadTest, AServerThatFallsSilentIsUnavailable) {
  Client::Options options;
  options.server = server_.address();
  options.rpc_timeout = absl::Milliseconds(200);
  Connect(options);
  Script([](LoadScript& load) {
    load.Send(0, 0, 0);
    load.ReadUntil([](const v1::LoadProgress&) { return false; });
    return grpc::Status::CANCELLED;
  });
  KvBlock out = Memory();
  ExpectError(Load(&out), absl::StatusCode::kUnavailable, "no answer for 200ms");
}

TEST_F(ClientLoadTest, CancellationEndsTheLoadAndTheServerSeesIt) {
  absl::Notification server_saw_it;
  Script([&](LoadScript& load) {
    load.Send(0, 0, 0);
    load.ReadUntil([](const v1::LoadProgress&) { return false; });
    server_saw_it.Notify();
    return grpc::Status::CANCELLED;
  });
  KvBlock out = Memory();
  LoadOptions options;
  std::atomic<bool> some_ready{false};
  options.progress = [&](uint32_t, uint32_t) { some_ready = true; };
  options.cancelled = [&] { return some_ready.load(); };
  ExpectError(Load(&out, options), absl::StatusCode::kCancelled, "the caller cancelled");
  server_saw_it.WaitForNotification();
}

TEST_F(ClientLoadTest, ACallbackThatThrowsLeavesNothingRunning) {
  Script([](LoadScript& load) {
    load.Send(0, 0, 0);
    load.ReadUntil([](const v1::LoadProgress&) { return false; });
    return grpc::Status::CANCELLED;
  });
  KvBlock out = Memory();
  LoadOptions options;
  options.cancelled = []() -> bool { throw std::runtime_error("interrupted"); };
  EXPECT_THROW(Load(&out, options).IgnoreError(), std::runtime_error);
}

TEST_F(ClientLoadTest, LoadsThatOverlapDoNotDisturbEachOther) {
  Script([](LoadScript& load) {
    const int level = static_cast<int>(load.start().level());
    for (uint32_t chunk : {0, 1, 2}) load.Send(chunk, 0, level);
    load.ReadUntilReady();
    load.Summary();
    return grpc::Status::OK;
  });
  std::vector<KvBlock> outs(6, Memory());
  std::vector<std::thread> threads;
  std::atomic<int> succeeded{0};
  for (int i = 0; i < 6; ++i) {
    threads.emplace_back([&, i] {
      LoadOptions options;
      options.policy = ClientPolicy::kFixed;
      options.level = i % 4;
      for (int round = 0; round < 3; ++round) succeeded += Load(&outs[i], options).ok();
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(succeeded, 18);
  for (int i = 0; i < 6; ++i) ExpectKv(outs[i], {i % 4, i % 4, i % 4});
}

// ------------------------------------------------------------------ arguments

TEST_F(ClientLoadTest, RefusesArgumentsThatDoNotFit) {
  KvBlock out = Memory();
  const auto refused = [&](const LoadOptions& options, const std::string& what) {
    ExpectError(Load(&out, options), absl::StatusCode::kInvalidArgument, what);
  };
  LoadOptions options;
  options.level = 4;
  refused(options, "level 4 is not in 0 to 3");
  options = {};
  options.floor_level = -1;
  refused(options, "level -1");
  for (double bad : {-0.1, 1.1, std::numeric_limits<double>::quiet_NaN(), 0.5}) {
    options = {};
    options.floor_below_share = bad;  // the last one without a floor
    refused(options, "floor_below_share");
  }
  options.floor_level = 1;
  options.policy = ClientPolicy::kFixed;
  refused(options, "floor_below_share");
  options = {};
  options.policy = ClientPolicy::kDeadline;
  refused(options, "needs a deadline");
  options = {};
  options.deadline = -absl::Seconds(1);
  refused(options, "negative deadline");
  options = {};
  options.ability = ClientRecomputeAbility::kAny;
  refused(options, "without a recompute callback");
  options = {};
  options.recompute = [](int64_t, int64_t) { return absl::OkStatus(); };
  refused(options, "without a recompute ability");
  options = {};
  options.policy = ClientPolicy::kRecompute;
  refused(options, "needs a recompute ability");
  options = {};
  options.prefill_seconds_per_token = -1;
  refused(options, "a rate that is negative");

  KvBlock small(context_.profile->geometry(), 39);
  ExpectError(Load(&small), absl::StatusCode::kInvalidArgument, "memory for 39 tokens of 40");
  MutableKvView view = out.mutable_view();
  view.values.pop_back();
  ExpectError(client_->Load(context_.profile, {}, context_.tokens, {}, view),
              absl::StatusCode::kInvalidArgument, "2 layers of keys (or latents) and 1 of values");
  view = out.mutable_view();
  view.keys[1].data = nullptr;
  ExpectError(client_->Load(context_.profile, {}, context_.tokens, {}, view),
              absl::StatusCode::kInvalidArgument, "without data");
  view = out.mutable_view();
  view.tokens = 0;
  ExpectError(client_->Load(context_.profile, {}, {}, {}, view), absl::StatusCode::kInvalidArgument,
              "no tokens");
}

}  // namespace
}  // namespace kvstream

// The client against the real server in this process, over loopback TCP, with the memory store and
// the real codec.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "client/client.h"
#include "client/testing/synthetic_context.h"
#include "server/load/load_session.h"
#include "server/service/codec_profile_gate.h"
#include "server/service/kvstream_server.h"
#include "server/service/log.h"
#include "server/service/options.h"
#include "storage/forwarding_chunk_store.h"
#include "storage/memory/memory_chunk_store.h"

namespace kvstream {
namespace {

using ::testing::HasSubstr;

// Which stored segments come out with a flipped bit, as from a disk that lies.
struct Damage {
  absl::Mutex mutex;
  std::vector<std::pair<ChunkId, uint32_t>> segments ABSL_GUARDED_BY(mutex);

  void Add(const ChunkId& id, uint32_t level) {
    absl::MutexLock lock(&mutex);
    segments.emplace_back(id, level);
  }
  bool Has(const ChunkId& id, uint32_t level) {
    absl::MutexLock lock(&mutex);
    for (const auto& [damaged_id, damaged_level] : segments) {
      if (damaged_id == id && damaged_level == level) return true;
    }
    return false;
  }
};

class DamagingStore final : public ForwardingChunkStore {
 public:
  explicit DamagingStore(std::shared_ptr<Damage> damage)
      : ForwardingChunkStore(*MemoryChunkStore::Create()), damage_(std::move(damage)) {}

  absl::StatusOr<PinnedBytes> ReadSegment(const ChunkId& id, uint32_t level) override {
    absl::StatusOr<PinnedBytes> bytes = inner().ReadSegment(id, level);
    if (!bytes.ok() || !damage_->Has(id, level)) return bytes;
    const auto copy = std::make_shared<std::string>(bytes->bytes());
    copy->at(copy->size() / 2) ^= 0x10;
    return PinnedBytes(*copy, [copy] {});
  }

 private:
  const std::shared_ptr<Damage> damage_;
};

class LoopbackTest : public testing::Test {
 protected:
  LoopbackTest() : context_(16 * 9 + 5) {}  // 10 chunks

  void SetUp() override {
    ServerOptions options;
    options.listen = "127.0.0.1:0";
    options.http_listen = "127.0.0.1:0";
    options.store = StoreKind::kMemory;
    options.log_level = "off";
    KvStreamServer::Parts parts;
    parts.store = std::make_unique<DamagingStore>(damage_);
    parts.parse_profile = CodecProfileParser();
    parts.create_session = &LoadSession::Create;
    parts.log = std::make_unique<Log>(options.log_level, LogFormat::kText);
    absl::StatusOr<std::unique_ptr<KvStreamServer>> server =
        KvStreamServer::Create(options, std::move(parts));
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
    Client::Options client_options;
    client_options.server = absl::StrCat("127.0.0.1:", server_->grpc_port());
    client_options.decode_threads = 2;
    client_ = *Client::Create(client_options);
  }
  void TearDown() override {
    if (!stopped_) server_->Stop(absl::ZeroDuration());
  }

  void PutContext() {
    const absl::StatusOr<PutResult> put =
        client_->Put(context_.profile, context_.identity, context_.tokens, context_.kv.view());
    ASSERT_TRUE(put.ok()) << put.status();
    ASSERT_EQ(put->chunks_stored, 10);
  }
  KvBlock Memory() const {
    return KvBlock(context_.profile->geometry(), static_cast<int64_t>(context_.tokens.size()));
  }
  absl::StatusOr<LoadResult> Load(KvBlock* out, const LoadOptions& options) {
    return client_->Load(context_.profile, context_.identity, context_.tokens, options,
                         out->mutable_view());
  }
  LoadOptions Recomputing(KvBlock* out, ClientRecomputeAbility ability) {
    LoadOptions options;
    options.ability = ability;
    options.recompute = [this, out](int64_t first, int64_t count) {
      recomputed_tokens_ += count;
      out->CopyTokens(context_.kv, first, count);
      return absl::OkStatus();
    };
    return options;
  }
  // Every chunk is what the codec decodes locally at the level that the result says, or exact.
  void ExpectKvOf(const LoadResult& result, const KvBlock& out) {
    std::vector<int> levels;
    for (const LoadedChunk& chunk : result.chunks) levels.push_back(chunk.level.value_or(-1));
    ASSERT_EQ(levels.size(), 10);
    EXPECT_EQ(out.values(), context_.Expected(levels).values());
  }

  const SyntheticContext context_;
  const std::shared_ptr<Damage> damage_ = std::make_shared<Damage>();
  std::unique_ptr<KvStreamServer> server_;
  bool stopped_ = false;
  std::unique_ptr<Client> client_;
  std::atomic<int64_t> recomputed_tokens_{0};
};

TEST_F(LoopbackTest, StoresLooksUpListsAndDeletes) {
  absl::StatusOr<LookupResult> lookup =
      client_->Lookup(*context_.profile, context_.identity, context_.tokens);
  ASSERT_TRUE(lookup.ok()) << lookup.status();
  EXPECT_EQ(lookup->matched_tokens, 0);
  PutContext();
  lookup = client_->Lookup(*context_.profile, context_.identity, context_.tokens);
  ASSERT_TRUE(lookup.ok()) << lookup.status();
  EXPECT_EQ(lookup->matched_tokens, context_.tokens.size());
  uint64_t finest = 0;
  for (const EncodedChunk& chunk : context_.Encode()) {
    for (const std::string& segment : chunk.segments) finest += segment.size();
  }
  EXPECT_EQ(lookup->level_bytes.back(), finest);

  absl::StatusOr<PutResult> again =
      client_->Put(context_.profile, context_.identity, context_.tokens, context_.kv.view());
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ(again->chunks_stored, 0);
  EXPECT_EQ(again->chunks_existing, 10);

  const auto profile = client_->GetProfile(context_.profile->id());
  ASSERT_TRUE(profile.ok()) << profile.status();
  EXPECT_EQ((*profile)->serialized(), context_.profile->serialized());

  absl::StatusOr<ListPage> page = client_->List(7, "", absl::nullopt);
  ASSERT_TRUE(page.ok()) << page.status();
  EXPECT_EQ(page->chunks.size(), 7);
  EXPECT_EQ(page->chunks[0].info.model, "synthetic@1");
  page = client_->List(7, page->next_page_token, context_.profile->id());
  ASSERT_TRUE(page.ok()) << page.status();
  EXPECT_EQ(page->chunks.size(), 3);
  EXPECT_TRUE(page->next_page_token.empty());

  const absl::StatusOr<ServerStats> stats = client_->Stats();
  ASSERT_TRUE(stats.ok()) << stats.status();
  EXPECT_EQ(stats->chunks, 10);
  EXPECT_EQ(stats->payload_bytes, finest);
  EXPECT_EQ(stats->store, "memory");
  const absl::StatusOr<PingResult> ping = client_->Ping();
  ASSERT_TRUE(ping.ok()) << ping.status();
  EXPECT_TRUE(ping->serving);

  const absl::StatusOr<uint64_t> deleted =
      client_->Delete(absl::MakeConstSpan(context_.chunk_ids).subspan(6));
  ASSERT_TRUE(deleted.ok()) << deleted.status();
  EXPECT_EQ(*deleted, 4);
  lookup = client_->Lookup(*context_.profile, context_.identity, context_.tokens);
  ASSERT_TRUE(lookup.ok()) << lookup.status();
  EXPECT_EQ(lookup->matched_chunks, 6);
  KvBlock out = Memory();
  EXPECT_EQ(Load(&out, {}).status().code(), absl::StatusCode::kNotFound);
}

TEST_F(LoopbackTest, LoadsEveryLevelBitIdenticalToALocalDecode) {
  PutContext();
  for (int level = 0; level < 4; ++level) {
    KvBlock out = Memory();
    LoadOptions options;
    options.policy = ClientPolicy::kFixed;
    options.level = level;
    const absl::StatusOr<LoadResult> result = Load(&out, options);
    ASSERT_TRUE(result.ok()) << result.status();
    for (const LoadedChunk& chunk : result->chunks) EXPECT_EQ(chunk.level, level);
    ExpectKvOf(*result, out);
  }
}

TEST_F(LoopbackTest, AGenerousDeadlineBringsTheFinestLevel) {
  PutContext();
  ASSERT_TRUE(client_->WarmUp(context_.profile).ok());
  KvBlock out = Memory();
  LoadOptions options;
  options.deadline = absl::Seconds(60);
  const absl::StatusOr<LoadResult> result = Load(&out, options);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_FALSE(result->deadline_missed);
  for (const LoadedChunk& chunk : result->chunks) EXPECT_EQ(chunk.level, 3);
  ExpectKvOf(*result, out);
}

TEST_F(LoopbackTest, EveryPolicyDeliversWhatItReports) {
  PutContext();
  for (const auto ability : {ClientRecomputeAbility::kNone, ClientRecomputeAbility::kSuffix,
                             ClientRecomputeAbility::kAny, ClientRecomputeAbility::kFront}) {
    for (const auto policy :
         {ClientPolicy::kDefault, ClientPolicy::kDeadline, ClientPolicy::kFastest,
          ClientPolicy::kCacheGen, ClientPolicy::kFixed}) {
      for (const double prefill_seconds_per_token : {0.0, 1e-7, 1e-3}) {
        SCOPED_TRACE(absl::StrCat("ability ", static_cast<int>(ability), " policy ",
                                  static_cast<int>(policy), " prefill ",
                                  prefill_seconds_per_token));
        KvBlock out = Memory();
        LoadOptions options;
        if (ability != ClientRecomputeAbility::kNone) options = Recomputing(&out, ability);
        options.policy = policy;
        options.level = 1;
        options.deadline = absl::Seconds(60);
        options.prefill_seconds_per_token = prefill_seconds_per_token;
        const absl::StatusOr<LoadResult> result = Load(&out, options);
        ASSERT_TRUE(result.ok()) << result.status();
        ExpectKvOf(*result, out);
      }
    }
  }
}

TEST_F(LoopbackTest, ChunksThatLostLevelsComeBetweenWholeOnesAtWhatTheyHave) {
  PutContext();
  ASSERT_TRUE(client_->WarmUp(context_.profile).ok());
  ChunkStore& store = *server_->environment().store;
  const auto stored = store.List(absl::nullopt, 10);
  ASSERT_TRUE(stored.ok()) << stored.status();
  std::vector<int> finest(10, 3);
  for (const auto& [id, info] : *stored) {
    const size_t chunk = info.first_token / 16;
    const uint32_t keep = chunk == 4 ? 1 : chunk == 5 || chunk == 9 ? 3 : 4;
    if (keep == 4) continue;
    ASSERT_EQ(store.Trim({id}, keep).value_or(0), 1u);
    finest[chunk] = static_cast<int>(keep) - 1;
  }
  for (const auto policy : {ClientPolicy::kDeadline, ClientPolicy::kFixed}) {
    SCOPED_TRACE(absl::StrCat("policy ", static_cast<int>(policy)));
    KvBlock out = Memory();
    LoadOptions options;
    options.policy = policy;
    options.level = 3;
    options.deadline = absl::Seconds(60);
    const absl::StatusOr<LoadResult> result = Load(&out, options);
    ASSERT_TRUE(result.ok()) << result.status();
    for (size_t chunk = 0; chunk < 10; ++chunk) {
      EXPECT_EQ(result->chunks[chunk].level, finest[chunk]) << chunk;
    }
    ExpectKvOf(*result, out);
  }
  KvBlock out = Memory();
  LoadOptions options;
  options.floor_level = 1;
  const absl::StatusOr<LoadResult> refused = Load(&out, options);
  EXPECT_EQ(refused.status().code(), absl::StatusCode::kNotFound) << refused.status();
  EXPECT_THAT(std::string(refused.status().message()), HasSubstr("chunk 4 has lost"));
}

TEST_F(LoopbackTest, LatentsComeBackBitIdenticalToALocalDecode) {
  for (const bool calibrated : {true, false}) {
    const SyntheticContext context(16 * 4 + 5, /*seed=*/3, calibrated, /*latent=*/true);
    const absl::StatusOr<PutResult> put =
        client_->Put(context.profile, context.identity, context.tokens, context.kv.view());
    ASSERT_TRUE(put.ok()) << put.status();
    EXPECT_EQ(put->chunks_stored, 5);
    ASSERT_TRUE(client_->WarmUp(context.profile).ok());
    // The profile that the server hands out says that there are no values.
    const auto profile = client_->GetProfile(context.profile->id());
    ASSERT_TRUE(profile.ok()) << profile.status();
    EXPECT_EQ((*profile)->geometry().planes, 1);
    for (int level = 0; level < 4; ++level) {
      KvBlock out(context.profile->geometry(), static_cast<int64_t>(context.tokens.size()));
      LoadOptions options;
      options.policy = ClientPolicy::kFixed;
      options.level = level;
      const absl::StatusOr<LoadResult> result =
          client_->Load(*profile, context.identity, context.tokens, options, out.mutable_view());
      ASSERT_TRUE(result.ok()) << result.status();
      EXPECT_EQ(out.values(), context.Expected(std::vector<int>(5, level)).values());
    }
    KvBlock unused = context.kv;
    MutableKvView two_planes = unused.mutable_view();
    two_planes.values = two_planes.keys;
    EXPECT_EQ(
        client_->Load(*profile, context.identity, context.tokens, {}, two_planes).status().code(),
        absl::StatusCode::kInvalidArgument);
  }
}

TEST_F(LoopbackTest, RecomputesEverythingExactlyWhenAsked) {
  PutContext();
  for (const auto ability : {ClientRecomputeAbility::kSuffix, ClientRecomputeAbility::kAny,
                             ClientRecomputeAbility::kFront}) {
    KvBlock out = Memory();
    recomputed_tokens_ = 0;
    LoadOptions options = Recomputing(&out, ability);
    options.policy = ClientPolicy::kRecompute;
    const absl::StatusOr<LoadResult> result = Load(&out, options);
    ASSERT_TRUE(result.ok()) << result.status();
    EXPECT_EQ(out.values(), context_.kv.values());
    EXPECT_EQ(recomputed_tokens_, context_.tokens.size());
    EXPECT_EQ(result->recomputed_tokens, context_.tokens.size());
    EXPECT_EQ(result->bytes, 0);
  }
}

TEST_F(LoopbackTest, AFasterPrefillThanTheLinkIsUsed) {
  PutContext();
  KvBlock out = Memory();
  LoadOptions options = Recomputing(&out, ClientRecomputeAbility::kFront);
  options.policy = ClientPolicy::kFastest;
  options.prefill_seconds_per_token = 1e-9;
  options.bandwidth_hint_bytes_per_second = 1000;  // by the hint, the bytes take many seconds
  const absl::StatusOr<LoadResult> result = Load(&out, options);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_GT(recomputed_tokens_, 0);
  ExpectKvOf(*result, out);
}

TEST_F(LoopbackTest, AStandingOrderMeetsWhatArrivesAndGivesUpWhatComesFirst) {
  PutContext();
  for (const auto ability : {ClientRecomputeAbility::kAny, ClientRecomputeAbility::kFront}) {
    KvBlock out = Memory();
    LoadOptions options = Recomputing(&out, ability);
    options.policy = ClientPolicy::kFastest;
    options.prefill_seconds_per_token = 1e-6;  // it is far slower
    options.recompute_watch = std::make_shared<RecomputeWatch>();
    const std::shared_ptr<RecomputeWatch> watch = options.recompute_watch;
    std::vector<int64_t> began;
    options.recompute = [&](int64_t first, int64_t count) {
      began.push_back(first);
      for (int i = 0; i < 20 && !watch->superseded(); ++i) absl::SleepFor(absl::Milliseconds(2));
      if (watch->superseded()) {
        // Half written, which the bytes make good.
        out.CopyTokens(context_.kv, first, count / 2);
        return absl::CancelledError("superseded");
      }
      out.CopyTokens(context_.kv, first, count);
      return absl::OkStatus();
    };
    const absl::StatusOr<LoadResult> result = Load(&out, options);
    ASSERT_TRUE(result.ok()) << result.status();
    ExpectKvOf(*result, out);
    // From the front, in order, never what has arrived.
    for (size_t i = 0; i < began.size(); ++i) EXPECT_EQ(began[i], static_cast<int64_t>(16 * i));
    for (size_t i = 1; i < result->chunks.size(); ++i) {
      EXPECT_GE(result->chunks[i].level.has_value(), result->chunks[i - 1].level.has_value());
    }
  }
}

TEST_F(LoopbackTest, ADeadlineIsMissedOnlyWhereAChunkIsNotInPlace) {
  PutContext();
  KvBlock out = Memory();
  LoadOptions options = Recomputing(&out, ClientRecomputeAbility::kSuffix);
  options.deadline = absl::Milliseconds(20);
  options.prefill_seconds_per_token = 1e-9;
  options.bandwidth_hint_bytes_per_second = 1000;  // so everything is recomputed
  const RecomputeFn copy = options.recompute;
  options.recompute = [&](int64_t first, int64_t count) {
    absl::SleepFor(absl::Milliseconds(30));
    return copy(first, count);
  };
  const absl::StatusOr<LoadResult> result = Load(&out, options);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_TRUE(result->deadline_missed);
  ExpectKvOf(*result, out);
}

TEST_F(LoopbackTest, ADamagedSegmentIsRecomputedWhereTheClientCan) {
  PutContext();
  damage_->Add(context_.chunk_ids[4], 0);
  damage_->Add(context_.chunk_ids[7], 1);
  for (const auto ability : {ClientRecomputeAbility::kSuffix, ClientRecomputeAbility::kAny,
                             ClientRecomputeAbility::kFront}) {
    KvBlock out = Memory();
    LoadOptions options = Recomputing(&out, ability);
    options.policy = ClientPolicy::kFixed;
    options.level = 2;
    const absl::StatusOr<LoadResult> result = Load(&out, options);
    ASSERT_TRUE(result.ok()) << result.status();
    EXPECT_FALSE(result->chunks[4].level.has_value());
    EXPECT_FALSE(result->chunks[7].level.has_value());
    EXPECT_EQ(result->chunks[3].level, 2);
    ExpectKvOf(*result, out);
  }
}

TEST_F(LoopbackTest, ADamagedSegmentWithoutRecomputeIsDataLossWithTheChunksId) {
  PutContext();
  damage_->Add(context_.chunk_ids[4], 1);
  KvBlock out = Memory();
  LoadOptions options;
  options.policy = ClientPolicy::kFixed;
  options.level = 1;
  const absl::StatusOr<LoadResult> result = Load(&out, options);
  EXPECT_EQ(result.status().code(), absl::StatusCode::kDataLoss) << result.status();
  EXPECT_THAT(std::string(result.status().message()),
              HasSubstr(ShortChunkId(context_.chunk_ids[4])));
  options.level = 0;
  EXPECT_TRUE(Load(&out, options).ok()) << "below the damage the chunk is good";
}

TEST_F(LoopbackTest, LoadsOverlapWithEachOtherAndWithPuts) {
  PutContext();
  std::vector<std::thread> threads;
  std::atomic<int> good{0};
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&, i] {
      for (int round = 0; round < 3; ++round) {
        KvBlock out = Memory();
        LoadOptions options;
        options.policy = ClientPolicy::kFixed;
        options.level = i;
        const absl::StatusOr<LoadResult> result = Load(&out, options);
        if (!result.ok()) continue;
        good += out.values() == context_.Expected(std::vector<int>(10, i)).values();
      }
    });
  }
  threads.emplace_back([&] {
    const SyntheticContext other(16 * 20, /*seed=*/7);
    good += client_->Put(other.profile, other.identity, other.tokens, other.kv.view()).ok();
  });
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(good, 13);
}

TEST_F(LoopbackTest, ACancelledLoadLeavesTheServerWithoutIt) {
  PutContext();
  KvBlock out = Memory();
  LoadOptions options = Recomputing(&out, ClientRecomputeAbility::kAny);
  options.policy = ClientPolicy::kRecompute;
  std::atomic<bool> begun{false};
  const RecomputeFn copy = options.recompute;
  options.recompute = [&](int64_t first, int64_t count) {
    begun = true;
    return copy(first, count);
  };
  options.cancelled = [&] { return begun.load(); };
  const absl::StatusOr<LoadResult> result = Load(&out, options);
  EXPECT_EQ(result.status().code(), absl::StatusCode::kCancelled) << result.status();
  stopped_ = true;
  EXPECT_TRUE(server_->Stop(absl::Seconds(60))) << "nothing is in flight any more";
  EXPECT_EQ(Load(&out, {}).status().code(), absl::StatusCode::kUnavailable);
}

}  // namespace
}  // namespace kvstream

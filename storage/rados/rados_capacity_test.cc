// A bound that several daemons keep together: over a real Ceph.
#include <algorithm>
#include <atomic>
#include <numeric>
#include <thread>
#include <utility>
#include <vector>

#include "absl/time/clock.h"
#include "storage/chunk_limits.h"
#include "storage/hold_table.h"
#include "storage/rados/rados_evictor.h"
#include "storage/rados/rados_index.h"
#include "storage/rados/rados_leases.h"
#include "storage/rados/rados_room.h"
#include "storage/rados/rados_usage.h"
#include "storage/rados/testing/rados_store_test.h"
#include "storage/rocksdb/killed_process.h"

namespace kvstream {
namespace {

using rados_format::ShardState;

constexpr uint64_t kCapacity = uint64_t{1} << 20;

// Of equal value but for what is done to it.
TestChunk Sized(uint64_t number, const std::vector<uint64_t>& bytes) {
  TestChunk chunk = MakeTestChunk(number);
  chunk.info.parent.reset();
  chunk.info.first_token = 0;
  chunk.info.tokens = 256;
  chunk.info.segment_bytes = bytes;
  chunk.segments.clear();
  for (size_t level = 0; level < bytes.size(); ++level) {
    chunk.segments.push_back(TestBytes(number * 8 + level, bytes[level]));
  }
  return chunk;
}

std::vector<TestChunk> Chain(uint64_t first_number, size_t length, uint64_t bytes) {
  std::vector<TestChunk> chain;
  for (uint64_t i = 0; i < length; ++i) {
    chain.push_back(Sized(first_number + i, {bytes}));
    chain.back().info.first_token = 256 * i;
    if (i > 0) chain.back().info.parent = chain[i - 1].id;
  }
  return chain;
}

class RadosCapacityTest : public RadosStoreTest {
 protected:
  void SetUp() override {
    RadosStoreTest::SetUp();
    options_.clock = nullptr;
    options_.capacity_bytes = kCapacity;
    options_.info_max_age = absl::ZeroDuration();
    options_.pressed_retire_age = options_.retire_age = absl::ZeroDuration();
    options_.keeper_interval = absl::Milliseconds(20);
    options_.room_timeout = absl::Seconds(60);
  }

  std::vector<std::string> Objects() const {
    std::vector<std::string> objects = {rados_format::kProfilesIndex};
    for (uint32_t i = 0; i < options_.shards; ++i) objects.push_back(rados_format::IndexObject(i));
    return objects;
  }
  std::vector<ShardState> States() {
    std::vector<OmapRead> reads;
    for (const std::string& object : Objects()) {
      reads.push_back({object, {rados_format::kStateKey}, {}});
    }
    EXPECT_TRUE(pool_->Read("test", &reads).ok());
    std::vector<ShardState> states;
    for (const OmapRead& read : reads) {
      const auto state = rados_format::DecodeState(read.values.empty() ? "" : read.values[0]);
      EXPECT_TRUE(state.ok()) << state.status();
      states.push_back(state.value_or(ShardState()));
    }
    return states;
  }
  // Each shard keeps to what it has been allotted, at every moment.
  void ExpectShardsKeepToTheirs() {
    for (const ShardState& state : States()) {
      EXPECT_LE(state.data_bytes, state.allotted_bytes);
      EXPECT_NE(state.keeper, 0);
    }
  }
  // Only while nobody moves room.
  void ExpectAllottedWithinTheCapacity() {
    uint64_t allotted = 0;
    for (const ShardState& state : States()) allotted += state.allotted_bytes;
    EXPECT_LE(allotted, kCapacity);
  }
  uint64_t BytesInThePool() {
    uint64_t bytes = 0;
    for (const auto& [name, size] : DataObjects()) bytes += size;
    return bytes;
  }
};

TEST_F(RadosCapacityTest, TwoDaemonsThatPutAtOnceNeverPassTheBound) {
  auto a = Open(), b = Open();
  constexpr int kThreads = 4, kRounds = 12, kPuts = 12;  // 8 times the capacity
  std::atomic<bool> done{false};
  std::thread watcher([&] {
    while (!done) {
      ExpectShardsKeepToTheirs();
      absl::SleepFor(absl::Milliseconds(20));
    }
  });
  for (int round = 0; round < kRounds; ++round) {
    std::vector<std::thread> threads;
    for (int t = 0; t < kThreads; ++t) {
      threads.emplace_back([&, t] {
        for (int i = 0; i < kPuts; ++i) {
          const TestChunk chunk = Sized(1000 * t + 100 * round + i, {2000, 4000, 8000});
          EXPECT_TRUE(Put(t % 2 == 0 ? *a : *b, chunk));
        }
      });
    }
    for (std::thread& thread : threads) thread.join();
    // Nobody puts, so it only becomes less while it is counted.
    EXPECT_LE(BytesInThePool(), kCapacity) << round;
  }
  done = true;
  watcher.join();
  EXPECT_GT(a->Stats()->evicted_bytes + b->Stats()->evicted_bytes, 0);
  EXPECT_EQ(a->Stats()->capacity_bytes, kCapacity);
  EXPECT_LE(a->Stats()->payload_bytes, kCapacity);
  EXPECT_GT(a->Stats()->payload_bytes, kCapacity / 2);
  a.reset();
  b.reset();
  ExpectShardsKeepToTheirs();
  ExpectAllottedWithinTheCapacity();
  // What the states say is what there is.
  uint64_t data = 0;
  for (const ShardState& state : States()) data += state.data_bytes;
  EXPECT_EQ(data, BytesInThePool());
}

TEST_F(RadosCapacityTest, KeepersThatBothBelieveTheyAreMoveNothingTwice) {
  options_.keeper_interval = absl::InfiniteDuration();
  const auto store = Open();
  std::atomic<bool> done{false};
  std::vector<std::thread> keepers;
  ASSERT_TRUE(RadosRoom(pool_.get(), Objects(), kCapacity, 6).Balance("test", absl::Now()).ok());
  for (uint64_t number : {7, 8, 9}) {
    keepers.emplace_back([&, number] {
      RadosRoom room(pool_.get(), Objects(), kCapacity, number);
      while (!done) {
        const auto report = room.Balance("test", absl::Now());
        EXPECT_TRUE(report.ok() || absl::IsAborted(report.status()) ||
                    absl::IsUnavailable(report.status()))
            << report.status();
      }
    });
  }
  // Large ones, so that room has to be moved for each.
  for (uint64_t i = 0; i < 60; ++i) {
    const TestChunk chunk = Sized(i, {kCapacity / 9});
    EXPECT_TRUE(Put(*store, chunk));
    ExpectShardsKeepToTheirs();
    EXPECT_LE(BytesInThePool(), kCapacity);
    if (i < 5) continue;
    EXPECT_EQ(store->Delete({TestId(i - 5)}).value_or(0), 1);
    EXPECT_TRUE(store->CollectGarbage().ok());
  }
  done = true;
  for (std::thread& thread : keepers) thread.join();
  ExpectAllottedWithinTheCapacity();
}

TEST_F(RadosCapacityTest, AKeeperThatIsOvertakenInTheMiddleOfAPassMovesNothingMore) {
  const uint64_t total = kCapacity;
  const auto objects = Objects();
  // One shard has all the room, and another one wants half of it: some is to be taken and given.
  const auto prepare = [&](uint64_t keeper) {
    std::vector<OmapWrite> writes;
    for (size_t i = 0; i < objects.size(); ++i) {
      ShardState state;
      state.keeper = keeper;
      state.allotted_bytes = i == 1 ? total : 0;
      state.wanted_bytes = i == 2 ? total / 2 : 0;
      writes.emplace_back();
      writes.back().object = objects[i];
      writes.back().set = {{rados_format::kStateKey, rados_format::EncodeState(state)}};
    }
    ASSERT_TRUE(pool_->Write("test", &writes).ok());
  };
  options_.keeper_interval = absl::InfiniteDuration();
  const auto store = Open();  // makes the objects
  for (int overtaken_at = 1; overtaken_at <= 3; ++overtaken_at) {
    SCOPED_TRACE(overtaken_at);
    prepare(6);
    int step = 0;
    std::vector<ShardState> left;
    RadosRoom stale(pool_.get(), objects, total, 6, [&] {
      if (++step != overtaken_at) return;
      RadosRoom next(pool_.get(), objects, total, 7);
      const auto balanced = next.Balance("test", absl::Now());
      ASSERT_TRUE(balanced.ok()) << balanced.status();
      left = States();
    });
    const absl::Status status = stale.Balance("test", absl::Now()).status();
    // It had nothing to take over when it looked, and thinks that it still is the keeper.
    EXPECT_TRUE(absl::IsAborted(status)) << status;
    ASSERT_EQ(left.size(), objects.size());
    EXPECT_TRUE(States() == left) << "what the next one left is as it was";
    EXPECT_GE(left[2].allotted_bytes, total / 2) << "what was under way is made good";
    uint64_t allotted = 0;
    for (const ShardState& state : left) allotted += state.allotted_bytes;
    EXPECT_LE(allotted, total);
    EXPECT_GT(allotted, total / 2);
  }
}

TEST_F(RadosCapacityTest, AKeeperThatIsOvertakenEvictsNothingMore) {
  options_.keeper_interval = absl::InfiniteDuration();
  options_.capacity_bytes = 0;
  const auto store = Open();
  for (uint64_t i = 0; i < 40; ++i) EXPECT_TRUE(Put(*store, Sized(i, {2000, 4000, 8000})));
  const auto now = [] { return absl::Now(); };
  std::vector<std::string> objects = Objects();
  objects.erase(objects.begin());  // of profiles
  RadosIndex index(pool_.get(), objects, 0, now);
  RadosUsage usage(pool_.get(), &index);
  RadosLeases leases(pool_.get(), "test", now);
  HoldTable holds;
  RadosRoom room(pool_.get(), Objects(), kCapacity, 6), next(pool_.get(), Objects(), kCapacity, 7);
  ASSERT_TRUE(room.Balance("test", now()).ok());
  // It asks for the time once it has looked at what there is, and before it removes any.
  bool overtaken = false;
  RadosEvictor evictor(pool_.get(), &index, &usage, &holds, &leases, 6, [&] {
    if (!overtaken) {
      EXPECT_TRUE(next.Balance("test", absl::Now()).ok());
    }
    overtaken = true;
    return absl::Now();
  });
  const uint64_t before = store->Stats()->payload_bytes;
  const absl::Status status = evictor.Evict("test", before / 2).status();
  EXPECT_TRUE(overtaken);
  EXPECT_TRUE(absl::IsAborted(status)) << status;
  EXPECT_EQ(store->Stats()->payload_bytes, before);
  // With the room its own again it does.
  ASSERT_TRUE(room.Balance("test", now()).ok());
  const auto evicted = evictor.Evict("test", before / 2);
  ASSERT_TRUE(evicted.ok()) << evicted.status();
  EXPECT_GT(evicted->bytes, 0);
  EXPECT_EQ(store->Stats()->payload_bytes, before - evicted->bytes);
}

TEST_F(RadosCapacityTest, AShardOfThousandsIsListedAndSampledToItsEnd) {
  options_.keeper_interval = absl::InfiniteDuration();
  options_.capacity_bytes = 0;
  const auto store = Open();
  // Put by hand, without data, since as many puts would take long. Ceph shows 1024 at a time.
  constexpr size_t kChunks = 5000, kTenants = 3000;
  std::vector<ChunkId> ids;
  std::vector<OmapWrite> writes(1);
  writes[0].object = rados_format::IndexObject(0);
  for (uint64_t i = 0; i < kChunks; ++i) {
    rados_format::DataRecord record;
    record.info = Sized(i, {100, 900}).info;
    record.hashes = {0, 0};
    ChunkId id = TestId(i);
    id[0] &= 0x1f;  // of the first of eight shards
    record.generation.fill(static_cast<uint8_t>(i));
    writes[0].set.emplace_back(rados_format::DataKey(id), rados_format::EncodeData(record));
    ids.push_back(id);
  }
  for (size_t i = 0; i < kTenants; ++i) {
    writes[0].set.emplace_back(rados_format::TenantKey(absl::StrCat("tenant", i)),
                               rados_format::EncodeTenantUse({1, 1000, 0, 0}));
  }
  ShardState state;
  state.chunks = kChunks;
  state.payload_bytes = state.data_bytes = 1000 * kChunks;
  writes[0].set.emplace_back(rados_format::kStateKey, rados_format::EncodeState(state));
  ASSERT_TRUE(pool_->Write("test", &writes).ok());
  std::sort(ids.begin(), ids.end());
  ASSERT_TRUE(std::adjacent_find(ids.begin(), ids.end()) == ids.end());

  for (const size_t limit : {kChunks + 1, size_t{4097}}) {
    const auto listed = store->List(absl::nullopt, limit);
    ASSERT_TRUE(listed.ok()) << listed.status();
    ASSERT_EQ(listed->size(), std::min(limit, kChunks));
    for (size_t i = 0; i < listed->size(); ++i) ASSERT_EQ((*listed)[i].first, ids[i]) << i;
  }
  EXPECT_EQ(store->GetTenantUse(absl::StrCat("tenant", kTenants - 1))->payload_bytes, 1000);

  // Each pass looks at another page of the shard, and the last one comes round.
  const auto now = [] { return absl::Now(); };
  std::vector<std::string> objects = Objects();
  objects.erase(objects.begin());
  RadosIndex index(pool_.get(), objects, 0, now);
  RadosUsage usage(pool_.get(), &index);
  RadosLeases leases(pool_.get(), "test", now);
  HoldTable holds;
  ASSERT_TRUE(RadosRoom(pool_.get(), Objects(), 1000 * kChunks, 6).Balance("test", now()).ok());
  RadosEvictor evictor(pool_.get(), &index, &usage, &holds, &leases, 6, now);
  constexpr size_t kPasses = (kChunks + RadosEvictor::kPage - 1) / RadosEvictor::kPage;
  uint64_t bytes = 0;
  for (size_t pass = 0; pass < kPasses; ++pass) {
    const auto evicted = evictor.Evict("test", uint64_t{1} << 40);
    ASSERT_TRUE(evicted.ok()) << evicted.status();
    EXPECT_GT(evicted->bytes, 0);
    // Some more than an eighth of the sample, as it ends with a whole segment.
    EXPECT_LE(evicted->bytes, 1000 * RadosEvictor::kPage / 8 + 1000);
    bytes += evicted->bytes;
  }
  const auto left = store->List(absl::nullopt, kChunks);
  ASSERT_TRUE(left.ok()) << left.status();
  ASSERT_EQ(left->size(), kChunks) << "there were finer segments to take";
  for (size_t page = 0; page < kPasses; ++page) {
    const auto begin = left->begin() + static_cast<std::ptrdiff_t>(page * RadosEvictor::kPage);
    const auto end = page + 1 < kPasses ? begin + RadosEvictor::kPage : left->end();
    EXPECT_TRUE(std::any_of(
        begin, end, [](const auto& chunk) { return chunk.second.segment_bytes.size() == 1; }))
        << "page " << page;
  }
  EXPECT_EQ(store->Stats()->payload_bytes, 1000 * kChunks - bytes);
}

TEST_F(RadosCapacityTest, TheFinestSegmentsOfWhatNoDaemonUsesGoFirst) {
  const auto a = Open(), b = Open();
  std::vector<TestChunk> chunks;
  for (uint64_t i = 0; i < 80; ++i) chunks.push_back(Sized(i, {2000, 4000, 8000}));
  for (size_t i = 0; i < 30; ++i) EXPECT_TRUE(Put(*a, chunks[i]));
  for (size_t i = 0; i < 15; ++i) b->Touch({chunks[i].id});
  ASSERT_TRUE(b->FlushUsage().ok());
  for (size_t i = 30; i < chunks.size(); ++i) EXPECT_TRUE(Put(i % 2 == 0 ? *a : *b, chunks[i]));
  size_t lost = 0;
  for (size_t i = 0; i < chunks.size(); ++i) {
    const size_t levels = Levels(*a, chunks[i]);
    EXPECT_GE(levels, 2) << i << ": there were finer segments to take";
    if (i < 15) {
      EXPECT_EQ(levels, 3) << i << ": the other daemon's loads used it";
    }
    lost += 3 - levels;
    EXPECT_EQ(Read(*b, chunks[i].id, 0), chunks[i].segments[0]);
    EXPECT_EQ(Read(*b, chunks[i].id, 1), chunks[i].segments[1]);
  }
  EXPECT_GT(lost, 0);
  // Which a Put brings back.
  for (const TestChunk& chunk : chunks) {
    if (Levels(*a, chunk) == 3) continue;
    EXPECT_TRUE(Put(*a, chunk));
    break;
  }
}

TEST_F(RadosCapacityTest, WhatLoadsOfOtherDaemonsHoldForLongStays) {
  options_.clock = [this] { return absl::FromUnixNanos(nanos_.load()); };
  options_.retire_age = options_.pressed_retire_age = absl::Minutes(1);
  options_.upload_age = absl::Hours(1000);  // the clock runs fast
  const auto a = Open();
  options_.keeper_interval = absl::InfiniteDuration();  // the other one evicts
  const auto b = Open();
  std::vector<TestChunk> chunks;
  for (uint64_t i = 0; i < 110; ++i) chunks.push_back(Sized(i, {2000, 4000, 8000}));
  for (size_t i = 0; i < 20; ++i) EXPECT_TRUE(Put(*a, chunks[i]));
  std::vector<ChunkId> ids;
  for (size_t i = 0; i < 10; ++i) ids.push_back(chunks[i].id);
  const ChunkHold hold = b->Hold(ids);
  std::atomic<bool> done{false};
  std::thread clock([&] {
    while (!done) {
      Pass(absl::Seconds(5));
      EXPECT_TRUE(b->LeaseHolds().ok());
      absl::SleepFor(absl::Milliseconds(5));
    }
  });
  for (size_t i = 20; i < chunks.size(); ++i) EXPECT_TRUE(Put(*a, chunks[i]));
  done = true;
  clock.join();
  EXPECT_GT(a->Stats()->evicted_segments, 0);
  size_t lost = 0;
  for (size_t i = 0; i < 20; ++i) {
    if (i < 10) {
      EXPECT_EQ(Levels(*b, chunks[i]), 3) << i;
    } else {
      lost += 3 - Levels(*b, chunks[i]);
    }
  }
  EXPECT_GT(lost, 0) << "of those that nobody held, which are as old";
  EXPECT_EQ(b->Stats()->evicted_segments, 0);
}

TEST_F(RadosCapacityTest, ContextsShrinkFromTheirEndAndPinnedOnesStay) {
  const auto a = Open(), b = Open();
  std::vector<std::vector<TestChunk>> contexts;
  for (uint64_t c = 0; c < 6; ++c) contexts.push_back(Chain(1000 * c, 20, 14000));
  for (const TestChunk& chunk : contexts[0]) EXPECT_TRUE(Put(*a, chunk));
  const auto pinned = b->Pin({contexts[0][10].id}, "job", absl::Now() + absl::Hours(1));
  ASSERT_TRUE(pinned.ok()) << pinned.status();
  EXPECT_EQ(*pinned, 1);
  for (size_t c = 1; c < contexts.size(); ++c) {
    for (const TestChunk& chunk : contexts[c]) EXPECT_TRUE(Put(*b, chunk));
  }
  EXPECT_GT(a->Stats()->evicted_chunks + b->Stats()->evicted_chunks, 0);
  // Those that were whole before there was too much: of others the first chunks may go before
  // any follows them.
  for (size_t c = 0; c < 3; ++c) {
    std::vector<ChunkId> ids;
    size_t stored = 0;
    for (const TestChunk& chunk : contexts[c]) {
      ids.push_back(chunk.id);
      stored += Has(*a, chunk) ? 1 : 0;
    }
    EXPECT_EQ(a->LongestPrefix(ids).value_or(99), stored) << "context " << c << " has a hole";
    if (c == 0) {
      EXPECT_GE(stored, 11) << "what leads to a pinned chunk stays with it";
    }
  }
}

TEST_F(RadosCapacityTest, WithoutAnythingToEvictAPutIsRefusedAndLaterTaken) {
  options_.room_timeout = absl::Seconds(2);
  const auto store = Open();
  std::vector<TestChunk> chunks;
  std::vector<ChunkId> ids;
  for (uint64_t i = 0; i < 100; ++i) {
    chunks.push_back(Sized(i, {14000}));
    ids.push_back(chunks.back().id);
  }
  ChunkHold hold = store->Hold(ids);
  absl::Status refused;
  size_t stored = 0;
  while (stored < chunks.size() && refused.ok()) {
    const TestChunk& chunk = chunks[stored];
    refused = store->Put(chunk.id, chunk.info, chunk.views()).status();
    if (refused.ok()) ++stored;
  }
  EXPECT_TRUE(absl::IsResourceExhausted(refused)) << refused;
  EXPECT_TRUE(absl::StrContains(refused.message(), "14000 bytes")) << refused;
  EXPECT_GT(stored, 0);
  for (size_t i = 0; i < stored; ++i) EXPECT_TRUE(Has(*store, chunks[i])) << i;
  hold = ChunkHold();
  absl::StatusOr<bool> put = false;
  for (int attempt = 0; attempt < 200; ++attempt) {
    put = store->Put(chunks[stored].id, chunks[stored].info, chunks[stored].views());
    if (put.ok()) break;
  }
  EXPECT_TRUE(put.ok()) << put.status();

  const TestChunk large = Sized(999, {kCapacity / 8 + 1});
  refused = store->Put(large.id, large.info, large.views()).status();
  EXPECT_TRUE(absl::IsResourceExhausted(refused)) << refused;
}

TEST_F(RadosCapacityTest, ADaemonWithoutACapacityKeepsToWhatOthersAllot) {
  const auto keeper = Open();
  RadosChunkStoreOptions options = options_;
  options.capacity_bytes = 0;
  auto plain = RadosChunkStore::Create(options);
  ASSERT_TRUE(plain.ok()) << plain.status();
  for (uint64_t i = 0; i < 150; ++i) {
    EXPECT_TRUE(Put(**plain, Sized(i, {14000})));
    if (i % 25 == 0) ExpectShardsKeepToTheirs();
  }
  EXPECT_LE(BytesInThePool(), kCapacity);
  EXPECT_TRUE((*plain)->PutProfile(TestId(7), TestBytes(7, 20000)).value_or(false));
  EXPECT_EQ((*plain)->GetProfile(TestId(7)).value_or(""), TestBytes(7, 20000));
}

TEST_F(RadosCapacityTest, AStoreThatIsTooLargeShrinksBeforeItTakesMore) {
  RadosChunkStoreOptions unbounded = options_;
  unbounded.capacity_bytes = 0;
  auto before = RadosChunkStore::Create(unbounded);
  ASSERT_TRUE(before.ok()) << before.status();
  for (uint64_t i = 0; i < 120; ++i) EXPECT_TRUE(Put(**before, Sized(i, {6000, 8000})));
  before->reset();
  EXPECT_GT(BytesInThePool(), kCapacity);
  auto store = Open();
  for (uint64_t i = 200; i < 210; ++i) EXPECT_TRUE(Put(*store, Sized(i, {6000, 8000})));
  EXPECT_LE(BytesInThePool(), kCapacity);
  store.reset();
  ExpectAllottedWithinTheCapacity();
}

TEST_F(RadosCapacityTest, AnotherDaemonKeepsTheRoomWhenTheFirstOneDied) {
  options_.keeper_interval = absl::InfiniteDuration();
  const auto a = Open(), b = Open();
  absl::StatusOr<bool> kept = a->KeepRoom();
  EXPECT_TRUE(kept.ok()) << kept.status();
  const auto keeper = [&] { return States()[0].keeper; };
  const uint64_t first = keeper();
  EXPECT_NE(first, 0);
  // The lock of the first one, which is not heard of again, lapses by itself.
  for (int attempt = 0; attempt < 600 && keeper() == first; ++attempt) {
    kept = b->KeepRoom();
    EXPECT_TRUE(kept.ok()) << kept.status();
    absl::SleepFor(absl::Milliseconds(100));
  }
  EXPECT_NE(keeper(), first);
  EXPECT_TRUE(Put(*a, Sized(1, {14000})));
  ExpectAllottedWithinTheCapacity();
}

TEST_F(RadosCapacityTest, ADaemonThatIsKilledAmidEvictionsLeavesAnotherToGoOn) {
  const RadosPoolOptions& pool = options_.pool;
  constexpr size_t kEnough = 150;  // some twice the capacity
  for (uint64_t round = 0; round < 2; ++round) {
    const std::vector<std::string> lines =
        RunAndKill("storage/rados/capacity_writer",
                   {pool.conf_file, pool.pool, pool.name_space, absl::StrCat(10000 * (round + 1)),
                    absl::StrCat(kCapacity)},
                   kEnough);
    EXPECT_GE(lines.size(), kEnough);
    EXPECT_LE(BytesInThePool(), kCapacity);
    ExpectShardsKeepToTheirs();
    ExpectAllottedWithinTheCapacity();
    // Whoever comes takes over once the lock of the dead one has lapsed.
    auto store = Open();
    for (uint64_t i = 0; i < 30; ++i) {
      EXPECT_TRUE(Put(*store, Sized(1000 * round + i, {6000, 8000})));
    }
    EXPECT_LE(BytesInThePool(), kCapacity);
    EXPECT_GT(store->Stats()->evicted_bytes, 0);
    // What is there is whole.
    const auto listed = store->List(absl::nullopt, 10000);
    ASSERT_TRUE(listed.ok()) << listed.status();
    for (const auto& [id, info] : *listed) {
      const ChunkHold hold = store->Hold({id});
      const auto infos = store->GetInfos({id});
      ASSERT_TRUE(infos.ok()) << infos.status();
      if (!infos->front().has_value()) continue;
      for (uint32_t level = 0; level < infos->front()->segment_bytes.size(); ++level) {
        const auto read = store->ReadSegment(id, level);
        EXPECT_TRUE(read.ok()) << read.status();
      }
    }
    store.reset();
    ExpectAllottedWithinTheCapacity();
  }
}

TEST_F(RadosCapacityTest, WhatAnotherDaemonEvictsStaysReadableForAWhile) {
  options_.pressed_retire_age = options_.retire_age = absl::Hours(1);
  options_.room_timeout = absl::Milliseconds(200);
  options_.info_max_age = absl::Seconds(5);
  const auto a = Open(), b = Open();
  std::vector<TestChunk> chunks;
  for (uint64_t i = 0; i < 100; ++i) chunks.push_back(Sized(i, {4000, 10000}));
  const auto evicted = [&] { return a->Stats()->evicted_segments + b->Stats()->evicted_segments; };
  std::vector<size_t> seen;  // levels, as a load of the other daemon would see them
  int refusals = 0;
  while (seen.size() < chunks.size() && (evicted() == 0 || refusals == 0) && refusals < 300) {
    const TestChunk& chunk = chunks[seen.size()];
    const auto put = a->Put(chunk.id, chunk.info, chunk.views());
    if (put.ok()) {
      seen.push_back(Levels(*b, chunk));
    } else {
      EXPECT_TRUE(absl::IsResourceExhausted(put.status())) << put.status();
      ++refusals;
    }
  }
  EXPECT_LT(seen.size(), chunks.size()) << "nothing comes free for an hour";
  EXPECT_GT(evicted(), 0);
  for (size_t i = 0; i < seen.size(); ++i) {
    for (uint32_t level = 0; level < seen[i]; ++level) {
      EXPECT_EQ(Read(*b, chunks[i].id, level), chunks[i].segments[level]) << i;
    }
  }
}

}  // namespace
}  // namespace kvstream

int main(int argc, char** argv) { return kvstream::RunRadosTests(argc, argv); }

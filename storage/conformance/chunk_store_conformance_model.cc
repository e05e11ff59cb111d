// Random sequences of operations against a std::map, and threads that get in each other's way.
#include <algorithm>
#include <atomic>
#include <map>
#include <random>
#include <thread>
#include <vector>

#include "storage/chunk_limits.h"
#include "storage/conformance/chunk_store_conformance.h"
#include "storage/id_text.h"

namespace kvstream {
namespace {

using Model = std::map<ChunkId, TestChunk>;

TEST_P(ChunkStoreConformance, RandomOperationsAgreeWithAModel) {
  constexpr int kOperations = 1500;
  constexpr uint64_t kIds = 40;
  std::mt19937_64 random(TestSeed());
  const auto draw = [&random](uint64_t below) { return random() % below; };
  Model model;
  struct Pin {
    PinnedBytes bytes;
    std::string expected;
  };
  std::vector<Pin> pins;

  for (int step = 0; step < kOperations && !HasFailure(); ++step) {
    SCOPED_TRACE(step);
    const TestChunk chunk = [&] {
      // The same id comes with different contents, as after a delete.
      const TestChunk made =
          MakeTestChunk(draw(kIds) + kIds * draw(3), draw(20) == 0 ? 200000 : 2000);
      return Under(draw(kIds), made);
    }();
    const bool stored = model.count(chunk.id) > 0;
    switch (draw(12)) {
      case 0:
      case 1:
      case 2:
      case 3: {
        EXPECT_EQ(Put(chunk), !stored);
        model.emplace(chunk.id, chunk);
        break;
      }
      case 4: {
        std::vector<ChunkId> ids;
        size_t existing = 0;
        for (uint64_t i = draw(4); i-- > 0;) ids.push_back(TestId(draw(kIds)));
        for (const ChunkId& id : ids) existing += model.erase(id);
        const auto deleted = store().Delete(ids);
        ASSERT_TRUE(deleted.ok()) << deleted.status();
        EXPECT_EQ(*deleted, existing);
        break;
      }
      case 5:
      case 6: {
        if (stored) {
          ExpectStored(model.at(chunk.id));
        } else {
          ExpectAbsent(chunk);
        }
        break;
      }
      case 7: {
        std::vector<ChunkId> chain;
        for (uint64_t i = draw(kIds); i-- > 0;) chain.push_back(TestId(draw(kIds)));
        const auto hole = std::find_if(chain.begin(), chain.end(),
                                       [&](const ChunkId& id) { return model.count(id) == 0; });
        const auto prefix = store().LongestPrefix(chain);
        ASSERT_TRUE(prefix.ok()) << prefix.status();
        EXPECT_EQ(*prefix, hole - chain.begin());
        break;
      }
      case 8: {
        const uint64_t limit = draw(kIds);
        const auto listed = store().List(chunk.id, limit);
        ASSERT_TRUE(listed.ok()) << listed.status();
        if (target().of_tenant()) {
          for (const auto& [id, info] : *listed) {
            ASSERT_EQ(model.count(id), 1);
            EXPECT_TRUE(Same(info, model.at(id).info));
          }
          break;
        }
        auto expected = model.upper_bound(chunk.id);
        for (const auto& [id, info] : *listed) {
          ASSERT_TRUE(expected != model.end());
          EXPECT_EQ(id, expected->first);
          EXPECT_TRUE(Same(info, expected->second.info));
          ++expected;
        }
        EXPECT_TRUE(listed->size() == limit || expected == model.end());
        break;
      }
      case 9: {
        if (stored) {
          const TestChunk& known = model.at(chunk.id);
          const uint32_t level = draw(known.segments.size());
          auto pin = store().ReadSegment(chunk.id, level);
          ASSERT_TRUE(pin.ok()) << pin.status();
          pins.push_back({*std::move(pin), known.segments[level]});
        }
        if (pins.size() > 20) pins.erase(pins.begin() + draw(pins.size()));
        break;
      }
      case 10: {
        const auto stats = store().Stats();
        ASSERT_TRUE(stats.ok()) << stats.status();
        if (!target().exact_stats()) break;
        uint64_t bytes = 0;
        for (const auto& [id, known] : model) bytes += PayloadBytes(known.info);
        EXPECT_EQ(stats->chunks, model.size());
        EXPECT_EQ(stats->payload_bytes, bytes);
        break;
      }
      default: {
        if (draw(20) != 0) break;
        pins.clear();  // must be released before the store goes
        Reopen();
      }
    }
    for (const Pin& pin : pins) ASSERT_TRUE(pin.bytes.bytes() == pin.expected);
  }
}

TEST_P(ChunkStoreConformance, OfRacingPutsOneStores) {
  constexpr int kThreads = 8;
  constexpr uint64_t kChunks = 40;
  std::vector<std::atomic<int>> created(kChunks);
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&] {
      for (uint64_t i = 0; i < kChunks; ++i) {
        const TestChunk chunk = MakeTestChunk(i);
        if (Put(chunk)) ++created[i];
        // Whoever stored it, it is there once Put returned.
        ExpectStored(chunk);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  uint64_t bytes = 0;
  for (uint64_t i = 0; i < kChunks; ++i) {
    EXPECT_EQ(created[i], 1);
    bytes += PayloadBytes(MakeTestChunk(i).info);
  }
  const auto stats = store().Stats();
  ASSERT_TRUE(stats.ok()) << stats.status();
  if (target().exact_stats()) {
    EXPECT_EQ(stats->chunks, kChunks);
    EXPECT_EQ(stats->payload_bytes, bytes);
  }
}

TEST_P(ChunkStoreConformance, RacingPutsOfAProfileStoreOne) {
  const TestProfile profile = target().MakeProfile(1, 100);
  std::atomic<int> created{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < 8; ++t) {
    threads.emplace_back([&] {
      const auto put = store().PutProfile(profile.id, profile.bytes);
      EXPECT_TRUE(put.ok()) << put.status();
      if (put.value_or(false)) ++created;
      EXPECT_EQ(store().GetProfile(profile.id).value_or(""), profile.bytes);
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(created, 1);
}

TEST_P(ChunkStoreConformance, PutsAndDeletesThatRaceLeaveWholeChunksOrNone) {
  constexpr uint64_t kIds = 6;
  constexpr int kRounds = 60;
  const uint64_t seed = TestSeed();
  std::atomic<int64_t> created{0}, deleted{0};
  // Every id has one content, so a reader knows what it must see.
  const auto work = [&](uint64_t thread) {
    std::mt19937_64 random(seed + thread);
    for (int round = 0; round < kRounds; ++round) {
      const TestChunk chunk = MakeTestChunk(random() % kIds);
      switch (random() % 4) {
        case 0:
          if (Put(chunk)) ++created;
          break;
        case 1: {
          std::vector<ChunkId> ids = {chunk.id, TestId(random() % kIds), TestId(random() % kIds)};
          const auto count = store().Delete(ids);
          EXPECT_TRUE(count.ok()) << count.status();
          deleted += static_cast<int64_t>(count.value_or(0));
          break;
        }
        case 2: {
          const auto infos = store().GetInfos({chunk.id});
          ASSERT_TRUE(infos.ok()) << infos.status();
          EXPECT_TRUE(!infos->front() || Same(*infos->front(), chunk.info));
          break;
        }
        default: {
          const uint32_t level = random() % chunk.segments.size();
          const auto segment = store().ReadSegment(chunk.id, level);
          if (segment.ok()) {
            EXPECT_TRUE(segment->bytes() == chunk.segments[level]);
          } else {
            EXPECT_TRUE(absl::IsNotFound(segment.status())) << segment.status();
          }
        }
      }
    }
  };
  std::vector<std::thread> threads;
  for (uint64_t t = 0; t < 8; ++t) threads.emplace_back(work, t);
  for (std::thread& thread : threads) thread.join();

  Reopen();
  int64_t left = 0;
  uint64_t bytes = 0;
  for (uint64_t i = 0; i < kIds; ++i) {
    const TestChunk chunk = MakeTestChunk(i);
    const auto infos = store().GetInfos({chunk.id});
    ASSERT_TRUE(infos.ok()) << infos.status();
    if (infos->front()) {
      ExpectStored(chunk);
      ++left;
      bytes += PayloadBytes(chunk.info);
    } else {
      ExpectAbsent(chunk);
    }
  }
  if (target().over_protocol()) {
    EXPECT_LE(created - deleted, left);
  } else {
    EXPECT_EQ(created - deleted, left);
  }
  const auto stats = store().Stats();
  ASSERT_TRUE(stats.ok()) << stats.status();
  if (target().exact_stats()) {
    EXPECT_EQ(stats->chunks, left);
    EXPECT_EQ(stats->payload_bytes, bytes);
  }
}

}  // namespace
}  // namespace kvstream

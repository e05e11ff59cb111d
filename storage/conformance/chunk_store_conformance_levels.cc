// Chunks that lose their finest levels and get them back, and holds that prevent it.
#include <atomic>
#include <map>
#include <random>
#include <thread>
#include <utility>
#include <vector>

#include "storage/chunk_limits.h"
#include "storage/conformance/chunk_store_conformance.h"
#include "storage/id_text.h"

namespace kvstream {
namespace {

// `levels` levels of some bytes each.
TestChunk Layered(uint64_t number, size_t levels, size_t max_segment_bytes = 3000) {
  TestChunk chunk = MakeTestChunk(number);
  chunk.segments.clear();
  chunk.info.segment_bytes.clear();
  for (size_t level = 0; level < levels; ++level) {
    chunk.segments.push_back(
        TestBytes(number * 64 + level, 1 + (number * 7919 + level * 104729) % max_segment_bytes));
    chunk.info.segment_bytes.push_back(chunk.segments.back().size());
  }
  return chunk;
}

// What is left of it.
TestChunk Trimmed(TestChunk chunk, uint32_t keep_levels) {
  TrimInfo(&chunk.info, keep_levels);
  chunk.segments.resize(chunk.info.segment_bytes.size());
  return chunk;
}

TEST_P(ChunkStoreConformance, TrimTakesTheFinestLevels) {
  const TestChunk chunk = Layered(1, 4), other = Layered(2, 4), coarse = Layered(3, 2);
  for (const TestChunk& put : {chunk, other, coarse}) EXPECT_TRUE(Put(put));
  const auto trimmed = store().Trim({chunk.id, TestId(99), coarse.id, chunk.id}, 2);
  ASSERT_TRUE(trimmed.ok()) << trimmed.status();
  EXPECT_EQ(*trimmed, 1);
  for (int i = 0; i < 2; ++i) {
    ExpectStored(Trimmed(chunk, 2));
    ExpectStored(other);
    ExpectStored(coarse);
    const auto stats = store().Stats();
    ASSERT_TRUE(stats.ok()) << stats.status();
    if (target().exact_stats()) {
      EXPECT_EQ(stats->chunks, 3);
      EXPECT_EQ(stats->payload_bytes, PayloadBytes(Trimmed(chunk, 2).info) +
                                          PayloadBytes(other.info) + PayloadBytes(coarse.info));
    }
    Reopen();
  }
  EXPECT_EQ(store().Trim({chunk.id}, 2).value_or(9), 0);
  EXPECT_EQ(store().Trim({chunk.id}, 1).value_or(9), 1);
  ExpectStored(Trimmed(chunk, 1));
  EXPECT_EQ(store().Trim({}, 1).value_or(9), 0);
  const auto listed = store().List(absl::nullopt, 10);
  ASSERT_TRUE(listed.ok()) << listed.status();
  uint32_t lost = 0;
  for (const auto& [id, info] : *listed) lost += info.levels_lost;
  EXPECT_EQ(lost, 3);
}

TEST_P(ChunkStoreConformance, TrimKeepsAtLeastOneLevel) {
  const TestChunk chunk = Layered(1, 4);
  EXPECT_TRUE(Put(chunk));
  const auto trimmed = store().Trim({chunk.id}, 0);
  EXPECT_TRUE(absl::IsInvalidArgument(trimmed.status())) << trimmed.status();
  ExpectStored(chunk);
}

TEST_P(ChunkStoreConformance, PutRestoresLostLevels) {
  const TestChunk chunk = Layered(1, 4);
  EXPECT_TRUE(Put(chunk));
  EXPECT_EQ(store().Trim({chunk.id}, 1).value_or(0), 1);
  if (!target().over_protocol()) {
    EXPECT_FALSE(Put(Layered(1, 1))) << "it has that level";
    EXPECT_TRUE(Put(Layered(1, 3)));
    TestChunk three = Layered(1, 3);
    three.info.levels_lost = 1;
    ExpectStored(three);
    Reopen();
    ExpectStored(three);
  }
  TestChunk later = chunk;
  later.info.created += absl::Seconds(5);
  later.info.model = "another name";
  EXPECT_TRUE(Put(later));
  EXPECT_FALSE(Put(chunk));
  ExpectStored(chunk);
  Reopen();
  ExpectStored(chunk);
  const auto stats = store().Stats();
  ASSERT_TRUE(stats.ok()) << stats.status();
  if (target().exact_stats()) {
    EXPECT_EQ(stats->chunks, 1);
    EXPECT_EQ(stats->payload_bytes, PayloadBytes(chunk.info));
  }
}

TEST_P(ChunkStoreConformance, LevelsOfAnotherEncodingAreNotMixedIn) {
  TestChunk chunk = Layered(1, 4);
  chunk.info.parent = TestId(76);
  chunk.info.first_token = 256;
  EXPECT_TRUE(Put(chunk));
  EXPECT_EQ(store().Trim({chunk.id}, 2).value_or(0), 1);
  TestChunk other = chunk;
  other.segments[1][0] ^= 1;
  EXPECT_FALSE(Put(other));
  other = chunk;
  other.segments[1].push_back('x');
  ++other.info.segment_bytes[1];
  EXPECT_FALSE(Put(other));
  other = chunk;
  ++other.info.tokens;
  EXPECT_FALSE(Put(other));
  other = chunk;
  other.info.parent = TestId(77);
  EXPECT_FALSE(Put(other));
  if (!target().over_protocol()) {
    TestChunk five = Layered(1, 5);
    five.info.parent = chunk.info.parent;
    five.info.first_token = chunk.info.first_token;
    EXPECT_FALSE(Put(five)) << "it never had a fifth";
  }
  ExpectStored(Trimmed(chunk, 2));
  EXPECT_TRUE(Put(chunk));
  ExpectStored(chunk);
}

TEST_P(ChunkStoreConformance, RefusesAPutThatHasLostLevels) {
  if (target().over_protocol()) return;  // no message says so
  const TestChunk chunk = Trimmed(Layered(1, 4), 2);
  EXPECT_TRUE(absl::IsInvalidArgument(store().Put(chunk.id, chunk.info, chunk.views()).status()));
  ExpectAbsent(chunk);
}

TEST_P(ChunkStoreConformance, HeldChunksKeepTheirLevels) {
  const TestChunk held = Layered(1, 4), free = Layered(2, 4);
  EXPECT_TRUE(Put(held));
  EXPECT_TRUE(Put(free));
  {
    ChunkHold hold = store().Hold({held.id, TestId(99), held.id});
    const ChunkHold second = store().Hold({held.id});
    EXPECT_EQ(store().Trim({held.id, free.id}, 1).value_or(0), 1);
    ExpectStored(held);
    ExpectStored(Trimmed(free, 1));
    ChunkHold moved = std::move(hold);
    hold = ChunkHold();
    EXPECT_EQ(store().Trim({held.id}, 1).value_or(1), 0);
    std::thread([moved = std::move(moved)] {}).join();
    EXPECT_EQ(store().Trim({held.id}, 1).value_or(1), 0);
  }
  EXPECT_EQ(store().Trim({held.id}, 1).value_or(0), 1);
  ExpectStored(Trimmed(held, 1));
}

TEST_P(ChunkStoreConformance, PinsOutliveTrim) {
  TestChunk chunk = Layered(1, 2, 300000);
  EXPECT_TRUE(Put(chunk));
  Reopen();
  const auto pin = store().ReadSegment(chunk.id, 1);
  ASSERT_TRUE(pin.ok()) << pin.status();
  EXPECT_EQ(store().Trim({chunk.id}, 1).value_or(0), 1);
  EXPECT_TRUE(pin->bytes() == chunk.segments[1]);
  EXPECT_TRUE(absl::IsNotFound(store().ReadSegment(chunk.id, 1).status()));
}

TEST_P(ChunkStoreConformance, KeepsExpiryToTheNanosecond) {
  TestChunk chunk = Layered(1, 2);
  const absl::Time whole = absl::FromUnixNanos(2234567890123456789);
  chunk.info.expires = whole + absl::Nanoseconds(1) / 4;
  EXPECT_TRUE(Put(chunk));
  chunk.info.expires = whole;
  ExpectStored(chunk);
  TestChunk bad = Layered(2, 2);
  bad.info.expires = absl::InfinitePast();
  EXPECT_TRUE(absl::IsInvalidArgument(store().Put(bad.id, bad.info, bad.views()).status()));
}

TEST_P(ChunkStoreConformance, RandomTrimsAgreeWithAModel) {
  constexpr uint64_t kIds = 20;
  std::mt19937_64 random(TestSeed());
  const auto draw = [&random](uint64_t below) { return random() % below; };
  std::map<uint64_t, uint32_t> kept;  // number -> levels
  std::map<uint64_t, ChunkHold> holds;
  const auto levels_of = [](uint64_t number) { return static_cast<uint32_t>(1 + number % 5); };
  for (int step = 0; step < 1500 && !HasFailure(); ++step) {
    SCOPED_TRACE(step);
    const uint64_t number = draw(kIds);
    const TestChunk chunk = Layered(number, levels_of(number));
    const auto found = kept.find(number);
    switch (draw(9)) {
      case 0:
      case 1:
        EXPECT_EQ(Put(chunk), found == kept.end() || found->second < levels_of(number));
        kept[number] = levels_of(number);
        break;
      case 2:
      case 3: {
        const uint32_t keep = static_cast<uint32_t>(1 + draw(4));
        const bool lost = found != kept.end() && found->second > keep && holds.count(number) == 0;
        EXPECT_EQ(store().Trim({chunk.id}, keep).value_or(9), lost ? 1 : 0);
        if (lost) found->second = keep;
        break;
      }
      case 4:
        EXPECT_EQ(store().Delete({chunk.id}).value_or(9), kept.erase(number));
        break;
      case 5:
        if (holds.count(number) > 0) {
          holds.erase(number);
        } else {
          holds[number] = store().Hold({chunk.id});
        }
        break;
      case 6:
        store().Touch({chunk.id, TestId(draw(kIds))});
        break;
      case 7:
        if (draw(30) == 0) {
          holds.clear();  // must be released before the store goes
          Reopen();
        }
        break;
      default:
        if (found == kept.end()) {
          ExpectAbsent(chunk);
        } else {
          ExpectStored(Trimmed(chunk, found->second));
        }
    }
    uint64_t bytes = 0;
    for (const auto& [other, levels] : kept) {
      bytes += PayloadBytes(Trimmed(Layered(other, levels_of(other)), levels).info);
    }
    const auto stats = store().Stats();
    ASSERT_TRUE(stats.ok()) << stats.status();
    if (target().exact_stats()) {
      EXPECT_EQ(stats->chunks, kept.size());
      EXPECT_EQ(stats->payload_bytes, bytes);
    }
  }
}

TEST_P(ChunkStoreConformance, PutsTrimsAndHoldsThatRaceLeaveWholeLevels) {
  constexpr uint64_t kIds = 4;
  constexpr uint32_t kLevels = 4;
  const uint64_t seed = TestSeed();
  const auto work = [&](uint64_t thread) {
    std::mt19937_64 random(seed + thread);
    for (int round = 0; round < 60; ++round) {
      const TestChunk chunk = Layered(random() % kIds, kLevels);
      switch (random() % 4) {
        case 0:
          Put(chunk);
          break;
        case 1:
          EXPECT_TRUE(store().Trim({chunk.id, TestId(random() % kIds)}, 1 + random() % 3).ok());
          break;
        case 2:
          EXPECT_TRUE(random() % 4 != 0 || store().Delete({chunk.id}).ok());
          break;
        default: {
          const ChunkHold hold = store().Hold({chunk.id});
          const auto infos = store().GetInfos({chunk.id});
          ASSERT_TRUE(infos.ok()) << infos.status();
          if (!infos->front().has_value()) break;
          const uint32_t levels = static_cast<uint32_t>(infos->front()->segment_bytes.size());
          EXPECT_EQ(levels + infos->front()->levels_lost, kLevels);
          for (uint32_t level = 0; level < levels; ++level) {
            const auto segment = store().ReadSegment(chunk.id, level);
            if (segment.ok()) {
              EXPECT_TRUE(segment->bytes() == chunk.segments[level]);
            } else {
              // Deleted, which holds do not prevent: then all of it.
              EXPECT_TRUE(absl::IsNotFound(segment.status())) << segment.status();
            }
          }
        }
      }
    }
  };
  std::vector<std::thread> threads;
  for (uint64_t t = 0; t < 6; ++t) threads.emplace_back(work, t);
  for (std::thread& thread : threads) thread.join();
  Reopen();
  uint64_t chunks = 0, bytes = 0;
  for (uint64_t i = 0; i < kIds; ++i) {
    const TestChunk chunk = Layered(i, kLevels);
    const auto infos = store().GetInfos({chunk.id});
    ASSERT_TRUE(infos.ok()) << infos.status();
    if (!infos->front().has_value()) continue;
    const TestChunk left =
        Trimmed(chunk, static_cast<uint32_t>(infos->front()->segment_bytes.size()));
    ExpectStored(left);
    ++chunks;
    bytes += PayloadBytes(left.info);
  }
  const auto stats = store().Stats();
  ASSERT_TRUE(stats.ok()) << stats.status();
  if (target().exact_stats()) {
    EXPECT_EQ(stats->chunks, chunks);
    EXPECT_EQ(stats->payload_bytes, bytes);
  }
}

}  // namespace
}  // namespace kvstream

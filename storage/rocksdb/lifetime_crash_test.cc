// A process that pins, renews, deletes and expires chunks is killed again and again; what it
// acknowledged holds.
#include <gtest/gtest.h>

#include <map>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "storage/conformance/test_chunks.h"
#include "storage/rocksdb/killed_process.h"
#include "storage/rocksdb/lifetime_script.h"
#include "storage/rocksdb/rocksdb_chunk_store.h"
#include "storage/rocksdb/store_audit.h"
#include "storage/rocksdb/temp_dir.h"

namespace kvstream {
namespace {

void Check(ChunkStore& store, uint64_t number, char last_step, std::map<std::string, int>* seen) {
  SCOPED_TRACE(absl::StrCat("number ", number, ", last step ", std::string(1, last_step)));
  const TestChunk chunk = LifetimeChunk(number);
  const auto infos = store.GetInfos({chunk.id});
  ASSERT_TRUE(infos.ok()) << infos.status();
  const bool stored = infos->front().has_value();
  const auto pins = store.PinsOf({chunk.id});
  ASSERT_TRUE(pins.ok()) << pins.status();
  const LifetimeScript script = LifetimeScriptOf(number);
  ++(*seen)[absl::StrCat(static_cast<uint64_t>(script), std::string(1, last_step))];
  if (last_step == 'd') {
    EXPECT_FALSE(stored) << "it has come back";
    return;
  }
  // The step that comes next may have been done.
  const bool may_be_gone =
      script == LifetimeScript::kDelete || script == LifetimeScript::kDeleteSoon ||
      script == LifetimeScript::kExpire || (script == LifetimeScript::kUnpin && last_step == 'u');
  ASSERT_TRUE(stored || may_be_gone) << "lost";
  if (!stored) return;
  for (uint32_t level = 0; level < chunk.segments.size(); ++level) {
    const auto segment = store.ReadSegment(chunk.id, level);
    ASSERT_TRUE(segment.ok()) << segment.status();
    EXPECT_TRUE(segment->bytes() == chunk.segments[level]);
  }
  if (script == LifetimeScript::kPin && last_step == 'n') {
    ASSERT_EQ(pins->size(), 1);
    EXPECT_EQ(pins->front().owner, "writer");
    EXPECT_EQ(pins->front().until, kFarAhead);
    EXPECT_EQ(store.Delete({chunk.id}).value_or(9), 0);
  }
  EXPECT_TRUE(last_step != 'u' || pins->empty());
  if (last_step == 'r') {
    EXPECT_EQ(infos->front()->expires, kFartherAhead);
  } else if (script != LifetimeScript::kRenew) {
    EXPECT_EQ(infos->front()->expires, chunk.info.expires);
  }
}

TEST(LifetimeCrashTest, WhatWasAcknowledgedHolds) {
  constexpr int kRounds = 15;
  // A multiple of the scripts.
  constexpr uint64_t kNumbersPerRound = 600'000;
  std::mt19937_64 random(TestSeed());
  TempDir dir;
  RocksDbChunkStoreOptions options;
  options.data_dir = dir.path();
  std::map<uint64_t, char> last_step;
  std::map<std::string, int> seen;
  for (int round = 0; round < kRounds && !testing::Test::HasFailure(); ++round) {
    SCOPED_TRACE(round);
    const std::vector<std::string> lines =
        RunAndKill("lifetime_writer", {dir.path(), absl::StrCat(round * kNumbersPerRound)},
                   20 + random() % 200);
    for (const std::string& line : lines) {
      const std::pair<std::string, std::string> parts = absl::StrSplit(line, ' ');
      uint64_t number = 0;
      ASSERT_TRUE(absl::SimpleAtoi(parts.first, &number) && parts.second.size() == 1) << line;
      last_step[number] = parts.second[0];
    }
    auto audit = AuditStore(options);
    ASSERT_TRUE(audit.ok()) << audit.status();
    {
      const auto store = RocksDbChunkStore::Create(options);
      ASSERT_TRUE(store.ok()) << store.status();
      for (const auto& [number, step] : last_step) Check(**store, number, step, &seen);
      if (round % 3 == 2) {
        ASSERT_TRUE((*store)->Expire(absl::Now(), SIZE_MAX).ok());
        for (const auto& [number, step] : last_step) {
          if (LifetimeScriptOf(number) != LifetimeScript::kExpire) continue;
          EXPECT_FALSE((*store)->GetInfos({TestId(number)})->front().has_value());
        }
      }
    }
    audit = AuditStore(options);
    ASSERT_TRUE(audit.ok()) << audit.status();
  }
  for (const char* step : {"0d", "1d", "2p", "3n", "4r", "5d"}) EXPECT_GT(seen[step], 0) << step;
}

}  // namespace
}  // namespace kvstream

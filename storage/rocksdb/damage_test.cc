// Bytes that change on disk: whose data is lost, who says so, and who goes on.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <map>
#include <random>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "storage/chunk_limits.h"
#include "storage/conformance/test_chunks.h"
#include "storage/id_text.h"
#include "storage/rocksdb/damage_fixture.h"
#include "storage/rocksdb/rocksdb_chunk_store.h"
#include "storage/rocksdb/salvage.h"
#include "storage/rocksdb/store_audit.h"

namespace kvstream {
namespace {

namespace fs = std::filesystem;

TEST_F(DamageTest, ADamagedSegmentIsDataLossAndTheOthersServe) {
  PutAllIntoTables();
  FlipBit(".sst", chunks_[3].segments[1].substr(50000, 100));
  Open();
  const auto damaged = store_->ReadSegment(chunks_[3].id, 1);
  EXPECT_TRUE(absl::IsDataLoss(damaged.status())) << damaged.status();
  EXPECT_TRUE(absl::StrContains(damaged.status().message(), ShortHex(chunks_[3].id)));
  EXPECT_TRUE(absl::StrContains(damaged.status().message(), "ReadSegment"));
  // Again, in case a cache kept it.
  EXPECT_TRUE(absl::IsDataLoss(store_->ReadSegment(chunks_[3].id, 1).status()));
  EXPECT_TRUE(store_->ReadSegment(chunks_[3].id, 0).ok());
  for (size_t i = 0; i < chunks_.size(); ++i) EXPECT_EQ(IsWhole(chunks_[i]), i != 3) << i;
  // The store still takes writes, and can let go of the damaged chunk.
  const TestChunk more = MakeTestChunk(100);
  EXPECT_TRUE(store_->Put(more.id, more.info, more.views()).value_or(false));
  EXPECT_EQ(store_->Delete({chunks_[3].id}).value_or(0), 1);
  EXPECT_TRUE(store_->Put(chunks_[3].id, chunks_[3].info, chunks_[3].views()).value_or(false));
  EXPECT_TRUE(IsWhole(chunks_[3]));
}

TEST_F(DamageTest, ADamagedInfoIsDataLossAndSegmentsServe) {
  PutAllIntoTables();
  FlipBit(".sst", chunks_[3].info.model);
  Open();
  const auto infos = store_->GetInfos({chunks_[3].id});
  EXPECT_TRUE(absl::IsDataLoss(infos.status())) << infos.status();
  EXPECT_TRUE(absl::StrContains(infos.status().message(), ShortHex(chunks_[3].id)));
  const auto prefix = store_->LongestPrefix({chunks_[3].id});
  EXPECT_TRUE(absl::IsDataLoss(prefix.status())) << prefix.status();
  EXPECT_TRUE(absl::IsDataLoss(store_->List(absl::nullopt, 100).status()));
  EXPECT_TRUE(absl::IsDataLoss(store_->Delete({chunks_[3].id}).status()));
  const auto put = store_->Put(chunks_[3].id, chunks_[3].info, chunks_[3].views());
  EXPECT_TRUE(absl::IsDataLoss(put.status())) << put.status();
  const auto segment = store_->ReadSegment(chunks_[3].id, 0);
  ASSERT_TRUE(segment.ok()) << segment.status();
  EXPECT_TRUE(segment->bytes() == chunks_[3].segments[0]);
}

TEST_F(DamageTest, AScrubFindsDamagedSegmentsAndAPutHealsWhatWasDiscarded) {
  PutAllIntoTables();
  FlipBit(".sst", chunks_[3].segments[1].substr(50000, 100));
  Open();
  const auto page = store_->ScrubInfos(absl::nullopt, 100);
  ASSERT_TRUE(page.ok()) << page.status();
  EXPECT_EQ(page->chunks.size(), chunks_.size());
  EXPECT_TRUE(page->damaged.empty());
  EXPECT_FALSE(page->next.has_value());
  for (size_t i = 0; i < chunks_.size(); ++i) {
    for (uint32_t level = 0; level < 2; ++level) {
      const auto segment = store_->ScrubSegment(chunks_[i].id, level);
      const bool damaged = i == 3 && level == 1;
      EXPECT_EQ(absl::IsDataLoss(segment.status()), damaged) << segment.status();
      EXPECT_EQ(segment.ok(), !damaged) << segment.status();
    }
  }
  EXPECT_EQ(store_->Discard({chunks_[3].id, TestId(77)}).value_or(9), 1);
  EXPECT_FALSE(store_->GetInfos({chunks_[3].id})->front().has_value());
  EXPECT_EQ(store_->Stats()->chunks, chunks_.size() - 1);
  EXPECT_EQ(store_->Stats()->payload_bytes, (chunks_.size() - 1) * 150000);
  EXPECT_TRUE(store_->Put(chunks_[3].id, chunks_[3].info, chunks_[3].views()).value_or(false));
  for (const TestChunk& chunk : chunks_) EXPECT_TRUE(IsWhole(chunk));
}

TEST_F(DamageTest, AScrubFindsTheChunksOfADamagedBlockOfInfosAndGoesOnBehindIt) {
  // Several blocks of infos.
  for (uint64_t i = 100; i < 600; ++i) chunks_.push_back(MakeTestChunk(i, 300));
  PutAllIntoTables();
  const TestChunk hit = chunks_[300];
  FlipBit(".sst", hit.info.model);
  Open();
  EXPECT_TRUE(absl::IsDataLoss(store_->List(absl::nullopt, 1000).status()));
  std::set<ChunkId> intact, damaged;
  absl::optional<ChunkId> after;
  do {
    const auto page = store_->ScrubInfos(after, 7);
    ASSERT_TRUE(page.ok()) << page.status();
    for (const auto& [id, info] : page->chunks) EXPECT_TRUE(intact.insert(id).second);
    for (const DamagedInfo& info : page->damaged) {
      EXPECT_TRUE(absl::IsDataLoss(info.why)) << info.why;
      EXPECT_TRUE(damaged.insert(info.id).second);
    }
    after = page->next;
  } while (after.has_value());
  EXPECT_EQ(damaged.count(hit.id), 1);
  EXPECT_LT(damaged.size(), 100);
  EXPECT_EQ(intact.size() + damaged.size(), chunks_.size());

  const std::vector<ChunkId> lost(damaged.begin(), damaged.end());
  EXPECT_EQ(store_->Discard(lost).value_or(0), lost.size());
  EXPECT_EQ(store_->Stats()->chunks, intact.size());
  uint64_t bytes = 0;
  for (const TestChunk& chunk : chunks_) {
    bytes += intact.count(chunk.id) > 0 ? PayloadBytes(chunk.info) : 0;
  }
  EXPECT_EQ(store_->Stats()->payload_bytes, bytes);
  for (const TestChunk& chunk : chunks_) {
    EXPECT_EQ(store_->Put(chunk.id, chunk.info, chunk.views()).value_or(false),
              damaged.count(chunk.id) > 0);
    EXPECT_TRUE(IsWhole(chunk));
  }
}

TEST_F(DamageTest, AScrubOfFilesFindsWhatCachesHide) {
  PutAllIntoTables();
  Open();
  EXPECT_TRUE(IsWhole(chunks_[3]));  // now in the block cache
  const auto before = store_->ScrubFiles("", 1);
  ASSERT_TRUE(before.ok()) << before.status();
  EXPECT_EQ(before->files, 1);
  EXPECT_FALSE(before->next.empty());
  const fs::path damaged = Find(".sst", chunks_[3].segments[1].substr(50000, 100)).first;
  FlipBit(".sst", chunks_[3].segments[1].substr(50000, 100));
  EXPECT_TRUE(IsWhole(chunks_[3]));
  std::string after;
  std::vector<std::string> found;
  do {
    const auto page = store_->ScrubFiles(after, 1);
    ASSERT_TRUE(page.ok()) << page.status();
    for (const auto& file : page->damaged) {
      EXPECT_TRUE(absl::IsDataLoss(file.why)) << file.why;
      found.push_back(file.name);
    }
    after = page->next;
  } while (!after.empty());
  ASSERT_EQ(found.size(), 1);
  EXPECT_EQ("/" + damaged.filename().string(), found[0]);
}

// As far as damage goes that nothing mends while the store is open, and the rest.
TEST_F(DamageTest, ASalvagedStoreHasWhatCanBeReadAndNoDamageAnyMore) {
  options_.write_buffer_bytes = 1 << 20;
  options_.max_log_bytes = 1 << 20;
  for (uint64_t i = 100; i < 600; ++i) chunks_.push_back(MakeTestChunk(i, 300));
  chunks_[7].info.expires = absl::UnixEpoch() + absl::Hours(24 * 365 * 100);
  chunks_[8].info.tenant = "a tenant";
  PutAllIntoTables();
  Open();
  ASSERT_TRUE(store_->PutProfile(TestId(9), "the profile").value_or(false));
  ASSERT_EQ(store_->Pin({chunks_[2].id, chunks_[3].id}, "owner", absl::Now() + absl::Hours(1))
                .value_or(0),
            2);
  ASSERT_EQ(store_->Trim({chunks_[6].id}, 1).value_or(0), 1);
  store_.reset();
  FlipBit(".sst", chunks_[3].segments[1].substr(50000, 100));
  FlipBit(".sst", chunks_[4].segments[0].substr(20000, 100));
  FlipBit(".sst", chunks_[300].info.model);

  RocksDbChunkStoreOptions salvaged = options_;
  salvaged.data_dir = dir_.path() + "_salvaged";
  std::vector<std::string> lines;
  const auto result = SalvageStore(options_.data_dir, salvaged.data_dir,
                                   [&](absl::string_view line) { lines.emplace_back(line); });
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->chunks_cut, 1);
  EXPECT_EQ(result->profiles, 1);
  EXPECT_EQ(result->pins, 2);
  // The infos of one block, and a chunk without its first level.
  EXPECT_GT(result->chunks_lost, 1);
  EXPECT_LT(result->chunks_lost, 100);
  EXPECT_EQ(result->chunks + result->chunks_lost, chunks_.size());
  EXPECT_EQ(lines.size(), result->chunks_lost + result->chunks_cut);

  options_.data_dir = salvaged.data_dir;
  Open();
  EXPECT_EQ(store_->Stats()->chunks, result->chunks);
  EXPECT_EQ(store_->Stats()->payload_bytes, result->payload_bytes);
  EXPECT_EQ(store_->GetTenantUse("a tenant")->chunks, IsWhole(chunks_[8]) ? 1 : 0);
  EXPECT_EQ(store_->GetProfile(TestId(9)).value_or(""), "the profile");
  const auto cut = store_->GetInfos({chunks_[3].id, chunks_[6].id, chunks_[4].id});
  ASSERT_TRUE(cut.ok()) << cut.status();
  for (const size_t i : {0, 1}) {
    ASSERT_TRUE((*cut)[i].has_value());
    EXPECT_EQ((*cut)[i]->segment_bytes.size(), 1);
    EXPECT_EQ((*cut)[i]->levels_lost, 1);
  }
  EXPECT_FALSE((*cut)[2].has_value());
  EXPECT_EQ(store_->PinsOf({chunks_[3].id})->size(), 1);
  size_t whole = 0;
  for (const TestChunk& chunk : chunks_) whole += IsWhole(chunk) ? 1 : 0;
  EXPECT_EQ(whole + 2, result->chunks);
  // A Put brings the rest back, and no compaction stops writes.
  for (const TestChunk& chunk : chunks_) {
    EXPECT_TRUE(store_->Put(chunk.id, chunk.info, chunk.views()).ok());
    EXPECT_TRUE(IsWhole(chunk));
  }
  for (uint64_t i = 1000; i < 1100; ++i) {
    const TestChunk more = MakeTestChunk(i, 200000);
    ASSERT_TRUE(store_->Put(more.id, more.info, more.views()).value_or(false));
  }
  const auto files = store_->ScrubFiles("", uint64_t{1} << 40);
  ASSERT_TRUE(files.ok()) << files.status();
  EXPECT_TRUE(files->damaged.empty());
  store_.reset();
  const auto audit = AuditStore(options_);
  EXPECT_TRUE(audit.ok()) << audit.status();
  fs::remove_all(salvaged.data_dir);
}

TEST_F(DamageTest, ASalvageOverwritesNothingAndLeavesNothingWhenItFails) {
  const auto ignore = [](absl::string_view) {};
  PutAllIntoTables();
  EXPECT_TRUE(absl::IsFailedPrecondition(SalvageStore(dir_.path(), dir_.path(), ignore).status()));
  const std::string target = dir_.path() + "_target";
  EXPECT_TRUE(absl::IsFailedPrecondition(SalvageStore(target, target, ignore).status()));
  fs::remove(Find(".sst", chunks_[3].segments[0].substr(0, 100)).first);
  EXPECT_TRUE(absl::IsDataLoss(SalvageStore(dir_.path(), target, ignore).status()));
  EXPECT_FALSE(fs::exists(target));
  EXPECT_FALSE(fs::exists(target + ".salvaging"));
}

TEST_F(DamageTest, DiscardingAChunkWithoutItsInfoCreditsItsTenantAndForgetsItsParent) {
  for (uint64_t i = 100; i < 600; ++i) {
    chunks_.push_back(MakeTestChunk(i, 300));
    chunks_.back().info.tenant = i % 2 == 0 ? "even" : "odd";
    chunks_.back().info.parent = chunks_[i - 91].id;
  }
  PutAllIntoTables();
  FlipBit(".sst", chunks_[300].info.model);
  Open();
  size_t lost = 0;
  for (const TestChunk& chunk : chunks_) {
    if (store_->GetInfos({chunk.id}).ok()) continue;
    EXPECT_EQ(store_->Discard({chunk.id}).value_or(0), 1);
    if (chunk.info.parent.has_value()) {
      const auto children = store_->Children(*chunk.info.parent, 10);
      ASSERT_TRUE(children.ok()) << children.status();
      EXPECT_EQ(std::count(children->begin(), children->end(), chunk.id), 0);
    }
    ++lost;
  }
  EXPECT_GT(lost, 0);
  std::map<std::string, TenantUse> left;
  for (const TestChunk& chunk : chunks_) {
    if (!store_->GetInfos({chunk.id})->front().has_value()) continue;
    ++left[chunk.info.tenant].chunks;
    left[chunk.info.tenant].payload_bytes += PayloadBytes(chunk.info);
  }
  for (const std::string tenant : {"even", "odd"}) {
    const auto use = store_->GetTenantUse(tenant);
    ASSERT_TRUE(use.ok()) << use.status();
    EXPECT_EQ(use->chunks, left[tenant].chunks);
    EXPECT_EQ(use->payload_bytes, left[tenant].payload_bytes);
  }
}

TEST_F(DamageTest, APinnedChunkIsNotDiscarded) {
  PutAllIntoTables();
  FlipBit(".sst", chunks_[3].segments[1].substr(50000, 100));
  Open();
  ASSERT_EQ(store_->Pin({chunks_[3].id}, "owner", absl::Now() + absl::Hours(1)).value_or(0), 1);
  EXPECT_EQ(store_->Discard({chunks_[3].id}).value_or(9), 0);
  EXPECT_TRUE(store_->GetInfos({chunks_[3].id})->front().has_value());
  ASSERT_EQ(store_->Unpin({chunks_[3].id}, absl::nullopt).value_or(0), 1);
  EXPECT_EQ(store_->Discard({chunks_[3].id}).value_or(9), 1);
}

TEST_F(DamageTest, AMissingTableIsDataLoss) {
  PutAllIntoTables();
  fs::remove(Find(".sst", chunks_[3].segments[0].substr(0, 100)).first);
  const auto opened = RocksDbChunkStore::Create(options_);
  EXPECT_TRUE(absl::IsDataLoss(opened.status())) << opened.status();
}

TEST_F(DamageTest, ATornLogEndLosesOnlyTheUnacknowledgedChunk) {
  PutAll();
  const auto [path, at] = Find(".log", chunks_[9].segments[1].substr(0, 100));
  WriteFile(path, ReadFile(path).substr(0, at + 50000));
  ExpectOnlyWhole(9);
}

TEST_F(DamageTest, AHoleInTheLastRecordIsATornEndToo) {
  PutAll();
  const auto [path, at] = Find(".log", chunks_[9].segments[0].substr(0, 100));
  std::string bytes = ReadFile(path);
  std::fill_n(bytes.begin() + static_cast<std::ptrdiff_t>(at), 4096, '\0');
  WriteFile(path, bytes);
  ExpectOnlyWhole(9);
}

TEST_F(DamageTest, ALogDamagedBeforeItsEndIsNotCutShortInSilence) {
  PutAll();
  FlipBit(".log", chunks_[3].segments[1].substr(50000, 100));
  const auto opened = RocksDbChunkStore::Create(options_);
  EXPECT_TRUE(absl::IsDataLoss(opened.status())) << opened.status();
  EXPECT_TRUE(absl::StrContains(opened.status().message(), ".log"));
  EXPECT_TRUE(absl::StrContains(opened.status().message(), "drop_damaged_log"));
  options_.drop_damaged_log = true;
  ASSERT_NO_FATAL_FAILURE(ExpectOnlyWhole(3));
  // Once is enough.
  options_.drop_damaged_log = false;
  ExpectOnlyWhole(3);
}

// Its log holds records that were not synced, too.
TEST_F(DamageTest, ALogOfABoundedStoreIsNotCutShortInSilenceEither) {
  options_.capacity_bytes = RocksDbChunkStoreOptions::kCapacityBytesMin;
  chunks_.resize(6);
  PutAll();
  FlipBit(".log", chunks_[3].segments[1].substr(50000, 100));
  EXPECT_TRUE(absl::IsDataLoss(RocksDbChunkStore::Create(options_).status()));
}

TEST_F(DamageTest, ZeroedPagesBeforeTheLogsEndAreNotSkippedInSilence) {
  PutAll();
  const auto [path, at] = Find(".log", chunks_[3].segments[0].substr(0, 100));
  std::string bytes = ReadFile(path);
  const size_t page = at / 32768 * 32768;
  std::fill_n(bytes.begin() + static_cast<std::ptrdiff_t>(page), 3 * 32768, '\0');
  WriteFile(path, bytes);
  EXPECT_TRUE(absl::IsDataLoss(RocksDbChunkStore::Create(options_).status()));
}

TEST_F(DamageTest, SmallRecordsBehindTheDamageAreNoticedWithinABlock) {
  ASSERT_NO_FATAL_FAILURE(Open());
  std::vector<TestChunk> small;
  for (uint64_t i = 0; i < 5; ++i) {
    small.push_back(MakeTestChunk(1000 + i, 300));
    ASSERT_TRUE(store_->Put(small[i].id, small[i].info, small[i].views()).value_or(false));
  }
  store_.reset();
  FlipBit(".log", small[2].info.model);
  EXPECT_TRUE(absl::IsDataLoss(RocksDbChunkStore::Create(options_).status()));
  FlipBit(".log", small[1].info.model);
  const auto opened = RocksDbChunkStore::Create(options_);
  EXPECT_TRUE(absl::IsDataLoss(opened.status())) << opened.status();
}

TEST_F(DamageTest, RandomDamageToTheLogIsRefusedOrCostsTheLastChunkOnly) {
  std::mt19937_64 random(TestSeed());
  for (size_t i = 0; i < chunks_.size(); ++i) {
    // From records that share a block to records of several.
    const size_t bytes = i % 2 == 0 ? 200 + 137 * i : 7000 * i;
    chunks_[i].segments = {TestBytes(i, bytes)};
    chunks_[i].info.segment_bytes = {bytes};
  }
  ASSERT_NO_FATAL_FAILURE(PutAll());
  const auto [path, in_last_record] = Find(".log", chunks_[9].info.model);
  // Before this the last record has not begun: keys and headers take less.
  const size_t before_last_record = in_last_record - 200;
  const std::string log = ReadFile(path);
  const fs::path saved = dir_.path() + "_saved";
  fs::copy(dir_.path(), saved);
  int refused = 0;
  for (int trial = 0; trial < 60; ++trial) {
    SCOPED_TRACE(trial);
    fs::remove_all(dir_.path());
    fs::copy(saved, dir_.path());
    std::string bytes = log;
    const size_t at = random() % bytes.size();
    size_t length = std::min<size_t>(bytes.size() - at, 1 + random() % 5000);
    // Damage that takes the beginning of every later record with it looks like a torn end; nothing
    // could tell.
    if (at < before_last_record) length = std::min(length, before_last_record - at);
    switch (random() % 3) {
      case 0:
        bytes[at] ^= static_cast<char>(1 << random() % 8);
        break;
      case 1:
        std::fill_n(bytes.begin() + static_cast<std::ptrdiff_t>(at), length, '\0');
        break;
      default:
        bytes.replace(at, length, TestBytes(random(), length));
    }
    WriteFile(path, bytes);
    auto opened = RocksDbChunkStore::Create(options_);
    if (!opened.ok()) {
      EXPECT_TRUE(absl::IsDataLoss(opened.status())) << opened.status();
      EXPECT_LT(at, in_last_record) << opened.status();
      ++refused;
      continue;
    }
    store_ = *std::move(opened);
    for (size_t i = 0; i + 1 < chunks_.size(); ++i) EXPECT_TRUE(IsWhole(chunks_[i])) << i;
    store_.reset();
    const auto audit = AuditStore(options_);
    EXPECT_TRUE(audit.ok()) << audit.status();
  }
  fs::remove_all(saved);
  EXPECT_GT(refused, 0);
  EXPECT_LT(refused, 60);
}

TEST_F(DamageTest, AStoreWithoutItsManifestIsNotStartedAnew) {
  PutAll();
  for (const auto& entry : fs::directory_iterator(dir_.path())) {
    if (absl::StartsWith(entry.path().filename().string(), "MANIFEST")) fs::remove(entry.path());
  }
  const auto opened = RocksDbChunkStore::Create(options_);
  EXPECT_TRUE(absl::IsDataLoss(opened.status())) << opened.status();
}

}  // namespace
}  // namespace kvstream

#include "storage/tiered/tiered_chunk_store.h"

#include <gtest/gtest.h>
#include <rocksdb/env.h>
#include <xxhash.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "storage/conformance/chunk_store_conformance.h"
#include "storage/conformance/test_chunks.h"
#include "storage/forwarding_chunk_store.h"
#include "storage/memory/memory_chunk_store.h"
#include "storage/rocksdb/fault_file_system.h"
#include "storage/rocksdb/temp_dir.h"
#include "storage/tiered/open_tier.h"

namespace kvstream {
namespace {

// A store far away: one in memory that tells versions and counts what is read of it.
class FarStore final : public VersionedChunkStore {
 public:
  explicit FarStore(ChunkStore* store) : store_(store) {}

  absl::StatusOr<SegmentVersion> Version(const ChunkId& id, uint32_t level) override {
    const auto read = store_->ReadSegment(id, level);
    if (!read.ok()) return read.status();
    SegmentVersion version;
    version.bytes = read->bytes().size();
    version.hash = XXH3_64bits(read->bytes().data(), read->bytes().size());
    version.tokens = 256;
    return version;
  }
  absl::optional<SegmentVersion> TryVersion(const ChunkId& id, uint32_t level) override {
    const auto version = Version(id, level);
    return version.ok() ? absl::make_optional(*version) : absl::nullopt;
  }
  absl::StatusOr<PinnedBytes> ReadSegment(const ChunkId& id, uint32_t level) override {
    ++reads;
    if (before_read) std::exchange(before_read, nullptr)();
    return store_->ReadSegment(id, level);
  }
  absl::StatusOr<bool> Put(const ChunkId& id, const ChunkInfo& info,
                           absl::Span<const absl::string_view> segments) override {
    return store_->Put(id, info, segments);
  }
  absl::StatusOr<std::vector<absl::optional<ChunkInfo>>> GetInfos(
      absl::Span<const ChunkId> ids) override {
    return store_->GetInfos(ids);
  }
  absl::StatusOr<size_t> LongestPrefix(absl::Span<const ChunkId> ids) override {
    return store_->LongestPrefix(ids);
  }
  absl::StatusOr<size_t> Delete(absl::Span<const ChunkId> ids) override {
    return store_->Delete(ids);
  }
  absl::StatusOr<size_t> Trim(absl::Span<const ChunkId> ids, uint32_t keep_levels) override {
    return store_->Trim(ids, keep_levels);
  }
  ChunkHold Hold(absl::Span<const ChunkId> ids) override { return store_->Hold(ids); }
  void Touch(absl::Span<const ChunkId> ids) override { store_->Touch(ids); }
  absl::StatusOr<std::vector<std::pair<ChunkId, ChunkInfo>>> List(
      const absl::optional<ChunkId>& after, size_t limit) override {
    return store_->List(after, limit);
  }
  absl::StatusOr<bool> PutProfile(const StoredProfileId& id, absl::string_view bytes) override {
    return store_->PutProfile(id, bytes);
  }
  absl::StatusOr<std::string> GetProfile(const StoredProfileId& id) override {
    return store_->GetProfile(id);
  }
  absl::StatusOr<std::vector<StoredProfileId>> ListProfiles() override {
    return store_->ListProfiles();
  }
  absl::StatusOr<StoreStats> Stats() override { return store_->Stats(); }
  absl::string_view driver() const override { return "far"; }

  std::atomic<int> reads{0};
  std::function<void()> before_read;  // runs once

 private:
  ChunkStore* const store_;  // survives the daemon in front of it
};

class TieredChunkStoreTest : public testing::Test {
 protected:
  void SetUp() override { Open(); }

  void Open(TieredChunkStoreOptions options = {}) {
    tiered_.reset();
    tier_options_.data_dir = directory_.path();
    tier_options_.capacity_bytes = uint64_t{64} << 20;
    auto tier = OpenTier(tier_options_);
    ASSERT_TRUE(tier.ok()) << tier.status();
    auto far = std::make_unique<FarStore>(pool_.get());
    far_ = far.get();
    auto tiered = TieredChunkStore::Create(std::move(far), *std::move(tier), options);
    ASSERT_TRUE(tiered.ok()) << tiered.status();
    tiered_ = *std::move(tiered);
  }
  void Put(const TestChunk& chunk) {
    ASSERT_TRUE(pool_->Put(chunk.id, chunk.info, chunk.views()).value_or(false));
  }
  void ExpectReads(const TestChunk& chunk) {
    for (uint32_t level = 0; level < chunk.segments.size(); ++level) {
      const auto read = tiered_->ReadSegment(chunk.id, level);
      ASSERT_TRUE(read.ok()) << read.status();
      EXPECT_TRUE(read->bytes() == chunk.segments[level]);
    }
  }

  TempDir directory_;
  TierOptions tier_options_;
  std::unique_ptr<ChunkStore> pool_ = *MemoryChunkStore::Create();
  std::unique_ptr<TieredChunkStore> tiered_;
  FarStore* far_ = nullptr;
};

TEST_F(TieredChunkStoreTest, ReadsTheSecondTimeFromTheTierAlsoAfterARestart) {
  const TestChunk chunk = MakeTestChunk(2, 100000);
  const int levels = static_cast<int>(chunk.segments.size());
  Put(chunk);
  ExpectReads(chunk);
  EXPECT_EQ(far_->reads, levels);
  tiered_->AwaitFills();
  EXPECT_EQ(tiered_->counters().fills, levels);
  ExpectReads(chunk);
  EXPECT_EQ(far_->reads, levels);
  EXPECT_EQ(tiered_->counters().hits, levels);
  Open();
  ExpectReads(chunk);
  EXPECT_EQ(far_->reads, 0);
}

TEST_F(TieredChunkStoreTest, WhatWasReplacedBelowIsNotServed) {
  const TestChunk chunk = MakeTestChunk(2, 100000);
  Put(chunk);
  ExpectReads(chunk);
  tiered_->AwaitFills();
  ASSERT_EQ(pool_->Delete({chunk.id}).value_or(0), 1);  // by another daemon
  EXPECT_TRUE(absl::IsNotFound(tiered_->ReadSegment(chunk.id, 0).status()));
  EXPECT_FALSE(tiered_->TryReadSegment(chunk.id, 0).has_value());
  TestChunk other = chunk;
  for (std::string& segment : other.segments) {
    if (!segment.empty()) segment.back() ^= 1;
  }
  Put(other);
  ExpectReads(other);
  tiered_->AwaitFills();
  ExpectReads(other);
}

TEST_F(TieredChunkStoreTest, WhatIsReplacedDuringTheReadIsNotKeptUnderTheOldName) {
  TestChunk chunk = MakeTestChunk(2);
  chunk.segments = {"first version"};
  chunk.info.segment_bytes = {13};
  TestChunk other = chunk;
  other.segments = {"other version"};
  Put(chunk);
  far_->before_read = [&] {
    ASSERT_EQ(pool_->Delete({chunk.id}).value_or(0), 1);
    Put(other);
  };
  ExpectReads(other);
  tiered_->AwaitFills();
  EXPECT_EQ(tiered_->counters().fills, 0);
  EXPECT_EQ(tiered_->counters().dropped, 1);
  ASSERT_EQ(pool_->Delete({chunk.id}).value_or(0), 1);
  Put(chunk);
  ExpectReads(chunk);
}

TEST_F(TieredChunkStoreTest, ATierThatVanishedOrIsDamagedCostsOnlyTime) {
  const TestChunk chunk = MakeTestChunk(2, 100000);
  Put(chunk);
  ExpectReads(chunk);
  tiered_->AwaitFills();
  tiered_.reset();
  std::filesystem::remove_all(directory_.path() + "/tier");
  Open();
  ExpectReads(chunk);
  EXPECT_EQ(tiered_->counters().misses, chunk.segments.size());
  tiered_->AwaitFills();
  tiered_.reset();
  for (const auto& file : std::filesystem::directory_iterator(directory_.path() + "/tier")) {
    if (file.is_regular_file()) std::ofstream(file.path()) << "damage";
  }
  Open();
  ExpectReads(chunk);
  tiered_->AwaitFills();
  ExpectReads(chunk);
  EXPECT_EQ(tiered_->counters().hits, chunk.segments.size());
}

// A tier of which some segments cannot be read any more.
class DamagedTier final : public ForwardingChunkStore {
 public:
  using ForwardingChunkStore::ForwardingChunkStore;
  absl::StatusOr<PinnedBytes> ReadSegment(const ChunkId& id, uint32_t level) override {
    if (damaged) return absl::DataLossError("a checksum fails");
    return inner().ReadSegment(id, level);
  }
  absl::StatusOr<size_t> Discard(absl::Span<const ChunkId> ids) override {
    damaged = false;
    return inner().Discard(ids);
  }

  std::atomic<bool> damaged{false};
};

TEST_F(TieredChunkStoreTest, WhatIsDamagedInTheTierIsReplaced) {
  TestChunk chunk = MakeTestChunk(2);
  chunk.segments = {"one segment"};
  chunk.info.segment_bytes = {11};
  Put(chunk);
  auto far = std::make_unique<FarStore>(pool_.get());
  auto tier = std::make_unique<DamagedTier>(*MemoryChunkStore::Create());
  far_ = far.get();
  DamagedTier& damaged_tier = *tier;
  tiered_ = *TieredChunkStore::Create(std::move(far), std::move(tier));
  ExpectReads(chunk);
  tiered_->AwaitFills();
  damaged_tier.damaged = true;
  ExpectReads(chunk);
  EXPECT_EQ(far_->reads, 2);
  EXPECT_EQ(tiered_->counters().errors, 1);
  tiered_->AwaitFills();
  EXPECT_EQ(tiered_->counters().fills, 2);
  ExpectReads(chunk);
  EXPECT_EQ(far_->reads, 2);
  EXPECT_EQ(tiered_->counters().hits, 1);
}

struct DiskFault {
  std::string name;
  rocksdb::IOStatus writes;
};

class FailingTierTest : public TieredChunkStoreTest, public testing::WithParamInterface<DiskFault> {
 protected:
  void SetUp() override {
    tier_options_.env = env_.get();
    Open();
  }
  void TearDown() override { tiered_.reset(); }

  const std::shared_ptr<FaultFileSystem> fs_ = std::make_shared<FaultFileSystem>(1);
  const std::unique_ptr<rocksdb::Env> env_ = rocksdb::NewCompositeEnv(fs_);
};

TEST_P(FailingTierTest, CostsOnlyTimeAndComesBack) {
  // More than RocksDB keeps in memory before it writes a table.
  constexpr uint64_t kChunks = 24;
  std::vector<TestChunk> chunks;
  for (uint64_t i = 0; i <= kChunks; ++i) {
    chunks.push_back(MakeTestChunk(i + 1, 800000));
    Put(chunks.back());
  }
  ExpectReads(chunks[0]);
  tiered_->AwaitFills();
  fs_->FailWrites(GetParam().writes);
  for (int round = 0; round < 2; ++round) {
    for (uint64_t i = 0; i < kChunks; ++i) ExpectReads(chunks[i]);
    tiered_->AwaitFills();
  }
  EXPECT_GT(tiered_->counters().dropped, 0);
  // A tier that cannot be opened is the disk's fault, and is there again once the disk is.
  tiered_.reset();
  EXPECT_TRUE(DiskIsAtFault(OpenTier(tier_options_).status())) << OpenTier(tier_options_).status();
  fs_->FailWrites(rocksdb::IOStatus::OK());
  Open();
  ExpectReads(chunks[kChunks]);
  tiered_->AwaitFills();
  ExpectReads(chunks[kChunks]);
  EXPECT_EQ(tiered_->counters().hits, chunks[kChunks].segments.size());
}

INSTANTIATE_TEST_SUITE_P(
    , FailingTierTest,
    testing::Values(DiskFault{"FullDisk", rocksdb::IOStatus::NoSpace("No space left on device")},
                    DiskFault{"WriteError", rocksdb::IOStatus::IOError("Input/output error")},
                    DiskFault{"ReadOnlyDisk", rocksdb::IOStatus::IOError("Read-only file system")}),
    [](const auto& info) { return info.param.name; });

TEST_F(TieredChunkStoreTest, FillsBeyondTheBoundAreNotMade) {
  TieredChunkStoreOptions options;
  options.fill_bytes = 1000;
  Open(options);
  TestChunk chunk = MakeTestChunk(2);
  chunk.segments = {TestBytes(1, 1001)};
  chunk.info.segment_bytes = {1001};
  Put(chunk);
  ExpectReads(chunk);
  ExpectReads(chunk);
  EXPECT_EQ(tiered_->counters().dropped, 2);
  EXPECT_EQ(far_->reads, 2);
}

TEST_F(TieredChunkStoreTest, ManyReadersOfATierThatEvictsGetTheRightBytes) {
  constexpr uint64_t kChunks = 40;
  std::vector<TestChunk> chunks;
  for (uint64_t i = 0; i < kChunks; ++i) {
    chunks.push_back(MakeTestChunk(i, 400000));
    Put(chunks.back());
  }
  std::vector<std::thread> threads;
  for (uint64_t t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (uint64_t i = 0; i < 2 * kChunks; ++i) ExpectReads(chunks[(i * (t + 1)) % kChunks]);
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_GT(tiered_->counters().hits, 0);
}

TEST_F(TieredChunkStoreTest, TierIsOneProcessesOnly) {
  const auto second = OpenTier(tier_options_);
  EXPECT_TRUE(absl::IsFailedPrecondition(second.status())) << second.status();
  EXPECT_FALSE(DiskIsAtFault(second.status()));
}

class TieredTarget final : public ConformanceTarget {
 public:
  absl::StatusOr<std::unique_ptr<ChunkStore>> Open() override {
    TierOptions options;
    options.data_dir = directory_.path();
    options.capacity_bytes = uint64_t{64} << 20;
    auto tier = OpenTier(options);
    if (!tier.ok()) return tier.status();
    auto tiered =
        TieredChunkStore::Create(std::make_unique<FarStore>(pool_.get()), *std::move(tier));
    if (!tiered.ok()) return tiered.status();
    return std::unique_ptr<ChunkStore>(*std::move(tiered));
  }
  bool persistent() const override { return true; }

 private:
  TempDir directory_;
  std::unique_ptr<ChunkStore> pool_ = *MemoryChunkStore::Create();
};

INSTANTIATE_TEST_SUITE_P(Tiered, ChunkStoreConformance,
                         testing::Values(ConformanceParam{
                             "tiered", [] { return std::make_unique<TieredTarget>(); }}),
                         ConformanceParam::Name);

}  // namespace
}  // namespace kvstream

// A damaged block in each of the store's families: it opens, serves everything else, and takes
// writes; what can be made anew is.
#include <gtest/gtest.h>
#include <rocksdb/env.h>
#include <rocksdb/options.h>
#include <rocksdb/sst_file_reader.h>
#include <rocksdb/table_properties.h>

#include <filesystem>
#include <string>
#include <vector>

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "storage/conformance/test_chunks.h"
#include "storage/rocksdb/damage_fixture.h"
#include "storage/rocksdb/fault_file_system.h"
#include "storage/rocksdb/rocksdb_chunk_store.h"
#include "storage/rocksdb/rocksdb_tuning.h"

namespace kvstream {
namespace {

constexpr char kTenant[] = "a tenant";
constexpr char kProfile[] = "what a profile says";
constexpr size_t kMoreBytes = 100000;
constexpr size_t kOfTenant = 5;  // the first ones
constexpr size_t kPinned = 2;

class DamagedFamilyTest : public DamageTest, public testing::WithParamInterface<Family> {
 protected:
  DamagedFamilyTest() {
    options_.write_buffer_bytes = 1 << 20;
    options_.max_log_bytes = 1 << 20;
    for (size_t i = 0; i < chunks_.size(); ++i) {
      if (i < kOfTenant) chunks_[i].info.tenant = kTenant;
      if (i > 0 && i != kOfTenant) chunks_[i].info.parent = chunks_[i - 1].id;
      chunks_[i].info.expires = absl::FromUnixSeconds(4'000'000'000 + static_cast<int64_t>(i));
    }
  }

  // Everything that a store may hold, in tables.
  void Fill() {
    ASSERT_NO_FATAL_FAILURE(PutAll());
    ASSERT_NO_FATAL_FAILURE(Open());
    ASSERT_TRUE(store_->PutProfile(TestId(7), kProfile).value_or(false));
    ASSERT_EQ(store_->Pin({chunks_[2].id, chunks_[3].id}, "owner", absl::Now() + absl::Hours(9))
                  .value_or(0),
              kPinned);
    ASSERT_EQ(store_->DeleteSoon({chunks_[9].id}).value_or(0), 1);
    store_.reset();
    ASSERT_NO_FATAL_FAILURE(Open());  // completes the deletion
    chunks_.pop_back();
    store_.reset();
  }

  // One byte of the first block of each table that the family has. Returns how many it has.
  int Damage(const std::string& family) {
    int damaged = 0;
    for (const auto& entry : std::filesystem::directory_iterator(dir_.path())) {
      if (entry.path().extension() != ".sst") continue;
      {
        rocksdb::SstFileReader reader{rocksdb::Options()};
        if (!reader.Open(entry.path().string()).ok()) continue;
        if (reader.GetTableProperties()->column_family_name != family) continue;
      }
      std::string bytes = ReadFile(entry.path());
      bytes[6] = static_cast<char>(bytes[6] ^ 0x10);
      WriteFile(entry.path(), bytes);
      ++damaged;
    }
    return damaged;
  }

  size_t WholeChunks() {
    size_t whole = 0;
    for (const TestChunk& chunk : chunks_) whole += IsWhole(chunk) ? 1 : 0;
    return whole;
  }

  void ExpectCounts(size_t more) {
    const auto stats = store_->Stats();
    ASSERT_TRUE(stats.ok()) << stats.status();
    EXPECT_EQ(stats->chunks, chunks_.size() + more);
    EXPECT_EQ(stats->payload_bytes, chunks_.size() * 150000 + more * kMoreBytes);
    EXPECT_EQ(stats->writes, WriteState::kTaken);
    const auto use = store_->GetTenantUse(kTenant);
    ASSERT_TRUE(use.ok()) << use.status();
    EXPECT_EQ(use->chunks, kOfTenant);
    EXPECT_EQ(use->payload_bytes, kOfTenant * 150000);
  }
};

TEST_P(DamagedFamilyTest, OpensServesTheRestAndTakesWrites) {
  const Family hit = GetParam();
  ASSERT_NO_FATAL_FAILURE(Fill());
  ASSERT_GT(Damage(TunedFamilies(options_, NewBlockCache(options_))[hit].name), 0);
  size_t more = 0;
  for (int opening = 0; opening < 2; ++opening) {
    SCOPED_TRACE(opening);
    ASSERT_NO_FATAL_FAILURE(Open());
    ASSERT_NO_FATAL_FAILURE(ExpectCounts(more));
    if (hit != kChunks && hit != kSegments) {
      EXPECT_EQ(WholeChunks(), chunks_.size());
    }
    // A block holds one segment.
    if (hit == kSegments) {
      EXPECT_GT(WholeChunks(), 0);
    }
    // Indexes are made anew when the store is opened again.
    const auto of_tenant = store_->ListTenant(kTenant, absl::nullopt, 100);
    const auto children = store_->Children(chunks_[0].id, 1000);
    if (hit != kChunks && (hit != kTenants || opening > 0)) {
      ASSERT_TRUE(of_tenant.ok()) << of_tenant.status();
      EXPECT_EQ(of_tenant->size(), kOfTenant);
    }
    if (hit != kChildren || opening > 0) {
      ASSERT_TRUE(children.ok()) << children.status();
      EXPECT_EQ(children->size(), 1 + more);
    }
    EXPECT_EQ(store_->ListPins(absl::nullopt, 10)->size(), hit == kPins ? 0 : kPinned);
    const auto profiles = store_->ListProfiles();
    ASSERT_TRUE(profiles.ok()) << profiles.status();
    EXPECT_EQ(*profiles, std::vector<StoredProfileId>({TestId(7)}));
    if (hit == kProfiles && opening == 0) {
      EXPECT_TRUE(absl::IsDataLoss(store_->GetProfile(TestId(7)).status()));
      EXPECT_TRUE(store_->PutProfile(TestId(7), kProfile).ok());
    }
    EXPECT_EQ(store_->GetProfile(TestId(7)).value_or(""), kProfile);
    EXPECT_FALSE(store_->PutProfile(TestId(7), kProfile).value_or(true));
    const auto files = store_->ScrubFiles("", uint64_t{1} << 40);
    ASSERT_TRUE(files.ok()) << files.status();
    const bool mended = opening > 0 && (hit == kTenants || hit == kExpiry || hit == kChildren);
    // Tables of segments are mended as it goes, if what is damaged in them is not stored any more.
    if (hit != kSegments) {
      EXPECT_EQ(files->damaged.empty(), mended);
    }
    const auto expired = store_->Expire(absl::Now(), 100);
    EXPECT_TRUE(expired.ok()) << expired.status();
    // Compactions of all families come by.
    for (int i = 0; i < (opening == 0 ? 50 : 5); ++i) {
      TestChunk chunk = MakeTestChunk(1000 * (opening + 1) + i, 0);
      chunk.segments = {TestBytes(i, kMoreBytes)};
      chunk.info.segment_bytes = {kMoreBytes};
      chunk.info.parent = chunks_[0].id;
      chunk.info.expires = absl::FromUnixSeconds(3'000'000'000 + i);
      const auto put = store_->Put(chunk.id, chunk.info, chunk.views());
      ASSERT_TRUE(put.value_or(false)) << put.status();
      ++more;
    }
    ASSERT_NO_FATAL_FAILURE(ExpectCounts(more));
    EXPECT_TRUE(store_->Expire(absl::Now(), 100).ok());
    store_.reset();
  }
  // What is due goes, also behind damage.
  ASSERT_NO_FATAL_FAILURE(Open());
  const auto expired = store_->Expire(absl::FromUnixSeconds(3'500'000'000), 1000);
  EXPECT_EQ(expired.value_or(0), more) << expired.status();
  ASSERT_NO_FATAL_FAILURE(ExpectCounts(0));
}

using RebuildTest = DamagedFamilyTest;

// The families that are made anew are dropped first: a crash at any moment of that must find the
// way on.
TEST_P(RebuildTest, ARebuildThatThePowerCutsIsDoneByTheNextOpening) {
  ASSERT_NO_FATAL_FAILURE(Fill());
  ASSERT_GT(Damage(TunedFamilies(options_, NewBlockCache(options_))[GetParam()].name), 0);
  ASSERT_NO_FATAL_FAILURE(Open());
  // Somebody meets the damage, and the next sweep leaves the note.
  EXPECT_TRUE(store_->Expire(absl::Now(), 100).ok());
  store_->ListTenant(kTenant, absl::nullopt, 100).status().IgnoreError();
  store_->Children(chunks_[0].id, 1000).status().IgnoreError();
  EXPECT_TRUE(store_->Expire(absl::Now(), 100).ok());
  store_.reset();
  const std::string kept = options_.data_dir;
  bool cut = true;
  uint64_t openings = 0;
  for (uint64_t operations = 0; cut; operations += 1 + operations / 8) {
    SCOPED_TRACE(operations);
    const TempDir copy;
    std::filesystem::copy(kept, copy.path(),
                          std::filesystem::copy_options::recursive |
                              std::filesystem::copy_options::overwrite_existing);
    options_.data_dir = copy.path();
    const auto fs = std::make_shared<FaultFileSystem>(operations);
    const std::unique_ptr<rocksdb::Env> env = rocksdb::NewCompositeEnv(fs);
    options_.env = env.get();
    fs->CutPowerAfter(operations);
    {
      const auto opened = RocksDbChunkStore::Create(options_);
      cut = fs->power_is_cut();
      if (!cut) {
        ASSERT_TRUE(opened.ok()) << opened.status();
      }
    }
    fs->Restart(operations % 2 == 0);
    ++openings;
    options_.env = nullptr;
    ASSERT_NO_FATAL_FAILURE(Open());
    ASSERT_NO_FATAL_FAILURE(ExpectCounts(0));
    EXPECT_EQ(WholeChunks(), chunks_.size());
    const auto of_tenant = store_->ListTenant(kTenant, absl::nullopt, 100);
    ASSERT_TRUE(of_tenant.ok()) << of_tenant.status();
    EXPECT_EQ(of_tenant->size(), kOfTenant);
    const auto children = store_->Children(chunks_[0].id, 1000);
    ASSERT_TRUE(children.ok()) << children.status();
    EXPECT_EQ(children->size(), 1);
    const auto expired = store_->Expire(absl::FromUnixSeconds(4'100'000'000), 1000);
    EXPECT_EQ(expired.value_or(0), chunks_.size()) << expired.status();
    store_.reset();
  }
  EXPECT_GT(openings, 10);
  options_.data_dir = kept;
}

INSTANTIATE_TEST_SUITE_P(
    , RebuildTest, testing::Values(kTenants, kExpiry, kChildren), [](const auto& info) {
      return TunedFamilies(RocksDbChunkStoreOptions(), nullptr)[info.param].name;
    });

INSTANTIATE_TEST_SUITE_P(
    , DamagedFamilyTest,
    testing::Values(kChunks, kSegments, kProfiles, kMeta, kTenants, kExpiry, kPins, kDoomed,
                    kChildren),
    [](const auto& info) {
      return TunedFamilies(RocksDbChunkStoreOptions(), nullptr)[info.param].name;
    });

}  // namespace
}  // namespace kvstream

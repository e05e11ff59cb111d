// Two daemons do anything at all to one pool, and uploads die: whether everything there fits
// together afterwards. Its main() is that of rados_chunk_store_test.
#include <random>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_join.h"
#include "storage/chunk_limits.h"
#include "storage/rados/rados_data.h"
#include "storage/rados/rados_index.h"
#include "storage/rados/testing/rados_audit.h"
#include "storage/rados/testing/rados_store_test.h"

namespace kvstream {
namespace {

class RadosOperationsTest : public RadosStoreTest {
 protected:
  static constexpr uint64_t kChunks = 24;

  void SetUp() override {
    RadosStoreTest::SetUp();
    options_.info_max_age = absl::ZeroDuration();
    options_.upload_age = absl::Hours(10);  // not reached while uploads are under way
    for (uint64_t i = 0; i < kChunks; ++i) {
      TestChunk chunk = MakeTestChunk(i);
      // Short contexts of three tenants, one of them nobody.
      chunk.info.parent.reset();
      if (i % 4 > 0) chunk.info.parent = chunks_[i - 1].id;
      chunk.info.first_token = 256 * (i % 4);
      chunk.info.tenant = std::vector<std::string>{"", "a", "ab"}[i / 4 % 3];
      chunk.segments = {TestBytes(3 * i, 500 + i), TestBytes(3 * i + 1, 700),
                        TestBytes(3 * i + 2, 900)};
      chunk.info.segment_bytes = {500 + i, 700, 900};
      chunks_.push_back(std::move(chunk));
    }
    for (uint32_t i = 0; i < options_.shards; ++i) {
      objects_.push_back(rados_format::IndexObject(i));
    }
  }

  // An upload that stops after some of its steps.
  void Die(const TestChunk& chunk, int steps) {
    RadosIndex index(pool_.get(), objects_, 0, options_.clock);
    rados_format::DataRecord record;
    for (uint8_t& byte : record.generation) byte = static_cast<uint8_t>(++deaths_ >> 1);
    record.info = chunk.info;
    record.hashes.assign(3, 0);
    auto seen = index.Look("test", chunk.id, "", chunk.info.tenant);
    ASSERT_TRUE(seen.ok()) << seen.status();
    std::string upload;
    const auto announced = index.Announce("test", chunk.id, record, &*seen, &upload);
    ASSERT_TRUE(announced.ok()) << announced.status();
    if (*announced != RadosAnnounced::kYes || steps == 1) return;
    const RadosDataName name = {chunk.id, record.generation};
    ASSERT_TRUE(
        WriteRadosData(*pool_, "test", name, chunk.views(), index.NameWrite(chunk.id, record))
            .ok());
  }

  // Whatever comes of it is checked by the audit; what may fail says so with these.
  static void ExpectGood(const absl::Status& status) {
    EXPECT_TRUE(status.ok() || absl::IsResourceExhausted(status)) << status;
  }
  void DoAnything(RadosChunkStore& store, std::mt19937_64& random) {
    const TestChunk& chunk = chunks_[random() % kChunks];
    const std::string owner(1, static_cast<char>('x' + random() % 2));
    const absl::Time soon = options_.clock() + absl::Minutes(static_cast<int>(random() % 20));
    switch (random() % 14) {
      case 0:
      case 1:
      case 2:
      case 3: {
        TestChunk given = chunk;
        if (random() % 3 == 0) given.info.expires = soon;
        return ExpectGood(store.Put(given.id, given.info, given.views()).status());
      }
      case 4:
        return ExpectGood(store.Delete({chunk.id, chunks_[random() % kChunks].id}).status());
      case 5:
      case 6:
        return ExpectGood(store.Trim({chunk.id}, 1 + random() % 2).status());
      case 7:
        return ExpectGood(store.Pin({chunk.id}, owner, soon).status());
      case 8:
        return ExpectGood(store.Unpin({chunk.id}, owner).status());
      case 9:
        return ExpectGood(store.Renew({chunk.id}, soon).status());
      case 10:
        return ExpectGood(store.DeleteSoon({chunk.id}).status());
      case 11:
        return ExpectGood(store.Expire(options_.clock(), 10).status());
      case 12:
        Pass(absl::Seconds(static_cast<int>(random() % 300)));
        return ExpectGood(store.CollectGarbage().status());
      default: {
        store.Touch({chunk.id});
        return ExpectGood(store.FlushUsage());
      }
    }
  }
  void ExpectFitsTogether() {
    const std::vector<std::string> wrong = AuditRados(*pool_, options_.shards);
    EXPECT_TRUE(wrong.empty()) << absl::StrJoin(wrong, "\n");
  }

  std::vector<TestChunk> chunks_;
  std::vector<std::string> objects_;
  uint64_t deaths_ = 0;
};

TEST_F(RadosOperationsTest, TheAuditMissesNothing) {
  const auto store = Open();
  TestChunk chunk = chunks_[5];  // has a parent and a tenant
  const absl::Time soon = options_.clock() + absl::Minutes(1);
  chunk.info.expires = soon;
  EXPECT_TRUE(Put(*store, chunk));
  EXPECT_EQ(store->DeleteSoon({chunk.id}).value_or(0), 1);
  EXPECT_EQ(store->Pin({chunk.id}, "job", soon).value_or(0), 1);
  Die(chunks_[6], 1);
  ExpectFitsTogether();
  size_t checked = 0;
  for (const std::string& object : objects_) {
    std::vector<OmapList> lists = {{object, "", "", 100, {}, false}};
    ASSERT_TRUE(pool_->List("test", &lists).ok());
    for (const auto& [key, value] : lists[0].entries) {
      std::vector<OmapWrite> writes(1);
      writes[0].object = object;
      writes[0].remove = {key};
      ASSERT_TRUE(pool_->Write("test", &writes).ok());
      EXPECT_FALSE(AuditRados(*pool_, options_.shards).empty()) << key;
      writes[0].remove.clear();
      writes[0].set = {{key, value}};
      ASSERT_TRUE(pool_->Write("test", &writes).ok());
      ++checked;
    }
  }
  EXPECT_GE(checked, 11) << "c, d, e, g, k, n, o, p, q, r, t";
  ExpectFitsTogether();
  ASSERT_EQ(DataObjects().size(), 1);
  ASSERT_EQ(rados_remove(pool_->io(), DataObjects().begin()->first.c_str()), 0);
  EXPECT_EQ(AuditRados(*pool_, options_.shards).size(), 1);
}

TEST_F(RadosOperationsTest, EverythingFitsTogetherWhateverIsDone) {
  options_.capacity_bytes = uint64_t{64} << 20;  // so that uses are noted
  std::mt19937_64 random(TestSeed());
  {
    const auto a = Open(), b = Open();
    for (int round = 0; round < 10 && !HasFailure(); ++round) {
      SCOPED_TRACE(round);
      if (round == 5) Pass(options_.upload_age);
      for (int i = 0; i < 30; ++i) DoAnything(random() % 2 == 0 ? *a : *b, random);
      Die(chunks_[random() % kChunks], 1 + round % 2);
      ExpectFitsTogether();
    }
    // And at once.
    std::vector<std::thread> threads;
    for (RadosChunkStore* store : {a.get(), b.get(), a.get(), b.get()}) {
      threads.emplace_back([this, store, seed = random()] {
        std::mt19937_64 own(seed);
        for (int i = 0; i < 60; ++i) DoAnything(*store, own);
      });
    }
    for (std::thread& thread : threads) thread.join();
    ExpectFitsTogether();
  }
  // What was promised is done, and nothing is left of what died or is gone.
  const auto last = Open();
  for (int pass = 0; pass < 2; ++pass) {
    Pass(options_.upload_age + absl::Seconds(1));
    ExpectGood(last->CollectGarbage().status());
  }
  ExpectFitsTogether();
  EXPECT_TRUE(Keys(rados_format::kGarbagePrefix).empty());
  EXPECT_TRUE(Keys(rados_format::kDoomPrefix).empty());
  size_t named = 0;
  const auto listed = last->List(absl::nullopt, 1000);
  ASSERT_TRUE(listed.ok()) << listed.status();
  for (const auto& [id, info] : *listed) named += info.parent.has_value() ? 1 : 0;
  EXPECT_EQ(Keys(rados_format::kChildPrefix).size(), named);
  EXPECT_EQ(DataObjects().size(), listed->size());
}

}  // namespace
}  // namespace kvstream

// What tests of stores that share a pool have in common. Only for programs whose main() is
// RunRadosTests.
#ifndef KVSTREAM_STORAGE_RADOS_TESTING_RADOS_STORE_TEST_H_
#define KVSTREAM_STORAGE_RADOS_TESTING_RADOS_STORE_TEST_H_

#include <gtest/gtest.h>

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "storage/conformance/test_chunks.h"
#include "storage/rados/rados_chunk_store.h"
#include "storage/rados/rados_format.h"
#include "storage/rados/rados_pool.h"
#include "storage/rados/testing/ceph_cluster.h"

namespace kvstream {

// Runs all tests with one cluster.
inline CephCluster* rados_test_cluster = nullptr;

class RadosTestEnvironment : public testing::Environment {
 public:
  void SetUp() override {
    auto started = CephCluster::Start();
    ASSERT_TRUE(started.ok()) << started.status();
    cluster_ = *std::move(started);
    rados_test_cluster = cluster_.get();
  }
  void TearDown() override { cluster_.reset(); }

 private:
  std::unique_ptr<CephCluster> cluster_;
};

inline int RunRadosTests(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  testing::AddGlobalTestEnvironment(new RadosTestEnvironment);
  return RUN_ALL_TESTS();
}

// A namespace with a clock that stands still until it is set, and stores that do nothing unasked.
class RadosStoreTest : public testing::Test {
 protected:
  void SetUp() override {
    static int count = 0;
    options_.pool = rados_test_cluster->Options(absl::StrCat("test-", count++));
    options_.shards = 8;
    options_.sweep_interval = absl::InfiniteDuration();
    options_.keeper_interval = absl::InfiniteDuration();
    options_.lease_interval = absl::InfiniteDuration();
    options_.clock = [this] { return absl::FromUnixNanos(nanos_.load()); };
    auto pool = RadosPool::Connect(options_.pool);
    ASSERT_TRUE(pool.ok()) << pool.status();
    pool_ = *std::move(pool);
  }

  std::unique_ptr<RadosChunkStore> Open() {
    auto opened = RadosChunkStore::Create(options_);
    EXPECT_TRUE(opened.ok()) << opened.status();
    return opened.ok() ? *std::move(opened) : nullptr;
  }
  void Pass(absl::Duration time) { nanos_ += absl::ToInt64Nanoseconds(time); }

  static bool Put(ChunkStore& store, const TestChunk& chunk) {
    const auto put = store.Put(chunk.id, chunk.info, chunk.views());
    EXPECT_TRUE(put.ok()) << put.status();
    return put.value_or(false);
  }
  static bool Has(ChunkStore& store, const TestChunk& chunk) { return Levels(store, chunk) > 0; }
  // 0: not stored.
  static size_t Levels(ChunkStore& store, const TestChunk& chunk) {
    const auto infos = store.GetInfos({chunk.id});
    EXPECT_TRUE(infos.ok()) << infos.status();
    return infos.ok() && infos->front().has_value() ? infos->front()->segment_bytes.size() : 0;
  }
  static std::string Read(ChunkStore& store, const ChunkId& id, uint32_t level) {
    const auto read = store.ReadSegment(id, level);
    return read.ok() ? std::string(read->bytes()) : std::string(read.status().ToString());
  }

  // Keys of all index objects that begin with this.
  std::vector<std::string> Keys(const std::string& prefix) {
    std::vector<OmapList> lists;
    for (uint32_t i = 0; i < options_.shards; ++i) {
      lists.push_back({rados_format::IndexObject(i), prefix, prefix, 1000, {}, false});
    }
    EXPECT_TRUE(pool_->List("test", &lists).ok());
    std::vector<std::string> keys;
    for (const OmapList& list : lists) {
      EXPECT_FALSE(list.more);
      for (const auto& [key, value] : list.entries) keys.push_back(key);
    }
    return keys;
  }

  // Objects of the namespace that hold payload, with their sizes.
  std::map<std::string, uint64_t> DataObjects() {
    std::map<std::string, uint64_t> objects;
    rados_list_ctx_t list;
    EXPECT_EQ(rados_nobjects_list_open(pool_->io(), &list), 0);
    const char* name = nullptr;
    while (rados_nobjects_list_next(list, &name, nullptr, nullptr) == 0) {
      uint64_t bytes = 0;
      time_t modified = 0;
      if (!absl::StartsWith(name, "data.")) continue;
      if (rados_stat(pool_->io(), name, &bytes, &modified) == 0) objects[name] = bytes;
    }
    rados_nobjects_list_close(list);
    return objects;
  }

  RadosChunkStoreOptions options_;
  std::unique_ptr<RadosPool> pool_;
  std::atomic<int64_t> nanos_{absl::ToUnixNanos(absl::FromUnixSeconds(1'800'000'000))};
};

}  // namespace kvstream

#endif  // KVSTREAM_STORAGE_RADOS_TESTING_RADOS_STORE_TEST_H_

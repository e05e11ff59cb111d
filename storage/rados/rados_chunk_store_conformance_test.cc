// The suite that every store passes, over a real Ceph. Each test has a namespace of its own.
#include <gtest/gtest.h>

#include <atomic>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "storage/conformance/chunk_store_conformance.h"
#include "storage/rados/rados_chunk_store.h"
#include "storage/rados/testing/ceph_cluster.h"

namespace kvstream {
namespace {

CephCluster* cluster = nullptr;

class Environment : public testing::Environment {
 public:
  void SetUp() override {
    auto started = CephCluster::Start();
    ASSERT_TRUE(started.ok()) << started.status();
    cluster_ = *std::move(started);
    cluster = cluster_.get();
  }
  void TearDown() override { cluster_.reset(); }

 private:
  std::unique_ptr<CephCluster> cluster_;
};

class RadosTarget final : public ConformanceTarget {
 public:
  explicit RadosTarget(absl::Duration info_max_age, uint64_t capacity_bytes = 0) {
    static std::atomic<int> count{0};
    options_.pool = cluster->Options(absl::StrCat("test-", count++));
    options_.shards = 8;
    options_.info_max_age = info_max_age;
    options_.sweep_interval = absl::Milliseconds(100);
    // What nothing names is removed at once: tests whether anything still needs it.
    options_.retire_age = options_.pressed_retire_age = info_max_age;
    options_.lease_interval =
        info_max_age > absl::ZeroDuration() ? absl::Milliseconds(100) : absl::InfiniteDuration();
    options_.capacity_bytes = capacity_bytes;
    options_.keeper_interval = absl::Milliseconds(100);
    options_.usage_interval = absl::Milliseconds(200);
  }

  absl::StatusOr<std::unique_ptr<ChunkStore>> Open() override {
    auto opened = RadosChunkStore::Create(options_);
    if (!opened.ok()) return opened.status();
    return std::unique_ptr<ChunkStore>(*std::move(opened));
  }
  bool persistent() const override { return true; }

 private:
  RadosChunkStoreOptions options_;
};

std::unique_ptr<ConformanceTarget> AskingEachTime() {
  return std::make_unique<RadosTarget>(absl::ZeroDuration());
}
std::unique_ptr<ConformanceTarget> Remembering() {
  return std::make_unique<RadosTarget>(absl::Seconds(5));
}
// Whose keeper is at work, but never has to evict.
std::unique_ptr<ConformanceTarget> Bounded() {
  return std::make_unique<RadosTarget>(absl::ZeroDuration(), uint64_t{1} << 30);
}

INSTANTIATE_TEST_SUITE_P(AskingEachTime, ChunkStoreConformance,
                         testing::Values(ConformanceParam{"rados", AskingEachTime}),
                         ConformanceParam::Name);
INSTANTIATE_TEST_SUITE_P(Remembering, ChunkStoreConformance,
                         testing::Values(ConformanceParam{"rados", Remembering}),
                         ConformanceParam::Name);
INSTANTIATE_TEST_SUITE_P(Bounded, ChunkStoreConformance,
                         testing::Values(ConformanceParam{"rados", Bounded}),
                         ConformanceParam::Name);
INSTANTIATE_TEST_SUITE_P(AskingEachTime, ChunkStoreLifetimes,
                         testing::Values(ConformanceParam{"rados", AskingEachTime}),
                         ConformanceParam::Name);
INSTANTIATE_TEST_SUITE_P(Remembering, ChunkStoreLifetimes,
                         testing::Values(ConformanceParam{"rados", Remembering}),
                         ConformanceParam::Name);

}  // namespace
}  // namespace kvstream

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  testing::AddGlobalTestEnvironment(new kvstream::Environment);
  return RUN_ALL_TESTS();
}

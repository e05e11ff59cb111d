// The conformance suite of stores, over a real server on loopback with a memory and with a RocksDB
// store behind it.
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "server/service/testing/fake_profile.h"
#include "storage/conformance/chunk_store_conformance.h"
#include "storage/memory/memory_chunk_store.h"
#include "storage/rocksdb/rocksdb_chunk_store.h"
#include "storage/rocksdb/temp_dir.h"
#include "tests/loopback/loopback_chunk_store.h"

namespace kvstream {
namespace {

class LoopbackTarget : public ConformanceTarget {
 public:
  absl::StatusOr<std::unique_ptr<ChunkStore>> Open() final {
    absl::StatusOr<std::unique_ptr<ChunkStore>> store = OpenBehind();
    if (!store.ok()) return store;
    return LoopbackChunkStore::Create(*std::move(store), clock_, profiles_);
  }
  bool over_protocol() const final { return true; }
  TestProfile MakeProfile(uint64_t number, size_t bytes) const final {
    TestProfile profile;
    profile.bytes = absl::StrCat(FakeProfileBytes(3, 256), "#", number,
                                 absl::BytesToHexString(TestBytes(number, bytes / 2)));
    profile.id = FakeProfileId(profile.bytes);
    return profile;
  }

 private:
  virtual absl::StatusOr<std::unique_ptr<ChunkStore>> OpenBehind() = 0;

  // So far back that all times of the suite are ahead: a time to live is never negative.
  const absl::Time clock_ = absl::FromUnixSeconds(absl::ToUnixSeconds(absl::Now()) - 2000000);
  const std::shared_ptr<LoopbackProfiles> profiles_ = std::make_shared<LoopbackProfiles>();
};

class MemoryTarget final : public LoopbackTarget {
 public:
  bool persistent() const override { return false; }

 private:
  absl::StatusOr<std::unique_ptr<ChunkStore>> OpenBehind() override {
    return MemoryChunkStore::Create();
  }
};

class RocksDbTarget final : public LoopbackTarget {
 public:
  bool persistent() const override { return true; }

 private:
  absl::StatusOr<std::unique_ptr<ChunkStore>> OpenBehind() override {
    RocksDbChunkStoreOptions options;
    options.data_dir = dir_.path() + "/store";
    options.sync_writes = false;
    options.block_cache_bytes = 16 << 20;
    return RocksDbChunkStore::Create(options);
  }

  TempDir dir_;
};

template <typename Target>
ConformanceParam Param(const std::string& driver) {
  return {driver, [] { return std::make_unique<Target>(); }};
}

INSTANTIATE_TEST_SUITE_P(LoopbackMemory, ChunkStoreConformance,
                         testing::Values(Param<MemoryTarget>("memory")), ConformanceParam::Name);
INSTANTIATE_TEST_SUITE_P(LoopbackMemory, ChunkStoreLifetimes,
                         testing::Values(Param<MemoryTarget>("memory")), ConformanceParam::Name);
INSTANTIATE_TEST_SUITE_P(LoopbackRocksDb, ChunkStoreConformance,
                         testing::Values(Param<RocksDbTarget>("rocksdb")), ConformanceParam::Name);
INSTANTIATE_TEST_SUITE_P(LoopbackRocksDb, ChunkStoreLifetimes,
                         testing::Values(Param<RocksDbTarget>("rocksdb")), ConformanceParam::Name);

}  // namespace
}  // namespace kvstream

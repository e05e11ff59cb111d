#include <gtest/gtest.h>

#include <memory>

#include "storage/conformance/chunk_store_conformance.h"
#include "storage/rocksdb/rocksdb_chunk_store.h"
#include "storage/rocksdb/temp_dir.h"

namespace kvstream {
namespace {

class RocksDbTarget final : public ConformanceTarget {
 public:
  explicit RocksDbTarget(uint64_t capacity_bytes) : capacity_bytes_(capacity_bytes) {}
  absl::StatusOr<std::unique_ptr<ChunkStore>> Open() override {
    RocksDbChunkStoreOptions options;
    options.data_dir = dir_.path();
    // Small, so that tests reach tables and compactions and not only the write buffer.
    options.write_buffer_bytes = 1 << 20;
    options.max_log_bytes = 2 << 20;
    options.block_cache_bytes = 16 << 20;
    options.capacity_bytes = capacity_bytes_;
    if (capacity_bytes_ > 0) options.write_buffer_bytes = options.max_log_bytes = 8 << 20;
    return RocksDbChunkStore::Create(options);
  }
  bool persistent() const override { return true; }

 private:
  const uint64_t capacity_bytes_;
  TempDir dir_;
};

INSTANTIATE_TEST_SUITE_P(RocksDb, ChunkStoreConformance,
                         testing::Values(ConformanceParam{
                             "rocksdb", [] { return std::make_unique<RocksDbTarget>(0); }}),
                         ConformanceParam::Name);
INSTANTIATE_TEST_SUITE_P(RocksDb, ChunkStoreLifetimes,
                         testing::Values(ConformanceParam{
                             "rocksdb", [] { return std::make_unique<RocksDbTarget>(0); }}),
                         ConformanceParam::Name);
// Whose keeper is at work, but never has to evict.
INSTANTIATE_TEST_SUITE_P(BoundedRocksDb, ChunkStoreConformance,
                         testing::Values(ConformanceParam{
                             "rocksdb",
                             [] { return std::make_unique<RocksDbTarget>(uint64_t{4} << 30); }}),
                         ConformanceParam::Name);
INSTANTIATE_TEST_SUITE_P(BoundedRocksDb, ChunkStoreLifetimes,
                         testing::Values(ConformanceParam{
                             "rocksdb",
                             [] { return std::make_unique<RocksDbTarget>(uint64_t{4} << 30); }}),
                         ConformanceParam::Name);

}  // namespace
}  // namespace kvstream

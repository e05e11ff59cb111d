// What the tests of damaged stores share: a store of ten chunks, and bytes that change on its disk.
#ifndef KVSTREAM_STORAGE_ROCKSDB_DAMAGE_FIXTURE_H_
#define KVSTREAM_STORAGE_ROCKSDB_DAMAGE_FIXTURE_H_

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "storage/conformance/test_chunks.h"
#include "storage/rocksdb/rocksdb_chunk_store.h"
#include "storage/rocksdb/store_audit.h"
#include "storage/rocksdb/temp_dir.h"

namespace kvstream {

inline std::string ReadFile(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return std::string(std::istreambuf_iterator<char>(file), {});
}

inline void WriteFile(const std::filesystem::path& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary | std::ios::trunc) << bytes;
}

// False if it has not become true within a time that no machine needs.
inline bool Eventually(const std::function<bool()>& condition) {
  const absl::Time until = absl::Now() + absl::Minutes(2);
  while (!condition()) {
    if (absl::Now() > until) return false;
    absl::SleepFor(absl::Milliseconds(10));
  }
  return true;
}

class DamageTest : public testing::Test {
 protected:
  DamageTest() {
    options_.data_dir = dir_.path();
    for (uint64_t i = 0; i < 10; ++i) {
      TestChunk chunk = MakeTestChunk(i);
      // A few log blocks and a table block each.
      chunk.segments = {TestBytes(2 * i, 50000), TestBytes(2 * i + 1, 100000)};
      chunk.info.segment_bytes = {50000, 100000};
      chunks_.push_back(std::move(chunk));
    }
  }

  void Open() {
    auto opened = RocksDbChunkStore::Create(options_);
    ASSERT_TRUE(opened.ok()) << opened.status();
    store_ = *std::move(opened);
  }

  // Leaves the chunks in the log.
  void PutAll() {
    ASSERT_NO_FATAL_FAILURE(Open());
    for (const TestChunk& chunk : chunks_) {
      ASSERT_TRUE(store_->Put(chunk.id, chunk.info, chunk.views()).value_or(false));
    }
    store_.reset();
  }

  // Leaves them in tables: opening a store moves what its log has there.
  void PutAllIntoTables() {
    ASSERT_NO_FATAL_FAILURE(PutAll());
    ASSERT_NO_FATAL_FAILURE(Open());
    store_.reset();
  }

  // The file with this extension that contains `bytes`, and where.
  std::pair<std::filesystem::path, size_t> Find(const std::string& extension,
                                                const std::string& bytes) {
    for (const auto& entry : std::filesystem::directory_iterator(dir_.path())) {
      if (entry.path().extension() != extension) continue;
      const size_t at = ReadFile(entry.path()).find(bytes);
      if (at != std::string::npos) return {entry.path(), at};
    }
    ADD_FAILURE() << "no " << extension << " file has these bytes";
    return {};
  }

  void FlipBit(const std::string& extension, const std::string& where) {
    const auto [path, at] = Find(extension, where);
    std::string bytes = ReadFile(path);
    ASSERT_LT(at, bytes.size());
    bytes[at + where.size() / 2] ^= 0x10;
    WriteFile(path, bytes);
  }

  bool IsWhole(const TestChunk& chunk) {
    const auto infos = store_->GetInfos({chunk.id});
    if (!infos.ok() || !infos->front() || !SameInfo(*infos->front(), chunk.info)) return false;
    for (uint32_t level = 0; level < chunk.segments.size(); ++level) {
      const auto segment = store_->ReadSegment(chunk.id, level);
      if (!segment.ok() || segment->bytes() != chunk.segments[level]) return false;
    }
    return true;
  }

  void ExpectOnlyWhole(size_t first_chunks) {
    ASSERT_NO_FATAL_FAILURE(Open());
    for (size_t i = 0; i < chunks_.size(); ++i) {
      EXPECT_EQ(IsWhole(chunks_[i]), i < first_chunks) << i;
    }
    store_.reset();
    const auto audit = AuditStore(options_);
    ASSERT_TRUE(audit.ok()) << audit.status();
    EXPECT_EQ(audit->size(), first_chunks);
  }

  TempDir dir_;
  RocksDbChunkStoreOptions options_;
  std::vector<TestChunk> chunks_;
  std::unique_ptr<ChunkStore> store_;
};

}  // namespace kvstream

#endif  // KVSTREAM_STORAGE_ROCKSDB_DAMAGE_FIXTURE_H_

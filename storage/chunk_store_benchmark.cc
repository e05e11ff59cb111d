// Put and ReadSegment of both drivers. Each chunk has one segment of the given size.
//
//   bazel run -c opt //storage:chunk_store_benchmark
//
// RocksDB's data lies in $TMPDIR or /tmp. `cached` reads fit the block cache; the others come from
// the page cache, since a benchmark cannot empty that without being root.
#include <benchmark/benchmark.h>

#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <string>
#include <system_error>
#include <utility>

#include "absl/status/statusor.h"
#include "storage/chunk_store.h"
#include "storage/conformance/test_chunks.h"
#include "storage/memory/memory_chunk_store.h"
#include "storage/rocksdb/rocksdb_chunk_store.h"

namespace kvstream {
namespace {

constexpr uint64_t kReadBytes = uint64_t{128} << 20;  // what the read benchmarks spread over
constexpr uint64_t kPutBytes = uint64_t{512} << 20;   // what the put benchmarks stop at

// The unsynced ones are for filling a store quickly, too: reads are the same.
enum class Driver { kMemory, kRocksDb, kRocksDbUnsynced, kRocksDbUnsyncedSmallCache };

// A store of its own directory, if it has one.
class Store {
 public:
  explicit Store(Driver driver) : driver_(driver) {
    if (driver_ != Driver::kMemory) {
      const char* base = std::getenv("TMPDIR");
      dir_ = std::string(base != nullptr ? base : "/tmp") + "/kvstream_benchmark_XXXXXX";
      if (mkdtemp(dir_.data()) == nullptr) std::abort();
    }
    Open();
  }
  ~Store() {
    store_.reset();
    std::error_code ignored;
    if (!dir_.empty()) std::filesystem::remove_all(dir_, ignored);
  }

  ChunkStore* get() { return store_.get(); }
  // So that reads come from tables.
  void Reopen() {
    if (driver_ == Driver::kMemory) return;
    store_.reset();
    Open();
  }

 private:
  void Open() {
    absl::StatusOr<std::unique_ptr<ChunkStore>> opened;
    if (driver_ == Driver::kMemory) {
      opened = MemoryChunkStore::Create({});
    } else {
      RocksDbChunkStoreOptions options;
      options.data_dir = dir_;
      options.sync_writes = driver_ == Driver::kRocksDb;
      if (driver_ == Driver::kRocksDbUnsyncedSmallCache) options.block_cache_bytes = 16 << 20;
      opened = RocksDbChunkStore::Create(options);
    }
    if (!opened.ok()) std::abort();
    store_ = *std::move(opened);
  }

  const Driver driver_;
  std::string dir_;
  std::unique_ptr<ChunkStore> store_;
};

TestChunk ChunkOf(size_t bytes) {
  TestChunk chunk = MakeTestChunk(1);
  chunk.segments = {TestBytes(1, bytes)};
  chunk.info.segment_bytes = {bytes};
  return chunk;
}

void BM_Put(benchmark::State& state, Driver driver) {
  const size_t bytes = state.range(0);
  const TestChunk chunk = ChunkOf(bytes);
  const auto views = chunk.views();
  Store store(driver);
  uint64_t number = 0;
  for (auto _ : state) {
    const auto put = store.get()->Put(TestId(number++), chunk.info, views);
    if (!put.ok()) {
      state.SkipWithError(std::string(put.status().message()).c_str());
      break;
    }
  }
  state.SetBytesProcessed(static_cast<int64_t>(state.iterations() * bytes));
}

void BM_ReadSegment(benchmark::State& state, Driver driver) {
  const size_t bytes = state.range(0);
  const uint64_t chunks = kReadBytes / bytes;
  const TestChunk chunk = ChunkOf(bytes);
  Store store(driver);
  for (uint64_t i = 0; i < chunks; ++i) {
    if (!store.get()->Put(TestId(i), chunk.info, chunk.views()).ok()) std::abort();
  }
  store.Reopen();
  const auto read = [&](uint64_t number) {
    const auto pin = store.get()->ReadSegment(TestId(number), 0);
    if (!pin.ok()) std::abort();
    // Touches every cache line, as a socket would.
    uint64_t sum = 0;
    for (size_t i = 0; i < bytes; i += 64) sum += static_cast<uint8_t>(pin->bytes()[i]);
    benchmark::DoNotOptimize(sum);
  };
  for (uint64_t i = 0; i < chunks; ++i) read(i);  // warms the caches
  uint64_t number = 0;
  for (auto _ : state) read(number++ * 7919 % chunks);
  state.SetBytesProcessed(static_cast<int64_t>(state.iterations() * bytes));
}

void Puts(benchmark::internal::Benchmark* benchmark) {
  for (int64_t bytes = 16 << 10; bytes <= 4 << 20; bytes *= 4) benchmark->Arg(bytes);
  // As many of the largest as fit kPutBytes.
  benchmark->UseRealTime()->Unit(benchmark::kMicrosecond)->Iterations(kPutBytes >> 22);
}

void Reads(benchmark::internal::Benchmark* benchmark) {
  for (int64_t bytes = 16 << 10; bytes <= 4 << 20; bytes *= 4) benchmark->Arg(bytes);
  benchmark->UseRealTime()->Unit(benchmark::kMicrosecond);
}

BENCHMARK_CAPTURE(BM_Put, memory, Driver::kMemory)->Apply(Puts);
BENCHMARK_CAPTURE(BM_Put, rocksdb, Driver::kRocksDb)->Apply(Puts);
BENCHMARK_CAPTURE(BM_Put, rocksdb_unsynced, Driver::kRocksDbUnsynced)->Apply(Puts);
BENCHMARK_CAPTURE(BM_ReadSegment, memory, Driver::kMemory)->Apply(Reads);
BENCHMARK_CAPTURE(BM_ReadSegment, rocksdb_cached, Driver::kRocksDbUnsynced)->Apply(Reads);
BENCHMARK_CAPTURE(BM_ReadSegment, rocksdb_uncached, Driver::kRocksDbUnsyncedSmallCache)
    ->Apply(Reads);

}  // namespace
}  // namespace kvstream

BENCHMARK_MAIN();

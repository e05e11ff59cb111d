// What eviction costs those who read and write meanwhile: capacity_benchmark [CAPACITY_MIB
// [SECONDS]]. Readers read the chunks of contexts in use, a writer stores new ones as fast as it
// can: into a store with room, then into one that has to evict for each. Prints their times and
// what it cost. Prints, but does not judge: machines differ.
#include <sys/resource.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "storage/chunk_limits.h"
#include "storage/conformance/test_chunks.h"
#include "storage/rocksdb/rocksdb_chunk_store.h"
#include "storage/rocksdb/temp_dir.h"

namespace kvstream {
namespace {

constexpr uint64_t kChunksOfContext = 32;
constexpr uint64_t kContextsInUse = 4;
constexpr absl::Duration kBetweenReads = absl::Milliseconds(2);

double CpuSeconds() {
  rusage usage = {};
  getrusage(RUSAGE_SELF, &usage);
  const auto seconds = [](const timeval& time) { return time.tv_sec + time.tv_usec * 1e-6; };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

// 256 tokens in four levels of 64, 96, 128 and 160 KiB.
TestChunk MakeChunk(uint64_t context, uint64_t index, const std::string& noise) {
  TestChunk chunk;
  const uint64_t number = (context << 20) + index;
  chunk.id = TestId(number);
  if (index > 0) chunk.info.parent = TestId(number - 1);
  chunk.info.tokens = 256;
  chunk.info.first_token = 256 * index;
  chunk.info.created = absl::Now();
  for (uint64_t level = 0; level < 4; ++level) {
    const size_t bytes = (64 + 32 * level) << 10;
    chunk.segments.push_back(noise.substr((number * 4099 + level * 7) % 65536, bytes));
    chunk.info.segment_bytes.push_back(bytes);
  }
  return chunk;
}

struct Times {
  std::vector<double> ms;

  std::string Text() {
    if (ms.empty()) return "none";
    std::sort(ms.begin(), ms.end());
    const auto at = [this](double part) {
      return ms[std::min(ms.size() - 1, static_cast<size_t>(part * ms.size()))];
    };
    char text[160];
    std::snprintf(text, sizeof(text), "p50 %.3f  p99 %.3f  p99.9 %.3f  max %.3f ms (%zu)", at(0.5),
                  at(0.99), at(0.999), ms.back(), ms.size());
    return text;
  }
};

// One phase: a writer, and a reader that holds, looks up, touches and reads one chunk every 2 ms.
bool Phase(const char* name, ChunkStore* store, absl::Duration duration, uint64_t bytes_max,
           std::atomic<uint64_t>* next_context, const std::string& noise) {
  std::atomic<bool> stop{false};
  Times lookups, reads;
  std::thread reader([&] {
    uint64_t turn = 0;
    while (!stop) {
      absl::SleepFor(kBetweenReads);
      ++turn;
      const uint64_t context = turn % kContextsInUse;
      std::vector<ChunkId> chain;
      for (uint64_t i = 0; i < kChunksOfContext; ++i) chain.push_back(TestId((context << 20) + i));
      const absl::Time begin = absl::Now();
      const ChunkHold hold = store->Hold(chain);
      const auto infos = store->GetInfos(chain);
      store->Touch(chain);
      const absl::Time middle = absl::Now();
      lookups.ms.push_back(absl::ToDoubleMilliseconds(middle - begin));
      const ChunkId& id = chain[turn % kChunksOfContext];
      const auto segment = store->ReadSegment(id, 0);
      reads.ms.push_back(absl::ToDoubleMilliseconds(absl::Now() - middle));
      if (!infos.ok() || (!segment.ok() && *next_context > kContextsInUse + 1)) {
        std::fprintf(stderr, "a context in use cannot be read: %s\n",
                     segment.status().ToString().c_str());
        stop = true;
      }
    }
  });
  Times puts;
  uint64_t bytes = 0;
  const double cpu = CpuSeconds();
  const absl::Time begin = absl::Now();
  bool ok = true;
  while (ok && absl::Now() - begin < duration && bytes < bytes_max) {
    const uint64_t context = (*next_context)++;
    for (uint64_t i = 0; ok && i < kChunksOfContext; ++i) {
      const TestChunk chunk = MakeChunk(context, i, noise);
      const absl::Time put_begin = absl::Now();
      const auto put = store->Put(chunk.id, chunk.info, chunk.views());
      puts.ms.push_back(absl::ToDoubleMilliseconds(absl::Now() - put_begin));
      if (!put.ok()) std::fprintf(stderr, "%s\n", put.status().ToString().c_str());
      ok = put.ok();
      bytes += PayloadBytes(chunk.info);
    }
  }
  const double seconds = absl::ToDoubleSeconds(absl::Now() - begin);
  stop = true;
  reader.join();
  const auto stats = store->Stats();
  std::printf(
      "%s: %.0f MB put at %.1f MB/s, %.1f CPU-s/GB; payload %.0f MB, disk %.0f of %.0f MB\n", name,
      bytes / 1e6, bytes / 1e6 / seconds, (CpuSeconds() - cpu) / (bytes / 1e9),
      stats.ok() ? stats->payload_bytes / 1e6 : 0, stats.ok() ? stats->disk_bytes / 1e6 : 0,
      stats.ok() ? stats->capacity_bytes / 1e6 : 0);
  std::printf("  hold + infos of 32 chunks  %s\n", lookups.Text().c_str());
  std::printf("  read of 64 KiB             %s\n", reads.Text().c_str());
  std::printf("  put of 448 KiB             %s\n", puts.Text().c_str());
  if (stats.ok() && stats->evicted_segments > 0) {
    std::printf("  evicted %llu segments, %.0f MB, %llu chunks whole\n",
                static_cast<unsigned long long>(stats->evicted_segments),
                stats->evicted_bytes / 1e6, static_cast<unsigned long long>(stats->evicted_chunks));
  }
  std::fflush(stdout);
  return ok;
}

int Main(int argc, char** argv) {
  uint64_t capacity_mib = 1024;
  uint64_t seconds = 30;
  if ((argc > 1 && !absl::SimpleAtoi(argv[1], &capacity_mib)) ||
      (argc > 2 && !absl::SimpleAtoi(argv[2], &seconds))) {
    std::fprintf(stderr, "usage: capacity_benchmark [CAPACITY_MIB [SECONDS]]\n");
    return 2;
  }
  const std::string noise = TestBytes(1, 1 << 20);
  TempDir dir;
  RocksDbChunkStoreOptions options;
  options.data_dir = dir.path();
  options.capacity_bytes = capacity_mib << 20;
  options.block_cache_bytes = uint64_t{256} << 20;
  options.room_timeout = absl::Minutes(1);
  const auto store = RocksDbChunkStore::Create(options);
  if (!store.ok()) {
    std::fprintf(stderr, "%s\n", store.status().ToString().c_str());
    return 1;
  }
  std::atomic<uint64_t> next_context{0};
  if (!Phase("filling", store->get(), absl::Hours(1), options.capacity_bytes / 2, &next_context,
             noise)) {
    return 1;
  }
  if (!Phase("turning over", store->get(), absl::Hours(1), options.capacity_bytes / 2,
             &next_context, noise)) {
    return 1;
  }
  const bool ok =
      Phase("evicting", store->get(), absl::Seconds(seconds), UINT64_MAX, &next_context, noise);
  std::printf("most bytes of the directory ever: %.0f MB\n",
              static_cast<const RocksDbChunkStore*>(store->get())->peak_disk_bytes() / 1e6);
  return ok ? 0 : 1;
}

}  // namespace
}  // namespace kvstream

int main(int argc, char** argv) { return kvstream::Main(argc, argv); }

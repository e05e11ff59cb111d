// What it takes to find the infos of a long context in a cache that is far larger than the
// processor's.
//
//   bazel run -c opt //storage/rocksdb:info_cache_benchmark -- [records]
//
// CPU time of the thread, which a busy machine stretches less than the time.
#include <time.h>

#include <algorithm>
#include <cinttypes>
#include <cstdio>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/types/span.h"
#include "storage/rocksdb/info_cache.h"

namespace kvstream {
namespace {

constexpr uint64_t kRecordsDefault = 2000000;
constexpr uint64_t kBytesPerRecord = 280;  // of the cache: nearly all find room
constexpr size_t kRecordBytes = 115;       // one level, a parent, a short model name
constexpr size_t kContextChunks = 512;     // 128K tokens in chunks of 256
constexpr size_t kBatch = 128;             // as Lookup asks
constexpr int kLookups = 3000;

double CpuMicroseconds() {
  timespec now = {};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return 1e6 * static_cast<double>(now.tv_sec) + 1e-3 * static_cast<double>(now.tv_nsec);
}

// Looks like a hash; much cheaper than one.
ChunkId IdOf(uint64_t n) {
  ChunkId id = {};
  for (size_t at = 0; at < id.size(); at += sizeof(n)) {
    n = (n + 1) * 0x9e3779b97f4a7c15;
    n ^= n >> 31;
    std::memcpy(id.data() + at, &n, sizeof(n));
  }
  return id;
}

int Run(uint64_t records) {
  InfoCache cache(records * kBytesPerRecord);
  const std::string record(kRecordBytes, 'r');
  for (uint64_t n = 0; n < records; ++n) cache.Insert(IdOf(n), record, 0);
  std::mt19937_64 random(1);
  std::vector<double> us;
  size_t found = 0;
  uint64_t sum = 0;  // of a byte of each line, so that records are read as a decoder reads them
  for (int lookup = 0; lookup < kLookups; ++lookup) {
    std::vector<ChunkId> ids(kContextChunks);
    for (ChunkId& id : ids) id = IdOf(random() % records);
    const double before = CpuMicroseconds();
    for (size_t begin = 0; begin < ids.size(); begin += kBatch) {
      cache.Get(
          absl::MakeConstSpan(ids).subspan(begin, kBatch),
          [&](size_t, absl::string_view bytes) {
            ++found;
            for (size_t at = 0; at < bytes.size(); at += 64) sum += static_cast<uint8_t>(bytes[at]);
          },
          [](size_t, uint64_t) {});
    }
    us.push_back(CpuMicroseconds() - before);
  }
  std::sort(us.begin(), us.end());
  std::printf("%" PRIu64 " records, %" PRIu64
              " MiB; CPU us for %zu ids: p50 %.0f  p90 %.0f  p99 "
              "%.0f; found %.1f %% (%" PRIu64 ")\n",
              records, cache.bytes() >> 20, kContextChunks, us[us.size() / 2],
              us[us.size() * 9 / 10], us[us.size() * 99 / 100],
              100.0 * static_cast<double>(found) / (kLookups * double{kContextChunks}), sum);
  return 0;
}

}  // namespace
}  // namespace kvstream

int main(int argc, char** argv) {
  uint64_t records = kvstream::kRecordsDefault;
  if (argc > 1 && (!absl::SimpleAtoi(argv[1], &records) || records == 0)) {
    std::fprintf(stderr, "usage: info_cache_benchmark [records]\n");
    return 2;
  }
  return kvstream::Run(records);
}

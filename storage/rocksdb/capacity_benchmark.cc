// What a store's work in the background costs requests: capacity_benchmark [CAPACITY_MIB [SECONDS
// [ROUNDS [PERCENT]]]].
//
// First a store with a capacity is filled, turned over and written to as fast as it takes Puts
// while each has to evict. Then, round by round, Puts come at PERCENT of that rate, whatever
// becomes of those before: to a store that has nothing to do in the background (`quiet`: its write
// buffer holds all that comes), and to the full one (`evicting`: it evicts, flushes and compacts).
// A Put's time counts from when it was due, so waiting behind a slow one counts. Beside both a
// thread appends as many bytes as a Put has to a file of its own and syncs it: what the disk alone
// takes then. Prints, but does not judge: machines differ.
#include <fcntl.h>
#include <rocksdb/perf_context.h>
#include <rocksdb/perf_level.h>
#include <sys/resource.h>
#include <unistd.h>

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
constexpr size_t kPutBytes = 448 << 10;
constexpr absl::Duration kBetweenReads = absl::Milliseconds(2);
constexpr absl::Duration kBetweenProbes = absl::Milliseconds(100);
// Of an open-loop phase. Enough that a slow Put does not hold up the next ones by itself.
constexpr int kWriters = 4;

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

  void Add(const Times& other) { ms.insert(ms.end(), other.ms.begin(), other.ms.end()); }
  std::string Text() {
    if (ms.empty()) return "none";
    std::sort(ms.begin(), ms.end());
    const auto at = [this](double part) {
      return ms[std::min(ms.size() - 1, static_cast<size_t>(part * ms.size()))];
    };
    char text[160];
    std::snprintf(text, sizeof(text), "p50 %.3f  p90 %.3f  p99 %.3f  p99.9 %.3f  max %.3f ms (%zu)",
                  at(0.5), at(0.9), at(0.99), at(0.999), ms.back(), ms.size());
    return text;
  }
};

// Where the slow Puts spent their time, as RocksDB sees it.
struct PutParts {
  double ms = 0;
  double log_ms = 0;     // writing and syncing the log
  double buffer_ms = 0;  // copying into the write buffer
  double delay_ms = 0;   // write stalls
  double switch_ms = 0;  // new logs and buffers, scheduling flushes
  double behind_ms = 0;  // waiting for the writer whose group it joined, or that is before it
};

struct Result {
  Times lookups, reads, puts, probes;
  std::vector<PutParts> parts;
  uint64_t put_bytes = 0;
  double seconds = 0;
  double cpu_seconds = 0;
  uint64_t waits = 0;  // of Puts for room
  double wait_ms = 0;
  bool ok = true;

  void Add(const Result& other) {
    lookups.Add(other.lookups);
    reads.Add(other.reads);
    puts.Add(other.puts);
    probes.Add(other.probes);
    parts.insert(parts.end(), other.parts.begin(), other.parts.end());
    put_bytes += other.put_bytes;
    seconds += other.seconds;
    cpu_seconds += other.cpu_seconds;
    waits += other.waits;
    wait_ms += other.wait_ms;
    ok = ok && other.ok;
  }

  void Print(const std::string& name) {
    std::printf("%s: %.0f MB put at %.1f MB/s, %.1f CPU-s/GB\n", name.c_str(), put_bytes / 1e6,
                put_bytes / 1e6 / seconds, cpu_seconds / (put_bytes / 1e9));
    std::printf("  hold + infos of 32 chunks  %s\n", lookups.Text().c_str());
    std::printf("  read of 64 KiB             %s\n", reads.Text().c_str());
    std::printf("  put of 448 KiB             %s\n", puts.Text().c_str());
    std::printf("  disk: 448 KiB and a sync   %s\n", probes.Text().c_str());
    std::sort(parts.begin(), parts.end(),
              [](const PutParts& a, const PutParts& b) { return a.ms > b.ms; });
    parts.resize((parts.size() + 49) / 50);
    PutParts sum;
    for (const PutParts& part : parts) {
      sum.ms += part.ms;
      sum.log_ms += part.log_ms;
      sum.buffer_ms += part.buffer_ms;
      sum.delay_ms += part.delay_ms;
      sum.switch_ms += part.switch_ms;
      sum.behind_ms += part.behind_ms;
    }
    const double n = std::max<double>(1, static_cast<double>(parts.size()));
    std::printf(
        "  the slowest 2 %% of the puts, once begun: %.1f ms; log %.1f, buffer %.1f, stalls %.1f, "
        "new logs and buffers %.1f, behind others %.1f\n",
        sum.ms / n, sum.log_ms / n, sum.buffer_ms / n, sum.delay_ms / n, sum.switch_ms / n,
        sum.behind_ms / n);
    std::printf("  puts that waited for room    %llu, %.0f ms together\n",
                static_cast<unsigned long long>(waits), wait_ms);
    std::fflush(stdout);
  }
};

Result Failed() {
  Result result;
  result.ok = false;
  return result;
}

// Holds, looks up, touches and reads one chunk of a context in use every 2 ms.
void ReadOn(ChunkStore* store, const std::atomic<bool>* stop, Result* result) {
  for (uint64_t turn = 1; !*stop; ++turn) {
    absl::SleepFor(kBetweenReads);
    const uint64_t context = turn % kContextsInUse;
    std::vector<ChunkId> chain;
    for (uint64_t i = 0; i < kChunksOfContext; ++i) chain.push_back(TestId((context << 20) + i));
    const absl::Time begin = absl::Now();
    const ChunkHold hold = store->Hold(chain);
    const auto infos = store->GetInfos(chain);
    store->Touch(chain);
    const absl::Time middle = absl::Now();
    result->lookups.ms.push_back(absl::ToDoubleMilliseconds(middle - begin));
    const auto segment = store->ReadSegment(chain[turn % kChunksOfContext], 0);
    result->reads.ms.push_back(absl::ToDoubleMilliseconds(absl::Now() - middle));
    if (!infos.ok() || !segment.ok()) {
      std::fprintf(stderr, "a context in use cannot be read: %s\n",
                   segment.status().ToString().c_str());
      result->ok = false;
      return;
    }
  }
}

void ProbeDisk(const std::string& path, const std::string& noise, const std::atomic<bool>* stop,
               Result* result) {
  const int file = open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
  while (!*stop && file >= 0) {
    absl::SleepFor(kBetweenProbes);
    const absl::Time begin = absl::Now();
    if (write(file, noise.data(), kPutBytes) < 0 || fdatasync(file) != 0) result->ok = false;
    result->probes.ms.push_back(absl::ToDoubleMilliseconds(absl::Now() - begin));
  }
  if (file >= 0) close(file);
  unlink(path.c_str());
}

// The time counts from `due`.
void PutOne(ChunkStore* store, const TestChunk& chunk, absl::Time due, Result* result) {
  rocksdb::PerfContext* perf = rocksdb::get_perf_context();
  perf->Reset();
  const absl::Time begin = absl::Now();
  const auto put = store->Put(chunk.id, chunk.info, chunk.views());
  const absl::Time end = absl::Now();
  if (!put.ok()) std::fprintf(stderr, "%s\n", put.status().ToString().c_str());
  result->ok = result->ok && put.ok();
  result->puts.ms.push_back(absl::ToDoubleMilliseconds(end - due));
  result->parts.push_back({absl::ToDoubleMilliseconds(end - begin), perf->write_wal_time / 1e6,
                           perf->write_memtable_time / 1e6, perf->write_delay_time / 1e6,
                           perf->write_scheduling_flushes_compactions_time / 1e6,
                           perf->write_thread_wait_nanos / 1e6});
  result->put_bytes += PayloadBytes(chunk.info);
}

// Of a phase: until when, or how much.
struct Limits {
  absl::Duration time = absl::Hours(1);
  uint64_t bytes = UINT64_MAX;
  double puts_per_second = 0;  // 0: by one thread, as fast as they are taken
};

Result Phase(ChunkStore* store, const Limits& limits, const std::string& probe,
             std::atomic<uint64_t>* next_context, const std::string& noise) {
  // The contexts that are read.
  for (; *next_context < kContextsInUse; ++*next_context) {
    for (uint64_t i = 0; i < kChunksOfContext; ++i) {
      const TestChunk chunk = MakeChunk(*next_context, i, noise);
      if (!store->Put(chunk.id, chunk.info, chunk.views()).ok()) return Failed();
    }
  }
  std::atomic<bool> stop{false};
  Result read, probed;
  std::thread reader([&] { ReadOn(store, &stop, &read); });
  std::thread prober([&] { ProbeDisk(probe, noise, &stop, &probed); });
  std::atomic<uint64_t> turns{0};
  const uint64_t first_context = *next_context;
  const auto waits_before = static_cast<const RocksDbChunkStore*>(store)->room_waits();
  const double cpu = CpuSeconds();
  const absl::Time begin = absl::Now();
  const auto write = [&](Result* written) {
    rocksdb::SetPerfLevel(rocksdb::kEnableTime);
    while (written->ok && read.ok) {
      const uint64_t turn = turns++;
      absl::Time due = absl::Now();
      if (limits.puts_per_second > 0) {
        due = begin + absl::Seconds(static_cast<double>(turn) / limits.puts_per_second);
      }
      if (due - begin >= limits.time || turn * kPutBytes >= limits.bytes) return;
      const TestChunk chunk =
          MakeChunk(first_context + turn / kChunksOfContext, turn % kChunksOfContext, noise);
      absl::SleepFor(due - absl::Now());
      PutOne(store, chunk, due, written);
    }
  };
  std::vector<Result> written(limits.puts_per_second > 0 ? kWriters : 1);
  std::vector<std::thread> writers;
  for (Result& result : written) writers.emplace_back(write, &result);
  for (std::thread& writer : writers) writer.join();
  Result all;
  all.seconds = absl::ToDoubleSeconds(absl::Now() - begin);
  all.cpu_seconds = CpuSeconds() - cpu;
  const auto waits_after = static_cast<const RocksDbChunkStore*>(store)->room_waits();
  for (size_t limit = 0; limit < waits_after.size(); ++limit) {
    all.waits += waits_after[limit].count - waits_before[limit].count;
    all.wait_ms += absl::ToDoubleMilliseconds(waits_after[limit].time - waits_before[limit].time);
  }
  stop = true;
  reader.join();
  prober.join();
  *next_context = first_context + turns / kChunksOfContext + 1;
  all.Add(read);
  all.Add(probed);
  for (const Result& result : written) all.Add(result);
  return all;
}

absl::StatusOr<std::unique_ptr<ChunkStore>> OpenQuiet(const std::string& dir) {
  RocksDbChunkStoreOptions options;
  options.data_dir = dir;
  options.write_buffer_bytes = uint64_t{1} << 30;
  options.max_log_bytes = uint64_t{4} << 30;
  return RocksDbChunkStore::Create(options);
}

int Main(uint64_t capacity_mib, uint64_t seconds, uint64_t rounds, uint64_t percent) {
  const std::string noise = TestBytes(1, 1 << 20);
  TempDir dir;
  const std::string probe = dir.path() + "_probe";
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
  Limits half;
  half.bytes = options.capacity_bytes / 2;
  for (const char* name : {"filling, as fast as it goes", "turning over, as fast as it goes"}) {
    Result result = Phase(store->get(), half, probe, &next_context, noise);
    result.Print(name);
    if (!result.ok) return 1;
  }
  Limits timed;
  timed.time = absl::Seconds(seconds);
  Result full = Phase(store->get(), timed, probe, &next_context, noise);
  full.Print("evicting, as fast as it goes");
  if (!full.ok) return 1;
  timed.puts_per_second = percent / 100.0 * full.put_bytes / kPutBytes / full.seconds;
  Result quiet, evicting;
  for (uint64_t round = 0; round < rounds && quiet.ok && evicting.ok; ++round) {
    TempDir quiet_dir;
    const auto quiet_store = OpenQuiet(quiet_dir.path());
    if (!quiet_store.ok()) return 1;
    std::atomic<uint64_t> quiet_context{0};
    quiet.Add(Phase(quiet_store->get(), timed, probe, &quiet_context, noise));
    evicting.Add(Phase(store->get(), timed, probe, &next_context, noise));
  }
  quiet.Print(absl::StrCat("quiet, at ", percent, " % of that rate"));
  evicting.Print(absl::StrCat("evicting, at ", percent, " % of that rate"));
  const auto stats = (*store)->Stats();
  if (stats.ok()) {
    std::printf(
        "payload %.0f MB, disk %.0f of %.0f MB, at most %.0f; evicted %llu segments, %.0f "
        "MB, %llu chunks whole\n",
        stats->payload_bytes / 1e6, stats->disk_bytes / 1e6, stats->capacity_bytes / 1e6,
        static_cast<const RocksDbChunkStore*>(store->get())->peak_disk_bytes() / 1e6,
        static_cast<unsigned long long>(stats->evicted_segments), stats->evicted_bytes / 1e6,
        static_cast<unsigned long long>(stats->evicted_chunks));
  }
  return quiet.ok && evicting.ok ? 0 : 1;
}

}  // namespace
}  // namespace kvstream

int main(int argc, char** argv) {
  uint64_t numbers[] = {512, 10, 3, 70};
  for (int i = 1; i < argc; ++i) {
    if (i > 4 || !absl::SimpleAtoi(argv[i], &numbers[i - 1])) {
      std::fprintf(stderr,
                   "usage: capacity_benchmark [CAPACITY_MIB [SECONDS [ROUNDS [PERCENT]]]]\n");
      return 2;
    }
  }
  return kvstream::Main(numbers[0], numbers[1], numbers[2], numbers[3]);
}

// What chunks in a Ceph pool cost: operations, bytes and CPU time of the daemon's side and of the
// OSDs, beside plain librados in the same minute.
//
//   bazel run -c opt //storage/rados:rados_benchmark [-- CHUNKS [ROUNDS]]
//
// Starts a Ceph of its own on this machine: one monitor, two OSDs on memstore, two copies, messages
// over loopback with checksums as Ceph has them by default. Every byte read is compared.
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <sstream>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "storage/chunk_limits.h"
#include "storage/conformance/test_chunks.h"
#include "storage/rados/rados_chunk_store.h"
#include "storage/rados/testing/ceph_cluster.h"

namespace kvstream {
namespace {

const std::vector<size_t> kSegmentBytes = {64 << 10, 128 << 10, 256 << 10, 512 << 10};
constexpr int kThreads = 8;

template <typename T>
T Need(absl::StatusOr<T> result) {
  if (!result.ok()) {
    std::fprintf(stderr, "%s\n", result.status().ToString().c_str());
    std::exit(1);
  }
  return *std::move(result);
}

double OwnCpuSeconds() {
  rusage usage;
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<double>(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
         1e-6 * static_cast<double>(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec);
}

struct Cpu {
  double user = 0, system = 0;
};

Cpu CpuSeconds(pid_t pid) {
  std::ifstream file(absl::StrCat("/proc/", pid, "/stat"));
  std::ostringstream text;
  text << file.rdbuf();
  const std::string all = text.str();
  std::istringstream fields(all.substr(all.rfind(')') + 2));
  std::string skip;
  for (int i = 0; i < 11; ++i) fields >> skip;  // state to cmajflt
  Cpu cpu;
  fields >> cpu.user >> cpu.system;
  const auto ticks = static_cast<double>(sysconf(_SC_CLK_TCK));
  return {cpu.user / ticks, cpu.system / ticks};
}

TestChunk Chunk(uint64_t number) {
  TestChunk chunk = MakeTestChunk(number);
  chunk.segments.clear();
  chunk.info.segment_bytes.clear();
  for (size_t level = 0; level < kSegmentBytes.size(); ++level) {
    chunk.segments.push_back(TestBytes(number * 8 + level, kSegmentBytes[level]));
    chunk.info.segment_bytes.push_back(kSegmentBytes[level]);
  }
  return chunk;
}

// Runs work(i) for all i on some threads; prints what it took of `bytes`.
double Measure(const CephCluster& cluster, const std::string& name, int threads, size_t count,
               uint64_t bytes, const std::function<void(size_t)>& work) {
  const auto osds = [&] {
    const Cpu a = CpuSeconds(cluster.osd_pid(0)), b = CpuSeconds(cluster.osd_pid(1));
    return Cpu{a.user + b.user, a.system + b.system};
  };
  std::vector<double> times(count);
  std::atomic<size_t> next{0};
  const double own_before = OwnCpuSeconds();
  const Cpu osds_before = osds();
  const absl::Time began = absl::Now();
  std::vector<std::thread> pool;
  for (int t = 0; t < threads; ++t) {
    pool.emplace_back([&] {
      for (size_t i = next++; i < count; i = next++) {
        const absl::Time start = absl::Now();
        work(i);
        times[i] = absl::ToDoubleMilliseconds(absl::Now() - start);
      }
    });
  }
  for (std::thread& thread : pool) thread.join();
  const double seconds = absl::ToDoubleSeconds(absl::Now() - began);
  const double own = OwnCpuSeconds() - own_before;
  const Cpu osds_after = osds();
  const double system = osds_after.system - osds_before.system;
  const double osd = osds_after.user - osds_before.user + system;
  std::sort(times.begin(), times.end());
  const double ops = static_cast<double>(count), gb = 1e-9 * static_cast<double>(bytes);
  std::printf("%-34s %2d threads %8.0f/s %6.2f GB/s  p50 %7.2f p99 %7.2f ms", name.c_str(), threads,
              ops / seconds, gb / seconds, times[count / 2], times[count * 99 / 100]);
  if (bytes > 0) {
    std::printf("  CPU-s/GB own %5.2f OSDs %5.2f, of it system %5.2f", own / gb, osd / gb,
                system / gb);
  }
  std::printf("  CPU-us/op own %6.0f OSDs %6.0f\n", 1e6 * own / ops, 1e6 * osd / ops);
  std::fflush(stdout);
  return seconds;
}

int Main(size_t chunks, int rounds) {
  const auto cluster = Need(CephCluster::Start());
  RadosChunkStoreOptions options;
  options.pool = cluster->Options("bench");
  options.sweep_interval = absl::InfiniteDuration();
  std::atomic<int64_t> seconds_ahead{0};
  options.clock = [&] { return absl::Now() + absl::Seconds(seconds_ahead.load()); };
  const auto store = Need(RadosChunkStore::Create(options));
  options.info_cache_bytes = 0;
  const auto forgetful = Need(RadosChunkStore::Create(options));
  const auto raw = Need(RadosPool::Connect(cluster->Options("raw")));
  const size_t levels = kSegmentBytes.size();
  uint64_t chunk_bytes = 0;
  for (size_t bytes : kSegmentBytes) chunk_bytes += bytes;
  std::vector<TestChunk> made;
  std::vector<ChunkId> ids;
  for (size_t i = 0; i < chunks; ++i) {
    made.push_back(Chunk(i));
    ids.push_back(made.back().id);
  }
  std::printf("%zu chunks of %zu levels, %.2f MB each\n", chunks, levels,
              1e-6 * static_cast<double>(chunk_bytes));
  const auto put_raw = [&](size_t i, bool object_a_level) {
    const rados_write_op_t whole = rados_create_write_op();
    uint64_t offset = 0;
    for (size_t level = 0; level < levels; ++level) {
      const std::string& bytes = made[i].segments[level];
      const std::string name = absl::StrCat("level.", i, ".", level);
      if (object_a_level) {
        if (rados_write_full(raw->io(), name.c_str(), bytes.data(), bytes.size()) < 0) std::abort();
      }
      rados_write_op_write(whole, bytes.data(), bytes.size(), offset);
      offset += bytes.size();
    }
    if (!object_a_level) {
      const std::string name = absl::StrCat("whole.", i);
      if (rados_write_op_operate(whole, raw->io(), name.c_str(), nullptr, 0) < 0) std::abort();
    }
    rados_release_write_op(whole);
  };
  for (int round = 0; round < rounds; ++round) {
    const uint64_t all = chunks * chunk_bytes;
    Measure(*cluster, "put", kThreads, chunks, all, [&](size_t i) {
      if (!Need(store->Put(made[i].id, made[i].info, made[i].views()))) std::abort();
    });
    Measure(*cluster, "librados: write as one object", kThreads, chunks, all,
            [&](size_t i) { put_raw(i, false); });
    Measure(*cluster, "librados: write as one a level", kThreads, chunks, all,
            [&](size_t i) { put_raw(i, true); });
    Measure(*cluster, "put of what is stored", kThreads, chunks, 0, [&](size_t i) {
      if (Need(store->Put(made[i].id, made[i].info, made[i].views()))) std::abort();
    });
    for (size_t level = 0; level < levels; ++level) {
      const uint64_t bytes = chunks * kSegmentBytes[level];
      const std::string size = absl::StrCat(kSegmentBytes[level] >> 10, " KiB");
      const double ours = Measure(*cluster, "read " + size, kThreads, chunks, bytes, [&](size_t i) {
        const PinnedBytes read = Need(store->ReadSegment(ids[i], static_cast<uint32_t>(level)));
        if (read.bytes() != made[i].segments[level]) std::abort();
      });
      const double theirs =
          Measure(*cluster, "librados: read " + size, kThreads, chunks, bytes, [&](size_t i) {
            std::vector<char> buffer(kSegmentBytes[level]);
            const std::string name = absl::StrCat("level.", i, ".", level);
            if (rados_read(raw->io(), name.c_str(), buffer.data(), buffer.size(), 0) !=
                    static_cast<int>(buffer.size()) ||
                absl::string_view(buffer.data(), buffer.size()) != made[i].segments[level]) {
              std::abort();
            }
          });
      std::printf("  ratio %.2f\n", theirs / ours);
    }
    const size_t context = std::min<size_t>(chunks, 512);
    const absl::Span<const ChunkId> asked = absl::MakeSpan(ids).first(context);
    Measure(*cluster, absl::StrCat("infos of ", context, ", from Ceph"), 1, 50, 0,
            [&](size_t) { Need(forgetful->GetInfos(asked)); });
    Need(store->GetInfos(asked));
    Measure(*cluster, absl::StrCat("infos of ", context, ", remembered"), 1, 50, 0,
            [&](size_t) { Need(store->GetInfos(asked)); });
    Measure(*cluster, "stats", 1, 20, 0, [&](size_t) { Need(store->Stats()); });
    const absl::Time began = absl::Now();
    if (Need(store->Delete(ids)) != chunks) std::abort();
    std::printf("delete of all: %.0f chunks/s\n",
                static_cast<double>(chunks) / absl::ToDoubleSeconds(absl::Now() - began));
    // Each round writes new objects into memory that the OSDs have had before.
    seconds_ahead += absl::ToInt64Seconds(options.retire_age) + 1;
    Measure(*cluster, "sweep of all", 1, 1, 0, [&](size_t) {
      if (Need(store->CollectGarbage()) != chunks) std::abort();
    });
    for (size_t i = 0; i < chunks; ++i) {
      rados_remove(raw->io(), absl::StrCat("whole.", i).c_str());
      for (size_t level = 0; level < levels; ++level) {
        rados_remove(raw->io(), absl::StrCat("level.", i, ".", level).c_str());
      }
    }
  }
  return 0;
}

}  // namespace
}  // namespace kvstream

int main(int argc, char** argv) {
  const int chunks = argc > 1 ? std::atoi(argv[1]) : 400;
  const int rounds = argc > 2 ? std::atoi(argv[2]) : 1;
  if (chunks < 100 || chunks > 2000 || rounds < 1) {
    std::fprintf(stderr, "usage: rados_benchmark [CHUNKS, 100 to 2000 [ROUNDS]]\n");
    return 2;
  }
  return kvstream::Main(static_cast<size_t>(chunks), rounds);
}

#include "tests/bench/store/lookup_bench.h"

#include <algorithm>
#include <cstdio>
#include <memory>
#include <random>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "client/monotonic_clock.h"
#include "storage/rocksdb/rocksdb_chunk_store.h"
#include "storage/rocksdb/rocksdb_options.h"
#include "tests/bench/store/daemon.h"
#include "tests/bench/store/pass.h"
#include "tests/bench/store/values.h"

namespace kvstream::bench {
namespace {

constexpr uint64_t kContextChunks = 512;  // 128K tokens in chunks of 256
constexpr uint64_t kIdSet = 1;
constexpr size_t kSegmentBytes = 16;

ChunkId IdOf(uint64_t chunk) { return BenchChunkId(kIdSet, chunk); }

// Only opened, if it is there already.
absl::Status Build(const BenchOptions& options, const std::string& data_dir,
                   const Profile& profile) {
  RocksDbChunkStoreOptions store_options;
  store_options.data_dir = data_dir;
  store_options.sync_writes = false;  // a benchmark's data may be lost
  absl::StatusOr<std::unique_ptr<ChunkStore>> store = RocksDbChunkStore::Create(store_options);
  if (!store.ok()) return store.status();
  const absl::StatusOr<StoreStats> stats = (*store)->Stats();
  if (!stats.ok()) return stats.status();
  if (stats->chunks == options.lookup_chunks) return absl::OkStatus();
  const absl::StatusOr<bool> put = (*store)->PutProfile(profile.id(), profile.serialized());
  if (!put.ok()) return put.status();
  const double cpu = OwnCpuSeconds();
  const absl::Duration began = MonotonicNow();
  const std::string segment(kSegmentBytes, 's');
  const std::vector<absl::string_view> segments = {segment};
  ChunkInfo info;
  info.profile_id = profile.id();
  info.model = "bench@1";
  info.tokens = kChunkTokens;
  info.segment_bytes = {kSegmentBytes};
  info.created = absl::Now();
  for (uint64_t chunk = 0; chunk < options.lookup_chunks; ++chunk) {
    const uint64_t index = chunk % kContextChunks;
    info.first_token = index * kChunkTokens;
    info.parent = index == 0 ? absl::optional<ChunkId>() : IdOf(chunk - 1);
    const absl::StatusOr<bool> stored = (*store)->Put(IdOf(chunk), info, segments);
    if (!stored.ok()) return stored.status();
  }
  std::printf("built in %.0f s (%.0f CPU-s)\n", absl::ToDoubleSeconds(MonotonicNow() - began),
              OwnCpuSeconds() - cpu);
  return absl::OkStatus();
}

// Seconds of the lookup of one context.
absl::StatusOr<double> TimeOne(Daemon& daemon, const Profile& profile, const BenchOptions& options,
                               uint64_t context) {
  std::vector<ChunkId> ids(kContextChunks);
  for (uint64_t k = 0; k < kContextChunks; ++k) ids[k] = IdOf(context * kContextChunks + k);
  const absl::Duration began = MonotonicNow();
  const absl::StatusOr<uint32_t> matched = daemon.Lookup(profile, ids);
  const double seconds = absl::ToDoubleSeconds(MonotonicNow() - began);
  if (!matched.ok()) return matched.status();
  const uint64_t stored =
      std::min(kContextChunks, options.lookup_chunks - context * kContextChunks);
  if (*matched == stored) return seconds;
  return absl::DataLossError(absl::StrCat("Lookup matched ", *matched, " chunks of ", stored));
}

}  // namespace

absl::Status RunLookup(const BenchOptions& options, const std::string& dir) {
  const std::shared_ptr<const Profile> profile = BenchProfile();
  DaemonOptions daemon_options;
  daemon_options.binary = options.kvstreamd;
  daemon_options.data_dir = dir + "/lookup";
  daemon_options.work_dir = dir;
  daemon_options.flags = {
      absl::StrCat("--block-cache-bytes=", options.lookup_cache_mib, "MiB"),
      absl::StrCat("--info-cache-bytes=", options.lookup_info_cache_mib, "MiB")};
  daemon_options.flags.insert(daemon_options.flags.end(), options.daemon_flags.begin(),
                              options.daemon_flags.end());
  std::printf(
      "\nLookup of 512 chunks among %llu, block cache %llu MiB, info cache %llu MiB, one "
      "connection\n",
      (unsigned long long)options.lookup_chunks, (unsigned long long)options.lookup_cache_mib,
      (unsigned long long)options.lookup_info_cache_mib);
  std::fflush(stdout);
  if (absl::Status status = Build(options, daemon_options.data_dir, *profile); !status.ok()) {
    return status;
  }
  absl::StatusOr<std::unique_ptr<Daemon>> daemon = Daemon::Start(daemon_options);
  if (!daemon.ok()) return daemon.status();
  const uint64_t contexts = std::max<uint64_t>(options.lookup_chunks / kContextChunks, 1);
  // Every context once, which brings into the caches what they have room for.
  std::vector<double> first, seconds, cpu_seconds;
  for (uint64_t context = 0; context < contexts; ++context) {
    const absl::StatusOr<double> one = TimeOne(**daemon, *profile, options, context);
    if (!one.ok()) return one.status();
    first.push_back(*one);
  }
  const double cpu = (*daemon)->CpuSeconds();
  std::mt19937_64 random(1);
  for (int i = 0; i < options.lookups; ++i) {
    const double cpu_before = (*daemon)->CpuSeconds();
    const absl::StatusOr<double> one = TimeOne(**daemon, *profile, options, random() % contexts);
    if (!one.ok()) return one.status();
    seconds.push_back(*one);
    cpu_seconds.push_back((*daemon)->CpuSeconds() - cpu_before);
  }
  const double server_cpu = ((*daemon)->CpuSeconds() - cpu) / static_cast<double>(seconds.size());
  std::printf("first time, ms: p50 %.3f  p99 %.3f\n", 1e3 * Quantile(first, 0.5),
              1e3 * Quantile(first, 0.99));
  std::printf("ms: p50 %.3f  p90 %.3f  p99 %.3f  max %.3f; %zu calls\n",
              1e3 * Quantile(seconds, 0.5), 1e3 * Quantile(seconds, 0.9),
              1e3 * Quantile(seconds, 0.99), 1e3 * Quantile(seconds, 1), seconds.size());
  // Without what a busy machine makes a call wait for.
  std::printf("server CPU, ms a call: mean %.3f  p50 %.3f  p90 %.3f  p99 %.3f\n", 1e3 * server_cpu,
              1e3 * Quantile(cpu_seconds, 0.5), 1e3 * Quantile(cpu_seconds, 0.9),
              1e3 * Quantile(cpu_seconds, 0.99));
  std::fflush(stdout);
  return (*daemon)->Stop();
}

}  // namespace kvstream::bench

#include "tests/bench/store/warm_bench.h"

#include <cstdio>
#include <memory>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tests/bench/store/daemon.h"
#include "tests/bench/store/redis_peer.h"
#include "tests/bench/store/socket_peer.h"
#include "tests/bench/store/values.h"

namespace kvstream::bench {
namespace {

// All passes of one server over one set.
struct Side {
  std::vector<Pass> passes;

  double Speed(double q) const {
    std::vector<double> speeds;
    for (const Pass& pass : passes) speeds.push_back(pass.gb_per_second());
    return Quantile(speeds, q);
  }
  double PerGb(double Pass::*seconds) const {
    double sum = 0, gb = 0;
    for (const Pass& pass : passes) {
      sum += pass.*seconds;
      gb += pass.gb();
    }
    return sum / gb;
  }
  double ValueMs(double q) const {
    std::vector<double> all;
    for (const Pass& pass : passes) {
      all.insert(all.end(), pass.value_seconds.begin(), pass.value_seconds.end());
    }
    return 1e3 * Quantile(all, q);
  }
};

void PrintSide(const char* name, uint64_t kib, int connections, const Side& side, int depth) {
  std::printf("%6llu %2d  %-10s %5.2f %5.2f %5.2f   %6.3f  %6.3f   %7.3f %7.3f",
              (unsigned long long)kib, connections, name, side.Speed(0), side.Speed(0.5),
              side.Speed(1), side.PerGb(&Pass::server_cpu_seconds),
              side.PerGb(&Pass::client_cpu_seconds), side.ValueMs(0.5), side.ValueMs(0.99));
  if (depth > 0) {
    std::printf("   depth %d", depth);
  } else if (side.passes.front().messages > 0) {
    std::printf("   messages of %.0f KiB", static_cast<double>(side.passes.front().bytes) / 1024 /
                                               static_cast<double>(side.passes.front().messages));
  }
  std::printf("\n");
}

// The depth with the fastest of two passes.
absl::StatusOr<int> BestDepth(RedisPeer& redis, const ValueSet& values, int connections,
                              int depth_max) {
  int best = 1;
  double best_speed = 0;
  for (int depth = 1; depth <= depth_max; depth *= 2) {
    for (int repeat = 0; repeat < 2; ++repeat) {
      const absl::StatusOr<Pass> pass = redis.Get(values, depth, connections);
      if (!pass.ok()) return pass.status();
      if (pass->gb_per_second() <= best_speed) continue;
      best_speed = pass->gb_per_second();
      best = depth;
    }
  }
  return best;
}

absl::Status Compare(RedisPeer& redis, Daemon& daemon, SocketPeer& socket, const ValueSet& values,
                     int connections, const BenchOptions& options) {
  const absl::StatusOr<int> depth = BestDepth(redis, values, connections, options.depth_max);
  if (!depth.ok()) return depth.status();
  // The first load brings the values into the block cache.
  if (const absl::StatusOr<Pass> pass = daemon.Load(values, connections); !pass.ok())
    return pass.status();
  Side theirs, ours, bare;
  std::vector<double> ratios;
  for (int round = 0; round < options.rounds; ++round) {
    absl::StatusOr<Pass> get = redis.Get(values, *depth, connections);
    if (!get.ok()) return get.status();
    absl::StatusOr<Pass> load = daemon.Load(values, connections);
    if (!load.ok()) return load.status();
    absl::StatusOr<Pass> floor = socket.Get(values, connections);
    if (!floor.ok()) return floor.status();
    ratios.push_back(load->gb_per_second() / get->gb_per_second());
    bare.passes.push_back(*std::move(floor));
    theirs.passes.push_back(*std::move(get));
    ours.passes.push_back(*std::move(load));
  }
  const uint64_t kib = values.value_bytes() >> 10;
  PrintSide("bare TCP", kib, connections, bare, 0);
  PrintSide("redis", kib, connections, theirs, *depth);
  PrintSide("kvstreamd", kib, connections, ours, 0);
  std::printf("%6llu %2d  to redis   %5.2f %5.2f %5.2f   %6.3f  %6.3f   of rounds; CPU of sums\n",
              (unsigned long long)kib, connections, Quantile(ratios, 0), Quantile(ratios, 0.5),
              Quantile(ratios, 1),
              ours.PerGb(&Pass::server_cpu_seconds) / theirs.PerGb(&Pass::server_cpu_seconds),
              ours.PerGb(&Pass::client_cpu_seconds) / theirs.PerGb(&Pass::client_cpu_seconds));
  std::fflush(stdout);
  return absl::OkStatus();
}

}  // namespace

absl::Status RunWarm(const BenchOptions& options, const std::string& dir) {
  DaemonOptions daemon_options;
  daemon_options.binary = options.kvstreamd;
  daemon_options.data_dir = dir + "/data";
  daemon_options.work_dir = dir;
  daemon_options.flags = {absl::StrCat("--block-cache-bytes=", options.block_cache_mib, "MiB")};
  daemon_options.flags.insert(daemon_options.flags.end(), options.daemon_flags.begin(),
                              options.daemon_flags.end());
  absl::StatusOr<std::unique_ptr<RedisPeer>> redis = RedisPeer::Start(dir);
  if (!redis.ok()) return redis.status();
  absl::StatusOr<std::unique_ptr<Daemon>> daemon = Daemon::Start(daemon_options);
  if (!daemon.ok()) return daemon.status();
  const std::shared_ptr<const Profile> profile = BenchProfile();
  if (absl::Status status = (*daemon)->PutProfile(*profile); !status.ok()) return status;

  std::vector<std::unique_ptr<ValueSet>> sets;
  for (const uint64_t kib : options.value_kib) {
    const int count = static_cast<int>((static_cast<uint64_t>(options.dataset_mib) << 10) / kib);
    sets.push_back(std::make_unique<ValueSet>(profile, kib << 10, count));
    if (absl::Status status = (*redis)->Store(*sets.back()); !status.ok()) return status;
    if (absl::Status status = (*daemon)->Put(*sets.back()); !status.ok()) return status;
  }
  // What the write buffers still hold is in tables after a restart.
  if (absl::Status status = (*daemon)->Stop(); !status.ok()) return status;
  daemon = Daemon::Start(daemon_options);
  if (!daemon.ok()) return daemon.status();

  std::printf(
      "\nWarm: %d MiB of values of a size, read whole over each of n connections, %d rounds in "
      "turns, block cache "
      "%llu MiB\n",
      options.dataset_mib, options.rounds, (unsigned long long)options.block_cache_mib);
  std::printf(
      "   KiB  n  server     GB/s min median max   CPU-s/GB server client  ms a value p50 p99\n");
  std::fflush(stdout);
  for (const auto& set : sets) {
    const absl::StatusOr<std::unique_ptr<SocketPeer>> socket = SocketPeer::Start(*set, dir);
    if (!socket.ok()) return socket.status();
    for (const int connections : options.connections) {
      const absl::Status status = Compare(**redis, **daemon, **socket, *set, connections, options);
      if (!status.ok()) return status;
    }
  }
  return (*daemon)->Stop();
}

}  // namespace kvstream::bench

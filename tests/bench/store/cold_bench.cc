#include "tests/bench/store/cold_bench.h"

#include <algorithm>
#include <cstdio>
#include <memory>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tests/bench/store/daemon.h"
#include "tests/bench/store/disk.h"
#include "tests/bench/store/values.h"

namespace kvstream::bench {
namespace {

// A load by a daemon that has just started, of files that are not in the page cache.
absl::StatusOr<Pass> ColdLoad(const DaemonOptions& options, const ValueSet& values) {
  absl::StatusOr<std::unique_ptr<Daemon>> daemon = Daemon::Start(options);
  if (!daemon.ok()) return daemon.status();
  // Opening reads a little of them.
  if (absl::Status status = DropFromPageCache(options.data_dir); !status.ok()) return status;
  absl::StatusOr<Pass> pass = (*daemon)->Load(values);
  if (!pass.ok()) return pass;
  if (absl::Status status = (*daemon)->Stop(); !status.ok()) return status;
  return pass;
}

absl::StatusOr<Pass> ColdRead(const std::string& dir, bool direct) {
  if (absl::Status status = DropFromPageCache(dir); !status.ok()) return status;
  return ReadTables(dir, direct);
}

absl::Status RunSize(const BenchOptions& options, const std::string& dir, uint64_t kib) {
  DaemonOptions daemon_options;
  daemon_options.binary = options.kvstreamd;
  daemon_options.data_dir = absl::StrCat(dir, "/data", kib);
  daemon_options.work_dir = dir;
  daemon_options.flags = options.daemon_flags;
  const std::shared_ptr<const Profile> profile = BenchProfile();
  const int count = static_cast<int>((static_cast<uint64_t>(options.cold_dataset_mib) << 10) / kib);
  const ValueSet values(profile, kib << 10, count);
  {
    absl::StatusOr<std::unique_ptr<Daemon>> daemon = Daemon::Start(daemon_options);
    if (!daemon.ok()) return daemon.status();
    if (absl::Status status = (*daemon)->PutProfile(*profile); !status.ok()) return status;
    if (absl::Status status = (*daemon)->Put(values); !status.ok()) return status;
    if (absl::Status status = (*daemon)->Stop(); !status.ok()) return status;
  }
  // Opened once more for what the write buffers held.
  if (const absl::StatusOr<Pass> first = ColdLoad(daemon_options, values); !first.ok()) {
    return first.status();
  }
  std::vector<double> load, direct, buffered, ratios;
  double server_cpu = 0, gb = 0;
  for (int round = 0; round < options.rounds; ++round) {
    const absl::StatusOr<Pass> past = ColdRead(daemon_options.data_dir, /*direct=*/true);
    if (!past.ok()) return past.status();
    const absl::StatusOr<Pass> ours = ColdLoad(daemon_options, values);
    if (!ours.ok()) return ours.status();
    const absl::StatusOr<Pass> through = ColdRead(daemon_options.data_dir, /*direct=*/false);
    if (!through.ok()) return through.status();
    load.push_back(ours->gb_per_second());
    direct.push_back(past->gb_per_second());
    buffered.push_back(through->gb_per_second());
    ratios.push_back(load.back() / std::max(direct.back(), buffered.back()));
    server_cpu += ours->server_cpu_seconds;
    gb += ours->gb();
  }
  std::printf("%6llu  %5.2f    %5.2f     %5.2f      %4.2f %4.2f %4.2f        %6.3f\n",
              (unsigned long long)kib, Quantile(load, 0.5), Quantile(direct, 0.5),
              Quantile(buffered, 0.5), Quantile(ratios, 0), Quantile(ratios, 0.5),
              Quantile(ratios, 1), server_cpu / gb);
  std::fflush(stdout);
  return absl::OkStatus();
}

}  // namespace

absl::Status RunCold(const BenchOptions& options, const std::string& dir) {
  std::printf(
      "\nCold: %d MiB of values of a size, page cache dropped, daemon just started, %d rounds "
      "in turns\n",
      options.cold_dataset_mib, options.rounds);
  std::printf("   KiB  GB/s: Load  O_DIRECT  buffered   ratio min median max   server CPU-s/GB\n");
  for (const uint64_t kib : options.value_kib) {
    if (absl::Status status = RunSize(options, dir, kib); !status.ok()) return status;
  }
  return absl::OkStatus();
}

}  // namespace kvstream::bench

// What the benchmark is asked to do.
#ifndef KVSTREAM_TESTS_BENCH_STORE_BENCH_OPTIONS_H_
#define KVSTREAM_TESTS_BENCH_STORE_BENCH_OPTIONS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace kvstream::bench {

struct BenchOptions {
  std::string kvstreamd;  // path of the binary
  bool warm = true;
  bool cold = true;
  bool lookup = true;
  std::string dir;  // for data and logs; empty: a temporary one, removed at the end
  std::string congestion_control = "cubic";
  std::vector<uint64_t> value_kib = {256, 1024, 4096};
  std::vector<int> connections = {1};  // at once, of warm reads
  int dataset_mib = 256;               // values of one size
  int cold_dataset_mib = 1024;
  int rounds = 7;
  int depth_max = 32;  // of Redis's pipeline
  uint64_t block_cache_mib = 2048;
  uint64_t lookup_chunks = 1000000;
  uint64_t lookup_cache_mib = 256;
  uint64_t lookup_info_cache_mib = 256;
  int lookups = 3000;
  std::vector<std::string> daemon_flags;  // passed on to kvstreamd
};

// From "--name=value" words. INVALID_ARGUMENT says which word and lists the names.
absl::StatusOr<BenchOptions> ParseBenchOptions(const std::vector<std::string>& words);

}  // namespace kvstream::bench

#endif  // KVSTREAM_TESTS_BENCH_STORE_BENCH_OPTIONS_H_

// Reads from a store, end to end, beside Redis and the disk itself: see docs/storage.md, "Read
// path". Starts both servers itself; every byte is checked. bazel run -c opt //tests/bench/store
#include <malloc.h>
#include <sys/stat.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "tests/bench/store/bench_options.h"
#include "tests/bench/store/cold_bench.h"
#include "tests/bench/store/lookup_bench.h"
#include "tests/bench/store/private_network.h"
#include "tests/bench/store/socket_peer.h"
#include "tests/bench/store/warm_bench.h"

namespace kvstream::bench {
namespace {

absl::Status RunIn(const BenchOptions& options, const std::string& dir,
                   absl::Status (*bench)(const BenchOptions&, const std::string&)) {
  std::error_code error;
  std::filesystem::create_directories(dir, error);
  if (error) return absl::UnavailableError("cannot make " + dir + ": " + error.message());
  return bench(options, dir);
}

absl::Status Run(const BenchOptions& options, const std::string& dir) {
  absl::Status status;
  if (options.warm) status.Update(RunIn(options, dir + "/warm", &RunWarm));
  if (options.cold && status.ok()) status.Update(RunIn(options, dir + "/cold", &RunCold));
  if (options.lookup && status.ok()) status.Update(RunIn(options, dir + "/lookup", &RunLookup));
  return status;
}

int Main(const std::vector<std::string>& words) {
  if (!words.empty() && words[0] == kServeValues) {
    return ServeValues({words.begin() + 1, words.end()});
  }
  const absl::StatusOr<BenchOptions> options = ParseBenchOptions(words);
  if (!options.ok()) {
    std::fprintf(stderr, "%s\n", std::string(options.status().message()).c_str());
    return 2;
  }
  // As docs/client.md asks of a client: large buffers go back to a free list, not to the kernel.
  mallopt(M_MMAP_THRESHOLD, 256 << 20);
  mallopt(M_TRIM_THRESHOLD, 256 << 20);
  const absl::StatusOr<std::string> network = EnterPrivateNetwork(options->congestion_control);
  if (!network.ok()) {
    std::fprintf(stderr, "%s\n", std::string(network.status().message()).c_str());
    return 1;
  }
  std::printf("%s\n", network->c_str());
  std::string dir = options->dir;
  if (dir.empty()) {
    const char* base = std::getenv("TEST_TMPDIR");
    std::string name = std::string(base != nullptr ? base : "/var/tmp") + "/kvstream_bench_XXXXXX";
    if (mkdtemp(name.data()) == nullptr) {
      std::perror(name.c_str());
      return 1;
    }
    dir = name;
  }
  const absl::Status status = Run(*options, dir);
  if (options->dir.empty()) {
    std::error_code ignored;
    std::filesystem::remove_all(dir, ignored);
  }
  if (status.ok()) return 0;
  std::fprintf(stderr, "store benchmark: %s\n", status.ToString().c_str());
  return 1;
}

}  // namespace
}  // namespace kvstream::bench

int main(int argc, char** argv) {
  return kvstream::bench::Main(std::vector<std::string>(argv + 1, argv + argc));
}

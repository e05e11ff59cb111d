// Values from the disk, end to end: kvstreamd's Load beside reading the same files.
#ifndef KVSTREAM_TESTS_BENCH_STORE_COLD_BENCH_H_
#define KVSTREAM_TESTS_BENCH_STORE_COLD_BENCH_H_

#include <string>

#include "absl/status/status.h"
#include "tests/bench/store/bench_options.h"

namespace kvstream::bench {

// Prints a table. `dir` is empty at the start.
absl::Status RunCold(const BenchOptions& options, const std::string& dir);

}  // namespace kvstream::bench

#endif  // KVSTREAM_TESTS_BENCH_STORE_COLD_BENCH_H_

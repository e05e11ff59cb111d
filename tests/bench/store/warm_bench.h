// Values from memory, end to end: kvstreamd's Load beside Redis's GET.
#ifndef KVSTREAM_TESTS_BENCH_STORE_WARM_BENCH_H_
#define KVSTREAM_TESTS_BENCH_STORE_WARM_BENCH_H_

#include <string>

#include "absl/status/status.h"
#include "tests/bench/store/bench_options.h"

namespace kvstream::bench {

// Prints a table. `dir` is empty at the start.
absl::Status RunWarm(const BenchOptions& options, const std::string& dir);

}  // namespace kvstream::bench

#endif  // KVSTREAM_TESTS_BENCH_STORE_WARM_BENCH_H_

// Passes over several connections at once.
#ifndef KVSTREAM_TESTS_BENCH_STORE_TOGETHER_H_
#define KVSTREAM_TESTS_BENCH_STORE_TOGETHER_H_

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "tests/bench/store/pass.h"

namespace kvstream::bench {

// Calls `pass` with 0 to connections - 1 at the same time, each on a thread of its own, and a
// single one on the calling thread. Bytes, messages and values of all of them, from the first's
// begin to the last's end; nothing of CPU. The first error, once all are over.
absl::StatusOr<Pass> RunTogether(int connections,
                                 absl::FunctionRef<absl::StatusOr<Pass>(int)> pass);

}  // namespace kvstream::bench

#endif  // KVSTREAM_TESTS_BENCH_STORE_TOGETHER_H_

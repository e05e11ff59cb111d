// What one pass over all values of a set took.
#ifndef KVSTREAM_TESTS_BENCH_STORE_PASS_H_
#define KVSTREAM_TESTS_BENCH_STORE_PASS_H_

#include <cstdint>
#include <vector>

#include "absl/time/time.h"

namespace kvstream::bench {

struct Pass {
  uint64_t bytes = 0;
  uint64_t messages = 0;  // that carried them; 0: not counted
  double seconds = 0;
  absl::Duration ended_at;  // by the monotonic clock
  double server_cpu_seconds = 0;
  double client_cpu_seconds = 0;
  // From one whole value to the next, in the order of arrival; the first from the request.
  std::vector<double> value_seconds;

  double gb() const { return 1e-9 * static_cast<double>(bytes); }
  double gb_per_second() const { return gb() / seconds; }
};

// q in [0, 1], nearest rank; 0 of nothing.
double Quantile(std::vector<double> values, double q);

}  // namespace kvstream::bench

#endif  // KVSTREAM_TESTS_BENCH_STORE_PASS_H_

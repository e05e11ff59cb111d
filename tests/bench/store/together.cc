#include "tests/bench/store/together.h"

#include <algorithm>
#include <cstddef>
#include <thread>
#include <utility>
#include <vector>

#include "absl/time/time.h"
#include "client/monotonic_clock.h"

namespace kvstream::bench {

absl::StatusOr<Pass> RunTogether(int connections,
                                 absl::FunctionRef<absl::StatusOr<Pass>(int)> pass) {
  if (connections == 1) return pass(0);
  const absl::Duration began = MonotonicNow();
  std::vector<absl::StatusOr<Pass>> passes(static_cast<size_t>(connections));
  std::vector<std::thread> threads;
  threads.reserve(static_cast<size_t>(connections));
  for (int i = 0; i < connections; ++i) {
    threads.emplace_back([&passes, &pass, i] { passes[static_cast<size_t>(i)] = pass(i); });
  }
  for (std::thread& thread : threads) thread.join();
  Pass all;
  for (const absl::StatusOr<Pass>& one : passes) {
    if (!one.ok()) return one.status();
    all.bytes += one->bytes;
    all.messages += one->messages;
    all.ended_at = std::max(all.ended_at, one->ended_at);
    all.value_seconds.insert(all.value_seconds.end(), one->value_seconds.begin(),
                             one->value_seconds.end());
  }
  all.seconds = absl::ToDoubleSeconds(all.ended_at - began);
  return all;
}

}  // namespace kvstream::bench

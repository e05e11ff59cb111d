// Work on numbered items by several threads.
#ifndef KVSTREAM_CLIENT_CLI_PARALLEL_H_
#define KVSTREAM_CLIENT_CLI_PARALLEL_H_

#include <cstdint>
#include <functional>

#include "absl/status/status.h"

namespace kvstream::cli {

// What one thread does with one item.
using ItemFn = std::function<absl::Status(int64_t item)>;

// Every thread gets a function from make_worker(), which is called on that thread, and then items 0
// to count - 1 are shared out in order. Returns when all threads have ended: OK, or the error of
// the smallest item (or of make_worker) that failed; items after an error are left out. `done`
// (optional) is told how many items are finished; it must be thread-safe.
absl::Status ForEachInParallel(int64_t count, int threads,
                               const std::function<absl::Status(ItemFn* worker)>& make_worker,
                               const std::function<void(int64_t)>& done = nullptr);

}  // namespace kvstream::cli

#endif  // KVSTREAM_CLIENT_CLI_PARALLEL_H_

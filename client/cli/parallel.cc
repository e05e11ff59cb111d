#include "client/cli/parallel.h"

#include <algorithm>
#include <atomic>
#include <limits>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"

namespace kvstream::cli {
namespace {

// The error of the smallest item.
class FirstError {
 public:
  void Report(int64_t item, const absl::Status& status) {
    absl::MutexLock lock(&mutex_);
    if (item >= item_) return;
    item_ = item;
    status_ = status;
  }
  absl::Status status() const {
    absl::MutexLock lock(&mutex_);
    return status_;
  }

 private:
  mutable absl::Mutex mutex_;
  int64_t item_ ABSL_GUARDED_BY(mutex_) = std::numeric_limits<int64_t>::max();
  absl::Status status_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace

absl::Status ForEachInParallel(int64_t count, int threads,
                               const std::function<absl::Status(ItemFn*)>& make_worker,
                               const std::function<void(int64_t)>& done) {
  std::atomic<int64_t> next{0};
  std::atomic<int64_t> finished{0};
  std::atomic<bool> failed{false};
  FirstError error;
  const auto work = [&] {
    ItemFn worker;
    if (const absl::Status made = make_worker(&worker); !made.ok()) {
      error.Report(-1, made);
      failed = true;
      return;
    }
    while (!failed) {
      const int64_t item = next++;
      if (item >= count) return;
      if (const absl::Status status = worker(item); !status.ok()) {
        error.Report(item, status);
        failed = true;
        return;
      }
      const int64_t so_far = ++finished;
      if (done) done(so_far);
    }
  };
  std::vector<std::thread> pool;
  const int64_t size = std::min<int64_t>(threads, count);
  for (int64_t i = 1; i < size; ++i) pool.emplace_back(work);
  if (count > 0) work();
  for (std::thread& thread : pool) thread.join();
  return error.status();
}

}  // namespace kvstream::cli

// A fixed number of threads for work that may block on the store, so that gRPC's few callback
// threads never do.
#ifndef KVSTREAM_SERVER_SERVICE_WORKER_POOL_H_
#define KVSTREAM_SERVER_SERVICE_WORKER_POOL_H_

#include <deque>
#include <functional>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"

namespace kvstream {

// Thread-safe. Tasks start in the order of Submit. The queue itself has no limit: every caller is
// admitted by a CallTracker first and has at most one task in it, so its length is at most the sum
// of their limits. The destructor runs what is queued, then joins; nothing may be submitted from
// then on except by the tasks themselves.
class WorkerPool {
 public:
  // Precondition: threads >= 1.
  explicit WorkerPool(int threads);
  ~WorkerPool();
  WorkerPool(const WorkerPool&) = delete;
  WorkerPool& operator=(const WorkerPool&) = delete;

  void Submit(std::function<void()> task);

 private:
  void Work();
  bool WorkOrStop() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return stopping_ || !tasks_.empty();
  }

  absl::Mutex mutex_;
  std::deque<std::function<void()>> tasks_ ABSL_GUARDED_BY(mutex_);
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::vector<std::thread> threads_;
};

}  // namespace kvstream

#endif  // KVSTREAM_SERVER_SERVICE_WORKER_POOL_H_

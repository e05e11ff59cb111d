// The thread that runs the caller's recompute callback.
#ifndef KVSTREAM_CLIENT_RECOMPUTE_RUNNER_H_
#define KVSTREAM_CLIENT_RECOMPUTE_RUNNER_H_

#include <functional>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "absl/types/optional.h"
#include "client/client.h"
#include "client/load_assembler.h"

namespace kvstream {

struct RecomputeResult {
  RecomputeJob job;
  absl::Status status;
  absl::Duration took;
};

// One job at a time; which and when is the caller's business (LoadAssembler). Submit and TakeResult
// belong to one thread.
class RecomputeRunner {
 public:
  // `notify` is called on the runner's thread, with no lock held, after a result has become
  // available. The thread starts with the first job.
  RecomputeRunner(RecomputeFn recompute, std::function<void()> notify);
  // Waits for the job under way: a callback cannot be interrupted.
  ~RecomputeRunner();
  RecomputeRunner(const RecomputeRunner&) = delete;

  // Precondition: the result of the job before, if any, was taken.
  void Submit(const RecomputeJob& job);
  absl::optional<RecomputeResult> TakeResult();

 private:
  void Work();

  const RecomputeFn recompute_;
  const std::function<void()> notify_;
  absl::Mutex mutex_;
  absl::optional<RecomputeJob> job_ ABSL_GUARDED_BY(mutex_);
  absl::optional<RecomputeResult> result_ ABSL_GUARDED_BY(mutex_);
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace kvstream

#endif  // KVSTREAM_CLIENT_RECOMPUTE_RUNNER_H_

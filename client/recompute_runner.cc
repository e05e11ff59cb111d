#include "client/recompute_runner.h"

#include <exception>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "client/monotonic_clock.h"

namespace kvstream {

RecomputeRunner::RecomputeRunner(RecomputeFn recompute, std::function<void()> notify)
    : recompute_(std::move(recompute)), notify_(std::move(notify)) {}

RecomputeRunner::~RecomputeRunner() {
  {
    absl::MutexLock lock(&mutex_);
    stopping_ = true;
    job_.reset();
  }
  if (thread_.joinable()) thread_.join();
}

void RecomputeRunner::Submit(const RecomputeJob& job) {
  {
    absl::MutexLock lock(&mutex_);
    job_ = job;
  }
  if (!thread_.joinable()) thread_ = std::thread([this] { Work(); });
}

absl::optional<RecomputeResult> RecomputeRunner::TakeResult() {
  absl::MutexLock lock(&mutex_);
  return std::exchange(result_, absl::nullopt);
}

void RecomputeRunner::Work() {
  for (;;) {
    RecomputeResult result;
    {
      absl::MutexLock lock(&mutex_);
      const auto has_work = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
        return stopping_ || job_.has_value();
      };
      mutex_.Await(absl::Condition(&has_work));
      if (stopping_) return;
      result.job = *std::exchange(job_, absl::nullopt);
    }
    const absl::Duration start = MonotonicNow();
    try {
      result.status = recompute_(result.job.first_token, result.job.tokens);
    } catch (const std::exception& error) {
      result.status = absl::UnknownError(absl::StrCat("the callback threw: ", error.what()));
    }
    result.took = MonotonicNow() - start;
    {
      absl::MutexLock lock(&mutex_);
      result_ = std::move(result);
    }
    notify_();
  }
}

}  // namespace kvstream

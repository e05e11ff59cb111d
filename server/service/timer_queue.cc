#include "server/service/timer_queue.h"

#include <chrono>

namespace kvstream {

absl::Duration MonotonicNow() {
  return absl::FromChrono(std::chrono::steady_clock::now().time_since_epoch());
}

TimerQueue::TimerQueue() : thread_([this] { Work(); }) {}

TimerQueue::~TimerQueue() { Stop(); }

void TimerQueue::Stop() {
  {
    absl::MutexLock lock(&mutex_);
    stopping_ = true;
    changed_.Signal();
  }
  if (thread_.joinable()) thread_.join();
}

TimerQueue::Id TimerQueue::Schedule(absl::Duration at, std::function<void()> function) {
  absl::MutexLock lock(&mutex_);
  const Id id{at, next_sequence_++};
  const auto timer = timers_.emplace(id, std::move(function)).first;
  if (timer == timers_.begin()) changed_.Signal();
  return id;
}

void TimerQueue::Cancel(const Id& id) {
  std::function<void()> dropped;  // destroyed without the lock
  absl::MutexLock lock(&mutex_);
  const auto timer = timers_.find(id);
  if (timer == timers_.end()) return;
  dropped = std::move(timer->second);
  timers_.erase(timer);
}

void TimerQueue::Work() {
  while (true) {
    std::function<void()> due;
    {
      absl::MutexLock lock(&mutex_);
      while (!due) {
        if (stopping_) return;
        if (timers_.empty()) {
          changed_.Wait(&mutex_);
          continue;
        }
        const absl::Duration left = timers_.begin()->first.at - MonotonicNow();
        if (left > absl::ZeroDuration()) {
          changed_.WaitWithTimeout(&mutex_, left);
          continue;
        }
        due = std::move(timers_.begin()->second);
        timers_.erase(timers_.begin());
      }
    }
    due();
  }
}

}  // namespace kvstream

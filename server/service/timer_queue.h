// One thread that calls functions at given times, for all calls of the server together.
#ifndef KVSTREAM_SERVER_SERVICE_TIMER_QUEUE_H_
#define KVSTREAM_SERVER_SERVICE_TIMER_QUEUE_H_

#include <cstdint>
#include <functional>
#include <map>
#include <thread>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

namespace kvstream {

// Time on the process's monotonic clock, since an arbitrary origin.
absl::Duration MonotonicNow();

// Thread-safe. The destructor stops it.
class TimerQueue {
 public:
  // Opaque; never reused.
  struct Id {
    absl::Duration at;
    uint64_t sequence = 0;
    bool operator<(const Id& other) const {
      return std::make_pair(at, sequence) < std::make_pair(other.at, other.sequence);
    }
  };

  TimerQueue();
  ~TimerQueue();
  TimerQueue(const TimerQueue&) = delete;
  TimerQueue& operator=(const TimerQueue&) = delete;

  // Calls `function` once, at MonotonicNow() >= at, on the queue's thread and with no lock held; it
  // must not block. O(log n).
  Id Schedule(absl::Duration at, std::function<void()> function);

  // The timer does not fire unless it already has or is just doing so. O(log n).
  void Cancel(const Id& id);

  // Nothing fires any more once this returns; Schedule and Cancel stay harmless. Not from within a
  // timer's function.
  void Stop();

 private:
  void Work();

  absl::Mutex mutex_;
  absl::CondVar changed_;
  std::map<Id, std::function<void()>> timers_ ABSL_GUARDED_BY(mutex_);
  uint64_t next_sequence_ ABSL_GUARDED_BY(mutex_) = 1;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace kvstream

#endif  // KVSTREAM_SERVER_SERVICE_TIMER_QUEUE_H_

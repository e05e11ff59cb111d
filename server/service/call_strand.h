// Serialises everything that happens to one streaming call, so that its logic is single-threaded
// and may block on the store.
#ifndef KVSTREAM_SERVER_SERVICE_CALL_STRAND_H_
#define KVSTREAM_SERVER_SERVICE_CALL_STRAND_H_

#include <atomic>
#include <functional>
#include <memory>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "absl/types/optional.h"
#include "server/service/timer_queue.h"
#include "server/service/worker_pool.h"

namespace kvstream {

// What has happened to a call since its last step.
struct CallEvents {
  absl::optional<bool> read_done;   // value: ok
  absl::optional<bool> write_done;  // value: ok
  bool cancelled = false;           // by the client or the transport
  bool aborted = false;             // by the server, which stops
};

// gRPC's reactions, timers and the drain report events from any thread; the owner's step runs on
// the worker pool, never twice at a time, and at least once after every event. Once an owner says
// that its steps never block, those that follow a read, a write or Resume() run on the thread that
// reports it: a change of threads costs more than most steps. While a step runs, further events
// gather for the next one. Events are flags, not a queue: a call has at most one
// read and one write outstanding, so nothing grows.
//
// The strand lives inside its owner. A step holds a reference to the owner; a timer and an event of
// an owner that is gone do nothing. `pool` and `timers` are borrowed and outlive the owner.
class CallStrand {
 public:
  CallStrand(WorkerPool* pool, TimerQueue* timers) : pool_(pool), timers_(timers) {}
  ~CallStrand() { Disarm(); }
  CallStrand(const CallStrand&) = delete;
  CallStrand& operator=(const CallStrand&) = delete;

  // Once, before any event. `step` is only called while `owner` is held, and runs under the call's
  // deadline (storage/call_deadline.h).
  void Bind(std::weak_ptr<void> owner, absl::Time deadline,
            std::function<void(const CallEvents&)> step);

  void ReadDone(bool ok);
  void WriteDone(bool ok);
  void Cancelled();
  void Aborted();
  // A step without an event.
  void Poke();
  // The same on the calling thread, if steps do not block. Not from within a step.
  void Resume();

  // From within a step: no later one blocks.
  void StepsDoNotBlock() { inline_.store(true, std::memory_order_release); }

  // From within a step: a step happens at `at` or sooner. An armed timer that fires earlier is
  // kept, since a step too many does no harm; this makes moving a far deadline on cheap.
  // InfiniteDuration arms nothing.
  void ArmAt(absl::Duration at);
  // From within a step, or once no step can run any more.
  void Disarm();

 private:
  enum class Where { kPool, kHere };

  void Run(Where where);
  void Update(Where where, const std::function<void(CallEvents&)>& update);

  WorkerPool* const pool_;
  TimerQueue* const timers_;
  std::weak_ptr<void> owner_;                     // set by Bind
  absl::Time deadline_ = absl::InfiniteFuture();  // set by Bind
  std::function<void(const CallEvents&)> step_;   // set by Bind
  absl::optional<TimerQueue::Id> timer_;          // touched by steps only
  std::atomic<bool> inline_{false};               // steps do not block

  absl::Mutex mutex_;
  CallEvents events_ ABSL_GUARDED_BY(mutex_);
  bool scheduled_ ABSL_GUARDED_BY(mutex_) = false;  // a step is queued or running
  bool again_ ABSL_GUARDED_BY(mutex_) = false;      // and another must follow
};

}  // namespace kvstream

#endif  // KVSTREAM_SERVER_SERVICE_CALL_STRAND_H_

// Admission of calls of one kind: a limit, the number in flight, refusal while draining, and a way
// to end them all.
#ifndef KVSTREAM_SERVER_SERVICE_CALL_TRACKER_H_
#define KVSTREAM_SERVER_SERVICE_CALL_TRACKER_H_

#include <cstdint>
#include <functional>
#include <map>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

namespace kvstream {

// Thread-safe. Must outlive its tickets.
class CallTracker {
 public:
  // A place among the admitted calls; given back on destruction. Move only.
  class Ticket {
   public:
    Ticket() = default;
    ~Ticket() { Release(); }
    Ticket(Ticket&& other) noexcept { *this = std::move(other); }
    Ticket& operator=(Ticket&& other) noexcept;

    void Release();

   private:
    friend class CallTracker;
    Ticket(CallTracker* tracker, uint64_t id) : tracker_(tracker), id_(id) {}

    CallTracker* tracker_ = nullptr;
    uint64_t id_ = 0;
  };

  // `kind` and `option` are for messages: "loads", "--max-loads".
  CallTracker(std::string kind, std::string option, int limit);
  CallTracker(const CallTracker&) = delete;
  CallTracker& operator=(const CallTracker&) = delete;

  // UNAVAILABLE once Close() was called, RESOURCE_EXHAUSTED at the limit. `abort` (may be null) is
  // what AbortAll calls while the ticket lives; it may also run just after the ticket's release, so
  // it must hold what it needs.
  absl::StatusOr<Ticket> Enter(std::function<void()> abort = nullptr);

  // Admits nothing from now on.
  void Close();
  // Calls `abort` of every call in flight, with no lock held.
  void AbortAll();
  int in_flight() const;
  // True once nothing is in flight; false at the timeout.
  bool AwaitNone(absl::Duration timeout) const;

 private:
  void Leave(uint64_t id);
  bool None() const ABSL_SHARED_LOCKS_REQUIRED(mutex_) { return calls_.empty(); }

  const std::string kind_;
  const std::string option_;
  const int limit_;
  mutable absl::Mutex mutex_;
  bool closed_ ABSL_GUARDED_BY(mutex_) = false;
  uint64_t next_id_ ABSL_GUARDED_BY(mutex_) = 1;
  std::map<uint64_t, std::function<void()>> calls_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace kvstream

#endif  // KVSTREAM_SERVER_SERVICE_CALL_TRACKER_H_

// By when the caller of a store needs its answer, for stores that may wait long for others.
#ifndef KVSTREAM_STORAGE_CALL_DEADLINE_H_
#define KVSTREAM_STORAGE_CALL_DEADLINE_H_

#include <algorithm>

#include "absl/time/time.h"

namespace kvstream {

// For as long as it lives, what its thread asks of a store need not go on after the deadline, or
// after that of one around it if that is earlier. A store may heed it or not: a store in a cluster
// ends with UNAVAILABLE then, as if it had not been answered in time. Of the thread, not of the
// call: who hands work to another thread hands on `Current()` too if the work is the call's alone.
class CallDeadline {
 public:
  explicit CallDeadline(absl::Time deadline) : before_(current_) {
    current_ = std::min(current_, deadline);
  }
  ~CallDeadline() { current_ = before_; }
  CallDeadline(const CallDeadline&) = delete;
  CallDeadline& operator=(const CallDeadline&) = delete;

  // No deadline from here on, whatever is around it: for work that others rely on too, or that does
  // more harm half done than late.
  void Lift() { current_ = absl::InfiniteFuture(); }

  // InfiniteFuture: none.
  static absl::Time Current() { return current_; }

 private:
  static inline thread_local absl::Time current_ = absl::InfiniteFuture();
  const absl::Time before_;
};

}  // namespace kvstream

#endif  // KVSTREAM_STORAGE_CALL_DEADLINE_H_

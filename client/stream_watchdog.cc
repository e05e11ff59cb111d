#include "client/stream_watchdog.h"

namespace kvstream {

StreamWatchdog::StreamWatchdog(grpc::ClientContext* context, absl::Duration limit)
    : context_(context), limit_(limit), thread_([this] { Run(); }) {}

StreamWatchdog::~StreamWatchdog() {
  {
    absl::MutexLock lock(&mutex_);
    stopping_ = true;
    changed_.Signal();
  }
  thread_.join();
}

bool StreamWatchdog::bit() const {
  absl::MutexLock lock(&mutex_);
  return bit_;
}

void StreamWatchdog::SetDeadline(absl::Time deadline) {
  absl::MutexLock lock(&mutex_);
  // The thread wakes at the old deadline, sees the new one and sleeps on: no signal a message is
  // needed, except for the first.
  const bool was_idle = deadline_ == absl::InfiniteFuture();
  deadline_ = deadline;
  if (was_idle) changed_.Signal();
}

void StreamWatchdog::Run() {
  mutex_.Lock();
  while (!stopping_ && !bit_) {
    if (deadline_ <= absl::Now()) {
      bit_ = true;
      break;
    }
    changed_.WaitWithDeadline(&mutex_, deadline_);
  }
  const bool bite = bit_;
  mutex_.Unlock();
  if (bite) context_->TryCancel();
}

}  // namespace kvstream

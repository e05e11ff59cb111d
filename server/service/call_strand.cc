#include "server/service/call_strand.h"

#include <utility>

#include "storage/call_deadline.h"

namespace kvstream {
namespace {

// Steps in a row on a thread that is not the pool's, which other calls need too.
constexpr int kStepsHereMax = 8;

}  // namespace

void CallStrand::Bind(std::weak_ptr<void> owner, absl::Time deadline,
                      std::function<void(const CallEvents&)> step) {
  owner_ = std::move(owner);
  deadline_ = deadline;
  step_ = std::move(step);
}

void CallStrand::ReadDone(bool ok) {
  Update(Where::kHere, [ok](CallEvents& events) { events.read_done = ok; });
}

void CallStrand::WriteDone(bool ok) {
  Update(Where::kHere, [ok](CallEvents& events) { events.write_done = ok; });
}

void CallStrand::Cancelled() {
  Update(Where::kPool, [](CallEvents& events) { events.cancelled = true; });
}

void CallStrand::Aborted() {
  Update(Where::kPool, [](CallEvents& events) { events.aborted = true; });
}

void CallStrand::Poke() {
  Update(Where::kPool, [](CallEvents&) {});
}

void CallStrand::Resume() {
  Update(Where::kHere, [](CallEvents&) {});
}

void CallStrand::Update(Where where, const std::function<void(CallEvents&)>& update) {
  std::shared_ptr<void> owner = owner_.lock();
  if (owner == nullptr) return;
  {
    absl::MutexLock lock(&mutex_);
    update(events_);
    if (scheduled_) {
      again_ = true;
      return;
    }
    scheduled_ = true;
  }
  if (where == Where::kHere && inline_.load(std::memory_order_acquire)) {
    Run(Where::kHere);
  } else {
    pool_->Submit([this, owner = std::move(owner)] { Run(Where::kPool); });
  }
}

void CallStrand::Run(Where where) {
  const CallDeadline deadline(deadline_);
  for (int steps = 0;; ++steps) {
    CallEvents events;
    {
      absl::MutexLock lock(&mutex_);
      events = std::exchange(events_, CallEvents());
      again_ = false;
    }
    step_(events);
    {
      absl::MutexLock lock(&mutex_);
      if (!again_) {
        scheduled_ = false;
        return;
      }
    }
    if (where == Where::kPool || steps == kStepsHereMax) break;
  }
  // Behind everybody else who waits for a thread, rather than in a loop here.
  pool_->Submit([this, owner = owner_.lock()] { Run(Where::kPool); });
}

void CallStrand::ArmAt(absl::Duration at) {
  if (at == absl::InfiniteDuration()) return;
  if (timer_.has_value()) {
    if (timer_->at <= at && timer_->at > MonotonicNow()) return;
    timers_->Cancel(*timer_);
  }
  timer_ = timers_->Schedule(at, [this, weak = owner_] {
    const std::shared_ptr<void> owner = weak.lock();
    if (owner != nullptr) Poke();
  });
}

void CallStrand::Disarm() {
  if (timer_.has_value()) timers_->Cancel(*timer_);
  timer_.reset();
}

}  // namespace kvstream

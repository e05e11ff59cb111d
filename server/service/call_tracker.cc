#include "server/service/call_tracker.h"

#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"

namespace kvstream {

CallTracker::Ticket& CallTracker::Ticket::operator=(Ticket&& other) noexcept {
  if (this != &other) {
    Release();
    tracker_ = std::exchange(other.tracker_, nullptr);
    id_ = other.id_;
  }
  return *this;
}

void CallTracker::Ticket::Release() {
  if (tracker_ != nullptr) std::exchange(tracker_, nullptr)->Leave(id_);
}

CallTracker::CallTracker(std::string kind, std::string option, int limit)
    : kind_(std::move(kind)), option_(std::move(option)), limit_(limit) {}

absl::StatusOr<CallTracker::Ticket> CallTracker::Enter(std::function<void()> abort) {
  absl::MutexLock lock(&mutex_);
  if (closed_) {
    return absl::UnavailableError(
        absl::StrCat("the server is draining and takes no new ", kind_, "; try another server"));
  }
  if (calls_.size() >= static_cast<size_t>(limit_)) {
    return absl::ResourceExhaustedError(absl::StrCat(
        "the server has ", limit_, " ", kind_, " in flight (", option_, "); try again later"));
  }
  const uint64_t id = next_id_++;
  calls_.emplace(id, std::move(abort));
  return Ticket(this, id);
}

void CallTracker::Close() {
  absl::MutexLock lock(&mutex_);
  closed_ = true;
}

void CallTracker::AbortAll() {
  std::vector<std::function<void()>> aborts;
  {
    absl::MutexLock lock(&mutex_);
    for (const auto& [id, abort] : calls_) {
      if (abort) aborts.push_back(abort);
    }
  }
  for (const std::function<void()>& abort : aborts) abort();
}

int CallTracker::in_flight() const {
  absl::MutexLock lock(&mutex_);
  return static_cast<int>(calls_.size());
}

bool CallTracker::AwaitNone(absl::Duration timeout) const {
  absl::MutexLock lock(&mutex_);
  return mutex_.AwaitWithTimeout(absl::Condition(this, &CallTracker::None), timeout);
}

void CallTracker::Leave(uint64_t id) {
  std::function<void()> dropped;  // destroyed without the lock
  absl::MutexLock lock(&mutex_);
  const auto call = calls_.find(id);
  if (call == calls_.end()) return;
  dropped = std::move(call->second);
  calls_.erase(call);
}

}  // namespace kvstream

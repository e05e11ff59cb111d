// A bounded amount that calls share: bytes of unfinished uploads, chunks of loads in flight.
#ifndef KVSTREAM_SERVER_SERVICE_BUDGET_H_
#define KVSTREAM_SERVER_SERVICE_BUDGET_H_

#include <algorithm>
#include <cstdint>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"

namespace kvstream {

// Thread-safe. Must outlive its shares.
class Budget {
 public:
  // A part of the budget; given back on destruction. Move only; not thread-safe.
  class Share {
   public:
    Share() = default;
    explicit Share(Budget* budget) : budget_(budget) {}
    ~Share() { Clear(); }
    Share(Share&& other) noexcept { *this = std::move(other); }
    Share& operator=(Share&& other) noexcept {
      if (this != &other) {
        Clear();
        budget_ = other.budget_;
        amount_ = std::exchange(other.amount_, 0);
      }
      return *this;
    }

    // Takes `amount` more; false, and nothing taken, where that much is not left.
    bool Grow(uint64_t amount) {
      if (budget_ == nullptr || !budget_->Take(amount)) return false;
      amount_ += amount;
      return true;
    }
    // Gives back a part of it.
    void Shrink(uint64_t amount) {
      amount = std::min(amount, amount_);
      amount_ -= amount;
      if (amount > 0) budget_->GiveBack(amount);
    }
    void Clear() {
      if (amount_ > 0) budget_->GiveBack(std::exchange(amount_, 0));
    }
    uint64_t amount() const { return amount_; }

   private:
    Budget* budget_ = nullptr;
    uint64_t amount_ = 0;
  };

  explicit Budget(uint64_t limit) : limit_(limit) {}
  Budget(const Budget&) = delete;
  Budget& operator=(const Budget&) = delete;

  uint64_t limit() const {
    absl::MutexLock lock(&mutex_);
    return limit_;
  }
  // What is taken beyond a new limit stays taken.
  void SetLimit(uint64_t limit) {
    absl::MutexLock lock(&mutex_);
    limit_ = limit;
  }
  uint64_t used() const {
    absl::MutexLock lock(&mutex_);
    return used_;
  }

 private:
  bool Take(uint64_t amount) {
    absl::MutexLock lock(&mutex_);
    if (used_ > limit_ || amount > limit_ - used_) return false;
    used_ += amount;
    return true;
  }
  void GiveBack(uint64_t amount) {
    absl::MutexLock lock(&mutex_);
    used_ -= amount;
  }

  mutable absl::Mutex mutex_;
  uint64_t limit_ ABSL_GUARDED_BY(mutex_);
  uint64_t used_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace kvstream

#endif  // KVSTREAM_SERVER_SERVICE_BUDGET_H_

// ThreadSanitizer's eyes for absl::Mutex. Debian's Abseil is not instrumented, so TSan sees none of
// the ordering that its mutexes give and reports every guarded field. The linker (--wrap, see
// BUILD.bazel) sends our calls here; each tells TSan what the real function does. Linked into TSan
// builds only.
#include <sanitizer/tsan_interface.h>

#include "absl/synchronization/mutex.h"

namespace {

constexpr unsigned kRead = __tsan_mutex_read_lock;

// TSan's own mutex calls find wrong lock orders; the pair of acquire and release says the same once
// more for conditions, which Abseil may evaluate inside Unlock() of any thread.
void BeforeLock(void* mutex, unsigned flags = 0) { __tsan_mutex_pre_lock(mutex, flags); }
void AfterLock(void* mutex, unsigned flags = 0) {
  __tsan_mutex_post_lock(mutex, flags, 0);
  __tsan_acquire(mutex);
}
void BeforeUnlock(void* mutex, unsigned flags = 0) {
  __tsan_release(mutex);
  __tsan_mutex_pre_unlock(mutex, flags);
}
void AfterUnlock(void* mutex, unsigned flags = 0) { __tsan_mutex_post_unlock(mutex, flags); }

// A condition that tells TSan that it runs with the mutex held, on whatever thread.
class SeenCondition {
 public:
  SeenCondition(void* mutex, const absl::Condition* condition)
      : mutex_(mutex), condition_(condition), seen_(&SeenCondition::Eval, this) {}
  const absl::Condition* get() const { return &seen_; }

 private:
  static bool Eval(SeenCondition* self) {
    __tsan_acquire(self->mutex_);
    const bool result = self->condition_->Eval();
    __tsan_release(self->mutex_);
    return result;
  }

  void* mutex_;
  const absl::Condition* condition_;
  absl::Condition seen_;
};

// Around a call that releases the mutex, waits, and takes it again.
class ReleasedScope {
 public:
  explicit ReleasedScope(void* mutex) : mutex_(mutex) {
    BeforeUnlock(mutex_);
    AfterUnlock(mutex_);
    BeforeLock(mutex_);
  }
  ~ReleasedScope() { AfterLock(mutex_); }

 private:
  void* mutex_;
};

}  // namespace

// The mangled names of absl::Mutex's and absl::CondVar's members in Abseil 20220623; `this` is the
// first argument.
extern "C" {

void __real__ZN4absl7debian35Mutex4LockEv(void* mutex);
void __wrap__ZN4absl7debian35Mutex4LockEv(void* mutex) {
  BeforeLock(mutex);
  __real__ZN4absl7debian35Mutex4LockEv(mutex);
  AfterLock(mutex);
}

void __real__ZN4absl7debian35Mutex6UnlockEv(void* mutex);
void __wrap__ZN4absl7debian35Mutex6UnlockEv(void* mutex) {
  BeforeUnlock(mutex);
  __real__ZN4absl7debian35Mutex6UnlockEv(mutex);
  AfterUnlock(mutex);
}

void __real__ZN4absl7debian35Mutex10ReaderLockEv(void* mutex);
void __wrap__ZN4absl7debian35Mutex10ReaderLockEv(void* mutex) {
  BeforeLock(mutex, kRead);
  __real__ZN4absl7debian35Mutex10ReaderLockEv(mutex);
  AfterLock(mutex, kRead);
}

void __real__ZN4absl7debian35Mutex12ReaderUnlockEv(void* mutex);
void __wrap__ZN4absl7debian35Mutex12ReaderUnlockEv(void* mutex) {
  BeforeUnlock(mutex, kRead);
  __real__ZN4absl7debian35Mutex12ReaderUnlockEv(mutex);
  AfterUnlock(mutex, kRead);
}

bool __real__ZN4absl7debian35Mutex7TryLockEv(void* mutex);
bool __wrap__ZN4absl7debian35Mutex7TryLockEv(void* mutex) {
  __tsan_mutex_pre_lock(mutex, __tsan_mutex_try_lock);
  const bool locked = __real__ZN4absl7debian35Mutex7TryLockEv(mutex);
  __tsan_mutex_post_lock(mutex,
                         __tsan_mutex_try_lock | (locked ? 0u : __tsan_mutex_try_lock_failed), 0);
  return locked;
}

void __real__ZN4absl7debian35Mutex8LockWhenERKNS0_9ConditionE(void* mutex,
                                                              const absl::Condition* condition);
void __wrap__ZN4absl7debian35Mutex8LockWhenERKNS0_9ConditionE(void* mutex,
                                                              const absl::Condition* condition) {
  BeforeLock(mutex);
  __real__ZN4absl7debian35Mutex8LockWhenERKNS0_9ConditionE(mutex,
                                                           SeenCondition(mutex, condition).get());
  AfterLock(mutex);
}

bool __real__ZN4absl7debian35Mutex19LockWhenWithTimeoutERKNS0_9ConditionENS0_8DurationE(
    void* mutex, const absl::Condition* condition, absl::Duration timeout);
bool __wrap__ZN4absl7debian35Mutex19LockWhenWithTimeoutERKNS0_9ConditionENS0_8DurationE(
    void* mutex, const absl::Condition* condition, absl::Duration timeout) {
  BeforeLock(mutex);
  const bool result =
      __real__ZN4absl7debian35Mutex19LockWhenWithTimeoutERKNS0_9ConditionENS0_8DurationE(
          mutex, SeenCondition(mutex, condition).get(), timeout);
  AfterLock(mutex);
  return result;
}

void __real__ZN4absl7debian35Mutex5AwaitERKNS0_9ConditionE(void* mutex,
                                                           const absl::Condition* condition);
void __wrap__ZN4absl7debian35Mutex5AwaitERKNS0_9ConditionE(void* mutex,
                                                           const absl::Condition* condition) {
  ReleasedScope released(mutex);
  __real__ZN4absl7debian35Mutex5AwaitERKNS0_9ConditionE(mutex,
                                                        SeenCondition(mutex, condition).get());
}

bool __real__ZN4absl7debian35Mutex16AwaitWithTimeoutERKNS0_9ConditionENS0_8DurationE(
    void* mutex, const absl::Condition* condition, absl::Duration timeout);
bool __wrap__ZN4absl7debian35Mutex16AwaitWithTimeoutERKNS0_9ConditionENS0_8DurationE(
    void* mutex, const absl::Condition* condition, absl::Duration timeout) {
  ReleasedScope released(mutex);
  return __real__ZN4absl7debian35Mutex16AwaitWithTimeoutERKNS0_9ConditionENS0_8DurationE(
      mutex, SeenCondition(mutex, condition).get(), timeout);
}

bool __real__ZN4absl7debian35Mutex17AwaitWithDeadlineERKNS0_9ConditionENS0_4TimeE(
    void* mutex, const absl::Condition* condition, absl::Time deadline);
bool __wrap__ZN4absl7debian35Mutex17AwaitWithDeadlineERKNS0_9ConditionENS0_4TimeE(
    void* mutex, const absl::Condition* condition, absl::Time deadline) {
  ReleasedScope released(mutex);
  return __real__ZN4absl7debian35Mutex17AwaitWithDeadlineERKNS0_9ConditionENS0_4TimeE(
      mutex, SeenCondition(mutex, condition).get(), deadline);
}

void __real__ZN4absl7debian37CondVar4WaitEPNS0_5MutexE(void* variable, void* mutex);
void __wrap__ZN4absl7debian37CondVar4WaitEPNS0_5MutexE(void* variable, void* mutex) {
  ReleasedScope released(mutex);
  __real__ZN4absl7debian37CondVar4WaitEPNS0_5MutexE(variable, mutex);
}

bool __real__ZN4absl7debian37CondVar15WaitWithTimeoutEPNS0_5MutexENS0_8DurationE(
    void* variable, void* mutex, absl::Duration timeout);
bool __wrap__ZN4absl7debian37CondVar15WaitWithTimeoutEPNS0_5MutexENS0_8DurationE(
    void* variable, void* mutex, absl::Duration timeout) {
  ReleasedScope released(mutex);
  return __real__ZN4absl7debian37CondVar15WaitWithTimeoutEPNS0_5MutexENS0_8DurationE(
      variable, mutex, timeout);
}

bool __real__ZN4absl7debian37CondVar16WaitWithDeadlineEPNS0_5MutexENS0_4TimeE(void* variable,
                                                                              void* mutex,
                                                                              absl::Time deadline);
bool __wrap__ZN4absl7debian37CondVar16WaitWithDeadlineEPNS0_5MutexENS0_4TimeE(void* variable,
                                                                              void* mutex,
                                                                              absl::Time deadline) {
  ReleasedScope released(mutex);
  return __real__ZN4absl7debian37CondVar16WaitWithDeadlineEPNS0_5MutexENS0_4TimeE(variable, mutex,
                                                                                  deadline);
}

void __real__ZN4absl7debian312Notification6NotifyEv(void* notification);
void __wrap__ZN4absl7debian312Notification6NotifyEv(void* notification) {
  __tsan_release(notification);
  __real__ZN4absl7debian312Notification6NotifyEv(notification);
}

void __real__ZNK4absl7debian312Notification19WaitForNotificationEv(const void* notification);
void __wrap__ZNK4absl7debian312Notification19WaitForNotificationEv(const void* notification) {
  __real__ZNK4absl7debian312Notification19WaitForNotificationEv(notification);
  __tsan_acquire(const_cast<void*>(notification));
}

}  // extern "C"

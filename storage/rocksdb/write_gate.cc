#include "storage/rocksdb/write_gate.h"

namespace kvstream {

bool WriteGate::EnterBy(absl::Time deadline) {
  absl::MutexLock lock(&mutex_);
  if (!open_ && !mutex_.AwaitWithDeadline(absl::Condition(&open_), deadline)) return false;
  ++inside_;
  return true;
}

void WriteGate::Leave() {
  absl::MutexLock lock(&mutex_);
  --inside_;
}

void WriteGate::Shut() {
  absl::MutexLock lock(&mutex_);
  open_ = false;
}

void WriteGate::AwaitEmpty() {
  absl::MutexLock lock(&mutex_);
  mutex_.Await(absl::Condition(this, &WriteGate::Empty));
}

void WriteGate::Open() {
  absl::MutexLock lock(&mutex_);
  open_ = true;
}

}  // namespace kvstream

#include "storage/rocksdb/flush_gate.h"

#include <algorithm>
#include <iterator>
#include <thread>
#include <utility>

#include "absl/time/clock.h"
#include "absl/time/time.h"

namespace kvstream {
namespace {

// The gate whose entrance this thread's job stands in.
thread_local const FlushGate* t_entrance = nullptr;
// This thread's job has written a table.
thread_local bool t_flushed = false;

// What a flush takes at most to see whether RocksDB is stopped.
constexpr absl::Duration kEntranceMax = absl::Milliseconds(500);
// What a Resume that fails takes at most to return after the flush that failed.
constexpr absl::Duration kEndOfFailedResume = absl::Seconds(2);

}  // namespace

struct FlushGate::Job {
  std::shared_ptr<FlushGate> gate;
  rocksdb::Env* env;
  void (*function)(void*);
  void* argument;
  rocksdb::Env::Priority priority;
  void* tag;
  void (*unschedule)(void*);
  bool let_in;  // though the gate is closed

  static void Schedule(std::unique_ptr<Job> job) {
    rocksdb::Env* const env = job->env;
    const rocksdb::Env::Priority priority = job->priority;
    void* const tag = job->tag;
    env->Schedule(&Job::Run, job.release(), priority, tag, &Job::Unschedule);
  }
  static void Run(void* job) {
    std::unique_ptr<Job> owned(static_cast<Job*>(job));
    const std::shared_ptr<FlushGate> gate = owned->gate;
    gate->Run(std::move(owned));
  }
  static void Unschedule(void* job) {
    const std::unique_ptr<Job> owned(static_cast<Job*>(job));
    if (owned->let_in) owned->gate->Forget();
    if (owned->unschedule != nullptr) owned->unschedule(owned->argument);
  }
};

class FlushGate::GatedEnv final : public rocksdb::EnvWrapper {
 public:
  GatedEnv(rocksdb::Env* env, std::shared_ptr<FlushGate> gate)
      : EnvWrapper(env), gate_(std::move(gate)) {
    // EnvWrapper's own would go through an adapter from Env back to FileSystem.
    file_system_ = env->GetFileSystem();
    system_clock_ = env->GetSystemClock();
  }

  void Schedule(void (*function)(void*), void* argument, Priority priority, void* tag,
                void (*unschedule)(void*)) override {
    if (priority != Priority::HIGH) {
      target()->Schedule(function, argument, priority, tag, unschedule);
      return;
    }
    auto job = std::make_unique<Job>();
    *job = {gate_, target(), function, argument, priority, tag, unschedule, /*let_in=*/false};
    Job::Schedule(std::move(job));
  }

  int UnSchedule(void* tag, Priority priority) override {
    std::vector<std::unique_ptr<Job>> dropped;
    {
      absl::MutexLock lock(&gate_->mutex_);
      auto& held = gate_->held_;
      const auto kept = std::partition(held.begin(), held.end(), [&](const auto& job) {
        return job->tag != tag || job->priority != priority;
      });
      dropped.assign(std::make_move_iterator(kept), std::make_move_iterator(held.end()));
      held.erase(kept, held.end());
    }
    const int count = static_cast<int>(dropped.size());
    for (auto& job : dropped) Job::Unschedule(job.release());
    return count + target()->UnSchedule(tag, priority);
  }

 private:
  const std::shared_ptr<FlushGate> gate_;
};

FlushGate::FlushGate() = default;
FlushGate::~FlushGate() = default;

std::unique_ptr<rocksdb::Env> FlushGate::Wrap(rocksdb::Env* env) {
  return std::make_unique<GatedEnv>(env, shared_from_this());
}

void FlushGate::Run(std::unique_ptr<Job> job) {
  {
    absl::MutexLock lock(&mutex_);
    if (!open_ && !job->let_in) {
      held_.push_back(std::move(job));
      return;
    }
    if (!job->let_in) Admit();
  }
  Work(std::move(job));
}

void FlushGate::Admit() {
  ++entering_;
  ++running_;
}

void FlushGate::Work(std::unique_ptr<Job> job) {
  t_entrance = this;
  t_flushed = false;
  job->function(job->argument);
  absl::MutexLock lock(&mutex_);
  LeaveEntrance();
  --running_;
  // RocksDB tells listeners only of the first error. This may also have had nothing to do.
  if (!t_flushed) NoteError();
}

void FlushGate::Forget() {
  absl::MutexLock lock(&mutex_);
  --entering_;
  --running_;
}

void FlushGate::NoteError() {
  for (Call& call : calls_) call.last_error = absl::Now();
}

void FlushGate::LeaveEntrance() {
  if (t_entrance != this) return;
  t_entrance = nullptr;
  --entering_;
}

void FlushGate::OnFlushBegin(rocksdb::DB* /*db*/, const rocksdb::FlushJobInfo& /*info*/) {
  absl::MutexLock lock(&mutex_);
  LeaveEntrance();
}

void FlushGate::OnFlushCompleted(rocksdb::DB* /*db*/, const rocksdb::FlushJobInfo& /*info*/) {
  t_flushed = true;
}

void FlushGate::OnBackgroundError(rocksdb::BackgroundErrorReason /*reason*/,
                                  rocksdb::Status* error) {
  if (error->ok() || error->severity() == rocksdb::Status::Severity::kNoError) return;
  absl::MutexLock lock(&mutex_);
  LeaveEntrance();  // a flush that fails has begun
  NoteError();
  if (for_ever_) return;
  open_ = false;
  // Those who were let in may still find the error if it counts at once. They are about to begin;
  // but one that has begun and syncs the log may wait for the caller of this.
  mutex_.AwaitWithTimeout(absl::Condition(this, &FlushGate::NobodyEnters), kEntranceMax);
}

std::vector<std::unique_ptr<FlushGate::Job>> FlushGate::LetIn() {
  for (const auto& job : held_) {
    job->let_in = true;
    Admit();
  }
  return std::move(held_);
}

std::vector<std::unique_ptr<FlushGate::Job>> FlushGate::Open() {
  open_ = true;
  return std::move(held_);
}

void FlushGate::OpenForEver() {
  std::vector<std::unique_ptr<Job>> held;
  {
    absl::MutexLock lock(&mutex_);
    for_ever_ = true;
    held = Open();
  }
  for (auto& job : held) Job::Schedule(std::move(job));
}

bool FlushGate::IsUnderWay(const Call& call, uint64_t number) const {
  if (!call.running || call.number != number || running_ > 0) return false;
  // An error since then ends it, unless it waits for what is held back, which no error ends.
  return absl::Now() - call.last_error > kEndOfFailedResume;
}

void FlushGate::ResumeBy(size_t caller, rocksdb::DB* db, rocksdb::Status* result) {
  Call& mine = calls_[caller];
  const Call& other = calls_[1 - caller];
  while (true) {
    uint64_t others_number = 0;
    {
      absl::MutexLock lock(&mutex_);
      if (resumed_) return;
      mine.running = true;
      ++mine.number;
      mine.last_error = absl::InfinitePast();
      others_number = other.number;
    }
    const rocksdb::Status status = db->Resume();
    std::vector<std::unique_ptr<Job>> held;
    {
      absl::MutexLock lock(&mutex_);
      mine.running = false;
      if (status.IsBusy()) {
        if (IsUnderWay(other, others_number)) held = LetIn();
      } else {
        *result = status;
        last_ = caller;
        resumed_ = !other.running || for_ever_;
      }
    }
    for (auto& job : held) Job::Schedule(std::move(job));
    absl::SleepFor(absl::Milliseconds(1));
  }
}

rocksdb::Status FlushGate::Resume(rocksdb::DB* db) {
  // A Resume begins with waiting for the flushes that are held back. That it has begun is told only
  // to a second caller, namely that RocksDB is busy: so there are two, and neither leaves while the
  // other is in a call.
  {
    absl::MutexLock lock(&mutex_);
    resumed_ = false;
  }
  rocksdb::Status results[2];
  std::thread second([&] { ResumeBy(1, db, &results[1]); });
  ResumeBy(0, db, &results[0]);
  second.join();
  std::vector<std::unique_ptr<Job>> held;
  rocksdb::Status status;
  {
    absl::MutexLock lock(&mutex_);
    status = results[last_];
    if (status.ok()) held = Open();
    if (!status.ok()) open_ = for_ever_;
  }
  for (auto& job : held) Job::Schedule(std::move(job));
  return status;
}

}  // namespace kvstream

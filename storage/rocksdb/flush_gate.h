// Keeps RocksDB from forgetting a flush when an error stops its background work.
#ifndef KVSTREAM_STORAGE_ROCKSDB_FLUSH_GATE_H_
#define KVSTREAM_STORAGE_ROCKSDB_FLUSH_GATE_H_

#include <rocksdb/db.h>
#include <rocksdb/env.h>
#include <rocksdb/listener.h>
#include <rocksdb/status.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

namespace kvstream {

// In RocksDB 7.8 a flush whose turn comes after an error has stopped the background work, and
// before DB::Resume has begun, ends at once and is never scheduled again: the Resume waits for it
// for ever. So while that may be, flushes are held back here: from just before the error counts
// until the Resume is under way.
//
// To be one of the database's listeners, and its Env must be Wrap's. Thread-safe.
class FlushGate final : public rocksdb::EventListener,
                        public std::enable_shared_from_this<FlushGate> {
 public:
  FlushGate();
  ~FlushGate() override;

  // `env` is borrowed for the result's life.
  std::unique_ptr<rocksdb::Env> Wrap(rocksdb::Env* env);

  // DB::Resume, and what was held back; returns what the last attempt did. By one thread at a time.
  // Starts a thread for its time, and where flushes that were held back fail, takes some three
  // seconds for each of them (RocksDB sleeps one).
  rocksdb::Status Resume(rocksdb::DB* db);
  // From here on nothing is held back: the database is about to be closed.
  void OpenForEver();

  // Blocks for half a second at most, for flushes that are about to begin.
  void OnBackgroundError(rocksdb::BackgroundErrorReason reason, rocksdb::Status* error) override;
  void OnFlushBegin(rocksdb::DB* db, const rocksdb::FlushJobInfo& info) override;
  void OnFlushCompleted(rocksdb::DB* db, const rocksdb::FlushJobInfo& info) override;

 private:
  class GatedEnv;
  struct Job;

  // A call of DB::Resume by one of the two threads of Resume().
  struct Call {
    bool running = false;
    uint64_t number = 0;                           // counts the thread's calls
    absl::Time last_error = absl::InfinitePast();  // since its beginning
  };

  void ResumeBy(size_t caller, rocksdb::DB* db, rocksdb::Status* result);
  // Whether RocksDB, busy a moment ago with that call, stays so until what is held back has run.
  bool IsUnderWay(const Call& call, uint64_t number) const ABSL_SHARED_LOCKS_REQUIRED(mutex_);
  // What is held back now, or all from now on. Returns what is to be scheduled then, without the
  // lock.
  std::vector<std::unique_ptr<Job>> LetIn() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  std::vector<std::unique_ptr<Job>> Open() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Run(std::unique_ptr<Job> job);
  void Work(std::unique_ptr<Job> job);
  void Admit() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // A job that was let in and will not run.
  void Forget();
  void NoteError() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Of the thread's job, if RocksDB may not have looked at it yet.
  void LeaveEntrance() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool NobodyEnters() const ABSL_SHARED_LOCKS_REQUIRED(mutex_) { return entering_ == 0; }

  absl::Mutex mutex_;
  bool open_ ABSL_GUARDED_BY(mutex_) = true;
  bool for_ever_ ABSL_GUARDED_BY(mutex_) = false;
  // Jobs that were let in and of which RocksDB may not have seen whether it is stopped.
  int entering_ ABSL_GUARDED_BY(mutex_) = 0;
  int running_ ABSL_GUARDED_BY(mutex_) = 0;
  std::vector<std::unique_ptr<Job>> held_ ABSL_GUARDED_BY(mutex_);
  Call calls_[2] ABSL_GUARDED_BY(mutex_);
  bool resumed_ ABSL_GUARDED_BY(mutex_) = false;
  size_t last_ ABSL_GUARDED_BY(mutex_) = 0;  // whose call told the result
};

}  // namespace kvstream

#endif  // KVSTREAM_STORAGE_ROCKSDB_FLUSH_GATE_H_

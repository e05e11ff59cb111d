// The thread that lets a store's chunks expire.
#ifndef KVSTREAM_SERVER_SERVICE_EXPIRY_SWEEPER_H_
#define KVSTREAM_SERVER_SERVICE_EXPIRY_SWEEPER_H_

#include <cstddef>
#include <functional>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "storage/chunk_store.h"

namespace kvstream {

// Works from its construction to Stop(). In small batches with pauses between them, so that
// requests never wait for more than one batch.
class ExpirySweeper {
 public:
  struct Options {
    absl::Duration interval = absl::Seconds(5);  // between two looks
    std::function<absl::Time()> now;
    // Told of every look, on the sweeper's thread: what has expired, or why nothing could.
    std::function<void(const absl::StatusOr<size_t>& expired)> report;
  };
  // Chunks of one batch.
  static constexpr size_t kBatch = 256;

  // `store` is borrowed until Stop() has returned.
  ExpirySweeper(ChunkStore* store, Options options);
  ~ExpirySweeper();
  ExpirySweeper(const ExpirySweeper&) = delete;
  ExpirySweeper& operator=(const ExpirySweeper&) = delete;

  // Waits for a batch that is under way.
  void Stop();

 private:
  void Work();

  ChunkStore* const store_;
  const Options options_;
  absl::Mutex mutex_;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace kvstream

#endif  // KVSTREAM_SERVER_SERVICE_EXPIRY_SWEEPER_H_

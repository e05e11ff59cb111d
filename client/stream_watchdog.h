// Ends a blocking gRPC stream whose other side does not move.
#ifndef KVSTREAM_CLIENT_STREAM_WATCHDOG_H_
#define KVSTREAM_CLIENT_STREAM_WATCHDOG_H_

#include <grpcpp/client_context.h>

#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"

namespace kvstream {

// A deadline for single reads and writes of a stream, since one for the whole stream would have to
// know its size and the link. Owned by the thread that uses the stream; the context must outlive
// it.
class StreamWatchdog {
 public:
  StreamWatchdog(grpc::ClientContext* context, absl::Duration limit);
  ~StreamWatchdog();
  StreamWatchdog(const StreamWatchdog&) = delete;

  // While one of these lives, the stream is cancelled if that lasts longer than the limit.
  class Watch {
   public:
    explicit Watch(StreamWatchdog* dog) : dog_(dog) {
      dog_->SetDeadline(absl::Now() + dog_->limit_);
    }
    ~Watch() { dog_->SetDeadline(absl::InfiniteFuture()); }
    Watch(const Watch&) = delete;

   private:
    StreamWatchdog* const dog_;
  };

  // Whether it has cancelled the stream.
  bool bit() const;

 private:
  void SetDeadline(absl::Time deadline);
  void Run();

  grpc::ClientContext* const context_;
  const absl::Duration limit_;
  mutable absl::Mutex mutex_;
  absl::CondVar changed_;
  absl::Time deadline_ ABSL_GUARDED_BY(mutex_) = absl::InfiniteFuture();
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  bool bit_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace kvstream

#endif  // KVSTREAM_CLIENT_STREAM_WATCHDOG_H_

// The Load stream on the wire, as a queue of events.
#ifndef KVSTREAM_CLIENT_LOAD_TRANSPORT_H_
#define KVSTREAM_CLIENT_LOAD_TRANSPORT_H_

#include <grpcpp/alarm.h>
#include <grpcpp/client_context.h>
#include <grpcpp/completion_queue.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/support/async_stream.h>
#include <grpcpp/support/byte_buffer.h>
#include <grpcpp/support/status.h>

#include <atomic>
#include <memory>

#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "absl/types/optional.h"
#include "kvstream/v1/kvstream.pb.h"

namespace kvstream {

// One Load call over a completion queue of its own, read as raw messages (grpc::ByteBuffer) so that
// segment bytes are copied only once. Owned and driven by one thread; only Wake() may be called by
// others, and not after the destructor has begun.
class LoadTransport {
 public:
  enum class Event {
    kStarted,  // Write() may be called
    kMessage,  // one more message; the next read is already under way
    kWritten,  // the write under way is done; whether it arrives is known at kEnd only
    kWake,     // somebody called Wake()
    kTimeout,  // nothing happened for as long as was asked
    kEnd,      // the call is over; status() says how. Nothing but kWake and kTimeout follows
  };

  explicit LoadTransport(const std::shared_ptr<grpc::Channel>& channel);
  // Cancels the call if it is not over and waits for the library to let go of it.
  ~LoadTransport();
  LoadTransport(const LoadTransport&) = delete;

  // Starts the call; connects first if need be.
  void Start();
  // Precondition: kStarted has come, and can_write().
  void Write(const v1::LoadRequest& request);
  // No more writes. Same precondition.
  void WritesDone();
  bool can_write() const { return started_ && !write_under_way_ && !half_closed_ && !reads_ended_; }
  // Ends the call soon with CANCELLED.
  void Cancel() { context_->TryCancel(); }
  // Once over(), and with nothing else that could Wake(): a new call, as if nothing had been.
  void Restart();
  // Makes Next() return kWake once, soon. Calls before that return are one.
  void Wake();

  // Blocks. `message` is set with kMessage only.
  Event Next(absl::Duration timeout, grpc::ByteBuffer* message);
  const grpc::Status& status() const { return status_; }
  bool over() const { return over_; }
  // After kEnd; none if the server sent no such metadata. Valid until Restart().
  absl::optional<absl::string_view> trailing(absl::string_view key) const;

 private:
  using Stub = grpc::TemplatedGenericStub<v1::LoadRequest, grpc::ByteBuffer>;
  using Stream = grpc::ClientAsyncReaderWriter<v1::LoadRequest, grpc::ByteBuffer>;

  void FinishWhenQuiet();

  absl::optional<grpc::ClientContext> context_;  // always there; made anew by Restart()
  grpc::CompletionQueue queue_;
  Stub stub_;
  std::unique_ptr<Stream> stream_;
  grpc::ByteBuffer incoming_;
  grpc::Status status_;
  bool launched_ = false;
  bool started_ = false;
  bool write_under_way_ = false;
  bool half_closed_ = false;
  bool reads_ended_ = false;
  bool finishing_ = false;
  bool over_ = false;
  std::atomic<bool> wake_pending_{false};
  grpc::Alarm wake_alarm_;  // set only by whoever turned wake_pending_ on
};

}  // namespace kvstream

#endif  // KVSTREAM_CLIENT_LOAD_TRANSPORT_H_

// What is left of a load that its caller has already taken.
#ifndef KVSTREAM_CLIENT_FAREWELL_H_
#define KVSTREAM_CLIENT_FAREWELL_H_

#include <list>
#include <memory>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "client/load_transport.h"

namespace kvstream {

// A client that takes its chunks at the deadline does not wait for what is still in flight, but the
// server has to hear of it, and the connection is other calls' too: the stream is read to its end
// in the background. Thread-safe; one thread a farewell.
class Farewells {
 public:
  Farewells() = default;
  // Cancels those that are not over.
  ~Farewells();
  Farewells(const Farewells&) = delete;

  // Lets the call end by itself for at most two seconds. With too many of them under way it is
  // cancelled at once.
  void Say(std::unique_ptr<LoadTransport> transport);

 private:
  struct Farewell {
    std::unique_ptr<LoadTransport> transport;
    std::thread thread;
    bool over = false;
  };
  void Run(Farewell* farewell);
  void JoinThoseOver() ABSL_LOCKS_EXCLUDED(mutex_);

  absl::Mutex mutex_;
  std::list<Farewell> farewells_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace kvstream

#endif  // KVSTREAM_CLIENT_FAREWELL_H_

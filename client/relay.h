// A user-space TCP link of a given speed: accepts connections and passes their bytes on to one
// target, both ways through a LinkModel.
#ifndef KVSTREAM_CLIENT_RELAY_H_
#define KVSTREAM_CLIENT_RELAY_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "client/rate_trace.h"
#include "client/units.h"

namespace kvstream {

// Stands in for a network where root, namespaces and tc are not at hand. Bytes pass unmodified and
// in order. Each direction has the trace's rate, shared by all connections (full duplex), counted
// in bytes of TCP payload; each has the delay one way, so a round trip takes twice the delay and
// the queueing. When a direction's queue is full (LinkModel::Room) the relay stops reading, so that
// the sender feels the bottleneck through its socket. It does not lose packets and connects to the
// target without delay.
//
// Memory: at most LinkModel::capacity_bytes() and the socket buffers per connection and direction.
class Relay {
 public:
  struct Options {
    HostPort listen;  // port 0: the system chooses
    HostPort target;
    RateTrace trace = RateTrace::Constant(125e6);  // begins when the first connection comes
    absl::Duration delay;                          // one way; 0 to 10 s
    int connections_max = 1024;                    // more are closed at once
    // Optional. Told, on Run()'s thread, about connections that could not be made; one line each.
    std::function<void(const std::string&)> warn;
  };
  struct Counts {
    uint64_t connections = 0;
    uint64_t bytes_to_target = 0;  // delivered
    uint64_t bytes_to_client = 0;
  };

  // Listens. INVALID_ARGUMENT for options out of range or names that do not resolve; else the
  // operating system's error.
  static absl::StatusOr<std::unique_ptr<Relay>> Create(Options options);
  virtual ~Relay() = default;

  // Where it listens; the port is the real one.
  virtual HostPort address() const = 0;
  // Serves until Stop(), then closes every connection. One thread, once. Errors of connections end
  // only them.
  virtual absl::Status Run() = 0;
  // Any thread, and from a signal handler.
  virtual void Stop() = 0;
  // After Run() has returned.
  virtual Counts counts() const = 0;
};

}  // namespace kvstream

#endif  // KVSTREAM_CLIENT_RELAY_H_

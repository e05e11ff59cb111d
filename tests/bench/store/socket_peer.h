// Values over bare TCP: what any server pays that sends from its memory, as a floor beside Redis.
#ifndef KVSTREAM_TESTS_BENCH_STORE_SOCKET_PEER_H_
#define KVSTREAM_TESTS_BENCH_STORE_SOCKET_PEER_H_

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "tests/bench/store/child_process.h"
#include "tests/bench/store/pass.h"
#include "tests/bench/store/values.h"

namespace kvstream::bench {

// The program that started a peer, called with this word first, is the server.
constexpr char kServeValues[] = "--serve-values";

// `words` after kServeValues: KiB of a value, values, port. Generates the values and sends the one
// whose number (4 bytes, little-endian) a client writes; a thread each connection. Returns only if
// it cannot listen.
int ServeValues(const std::vector<std::string>& words);

// Not thread-safe. One server for one set.
class SocketPeer {
 public:
  // `dir` is for its log. UNAVAILABLE: it did not come up.
  static absl::StatusOr<std::unique_ptr<SocketPeer>> Start(const ValueSet& values,
                                                           const std::string& dir);
  ~SocketPeer();

  // Asks for all values over each of so many connections at once, one request ahead. The client
  // reads a value into its place at once, with nothing in between. DATA_LOSS: a value is not what
  // was stored.
  absl::StatusOr<Pass> Get(const ValueSet& values, int connections);

 private:
  SocketPeer(std::unique_ptr<ChildProcess> process, int port)
      : process_(std::move(process)), port_(port) {}

  absl::Status Connect();

  const std::unique_ptr<ChildProcess> process_;
  const int port_;
  std::vector<int> connections_;
};

}  // namespace kvstream::bench

#endif  // KVSTREAM_TESTS_BENCH_STORE_SOCKET_PEER_H_

// redis-server and a hiredis connection to it.
#ifndef KVSTREAM_TESTS_BENCH_STORE_REDIS_PEER_H_
#define KVSTREAM_TESTS_BENCH_STORE_REDIS_PEER_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "tests/bench/store/child_process.h"
#include "tests/bench/store/pass.h"
#include "tests/bench/store/values.h"

struct redisContext;

namespace kvstream::bench {

// Not thread-safe. In memory only: no snapshots, no append-only file.
class RedisPeer {
 public:
  // `dir` is for its log. UNAVAILABLE: it did not come up.
  static absl::StatusOr<std::unique_ptr<RedisPeer>> Start(const std::string& dir);
  ~RedisPeer();

  absl::Status Store(const ValueSet& values);
  // GETs all values over each of so many connections at once, with `depth` requests in flight on
  // each. DATA_LOSS: a value is not what was stored.
  absl::StatusOr<Pass> Get(const ValueSet& values, int depth, int connections = 1);

 private:
  RedisPeer(std::unique_ptr<ChildProcess> process, int port)
      : process_(std::move(process)), port_(port) {}

  absl::Status Connect();

  const std::unique_ptr<ChildProcess> process_;
  const int port_;
  std::vector<redisContext*> connections_;
};

}  // namespace kvstream::bench

#endif  // KVSTREAM_TESTS_BENCH_STORE_REDIS_PEER_H_

// kvstreamd with a RocksDB store, and a raw client of it.
#ifndef KVSTREAM_TESTS_BENCH_STORE_DAEMON_H_
#define KVSTREAM_TESTS_BENCH_STORE_DAEMON_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "grpcpp/channel.h"
#include "kvstream/v1/kvstream.grpc.pb.h"
#include "tests/bench/store/child_process.h"
#include "tests/bench/store/pass.h"
#include "tests/bench/store/values.h"

namespace kvstream::bench {

struct DaemonOptions {
  std::string binary;
  std::string data_dir;
  std::string work_dir;  // log and ports file
  std::vector<std::string> flags;
};

// Not thread-safe. One connection, but for Load.
class Daemon {
 public:
  // UNAVAILABLE: it did not come up.
  static absl::StatusOr<std::unique_ptr<Daemon>> Start(const DaemonOptions& options);
  absl::Status Stop() { return process_->Stop(); }

  absl::Status PutProfile(const Profile& profile);
  // One upload for all chunks. The profile must be there.
  absl::Status Put(const ValueSet& values);
  // One Load of all values at a fixed level over each of so many connections at once, received as
  // the client library does but not decoded: every value is put together in one piece of memory and
  // hashed. DATA_LOSS: a value is not what was stored.
  absl::StatusOr<Pass> Load(const ValueSet& values, int connections = 1);
  // Chunks of the longest prefix.
  absl::StatusOr<uint32_t> Lookup(const Profile& profile, const std::vector<ChunkId>& ids);
  double CpuSeconds() const { return process_->CpuSeconds(); }

 private:
  Daemon(std::unique_ptr<ChildProcess> process, int port);

  const std::unique_ptr<ChildProcess> process_;
  const int port_;
  std::vector<std::shared_ptr<grpc::Channel>> channels_;  // at least one
  std::unique_ptr<v1::KVStream::Stub> stub_;
};

}  // namespace kvstream::bench

#endif  // KVSTREAM_TESTS_BENCH_STORE_DAEMON_H_

// A server that the benchmark starts, watches and stops.
#ifndef KVSTREAM_TESTS_BENCH_STORE_CHILD_PROCESS_H_
#define KVSTREAM_TESTS_BENCH_STORE_CHILD_PROCESS_H_

#include <sys/types.h>

#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace kvstream::bench {

// Not thread-safe. The process dies with its owner, whatever becomes of that.
class ChildProcess {
 public:
  // argv[0] is looked up in PATH. stdout and stderr go to `log_path`. UNAVAILABLE: no process.
  static absl::StatusOr<std::unique_ptr<ChildProcess>> Start(const std::vector<std::string>& argv,
                                                             const std::string& log_path);
  // Stops it if Stop() has not.
  ~ChildProcess();
  ChildProcess(const ChildProcess&) = delete;

  // SIGTERM, after `patience` SIGKILL; waits for the end. INTERNAL unless it exited with 0.
  absl::Status Stop(absl::Duration patience = absl::Seconds(60));
  // False once it has ended by itself.
  bool Running();
  // Of all its threads, user and system; exact, unlike the ticks of /proc/PID/stat.
  double CpuSeconds() const;

 private:
  ChildProcess(pid_t pid, std::string name) : pid_(pid), name_(std::move(name)) {}

  pid_t pid_;
  const std::string name_;
  int wait_status_ = 0;
};

// CPU time of this process.
double OwnCpuSeconds();

}  // namespace kvstream::bench

#endif  // KVSTREAM_TESTS_BENCH_STORE_CHILD_PROCESS_H_

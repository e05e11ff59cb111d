// A real Ceph for tests: one monitor and two OSDs that keep their objects in memory, without
// authentication, on free ports of the loopback, in a directory of its own. Needs Debian's ceph-mon
// and ceph-osd, no other program, no root.
#ifndef KVSTREAM_STORAGE_RADOS_TESTING_CEPH_CLUSTER_H_
#define KVSTREAM_STORAGE_RADOS_TESTING_CEPH_CLUSTER_H_

#include <sys/types.h>

#include <array>
#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "storage/rados/rados_pool.h"

namespace kvstream {

// Not thread-safe. Ends its processes by their ids on destruction; should the test die first, the
// kernel ends them, as long as the thread that started the cluster was the main one.
class CephCluster {
 public:
  static constexpr int kOsds = 2;

  // Some three seconds on an idle machine; up to two minutes on one that is not, then the status
  // carries the end of the daemons' logs.
  static absl::StatusOr<std::unique_ptr<CephCluster>> Start();
  ~CephCluster();
  CephCluster(const CephCluster&) = delete;
  CephCluster& operator=(const CephCluster&) = delete;

  const std::string& conf_file() const { return conf_file_; }
  // The pool that every cluster has: 2 copies, at least 1 to go on.
  static constexpr char kPool[] = "kvstream";
  // Of that pool.
  RadosPoolOptions Options(const std::string& name_space) const;

  // 0 once killed.
  pid_t osd_pid(int osd) const { return osds_[osd]; }

  // For tests that leave one OSD alone. What it serves it serves under a lease that it renews, and
  // one that stood still for longer than that may refuse some of it ever after ("An OSD that is
  // left alone" in docs/cluster.md). From the next change of its peers on, leases are so long that
  // a busy machine does no harm; those that there are stay short, and with them the wait after a
  // death.
  absl::Status LengthenLeases();

  // Behind everybody's back removes the objects in the namespace whose names begin with any of
  // these; returns how many.
  absl::StatusOr<size_t> RemoveObjects(const std::string& name_space,
                                       const std::vector<std::string>& beginnings);

  // SIGKILL; the process is gone on return. The cluster notices within seconds.
  void KillOsd(int osd);
  // SIGSTOP and SIGCONT: an OSD or monitor that does not answer, from the return on.
  void StopOsd(int osd);
  void ContinueOsd(int osd);
  void StopMonitor();
  void ContinueMonitor();

 private:
  CephCluster() = default;
  absl::Status TryStart();
  absl::Status StartMonitor();
  absl::Status StartOsd(int osd);
  absl::Status MakePool();
  // Runs a program to its end, its output in `log`.
  absl::Status Run(const std::vector<std::string>& command, const std::string& log);
  pid_t Spawn(const std::vector<std::string>& command, const std::string& log);
  absl::Status Command(const std::string& json);
  std::string Tails() const;
  void EndAll();

  std::string directory_;
  std::string conf_file_;
  std::string fsid_;
  std::string monitor_address_;
  pid_t monitor_ = 0;
  std::array<pid_t, kOsds> osds_ = {};
  rados_t admin_ = nullptr;
};

}  // namespace kvstream

#endif  // KVSTREAM_STORAGE_RADOS_TESTING_CEPH_CLUSTER_H_

#include "storage/rados/testing/ceph_cluster.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <rados/librados.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <random>
#include <sstream>

#include "absl/memory/memory.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"

namespace kvstream {
namespace {

constexpr absl::Duration kStartTimeout = absl::Minutes(2);

std::string NewUuid() {
  std::random_device device;
  const auto bits = [&](unsigned mask) { return device() & mask; };
  return absl::StrFormat("%08x-%04x-4%03x-8%03x-%08x%04x", bits(~0u), bits(0xffff), bits(0xfff),
                         bits(0xfff), bits(~0u), bits(0xffff));
}

// Free a moment ago: whoever else takes it first makes the start fail, and be tried again.
int FreePort() {
  const int socket = ::socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof(address);
  if (socket < 0 || bind(socket, reinterpret_cast<sockaddr*>(&address), size) != 0 ||
      getsockname(socket, reinterpret_cast<sockaddr*>(&address), &size) != 0) {
    address.sin_port = 0;
  }
  if (socket >= 0) close(socket);
  return ntohs(address.sin_port);
}

std::string Tail(const std::string& file) {
  std::ifstream in(file);
  std::ostringstream text;
  text << in.rdbuf();
  const std::string all = text.str();
  return all.substr(all.size() - std::min<size_t>(all.size(), 1500));
}

void End(pid_t* pid) {
  if (*pid <= 0) return;
  kill(*pid, SIGKILL);
  waitpid(*pid, nullptr, 0);
  *pid = 0;
}

// The signal is on its way when kill returns; all threads stand still when the parent is told.
void Stop(pid_t pid) {
  kill(pid, SIGSTOP);
  waitpid(pid, nullptr, WUNTRACED);
}

}  // namespace

absl::StatusOr<std::unique_ptr<CephCluster>> CephCluster::Start() {
  auto cluster = absl::WrapUnique(new CephCluster);
  absl::Status status;
  for (int attempt = 0; attempt < 3; ++attempt) {
    status = cluster->TryStart();
    if (status.ok()) return cluster;
    status = absl::Status(status.code(), absl::StrCat(status.message(), cluster->Tails()));
    cluster->EndAll();
    if (absl::IsNotFound(status)) break;
  }
  return status;
}

CephCluster::~CephCluster() { EndAll(); }

void CephCluster::EndAll() {
  if (admin_ != nullptr) rados_shutdown(admin_);
  admin_ = nullptr;
  for (pid_t& osd : osds_) End(&osd);
  End(&monitor_);
  std::error_code ignored;
  if (!directory_.empty()) std::filesystem::remove_all(directory_, ignored);
  directory_.clear();
}

std::string CephCluster::Tails() const {
  std::string all;
  for (const char* name : {"mkfs.out", "mon.out", "mon.a.log", "osd.0.out", "osd.0.log"}) {
    absl::StrAppend(&all, "\n--- ", name, "\n", Tail(absl::StrCat(directory_, "/", name)));
  }
  return all;
}

absl::Status CephCluster::TryStart() {
  for (const char* program : {"/usr/bin/ceph-mon", "/usr/bin/ceph-osd", "/usr/bin/monmaptool"}) {
    if (access(program, X_OK) != 0) {
      return absl::NotFoundError(
          absl::StrCat(program, " is missing; run deploy/install_packages.sh"));
    }
  }
  const char* const base = getenv("TEST_TMPDIR");
  std::string pattern = absl::StrCat(base == nullptr ? "/tmp" : base, "/ceph.XXXXXX");
  if (mkdtemp(pattern.data()) == nullptr) {
    return absl::UnavailableError(absl::StrCat("mkdtemp: ", std::strerror(errno)));
  }
  directory_ = pattern;
  fsid_ = NewUuid();
  monitor_address_ = absl::StrCat("[v2:127.0.0.1:", FreePort(), "]");
  conf_file_ = directory_ + "/ceph.conf";
  std::ofstream(conf_file_) << "[global]\n"
                            << "fsid = " << fsid_ << "\n"
                            << "mon host = " << monitor_address_ << "\n"
                            << R"(public addr = 127.0.0.1
auth cluster required = none
auth service required = none
auth client required = none
admin socket =
run dir = )" << directory_ << R"(
log file = )" << directory_ << R"(/$name.log
log to stderr = false
mon cluster log to file = false
pid file =
crash dir = )" << directory_ << R"(
mon data = )" << directory_ << R"(/mon
osd data = )" << directory_ << R"(/osd$id
mon data avail warn = 0
mon data avail crit = 0
mon warn on insecure global id reclaim allowed = false
mon osd min down reporters = 1
mon osd down out interval = 3600
mon osd adjust heartbeat grace = false
osd heartbeat interval = 1
osd heartbeat grace = 8
osd crush chooseleaf type = 0
osd pool default size = 2
osd pool default min size = 1
osd pool default pg autoscale mode = off
osd objectstore = memstore
memstore device bytes = 4294967296
osd op num shards = 2
osd op num threads per shard = 2
osd class update on start = true
debug none = 0/0
)";
  absl::Status status = StartMonitor();
  for (int osd = 0; status.ok() && osd < kOsds; ++osd) status = StartOsd(osd);
  if (status.ok()) status = MakePool();
  return status;
}

pid_t CephCluster::Spawn(const std::vector<std::string>& command, const std::string& log) {
  // All that the child does between fork and exec must be safe in a process with threads.
  std::vector<char*> arguments;
  for (const std::string& word : command) arguments.push_back(const_cast<char*>(word.c_str()));
  arguments.push_back(nullptr);
  const std::string file = absl::StrCat(directory_, "/", log);
  const pid_t parent = getpid();
  const pid_t pid = fork();
  if (pid != 0) return pid;
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != parent) _exit(126);
  const int out = open(file.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0600);
  const int in = open("/dev/null", O_RDONLY);
  dup2(in, 0);
  dup2(out, 1);
  dup2(out, 2);
  // A test that blocks signals would hand that on to daemons that are to be stopped.
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
  execv(arguments[0], arguments.data());
  _exit(127);
}

absl::Status CephCluster::Run(const std::vector<std::string>& command, const std::string& log) {
  const pid_t pid = Spawn(command, log);
  int status = 0;
  if (pid < 0 || waitpid(pid, &status, 0) != pid || status != 0) {
    return absl::UnavailableError(
        absl::StrCat(absl::StrJoin(command, " "), ": wait status ", status));
  }
  return absl::OkStatus();
}

absl::Status CephCluster::StartMonitor() {
  const std::string map = directory_ + "/monmap";
  std::filesystem::create_directory(directory_ + "/mon");
  absl::Status status = Run(
      {"/usr/bin/monmaptool", "--create", "--addv", "a", monitor_address_, "--fsid", fsid_, map},
      "mkfs.out");
  if (!status.ok()) return status;
  status = Run({"/usr/bin/ceph-mon", "-c", conf_file_, "--mkfs", "-i", "a", "--monmap", map},
               "mkfs.out");
  if (!status.ok()) return status;
  monitor_ = Spawn({"/usr/bin/ceph-mon", "-c", conf_file_, "-i", "a", "-f"}, "mon.out");

  const absl::Time deadline = absl::Now() + kStartTimeout;
  for (;;) {
    if (waitpid(monitor_, nullptr, WNOHANG) == monitor_) {
      monitor_ = 0;
      return absl::UnavailableError("the monitor ended at its start");
    }
    rados_create(&admin_, "admin");
    rados_conf_read_file(admin_, conf_file_.c_str());
    rados_conf_set(admin_, "client_mount_timeout", "20");
    rados_conf_set(admin_, "rados_mon_op_timeout", "60");
    const int rc = rados_connect(admin_);
    if (rc >= 0) return absl::OkStatus();
    rados_shutdown(admin_);
    admin_ = nullptr;
    if (absl::Now() > deadline) return RadosError(rc, "connecting to the monitor");
  }
}

absl::Status CephCluster::Command(const std::string& json) {
  const char* words[] = {json.c_str()};
  char *out = nullptr, *text = nullptr;
  size_t out_bytes = 0, text_bytes = 0;
  const int rc = rados_mon_command(admin_, words, 1, "", 0, &out, &out_bytes, &text, &text_bytes);
  const std::string said(text == nullptr ? "" : text, text_bytes);
  if (out != nullptr) rados_buffer_free(out);
  if (text != nullptr) rados_buffer_free(text);
  if (rc < 0) return RadosError(rc, absl::StrCat(json, ": ", said));
  return absl::OkStatus();
}

absl::Status CephCluster::StartOsd(int osd) {
  const std::string uuid = NewUuid();
  const std::string id = absl::StrCat(osd);
  std::filesystem::create_directory(absl::StrCat(directory_, "/osd", id));
  absl::Status status =
      Command(absl::StrCat(R"({"prefix": "osd new", "uuid": ")", uuid, R"(", "id": )", id, "}"));
  if (!status.ok()) return status;
  status = Run({"/usr/bin/ceph-osd", "-c", conf_file_, "-i", id, "--mkfs", "--osd-uuid", uuid},
               "mkfs.out");
  if (!status.ok()) return status;
  osds_[osd] = Spawn({"/usr/bin/ceph-osd", "-c", conf_file_, "-i", id, "-f"},
                     absl::StrCat("osd.", id, ".out"));
  return absl::OkStatus();
}

absl::Status CephCluster::MakePool() {
  absl::Status status = Command(
      absl::StrCat(R"({"prefix": "osd pool create", "pool": ")", kPool, R"(", "pg_num": 8})"));
  if (!status.ok()) return status;
  rados_ioctx_t io = nullptr;
  if (const int rc = rados_ioctx_create(admin_, kPool, &io); rc < 0) {
    return RadosError(rc, "opening the pool");
  }
  // Answers once the OSDs are up and agree; a second time, once each has the other as its copy.
  rados_completion_t completion;
  rados_aio_create_completion2(nullptr, nullptr, &completion);
  rados_aio_write_full(io, "ready", completion, "yes", 3);
  const absl::Time deadline = absl::Now() + kStartTimeout;
  while (rados_aio_is_complete(completion) == 0 && absl::Now() < deadline) {
    absl::SleepFor(absl::Milliseconds(20));
  }
  status = rados_aio_is_complete(completion) == 0
               ? absl::UnavailableError("the OSDs did not come up")
               : absl::OkStatus();
  if (!status.ok()) {
    for (pid_t& osd : osds_) End(&osd);
    End(&monitor_);
  }
  rados_aio_release(completion);
  rados_ioctx_destroy(io);
  return status;
}

RadosPoolOptions CephCluster::Options(const std::string& name_space) const {
  RadosPoolOptions options;
  options.conf_file = conf_file_;
  options.pool = kPool;
  options.name_space = name_space;
  options.op_timeout = absl::Seconds(60);
  options.connect_timeout = absl::Seconds(60);
  return options;
}

absl::Status CephCluster::LengthenLeases() {
  return Command(absl::StrCat(R"({"prefix": "osd pool set", "pool": ")", kPool,
                              R"(", "var": "read_lease_interval", "val": "30"})"));
}

absl::StatusOr<size_t> CephCluster::RemoveObjects(const std::string& name_space,
                                                  const std::vector<std::string>& beginnings) {
  const absl::StatusOr<std::unique_ptr<RadosPool>> pool = RadosPool::Connect(Options(name_space));
  if (!pool.ok()) return pool.status();
  rados_list_ctx_t list;
  if (const int rc = rados_nobjects_list_open((*pool)->io(), &list); rc < 0) {
    return RadosError(rc, "listing objects");
  }
  std::vector<std::string> names;
  const char* entry = nullptr;
  while (rados_nobjects_list_next(list, &entry, nullptr, nullptr) == 0) {
    const bool is_meant = std::any_of(
        beginnings.begin(), beginnings.end(),
        [entry](const std::string& beginning) { return absl::StartsWith(entry, beginning); });
    if (is_meant) names.push_back(entry);
  }
  rados_nobjects_list_close(list);
  for (const std::string& name : names) {
    if (const int rc = rados_remove((*pool)->io(), name.c_str()); rc < 0) {
      return RadosError(rc, absl::StrCat("removing ", name));
    }
  }
  return names.size();
}

void CephCluster::KillOsd(int osd) { End(&osds_[osd]); }
void CephCluster::StopOsd(int osd) { Stop(osds_[osd]); }
void CephCluster::ContinueOsd(int osd) { kill(osds_[osd], SIGCONT); }
void CephCluster::StopMonitor() { Stop(monitor_); }
void CephCluster::ContinueMonitor() { kill(monitor_, SIGCONT); }

}  // namespace kvstream

#include "tests/bench/store/child_process.h"

#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstring>
#include <ctime>

#include "absl/memory/memory.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"

namespace kvstream::bench {
namespace {

double SecondsOf(clockid_t clock) {
  timespec time = {};
  if (clock_gettime(clock, &time) != 0) return 0;
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

}  // namespace

double OwnCpuSeconds() { return SecondsOf(CLOCK_PROCESS_CPUTIME_ID); }

absl::StatusOr<std::unique_ptr<ChildProcess>> ChildProcess::Start(
    const std::vector<std::string>& argv, const std::string& log_path) {
  std::vector<char*> arguments;
  arguments.reserve(argv.size() + 1);
  for (const std::string& argument : argv) arguments.push_back(const_cast<char*>(argument.c_str()));
  arguments.push_back(nullptr);
  const int log = open(log_path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  if (log < 0) {
    return absl::UnavailableError(absl::StrCat("cannot write ", log_path, ": ", strerror(errno)));
  }
  const pid_t parent = getpid();
  const pid_t pid = fork();
  if (pid == 0) {
    // Only calls that are safe between fork and exec of a process with threads.
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) _exit(127);
    dup2(log, STDOUT_FILENO);
    dup2(log, STDERR_FILENO);
    execvp(arguments[0], arguments.data());
    _exit(127);
  }
  close(log);
  if (pid < 0) return absl::UnavailableError(absl::StrCat("cannot fork: ", strerror(errno)));
  return absl::WrapUnique(new ChildProcess(pid, argv[0]));
}

ChildProcess::~ChildProcess() { Stop().IgnoreError(); }

bool ChildProcess::Running() {
  if (pid_ <= 0) return false;
  if (waitpid(pid_, &wait_status_, WNOHANG) != pid_) return true;
  pid_ = 0;
  return false;
}

absl::Status ChildProcess::Stop(absl::Duration patience) {
  if (pid_ > 0) kill(pid_, SIGTERM);
  const absl::Time give_up = absl::Now() + patience;
  while (Running()) {
    if (absl::Now() > give_up) kill(pid_, SIGKILL);
    absl::SleepFor(absl::Milliseconds(5));
  }
  if (WIFEXITED(wait_status_) && WEXITSTATUS(wait_status_) == 0) return absl::OkStatus();
  return absl::InternalError(absl::StrCat(name_, " ended with status ", wait_status_));
}

double ChildProcess::CpuSeconds() const {
  clockid_t clock;
  if (pid_ <= 0 || clock_getcpuclockid(pid_, &clock) != 0) return 0;
  return SecondsOf(clock);
}

}  // namespace kvstream::bench

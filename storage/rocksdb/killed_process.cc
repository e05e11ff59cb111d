#include "storage/rocksdb/killed_process.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

extern char** environ;

namespace kvstream {
namespace {

std::string PathOf(const std::string& program) {
  const char* runfiles = std::getenv("TEST_SRCDIR");
  const char* workspace = std::getenv("TEST_WORKSPACE");
  return absl::StrCat(runfiles == nullptr ? "." : runfiles, "/",
                      workspace == nullptr ? "" : workspace,
                      absl::StrContains(program, '/') ? "/" : "/storage/rocksdb/", program);
}

}  // namespace

std::vector<std::string> RunAndKill(const std::string& program, std::vector<std::string> args,
                                    size_t enough) {
  std::vector<std::string> lines;
  int pipe_ends[2];
  if (pipe2(pipe_ends, O_CLOEXEC) != 0) {
    ADD_FAILURE() << "pipe";
    return lines;
  }
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, pipe_ends[1], STDOUT_FILENO);
  args.insert(args.begin(), PathOf(program));
  std::vector<char*> argv;
  argv.reserve(args.size() + 1);
  for (std::string& arg : args) argv.push_back(arg.data());
  argv.push_back(nullptr);
  pid_t pid = 0;
  const int spawned = posix_spawn(&pid, argv[0], &actions, nullptr, argv.data(), environ);
  posix_spawn_file_actions_destroy(&actions);
  close(pipe_ends[1]);
  if (spawned != 0) {
    ADD_FAILURE() << "cannot run " << argv[0];
    close(pipe_ends[0]);
    return lines;
  }
  std::string line;
  char buffer[4096];
  bool killed = false;
  for (ssize_t got = 0; (got = read(pipe_ends[0], buffer, sizeof(buffer))) > 0;) {
    for (ssize_t i = 0; i < got; ++i) {
      if (buffer[i] != '\n') {
        line.push_back(buffer[i]);
        continue;
      }
      lines.push_back(line);
      line.clear();
    }
    if (!killed && lines.size() >= enough) {
      kill(pid, SIGKILL);
      killed = true;
    }
  }
  close(pipe_ends[0]);
  int status = 0;
  waitpid(pid, &status, 0);
  EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL)
      << "it ended by itself: " << status;
  return lines;
}

}  // namespace kvstream

// Daemons over one real Ceph pool, and loads through them, for tests.
#ifndef KVSTREAM_TESTS_CLUSTER_CLUSTER_FIXTURE_H_
#define KVSTREAM_TESTS_CLUSTER_CLUSTER_FIXTURE_H_

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <functional>
#include <memory>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "client/client.h"
#include "client/testing/synthetic_context.h"
#include "storage/rados/testing/ceph_cluster.h"

namespace kvstream {

inline std::string NewDirectory() {
  const char* const base = getenv("TEST_TMPDIR");
  std::string directory = absl::StrCat(base == nullptr ? "/tmp" : base, "/daemon.XXXXXX");
  EXPECT_NE(mkdtemp(directory.data()), nullptr);
  return directory;
}

inline std::string Contents(const std::string& path) {
  std::ifstream file(path);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

// A kvstreamd of the build, its store in the cluster.
class Daemon {
 public:
  Daemon(const CephCluster& cluster, const std::string& name_space,
         const std::vector<std::string>& more) {
    Start(cluster, name_space, more);
    AwaitPorts();
  }
  ~Daemon() { Kill(); }

  // What one says that does not start.
  static std::string Refusal(const CephCluster& cluster, const std::string& name_space,
                             const std::vector<std::string>& more) {
    Daemon daemon;
    daemon.Start(cluster, name_space, more);
    int status = 0;
    EXPECT_EQ(waitpid(daemon.pid_, &status, 0), daemon.pid_);
    daemon.pid_ = 0;
    EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) != 0) << status;
    return daemon.Log();
  }

  void Kill() {
    if (pid_ <= 0) return;
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
    pid_ = 0;
  }
  const std::string& address() const { return address_; }
  std::string Log() const { return Contents(directory_ + "/log"); }

 private:
  Daemon() = default;

  void Start(const CephCluster& cluster, const std::string& name_space,
             const std::vector<std::string>& more) {
    directory_ = NewDirectory();
    const std::string log = directory_ + "/log";
    std::vector<std::string> command = {
        "server/kvstreamd", "--listen=127.0.0.1:0", "--http-listen=127.0.0.1:0",
        "--ports-file=" + directory_ + "/ports.json", "--log-level=warn",
        // A few chunks are under way at a time, so that a load is in its middle when told so.
        "--window-bytes-max=65536", "--window-bytes-min=16384", "--frame-bytes=4096",
        "--rados-conf=" + cluster.conf_file(), "--rados-namespace=" + name_space,
        "--rados-timeout=60s"};
    command.insert(command.end(), more.begin(), more.end());
    if (std::none_of(more.begin(), more.end(), [](const std::string& option) {
          return absl::StartsWith(option, "--data-dir=");
        })) {
      command.push_back("--data-dir=" + directory_);
    }
    std::vector<char*> arguments;
    for (std::string& word : command) arguments.push_back(word.data());
    arguments.push_back(nullptr);
    pid_ = fork();
    if (pid_ == 0) {
      prctl(PR_SET_PDEATHSIG, SIGKILL);
      const int out = open(log.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0600);
      if (out >= 0) dup2(out, STDERR_FILENO);
      execv(arguments[0], arguments.data());
      _exit(127);
    }
  }

  void AwaitPorts() {
    for (const absl::Time end = absl::Now() + absl::Minutes(2); absl::Now() < end;) {
      const std::string text = Contents(directory_ + "/ports.json");
      const size_t at = text.find("\"grpc\":");
      int port = 0;
      if (at != std::string::npos &&
          absl::SimpleAtoi(text.substr(at + 7, text.find_first_of(",}", at) - at - 7), &port)) {
        address_ = absl::StrCat("127.0.0.1:", port);
        return;
      }
      int status = 0;
      if (waitpid(pid_, &status, WNOHANG) == pid_) {
        pid_ = 0;
        ADD_FAILURE() << "kvstreamd ended with wait status " << status << "\n"
                      << Contents(directory_ + "/log");
        return;
      }
      absl::SleepFor(absl::Milliseconds(20));
    }
    ADD_FAILURE() << "kvstreamd did not come up";
  }

  std::string directory_;
  pid_t pid_ = 0;
  std::string address_;
};

// Of all tests but those that break theirs.
inline CephCluster* shared_ceph = nullptr;

class CephEnvironment : public testing::Environment {
 public:
  void SetUp() override {
    auto started = CephCluster::Start();
    ASSERT_TRUE(started.ok()) << started.status();
    ceph_ = *std::move(started);
    shared_ceph = ceph_.get();
  }
  void TearDown() override { ceph_.reset(); }

 private:
  std::unique_ptr<CephCluster> ceph_;
};

class ClusterTest : public testing::Test {
 protected:
  ClusterTest() : context_(6000) {}

  static std::unique_ptr<Client> Connect(const std::string& servers,
                                         const std::string& token = "") {
    Client::Options options;
    options.server = servers;
    options.security.token = token;
    auto client = Client::Create(options);
    EXPECT_TRUE(client.ok()) << client.status();
    return *std::move(client);
  }
  void Put(Client& client) {
    const auto put =
        client.Put(context_.profile, context_.identity, context_.tokens, context_.kv.view());
    ASSERT_TRUE(put.ok()) << put.status();
    ASSERT_EQ(put->chunks_stored + put->chunks_existing, context_.chunk_ids.size());
  }
  // Loads at the finest level, and calls `in_the_middle` once when `ready` chunks are.
  void Load(Client& client, uint32_t ready, const std::function<void()>& in_the_middle) {
    KvBlock out(context_.profile->geometry(), static_cast<int64_t>(context_.tokens.size()));
    LoadOptions options;
    options.policy = ClientPolicy::kFixed;
    options.level = context_.profile->levels() - 1;
    bool done = false;
    options.progress = [&](uint32_t chunks_ready, uint32_t chunks) {
      EXPECT_EQ(chunks, context_.chunk_ids.size());
      if (done || chunks_ready < ready) return;
      done = true;
      in_the_middle();
    };
    const auto result = client.Load(context_.profile, context_.identity, context_.tokens, options,
                                    out.mutable_view());
    ASSERT_TRUE(result.ok()) << result.status();
    EXPECT_TRUE(done);
    const std::vector<int> levels(context_.chunk_ids.size(), options.level);
    EXPECT_TRUE(out.values() == context_.Expected(levels).values());
    uint64_t tokens = 0;
    for (const LoadedChunk& chunk : result->chunks) {
      tokens += static_cast<uint64_t>(chunk.tokens);
      EXPECT_EQ(chunk.level.value_or(-1), options.level);
    }
    EXPECT_EQ(tokens, context_.tokens.size());
  }

  SyntheticContext context_;
};

}  // namespace kvstream

#endif  // KVSTREAM_TESTS_CLUSTER_CLUSTER_FIXTURE_H_

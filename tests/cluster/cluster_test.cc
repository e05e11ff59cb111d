// Daemons over one real Ceph pool: what a client notices when an OSD or a daemon dies in the middle
// of its load, which should be nothing.
#include <gtest/gtest.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fstream>
#include <memory>
#include <numeric>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "client/client.h"
#include "client/testing/synthetic_context.h"
#include "storage/rados/testing/ceph_cluster.h"

namespace kvstream {
namespace {

// A kvstreamd of the build, its store in the cluster.
class Daemon {
 public:
  Daemon(const CephCluster& cluster, const std::string& name_space,
         const std::vector<std::string>& more) {
    const char* const base = getenv("TEST_TMPDIR");
    std::string directory = absl::StrCat(base == nullptr ? "/tmp" : base, "/daemon.XXXXXX");
    EXPECT_NE(mkdtemp(directory.data()), nullptr);
    const std::string ports = directory + "/ports.json";
    std::vector<std::string> command = {
        "server/kvstreamd", "--listen=127.0.0.1:0", "--http-listen=127.0.0.1:0",
        "--ports-file=" + ports, "--log-level=warn",
        // A few chunks are under way at a time, so that a load is in its middle when told so.
        "--window-bytes-max=65536", "--window-bytes-min=16384", "--frame-bytes=4096",
        "--rados-conf=" + cluster.conf_file(), "--rados-namespace=" + name_space,
        "--rados-timeout=60s", "--data-dir=" + directory};
    command.insert(command.end(), more.begin(), more.end());
    std::vector<char*> arguments;
    for (std::string& word : command) arguments.push_back(word.data());
    arguments.push_back(nullptr);
    pid_ = fork();
    if (pid_ == 0) {
      prctl(PR_SET_PDEATHSIG, SIGKILL);
      execv(arguments[0], arguments.data());
      _exit(127);
    }
    for (const absl::Time end = absl::Now() + absl::Minutes(2); absl::Now() < end;) {
      std::ifstream file(ports);
      std::ostringstream text;
      text << file.rdbuf();
      const size_t at = text.str().find("\"grpc\":");
      int port = 0;
      if (at != std::string::npos &&
          absl::SimpleAtoi(text.str().substr(at + 7, text.str().find_first_of(",}", at) - at - 7),
                           &port)) {
        address_ = absl::StrCat("127.0.0.1:", port);
        return;
      }
      int status = 0;
      if (waitpid(pid_, &status, WNOHANG) == pid_) {
        pid_ = 0;
        ADD_FAILURE() << "kvstreamd ended with wait status " << status;
        return;
      }
      absl::SleepFor(absl::Milliseconds(20));
    }
    ADD_FAILURE() << "kvstreamd did not come up";
  }
  ~Daemon() { Kill(); }

  void Kill() {
    if (pid_ <= 0) return;
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
    pid_ = 0;
  }
  const std::string& address() const { return address_; }

 private:
  pid_t pid_ = 0;
  std::string address_;
};

class ClusterTest : public testing::Test {
 protected:
  ClusterTest() : context_(6000) {}

  void SetUp() override {
    auto started = CephCluster::Start();
    ASSERT_TRUE(started.ok()) << started.status();
    ceph_ = *std::move(started);
  }

  static std::unique_ptr<Client> Connect(const std::string& servers) {
    Client::Options options;
    options.server = servers;
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
  std::unique_ptr<CephCluster> ceph_;
};

TEST_F(ClusterTest, NoLoadFailsWhenAnOsdDies) {
  // Asks Ceph for everything: nothing may come from memory.
  Daemon daemon(*ceph_, "kv", {"--store=rados", "--rados-staleness=0s"});
  const auto client = Connect(daemon.address());
  Put(*client);
  Load(*client, 100, [&] { ceph_->KillOsd(0); });
  // With one replica left everything goes on, puts too.
  Load(*client, 1, [] {});
  SyntheticContext other(500, /*seed=*/2);
  const auto put = client->Put(other.profile, other.identity, other.tokens, other.kv.view());
  EXPECT_TRUE(put.ok()) << put.status();
}

TEST_F(ClusterTest, ALoadMovesToAnotherDaemonAndKeepsItsChunks) {
  Daemon first(*ceph_, "kv", {"--store=rados"});
  Daemon second(*ceph_, "kv", {"--store=tiered", "--capacity-bytes=64MiB"});
  const auto client = Connect(absl::StrCat(first.address(), ",", second.address()));
  Put(*client);
  constexpr uint32_t kReady = 150;
  Load(*client, kReady, [&] { first.Kill(); });
  const auto stats = Connect(second.address())->Stats();
  ASSERT_TRUE(stats.ok()) << stats.status();
  EXPECT_EQ(stats->store, "tiered");
  const uint64_t sent =
      std::accumulate(stats->chunks_by_level.begin(), stats->chunks_by_level.end(), uint64_t{0});
  EXPECT_LE(sent, context_.chunk_ids.size() - kReady) << "none that was ready came twice";
  EXPECT_GT(sent, 0);
  // The client stays with the daemon that answers, for everything.
  Load(*client, 1, [] {});
  EXPECT_TRUE(client->Lookup(*context_.profile, context_.identity, context_.tokens).ok());
  Put(*client);
  EXPECT_EQ(client->Delete(context_.chunk_ids).value_or(0), context_.chunk_ids.size());
}

TEST_F(ClusterTest, AllDaemonsGoneIsUnavailable) {
  Daemon first(*ceph_, "kv", {"--store=rados"}), second(*ceph_, "kv", {"--store=rados"});
  const auto client = Connect(absl::StrCat(first.address(), ",", second.address()));
  Put(*client);
  first.Kill();
  second.Kill();
  KvBlock out(context_.profile->geometry(), static_cast<int64_t>(context_.tokens.size()));
  const auto load =
      client->Load(context_.profile, context_.identity, context_.tokens, {}, out.mutable_view());
  EXPECT_TRUE(absl::IsUnavailable(load.status())) << load.status();
  // The chunks are the pool's, not a daemon's.
  Daemon third(*ceph_, "kv", {"--store=rados"});
  Load(*Connect(third.address()), 1, [] {});
}

}  // namespace
}  // namespace kvstream

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}

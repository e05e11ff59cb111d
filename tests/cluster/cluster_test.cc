// Daemons over one real Ceph pool: what a client notices when an OSD or a daemon dies in the middle
// of its load, which should be nothing.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <functional>
#include <memory>
#include <numeric>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "client/client.h"
#include "client/testing/synthetic_context.h"
#include "storage/rados/testing/ceph_cluster.h"
#include "tests/cluster/cluster_fixture.h"

namespace kvstream {
namespace {

TEST_F(ClusterTest, NoLoadFailsWhenAnOsdAndADaemonDie) {
  const auto started = CephCluster::Start();
  ASSERT_TRUE(started.ok()) << started.status();
  CephCluster& ceph = **started;
  ASSERT_TRUE(ceph.LengthenLeases().ok());
  // Asks Ceph for everything: nothing may come from memory.
  Daemon first(ceph, "kv", {"--store=rados", "--rados-staleness=0s"});
  Daemon second(ceph, "kv", {"--store=tiered", "--rados-staleness=0s", "--capacity-bytes=64MiB"});
  const std::string both = absl::StrCat(first.address(), ",", second.address());
  const auto client = Connect(both);
  Put(*client);
  // Both die at about the same time, amid the loads of both daemons.
  std::vector<std::thread> loads;
  loads.emplace_back([&] { Load(*client, 100, [&] { ceph.KillOsd(0); }); });
  loads.emplace_back([&] { Load(*Connect(both), 100, [&] { first.Kill(); }); });
  loads.emplace_back([&] { Load(*Connect(second.address()), 1, [] {}); });
  for (std::thread& load : loads) load.join();
  // With one replica and one daemon left everything goes on, puts too.
  Load(*client, 1, [] {});
  SyntheticContext other(500, /*seed=*/2);
  const auto put = client->Put(other.profile, other.identity, other.tokens, other.kv.view());
  EXPECT_TRUE(put.ok()) << put.status() << "\n" << second.Log();
}

TEST_F(ClusterTest, ALoadMovesToAnotherDaemonAndKeepsItsChunks) {
  Daemon first(*shared_ceph, "moves", {"--store=rados"});
  Daemon second(*shared_ceph, "moves", {"--store=tiered", "--capacity-bytes=64MiB"});
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

TEST_F(ClusterTest, AMovedLoadIsRefinedByTheNextDaemon) {
  Daemon first(*shared_ceph, "refined", {"--store=rados"});
  Daemon second(*shared_ceph, "refined", {"--store=tiered", "--capacity-bytes=64MiB"});
  const auto client = Connect(absl::StrCat(first.address(), ",", second.address()));
  Put(*client);
  const auto stored = client->Lookup(*context_.profile, context_.identity, context_.tokens);
  ASSERT_TRUE(stored.ok()) << stored.status();
  KvBlock out(context_.profile->geometry(), static_cast<int64_t>(context_.tokens.size()));
  LoadOptions options;
  // Far away: the load is over when all is at its finest level.
  options.deadline = absl::Hours(1);
  bool killed = false;
  options.progress = [&](uint32_t chunks_ready, uint32_t chunks) {
    if (chunks_ready == chunks && !std::exchange(killed, true)) first.Kill();
  };
  const auto result = client->Load(context_.profile, context_.identity, context_.tokens, options,
                                   out.mutable_view());
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_TRUE(killed);
  const int finest = context_.profile->levels() - 1;
  for (const LoadedChunk& chunk : result->chunks) EXPECT_EQ(chunk.level.value_or(-1), finest);
  const std::vector<int> levels(context_.chunk_ids.size(), finest);
  EXPECT_TRUE(out.values() == context_.Expected(levels).values());
  const auto stats = Connect(second.address())->Stats();
  ASSERT_TRUE(stats.ok()) << stats.status();
  EXPECT_LE(stats->load_bytes_sent, stored->level_bytes[finest] - stored->level_bytes[0])
      << "what was in place came again";
}

TEST_F(ClusterTest, ADaemonThatAsksForAnotherIndexDoesNotStart) {
  Daemon first(*shared_ceph, "shards", {"--store=rados", "--rados-shards=16"});
  for (const char* store : {"--store=rados", "--store=tiered"}) {
    const std::string refusal = Daemon::Refusal(
        *shared_ceph, "shards", {store, "--capacity-bytes=64MiB", "--rados-shards=32"});
    EXPECT_NE(refusal.find("has 16 shards, not 32"), std::string::npos) << refusal;
    EXPECT_NE(refusal.find("ask for 16 or for none"), std::string::npos) << refusal;
  }
  // Who asks for none takes what is there, and both serve the same chunks.
  Daemon second(*shared_ceph, "shards", {"--store=rados"});
  Put(*Connect(first.address()));
  Load(*Connect(second.address()), 1, [] {});
}

TEST_F(ClusterTest, ALoadGoesOnWhenAnotherDaemonDeletesItsChunks) {
  Daemon first(*shared_ceph, "deleted", {"--store=rados", "--rados-staleness=0s"});
  Daemon second(*shared_ceph, "deleted", {"--store=rados", "--rados-staleness=0s"});
  const auto client = Connect(first.address()), other = Connect(second.address());
  Put(*client);
  Load(*client, 1, [&] {
    EXPECT_EQ(other->Delete(context_.chunk_ids).value_or(0), context_.chunk_ids.size());
  });
  KvBlock out(context_.profile->geometry(), static_cast<int64_t>(context_.tokens.size()));
  const auto again =
      client->Load(context_.profile, context_.identity, context_.tokens, {}, out.mutable_view());
  EXPECT_TRUE(absl::IsNotFound(again.status())) << again.status();
}

TEST_F(ClusterTest, WhatGoesFromThePoolInTheMiddleOfALoadIsRecomputed) {
  // Of so many the first are far behind what is sent and read ahead when the first one is ready.
  constexpr size_t kLost = 50;
  Daemon daemon(*shared_ceph, "lost", {"--store=rados"});
  const auto client = Connect(daemon.address());
  Put(*client);
  const size_t kept = context_.chunk_ids.size() - kLost;
  std::vector<std::string> lost;
  for (size_t i = kept; i < context_.chunk_ids.size(); ++i) {
    const ChunkId& id = context_.chunk_ids[i];
    lost.push_back(
        absl::StrCat("data.", absl::BytesToHexString(absl::string_view(
                                  reinterpret_cast<const char*>(id.data()), id.size()))));
  }
  KvBlock out(context_.profile->geometry(), static_cast<int64_t>(context_.tokens.size()));
  LoadOptions options;
  options.policy = ClientPolicy::kFixed;
  options.level = context_.profile->levels() - 1;
  options.ability = ClientRecomputeAbility::kAny;
  options.recompute = [&](int64_t first_token, int64_t count) {
    out.CopyTokens(context_.kv, first_token, count);
    return absl::OkStatus();
  };
  bool removed = false;
  options.progress = [&](uint32_t, uint32_t) {
    if (std::exchange(removed, true)) return;
    EXPECT_EQ(shared_ceph->RemoveObjects("lost", lost).value_or(0), kLost);
  };
  const auto load = [&] {
    return client->Load(context_.profile, context_.identity, context_.tokens, options,
                        out.mutable_view());
  };
  const auto result = load();
  ASSERT_TRUE(result.ok()) << result.status() << "\n" << daemon.Log();
  std::vector<int> levels;
  for (const LoadedChunk& chunk : result->chunks) levels.push_back(chunk.level.value_or(-1));
  std::vector<int> expected(kept, options.level);
  expected.resize(context_.chunk_ids.size(), -1);
  EXPECT_EQ(levels, expected);
  EXPECT_TRUE(out.values() == context_.Expected(expected).values());
  // Who cannot recompute has to be told.
  options.ability = ClientRecomputeAbility::kNone;
  options.recompute = nullptr;
  EXPECT_TRUE(absl::IsDataLoss(load().status())) << load().status();
}

TEST_F(ClusterTest, ATierWhoseDiskFailsIsDoneWithout) {
  const std::string directory = NewDirectory();
  // A directory in which nobody can make a file.
  std::filesystem::create_symlink("/sys/kernel", directory + "/tier");
  Daemon daemon(*shared_ceph, "no-tier",
                {"--store=tiered", "--capacity-bytes=64MiB", "--data-dir=" + directory});
  const auto client = Connect(daemon.address());
  Put(*client);
  Load(*client, 1, [] {});
  EXPECT_NE(daemon.Log().find("no tier"), std::string::npos) << daemon.Log();
}

TEST_F(ClusterTest, AllDaemonsGoneIsUnavailable) {
  Daemon first(*shared_ceph, "gone", {"--store=rados"});
  Daemon second(*shared_ceph, "gone", {"--store=rados"});
  const auto client = Connect(absl::StrCat(first.address(), ",", second.address()));
  Put(*client);
  first.Kill();
  second.Kill();
  KvBlock out(context_.profile->geometry(), static_cast<int64_t>(context_.tokens.size()));
  const auto load =
      client->Load(context_.profile, context_.identity, context_.tokens, {}, out.mutable_view());
  EXPECT_TRUE(absl::IsUnavailable(load.status())) << load.status();
  // The chunks are the pool's, not a daemon's.
  Daemon third(*shared_ceph, "gone", {"--store=rados"});
  Load(*Connect(third.address()), 1, [] {});
}

TEST_F(ClusterTest, ChunksOfTenantsNeedADaemonThatKnowsThem) {
  const std::string tenants = NewDirectory() + "/tenants.yaml";
  // The hash of "test".
  std::ofstream(tenants)
      << "tenants:\n  - name: team\n    token-sha256: 9f86d081884c7d659a2feaa0c55a"
      << "d015a3bf4f1b2b0b822cd15d6c15b0f00a08\n";
  const std::string with = "--tenants-file=" + tenants;
  {
    // What is nobody's needs none.
    Daemon plain(*shared_ceph, "tenants", {"--store=rados"});
    Daemon daemon(*shared_ceph, "tenants", {"--store=rados", with});
    const auto client = Connect(daemon.address(), "test");
    Put(*client);
  }
  for (const char* store : {"--store=rados", "--store=tiered"}) {
    const std::string refusal =
        Daemon::Refusal(*shared_ceph, "tenants", {store, "--capacity-bytes=64MiB"});
    EXPECT_NE(refusal.find("chunks of tenants"), std::string::npos) << refusal;
    EXPECT_NE(refusal.find("--tenants-file"), std::string::npos) << refusal;
  }
  Daemon daemon(*shared_ceph, "tenants", {"--store=rados", with});
  Load(*Connect(daemon.address(), "test"), 1, [] {});
}

}  // namespace
}  // namespace kvstream

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  testing::AddGlobalTestEnvironment(new kvstream::CephEnvironment);
  return RUN_ALL_TESTS();
}

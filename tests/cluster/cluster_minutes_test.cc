// What takes minutes by its nature, over one real Ceph pool: not for CI.
#include <gtest/gtest.h>

#include <atomic>
#include <iostream>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/time/clock.h"
#include "client/client.h"
#include "client/testing/synthetic_context.h"
#include "storage/rados/testing/ceph_cluster.h"
#include "tests/cluster/cluster_fixture.h"

namespace kvstream {
namespace {

// Once uploads wait for room, data of deleted
// chunks goes after a minute (the driver's pressed_retire_age), but not what a load elsewhere
// holds.
TEST_F(ClusterTest, ALoadOfMinutesKeepsItsChunksWhileRoomIsMade) {
  Daemon first(*shared_ceph, "minutes", {"--store=rados"});
  Daemon second(*shared_ceph, "minutes", {"--store=rados", "--rados-capacity-bytes=64MiB"});
  const auto client = Connect(first.address()), other = Connect(second.address());
  Put(*client);
  const SyntheticContext idle(6000, /*seed=*/2);
  ASSERT_TRUE(other->Put(idle.profile, idle.identity, idle.tokens, idle.kv.view()).ok());
  std::atomic<bool> over{false};
  std::atomic<uint32_t> refused{0}, put{0};
  // Of what is deleted 45 s after the load began the leases are written by then.
  std::thread deletes([&] {
    absl::SleepFor(absl::Seconds(45));
    // Some may have been evicted by then, which is no other thing.
    EXPECT_TRUE(other->Delete(context_.chunk_ids).ok());
    EXPECT_TRUE(other->Delete(idle.chunk_ids).ok());
  });
  std::vector<std::thread> presses;
  for (int thread = 0; thread < 3; ++thread) {
    presses.emplace_back([&, thread] {
      // The same KV under other names.
      ContextIdentity filler = idle.identity;
      for (int number = 0; !over; ++number) {
        filler.model = absl::StrCat("filler ", thread, " ", number);
        const auto result = other->Put(idle.profile, filler, idle.tokens, idle.kv.view());
        ++(result.ok() ? put : refused);
        EXPECT_TRUE(result.ok() || absl::IsResourceExhausted(result.status())) << result.status();
      }
    });
  }
  KvBlock out(context_.profile->geometry(), static_cast<int64_t>(context_.tokens.size()));
  LoadOptions options;
  options.policy = ClientPolicy::kFixed;
  options.level = context_.profile->levels() - 1;
  const absl::Time began = absl::Now();
  // A slow client.
  options.progress = [&](uint32_t, uint32_t) { absl::SleepFor(absl::Milliseconds(900)); };
  const auto result = client->Load(context_.profile, context_.identity, context_.tokens, options,
                                   out.mutable_view());
  const absl::Duration took = absl::Now() - began;
  over = true;
  deletes.join();
  for (std::thread& thread : presses) thread.join();
  ASSERT_TRUE(result.ok()) << result.status() << " after " << took << "\n" << first.Log();
  const std::vector<int> levels(context_.chunk_ids.size(), options.level);
  EXPECT_TRUE(out.values() == context_.Expected(levels).values());
  const auto stats = other->Stats();
  ASSERT_TRUE(stats.ok()) << stats.status();
  std::cout << "the load took " << took << ", " << put << " contexts were put meanwhile and "
            << refused << " refused, " << stats->evicted_segments << " segments evicted, "
            << stats->payload_bytes << " bytes stored\n";
  EXPECT_GT(took, absl::Seconds(45 + 60 + 15)) << "too short to show anything";
  // What nobody held is gone.
  std::vector<std::string> objects;
  for (const ChunkId& id : idle.chunk_ids) {
    objects.push_back(
        absl::StrCat("data.", absl::BytesToHexString(absl::string_view(
                                  reinterpret_cast<const char*>(id.data()), id.size()))));
  }
  EXPECT_LT(shared_ceph->RemoveObjects("minutes", objects).value_or(objects.size()),
            objects.size());
}

}  // namespace
}  // namespace kvstream

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  testing::AddGlobalTestEnvironment(new kvstream::CephEnvironment);
  return RUN_ALL_TESTS();
}

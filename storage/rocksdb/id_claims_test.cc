#include "storage/rocksdb/id_claims.h"

#include <gtest/gtest.h>

#include <thread>
#include <vector>

#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"

namespace kvstream {
namespace {

ChunkId Id(uint8_t first) {
  ChunkId id = {};
  id[0] = first;
  return id;
}

TEST(IdClaimsTest, AClaimWaitsForAnotherOfTheSameId) {
  IdClaims claims;
  absl::Notification held, released;
  std::thread other([&] {
    const IdClaims::Claim claim(&claims, {Id(1), Id(2)});
    held.Notify();
    released.WaitForNotification();
  });
  held.WaitForNotification();
  {
    const IdClaims::Claim elsewhere(&claims, {Id(3)}, absl::InfinitePast());
    EXPECT_TRUE(elsewhere.held());
  }
  released.Notify();
  const IdClaims::Claim claim(&claims, {Id(2), Id(2)});
  EXPECT_TRUE(claim.held());
  EXPECT_EQ(claim.ids().size(), 1u);
  other.join();
}

TEST(IdClaimsTest, AClaimThatIsNotHadInTimeOwnsNothing) {
  IdClaims claims;
  {
    const IdClaims::Claim holder(&claims, {Id(5)});
    for (const absl::Time deadline : {absl::InfinitePast(), absl::Now() + absl::Milliseconds(5)}) {
      const IdClaims::Claim late(&claims, {Id(4), Id(5), Id(6)}, deadline);
      EXPECT_FALSE(late.held());
      const IdClaims::Claim free(&claims, {Id(4), Id(6)}, absl::InfinitePast());
      EXPECT_TRUE(free.held());
    }
  }
  const IdClaims::Claim again(&claims, {Id(4), Id(5), Id(6)}, absl::InfinitePast());
  EXPECT_TRUE(again.held());
}

}  // namespace
}  // namespace kvstream

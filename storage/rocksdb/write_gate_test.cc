#include "storage/rocksdb/write_gate.h"

#include <gtest/gtest.h>

#include <atomic>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"

namespace kvstream {
namespace {

// The analysis cannot follow a lock that one thread shuts and another one opens.
class WriteGateTest : public testing::Test {
 protected:
  bool Enter(absl::Time deadline) ABSL_NO_THREAD_SAFETY_ANALYSIS { return gate_.EnterBy(deadline); }
  void Leave() ABSL_NO_THREAD_SAFETY_ANALYSIS { gate_.Leave(); }
  void AwaitEmpty() ABSL_NO_THREAD_SAFETY_ANALYSIS { gate_.AwaitEmpty(); }
  void Open() ABSL_NO_THREAD_SAFETY_ANALYSIS { gate_.Open(); }

  WriteGate gate_;
};

TEST_F(WriteGateTest, LetsManyInAtATimeAndNobodyOnceItIsShut) {
  EXPECT_TRUE(Enter(absl::InfinitePast()));
  EXPECT_TRUE(Enter(absl::InfinitePast()));
  gate_.Shut();
  EXPECT_FALSE(Enter(absl::InfinitePast()));
  EXPECT_FALSE(Enter(absl::Now() + absl::Milliseconds(1)));
  Leave();
  Leave();
  AwaitEmpty();
  EXPECT_FALSE(Enter(absl::InfinitePast()));
  Open();
  EXPECT_TRUE(Enter(absl::InfinitePast()));
  Leave();
}

TEST_F(WriteGateTest, WhoWaitsComesInWhenItOpens) {
  gate_.Shut();
  std::thread writer([this] {
    EXPECT_TRUE(Enter(absl::InfiniteFuture()));
    Leave();
  });
  AwaitEmpty();
  Open();
  writer.join();
}

TEST_F(WriteGateTest, NobodyIsInWhileItIsShut) {
  int alone = 0;  // of whoever has shut it, and read by those who are in
  std::atomic<bool> done{false};
  std::vector<std::thread> writers;
  for (int t = 0; t < 3; ++t) {
    writers.emplace_back([&] {
      while (!done) {
        if (!Enter(absl::Now() + absl::Microseconds(50))) continue;
        EXPECT_EQ(alone % 2, 0);
        Leave();
      }
    });
  }
  for (int i = 0; i < 200; ++i) {
    gate_.Shut();
    AwaitEmpty();
    ++alone;
    std::this_thread::yield();
    ++alone;
    Open();
    absl::SleepFor(absl::Microseconds(100));
  }
  done = true;
  for (std::thread& writer : writers) writer.join();
}

}  // namespace
}  // namespace kvstream

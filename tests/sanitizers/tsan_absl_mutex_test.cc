// Races that the shim must keep quiet about, since absl::Mutex orders them. Under TSan any report
// fails the test.
#include <thread>

#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "gtest/gtest.h"

namespace kvstream {
namespace {

TEST(TsanAbslMutex, SeesLocksConditionsAndCondVars) {
  absl::Mutex mutex;
  absl::CondVar changed;
  int turns = 0;
  bool done = false;
  std::thread other([&] {
    for (int i = 0; i < 1000; ++i) {
      absl::MutexLock lock(&mutex);
      ++turns;
      changed.SignalAll();
    }
    absl::MutexLock lock(&mutex);
    mutex.Await(absl::Condition(&done));
    ++turns;
  });
  {
    absl::MutexLock lock(&mutex);
    while (turns < 500) changed.Wait(&mutex);
    mutex.AwaitWithTimeout(absl::Condition(
                               +[](int* n) { return *n >= 1000; }, &turns),
                           absl::InfiniteDuration());
    done = true;
  }
  other.join();
  EXPECT_EQ(turns, 1001);
}

}  // namespace
}  // namespace kvstream

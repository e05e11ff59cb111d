#include "client/cli/parallel.h"

#include <atomic>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"

namespace kvstream::cli {
namespace {

TEST(ForEachInParallelTest, DoesEveryItemOnce) {
  for (const int threads : {1, 3, 64}) {
    std::vector<std::atomic<int>> times(100);
    std::atomic<int> workers{0};
    std::atomic<int64_t> last{0};
    const absl::Status status = ForEachInParallel(
        100, threads,
        [&](ItemFn* worker) {
          ++workers;
          *worker = [&](int64_t item) {
            ++times[static_cast<size_t>(item)];
            return absl::OkStatus();
          };
          return absl::OkStatus();
        },
        [&](int64_t done) {
          if (done == 100) last = done;
        });
    EXPECT_TRUE(status.ok()) << status;
    for (const auto& count : times) EXPECT_EQ(count, 1);
    EXPECT_EQ(workers, threads);
    EXPECT_EQ(last, 100);
  }
}

TEST(ForEachInParallelTest, ReturnsTheErrorOfTheSmallestItem) {
  const absl::Status status = ForEachInParallel(1000, 4, [](ItemFn* worker) {
    *worker = [](int64_t item) {
      return item >= 17 ? absl::DataLossError(absl::StrCat("item ", item)) : absl::OkStatus();
    };
    return absl::OkStatus();
  });
  // Items are handed out in order, so item 17 is always tried.
  EXPECT_EQ(status, absl::DataLossError("item 17"));
}

TEST(ForEachInParallelTest, ReportsAWorkerThatCannotBeMade) {
  EXPECT_EQ(ForEachInParallel(5, 2, [](ItemFn*) { return absl::InternalError("none"); }),
            absl::InternalError("none"));
}

TEST(ForEachInParallelTest, NothingToDoMakesNoWorker) {
  EXPECT_TRUE(ForEachInParallel(0, 8, [](ItemFn*) { return absl::InternalError("none"); }).ok());
}

}  // namespace
}  // namespace kvstream::cli

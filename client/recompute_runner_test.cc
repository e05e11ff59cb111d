#include "client/recompute_runner.h"

#include <gtest/gtest.h>

#include <stdexcept>
#include <utility>
#include <vector>

#include "absl/synchronization/notification.h"

namespace kvstream {
namespace {

RecomputeJob Job(int64_t first, int64_t tokens) {
  RecomputeJob job;
  job.chunks = 1;
  job.first_token = first;
  job.tokens = tokens;
  return job;
}

TEST(RecomputeRunnerTest, RunsJobsOneByOneAndHandsTheirResultsOver) {
  std::vector<std::pair<int64_t, int64_t>> calls;
  absl::Notification* done = nullptr;
  RecomputeRunner runner(
      [&calls](int64_t first, int64_t count) {
        calls.emplace_back(first, count);
        return first == 8 ? absl::AbortedError("enough") : absl::OkStatus();
      },
      [&done] { done->Notify(); });
  EXPECT_FALSE(runner.TakeResult().has_value());
  for (int64_t first : {0, 4, 8}) {
    absl::Notification finished;
    done = &finished;
    runner.Submit(Job(first, 4));
    finished.WaitForNotification();
    const absl::optional<RecomputeResult> result = runner.TakeResult();
    ASSERT_TRUE(result.has_value());
    EXPECT_EQ(result->job.first_token, first);
    EXPECT_EQ(result->status.ok(), first != 8);
    EXPECT_GE(result->took, absl::ZeroDuration());
    EXPECT_FALSE(runner.TakeResult().has_value());
  }
  EXPECT_EQ(calls, (std::vector<std::pair<int64_t, int64_t>>{{0, 4}, {4, 4}, {8, 4}}));
}

TEST(RecomputeRunnerTest, AnExceptionOfTheCallbackIsAnError) {
  absl::Notification done;
  RecomputeRunner runner([](int64_t, int64_t) -> absl::Status { throw std::runtime_error("boom"); },
                         [&done] { done.Notify(); });
  runner.Submit(Job(0, 1));
  done.WaitForNotification();
  const absl::optional<RecomputeResult> result = runner.TakeResult();
  ASSERT_TRUE(result.has_value());
  EXPECT_EQ(result->status.code(), absl::StatusCode::kUnknown);
  EXPECT_NE(result->status.message().find("boom"), std::string::npos);
}

TEST(RecomputeRunnerTest, DestructionWaitsForTheCallUnderWay) {
  absl::Notification entered, leave;
  bool returned = false;
  {
    RecomputeRunner runner(
        [&](int64_t, int64_t) {
          entered.Notify();
          leave.WaitForNotification();
          returned = true;
          return absl::OkStatus();
        },
        [] {});
    runner.Submit(Job(0, 1));
    entered.WaitForNotification();
    leave.Notify();
  }
  EXPECT_TRUE(returned);
}

}  // namespace
}  // namespace kvstream

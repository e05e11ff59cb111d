#include "server/service/call_strand.h"

#include <gtest/gtest.h>

#include <atomic>
#include <thread>
#include <vector>

#include "absl/synchronization/barrier.h"
#include "absl/synchronization/notification.h"

namespace kvstream {
namespace {

// Counts its steps and events; fails if two steps overlap.
struct Owner {
  Owner(WorkerPool* pool, TimerQueue* timers) : strand(pool, timers) {}

  static std::shared_ptr<Owner> Make(WorkerPool* pool, TimerQueue* timers,
                                     std::function<void(const CallEvents&)> step) {
    auto owner = std::make_shared<Owner>(pool, timers);
    Owner* const raw = owner.get();
    owner->strand.Bind(owner, absl::InfiniteFuture(), [raw, step](const CallEvents& events) {
      EXPECT_FALSE(raw->running.exchange(true));
      if (step) step(events);
      ++raw->steps;
      raw->running = false;
    });
    return owner;
  }

  std::atomic<bool> running{false};
  std::atomic<int> steps{0};
  CallStrand strand;
};

TEST(CallStrandTest, StepsNeverOverlapAndNoEventIsLost) {
  WorkerPool pool(4);
  TimerQueue timers;
  constexpr int kThreads = 4;
  constexpr int kRounds = 2000;
  std::atomic<int> reads{0};
  std::atomic<bool> read_outstanding{false};
  const auto owner = Owner::Make(&pool, &timers, [&](const CallEvents& events) {
    if (!events.read_done.has_value()) return;
    ++reads;
    read_outstanding = false;
  });
  std::vector<std::thread> threads;
  for (int i = 0; i < kThreads; ++i) {
    threads.emplace_back([&] {
      for (int round = 0; round < kRounds; ++round) owner->strand.Poke();
    });
  }
  // Like gRPC: the next read ends only after the one before was seen.
  for (int round = 0; round < kRounds; ++round) {
    read_outstanding = true;
    owner->strand.ReadDone(true);
    while (read_outstanding) std::this_thread::yield();
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(reads, kRounds);
  EXPECT_GE(owner->steps, kRounds);
}

TEST(CallStrandTest, EventsGatherWhileAStepRuns) {
  WorkerPool pool(1);
  TimerQueue timers;
  absl::Notification entered, release, seen;
  std::atomic<int> step{0};
  const auto owner = Owner::Make(&pool, &timers, [&](const CallEvents& events) {
    if (step++ == 0) {
      entered.Notify();
      release.WaitForNotification();
      return;
    }
    EXPECT_EQ(events.read_done, absl::optional<bool>(true));
    EXPECT_EQ(events.write_done, absl::optional<bool>(false));
    EXPECT_TRUE(events.cancelled);
    EXPECT_TRUE(events.aborted);
    seen.Notify();
  });
  owner->strand.Poke();
  entered.WaitForNotification();
  owner->strand.ReadDone(true);
  owner->strand.WriteDone(false);
  owner->strand.Cancelled();
  owner->strand.Aborted();
  release.Notify();
  seen.WaitForNotification();
}

TEST(CallStrandTest, StepsThatDoNotBlockRunWhereTheirEventIsReported) {
  WorkerPool pool(1);
  TimerQueue timers;
  absl::Notification prepared, poked;
  std::atomic<std::thread::id> ran_on{};
  std::atomic<int> step{0};
  std::shared_ptr<Owner> owner;
  owner = Owner::Make(&pool, &timers, [&](const CallEvents& events) {
    ran_on = std::this_thread::get_id();
    if (step++ == 0) {
      owner->strand.StepsDoNotBlock();
      prepared.Notify();
    } else if (!events.read_done.has_value() && !events.write_done.has_value()) {
      poked.Notify();
    }
  });
  owner->strand.ReadDone(true);
  prepared.WaitForNotification();
  while (owner->running) std::this_thread::yield();
  EXPECT_NE(ran_on.load(), std::this_thread::get_id());
  // The pool may still be about to put the strand at rest; an event before that is its own.
  do {
    owner->strand.WriteDone(true);
  } while (ran_on.load() != std::this_thread::get_id());
  owner->strand.Poke();  // timers must not be held up
  poked.WaitForNotification();
  EXPECT_NE(ran_on.load(), std::this_thread::get_id());
}

TEST(CallStrandTest, StepsInlineNeverOverlapAndNoEventIsLost) {
  WorkerPool pool(2);
  TimerQueue timers;
  constexpr int kRounds = 3000;
  std::atomic<int> reads{0}, writes{0};
  std::atomic<bool> read_outstanding{false}, write_outstanding{false};
  std::shared_ptr<Owner> owner;
  owner = Owner::Make(&pool, &timers, [&](const CallEvents& events) {
    owner->strand.StepsDoNotBlock();
    if (events.read_done.has_value()) {
      ++reads;
      read_outstanding = false;
    }
    if (events.write_done.has_value()) {
      ++writes;
      write_outstanding = false;
    }
  });
  std::thread reader([&] {
    for (int round = 0; round < kRounds; ++round) {
      read_outstanding = true;
      owner->strand.ReadDone(true);
      while (read_outstanding) std::this_thread::yield();
    }
  });
  for (int round = 0; round < kRounds; ++round) {
    write_outstanding = true;
    owner->strand.WriteDone(true);
    while (write_outstanding) std::this_thread::yield();
  }
  reader.join();
  EXPECT_EQ(reads, kRounds);
  EXPECT_EQ(writes, kRounds);
}

TEST(CallStrandTest, TimerStepsAndEarlierTimesReplaceLaterOnes) {
  WorkerPool pool(1);
  TimerQueue timers;
  absl::Notification fired;
  std::atomic<int> step{0};
  std::shared_ptr<Owner> owner;
  owner = Owner::Make(&pool, &timers, [&](const CallEvents&) {
    switch (step++) {
      case 0:
        owner->strand.ArmAt(MonotonicNow() + absl::Hours(1));
        owner->strand.ArmAt(absl::InfiniteDuration());
        owner->strand.ArmAt(MonotonicNow() + absl::Milliseconds(1));
        owner->strand.ArmAt(MonotonicNow() + absl::Hours(2));  // keeps the earlier one
        break;
      case 1:
        fired.Notify();
        break;
      default:
        break;
    }
  });
  owner->strand.Poke();
  fired.WaitForNotification();
}

TEST(CallStrandTest, EventsAndTimersOfAnOwnerThatIsGoneDoNothing) {
  TimerQueue timers;
  std::atomic<int> steps{0};
  {
    WorkerPool pool(1);
    absl::Notification armed;
    auto owner = Owner::Make(&pool, &timers, nullptr);
    Owner* const raw = owner.get();
    raw->strand.Bind(owner, absl::InfiniteFuture(), [&, raw](const CallEvents&) {
      ++steps;
      raw->strand.ArmAt(MonotonicNow() + absl::Milliseconds(20));
      armed.Notify();
    });
    raw->strand.Poke();
    armed.WaitForNotification();
    owner.reset();
  }
  timers.Stop();
  EXPECT_EQ(steps, 1);
}

TEST(TimerQueueTest, FiresInOrderOfTime) {
  TimerQueue timers;
  absl::Notification done;
  std::vector<int> order;  // touched by the queue's thread only
  const absl::Duration now = MonotonicNow();
  timers.Schedule(now + absl::Milliseconds(30), [&] {
    order.push_back(3);
    done.Notify();
  });
  timers.Schedule(now + absl::Milliseconds(10), [&] { order.push_back(1); });
  timers.Schedule(now + absl::Milliseconds(20), [&] { order.push_back(2); });
  const TimerQueue::Id cancelled =
      timers.Schedule(now + absl::Milliseconds(15), [&] { order.push_back(99); });
  timers.Cancel(cancelled);
  done.WaitForNotification();
  EXPECT_EQ(order, (std::vector<int>{1, 2, 3}));
}

TEST(TimerQueueTest, WakesForATimerThatComesWhileItSleeps) {
  TimerQueue timers;
  for (int round = 0; round < 50; ++round) {
    absl::Notification fired;
    timers.Schedule(MonotonicNow() + absl::Milliseconds(1), [&] { fired.Notify(); });
    fired.WaitForNotification();
    if (round == 25) timers.Schedule(MonotonicNow() + absl::Hours(1), [] {});
  }
}

TEST(WorkerPoolTest, RunsTasksAtATimeAndFinishesWhatIsQueued) {
  std::atomic<int> done{0};
  {
    WorkerPool pool(3);
    absl::Barrier* const barrier = new absl::Barrier(3);  // passes only if three tasks run at once
    for (int i = 0; i < 3; ++i) {
      pool.Submit([&, barrier] {
        if (barrier->Block()) delete barrier;
        ++done;
      });
    }
    for (int i = 0; i < 100; ++i) pool.Submit([&] { ++done; });
  }
  EXPECT_EQ(done, 103);
}

}  // namespace
}  // namespace kvstream

// Loads that go on from another server, over loopback.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "server/service/load_rpc.h"
#include "server/service/testing/test_server.h"

namespace kvstream {
namespace {

// A client that holds so many levels of each chunk and takes the rest. What is wrong with the
// server's messages fails the test.
struct HeldLoad {
  std::vector<std::string> chunks;  // what came of each, from the first level that was not held
  std::vector<int> levels;          // of the summary
  uint64_t bytes = 0;
  grpc::Status status;
};

HeldLoad RunHeld(TestServer& server, const TestContext& context, const std::vector<int>& held) {
  v1::LoadStart start = StartOf(context);
  // Long: a load is over as soon as all is at its finest level.
  start.mutable_deadline()->set_seconds(600);
  for (const int levels : held) start.add_held_levels(static_cast<uint32_t>(levels));
  ManualLoad load(server.stub());
  EXPECT_TRUE(load.SendStart(start));
  HeldLoad result;
  result.chunks.resize(held.size());
  std::vector<int> next(held);
  std::vector<uint64_t> offset(held.size(), 0);
  std::vector<bool> planned(held.size(), false);
  const auto ready = [&] {
    return static_cast<uint32_t>(
        std::count_if(next.begin(), next.end(), [](int levels) { return levels > 0; }));
  };
  absl::optional<v1::LoadResponse> response = load.Receive();
  EXPECT_TRUE(response.has_value() && response->has_begun());
  load.SendProgress(0, ready());
  while ((response = load.Receive()).has_value()) {
    EXPECT_FALSE(response->has_begun());
    if (response->has_plan()) {
      const v1::ChunkPlan& plan = response->plan();
      if (!planned[plan.chunk()]) {
        EXPECT_EQ(plan.tokens(), static_cast<uint32_t>(context.tokens));
        EXPECT_GT(plan.segment_bytes_size(), 0);
      }
      planned[plan.chunk()] = true;
      EXPECT_GE(static_cast<int>(plan.level()), held[plan.chunk()]);
    }
    if (response->has_summary()) {
      for (const v1::ChunkPlan& plan : response->summary().chunks()) {
        result.levels.push_back(plan.has_level() ? static_cast<int>(plan.level()) : -1);
      }
      EXPECT_EQ(response->summary().bytes_sent(), result.bytes);
      EXPECT_FALSE(response->summary().deadline_missed());
      continue;
    }
    if (!response->has_data()) continue;
    const v1::SegmentData& data = response->data();
    EXPECT_TRUE(planned[data.chunk()]);
    EXPECT_EQ(static_cast<int>(data.level()), next[data.chunk()]);
    EXPECT_EQ(data.offset(), offset[data.chunk()]);
    result.chunks[data.chunk()] += data.data();
    result.bytes += data.data().size();
    offset[data.chunk()] += data.data().size();
    if (offset[data.chunk()] == context.segment_bytes[data.level()]) {
      ++next[data.chunk()];
      offset[data.chunk()] = 0;
    }
    load.SendProgress(result.bytes, ready());
  }
  result.status = load.Finish();
  return result;
}

TEST(HeldLoadTest, WhatIsHeldIsRefinedAndNotSentAgain) {
  TestServer server;
  const TestContext context;
  ASSERT_TRUE(server.PutContext(context).ok());
  for (const std::vector<int>& held :
       {std::vector<int>{1, 1, 1, 1}, {1, 2, 3, 1}, {2, 0, 0, 1}, {0, 0, 1, 3}}) {
    const HeldLoad load = RunHeld(server, context, held);
    ASSERT_TRUE(load.status.ok()) << load.status.error_message();
    EXPECT_EQ(load.levels, (std::vector<int>{2, 2, 2, 2}));
    for (int chunk = 0; chunk < context.chunks; ++chunk) {
      std::string rest;
      for (int level = held[chunk]; level < 3; ++level) rest += context.segment(chunk, level);
      EXPECT_EQ(load.chunks[chunk], rest) << chunk;
    }
  }
}

TEST(HeldLoadTest, WhatTheStoreHasLostSinceStaysAsItIsHeld) {
  TestServer server;
  const TestContext context;
  ASSERT_TRUE(server.PutContext(context).ok());
  ASSERT_EQ(server.server().environment().store->Trim(context.ids(), 1).value_or(0), 4u);
  const HeldLoad load = RunHeld(server, context, {3, 1, 2, 0});
  ASSERT_TRUE(load.status.ok()) << load.status.error_message();
  EXPECT_EQ(load.levels, (std::vector<int>{2, 0, 1, 0}));
  EXPECT_EQ(load.bytes, context.segment_bytes[0]);
}

TEST(HeldLoadTest, AHeldChunkThatIsGoneIsNotFound) {
  TestServer server;
  const TestContext context;
  ASSERT_TRUE(server.PutContext(context).ok());
  const ChunkId gone = context.id(3);
  ASSERT_EQ(server.server().environment().store->Delete({gone}).value_or(0), 1u);
  v1::LoadStart start = StartOf(context);
  for (int i = 0; i < 4; ++i) start.add_held_levels(1);
  ManualLoad load(server.stub());
  EXPECT_TRUE(load.SendStart(start));
  EXPECT_EQ(load.Finish().error_code(), grpc::StatusCode::NOT_FOUND);
}

TEST(HeldLoadTest, WhoHoldsNothingHearsNoBeginning) {
  TestServer server;
  const TestContext context;
  ASSERT_TRUE(server.PutContext(context).ok());
  ManualLoad load(server.stub());
  EXPECT_TRUE(load.SendStart(StartOf(context)));
  const absl::optional<v1::LoadResponse> response = load.Receive();
  ASSERT_TRUE(response.has_value());
  EXPECT_TRUE(response->has_plan());
  load.Cancel();
}

}  // namespace
}  // namespace kvstream

// What is recomputed, when, and what it does to what arrives.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "client/load_assembler.h"
#include "client/testing/assembled_load.h"

namespace kvstream {
namespace {

using assembled_load::ExpectViolation;
using assembled_load::Load;
using assembled_load::Shape;
using ::testing::HasSubstr;

TEST(LoadAssemblerRecomputeTest, RecomputeWaitsForEveryChunkBeforeIt) {
  Load load(Shape(3, ClientRecomputeAbility::kAny));
  ASSERT_TRUE(load.PlanRecompute(1).ok());
  EXPECT_FALSE(load.assembler.NextRecompute().has_value());
  ASSERT_TRUE(load.Send(0, 0, 0).ok());
  EXPECT_FALSE(load.assembler.NextRecompute().has_value()) << "received is not in place";
  ASSERT_TRUE(load.Decode().ok());
  const absl::optional<RecomputeJob> job = load.assembler.NextRecompute();
  ASSERT_TRUE(job.has_value());
  EXPECT_EQ(job->first_token, 4);
  EXPECT_EQ(job->tokens, 4);
  EXPECT_FALSE(load.assembler.NextRecompute().has_value()) << "one at a time";

  // While it reads chunk 0, chunk 0 is not decoded; chunk 2 may be.
  ASSERT_TRUE(load.Send(0, 1, 1).ok());
  ASSERT_TRUE(load.Send(2, 0, 0).ok());
  const absl::optional<DecodeJob> behind = load.assembler.NextDecode();
  ASSERT_TRUE(behind.has_value());
  EXPECT_EQ(behind->chunk, 2);
  EXPECT_FALSE(load.assembler.NextDecode().has_value());
  ASSERT_TRUE(load.assembler.OnDecoded(2, 0, absl::OkStatus()).ok());
  ASSERT_TRUE(load.assembler.OnRecomputed(*job, absl::OkStatus(), absl::Milliseconds(80)).ok());
  ASSERT_TRUE(load.Decode().ok());
  ASSERT_TRUE(load.Summary({1, -1, 0}).ok());
  EXPECT_TRUE(load.assembler.finished());
  const v1::LoadProgress progress = load.Progress();
  EXPECT_EQ(progress.recomputed_up_to(), 2) << "an index, not a count";
  EXPECT_EQ(progress.recomputed_tokens(), 4);
  EXPECT_DOUBLE_EQ(progress.recompute_seconds(), 0.08);
  EXPECT_FALSE(load.assembler.Result()[1].level.has_value());
}

TEST(LoadAssemblerRecomputeTest, RecomputeDoesNotStartWhileAChunkBeforeItIsBeingRefined) {
  Load load(Shape(2, ClientRecomputeAbility::kSuffix));
  ASSERT_TRUE(load.Send(0, 0, 0).ok());
  ASSERT_TRUE(load.Decode().ok());
  ASSERT_TRUE(load.Send(0, 1, 1).ok());
  ASSERT_TRUE(load.assembler.NextDecode().has_value());
  ASSERT_TRUE(load.PlanRecompute(1).ok());
  EXPECT_FALSE(load.assembler.NextRecompute().has_value());
  ASSERT_TRUE(load.assembler.OnDecoded(0, 1, absl::OkStatus()).ok());
  EXPECT_TRUE(load.assembler.NextRecompute().has_value());
}

TEST(LoadAssemblerRecomputeTest, NeighboursPlannedTogetherAreOneCallUpToItsLimit) {
  LoadShape shape = Shape(6, ClientRecomputeAbility::kAny);
  shape.recompute_run_chunks_max = 2;
  Load load(shape);
  for (uint32_t chunk : {0, 1, 2, 4}) ASSERT_TRUE(load.PlanRecompute(chunk).ok());
  absl::optional<RecomputeJob> job = load.assembler.NextRecompute();
  ASSERT_TRUE(job.has_value());
  EXPECT_EQ(job->chunks, 2);
  EXPECT_EQ(job->tokens, 8);
  ASSERT_TRUE(load.assembler.OnRecomputed(*job, absl::OkStatus(), absl::Seconds(1)).ok());
  job = load.assembler.NextRecompute();
  ASSERT_TRUE(job.has_value());
  EXPECT_EQ(job->first_chunk, 2);
  EXPECT_EQ(job->chunks, 1) << "chunk 3 is not planned as recompute";
  ASSERT_TRUE(load.assembler.OnRecomputed(*job, absl::OkStatus(), absl::Seconds(1)).ok());
  EXPECT_FALSE(load.assembler.NextRecompute().has_value()) << "chunk 3 is missing";
}

TEST(LoadAssemblerRecomputeTest, AnOrderStandsUntilItMeetsWhatHasArrived) {
  for (const auto ability : {ClientRecomputeAbility::kFront, ClientRecomputeAbility::kAny}) {
    Load load(Shape(4, ability));
    ASSERT_TRUE(load.Order(0, 4).ok());
    for (uint32_t chunk : {0u, 1u}) {
      const absl::optional<RecomputeJob> job = load.assembler.NextRecompute();
      ASSERT_TRUE(job.has_value());
      EXPECT_EQ(job->first_chunk, chunk);
      EXPECT_EQ(load.Progress().order().up_to(), chunk + 1);
      EXPECT_EQ(load.Progress().order().newest(), v1::OrderProgress::STATE_BEGUN);
      ASSERT_TRUE(load.Send(3 - chunk, 0, 0).ok());
      ASSERT_TRUE(load.assembler.OnRecomputed(*job, absl::OkStatus(), absl::Seconds(1)).ok());
      EXPECT_EQ(load.Progress().order().newest(), v1::OrderProgress::STATE_DONE);
    }
    EXPECT_FALSE(load.assembler.NextRecompute().has_value()) << "never what has arrived";
    ASSERT_TRUE(load.Decode().ok());
    ASSERT_TRUE(load.Decode().ok());
    ASSERT_TRUE(load.Summary({-1, -1, 0, 0}).ok());
    EXPECT_TRUE(load.assembler.finished());
  }
}

TEST(LoadAssemblerRecomputeTest, AnOrderIsMovedButNotBelowWhatIsBegun) {
  Load load(Shape(4, ClientRecomputeAbility::kFront));
  ASSERT_TRUE(load.Order(0, 4).ok());
  const absl::optional<RecomputeJob> job = load.assembler.NextRecompute();
  ASSERT_TRUE(job.has_value());
  ASSERT_TRUE(load.Order(0, 0).ok());
  ASSERT_TRUE(load.assembler.OnRecomputed(*job, absl::OkStatus(), absl::Seconds(1)).ok());
  EXPECT_FALSE(load.assembler.NextRecompute().has_value());
  ASSERT_TRUE(load.Order(0, 2).ok());
  EXPECT_EQ(load.assembler.NextRecompute()->first_chunk, 1);
}

TEST(LoadAssemblerRecomputeTest, WhatHasNotArrivedByThenIsRecomputedAnyway) {
  Load load(Shape(3, ClientRecomputeAbility::kFront));
  ASSERT_TRUE(load.Order(0, 0, absl::Seconds(5)).ok());
  EXPECT_FALSE(load.assembler.NextRecompute(absl::Seconds(4)).has_value());
  EXPECT_EQ(load.assembler.recompute_at(absl::Seconds(4)), absl::Seconds(5));
  EXPECT_TRUE(load.assembler.NextRecompute(absl::Seconds(5)).has_value());
}

// Of 4 chunks, 15 tokens: recompute of chunk j and what is behind takes (15 - 4 j) seconds, to be
// done after 20 s, but for a limit at which it takes no time.
v1::LoadResponse OrderWithLastMoments(absl::Duration limit) {
  v1::LoadResponse message;
  message.mutable_order()->set_first(4);
  message.mutable_order()->set_end(4);
  v1::LastMoment* moment = message.mutable_order()->add_last_moments();
  moment->set_done_by_ns(static_cast<uint64_t>(absl::ToInt64Nanoseconds(absl::Seconds(20))));
  moment->set_token_ns(1e9);
  moment = message.mutable_order()->add_last_moments();
  moment->set_done_by_ns(static_cast<uint64_t>(absl::ToInt64Nanoseconds(limit)));
  return message;
}

TEST(LoadAssemblerRecomputeTest, ASuffixBeginsAtItsLastMoment) {
  Load load(Shape(4, ClientRecomputeAbility::kSuffix));
  ASSERT_TRUE(load.assembler.OnMessage(OrderWithLastMoments(absl::Seconds(30))).ok());
  EXPECT_FALSE(load.assembler.NextRecompute(absl::Seconds(1)).has_value());
  EXPECT_EQ(load.assembler.recompute_at(absl::Seconds(1)), absl::Seconds(5));
  ASSERT_TRUE(load.Send(0, 0, 0).ok());
  EXPECT_FALSE(load.assembler.NextRecompute(absl::Seconds(5)).has_value()) << "it has arrived";
  ASSERT_TRUE(load.Decode().ok());
  EXPECT_FALSE(load.assembler.NextRecompute(absl::Seconds(6)).has_value());
  EXPECT_EQ(load.assembler.recompute_at(absl::Seconds(6)), absl::Seconds(9));
  const absl::optional<RecomputeJob> job = load.assembler.NextRecompute(absl::Seconds(9));
  ASSERT_TRUE(job.has_value());
  EXPECT_EQ(job->first_chunk, 1);
  EXPECT_EQ(load.Progress().order().up_to(), 2);
}

TEST(LoadAssemblerRecomputeTest, ALastMomentThatHasPassedIsNone) {
  Load load(Shape(4, ClientRecomputeAbility::kSuffix));
  ASSERT_TRUE(load.assembler.OnMessage(OrderWithLastMoments(absl::Seconds(30))).ok());
  ASSERT_TRUE(load.Send(0, 0, 0).ok());
  ASSERT_TRUE(load.Decode().ok());
  EXPECT_FALSE(load.assembler.NextRecompute(absl::Seconds(10)).has_value()) << "would be late";
  ASSERT_TRUE(load.Send(1, 0, 0).ok());
  ASSERT_TRUE(load.Decode().ok());
  EXPECT_FALSE(load.assembler.NextRecompute(absl::Seconds(12)).has_value());
  EXPECT_FALSE(load.assembler.NextRecompute(absl::Seconds(13)).has_value())
      << "chunk 1 took two seconds, so chunk 2 has four";
  EXPECT_EQ(load.assembler.recompute_at(absl::Seconds(13)), absl::Seconds(16));
  EXPECT_EQ(load.assembler.NextRecompute(absl::Seconds(16))->first_chunk, 2);
}

TEST(LoadAssemblerRecomputeTest, ASuffixThatWouldBeLateIsNotBegunAnyway) {
  for (int limit : {4, 5}) {
    Load load(Shape(4, ClientRecomputeAbility::kSuffix));
    v1::LoadResponse message = OrderWithLastMoments(absl::Seconds(limit));
    message.mutable_order()->set_anyway_at_ns(1);
    ASSERT_TRUE(load.assembler.OnMessage(message).ok());
    EXPECT_EQ(load.assembler.NextRecompute(absl::Seconds(5)).has_value(), limit == 5);
  }
}

TEST(LoadAssemblerRecomputeTest, RejectsLastMomentsThatAreNone) {
  const v1::LoadResponse good = OrderWithLastMoments(absl::Seconds(30));
  const auto status = [](const v1::LoadResponse& message, ClientRecomputeAbility ability) {
    return Load(Shape(4, ability)).assembler.OnMessage(message);
  };
  EXPECT_TRUE(status(good, ClientRecomputeAbility::kSuffix).ok());
  EXPECT_TRUE(absl::IsInternal(status(good, ClientRecomputeAbility::kFront)));
  v1::LoadResponse bad = good;
  bad.mutable_order()->mutable_last_moments()->RemoveLast();
  EXPECT_TRUE(absl::IsInternal(status(bad, ClientRecomputeAbility::kSuffix))) << "one";
  bad = good;
  for (int i = 0; i < 7; ++i)
    *bad.mutable_order()->add_last_moments() = bad.order().last_moments(0);
  EXPECT_TRUE(absl::IsInternal(status(bad, ClientRecomputeAbility::kSuffix))) << "nine";
  for (const double cost :
       {-1.0, std::numeric_limits<double>::infinity(), std::numeric_limits<double>::quiet_NaN()}) {
    bad = good;
    bad.mutable_order()->mutable_last_moments(0)->set_pair_ns(cost);
    EXPECT_TRUE(absl::IsInternal(status(bad, ClientRecomputeAbility::kSuffix))) << cost;
  }
  bad = good;
  bad.mutable_order()->mutable_last_moments(1)->set_done_by_ns(~uint64_t{0});
  EXPECT_TRUE(absl::IsInternal(status(bad, ClientRecomputeAbility::kSuffix))) << "never";
  // What no clock shows is no reason to fail.
  bad = good;
  bad.mutable_order()->mutable_last_moments(0)->set_pair_ns(1e300);
  EXPECT_TRUE(status(bad, ClientRecomputeAbility::kSuffix).ok());
}

TEST(LoadAssemblerRecomputeTest, ASuffixThatIsBegunIsRecomputedWhateverArrives) {
  LoadShape shape = Shape(4, ClientRecomputeAbility::kSuffix);
  shape.recompute_run_chunks_max = 2;
  Load load(shape);
  ASSERT_TRUE(load.Order(1, 4).ok());
  EXPECT_FALSE(load.assembler.NextRecompute().has_value()) << "chunk 0 is missing";
  ASSERT_TRUE(load.Send(0, 0, 0).ok());
  ASSERT_TRUE(load.Plan(1, 0).ok());
  ASSERT_TRUE(load.Data(1, 0, 0, "aaa").ok());
  ASSERT_TRUE(load.Decode().ok());
  absl::optional<RecomputeJob> job = load.assembler.NextRecompute();
  ASSERT_TRUE(job.has_value());
  EXPECT_EQ(job->first_chunk, 1);
  EXPECT_EQ(job->chunks, 2);
  EXPECT_EQ(load.Progress().order().first(), 1);
  ASSERT_TRUE(load.Data(1, 0, 3, "aaaaaaa").ok()) << "dropped";
  ASSERT_TRUE(load.assembler.OnRecomputed(*job, absl::OkStatus(), absl::Seconds(1)).ok());
  job = load.assembler.NextRecompute();
  ASSERT_TRUE(job.has_value());
  EXPECT_EQ(job->first_chunk, 3);
  ASSERT_TRUE(load.assembler.OnRecomputed(*job, absl::OkStatus(), absl::Seconds(1)).ok());
  ASSERT_TRUE(load.Summary({0, -1, -1, -1}).ok());
  EXPECT_TRUE(load.assembler.finished());
}

TEST(LoadAssemblerRecomputeTest, ARecomputeWhoseBytesComeFirstIsGivenUp) {
  Load load(Shape(1, ClientRecomputeAbility::kFront));
  ASSERT_TRUE(load.Order(0, 1).ok());
  const absl::optional<RecomputeJob> job = load.assembler.NextRecompute();
  ASSERT_TRUE(job.has_value());
  EXPECT_FALSE(load.assembler.recompute_superseded());
  ASSERT_TRUE(load.Send(0, 0, 0).ok());
  EXPECT_TRUE(load.assembler.recompute_superseded());
  EXPECT_FALSE(load.assembler.NextDecode().has_value()) << "the callback may still be writing";
  ASSERT_TRUE(load.assembler.OnRecomputed(*job, absl::CancelledError(), absl::ZeroDuration()).ok());
  EXPECT_EQ(load.Progress().order().newest(), v1::OrderProgress::STATE_GIVEN_UP);
  EXPECT_FALSE(load.assembler.NextRecompute().has_value());
  ASSERT_TRUE(load.Decode().ok());
  ASSERT_TRUE(load.Summary({0}).ok());
  EXPECT_TRUE(load.assembler.finished());
  EXPECT_EQ(load.assembler.Result()[0].level, 0);
}

TEST(LoadAssemblerRecomputeTest, ARefinementIsTakenBack) {
  Load load(Shape(1));
  ASSERT_TRUE(load.Send(0, 0, 0).ok());
  ASSERT_TRUE(load.Decode().ok());
  ASSERT_TRUE(load.Plan(0, 1).ok());
  ASSERT_TRUE(load.Data(0, 1, 0, "bbb").ok());
  ASSERT_TRUE(load.Plan(0, 0).ok());
  ASSERT_TRUE(load.Plan(0, 1).ok()) << "and begun anew";
  ASSERT_TRUE(load.Segment(0, 1).ok());
  ASSERT_TRUE(load.Decode().ok());
  ASSERT_TRUE(load.Summary({1}).ok());
  EXPECT_TRUE(load.assembler.finished());
}

TEST(LoadAssemblerRecomputeTest, RefusesOrdersOutOfRange) {
  ExpectViolation(Load(Shape(2)).Order(0, 1), "which the client said it cannot");
  ExpectViolation(Load(Shape(2, ClientRecomputeAbility::kAny)).Order(0, 3), "an order for");
  ExpectViolation(Load(Shape(2, ClientRecomputeAbility::kAny)).Order(2, 1), "an order for");
}

TEST(LoadAssemblerRecomputeTest, AFailedRecomputeEndsTheLoadWithItsError) {
  Load load(Shape(1, ClientRecomputeAbility::kAny));
  ASSERT_TRUE(load.PlanRecompute(0).ok());
  const absl::optional<RecomputeJob> job = load.assembler.NextRecompute();
  ASSERT_TRUE(job.has_value());
  const absl::Status status =
      load.assembler.OnRecomputed(*job, absl::AbortedError("no GPU"), absl::ZeroDuration());
  EXPECT_EQ(status.code(), absl::StatusCode::kAborted);
  EXPECT_THAT(std::string(status.message()), HasSubstr("no GPU"));
  EXPECT_EQ(load.assembler.chunks_ready(), 0);
}

TEST(LoadAssemblerRecomputeTest, FrontReportsAChunkAsSoonAsItIsWorkedOn) {
  for (const auto ability : {ClientRecomputeAbility::kFront, ClientRecomputeAbility::kAny}) {
    Load load(Shape(4, ability));
    EXPECT_FALSE(load.assembler.NextRecompute().has_value()) << "the server decides";
    ASSERT_TRUE(load.PlanRecompute(0).ok());
    ASSERT_TRUE(load.PlanRecompute(1).ok());
    absl::optional<RecomputeJob> job = load.assembler.NextRecompute();
    ASSERT_TRUE(job.has_value());
    EXPECT_EQ(job->first_chunk, 0);
    EXPECT_EQ(job->chunks, 1);
    EXPECT_EQ(load.Progress().recomputed_up_to(), 1);
    ASSERT_TRUE(load.Send(3, 0, 0).ok());
    ASSERT_TRUE(load.Decode().ok()) << "behind the front, decoding goes on";
    ASSERT_TRUE(load.assembler.OnRecomputed(*job, absl::OkStatus(), absl::Seconds(1)).ok());
    job = load.assembler.NextRecompute();
    ASSERT_TRUE(job.has_value());
    EXPECT_EQ(load.Progress().recomputed_up_to(), 2);
    ASSERT_TRUE(load.assembler.OnRecomputed(*job, absl::OkStatus(), absl::Seconds(1)).ok());
    EXPECT_FALSE(load.assembler.NextRecompute().has_value());
    EXPECT_EQ(load.Progress().recomputed_up_to(), 2);
    ASSERT_TRUE(load.Send(2, 0, 0).ok());
    ASSERT_TRUE(load.Decode().ok());
    ASSERT_TRUE(load.Summary({-1, -1, 0, 0}).ok());
    EXPECT_TRUE(load.assembler.finished());
  }
}

TEST(LoadAssemblerRecomputeTest, ADecodedChunkThatIsPlannedAsRecomputeIsReadyOnlyAfterIt) {
  Load load(Shape(2, ClientRecomputeAbility::kSuffix));
  ASSERT_TRUE(load.Send(0, 0, 0).ok());
  ASSERT_TRUE(load.Send(1, 0, 0).ok());
  ASSERT_TRUE(load.Decode().ok());
  ASSERT_TRUE(load.Decode().ok());
  EXPECT_EQ(load.assembler.chunks_ready(), 2);
  ASSERT_TRUE(load.PlanRecompute(0).ok());
  ASSERT_TRUE(load.PlanRecompute(1).ok());
  EXPECT_EQ(load.assembler.chunks_ready(), 0);
  for (uint32_t chunk : {0u, 1u}) {
    const absl::optional<RecomputeJob> job = load.assembler.NextRecompute();
    ASSERT_TRUE(job.has_value());
    EXPECT_EQ(job->first_chunk, chunk);
    ASSERT_TRUE(load.assembler.OnRecomputed(*job, absl::OkStatus(), absl::Seconds(1)).ok());
  }
  ASSERT_TRUE(load.Summary({-1, -1}).ok());
  EXPECT_TRUE(load.assembler.finished());
}

TEST(LoadAssemblerRecomputeTest, AChunkPlannedAsRecomputeWhileItDecodesIsRecomputedAfterTheDecode) {
  Load load(Shape(1, ClientRecomputeAbility::kAny));
  ASSERT_TRUE(load.Send(0, 0, 0).ok());
  ASSERT_TRUE(load.assembler.NextDecode().has_value());
  ASSERT_TRUE(load.PlanRecompute(0).ok());
  EXPECT_FALSE(load.assembler.NextRecompute().has_value()) << "two writers to one chunk";
  ASSERT_TRUE(load.assembler.OnDecoded(0, 0, absl::OkStatus()).ok());
  EXPECT_EQ(load.assembler.chunks_ready(), 0);
  EXPECT_TRUE(load.assembler.NextRecompute().has_value());
}

}  // namespace
}  // namespace kvstream

#include "client/load_assembler.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "client/testing/assembled_load.h"

namespace kvstream {
namespace {

using assembled_load::ExpectViolation;
using assembled_load::kChunkTokens;
using assembled_load::kLevels;
using assembled_load::Load;
using assembled_load::Shape;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

TEST(LoadAssemblerTest, ChunksArriveDecodeAndFinish) {
  Load load(Shape(2));
  EXPECT_FALSE(load.assembler.NextDecode().has_value());
  ASSERT_TRUE(load.Send(0, 0, 1).ok());
  absl::optional<DecodeJob> job = load.assembler.NextDecode();
  ASSERT_TRUE(job.has_value());
  EXPECT_EQ(job->chunk, 0);
  EXPECT_EQ(job->level, 1);
  EXPECT_EQ(job->first_token, 0);
  EXPECT_EQ(job->tokens, 4);
  EXPECT_THAT(job->segments, ElementsAre("aaaaaaaaaa", "bbbbbb"));
  EXPECT_EQ(load.Progress().chunks_ready(), 0);
  ASSERT_TRUE(load.assembler.OnDecoded(0, 1, absl::OkStatus()).ok());
  EXPECT_EQ(load.Progress().chunks_ready(), 1);

  ASSERT_TRUE(load.Send(1, 0, 0).ok());
  job = load.assembler.NextDecode();
  ASSERT_TRUE(job.has_value());
  EXPECT_EQ(job->first_token, 4);
  EXPECT_EQ(job->tokens, 3) << "the last chunk holds the rest";
  ASSERT_TRUE(load.Summary({1, 0}).ok()) << "the summary may come before the last decode is done";
  EXPECT_FALSE(load.assembler.finished());
  ASSERT_TRUE(load.assembler.OnDecoded(1, 0, absl::OkStatus()).ok());
  EXPECT_TRUE(load.assembler.finished());
  EXPECT_TRUE(load.assembler.Verdict().ok());

  const std::vector<LoadedChunk> result = load.assembler.Result();
  EXPECT_EQ(result[0].level, 1);
  EXPECT_EQ(result[0].bytes, 16);
  EXPECT_EQ(result[1].level, 0);
  EXPECT_EQ(result[1].tokens, 3);
  EXPECT_EQ(load.Progress().bytes_received(), 26);
}

TEST(LoadAssemblerTest, DecodesAChunkOnlyOnceItsPlannedLevelIsThere) {
  Load load(Shape(1));
  ASSERT_TRUE(load.Plan(0, 2).ok());
  ASSERT_TRUE(load.Segment(0, 0).ok());
  ASSERT_TRUE(load.Segment(0, 1).ok());
  EXPECT_FALSE(load.assembler.NextDecode().has_value()) << "it would be decoded twice";
  ASSERT_TRUE(load.Segment(0, 2).ok());
  const absl::optional<DecodeJob> job = load.assembler.NextDecode();
  ASSERT_TRUE(job.has_value());
  EXPECT_EQ(job->level, 2);
  EXPECT_FALSE(load.assembler.NextDecode().has_value()) << "one decode a chunk at a time";
}

TEST(LoadAssemblerTest, NeverDecodedChunksGoBeforeRefinedOnes) {
  Load load(Shape(3));
  ASSERT_TRUE(load.Send(0, 0, 0).ok());
  ASSERT_TRUE(load.Decode().ok());
  ASSERT_TRUE(load.Send(0, 1, 1).ok());
  ASSERT_TRUE(load.Send(2, 0, 0).ok());
  ASSERT_TRUE(load.Send(1, 0, 0).ok());
  EXPECT_EQ(load.Progress().chunks_ready(), 0) << "chunk 0 has a newer level than is decoded";
  std::vector<uint32_t> order;
  std::vector<int> first_unchecked;
  while (absl::optional<DecodeJob> job = load.assembler.NextDecode()) {
    order.push_back(job->chunk);
    first_unchecked.push_back(job->first_unchecked_level);
    ASSERT_TRUE(load.assembler.OnDecoded(job->chunk, job->level, absl::OkStatus()).ok());
  }
  EXPECT_THAT(order, ElementsAre(1, 2, 0));
  EXPECT_THAT(first_unchecked, ElementsAre(0, 0, 1));
  EXPECT_EQ(load.Progress().chunks_ready(), 3);
}

TEST(LoadAssemblerTest, ARefinementThatArrivesDuringADecodeIsDecodedAfterIt) {
  Load load(Shape(1));
  ASSERT_TRUE(load.Send(0, 0, 0).ok());
  const absl::optional<DecodeJob> first = load.assembler.NextDecode();
  ASSERT_TRUE(first.has_value());
  ASSERT_TRUE(load.Send(0, 1, 2).ok());
  EXPECT_FALSE(load.assembler.NextDecode().has_value());
  EXPECT_EQ(first->segments[0], "aaaaaaaaaa") << "borrowed bytes stay while it decodes";
  ASSERT_TRUE(load.assembler.OnDecoded(0, 0, absl::OkStatus()).ok());
  EXPECT_EQ(load.assembler.chunks_ready(), 0);
  ASSERT_TRUE(load.Decode().ok());
  EXPECT_EQ(load.assembler.chunks_ready(), 1);
  ASSERT_TRUE(load.Summary({2}).ok());
  EXPECT_TRUE(load.assembler.finished());
}

// ------------------------------------------------------------------ damage

TEST(LoadAssemblerTest, DamageIsReportedOnceAndRecomputedWhenTheServerSaysSo) {
  Load load(Shape(2, ClientRecomputeAbility::kAny));
  ASSERT_TRUE(load.Send(0, 0, 1).ok());
  ASSERT_TRUE(load.Decode(absl::DataLossError("checksum")).ok());
  EXPECT_TRUE(load.assembler.damage_unreported());
  EXPECT_THAT(load.Progress().damaged_chunks(), ElementsAre(0));
  EXPECT_EQ(load.Progress().damaged_chunks_size(), 0);
  EXPECT_FALSE(load.assembler.NextDecode().has_value()) << "damaged bytes are not tried again";
  // What the server had sent before it heard of it.
  ASSERT_TRUE(load.Send(0, 2, 2).ok());
  EXPECT_FALSE(load.assembler.NextDecode().has_value());
  ASSERT_TRUE(load.PlanRecompute(0).ok());
  const absl::optional<RecomputeJob> job = load.assembler.NextRecompute();
  ASSERT_TRUE(job.has_value());
  ASSERT_TRUE(load.assembler.OnRecomputed(*job, absl::OkStatus(), absl::Seconds(1)).ok());
  EXPECT_EQ(load.assembler.chunks_ready(), 1);
}

TEST(LoadAssemblerTest, ARefinementThatFailsToDecodeTakesTheChunkBack) {
  Load load(Shape(1, ClientRecomputeAbility::kAny));
  ASSERT_TRUE(load.Send(0, 0, 0).ok());
  ASSERT_TRUE(load.Decode().ok());
  EXPECT_EQ(load.assembler.chunks_ready(), 1);
  ASSERT_TRUE(load.Send(0, 1, 1).ok());
  ASSERT_TRUE(load.Decode(absl::DataLossError("table")).ok());
  EXPECT_EQ(load.assembler.chunks_ready(), 0);
}

TEST(LoadAssemblerTest, ALoadWithADamagedChunkNeverFinishes) {
  Load load(Shape(2));
  ASSERT_TRUE(load.Send(0, 0, 0).ok());
  ASSERT_TRUE(load.Send(1, 0, 0).ok());
  ASSERT_TRUE(load.Decode().ok());
  ASSERT_TRUE(load.Decode(absl::DataLossError("checksum")).ok());
  ASSERT_TRUE(load.Summary({0, 0}).ok());
  EXPECT_FALSE(load.assembler.finished());
  const absl::Status verdict = load.assembler.Verdict();
  EXPECT_EQ(verdict.code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(std::string(verdict.message()), HasSubstr("chunk 1 (0200000000000000"));
  EXPECT_THAT(std::string(verdict.message()), HasSubstr("checksum"));
}

TEST(LoadAssemblerTest, ADecodeErrorThatIsNotTheBytesFaultEndsTheLoad) {
  for (const absl::Status& error :
       {absl::InternalError("bug"), absl::InvalidArgumentError("block table")}) {
    Load load(Shape(1));
    ASSERT_TRUE(load.Send(0, 0, 0).ok());
    EXPECT_EQ(load.Decode(error).code(), error.code());
  }
}

// ------------------------------------------------------------------ hostile servers

TEST(LoadAssemblerTest, RefusesPlansOutOfRange) {
  const auto plan_error = [](const v1::ChunkPlan& plan) {
    Load load(Shape(2));
    return load.assembler.OnMessage(Load::Wrap(plan));
  };
  v1::ChunkPlan good = Load::Sized(0, kChunkTokens);
  good.set_level(1);
  EXPECT_TRUE(plan_error(good).ok());

  v1::ChunkPlan plan = good;
  plan.set_chunk(2);
  ExpectViolation(plan_error(plan), "a plan for chunk 2 of 2");
  plan.set_chunk(0xffffffff);
  ExpectViolation(plan_error(plan), "a plan for chunk 4294967295");
  plan = good;
  plan.set_level(3);
  ExpectViolation(plan_error(plan), "planned at level 3 of 3");
  plan = good;
  plan.clear_decision();
  ExpectViolation(plan_error(plan), "without a decision");
  plan = good;
  plan.set_tokens(5);
  ExpectViolation(plan_error(plan), "5 tokens where there are 4");
  plan = good;
  plan.clear_segment_bytes();
  ExpectViolation(plan_error(plan), "no segment_bytes");
  plan = good;
  plan.add_segment_bytes(1);
  ExpectViolation(plan_error(plan), "the bytes of 4 levels");
  plan = good;
  plan.set_segment_bytes(1, 0);
  ExpectViolation(plan_error(plan), "a segment of 0 bytes");
  plan.set_segment_bytes(1, uint64_t{1} << 62);
  ExpectViolation(plan_error(plan), "a segment of 4611686018427387904 bytes");
  plan = good;
  plan.mutable_recompute();
  ExpectViolation(plan_error(plan), "which the client said it cannot");
  ExpectViolation(Load(Shape(1)).assembler.OnMessage({}),
                  "neither beginning, plan, data, order, batch nor summary");
}

TEST(LoadAssemblerTest, APlanThatComesWithDataIsAsOneBeforeThem) {
  for (const bool as_frame : {false, true}) {
    v1::ChunkPlan plan = Load::Sized(0, kChunkTokens - 1);
    plan.set_level(0);
    Load load(Shape(1));
    ASSERT_TRUE(load.DataWithPlan(plan, 0, "0123456789", as_frame).ok());
    ASSERT_TRUE(load.Decode().ok());
    ASSERT_TRUE(load.Summary({0}).ok());
    EXPECT_TRUE(load.assembler.finished());

    Load other(Shape(2));
    plan.set_tokens(kChunkTokens);
    ExpectViolation(other.DataWithPlan(plan, 1, "0123456789", as_frame),
                    "a plan for chunk 0 with data of 1");
    plan.clear_decision();
    ExpectViolation(other.DataWithPlan(plan, 0, "0123456789", as_frame), "without a decision");
  }
  Load load(Shape(1));
  SegmentFrame frame;
  frame.plan = "no plan";
  ExpectViolation(load.assembler.OnData(frame), "not a LoadResponse");
}

TEST(LoadAssemblerTest, ABatchIsItsPartsOneAfterTheOther) {
  Load load(Shape(2));
  v1::LoadResponse message;
  for (uint32_t chunk = 0; chunk < 2; ++chunk) {
    v1::SegmentData* data = message.mutable_batch()->add_data();
    data->set_chunk(chunk);
    data->set_data("0123456789");
    v1::ChunkPlan* plan = data->mutable_plan();
    plan->set_chunk(chunk);
    plan->set_level(0);
    plan->add_segment_bytes(10);
  }
  ASSERT_TRUE(load.assembler.OnMessage(message).ok());
  ASSERT_TRUE(load.Decode().ok());
  ASSERT_TRUE(load.Decode().ok());
  ASSERT_TRUE(load.Summary({0, 0}).ok());
  EXPECT_TRUE(load.assembler.finished());

  Load other(Shape(2));
  message.mutable_batch()->mutable_data(1)->set_chunk(0);
  ExpectViolation(other.assembler.OnMessage(message), "a plan for chunk 1 with data of 0");
  EXPECT_TRUE(other.assembler.NextDecode().has_value()) << "the part before stands";
}

// A first plan that was lowered: what came is what the chunk has, not something to recompute.
TEST(LoadAssemblerTest, AFirstPlanThatIsLoweredMeansThatTheChunkHasArrived) {
  Load load(Shape(2, ClientRecomputeAbility::kFront));
  ASSERT_TRUE(load.Plan(0, 2).ok());
  ASSERT_TRUE(load.Segment(0, 0).ok());
  ASSERT_TRUE(load.Segment(0, 1).ok());
  EXPECT_FALSE(load.assembler.NextDecode().has_value());
  ASSERT_TRUE(load.Plan(0, 1).ok());
  // A refinement that follows at once changes nothing about it.
  ASSERT_TRUE(load.Plan(0, 2).ok());
  ASSERT_TRUE(load.Order(0, 2).ok());
  EXPECT_FALSE(load.assembler.NextRecompute(absl::Seconds(1)).has_value());
  ASSERT_TRUE(load.assembler.NextDecode().has_value());
}

TEST(LoadAssemblerTest, RefusesPlansThatContradictEarlierOnes) {
  Load load(Shape(2));
  ASSERT_TRUE(load.Plan(0, 1).ok());
  ASSERT_TRUE(load.Plan(0, 1).ok()) << "the same again changes nothing";
  ExpectViolation(load.Plan(0, 0), "lowers level 1 to 0");
  v1::ChunkPlan plan = Load::Sized(0, kChunkTokens);
  plan.set_level(2);
  plan.set_segment_bytes(2, 5);
  ExpectViolation(load.assembler.OnMessage(Load::Wrap(plan)), "changes segment_bytes");
  plan.clear_segment_bytes();
  EXPECT_TRUE(load.assembler.OnMessage(Load::Wrap(plan)).ok()) << "only the first plan needs sizes";
  Load able(Shape(1, ClientRecomputeAbility::kAny));
  ASSERT_TRUE(able.PlanRecompute(0).ok());
  ExpectViolation(able.Plan(0, 0), "after it was planned as recompute");
}

TEST(LoadAssemblerTest, RefusesDataThatWasNotAnnouncedOrIsOutOfOrder) {
  Load load(Shape(2, ClientRecomputeAbility::kAny));
  ExpectViolation(load.Data(2, 0, 0, "x"), "data of chunk 2 of 2");
  ExpectViolation(load.Data(0, 0, 0, "x"), "before a plan");
  ASSERT_TRUE(load.Plan(0, 1).ok());
  ExpectViolation(load.Data(0, 1, 0, "x"), "level 1 where level 0 is next");
  ExpectViolation(load.Data(0, 2, 0, "x"), "level 2 where the plan says 1");
  ExpectViolation(load.Data(0, 0, 1, "x"), "offset 1 where 0 is next");
  ExpectViolation(load.Data(0, 0, 0, ""), "a data message of 0 bytes");
  ExpectViolation(load.Data(0, 0, 0, "elevenbytes"), "of a segment of 10");
  ASSERT_TRUE(load.Data(0, 0, 0, "123456").ok());
  ExpectViolation(load.Data(0, 0, 0, "123456"), "offset 0 where 6 is next");
  ExpectViolation(load.Data(0, 0, 6, "12345"), "of a segment of 10");
  ExpectViolation(load.Data(0, 0, ~uint64_t{0}, "1"), "where 6 is next");
  ASSERT_TRUE(load.Data(0, 0, 6, "1234").ok());
  ASSERT_TRUE(load.Segment(0, 1).ok());
  ExpectViolation(load.Data(0, 1, 0, "x"), "level 1 where level 2 is next");
  ASSERT_TRUE(load.Plan(1, 0).ok());
  ASSERT_TRUE(load.Data(1, 0, 0, "x").ok());
  ASSERT_TRUE(load.PlanRecompute(1).ok());
  ExpectViolation(load.Data(1, 0, 1, "x"), "data of a chunk planned as recompute");
}

TEST(LoadAssemblerTest, RefusesADataMessageLargerThanTheProtocolAllows) {
  LoadShape shape = Shape(1);
  shape.values_per_token = 1 << 20;
  Load load(shape);
  v1::ChunkPlan plan;
  plan.set_tokens(kChunkTokens - 1);
  plan.set_level(0);
  for (int i = 0; i < kLevels; ++i) plan.add_segment_bytes(2 << 20);
  ASSERT_TRUE(load.assembler.OnMessage(Load::Wrap(plan)).ok());
  const std::string bytes((1 << 20) + 1, 'x');
  ExpectViolation(load.Data(0, 0, 0, bytes), "a data message of 1048577 bytes");
  EXPECT_TRUE(load.Data(0, 0, 0, absl::string_view(bytes).substr(1)).ok());
}

TEST(LoadAssemblerTest, RefusesASummaryThatIsNotWhatWasDelivered) {
  const auto summary_error = [](const std::vector<int>& levels, int delivered, int floor = 0,
                                absl::optional<int> fixed = absl::nullopt) {
    LoadShape shape = Shape(2);
    shape.floor_level = floor;
    shape.fixed_level = fixed;
    Load load(shape);
    EXPECT_TRUE(load.Send(0, 0, delivered).ok());
    EXPECT_TRUE(load.Send(1, 0, delivered).ok());
    return load.Summary(levels);
  };
  EXPECT_TRUE(summary_error({1, 1}, 1).ok());
  ExpectViolation(summary_error({1}, 1), "a summary of 1 chunks of 2");
  ExpectViolation(summary_error({1, 0}, 1), "not what was planned");
  ExpectViolation(summary_error({1, 2}, 1), "not what was planned");
  ExpectViolation(summary_error({-1, 1}, 1), "not what was planned");
  Load recomputed(Shape(1, ClientRecomputeAbility::kAny));
  ASSERT_TRUE(recomputed.PlanRecompute(0).ok());
  ExpectViolation(recomputed.Summary({0}), "not what was planned");
  ExpectViolation(summary_error({1, 1}, 1, /*floor=*/2), "which the client did not allow");
  ExpectViolation(summary_error({1, 1}, 1, 0, /*fixed=*/0), "which the client did not allow");

  Load partial(Shape(2));
  ASSERT_TRUE(partial.Send(0, 0, 0).ok());
  ExpectViolation(partial.Summary({0, 0}), "chunk 1 of 2: the summary is not what was planned");
  ASSERT_TRUE(partial.Plan(1, 0).ok());
  ASSERT_TRUE(partial.Data(1, 0, 0, "12345").ok());
  ExpectViolation(partial.Summary({0, 0}), "chunk 1 of 2: the summary came before all of its data");
  ASSERT_TRUE(partial.Data(1, 0, 5, "12345").ok());
  ASSERT_TRUE(partial.Summary({0, 0}).ok());
  ExpectViolation(partial.Summary({0, 0}), "second summary");
  ExpectViolation(partial.Plan(0, 1), "after the summary");
  ExpectViolation(partial.Data(0, 1, 0, "x"), "after the summary");
}

TEST(LoadAssemblerTest, SomeChunksMayComeOneLevelBelowTheFloor) {
  const auto summary_error = [](const std::vector<int>& levels, double share) {
    LoadShape shape = Shape(static_cast<int>(levels.size()));
    shape.floor_level = 2;
    shape.floor_below_share = share;
    Load load(shape);
    for (size_t i = 0; i < levels.size(); ++i) {
      EXPECT_TRUE(load.Send(static_cast<uint32_t>(i), 0, levels[i]).ok());
    }
    return load.Summary(levels);
  };
  EXPECT_TRUE(summary_error({1, 2, 2, 2}, 0.3).ok());
  EXPECT_TRUE(summary_error({2, 2, 1, 1}, 0.5).ok());
  EXPECT_TRUE(summary_error({1, 1}, 1).ok());
  ExpectViolation(summary_error({1, 1, 2, 2}, 0.25), "which the client did not allow");
  ExpectViolation(summary_error({1, 2}, 0), "which the client did not allow");
  ExpectViolation(summary_error({0, 2}, 1), "which the client did not allow");
}

TEST(LoadAssemblerTest, AChunkThatLostTheFixedLevelComesAtItsFinest) {
  LoadShape shape = Shape(3);
  shape.fixed_level = 2;
  Load load(shape);
  ASSERT_TRUE(load.Send(0, 0, 2).ok());
  v1::ChunkPlan plan = Load::Sized(1, kChunkTokens);
  plan.mutable_segment_bytes()->Truncate(2);
  plan.set_level(1);
  ASSERT_TRUE(load.assembler.OnMessage(Load::Wrap(plan)).ok());
  ASSERT_TRUE(load.Segment(1, 0).ok());
  ASSERT_TRUE(load.Segment(1, 1).ok());
  // One that has the level has to come at it.
  ASSERT_TRUE(load.Send(2, 0, 1).ok());
  ExpectViolation(load.Summary({2, 1, 1}), "chunk 2 of 3: delivered at level 1");
  ASSERT_TRUE(load.Send(2, 2, 2).ok());
  ASSERT_TRUE(load.Summary({2, 1, 2}).ok());
  while (load.Decode().ok()) {
  }
  ASSERT_TRUE(load.assembler.Verdict().ok()) << load.assembler.Verdict();
  const std::vector<absl::optional<LoadedChunk>> kept = load.assembler.Kept();
  ASSERT_TRUE(kept[1].has_value());
  EXPECT_EQ(kept[1]->level, 1);
}

TEST(LoadAssemblerTest, AStreamThatEndsEarlyIsNotALoad) {
  Load load(Shape(1));
  ExpectViolation(load.assembler.Verdict(), "without a summary");
  ASSERT_TRUE(load.Send(0, 0, 0).ok());
  ASSERT_TRUE(load.Decode().ok());
  ExpectViolation(load.assembler.Verdict(), "without a summary");
}

TEST(LoadAssemblerTest, ASummaryWithoutARecomputeThatItOwesIsNotALoad) {
  Load load(Shape(2, ClientRecomputeAbility::kAny));
  ASSERT_TRUE(load.PlanRecompute(1).ok());
  ASSERT_TRUE(load.Send(0, 0, 0).ok());
  ASSERT_TRUE(load.Summary({0, -1}).ok());
  EXPECT_FALSE(load.assembler.finished());
  ASSERT_TRUE(load.Decode().ok());
  EXPECT_FALSE(load.assembler.finished());
  ExpectViolation(load.assembler.Verdict(), "chunk 1 of 2: not ready");
}

}  // namespace
}  // namespace kvstream

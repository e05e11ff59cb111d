// A load as its server tells it, against an assembler of its own.
#ifndef KVSTREAM_CLIENT_TESTING_ASSEMBLED_LOAD_H_
#define KVSTREAM_CLIENT_TESTING_ASSEMBLED_LOAD_H_

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "absl/types/optional.h"
#include "client/load_assembler.h"
#include "kvstream/v1/kvstream.pb.h"

namespace kvstream::assembled_load {

inline constexpr int kChunkTokens = 4;
inline constexpr int kLevels = 3;
inline constexpr uint64_t kSegmentBytes[kLevels] = {10, 6, 4};

inline LoadShape Shape(uint32_t chunks,
                       ClientRecomputeAbility ability = ClientRecomputeAbility::kNone) {
  LoadShape shape;
  shape.chunk_ids.resize(chunks);
  for (uint32_t i = 0; i < chunks; ++i) shape.chunk_ids[i][0] = static_cast<uint8_t>(i + 1);
  shape.tokens = int64_t{chunks} * kChunkTokens - 1;
  shape.chunk_tokens = kChunkTokens;
  shape.levels = kLevels;
  shape.values_per_token = 8;
  shape.ability = ability;
  return shape;
}

inline uint32_t TokensOf(uint32_t chunk, uint32_t chunks) {
  return chunk + 1 == chunks ? kChunkTokens - 1 : kChunkTokens;
}

// A server that says what it is told to, against an assembler of its own.
class Load {
 public:
  explicit Load(const LoadShape& shape) : assembler(shape), chunks_(assembler.chunks()) {}

  static v1::ChunkPlan Sized(uint32_t chunk, uint32_t tokens) {
    v1::ChunkPlan plan;
    plan.set_chunk(chunk);
    plan.set_tokens(tokens);
    for (uint64_t bytes : kSegmentBytes) plan.add_segment_bytes(bytes);
    return plan;
  }
  static v1::LoadResponse Wrap(const v1::ChunkPlan& plan) {
    v1::LoadResponse message;
    *message.mutable_plan() = plan;
    return message;
  }
  absl::Status Plan(uint32_t chunk, int level) {
    v1::ChunkPlan plan = Sized(chunk, TokensOf(chunk, chunks_));
    plan.set_level(static_cast<uint32_t>(level));
    return assembler.OnMessage(Wrap(plan));
  }
  absl::Status PlanRecompute(uint32_t chunk) {
    v1::ChunkPlan plan = Sized(chunk, TokensOf(chunk, chunks_));
    plan.mutable_recompute()->set_reason(v1::Recompute::REASON_FASTER);
    return assembler.OnMessage(Wrap(plan));
  }
  absl::Status Order(uint32_t first, uint32_t end,
                     absl::Duration anyway_at = absl::ZeroDuration()) {
    v1::LoadResponse message;
    message.mutable_order()->set_first(first);
    message.mutable_order()->set_end(end);
    message.mutable_order()->set_anyway_at_ns(
        static_cast<uint64_t>(absl::ToInt64Nanoseconds(anyway_at)));
    return assembler.OnMessage(message);
  }
  absl::Status Data(uint32_t chunk, int level, uint64_t offset, absl::string_view bytes) {
    SegmentFrame frame;
    frame.chunk = chunk;
    frame.level = static_cast<uint32_t>(level);
    frame.offset = offset;
    frame.size = bytes.size();
    frame.payload = {bytes.substr(0, bytes.size() / 2), bytes.substr(bytes.size() / 2)};
    return assembler.OnData(frame);
  }
  // As one message with its plan, as the parser of frames hands it on or as protobuf does.
  absl::Status DataWithPlan(const v1::ChunkPlan& plan, uint32_t chunk, absl::string_view bytes,
                            bool as_frame) {
    if (as_frame) {
      SegmentFrame frame;
      frame.chunk = chunk;
      frame.size = bytes.size();
      frame.plan = plan.SerializeAsString();
      frame.payload = {bytes};
      return assembler.OnData(frame);
    }
    v1::LoadResponse message;
    message.mutable_data()->set_chunk(chunk);
    *message.mutable_data()->mutable_plan() = plan;
    message.mutable_data()->set_data(std::string(bytes));
    return assembler.OnMessage(message);
  }
  // All bytes of a segment, in two messages.
  absl::Status Segment(uint32_t chunk, int level) {
    const std::string bytes(kSegmentBytes[level], static_cast<char>('a' + level));
    absl::Status status = Data(chunk, level, 0, absl::string_view(bytes).substr(0, 3));
    status.Update(Data(chunk, level, 3, absl::string_view(bytes).substr(3)));
    return status;
  }
  absl::Status Send(uint32_t chunk, int from_level, int to_level) {
    absl::Status status = Plan(chunk, to_level);
    for (int level = from_level; level <= to_level; ++level) status.Update(Segment(chunk, level));
    return status;
  }
  v1::LoadSummary SummaryOf(const std::vector<int>& levels) {
    v1::LoadSummary summary;
    for (uint32_t chunk = 0; chunk < levels.size(); ++chunk) {
      v1::ChunkPlan* plan = summary.add_chunks();
      plan->set_chunk(chunk);
      if (levels[chunk] < 0) {
        plan->mutable_recompute();
      } else {
        plan->set_level(static_cast<uint32_t>(levels[chunk]));
      }
    }
    return summary;
  }
  absl::Status Summary(const std::vector<int>& levels) {  // -1: recompute
    v1::LoadResponse message;
    *message.mutable_summary() = SummaryOf(levels);
    return assembler.OnMessage(message);
  }
  absl::Status Decode(absl::Status outcome = absl::OkStatus()) {
    const absl::optional<DecodeJob> job = assembler.NextDecode();
    if (!job.has_value()) return absl::NotFoundError("nothing to decode");
    return assembler.OnDecoded(job->chunk, job->level, outcome);
  }
  v1::LoadProgress Progress() {
    v1::LoadProgress progress;
    assembler.TakeProgress(&progress);
    return progress;
  }

  LoadAssembler assembler;

 private:
  const uint32_t chunks_;
};

inline void ExpectViolation(const absl::Status& status, absl::string_view what) {
  EXPECT_EQ(status.code(), absl::StatusCode::kInternal) << status;
  EXPECT_THAT(std::string(status.message()), ::testing::HasSubstr("broke the protocol"));
  EXPECT_THAT(std::string(status.message()), ::testing::HasSubstr(std::string(what)));
}

}  // namespace kvstream::assembled_load

#endif  // KVSTREAM_CLIENT_TESTING_ASSEMBLED_LOAD_H_

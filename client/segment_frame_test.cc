#include "client/segment_frame.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/str_join.h"
#include "kvstream/v1/kvstream.pb.h"

namespace kvstream {
namespace {

std::string DataMessage(uint32_t chunk, uint32_t level, uint64_t offset, const std::string& data) {
  v1::LoadResponse response;
  v1::SegmentData* message = response.mutable_data();
  message->set_chunk(chunk);
  message->set_level(level);
  message->set_offset(offset);
  message->set_data(data);
  return response.SerializeAsString();
}

// True if the message is read without protobuf and has one frame.
bool ParseOne(const std::vector<absl::string_view>& pieces, SegmentFrame* frame) {
  std::vector<SegmentFrame> frames;
  if (!ParseSegmentFrames(pieces, &frames)) return false;
  EXPECT_EQ(frames.size(), 1u);
  *frame = frames[0];
  return true;
}

void ExpectParsed(const std::vector<absl::string_view>& pieces, uint32_t chunk, uint32_t level,
                  uint64_t offset, const std::string& data) {
  SegmentFrame frame;
  ASSERT_TRUE(ParseOne(pieces, &frame));
  EXPECT_EQ(frame.chunk, chunk);
  EXPECT_EQ(frame.level, level);
  EXPECT_EQ(frame.offset, offset);
  EXPECT_EQ(frame.size, data.size());
  EXPECT_EQ(absl::StrJoin(frame.payload, ""), data);
}

TEST(SegmentFrameTest, ReadsWhatProtobufWrites) {
  for (uint32_t chunk : {0u, 1u, 127u, 128u, 65535u, std::numeric_limits<uint32_t>::max()}) {
    for (uint64_t offset : {uint64_t{0}, uint64_t{262144}, std::numeric_limits<uint64_t>::max()}) {
      for (size_t size : {1, 127, 128, 300, 70000}) {
        const std::string data(size, 'x');
        const std::string message = DataMessage(chunk, 3, offset, data);
        ExpectParsed({message}, chunk, 3, offset, data);
      }
    }
  }
}

TEST(SegmentFrameTest, ReadsAFrameWhoseHeaderStraddlesPiecesAtEveryPlace) {
  const std::string data = "payload of the segment";
  const std::string message = DataMessage(300, 2, 1 << 20, data);
  for (size_t cut = 0; cut <= message.size(); ++cut) {
    const absl::string_view view = message;
    ExpectParsed({view.substr(0, cut), "", view.substr(cut)}, 300, 2, 1 << 20, data);
  }
  std::vector<absl::string_view> bytes;
  for (size_t i = 0; i < message.size(); ++i)
    bytes.push_back(absl::string_view(message).substr(i, 1));
  ExpectParsed(bytes, 300, 2, 1 << 20, data);
}

v1::LoadResponse MessageWithPlan(int levels) {
  v1::LoadResponse response;
  v1::ChunkPlan* plan = response.mutable_data()->mutable_plan();
  plan->set_chunk(300);
  plan->set_level(2);
  for (int level = 0; level < levels; ++level) plan->add_segment_bytes(uint64_t{1} << 29);
  response.mutable_data()->set_chunk(300);
  response.mutable_data()->set_offset(7);
  response.mutable_data()->set_data("payload");
  return response;
}

TEST(SegmentFrameTest, TakesThePlanOutOfAFrameCutAtEveryPlace) {
  const v1::LoadResponse response = MessageWithPlan(40);
  const std::string message = response.SerializeAsString();
  SegmentFrame frame;
  for (size_t cut = 0; cut <= message.size(); ++cut) {
    const absl::string_view view = message;
    ASSERT_TRUE(ParseOne({view.substr(0, cut), "", view.substr(cut)}, &frame)) << cut;
    EXPECT_EQ(frame.plan, response.data().plan().SerializeAsString());
    EXPECT_EQ(frame.chunk, 300u);
    EXPECT_EQ(frame.offset, 7u);
    EXPECT_EQ(absl::StrJoin(frame.payload, ""), "payload");
  }
  for (size_t size = 0; size < message.size(); ++size) {
    EXPECT_FALSE(ParseOne({absl::string_view(message).substr(0, size)}, &frame)) << size;
  }
  ASSERT_TRUE(ParseOne({MessageWithPlan(256).SerializeAsString()}, &frame));
  const std::string without = DataMessage(1, 2, 3, "d");
  ASSERT_TRUE(ParseOne({without}, &frame));
  EXPECT_EQ(frame.plan, "") << "of the frame before";
}

TEST(SegmentFrameTest, LeavesPlansThatNoServerSendsToProtobuf) {
  SegmentFrame frame;
  EXPECT_FALSE(ParseOne({MessageWithPlan(5000).SerializeAsString()}, &frame));
  v1::LoadResponse empty = MessageWithPlan(1);
  empty.mutable_data()->mutable_plan()->Clear();
  EXPECT_FALSE(ParseOne({empty.SerializeAsString()}, &frame));
}

TEST(SegmentFrameTest, LeavesOtherMessagesToProtobuf) {
  SegmentFrame frame;
  v1::LoadResponse plan;
  plan.mutable_plan()->set_level(1);
  v1::LoadResponse summary;
  summary.mutable_summary()->set_bytes_sent(7);
  v1::LoadResponse no_bytes;
  no_bytes.mutable_data()->set_chunk(1);
  for (const v1::LoadResponse* response : {&plan, &summary, &no_bytes}) {
    EXPECT_FALSE(ParseOne({response->SerializeAsString()}, &frame));
  }
  EXPECT_FALSE(ParseOne({}, &frame));
  EXPECT_FALSE(ParseOne({""}, &frame));
}

TEST(SegmentFrameTest, EveryTruncationIsRefused) {
  const std::string message = DataMessage(300, 2, 1 << 20, "payload");
  SegmentFrame frame;
  for (size_t size = 0; size < message.size(); ++size) {
    EXPECT_FALSE(ParseOne({absl::string_view(message).substr(0, size)}, &frame)) << size;
  }
  EXPECT_FALSE(ParseOne({message, "x"}, &frame)) << "bytes after the message";
}

TEST(SegmentFrameTest, AVarintThatIsTooLongOrTooLargeIsRefused) {
  SegmentFrame frame;
  const auto wrap = [](const std::string& fields) {
    return std::string("\x12") + static_cast<char>(fields.size()) + fields;
  };
  const std::string data = std::string("\x7a\x01") + "d";
  EXPECT_TRUE(ParseOne({wrap(data)}, &frame));
  EXPECT_FALSE(ParseOne({wrap("\x08\xff\xff\xff\xff\x1f" + data)}, &frame))
      << "chunk does not fit 32 bits";
  EXPECT_FALSE(ParseOne({wrap("\x18" + std::string(10, '\xff') + "\x01" + data)}, &frame))
      << "offset of 11 bytes";
  EXPECT_FALSE(ParseOne({wrap("\x18" + std::string(9, '\xff') + "\x02" + data)}, &frame))
      << "offset of 65 bits";
  EXPECT_FALSE(ParseOne({wrap("\x10\x01\x08\x01" + data)}, &frame)) << "out of order";
  EXPECT_FALSE(ParseOne({wrap("\x08\x01\x08\x02" + data)}, &frame)) << "twice";
  EXPECT_FALSE(ParseOne({wrap("\x20\x01" + data)}, &frame)) << "unknown field";
}

void ExpectSame(const SegmentFrame& frame, const v1::SegmentData& data) {
  EXPECT_EQ(frame.chunk, data.chunk());
  EXPECT_EQ(frame.level, data.level());
  EXPECT_EQ(frame.offset, data.offset());
  EXPECT_EQ(frame.plan, data.plan().SerializeAsString());
  EXPECT_EQ(absl::StrJoin(frame.payload, ""), data.data());
}

v1::LoadResponse Batch(int parts) {
  v1::LoadResponse response;
  for (int i = 0; i < parts; ++i) {
    v1::SegmentData* data = response.mutable_batch()->add_data();
    data->set_chunk(static_cast<uint32_t>(i));
    data->set_level(static_cast<uint32_t>(i % 3));
    if (i % 2 == 1) {
      data->mutable_plan()->set_chunk(static_cast<uint32_t>(i));
      data->mutable_plan()->set_level(1);
    }
    data->set_data(std::string(static_cast<size_t>(1 + 60 * i), static_cast<char>('a' + i)));
  }
  return response;
}

TEST(SegmentFrameTest, ReadsABatchCutAtEveryPlace) {
  const v1::LoadResponse response = Batch(4);
  const std::string message = response.SerializeAsString();
  std::vector<SegmentFrame> frames;
  for (size_t cut = 0; cut <= message.size(); ++cut) {
    const absl::string_view view = message;
    ASSERT_TRUE(ParseSegmentFrames({view.substr(0, cut), "", view.substr(cut)}, &frames)) << cut;
    ASSERT_EQ(frames.size(), 4u);
    for (int i = 0; i < 4; ++i)
      ExpectSame(frames[static_cast<size_t>(i)], response.batch().data(i));
  }
  for (size_t size = 0; size < message.size(); ++size) {
    EXPECT_FALSE(ParseSegmentFrames({absl::string_view(message).substr(0, size)}, &frames)) << size;
  }
  EXPECT_FALSE(ParseSegmentFrames({message, "x"}, &frames)) << "bytes after the message";
}

TEST(SegmentFrameTest, ABatchOfOneIsReadAndOneOfNoneOrTooManyIsLeftToProtobuf) {
  std::vector<SegmentFrame> frames;
  EXPECT_TRUE(ParseSegmentFrames({Batch(1).SerializeAsString()}, &frames));
  EXPECT_EQ(frames.size(), 1u);
  v1::LoadResponse none;
  none.mutable_batch();
  EXPECT_FALSE(ParseSegmentFrames({none.SerializeAsString()}, &frames));
  const int most = static_cast<int>(kBatchFramesMax);
  EXPECT_TRUE(ParseSegmentFrames({Batch(most).SerializeAsString()}, &frames));
  EXPECT_FALSE(ParseSegmentFrames({Batch(most + 1).SerializeAsString()}, &frames));
}

TEST(SegmentFrameTest, ASizeInABatchThatReachesIntoTheNextPartIsRefused) {
  const auto part = [](const std::string& fields) {
    return std::string("\x0a") + static_cast<char>(fields.size()) + fields;
  };
  const auto batch = [](const std::string& parts) {
    return std::string("\x2a") + static_cast<char>(parts.size()) + parts;
  };
  const std::string data = std::string("\x7a\x01") + "d";
  std::vector<SegmentFrame> frames;
  EXPECT_TRUE(ParseSegmentFrames({batch(part(data) + part(data))}, &frames));
  for (const std::string& hostile :
       {std::string("\x7a\x02") + "d", std::string("\x22\x03") + "p" + data, std::string("\x7a"),
        std::string("\x08"), std::string("\x08\xff")}) {
    EXPECT_FALSE(ParseSegmentFrames({batch(part(hostile) + part(data))}, &frames));
    EXPECT_FALSE(ParseSegmentFrames({batch(part(data) + part(hostile))}, &frames));
  }
  EXPECT_FALSE(ParseSegmentFrames({batch(part(data) + "\x0a\x7f" + data)}, &frames));
  EXPECT_FALSE(ParseSegmentFrames({batch(part(data) + "\x12\x03" + data)}, &frames))
      << "another field";
}

TEST(SegmentFrameTest, AgreesWithProtobufOnMutatedBatches) {
  const uint32_t seed = 20261122;
  std::mt19937 random(seed);
  SCOPED_TRACE(testing::Message() << "seed " << seed);
  int accepted = 0;
  std::vector<SegmentFrame> frames;
  for (int round = 0; round < 50000; ++round) {
    v1::LoadResponse sent;
    for (int parts = 1 + static_cast<int>(random() % 3); parts > 0; --parts) {
      v1::SegmentData* data = sent.mutable_batch()->add_data();
      data->set_chunk(random() % 3);
      data->set_offset(random() % 1000);
      data->set_data(std::string(1 + random() % 20, 'd'));
    }
    std::string message = sent.SerializeAsString();
    for (int flips = random() % 3; flips > 0; --flips) {
      message[random() % message.size()] = static_cast<char>(random());
    }
    const size_t cut = random() % (message.size() + 1);
    if (!ParseSegmentFrames(
            {absl::string_view(message).substr(0, cut), absl::string_view(message).substr(cut)},
            &frames))
      continue;
    ++accepted;
    v1::LoadResponse response;
    ASSERT_TRUE(response.ParseFromString(message));
    if (response.has_data()) continue;  // a flip made it so: the test below
    ASSERT_TRUE(response.has_batch());
    ASSERT_EQ(frames.size(), static_cast<size_t>(response.batch().data_size()));
    for (int i = 0; i < response.batch().data_size(); ++i) {
      ExpectSame(frames[static_cast<size_t>(i)], response.batch().data(i));
    }
  }
  EXPECT_GT(accepted, 10000);
}

TEST(SegmentFrameTest, AgreesWithProtobufOnMutatedMessages) {
  const uint32_t seed = 20261121;
  std::mt19937 random(seed);
  SCOPED_TRACE(testing::Message() << "seed " << seed);
  int accepted = 0;
  for (int round = 0; round < 50000; ++round) {
    std::string message =
        DataMessage(random() % 3, random() % 3, random() % 1000, std::string(random() % 20, 'd'));
    for (int flips = random() % 3; flips > 0 && !message.empty(); --flips) {
      message[random() % message.size()] = static_cast<char>(random());
    }
    const size_t cut = random() % (message.size() + 1);
    SegmentFrame frame;
    if (!ParseOne(
            {absl::string_view(message).substr(0, cut), absl::string_view(message).substr(cut)},
            &frame))
      continue;
    ++accepted;
    v1::LoadResponse response;
    ASSERT_TRUE(response.ParseFromString(message));
    ASSERT_TRUE(response.has_data());
    ASSERT_EQ(frame.chunk, response.data().chunk());
    ASSERT_EQ(frame.level, response.data().level());
    ASSERT_EQ(frame.offset, response.data().offset());
    ASSERT_EQ(absl::StrJoin(frame.payload, ""), response.data().data());
  }
  EXPECT_GT(accepted, 10000);
}

}  // namespace
}  // namespace kvstream

#include "server/service/segment_message.h"

#include <gtest/gtest.h>

#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "grpcpp/support/slice.h"
#include "kvstream/v1/kvstream.pb.h"

namespace kvstream {
namespace {

std::string Flatten(const grpc::ByteBuffer& message) {
  std::vector<grpc::Slice> slices;
  EXPECT_TRUE(message.Dump(&slices).ok());
  std::string bytes;
  for (const grpc::Slice& slice : slices) {
    bytes.append(reinterpret_cast<const char*>(slice.begin()), slice.size());
  }
  return bytes;
}

std::shared_ptr<const PinnedBytes> Pin(const std::string& bytes, bool* released = nullptr) {
  return std::make_shared<const PinnedBytes>(bytes, [released] {
    if (released != nullptr) *released = true;
  });
}

grpc::ByteBuffer One(uint32_t chunk, uint32_t level, uint64_t offset, uint64_t size,
                     std::shared_ptr<const PinnedBytes> segment, absl::string_view plan = {}) {
  SegmentMessage message;
  message.Add(chunk, level, offset, size, std::move(segment), plan);
  EXPECT_EQ(message.payload_bytes(), size);
  grpc::ByteBuffer bytes = message.Take();
  EXPECT_TRUE(message.empty());
  return bytes;
}

TEST(SegmentMessageTest, IsByteForByteWhatProtobufWrites) {
  std::string payload(300000, '\0');
  for (size_t i = 0; i < payload.size(); ++i) payload[i] = static_cast<char>(i * 7);
  const auto pinned = Pin(payload);
  const uint32_t numbers[] = {0, 1, 127, 128, 65535, std::numeric_limits<uint32_t>::max()};
  const uint64_t ranges[][2] = {{0, 0},         {0, 1},      {0, 127},        {5, 128},
                                {16383, 16384}, {0, 262144}, {37856, 262144}, {299999, 1}};
  for (const uint32_t chunk : numbers) {
    for (const uint32_t level : numbers) {
      for (const auto& [offset, size] : ranges) {
        v1::LoadResponse expected;
        expected.mutable_data()->set_chunk(chunk);
        expected.mutable_data()->set_level(level);
        expected.mutable_data()->set_offset(offset);
        expected.mutable_data()->set_data(payload.substr(offset, size));
        const std::string message = Flatten(One(chunk, level, offset, size, pinned));
        ASSERT_EQ(message, expected.SerializeAsString())
            << chunk << " " << level << " " << offset << " " << size;
        v1::LoadResponse parsed;
        ASSERT_TRUE(parsed.ParseFromString(message));
        ASSERT_EQ(parsed.data().data().size(), size);
      }
    }
  }
}

TEST(SegmentMessageTest, CarriesAPlanAsProtobufWouldWriteIt) {
  const std::string payload(5000, 'p');
  const auto pinned = Pin(payload);
  for (const int levels : {1, 9, 256}) {
    for (const uint64_t size : {uint64_t{0}, uint64_t{4096}}) {
      v1::LoadResponse expected;
      v1::ChunkPlan* plan = expected.mutable_data()->mutable_plan();
      plan->set_chunk(70000);
      plan->set_level(3);
      plan->set_tokens(256);
      for (int level = 0; level < levels; ++level) plan->add_segment_bytes(1 << (level % 30));
      expected.mutable_data()->set_chunk(70000);
      expected.mutable_data()->set_level(2);
      expected.mutable_data()->set_offset(100);
      expected.mutable_data()->set_data(payload.substr(100, size));
      EXPECT_EQ(Flatten(One(70000, 2, 100, size, pinned, plan->SerializeAsString())),
                expected.SerializeAsString())
          << levels << " " << size;
    }
  }
}

TEST(SegmentMessageTest, SeveralPartsAreABatch) {
  const std::string payload(200000, 'p');
  const auto pinned = Pin(payload);
  v1::ChunkPlan plan;
  plan.set_chunk(70001);
  plan.set_level(3);
  for (const uint32_t parts : {2u, 3u, 64u}) {
    SegmentMessage message;
    v1::LoadResponse expected;
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < parts; ++i) {
      const uint64_t size = i == 1 ? 0 : 1 + 2000 * i;
      const std::string with = i % 3 == 1 ? plan.SerializeAsString() : "";
      message.Add(70000 + i, i % 4, 5 * i, size, pinned, with);
      bytes += size;
      v1::SegmentData* data = expected.mutable_batch()->add_data();
      data->set_chunk(70000 + i);
      data->set_level(i % 4);
      data->set_offset(5 * i);
      if (!with.empty()) *data->mutable_plan() = plan;
      data->set_data(payload.substr(5 * i, size));
    }
    EXPECT_EQ(message.parts(), parts);
    EXPECT_EQ(message.payload_bytes(), bytes);
    EXPECT_EQ(Flatten(message.Take()), expected.SerializeAsString());
    EXPECT_EQ(message.payload_bytes(), 0u);
    EXPECT_TRUE(message.empty());
  }
}

TEST(SegmentMessageTest, BorrowsThePayloadInsteadOfCopyingIt) {
  const std::string payload(100000, 'p');
  std::vector<grpc::Slice> slices;
  ASSERT_TRUE(One(1, 2, 3, 90000, Pin(payload)).Dump(&slices).ok());
  ASSERT_EQ(slices.size(), 2u);
  EXPECT_EQ(reinterpret_cast<const char*>(slices[1].begin()), payload.data() + 3);
}

TEST(SegmentMessageTest, ReleasesTheSegmentOnceEveryMessageOfItIsGone) {
  const std::string payload(100000, 'p');
  bool released = false;
  auto pinned = Pin(payload, &released);
  {
    const grpc::ByteBuffer first = One(0, 0, 0, 50000, pinned);
    {
      const grpc::ByteBuffer second = One(0, 0, 50000, 50000, pinned);
      pinned.reset();
    }
    EXPECT_FALSE(released);
  }
  EXPECT_TRUE(released);
}

}  // namespace
}  // namespace kvstream

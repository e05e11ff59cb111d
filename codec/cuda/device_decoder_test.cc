// The device decoder on the host backend, which runs the kernels' code warp by warp, against
// ChunkDecoder.
#include "codec/cuda/device_decoder.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "codec/calibration.h"
#include "codec/cuda/testing/host_device.h"
#include "codec/decoder.h"
#include "codec/encoder.h"
#include "codec/float16.h"
#include "codec/segment.h"
#include "codec/test_kv.h"
#include "gtest/gtest.h"

namespace kvstream {
namespace {

using Group = CalibrationOptions::Group;
using Layout = RopeParameters::Layout;
using Views = std::vector<absl::string_view>;

Views ViewsOf(const EncodedChunk& chunk, int levels) {
  return Views(chunk.segments.begin(), chunk.segments.begin() + levels);
}

DeviceKvView DeviceViewOf(TestKv& kv, int64_t tokens) {
  DeviceKvView out;
  out.tokens = tokens;
  const MutableKvView view = kv.mutable_view();
  for (const MutableKvTensor& t : view.keys)
    out.keys.push_back({t.data, t.token_stride, t.head_stride});
  for (const MutableKvTensor& t : view.values)
    out.values.push_back({t.data, t.token_stride, t.head_stride});
  return out;
}

// Rounding of half operands and of the output's dtype. Sums of products are in float.
void ExpectNear(const std::vector<float>& expected, const std::vector<float>& actual,
                KvDtype dtype) {
  ASSERT_EQ(expected.size(), actual.size());
  double power = 0;
  for (float value : expected) power += double{value} * value;
  const double scale = std::sqrt(power / expected.size());
  const double resolution = dtype == KvDtype::kF16 ? 0x1p-10 : 0x1p-7;
  for (size_t i = 0; i < expected.size(); ++i) {
    ASSERT_NEAR(actual[i], expected[i], std::abs(expected[i]) * resolution + scale * 2e-3)
        << "value " << i;
  }
}

struct Case {
  std::string name;
  KvGeometry geometry;
  Group group;
  int group_layers;
};

class DeviceDecoderTest : public testing::TestWithParam<Case> {};

TEST_P(DeviceDecoderTest, AgreesWithTheHostsDecoderAtEveryLevelAndLength) {
  const KvGeometry& geometry = GetParam().geometry;
  CalibrationOptions options;
  options.group = GetParam().group;
  options.group_layers = GetParam().group_layers;
  const std::shared_ptr<const Profile> profile = MakeTestProfile(geometry, 3, options);
  auto encoder = *ChunkEncoder::Create(profile);
  auto decoder = *ChunkDecoder::Create(profile);
  auto device = *CreateHostDeviceDecoder(profile);
  for (const int tokens : {1, 5, 37, 200}) {
    const TestKv kv = MakeTestKv(geometry, tokens, 3, 77);
    const EncodedChunk chunk = *encoder->Encode(kv.view(), 0);
    for (int level = 0; level < 4; ++level) {
      SCOPED_TRACE(testing::Message() << tokens << " tokens, level " << level);
      TestKv expected(geometry, tokens);
      TestKv actual(geometry, tokens);
      const Views views = ViewsOf(chunk, level + 1);
      ASSERT_TRUE(decoder->Decode(views, expected.mutable_view()).ok());
      const DeviceChunk job = {views, 0};
      const absl::StatusOr<DecodeTicket> ticket =
          device->Decode({&job, 1}, DeviceViewOf(actual, tokens), nullptr);
      ASSERT_TRUE(ticket.ok()) << ticket.status();
      const absl::Status status = device->Finish(*ticket);
      ASSERT_TRUE(status.ok()) << status;
      ExpectNear(expected.Floats(), actual.Floats(), geometry.dtype);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(
    Geometries, DeviceDecoderTest,
    testing::Values(
        Case{"Layer", TestGeometry(2, 2, 32), Group::kLayers, 1},
        Case{"TwoLayersBf16", TestGeometry(3, 1, 64, KvDtype::kBF16), Group::kLayers, 2},
        Case{"Model128", TestGeometry(2, 1, 128), Group::kModel, 1},
        Case{"HeadsOf80", TestGeometry(1, 2, 80), Group::kHead, 1},
        Case{"HeadsOf20", TestGeometry(2, 3, 20), Group::kModel, 1},
        Case{"HeadsOf192HalfSplit", TestGeometry(1, 2, 192), Group::kLayers, 1},
        Case{"PartialRope", TestGeometry(1, 2, 160, KvDtype::kF16, Layout::kHalfSplit, 64),
             Group::kLayers, 1},
        Case{"InterleavedOdd", TestGeometry(2, 2, 33, KvDtype::kF16, Layout::kInterleaved, 32),
             Group::kHead, 1},
        Case{"Latent", TestLatentGeometry(2, 96, 32), Group::kLayers, 1},
        Case{"LatentOf576", TestLatentGeometry(1, 512, 64), Group::kLayers, 1},
        Case{"NoRope", TestGeometry(1, 2, 32, KvDtype::kF16, Layout::kNone), Group::kModel, 1}),
    [](const testing::TestParamInfo<Case>& info) { return info.param.name; });

TEST(DeviceDecoderTest, DecodesWithoutCalibration) {
  for (const KvGeometry& geometry :
       {TestGeometry(2, 2, 48, KvDtype::kF16), TestGeometry(2, 2, 48, KvDtype::kBF16),
        TestLatentGeometry(2, 96, 32)}) {
    const std::shared_ptr<const Profile> profile = *BuildProfile(geometry, {}, {}, {});
    const TestKv kv = MakeTestKv(geometry, 130, 5, 6);
    const EncodedChunk chunk = *(*ChunkEncoder::Create(profile))->Encode(kv.view(), 0);
    auto device = *CreateHostDeviceDecoder(profile);
    for (int level = 0; level < 4; ++level) {
      TestKv expected(geometry, 130);
      TestKv actual(geometry, 130);
      const Views views = ViewsOf(chunk, level + 1);
      ASSERT_TRUE((*ChunkDecoder::Create(profile))->Decode(views, expected.mutable_view()).ok());
      const DeviceChunk job = {views, 0};
      const auto ticket = device->Decode({&job, 1}, DeviceViewOf(actual, 130), nullptr);
      ASSERT_TRUE(ticket.ok()) << ticket.status();
      ASSERT_TRUE(device->Finish(*ticket).ok());
      ExpectNear(expected.Floats(), actual.Floats(), geometry.dtype);
    }
  }
}

TEST(DeviceDecoderTest, PagedLatentsHaveOnePlane) {
  constexpr int kTokens = 40;
  const KvGeometry geometry = TestLatentGeometry(2, 96, 32);
  const std::shared_ptr<const Profile> profile = MakeTestProfile(geometry, 3);
  const TestKv kv = MakeTestKv(geometry, kTokens, 3, 6);
  const EncodedChunk chunk = *(*ChunkEncoder::Create(profile))->Encode(kv.view(), 0);
  const Views views = ViewsOf(chunk, 4);
  TestKv expected(geometry, kTokens);
  ASSERT_TRUE((*ChunkDecoder::Create(profile))->Decode(views, expected.mutable_view()).ok());
  const std::vector<int32_t> table = {4, 0, 2};
  std::vector<std::vector<uint16_t>> caches(2, std::vector<uint16_t>(5 * 16 * 128));
  const std::vector<void*> pointers = {caches[0].data(), caches[1].data()};
  const PagedKvView view = *MakePagedKvView(PagedLayout::kLatent, absl::MakeConstSpan(pointers), 5,
                                            16, 1, 128, table.data(), 3);
  const DeviceChunk job = {views, 0};
  auto device = *CreateHostDeviceDecoder(profile);
  const auto ticket = device->Decode({&job, 1}, view, nullptr);
  ASSERT_TRUE(ticket.ok()) << ticket.status();
  ASSERT_TRUE(device->Finish(*ticket).ok());
  TestKv actual(geometry, kTokens);
  for (int layer = 0; layer < 2; ++layer) {
    for (int t = 0; t < kTokens; ++t)
      std::copy_n(caches[layer].begin() + (table[t / 16] * 16 + t % 16) * 128, 128,
                  actual.keys(layer).begin() + t * 128);
  }
  ExpectNear(expected.Floats(), actual.Floats(), geometry.dtype);
}

// A model of two layers and its context of some chunks, for the tests below.
class DeviceBatchTest : public testing::Test {
 protected:
  static constexpr int kChunkTokens = 64;
  static constexpr int kTokens = 64 * 4 + 23;

  DeviceBatchTest() {
    CalibrationOptions options;
    options.chunk_tokens = kChunkTokens;
    profile_ = MakeTestProfile(geometry_, 3, options);
    auto encoder = *ChunkEncoder::Create(profile_);
    auto decoder = *ChunkDecoder::Create(profile_);
    for (int first = 0; first < kTokens; first += kChunkTokens) {
      const int count = std::min(kChunkTokens, kTokens - first);
      chunks_.push_back(*encoder->Encode(kv_.view().Slice(first, count), first));
      // Levels differ between the chunks of a call.
      levels_.push_back(1 + static_cast<int>(chunks_.size()) % 4);
      views_.push_back(ViewsOf(chunks_.back(), levels_.back()));
      EXPECT_TRUE(
          decoder->Decode(views_.back(), expected_.mutable_view().Slice(first, count)).ok());
    }
    for (size_t i = 0; i < views_.size(); ++i)
      jobs_.push_back({views_[i], static_cast<int64_t>(i) * kChunkTokens});
  }

  const KvGeometry geometry_ = TestGeometry(2, 4, 32, KvDtype::kBF16);
  std::shared_ptr<const Profile> profile_;
  const TestKv kv_ = MakeTestKv(geometry_, kTokens, 3, 9);
  TestKv expected_{geometry_, kTokens};
  std::vector<EncodedChunk> chunks_;
  std::vector<int> levels_;
  std::vector<Views> views_;
  std::vector<DeviceChunk> jobs_;
};

TEST_F(DeviceBatchTest, ChunksOfDifferentLevelsShareACall) {
  DeviceDecoderOptions options;
  options.max_batch_chunks = 2;  // the call is cut
  auto device = *CreateHostDeviceDecoder(profile_, options);
  for (int round = 0; round < 2; ++round) {
    TestKv actual(geometry_, kTokens);
    const auto ticket = device->Decode(jobs_, DeviceViewOf(actual, kTokens), nullptr);
    ASSERT_TRUE(ticket.ok()) << ticket.status();
    std::vector<absl::Status> statuses;
    ASSERT_TRUE(device->Finish(*ticket, &statuses).ok());
    EXPECT_EQ(statuses.size(), jobs_.size());
    EXPECT_TRUE(*device->Done(*ticket));
    ExpectNear(expected_.Floats(), actual.Floats(), geometry_.dtype);
  }
}

TEST_F(DeviceBatchTest, ASiblingDecodesTheSame) {
  auto device = *CreateHostDeviceDecoder(profile_);
  auto sibling = *device->CreateSibling();
  device.reset();
  TestKv actual(geometry_, kTokens);
  const auto ticket = sibling->Decode(jobs_, DeviceViewOf(actual, kTokens), nullptr);
  ASSERT_TRUE(ticket.ok()) << ticket.status();
  ExpectNear(expected_.Floats(), actual.Floats(), geometry_.dtype);
}

TEST_F(DeviceBatchTest, PagedCachesOfEveryLayoutGetTheSameKv) {
  constexpr int kBlockSize = 16;
  constexpr int kBlocks = 40;
  const int64_t heads = geometry_.kv_heads;
  const int64_t size = geometry_.head_size;
  // Blocks in a scattered order, no two the same.
  std::vector<int32_t> table;
  for (int i = 0; i * kBlockSize < kTokens; ++i) table.push_back((i * 17 + 5) % kBlocks);
  auto device = *CreateHostDeviceDecoder(profile_);
  for (const PagedLayout layout : {PagedLayout::kPlaneMajorNhd, PagedLayout::kPlaneMajorHnd,
                                   PagedLayout::kBlockMajorNhd, PagedLayout::kBlockMajorHnd}) {
    std::vector<std::vector<uint16_t>> caches(
        2, std::vector<uint16_t>(2 * kBlocks * kBlockSize * heads * size, 0x1234));
    const std::vector<void*> pointers = {caches[0].data(), caches[1].data()};
    const PagedKvView view =
        *MakePagedKvView(layout, absl::MakeConstSpan(pointers), kBlocks, kBlockSize, heads, size,
                         table.data(), static_cast<int64_t>(table.size()));
    const auto ticket = device->Decode(jobs_, view, nullptr);
    ASSERT_TRUE(ticket.ok()) << ticket.status();
    ASSERT_TRUE(device->Finish(*ticket).ok());
    TestKv actual(geometry_, kTokens);
    int64_t written = 0;
    for (int layer = 0; layer < 2; ++layer) {
      for (int plane = 0; plane < 2; ++plane) {
        std::vector<uint16_t>& to = plane == 0 ? actual.keys(layer) : actual.values(layer);
        for (int64_t t = 0; t < kTokens; ++t) {
          const int64_t block = table[t / kBlockSize];
          const int64_t place = t % kBlockSize;
          for (int64_t head = 0; head < heads; ++head) {
            int64_t at = 0;  // of channel 0, by the layouts as they are written down
            switch (layout) {
              case PagedLayout::kPlaneMajorNhd:
                at = (((plane * kBlocks + block) * kBlockSize + place) * heads + head) * size;
                break;
              case PagedLayout::kPlaneMajorHnd:
                at = (((plane * kBlocks + block) * heads + head) * kBlockSize + place) * size;
                break;
              case PagedLayout::kBlockMajorNhd:
                at = (((block * 2 + plane) * kBlockSize + place) * heads + head) * size;
                break;
              default:
                at = (((block * 2 + plane) * heads + head) * kBlockSize + place) * size;
            }
            for (int64_t c = 0; c < size; ++c)
              to[(t * heads + head) * size + c] = caches[layer][at + c];
            written += size;
          }
        }
      }
    }
    ExpectNear(expected_.Floats(), actual.Floats(), geometry_.dtype);
    int64_t untouched = 0;
    for (const auto& cache : caches) {
      for (uint16_t value : cache) untouched += value == 0x1234;
    }
    EXPECT_GE(untouched, 2 * 2 * kBlocks * kBlockSize * heads * size - written);
  }
}

TEST_F(DeviceBatchTest, ABlockTableThatLeadsAstrayIsReportedAndNotFollowed) {
  for (const int32_t wrong : {-1, 40, 2147483647}) {
    std::vector<int32_t> table;
    for (int i = 0; i < 18; ++i) table.push_back(i);
    table[6] = wrong;  // of the second chunk
    std::vector<std::vector<uint16_t>> caches(2, std::vector<uint16_t>(2 * 40 * 16 * 4 * 32));
    const std::vector<void*> pointers = {caches[0].data(), caches[1].data()};
    const PagedKvView view =
        *MakePagedKvView(PagedLayout::kPlaneMajorNhd, absl::MakeConstSpan(pointers), 40, 16, 4, 32,
                         table.data(), static_cast<int64_t>(table.size()));
    auto device = *CreateHostDeviceDecoder(profile_);
    const auto ticket = device->Decode(jobs_, view, nullptr);
    ASSERT_TRUE(ticket.ok()) << ticket.status();
    std::vector<absl::Status> statuses;
    EXPECT_EQ(device->Finish(*ticket, &statuses).code(), absl::StatusCode::kInvalidArgument);
    EXPECT_TRUE(statuses[0].ok());
    EXPECT_FALSE(statuses[1].ok());
    EXPECT_TRUE(statuses[2].ok());
  }
}

TEST_F(DeviceBatchTest, ShardsTogetherGiveTheWhole) {
  TestKv actual(geometry_, kTokens);
  for (int layer = 0; layer < 2; ++layer) {
    for (int first = 0; first < 4; first += 2) {
      DeviceDecoderOptions options;
      options.shard = {layer, 1, first, 2};
      auto device = *CreateHostDeviceDecoder(profile_, options);
      DeviceKvView view = DeviceViewOf(actual, kTokens);
      view.keys = {view.keys[layer]};
      view.values = {view.values[layer]};
      for (DeviceKvTensor* tensor : {&view.keys[0], &view.values[0]}) {
        tensor->data_dev = static_cast<uint16_t*>(tensor->data_dev) + first * tensor->head_stride;
      }
      const auto ticket = device->Decode(jobs_, view, nullptr);
      ASSERT_TRUE(ticket.ok()) << ticket.status();
    }
  }
  ExpectNear(expected_.Floats(), actual.Floats(), geometry_.dtype);
}

TEST_F(DeviceBatchTest, RefusesWhatDoesNotFit) {
  auto device = *CreateHostDeviceDecoder(profile_);
  TestKv actual(geometry_, kTokens);
  DeviceKvView view = DeviceViewOf(actual, kTokens);
  EXPECT_EQ(device->Decode({}, view, nullptr).status().code(), absl::StatusCode::kInvalidArgument);
  DeviceChunk late = jobs_[0];
  late.first_token = kTokens - 1;
  EXPECT_EQ(device->Decode({&late, 1}, view, nullptr).status().code(),
            absl::StatusCode::kInvalidArgument);
  view.values.pop_back();
  EXPECT_EQ(device->Decode(jobs_, view, nullptr).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(device->Finish(0).code(), absl::StatusCode::kInvalidArgument);
  DeviceDecoderOptions options;
  options.shard.first_head = 4;
  EXPECT_EQ(CreateHostDeviceDecoder(profile_, options).status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST_F(DeviceBatchTest, WithoutADeviceCreateSaysSoInOneSentence) {
  const absl::Status check = CheckCudaDevice(0);
  if (check.ok()) return;  // this machine has one
  const absl::Status status = DeviceDecoder::Create(profile_, {}).status();
  EXPECT_EQ(status, check);
  EXPECT_TRUE(status.code() == absl::StatusCode::kFailedPrecondition ||
              status.code() == absl::StatusCode::kUnavailable)
      << status;
  EXPECT_NE(status.message().find("CUDA") != std::string::npos ||
                status.message().find("cuda") != std::string::npos,
            false);
}

TEST_F(DeviceBatchTest, ADamagedBlockIsDataLossOfItsChunkAlone) {
  // The last word of level 1's payload, before the checksum; sealed again, so that only the kernel
  // can find it.
  std::string damaged = chunks_[1].segments[1];
  damaged[damaged.size() - 9] ^= 1;
  Reseal(&damaged);
  Views views = views_[1];
  ASSERT_GE(views.size(), 2u);
  views[1] = damaged;
  jobs_[1].segments = views;
  auto device = *CreateHostDeviceDecoder(profile_);
  TestKv actual(geometry_, kTokens);
  const auto ticket = device->Decode(jobs_, DeviceViewOf(actual, kTokens), nullptr);
  ASSERT_TRUE(ticket.ok()) << ticket.status();
  std::vector<absl::Status> statuses;
  const absl::Status status = device->Finish(*ticket, &statuses);
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
  EXPECT_NE(status.message().find("chunk 1"), std::string::npos) << status;
  ASSERT_EQ(statuses.size(), jobs_.size());
  for (size_t i = 0; i < statuses.size(); ++i) EXPECT_EQ(statuses[i].ok(), i != 1) << i;
}

TEST_F(DeviceBatchTest, ADamagedChecksumIsRefusedBeforeAnythingIsEnqueued) {
  std::string damaged = chunks_[3].segments[0];
  damaged[damaged.size() / 2] ^= 1;
  const Views views = {damaged};
  jobs_[3].segments = views;
  auto device = *CreateHostDeviceDecoder(profile_);
  TestKv actual(geometry_, kTokens);
  const absl::Status status =
      device->Decode(jobs_, DeviceViewOf(actual, kTokens), nullptr).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
  EXPECT_NE(status.message().find("chunk 3"), std::string::npos) << status;
  for (float value : actual.Floats()) ASSERT_EQ(value, 0);
}

TEST_F(DeviceBatchTest, FarPositionsAreRotatedAsOnTheHost) {
  auto encoder = *ChunkEncoder::Create(profile_);
  auto decoder = *ChunkDecoder::Create(profile_);
  auto device = *CreateHostDeviceDecoder(profile_);
  for (const int64_t position : {int64_t{1} << 20, (int64_t{1} << 40) - 1}) {
    const EncodedChunk chunk = *encoder->Encode(kv_.view().Slice(0, kChunkTokens), position);
    const Views views = ViewsOf(chunk, 4);
    TestKv expected(geometry_, kChunkTokens);
    TestKv actual(geometry_, kChunkTokens);
    ASSERT_TRUE(decoder->Decode(views, expected.mutable_view()).ok());
    const DeviceChunk job = {views, 0};
    ASSERT_TRUE(device->Decode({&job, 1}, DeviceViewOf(actual, kChunkTokens), nullptr).ok());
    ExpectNear(expected.Floats(), actual.Floats(), geometry_.dtype);
  }
}

TEST_F(DeviceBatchTest, TicketsAreForgottenAfter64) {
  auto device = *CreateHostDeviceDecoder(profile_);
  TestKv actual(geometry_, kTokens);
  for (int i = 0; i < 65; ++i)
    ASSERT_EQ(*device->Decode({&jobs_[4], 1}, DeviceViewOf(actual, kTokens), nullptr), i);
  EXPECT_FALSE(device->Finish(0).ok());
  EXPECT_TRUE(device->Finish(1).ok());
  EXPECT_TRUE(device->Finish(64).ok());
}

}  // namespace
}  // namespace kvstream

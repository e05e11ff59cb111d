// The device encoder on the host backend against ChunkEncoder and ChunkDecoder.
#include "codec/cuda/device_encoder.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <string>
#include <vector>

#include "codec/calibration.h"
#include "codec/cuda/testing/host_device.h"
#include "codec/decoder.h"
#include "codec/encoder.h"
#include "codec/level_coder.h"
#include "codec/profile_data.h"
#include "codec/quantize.h"
#include "codec/rans.h"
#include "codec/segment.h"
#include "codec/test_kv.h"
#include "gtest/gtest.h"

namespace kvstream {
namespace {

using Group = CalibrationOptions::Group;
using Layout = RopeParameters::Layout;
using Views = std::vector<absl::string_view>;

DeviceKvView DeviceViewOf(const TestKv& kv, int64_t tokens) {
  DeviceKvView out;
  out.tokens = tokens;
  const MutableKvView view = const_cast<TestKv&>(kv).mutable_view();
  for (const MutableKvTensor& t : view.keys)
    out.keys.push_back({t.data, t.token_stride, t.head_stride});
  for (const MutableKvTensor& t : view.values)
    out.values.push_back({t.data, t.token_stride, t.head_stride});
  return out;
}

// By level: cells, and the classes in effect.
struct Levels {
  std::vector<std::vector<int32_t>> cells;
  std::vector<uint8_t> classes;
};

Levels CellsOf(const ProfileData& data, const EncodedChunk& chunk) {
  Levels out;
  LevelDecoder decoder(data);
  out.classes = data.classes;
  for (const std::string& bytes : chunk.segments) {
    const SegmentView view = *ParseSegment(data, bytes);
    const int tokens = view.header.tokens - view.header.sinks;
    out.cells.push_back(out.cells.empty()
                            ? std::vector<int32_t>(static_cast<size_t>(data.coordinates) * tokens)
                            : out.cells.back());
    const absl::Status status = decoder.Decode(view, tokens, &out.classes, out.cells.back().data());
    EXPECT_TRUE(status.ok()) << status;
  }
  return out;
}

// The payload of a level's blocks, straight from docs/format.md with RansEncoder.
std::string OraclePayload(const ProfileData& data, const SegmentView& view, const Levels& levels) {
  const int level = view.header.level;
  const int tokens = view.header.tokens - view.header.sinks;
  std::vector<int32_t> order;
  CodingOrder(data, level, data.classes, &order);
  std::string out;
  RansEncoder rans;
  size_t end = 0;
  for (const BlockEntry& block : view.blocks) {
    const size_t first = end;
    end += block.coordinates;
    for (size_t i = end; i > first; --i) {
      const int32_t coordinate = order[i - 1];
      const int klass = data.classes[coordinate];
      for (int t = tokens - 1; t >= 0; --t) {
        // Lanes of a step from the last to the first; low bits of the whole step before its
        // symbols.
        const int step = t / kLanes * kLanes;
        const int last = std::min(tokens, step + kLanes) - 1;
        if (t != last) continue;
        const auto cell = [&](int token) {
          return levels.cells[level][static_cast<size_t>(coordinate) * tokens + token];
        };
        if (level == 0) {
          const BaseTable& table = data.tables.base[klass];
          const auto coded = [&](int token) {
            const int32_t value = cell(token);
            return std::abs(value >> table.shift) > table.max_symbol ? 0 : value;
          };
          for (int lane = last; table.shift > 0 && lane >= step; --lane)
            rans.PutBits(lane - step, coded(lane) & ((1 << table.shift) - 1), table.shift);
          for (int lane = last; lane >= step; --lane) {
            const int index = (coded(lane) >> table.shift) + table.max_symbol;
            uint32_t start = 0;
            for (int s = 0; s < index; ++s) start += table.frequency[s];
            rans.Put(lane - step, start, table.frequency[index]);
          }
        } else {
          for (int lane = last; lane >= step; --lane) {
            const int32_t parent = ParentCell(cell(lane));
            const int32_t r = cell(lane) - 3 * parent;
            const int index = (parent < 0 ? -r : r) + 1;
            const auto& sizes =
                data.tables.Refine(level, klass).frequency[std::min(2, std::abs(parent))];
            uint32_t start = 0;
            for (int s = 0; s < index; ++s) start += sizes[s];
            rans.Put(lane - step, start, sizes[index]);
          }
        }
      }
    }
    rans.Finish(std::min(kLanes, tokens), &out);
  }
  return out;
}

struct Case {
  std::string name;
  KvGeometry geometry;
  Group group;
};

class DeviceEncoderTest : public testing::TestWithParam<Case> {};

TEST_P(DeviceEncoderTest, CellsAreTheHostsButAtEdgesAndBlocksTheFormats) {
  const KvGeometry& geometry = GetParam().geometry;
  CalibrationOptions options;
  options.group = GetParam().group;
  options.chunk_tokens = 96;
  const std::shared_ptr<const Profile> profile = MakeTestProfile(geometry, 3, options);
  const ProfileData& data = profile->data();
  auto host = *ChunkEncoder::Create(profile);
  auto device = *CreateHostDeviceEncoder(profile);
  for (const int tokens : {1, 5, 230}) {
    SCOPED_TRACE(tokens);
    const TestKv kv = MakeTestKv(geometry, tokens, 3, 9);
    const auto chunks = device->Encode(DeviceViewOf(kv, tokens), 0, nullptr);
    ASSERT_TRUE(chunks.ok()) << chunks.status();
    ASSERT_EQ(chunks->size(), static_cast<size_t>((tokens + 95) / 96));
    for (size_t i = 0; i < chunks->size(); ++i) {
      const int64_t first = static_cast<int64_t>(i) * 96;
      const int64_t count = std::min<int64_t>(96, tokens - first);
      const EncodedChunk expected = *host->Encode(kv.view().Slice(first, count), first);
      const Levels want = CellsOf(data, expected);
      const Levels got = CellsOf(data, (*chunks)[i]);
      // The exact tokens' section is the host's to the byte.
      EXPECT_EQ(ParseSegment(data, (*chunks)[i].segments[0])->sinks,
                ParseSegment(data, expected.segments[0])->sinks);
      for (int level = 0; level < data.levels; ++level) {
        int64_t off = 0;
        const std::vector<int32_t>& a = want.cells[level];
        const std::vector<int32_t>& b = got.cells[level];
        ASSERT_EQ(a.size(), b.size());
        for (size_t c = 0; c < a.size(); ++c) {
          ASSERT_LE(std::abs(a[c] - b[c]), 1) << "cell " << c;
          off += a[c] != b[c];
        }
        EXPECT_LE(off, 2 + static_cast<int64_t>(a.size()) / 500) << "level " << level;
        const SegmentView view = *ParseSegment(data, (*chunks)[i].segments[level]);
        EXPECT_TRUE(OraclePayload(data, view, got) == view.payload) << "level " << level;
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(
    Geometries, DeviceEncoderTest,
    testing::Values(Case{"Layer", TestGeometry(2, 2, 32), Group::kLayers},
                    Case{"ModelBf16", TestGeometry(2, 1, 64, KvDtype::kBF16), Group::kModel},
                    Case{"Latent", TestLatentGeometry(2, 96, 32), Group::kLayers},
                    Case{"HeadsOf80", TestGeometry(1, 2, 80), Group::kHead},
                    Case{"HeadsOf160",
                         TestGeometry(1, 1, 160, KvDtype::kF16, Layout::kHalfSplit, 64),
                         Group::kLayers},
                    Case{"InterleavedOdd",
                         TestGeometry(1, 2, 33, KvDtype::kF16, Layout::kInterleaved, 32),
                         Group::kLayers}),
    [](const testing::TestParamInfo<Case>& info) { return info.param.name; });

class DeviceEncodeTest : public testing::Test {
 protected:
  const KvGeometry geometry_ = TestGeometry(2, 2, 32, KvDtype::kBF16);
  const std::shared_ptr<const Profile> profile_ = MakeTestProfile(geometry_, 3, {});
};

TEST_F(DeviceEncodeTest, SegmentsAreAboutAsLargeAsTheHosts) {
  const TestKv kv = MakeTestKv(geometry_, 256, 3, 9);
  const EncodedChunk host = *(*ChunkEncoder::Create(profile_))->Encode(kv.view(), 0);
  const auto device =
      (*CreateHostDeviceEncoder(profile_))->Encode(DeviceViewOf(kv, 256), 0, nullptr);
  ASSERT_TRUE(device.ok()) << device.status();
  for (size_t level = 0; level < host.segments.size(); ++level) {
    EXPECT_LT(static_cast<double>((*device)[0].segments[level].size()),
              1.15 * static_cast<double>(host.segments[level].size()))
        << "level " << level;
  }
}

TEST_F(DeviceEncodeTest, ValuesFarBeyondTheCalibrationBecomeExceptions) {
  TestKv kv = MakeTestKv(geometry_, 200, 4, 5);  // another model's
  TestRandom random(1);
  for (int i = 0; i < 40; ++i) kv.keys(1)[random.Below(kv.keys(1).size())] = 0x4700;  // 32768
  auto host = *ChunkEncoder::Create(profile_);
  auto device = *CreateHostDeviceEncoder(profile_);
  auto decoder = *ChunkDecoder::Create(profile_);
  const EncodedChunk a = *host->Encode(kv.view(), 500);
  const auto b = device->Encode(DeviceViewOf(kv, 200), 500, nullptr);
  ASSERT_TRUE(b.ok()) << b.status();
  for (size_t levels = 1; levels <= 4; ++levels) {
    double error[2] = {};
    double power = 0;
    int which = 0;
    for (const EncodedChunk* chunk : {&a, &(*b)[0]}) {
      TestKv out(geometry_, 200);
      const Views views(chunk->segments.begin(), chunk->segments.begin() + levels);
      ASSERT_TRUE(decoder->Decode(views, out.mutable_view()).ok());
      const std::vector<float> want = kv.Floats();
      const std::vector<float> got = out.Floats();
      power = 0;
      for (size_t i = 0; i < want.size(); ++i) {
        error[which] += std::pow(double{want[i]} - got[i], 2);
        power += std::pow(double{want[i]}, 2);
      }
      ++which;
    }
    EXPECT_LT(error[1], error[0] * 1.02 + 1e-6 * power) << levels << " levels";
  }
}

TEST_F(DeviceEncodeTest, ChosenClassesGiveTheHostsSegments) {
  DeviceEncoderOptions options;
  options.choose_classes = true;
  auto device = *CreateHostDeviceEncoder(profile_, options);
  auto host = *ChunkEncoder::Create(profile_);
  // A context that starts elsewhere than its positions say: nothing like the calibration.
  const TestKv kv = MakeTestKv(geometry_, 256, 3, 9);
  const EncodedChunk expected = *host->Encode(kv.view(), 5);
  const auto actual = device->Encode(DeviceViewOf(kv, 256), 5, nullptr);
  ASSERT_TRUE(actual.ok()) << actual.status();
  const ProfileData& data = profile_->data();
  for (size_t level = 0; level < expected.segments.size(); ++level) {
    EXPECT_NEAR(static_cast<double>((*actual)[0].segments[level].size()),
                static_cast<double>(expected.segments[level].size()),
                0.01 * static_cast<double>(expected.segments[level].size()));
  }
  EXPECT_FALSE(ParseSegment(data, (*actual)[0].segments[0])->class_override.empty());
  CellsOf(data, (*actual)[0]);  // decodes
  // So few values that none lies on an edge: the same bytes.
  const TestKv few = MakeTestKv(geometry_, 6, 3, 9);
  const EncodedChunk same = *host->Encode(few.view(), 0);
  const auto bytes = device->Encode(DeviceViewOf(few, 6), 0, nullptr);
  ASSERT_TRUE(bytes.ok());
  EXPECT_TRUE((*bytes)[0].segments == same.segments);
}

TEST_F(DeviceEncodeTest, ReadsPagedCaches) {
  constexpr int kTokens = 300;
  const TestKv kv = MakeTestKv(geometry_, kTokens, 3, 9);
  auto device = *CreateHostDeviceEncoder(profile_);
  const auto plain = device->Encode(DeviceViewOf(kv, kTokens), 0, nullptr);
  ASSERT_TRUE(plain.ok());
  std::vector<int32_t> table;
  for (int i = 0; i < 19; ++i) table.push_back(i * 7 % 20);
  std::vector<std::vector<uint16_t>> caches(2, std::vector<uint16_t>(20 * 2 * 16 * 64));
  for (int layer = 0; layer < 2; ++layer) {
    for (int plane = 0; plane < 2; ++plane) {
      const auto& from = kv.tensors()[2 * layer + plane];
      for (int t = 0; t < kTokens; ++t)
        std::copy_n(from.begin() + t * 64, 64,
                    caches[layer].begin() + ((table[t / 16] * 2 + plane) * 16 + t % 16) * 64);
    }
  }
  const std::vector<void*> pointers = {caches[0].data(), caches[1].data()};
  PagedKvView view =
      *MakePagedKvView(PagedLayout::kBlockMajorNhd, absl::MakeConstSpan(pointers), 20, 16, 2, 32,
                       table.data(), static_cast<int64_t>(table.size()));
  const auto paged = device->Encode(view, kTokens, 0, nullptr);
  ASSERT_TRUE(paged.ok()) << paged.status();
  ASSERT_EQ(paged->size(), plain->size());
  for (size_t i = 0; i < paged->size(); ++i)
    EXPECT_TRUE((*paged)[i].segments == (*plain)[i].segments) << i;
  table[3] = 20;
  EXPECT_EQ(device->Encode(view, kTokens, 0, nullptr).status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST_F(DeviceEncodeTest, RefusesWhatItCannotEncode) {
  auto device = *CreateHostDeviceEncoder(profile_);
  TestKv kv = MakeTestKv(geometry_, 20, 3, 9);
  EXPECT_EQ(device->Encode(DeviceViewOf(kv, 20), -1, nullptr).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(device->Encode(DeviceViewOf(kv, 0), 0, nullptr).status().code(),
            absl::StatusCode::kInvalidArgument);
  kv.values(1)[700] = 0x7f80;  // infinite
  EXPECT_EQ(device->Encode(DeviceViewOf(kv, 20), 0, nullptr).status().code(),
            absl::StatusCode::kInvalidArgument);
  const std::shared_ptr<const Profile> plain = *BuildProfile(geometry_, {}, {}, {});
  EXPECT_EQ(CreateHostDeviceEncoder(plain).status().code(), absl::StatusCode::kFailedPrecondition);
}

}  // namespace
}  // namespace kvstream

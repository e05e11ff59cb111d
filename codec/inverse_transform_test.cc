// The kernels against a plain reading of docs/format.md in double precision, on every target.
#include "codec/inverse_transform.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "codec/float16.h"
#include "codec/kernel_targets.h"
#include "codec/quantize.h"
#include "codec/test_kv.h"
#include "gtest/gtest.h"

namespace kvstream {
namespace {

using Group = CalibrationOptions::Group;
using Layout = RopeParameters::Layout;

std::vector<int32_t> RandomCells(const ProfileData& data, int tokens, int level, uint64_t seed) {
  TestRandom random(seed);
  std::vector<int32_t> cells(static_cast<size_t>(data.coordinates) * tokens);
  for (int32_t i = 0; i < data.coordinates; ++i) {
    // Some coordinates are zero throughout, all have scales of their own.
    const double scale = i % 7 == 3 ? 0 : 20.0 / (1 + i % 50);
    for (int t = 0; t < tokens; ++t) {
      cells[static_cast<size_t>(i) * tokens + t] =
          static_cast<int32_t>(std::lround(scale * random.Normal() * PowerOf3(level)));
    }
  }
  return cells;
}

// Values before rounding, [layer][keys, values][token][head][channel] as TestKv::Floats. unit: what
// a step of the normalised domain is there.
struct Reference {
  std::vector<double> value;
  std::vector<double> unit;
};

Reference Expected(const ProfileData& data, int level, const std::vector<int32_t>& cells,
                   int64_t position, int tokens) {
  const KvGeometry& geometry = data.geometry;
  const int size = geometry.head_size;
  Reference out;
  out.value.resize(static_cast<size_t>(data.channels()) * tokens);
  out.unit.resize(out.value.size());
  RopeTable rope(geometry.rope);
  rope.Prepare(position, tokens);
  for (const ProfileGroup& group : data.groups) {
    for (int t = 0; t < tokens; ++t) {
      std::vector<double> sums(group.channels, 0.0);
      for (int32_t i = 0; i < group.rank; ++i) {
        const int32_t coordinate = group.first_coordinate + i;
        const int32_t cell = cells[static_cast<size_t>(coordinate) * tokens + t];
        if (cell == 0) continue;
        const double shrink =
            data.tables.ShrinkOf(level, data.classes[coordinate])[std::abs(cell) == 1 ? 0 : 1];
        const double magnitude =
            std::max(0.0, Unwarp(std::abs(cell) / static_cast<double>(PowerOf3(level))) - shrink);
        const double value = cell < 0 ? -magnitude : magnitude;
        for (int32_t c = 0; c < group.channels; ++c) {
          uint16_t half = 0;
          if (data.calibrated)
            std::memcpy(&half, data.Matrix(group).data + (int64_t{i} * group.channels + c) * 2, 2);
          sums[c] += value * (data.calibrated ? FloatFromHalf(half) : (i == c ? 1.0 : 0.0));
        }
      }
      for (int32_t offset = 0; offset < group.channels; offset += size) {
        const int32_t channel = group.first_channel + offset;
        const HeadPlace place = PlaceOf(geometry, channel / size);
        std::vector<float> line(size);
        for (int c = 0; c < size; ++c) {
          line[c] = static_cast<float>(data.mean[channel + c] +
                                       data.unit[channel + c] * sums[offset + c]);
        }
        if (!place.values) rope.Apply(t, line.data());
        const size_t at = (((static_cast<size_t>(place.layer) * 2 + place.values) * tokens + t) *
                               geometry.kv_heads +
                           place.head) *
                          size;
        for (int c = 0; c < size; ++c) {
          out.value[at + c] = line[c];
          // Rotation mixes two channels.
          out.unit[at + c] = *std::max_element(&data.unit[channel], &data.unit[channel] + size);
        }
      }
    }
  }
  return out;
}

TestKv Inverse(const ProfileData& data, int level, const std::vector<int32_t>& cells,
               int64_t position, int tokens, ProductKind kind) {
  TestKv out(data.geometry, tokens);
  InverseTransform inverse(data);
  CellRows rows;
  rows.Read(cells.data(), data.coordinates, tokens, level, data.levels);
  for (const ProfileGroup& group : data.groups) {
    inverse.Run(group, level, rows, data.classes, data.mean, data.unit, position,
                out.mutable_view(), kind);
  }
  return out;
}

struct Case {
  KvGeometry geometry;
  Group group;
};

std::vector<Case> Cases() {
  return {{TestGeometry(1, 2, 24, KvDtype::kF16), Group::kHead},
          {TestGeometry(1, 1, 40, KvDtype::kBF16, Layout::kInterleaved, 12), Group::kLayers},
          {TestGeometry(1, 1, 7, KvDtype::kBF16, Layout::kNone), Group::kHead},
          {TestGeometry(2, 2, 64, KvDtype::kBF16), Group::kModel}};
}

TEST(InverseTransformTest, EveryTargetGivesTheExactValuesRounded) {
  for (const Case& test : Cases()) {
    CalibrationOptions options;
    options.group = test.group;
    const std::shared_ptr<const Profile> profile = MakeTestProfile(test.geometry, 3, options, 300);
    const ProfileData& data = profile->data();
    const double resolution = test.geometry.dtype == KvDtype::kF16 ? 0x1p-11 : 0x1p-8;
    for (const int tokens : {1, 2, 7, 8, 9, 15, 16, 17, 31, 32, 33}) {
      const int level = tokens % 4;
      SCOPED_TRACE(testing::Message() << data.geometry.head_size << ", tokens " << tokens);
      const std::vector<int32_t> cells = RandomCells(data, tokens, level, tokens);
      const Reference expected = Expected(data, level, cells, 1000, tokens);
      for (const ProductKind kind : {ProductKind::kFloat, ProductKind::kAuto}) {
        const double share = kind == ProductKind::kFloat ? 1e-5 : 0.1;
        ForEachTarget([&] {
          const std::vector<float> decoded =
              Inverse(data, level, cells, 1000, tokens, kind).Floats();
          ASSERT_EQ(decoded.size(), expected.value.size());
          for (size_t i = 0; i < decoded.size(); ++i) {
            ASSERT_NEAR(decoded[i], expected.value[i],
                        std::abs(expected.value[i]) * (resolution + 1e-5) +
                            expected.unit[i] * share / PowerOf3(level) + 1e-5)
                << i;
          }
        });
      }
    }
  }
}

// What inverse_transform.h promises of integers, before the rounding to 16 bits; and that they are
// the same everywhere.
TEST(InverseTransformTest, IntegersAddLessThanAFiftiethOfAStep) {
  // F16 resolves the error; kShort overrides that the class itself would not use integers for it.
  const KvGeometry geometry = TestGeometry(1, 2, 128, KvDtype::kF16, Layout::kNone);
  CalibrationOptions options;
  options.group = Group::kHead;
  const std::shared_ptr<const Profile> profile = MakeTestProfile(geometry, 3, options, 300);
  ProfileData data = profile->data();
  std::fill(data.mean.begin(), data.mean.end(), 0.0f);
  std::fill(data.unit.begin(), data.unit.end(), 1.0f);
  constexpr int kTokens = 64;
  for (int level = 0; level < 4; ++level) {
    SCOPED_TRACE(level);
    const std::vector<int32_t> cells = RandomCells(data, kTokens, level, 5);
    const Reference expected = Expected(data, level, cells, 0, kTokens);
    const TestKv first = Inverse(data, level, cells, 0, kTokens, ProductKind::kShort);
    const std::vector<float> decoded = first.Floats();
    double error = 0;
    double own = 0;
    for (size_t i = 0; i < decoded.size(); ++i) {
      const double exact = expected.value[i];
      error += std::pow(decoded[i] - exact, 2);
      own += std::pow(FloatFromHalf(HalfFromFloat(static_cast<float>(exact))) - exact, 2);
    }
    const double added = std::sqrt(std::max(0.0, error - own) / decoded.size());
    EXPECT_LT(added, kShortProductShare / PowerOf3(level));
    ForEachTarget([&] {
      ASSERT_EQ(Inverse(data, level, cells, 0, kTokens, ProductKind::kShort).tensors(),
                first.tensors());
    });
  }
}

TEST(InverseTransformTest, ValuesFarTooLargeForIntegersAreMultipliedInFloats) {
  const KvGeometry geometry = TestGeometry(1, 1, 32, KvDtype::kBF16, Layout::kNone);
  CalibrationOptions options;
  options.group = Group::kHead;
  const std::shared_ptr<const Profile> profile = MakeTestProfile(geometry, 3, options, 300);
  const ProfileData& data = profile->data();
  std::vector<int32_t> cells(static_cast<size_t>(data.coordinates) * 16, 0);
  cells[0] = kMaxBaseSymbol * 27;
  cells[16] = 27;
  EXPECT_EQ(Inverse(data, 3, cells, 0, 16, ProductKind::kAuto).tensors(),
            Inverse(data, 3, cells, 0, 16, ProductKind::kFloat).tensors());
}

}  // namespace
}  // namespace kvstream

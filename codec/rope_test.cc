#include "codec/rope.h"

#include <cmath>
#include <numeric>
#include <vector>

#include "gtest/gtest.h"

namespace kvstream {
namespace {

RopeParameters Parameters(RopeParameters::Layout layout, int rotary_size,
                          double attention_factor = 1) {
  RopeParameters rope;
  rope.layout = layout;
  rope.attention_factor = attention_factor;
  for (int i = 0; i < rotary_size / 2; ++i)
    rope.inverse_frequency.push_back(std::pow(10000.0, -2.0 * i / rotary_size));
  return rope;
}

std::vector<float> Ramp(int size) {
  std::vector<float> head(size);
  std::iota(head.begin(), head.end(), 1.0f);
  return head;
}

TEST(RopeTest, HalfSplitPairsAChannelWithTheOneHalfAHeadAway) {
  RopeTable rope(Parameters(RopeParameters::Layout::kHalfSplit, 4));
  rope.Prepare(1, 1);
  std::vector<float> head = {1, 0, 0, 0};
  rope.Apply(0, head.data());
  EXPECT_NEAR(head[0], std::cos(1.0), 1e-6);
  EXPECT_NEAR(head[2], std::sin(1.0), 1e-6);
  EXPECT_EQ(head[1], 0);
  EXPECT_EQ(head[3], 0);
}

TEST(RopeTest, InterleavedPairsNeighbours) {
  RopeTable rope(Parameters(RopeParameters::Layout::kInterleaved, 4));
  rope.Prepare(1, 1);
  std::vector<float> head = {0, 0, 1, 0};
  rope.Apply(0, head.data());
  EXPECT_NEAR(head[2], std::cos(0.01), 1e-6);
  EXPECT_NEAR(head[3], std::sin(0.01), 1e-6);
  EXPECT_EQ(head[0], 0);
}

TEST(RopeTest, UndoInvertsApplyAtEveryLayoutAndPosition) {
  for (const auto layout :
       {RopeParameters::Layout::kHalfSplit, RopeParameters::Layout::kInterleaved}) {
    for (const int64_t position : {int64_t{0}, int64_t{1}, int64_t{131071}, int64_t{1} << 40}) {
      RopeTable rope(Parameters(layout, 16, 1.3));
      rope.Prepare(position, 3);
      for (int token = 0; token < 3; ++token) {
        std::vector<float> head = Ramp(20);
        rope.Apply(token, head.data());
        rope.Undo(token, head.data());
        for (int i = 0; i < 20; ++i) EXPECT_NEAR(head[i], i + 1, 1e-4) << position;
      }
    }
  }
}

TEST(RopeTest, PartialRotationLeavesTheOtherChannelsAlone) {
  RopeTable rope(Parameters(RopeParameters::Layout::kHalfSplit, 8, 1.5));
  rope.Prepare(5, 1);
  std::vector<float> head = Ramp(12);
  rope.Apply(0, head.data());
  for (int i = 8; i < 12; ++i) EXPECT_EQ(head[i], i + 1);
}

TEST(RopeTest, RotationMayBeginWithinTheHead) {
  RopeParameters parameters = Parameters(RopeParameters::Layout::kInterleaved, 4);
  std::vector<float> rotated = {7, 8, 9, 10};
  RopeTable plain(parameters);
  plain.Prepare(5, 1);
  plain.Apply(0, rotated.data());
  parameters.rotary_offset = 6;
  RopeTable rope(parameters);
  rope.Prepare(5, 1);
  std::vector<float> head = Ramp(12);
  rope.Apply(0, head.data());
  for (int i = 0; i < 12; ++i) EXPECT_EQ(head[i], i < 6 || i >= 10 ? i + 1 : rotated[i - 6]);
  rope.Undo(0, head.data());
  for (int i = 0; i < 12; ++i) EXPECT_NEAR(head[i], i + 1, 1e-5);
}

TEST(RopeTest, AttentionFactorScalesTheRotatedChannels) {
  RopeTable rope(Parameters(RopeParameters::Layout::kHalfSplit, 4, 2));
  rope.Prepare(9, 1);
  std::vector<float> head = Ramp(4);
  rope.Apply(0, head.data());
  EXPECT_NEAR(std::hypot(head[0], head[2]), 2 * std::hypot(1.0, 3.0), 1e-5);
}

TEST(RopeTest, NoLayoutChangesNothing) {
  RopeTable rope(RopeParameters{});
  rope.Prepare(7, 1);
  std::vector<float> head = Ramp(4);
  rope.Apply(0, head.data());
  rope.Undo(0, head.data());
  EXPECT_EQ(head, Ramp(4));
}

TEST(RopeTest, ATableIsMadeAgainForOtherPositions) {
  RopeTable rope(Parameters(RopeParameters::Layout::kHalfSplit, 4));
  rope.Prepare(0, 4);
  rope.Prepare(0, 2);
  rope.Prepare(1, 1);
  std::vector<float> head = {1, 0, 0, 0};
  rope.Apply(0, head.data());
  EXPECT_NEAR(head[0], std::cos(1.0), 1e-6);
}

}  // namespace
}  // namespace kvstream

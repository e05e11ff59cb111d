#include "codec/calibration_advice.h"

#include "codec/test_kv.h"
#include "gtest/gtest.h"

namespace kvstream {
namespace {

using Group = CalibrationOptions::Group;

TEST(CalibrationAdviceTest, WidestGroupFollowsTheOptions) {
  CalibrationOptions options;
  options.group = Group::kHead;
  EXPECT_EQ(WidestGroup(TestGeometry(4, 2, 16), options), 16);
  options.group = Group::kLayers;
  options.group_layers = 3;
  EXPECT_EQ(WidestGroup(TestGeometry(4, 2, 16), options), 3 * 64);
  EXPECT_EQ(WidestGroup(TestLatentGeometry(4, 24, 8), options), 3 * 32);
  options.group = Group::kModel;
  EXPECT_EQ(WidestGroup(TestGeometry(4, 2, 16), options), 4 * 64);
}

TEST(CalibrationAdviceTest, TellsOfFewTokens) {
  const KvGeometry geometry = TestGeometry(2, 1, 16);  // 32 channels a layer
  const auto warnings = [&](int64_t tokens, int samples) {
    std::vector<KvView> views(samples);
    for (KvView& view : views) view.tokens = tokens;
    return CalibrationWarnings(geometry, views, {});
  };
  EXPECT_TRUE(warnings(0, 0).empty());
  EXPECT_TRUE(warnings(4 + 64, 1).empty());
  EXPECT_TRUE(warnings(4 + 32, 2).empty());
  const std::vector<std::string> few = warnings(4 + 15, 2);
  ASSERT_EQ(few.size(), 1);
  EXPECT_NE(few[0].find("32 channels but the samples have 30 tokens"), std::string::npos) << few[0];
  EXPECT_NE(few[0].find("lost at every level"), std::string::npos);
  EXPECT_NE(few[0].find("at least 128 tokens"), std::string::npos);
  const std::vector<std::string> some = warnings(4 + 32, 1);
  ASSERT_EQ(some.size(), 1);
  EXPECT_EQ(some[0].find("lost"), std::string::npos);
}

// What the warning says is so.
TEST(CalibrationAdviceTest, FewTokensLimitTheRank) {
  const KvGeometry geometry = TestGeometry(1, 4, 32);
  const TestKv sample = MakeTestKv(geometry, 4 + 100, 4, 8);
  const std::shared_ptr<const Profile> profile =
      *BuildProfile(geometry, std::vector<KvView>{sample.view()}, {}, {});
  EXPECT_EQ(profile->group_channels(0), 256);
  EXPECT_LE(profile->group_rank(0), 100);
}

}  // namespace
}  // namespace kvstream

#include "server/load/decoder_model.h"

#include "gtest/gtest.h"

namespace kvstream {
namespace {

TEST(DecoderModelTest, JobsRunOneAfterAnotherOnceTheyArrive) {
  DecoderModel decoder;
  decoder.OnSent(100, 2, false);
  decoder.OnSent(200, 3, false);
  EXPECT_DOUBLE_EQ(decoder.busy_s(0, absl::ZeroDuration()), 5);
  decoder.OnReport(100, 0, absl::Seconds(10));
  EXPECT_DOUBLE_EQ(decoder.busy_s(0, absl::Seconds(10)), 5);
  EXPECT_DOUBLE_EQ(decoder.busy_s(0, absl::Seconds(11)), 4);
  decoder.OnReport(200, 0, absl::Seconds(11));
  EXPECT_DOUBLE_EQ(decoder.busy_s(0, absl::Seconds(11)), 4);
  EXPECT_DOUBLE_EQ(decoder.busy_s(0, absl::Seconds(20)), 0);
}

TEST(DecoderModelTest, RefinementsWaitForTheRecomputeThatReadsTheirChunk) {
  DecoderModel decoder;
  decoder.OnSent(100, 2, true);
  EXPECT_DOUBLE_EQ(decoder.busy_s(7, absl::ZeroDuration()), 9);
  decoder.OnReport(100, 6, absl::Seconds(1));
  EXPECT_DOUBLE_EQ(decoder.busy_s(6, absl::Seconds(1)), 8);
}

TEST(DecoderModelTest, TheClientKnowsBetter) {
  DecoderModel decoder;
  decoder.OnSent(100, 50, false);
  decoder.OnReport(100, 0, absl::Seconds(1));
  decoder.OnIdle(absl::Seconds(2));
  EXPECT_DOUBLE_EQ(decoder.busy_s(0, absl::Seconds(2)), 0);
}

TEST(DecoderModelTest, UnknownSpeedCostsNothing) {
  DecoderModel decoder;
  decoder.OnSent(100, 0, false);
  EXPECT_EQ(decoder.busy_s(0, absl::ZeroDuration()), 0);
}

}  // namespace
}  // namespace kvstream

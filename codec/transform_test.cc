#include "codec/transform.h"

#include <cmath>
#include <vector>

#include "codec/float16.h"
#include "codec/test_kv.h"
#include "gtest/gtest.h"

namespace kvstream {
namespace {

// [channel][token]: `rank` directions whose deviations fall by `ratio` each.
std::vector<float> Samples(int64_t channels, int64_t tokens, int rank, double ratio) {
  TestRandom random(3);
  std::vector<double> mixing(channels * rank);
  for (double& value : mixing) value = random.Normal();
  std::vector<double> hidden(rank * tokens);
  for (int k = 0; k < rank; ++k) {
    for (int64_t t = 0; t < tokens; ++t)
      hidden[k * tokens + t] = std::pow(ratio, k) * random.Normal();
  }
  std::vector<float> samples(channels * tokens);
  for (int64_t c = 0; c < channels; ++c) {
    for (int64_t t = 0; t < tokens; ++t) {
      double sum = 0;
      for (int k = 0; k < rank; ++k) sum += mixing[c * rank + k] * hidden[k * tokens + t];
      samples[c * tokens + t] = static_cast<float>(sum);
    }
  }
  return samples;
}

struct Klt {
  int64_t channels = 0;
  std::vector<float> matrix;  // [row][channel]

  int64_t rank() const { return static_cast<int64_t>(matrix.size()) / channels; }
  double Dot(int64_t a, const Klt& other, int64_t b) const {
    double sum = 0;
    for (int64_t i = 0; i < channels; ++i)
      sum += double{matrix[a * channels + i]} * other.matrix[b * channels + i];
    return sum;
  }
  // Power of the samples along a row, a token.
  double Variance(int64_t row, const std::vector<float>& samples) const {
    const int64_t tokens = static_cast<int64_t>(samples.size()) / channels;
    double power = 0;
    for (int64_t t = 0; t < tokens; ++t) {
      double sum = 0;
      for (int64_t i = 0; i < channels; ++i)
        sum += double{matrix[row * channels + i]} * samples[i * tokens + t];
      power += sum * sum / static_cast<double>(tokens);
    }
    return power;
  }
};

Klt Estimate(const std::vector<float>& samples, int64_t channels, int64_t rank_max,
             int64_t covariance_channels_max) {
  const absl::StatusOr<std::vector<uint16_t>> halves =
      EstimateKlt(samples, channels, static_cast<int64_t>(samples.size()) / channels, rank_max,
                  covariance_channels_max);
  EXPECT_TRUE(halves.ok()) << halves.status();
  Klt klt;
  klt.channels = channels;
  for (uint16_t half : *halves) klt.matrix.push_back(FloatFromHalf(half));
  return klt;
}

constexpr int64_t kNoGram = 1 << 20;

void ExpectOrthonormalByFallingVariance(const Klt& klt, const std::vector<float>& samples) {
  double last = 1e30;
  for (int64_t a = 0; a < klt.rank(); ++a) {
    for (int64_t b = 0; b <= a; ++b)
      EXPECT_NEAR(klt.Dot(a, klt, b), a == b ? 1 : 0, 1e-3) << a << " " << b;
    const double variance = klt.Variance(a, samples);
    // Rows of halves carry a little of the strongest direction.
    EXPECT_LE(variance, last * 1.01 + klt.Variance(0, samples) * 1e-8);
    last = variance;
  }
}

TEST(EstimateKltTest, CovarianceGivesEveryDirection) {
  const std::vector<float> samples = Samples(40, 200, 40, 0.9);
  const Klt klt = Estimate(samples, 40, 40, kNoGram);
  EXPECT_EQ(klt.rank(), 40);
  ExpectOrthonormalByFallingVariance(klt, samples);
  EXPECT_EQ(Estimate(samples, 40, 7, kNoGram).rank(), 7);
  // Directions outside of the samples' span are there too.
  EXPECT_EQ(Estimate(Samples(40, 10, 40, 0.9), 40, 40, kNoGram).rank(), 40);
}

TEST(EstimateKltTest, GramGivesTheSameDirectionsAsTheCovariance) {
  // Strengths over more decades than can be kept.
  const int64_t channels = 700;
  const std::vector<float> samples = Samples(channels, 300, 300, 0.95);
  const Klt gram = Estimate(samples, channels, channels, 100);
  ExpectOrthonormalByFallingVariance(gram, samples);
  EXPECT_GT(gram.rank(), 200);  // 0.95 ^ 247 is the square root of 1e-11
  EXPECT_LE(gram.rank(), 300);
  const Klt covariance = Estimate(samples, channels, channels, kNoGram);
  ASSERT_EQ(covariance.rank(), channels);
  for (int64_t row = 0; row < 100; ++row)
    EXPECT_NEAR(std::abs(gram.Dot(row, covariance, row)), 1, 1e-2) << row;
  // Nothing of the samples is lost: the variances add up to theirs.
  double kept = 0;
  for (int64_t row = 0; row < gram.rank(); ++row) kept += gram.Variance(row, samples);
  double all = 0;
  for (float value : samples) all += double{value} * value / 300;
  EXPECT_NEAR(kept / all, 1, 2e-3);
}

TEST(EstimateKltTest, GramStopsWhereTheSamplesEnd) {
  const std::vector<float> samples = Samples(64, 32, 5, 0.9);
  const Klt klt = Estimate(samples, 64, 64, 16);
  EXPECT_GE(klt.rank(), 5);
  EXPECT_LE(klt.rank(), 32);
  for (int64_t row = 0; row < 5; ++row) EXPECT_GT(klt.Variance(row, samples), 0.1);
  EXPECT_EQ(Estimate(samples, 64, 3, 16).rank(), 3);
  // Enough tokens: the covariance is taken after all.
  EXPECT_EQ(Estimate(Samples(20, 30, 20, 0.9), 20, 20, 16).rank(), 20);
}

TEST(EstimateKltTest, SamplesOfZeroHaveNoDirectionInTheGramMatrix) {
  const std::vector<float> zero(64 * 8, 0.0f);
  EXPECT_EQ(Estimate(zero, 64, 64, 16).rank(), 0);
  EXPECT_EQ(Estimate(zero, 64, 64, kNoGram).rank(), 64);
}

}  // namespace
}  // namespace kvstream

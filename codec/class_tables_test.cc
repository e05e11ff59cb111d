#include "codec/class_tables.h"

#include <cmath>
#include <numeric>

#include "codec/quantize.h"
#include "gtest/gtest.h"

namespace kvstream {
namespace {

TEST(ClassTablesTest, FrequenciesSumToTheScaleAndKeepEveryWeight) {
  for (const std::vector<double>& weights :
       {std::vector<double>{1, 1}, std::vector<double>{1, 0, 0, 1e9},
        std::vector<double>(4096, 1.0), std::vector<double>(3, 1e-30)}) {
    const std::vector<uint16_t> frequency = FrequenciesFromWeights(weights);
    EXPECT_EQ(std::accumulate(frequency.begin(), frequency.end(), 0), kProbabilityScale);
    for (uint16_t value : frequency) EXPECT_GE(value, 1);
  }
}

TEST(ClassTablesTest, FrequenciesFollowTheWeights) {
  const std::vector<uint16_t> frequency = FrequenciesFromWeights({1, 2, 1});
  EXPECT_EQ(frequency, (std::vector<uint16_t>{1024, 2048, 1024}));
}

TEST(ClassTablesTest, EveryTableOfEveryLadderIsWhole) {
  for (int levels = 1; levels <= kMaxLevels; ++levels) {
    const ParametricLadder ladder = MakeLadder(levels);
    const ClassTables tables = ParametricTables(ladder, levels);
    ASSERT_LE(tables.classes, kMaxClasses);
    EXPECT_LT(ladder.scale.front() * PowerOf3(levels - 1), 0.2) << levels;
    EXPECT_TRUE(tables.Null(levels - 1, 1)) << "the narrowest Gauss class codes nothing";
    for (int klass = 0; klass < tables.classes; ++klass) {
      const BaseTable& base = tables.base[klass];
      if (!base.null()) {
        ASSERT_EQ(base.frequency.size(), 2u * base.max_symbol + 1);
        ASSERT_EQ(std::accumulate(base.frequency.begin(), base.frequency.end(), 0),
                  kProbabilityScale);
        ASSERT_GE((base.max_symbol + 0.5) * (1 << base.shift), 3 * ladder.scale[klass / 2])
            << "class " << klass << " has too small an alphabet";
      }
      for (int level = 1; level < levels; ++level) {
        const RefineTable& refine = tables.Refine(level, klass);
        for (int context = 0; !refine.null && context < kRefineContexts; ++context) {
          const auto& frequency = refine.frequency[context];
          ASSERT_EQ(frequency[0] + frequency[1] + frequency[2], kProbabilityScale);
        }
      }
    }
  }
}

TEST(ClassTablesTest, ParametricValuesLieAtTheMeanOfTheirCells) {
  const ParametricLadder ladder = MakeLadder(4);
  const ClassTables tables = ParametricTables(ladder, 4);
  for (int klass = 0; klass < tables.classes; klass += 7) {
    const double sigma = ladder.scale[klass / 2];
    const double scale = sigma / std::sqrt(2.0);
    const auto density = [&](double x) {
      return klass % 2 == 0 ? std::exp(-x / scale) / (2 * scale)
                            : std::exp(-0.5 * x * x / sigma / sigma) / sigma / std::sqrt(2 * M_PI);
    };
    for (int level = 0; level < 4; ++level) {
      const double power = PowerOf3(level);
      double mass = 0;
      double moment = 0;
      const double low = Unwarp(0.5 / power);
      const double high = Unwarp(1.5 / power);
      for (int i = 0; i < 1000; ++i) {
        const double x = low + (high - low) * (i + 0.5) / 1000;
        mass += density(x);
        moment += x * density(x);
      }
      const float shrink = tables.ShrinkOf(level, klass)[0];
      if (mass * (high - low) / 1000 < 1e-6) continue;  // too rare to matter
      EXPECT_NEAR(Unwarp(1 / power) - shrink, moment / mass, 1e-3 / power)
          << "class " << klass << " level " << level;
      // Farther out the density falls too, so that values lie below the centres.
      EXPECT_GE(tables.ShrinkOf(level, klass)[1], 0);
    }
  }
}

TEST(ClassTablesTest, WiderClassesSpendMoreOnZero) {
  const ParametricLadder ladder = MakeLadder(4);
  const ClassTables tables = ParametricTables(ladder, 4);
  int last = kProbabilityScale;
  for (int klass = 0; klass < tables.classes; klass += 2) {
    const BaseTable& base = tables.base[klass];
    if (base.null() || base.shift > 0) continue;
    EXPECT_LE(base.frequency[base.max_symbol], last);
    last = base.frequency[base.max_symbol];
  }
}

}  // namespace
}  // namespace kvstream

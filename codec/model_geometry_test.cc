// Models in use, from their config.json to the bits and errors of decoded KV, against theory.
#include <algorithm>
#include <cmath>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "codec/calibration.h"
#include "codec/decoder.h"
#include "codec/encoder.h"
#include "codec/model_kv.h"
#include "codec/model_measure.h"
#include "codec/profile_data.h"
#include "gtest/gtest.h"

namespace kvstream {
namespace {

using Group = CalibrationOptions::Group;

// Units of all channels as docs/codec.md has them, from the model's truth: scale of the tensor's
// part (with the means' power where they are known beforehand), step, ratio of values to keys.
std::vector<float> Units(const ModelKv& model, const CalibrationOptions& options, bool with_means) {
  const KvGeometry& geometry = model.geometry();
  const int32_t per_tensor = geometry.tensor_channels();
  std::vector<float> unit(geometry.values_per_token());
  for (int32_t first = 0; first < static_cast<int32_t>(unit.size()); first += per_tensor) {
    for (int part = 0; part < geometry.parts(); ++part) {
      double variance = 0;
      double mean_power = 0;
      int32_t count = 0;
      for (int32_t c = 0; c < per_tensor; ++c) {
        if (geometry.PartOf(c) != part) continue;
        variance += model.variance(first + c);
        mean_power += std::pow(model.mean(first + c), 2);
        ++count;
      }
      if (with_means) variance += std::min(mean_power, 3 * variance);
      const bool values = first / per_tensor % geometry.planes == 1;
      for (int32_t c = 0; c < per_tensor; ++c) {
        if (geometry.PartOf(c) != part) continue;
        unit[first + c] = static_cast<float>(std::sqrt(variance / count) * options.steps[0] *
                                             (values ? options.value_step_ratio : 1));
      }
    }
  }
  return unit;
}

struct Case {
  std::string name;
  std::string config;
  Group group;
  int group_layers;
  int64_t sample_tokens;
  // Above theory, in parts of it. Groups that are wide for their samples lose most: their
  // transforms and tables fit the samples better than the next context.
  double rate_over;
  double error_over;
};

class ModelGeometryTest : public testing::TestWithParam<Case> {
 protected:
  ModelGeometryTest() : model_(GeometryOf(GetParam().config), {}, 11) {
    options_.group = GetParam().group;
    options_.group_layers = GetParam().group_layers;
    // Built once for all tests of a case.
    static auto* const built = new std::map<std::string, std::shared_ptr<const Profile>>;
    profile_ = (*built)[GetParam().name];
    if (profile_ == nullptr) {
      profile_ = CalibrateOn(model_, GetParam().sample_tokens, options_);
      (*built)[GetParam().name] = profile_;
    }
  }

  const ModelKv model_;
  CalibrationOptions options_;
  std::shared_ptr<const Profile> profile_;
};

TEST_P(ModelGeometryTest, RateAndErrorAreThoseOfTheory) {
  const std::vector<float>& unit = profile_->data().unit;
  const std::vector<float> true_unit = Units(model_, options_, /*with_means=*/true);
  for (size_t c = 0; c < unit.size(); ++c) ASSERT_NEAR(unit[c] / true_unit[c], 1, 0.1) << c;

  const std::vector<SpectrumTheory> theory = TheoryOfProfile(model_, *profile_);
  // The rotation of far positions is undone as exactly as that of near ones.
  for (const int64_t position : {int64_t{4096}, int64_t{1000000}, int64_t{1} << 40}) {
    SCOPED_TRACE(position);
    const std::vector<Measured> measured =
        MeasureChunk(model_, profile_, unit, position, {0, 1, 2, 3});
    if (position == 4096) PrintMeasured(GetParam().name, measured, theory);
    for (int level = 0; level < kModelLevels; ++level) {
      SCOPED_TRACE(level);
      EXPECT_LT(measured[level].bits, theory[level].bits * (1 + GetParam().rate_over));
      EXPECT_GT(measured[level].bits, theory[level].bits * 0.98);
      EXPECT_GT(measured[level].bits, theory[level].bound_bits);
      EXPECT_LT(measured[level].error,
                theory[level].error * (1 + GetParam().error_over) + measured[level].rounding);
      EXPECT_GT(measured[level].error, theory[level].error * 0.95);
    }
  }
}

TEST_P(ModelGeometryTest, SinksAreExactAtEveryLevel) {
  const TestKv kv = model_.Context(kModelChunk, 0, 9);
  const EncodedChunk encoded = *(*ChunkEncoder::Create(profile_))->Encode(kv.view(), 0);
  const TestKv later = model_.Context(kModelChunk, 512, 9);
  const EncodedChunk without = *(*ChunkEncoder::Create(profile_))->Encode(later.view(), 512);
  const double values = static_cast<double>(model_.geometry().values_per_token());
  EXPECT_LT(encoded.segments[0].size(), without.segments[0].size() + 4 * 2 * values);
  auto decoder = *ChunkDecoder::Create(profile_);
  for (int level = 0; level < kModelLevels; ++level) {
    TestKv decoded(model_.geometry(), kModelChunk);
    const std::vector<absl::string_view> segments(encoded.segments.begin(),
                                                  encoded.segments.begin() + level + 1);
    ASSERT_TRUE(decoder->Decode(segments, decoded.mutable_view()).ok());
    for (int64_t token = 0; token < 4; ++token) {
      EXPECT_EQ(TokenValues(model_.geometry(), decoded.view(), token),
                TokenValues(model_.geometry(), kv.view(), token));
    }
  }
}

INSTANTIATE_TEST_SUITE_P(
    Models, ModelGeometryTest,
    testing::Values(
        Case{"Llama8BPerHead", Llama31Config(2, 8), Group::kHead, 1, 4096, 0.03, 0.02},
        Case{"Llama8BPerLayer", Llama31Config(1, 8), Group::kLayers, 1, 8192, 0.07, 0.11},
        Case{"LlamaTwoHeadsTwoLayers", Llama31Config(4, 2), Group::kLayers, 2, 6144, 0.06, 0.11},
        Case{"LlamaTwoHeadsModel", Llama31Config(3, 2), Group::kModel, 1, 6144, 0.07, 0.11},
        Case{"Glm4PartialRope", Glm4Config(2), Group::kLayers, 1, 4096, 0.05, 0.06},
        Case{"QwenYarn", QwenYarnConfig(2), Group::kHead, 1, 4096, 0.03, 0.02},
        Case{"Phi3LongRope", Phi3LongRopeConfig(2), Group::kLayers, 1, 6144, 0.05, 0.06},
        Case{"DeepSeekPerLayer", DeepSeekV3Config(3), Group::kLayers, 1, 4096, 0.05, 0.06},
        Case{"DeepSeekModel", DeepSeekV3Config(2), Group::kModel, 1, 6144, 0.06, 0.08}),
    [](const testing::TestParamInfo<Case>& info) { return info.param.name; });

// Whole models without calibration: the identity, with means, scales and classes of the chunk.
struct WholeCase {
  std::string name;
  std::string config;
};
class UncalibratedModelTest : public testing::TestWithParam<WholeCase> {};

TEST_P(UncalibratedModelTest, WithoutCalibrationTheRateIsThatOfScalarCells) {
  const ModelKv model(GeometryOf(GetParam().config), {}, 12);
  const KvGeometry& geometry = model.geometry();
  const CalibrationOptions options;
  const std::shared_ptr<const Profile> profile = *BuildProfile(geometry, {}, {}, options);
  const std::vector<float> unit = Units(model, options, /*with_means=*/false);
  std::vector<double> spectrum(unit.size());
  for (size_t c = 0; c < unit.size(); ++c)
    spectrum[c] = model.variance(static_cast<int32_t>(c)) / (double{unit[c]} * unit[c]);
  std::vector<SpectrumTheory> theory;
  for (int level = 0; level < kModelLevels; ++level) {
    theory.push_back(TheoryOf(spectrum, level));
    theory.back().bits /= static_cast<double>(unit.size());
    theory.back().bound_bits /= static_cast<double>(unit.size());
    theory.back().error /= static_cast<double>(unit.size());
  }
  const std::vector<Measured> measured = MeasureChunk(model, profile, unit, 8192, {0, 3});
  PrintMeasured(GetParam().name, measured, theory);
  // Means take 16 bits a channel; a class for a channel and level some 5.
  const double side = 16.0 / kModelChunk;
  for (int level = 0; level < kModelLevels; ++level) {
    SCOPED_TRACE(level);
    EXPECT_GT(measured[level].bits, theory[level].bits * 0.98 + side);
    EXPECT_LT(measured[level].bits,
              theory[level].bits * 1.03 + side + (level + 1) * 5.0 / kModelChunk);
    if (level % 3 != 0) continue;
    EXPECT_LT(measured[level].error, theory[level].error * 1.03 + measured[level].rounding);
    EXPECT_GT(measured[level].error, theory[level].error * 0.95);
  }
}

INSTANTIATE_TEST_SUITE_P(Models, UncalibratedModelTest,
                         testing::Values(WholeCase{"Llama8B", Llama31Config(32, 8)},
                                         WholeCase{"Llama70B", Llama31Config(80, 8)},
                                         WholeCase{"DeepSeekV3", DeepSeekV3Config(61)}),
                         [](const testing::TestParamInfo<WholeCase>& info) {
                           return info.param.name;
                         });

// Channels that stand out so far that their tensor's scale is theirs alone, and others that are all
// but constant beside them.
TEST(OutlierTest, RatesFollowTheoryWithAndWithoutCalibration) {
  ModelStatistics statistics;
  statistics.outliers_per_head = 6;
  statistics.outlier_gain = 40;
  statistics.outlier_mean = 60;
  const ModelKv model(GeometryOf(Llama31Config(2, 4)), statistics, 16);
  CalibrationOptions options;
  options.group = Group::kHead;
  const std::shared_ptr<const Profile> calibrated = CalibrateOn(model, 4096, options);
  const std::vector<SpectrumTheory> theory = TheoryOfProfile(model, *calibrated);
  const std::vector<Measured> measured =
      MeasureChunk(model, calibrated, calibrated->data().unit, 4096, {0, 1, 2, 3});
  PrintMeasured("OutliersPerHead", measured, theory);
  const std::shared_ptr<const Profile> plain = *BuildProfile(model.geometry(), {}, {}, options);
  const std::vector<float> unit = Units(model, options, /*with_means=*/false);
  std::vector<double> spectrum(unit.size());
  for (size_t c = 0; c < unit.size(); ++c)
    spectrum[c] = model.variance(static_cast<int32_t>(c)) / (double{unit[c]} * unit[c]);
  const std::vector<Measured> without = MeasureChunk(model, plain, unit, 4096, {0, 1, 2, 3});
  std::vector<SpectrumTheory> identity;
  for (int level = 0; level < kModelLevels; ++level) {
    identity.push_back(TheoryOf(spectrum, level));
    identity.back().bits /= static_cast<double>(unit.size());
    identity.back().bound_bits /= static_cast<double>(unit.size());
    identity.back().error /= static_cast<double>(unit.size());
  }
  PrintMeasured("OutliersNotCalibrated", without, identity);
  const double side = 16.0 / kModelChunk;
  for (int level = 0; level < kModelLevels; ++level) {
    SCOPED_TRACE(level);
    EXPECT_GT(measured[level].bits, theory[level].bits * 0.98);
    EXPECT_LT(measured[level].bits, theory[level].bits * 1.05);
    EXPECT_LT(measured[level].error, theory[level].error * 1.05 + measured[level].rounding);
    EXPECT_GT(without[level].bits, identity[level].bits * 0.98 + side);
    EXPECT_LT(without[level].bits,
              identity[level].bits * 1.03 + side + (level + 1) * 5.0 / kModelChunk);
    EXPECT_LT(without[level].error, identity[level].error * 1.05 + without[level].rounding);
  }
}

TEST(WholeModelTest, Llama70BCalibratedPerHeadReachesTheory) {
  const ModelKv model(GeometryOf(Llama31Config(80, 8)), {}, 13);
  CalibrationOptions options;
  options.group = Group::kHead;
  const std::shared_ptr<const Profile> profile = CalibrateOn(model, 1024, options);
  EXPECT_EQ(profile->groups(), 80 * 2 * 8);
  const std::vector<SpectrumTheory> theory = TheoryOfProfile(model, *profile);
  const std::vector<Measured> measured =
      MeasureChunk(model, profile, profile->data().unit, 60000, {0, 3});
  PrintMeasured("Llama70BPerHead", measured, theory);
  for (int level = 0; level < kModelLevels; ++level) {
    SCOPED_TRACE(level);
    EXPECT_GT(measured[level].bits, theory[level].bits * 0.98);
    EXPECT_LT(measured[level].bits, theory[level].bits * 1.05);
    if (level % 3 != 0) continue;
    EXPECT_LT(measured[level].error, theory[level].error * 1.05 + measured[level].rounding);
    EXPECT_GT(measured[level].error, theory[level].error * 0.95);
  }
}

}  // namespace
}  // namespace kvstream

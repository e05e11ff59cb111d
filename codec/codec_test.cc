// Encoder and decoder together, over the geometries of models in use.
#include <cmath>
#include <string>
#include <vector>

#include "codec/calibration.h"
#include "codec/decoder.h"
#include "codec/encoder.h"
#include "codec/profile_data.h"
#include "codec/test_kv.h"
#include "gtest/gtest.h"

namespace kvstream {
namespace {

using Group = CalibrationOptions::Group;
using Layout = RopeParameters::Layout;

std::vector<absl::string_view> Views(const EncodedChunk& chunk, int count) {
  return std::vector<absl::string_view>(chunk.segments.begin(), chunk.segments.begin() + count);
}

// Mean squared error relative to the power, over the values from `first_token` on.
double RelativeError(const TestKv& original, const TestKv& decoded) {
  const std::vector<float> a = original.Floats();
  const std::vector<float> b = decoded.Floats();
  double error = 0;
  double power = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    error += std::pow(double{a[i]} - b[i], 2);
    power += std::pow(double{a[i]}, 2);
  }
  return error / power;
}

struct Case {
  std::string name;
  KvGeometry geometry;
  Group group;
  int group_layers;
};

class CodecTest : public testing::TestWithParam<Case> {};

TEST_P(CodecTest, EveryLevelComesBackCloserThanTheOneBefore) {
  const KvGeometry& geometry = GetParam().geometry;
  CalibrationOptions options;
  options.group = GetParam().group;
  options.group_layers = GetParam().group_layers;
  const std::shared_ptr<const Profile> profile = MakeTestProfile(geometry, 3, options);
  auto encoder = *ChunkEncoder::Create(profile);
  auto decoder = *ChunkDecoder::Create(profile);
  for (const int tokens : {1, 4, 5, 33, 256}) {
    SCOPED_TRACE(tokens);
    const TestKv kv = MakeTestKv(geometry, tokens, 3, 77);
    const absl::StatusOr<EncodedChunk> chunk = encoder->Encode(kv.view(), 0);
    ASSERT_TRUE(chunk.ok()) << chunk.status();
    ASSERT_EQ(chunk->segments.size(), 4u);
    double last = 1;
    for (int level = 0; level < 4; ++level) {
      TestKv decoded(geometry, tokens);
      const absl::Status status = decoder->Decode(Views(*chunk, level + 1), decoded.mutable_view());
      ASSERT_TRUE(status.ok()) << status;
      const double error = RelativeError(kv, decoded);
      if (tokens > 4) {
        EXPECT_LT(error, last * 0.75) << "level " << level;
      }
      last = error;
      for (int layer = 0; layer < geometry.layers; ++layer) {
        const int64_t exact = std::min(tokens, 4) * geometry.kv_heads * geometry.head_size;
        for (int64_t i = 0; i < exact; ++i) {
          ASSERT_EQ(decoded.keys(layer)[i], const_cast<TestKv&>(kv).keys(layer)[i])
              << "a sink's key changed";
          if (!geometry.has_values()) continue;
          ASSERT_EQ(decoded.values(layer)[i], const_cast<TestKv&>(kv).values(layer)[i])
              << "a sink's value changed";
        }
      }
    }
    if (tokens >= 33) {
      EXPECT_LT(last, 1e-3);
      EXPECT_GT(last, 0);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(
    Geometries, CodecTest,
    testing::Values(
        Case{"MhaF16", TestGeometry(2, 4, 32), Group::kLayers, 1},
        Case{"GqaBf16", TestGeometry(3, 2, 64, KvDtype::kBF16), Group::kLayers, 2},
        Case{"MqaOneHead", TestGeometry(2, 1, 128), Group::kModel, 1},
        Case{"Head80", TestGeometry(2, 2, 80), Group::kLayers, 1},
        Case{"Head96Bf16", TestGeometry(1, 2, 96, KvDtype::kBF16), Group::kHead, 1},
        Case{"Head20", TestGeometry(2, 3, 20), Group::kModel, 1},
        Case{"PartialRope", TestGeometry(2, 2, 40, KvDtype::kF16, Layout::kHalfSplit, 16),
             Group::kLayers, 1},
        Case{"Interleaved", TestGeometry(2, 2, 32, KvDtype::kBF16, Layout::kInterleaved),
             Group::kLayers, 1},
        Case{"InterleavedPartialOdd",
             TestGeometry(2, 2, 33, KvDtype::kF16, Layout::kInterleaved, 32), Group::kHead, 1},
        Case{"Latent", TestLatentGeometry(3, 48, 16), Group::kLayers, 2},
        Case{"LatentPerHeadF16", TestLatentGeometry(2, 40, 8, KvDtype::kF16), Group::kHead, 1},
        Case{"NoRope", TestGeometry(2, 2, 32, KvDtype::kF16, Layout::kNone), Group::kModel, 1}),
    [](const testing::TestParamInfo<Case>& info) { return info.param.name; });

TEST(CodecTest, ErrorsInTheTransformedDomainStayWithinACell) {
  // Without calibration the transform is the identity, so that each value's error is visible: at
  // most a step of 3^-level of its layer's scale, since cells are no wider and values are put at
  // the mean of what falls into a cell, plus rounding to 16 bits.
  const KvGeometry geometry = TestGeometry(2, 2, 32, KvDtype::kF16, Layout::kNone);
  const std::shared_ptr<const Profile> profile = *BuildProfile(geometry, {}, {}, {});
  EXPECT_FALSE(profile->calibrated());
  const TestKv kv = MakeTestKv(geometry, 200, 5, 6);
  const EncodedChunk chunk = *(*ChunkEncoder::Create(profile))->Encode(kv.view(), 1000);
  auto decoder = *ChunkDecoder::Create(profile);
  for (int level = 0; level < profile->levels(); ++level) {
    TestKv decoded(geometry, 200);
    ASSERT_TRUE(decoder->Decode(Views(chunk, level + 1), decoded.mutable_view()).ok());
    const std::vector<float> a = kv.Floats();
    const std::vector<float> b = decoded.Floats();
    const size_t per_tensor = 200 * 64;
    for (size_t tensor = 0; tensor < 4; ++tensor) {
      double mean_power = 0;  // bounds the scale from above
      for (size_t i = 0; i < per_tensor; ++i)
        mean_power += std::pow(a[tensor * per_tensor + i], 2) / per_tensor;
      const double step =
          profile->step(level) * (tensor % 2 == 1 ? 1.2 : 1.0) * std::sqrt(mean_power);
      for (size_t i = 0; i < per_tensor; ++i) {
        const size_t at = tensor * per_tensor + i;
        ASSERT_LE(std::abs(a[at] - b[at]), step + std::abs(a[at]) * 0x1p-10 + 1e-3)
            << "level " << level;
      }
    }
  }
}

TEST(CodecTest, FallbackWithoutCalibrationWorksWithRopeAndEveryDtype) {
  for (const KvDtype dtype : {KvDtype::kF16, KvDtype::kBF16}) {
    const KvGeometry geometry = TestGeometry(3, 2, 48, dtype);
    const std::shared_ptr<const Profile> profile = *BuildProfile(geometry, {}, {}, {});
    EXPECT_EQ(profile->group_description(), "none");
    const TestKv kv = MakeTestKv(geometry, 256, 5, 6);
    auto encoder = *ChunkEncoder::Create(profile);
    auto decoder = *ChunkDecoder::Create(profile);
    const EncodedChunk chunk = *encoder->Encode(kv.view(), 0);
    double last = 1;
    double bits = 0;
    for (int level = 0; level < 4; ++level) {
      TestKv decoded(geometry, 256);
      ASSERT_TRUE(decoder->Decode(Views(chunk, level + 1), decoded.mutable_view()).ok());
      const double error = RelativeError(kv, decoded);
      EXPECT_LT(error, last * 0.3);
      last = error;
      bits += chunk.segments[level].size() * 8.0 / (256 * geometry.values_per_token());
      EXPECT_LT(bits, 2.3 + 1.75 * level) << "measured tables should be near the entropy";
    }
    EXPECT_LT(last, 1e-3);
  }
}

TEST(CodecTest, CalibratedTransformNeedsFarFewerBitsThanTheFallback) {
  const KvGeometry geometry = TestGeometry(4, 2, 32);
  const TestKv kv = MakeTestKv(geometry, 256, 9, 55);
  CalibrationOptions options;
  options.group = Group::kModel;
  options.sink_tokens = 0;
  const auto bits = [&](const std::shared_ptr<const Profile>& profile) {
    return (*ChunkEncoder::Create(profile))->Encode(kv.view(), 0)->segments[0].size();
  };
  EXPECT_LT(2 * bits(MakeTestProfile(geometry, 9, options)),
            bits(*BuildProfile(geometry, {}, {}, options)));
}

TEST(CodecTest, StridedViewsGiveTheSameBytesAndValues) {
  const KvGeometry geometry = TestGeometry(2, 2, 16);
  const std::shared_ptr<const Profile> profile = MakeTestProfile(geometry, 4);
  const int tokens = 40;
  const TestKv kv = MakeTestKv(geometry, tokens, 4, 8);
  // The same values as [head][token][channel + 3].
  std::vector<std::vector<uint16_t>> strided;
  KvView view;
  view.tokens = tokens;
  for (size_t i = 0; i < kv.tensors().size(); ++i) {
    std::vector<uint16_t> data(2 * tokens * 19, 0x7c00);
    for (int t = 0; t < tokens; ++t) {
      for (int h = 0; h < 2; ++h) {
        for (int c = 0; c < 16; ++c)
          data[(h * tokens + t) * 19 + c] = kv.tensors()[i][(t * 2 + h) * 16 + c];
      }
    }
    strided.push_back(data);
    (i % 2 == 0 ? view.keys : view.values).push_back({strided.back().data(), 19, tokens * 19});
  }
  auto encoder = *ChunkEncoder::Create(profile);
  EXPECT_EQ(encoder->Encode(view, 7)->segments, encoder->Encode(kv.view(), 7)->segments);
}

TEST(CodecTest, EncodingIsReproducible) {
  const KvGeometry geometry = TestGeometry(2, 2, 16);
  const std::shared_ptr<const Profile> profile = MakeTestProfile(geometry, 4);
  const TestKv a = MakeTestKv(geometry, 100, 4, 8);
  const TestKv b = MakeTestKv(geometry, 30, 4, 9);
  auto encoder = *ChunkEncoder::Create(profile);
  const EncodedChunk first = *encoder->Encode(a.view(), 0);
  ASSERT_TRUE(encoder->Encode(b.view(), 512).ok());
  EXPECT_EQ(encoder->Encode(a.view(), 0)->segments, first.segments);
}

TEST(CodecTest, OutlandishValuesStayFinite) {
  for (const KvDtype dtype : {KvDtype::kF16, KvDtype::kBF16}) {
    const KvGeometry geometry = TestGeometry(1, 2, 16, dtype);
    TestKv kv = MakeTestKv(geometry, 64, 4, 8);
    for (int i = 0; i < 200; ++i)
      kv.keys(0)[100 + 9 * i] = dtype == KvDtype::kF16 ? 0x7bff : 0xff7f;
    for (const std::shared_ptr<const Profile>& profile :
         {MakeTestProfile(geometry, 4), *BuildProfile(geometry, {}, {}, {})}) {
      const absl::StatusOr<EncodedChunk> chunk =
          (*ChunkEncoder::Create(profile))->Encode(kv.view(), 64);
      ASSERT_TRUE(chunk.ok()) << chunk.status();
      TestKv decoded(geometry, 64);
      ASSERT_TRUE(
          (*ChunkDecoder::Create(profile))->Decode(Views(*chunk, 4), decoded.mutable_view()).ok());
      for (float value : decoded.Floats()) ASSERT_TRUE(std::isfinite(value));
    }
  }
}

TEST(CodecTest, ConstantKvIsCheapAndExactEnough) {
  const KvGeometry geometry = TestGeometry(1, 1, 16);
  const TestKv zero(geometry, 256);
  const std::shared_ptr<const Profile> profile =
      *BuildProfile(geometry, std::vector<KvView>{zero.view()}, {}, {});
  const EncodedChunk chunk = *(*ChunkEncoder::Create(profile))->Encode(zero.view(), 4);
  EXPECT_LT(chunk.segments[0].size(), 100u);
  TestKv decoded(geometry, 256);
  ASSERT_TRUE(
      (*ChunkDecoder::Create(profile))->Decode(Views(chunk, 4), decoded.mutable_view()).ok());
  for (float value : decoded.Floats()) EXPECT_EQ(value, 0);
}

class EncoderErrorTest : public testing::Test {
 protected:
  const KvGeometry geometry_ = TestGeometry(2, 2, 16);
  const std::shared_ptr<const Profile> profile_ = MakeTestProfile(geometry_, 4);
  std::unique_ptr<ChunkEncoder> encoder_ = *ChunkEncoder::Create(profile_);
  TestKv kv_ = MakeTestKv(geometry_, 10, 4, 8);

  absl::StatusCode Code(const KvView& view, int64_t position = 0) {
    return encoder_->Encode(view, position).status().code();
  }
};

TEST_F(EncoderErrorTest, RejectsShapesThatAreNotTheProfiles) {
  EXPECT_EQ(Code(kv_.view().Slice(0, 0)), absl::StatusCode::kInvalidArgument);
  const TestKv long_kv(geometry_, 257);
  EXPECT_EQ(Code(long_kv.view()), absl::StatusCode::kInvalidArgument);
  KvView fewer = kv_.view();
  fewer.values.pop_back();
  EXPECT_EQ(Code(fewer), absl::StatusCode::kInvalidArgument);
  KvView null = kv_.view();
  null.keys[1].data = nullptr;
  EXPECT_EQ(Code(null), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(Code(kv_.view(), -1), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(Code(kv_.view(), (int64_t{1} << 40) + 1), absl::StatusCode::kInvalidArgument);
  EXPECT_FALSE(ChunkEncoder::Create(nullptr).ok());
  EXPECT_FALSE(ChunkDecoder::Create(nullptr).ok());
}

TEST_F(EncoderErrorTest, RejectsInfinitiesAndNan) {
  for (const uint16_t bits : {0x7c00, 0xfc00, 0x7e00}) {
    for (const size_t at : {size_t{0}, size_t{9 * 32 + 5}}) {  // among the sinks and beyond
      TestKv bad = kv_;
      bad.values(1)[at] = bits;
      EXPECT_EQ(Code(bad.view()), absl::StatusCode::kInvalidArgument);
    }
  }
}

TEST(CalibrationErrorTest, RejectsOptionsAndSamplesOutOfRange) {
  const KvGeometry geometry = TestGeometry(2, 2, 16);
  const TestKv kv = MakeTestKv(geometry, 100, 4, 8);
  const std::vector<KvView> samples = {kv.view()};
  const auto code = [&](const CalibrationOptions& options, const QueryRms& rms = {}) {
    return BuildProfile(geometry, samples, rms, options).status().code();
  };
  CalibrationOptions options;
  EXPECT_EQ(code(options), absl::StatusCode::kOk);
  options.steps = {1, 0.5};
  EXPECT_EQ(code(options), absl::StatusCode::kInvalidArgument);
  options.steps = {};
  EXPECT_EQ(code(options), absl::StatusCode::kInvalidArgument);
  options = {};
  options.group_layers = 3;
  EXPECT_EQ(code(options), absl::StatusCode::kInvalidArgument);
  options = {};
  options.chunk_tokens = 0;
  EXPECT_EQ(code(options), absl::StatusCode::kInvalidArgument);
  options = {};
  options.value_step_ratio = 0;
  EXPECT_EQ(code(options), absl::StatusCode::kInvalidArgument);
  options = {};
  options.sink_tokens = 100;
  EXPECT_EQ(code(options), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code({}, QueryRms(63, 1.0f)), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code({}, QueryRms(64, std::nanf(""))), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code({}, QueryRms(64, 0.0f)), absl::StatusCode::kOk);
  options = {};
  options.sensitivity.assign(127, 1.0f);
  EXPECT_EQ(code(options), absl::StatusCode::kInvalidArgument);
  options.sensitivity.assign(128, 0.0f);
  EXPECT_EQ(code(options), absl::StatusCode::kInvalidArgument);
  options.sensitivity[5] = std::nanf("");
  EXPECT_EQ(code(options), absl::StatusCode::kInvalidArgument);
  options.sensitivity[5] = 1e-20f;
  EXPECT_EQ(code(options), absl::StatusCode::kOk);
  TestKv bad = kv;
  bad.keys(1)[9 * 32] = 0x7c00;
  EXPECT_EQ(BuildProfile(geometry, std::vector<KvView>{bad.view()}, {}, {}).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(
      BuildProfile(geometry, std::vector<KvView>{kv.view().Slice(0, 3)}, {}, {}).status().code(),
      absl::StatusCode::kInvalidArgument);
}

TEST(CalibrationTest, QueryWeightsMakeTheKeysThatQueriesReadFiner) {
  const KvGeometry geometry = TestGeometry(1, 1, 16, KvDtype::kF16, Layout::kHalfSplit);
  QueryRms rms(16, 0.3f);
  for (const int channel : {2, 10}) rms[channel] = 3.0f;  // one RoPE pair
  const TestKv sample = MakeTestKv(geometry, 600, 4, 8);
  const std::vector<KvView> samples = {sample.view()};
  const auto error = [&](const QueryRms& weights, int channel) {
    const std::shared_ptr<const Profile> profile = *BuildProfile(geometry, samples, weights, {});
    const TestKv kv = MakeTestKv(geometry, 256, 4, 9);
    const EncodedChunk chunk = *(*ChunkEncoder::Create(profile))->Encode(kv.view(), 4);
    TestKv decoded(geometry, 256);
    EXPECT_TRUE(
        (*ChunkDecoder::Create(profile))->Decode(Views(chunk, 1), decoded.mutable_view()).ok());
    const std::vector<float> a = kv.Floats();
    const std::vector<float> b = decoded.Floats();
    double sum = 0;
    for (int t = 0; t < 256; ++t) {
      for (const int c : {channel, channel + 8}) sum += std::pow(a[t * 16 + c] - b[t * 16 + c], 2);
    }
    return sum;
  };
  EXPECT_LT(error(rms, 2), 0.5 * error({}, 2));
  EXPECT_GT(error(rms, 3), error({}, 3));
}

TEST(CalibrationTest, QueriesOfALatentWeighItsRotatedPartOnly) {
  const KvGeometry geometry = TestLatentGeometry(2, 12, 4, KvDtype::kF16);
  const TestKv sample = MakeTestKv(geometry, 600, 4, 8);
  const std::vector<KvView> samples = {sample.view()};
  QueryRms rms(2 * 16, 1.0f);
  for (int i = 0; i < 12; ++i) rms[16 + i] = 50;  // of the latent itself: no matter
  rms[16 + 12] = 4;                               // one channel of the first interleaved pair
  const std::shared_ptr<const Profile> plain = *BuildProfile(geometry, samples, {}, {});
  const std::shared_ptr<const Profile> weighted = *BuildProfile(geometry, samples, rms, {});
  // Mean squares of the pairs are 8.5 and 1, of the part 4.75.
  const double expected[4] = {std::sqrt(8.5 / 4.75), std::sqrt(8.5 / 4.75), std::sqrt(1 / 4.75),
                              std::sqrt(1 / 4.75)};
  for (int c = 0; c < 32; ++c) {
    const double ratio = plain->data().unit[c] / weighted->data().unit[c];
    EXPECT_NEAR(ratio, c >= 28 ? expected[c - 28] : 1, 1e-5) << c;
  }
  // Both parts have scales of their own.
  EXPECT_EQ(plain->data().unit[0], plain->data().unit[11]);
  EXPECT_EQ(plain->data().unit[12], plain->data().unit[15]);
  EXPECT_NE(plain->data().unit[0], plain->data().unit[12]);
  EXPECT_EQ(BuildProfile(geometry, samples, QueryRms(16, 1.0f), {}).status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST(CalibrationTest, SensitivityMovesErrorToWhereItDoesLittleHarm) {
  const KvGeometry geometry = TestGeometry(2, 1, 16, KvDtype::kF16, Layout::kHalfSplit);
  const TestKv sample = MakeTestKv(geometry, 600, 4, 8);
  const std::vector<KvView> samples = {sample.view()};
  const TestKv kv = MakeTestKv(geometry, 256, 4, 9);
  // Squared error per layer at the coarsest level.
  const auto errors = [&](const std::vector<float>& sensitivity) {
    CalibrationOptions options;
    options.sensitivity = sensitivity;
    const std::shared_ptr<const Profile> profile = *BuildProfile(geometry, samples, {}, options);
    const EncodedChunk chunk = *(*ChunkEncoder::Create(profile))->Encode(kv.view(), 4);
    TestKv decoded(geometry, 256);
    EXPECT_TRUE(
        (*ChunkDecoder::Create(profile))->Decode(Views(chunk, 1), decoded.mutable_view()).ok());
    const std::vector<float> a = kv.Floats();
    const std::vector<float> b = decoded.Floats();
    std::vector<double> sum(2, 0.0);
    for (size_t i = 0; i < a.size(); ++i) sum[i / (a.size() / 2)] += std::pow(a[i] - b[i], 2);
    return sum;
  };
  const std::vector<double> plain = errors({});
  std::vector<float> sensitivity(64, 1e-8f);
  std::fill(sensitivity.begin() + 32, sensitivity.end(), 1e-6f);
  const std::vector<double> moved = errors(sensitivity);
  EXPECT_GT(moved[0], 2 * plain[0]);
  EXPECT_LT(moved[1], plain[1]);
  // Only ratios count.
  for (float& value : sensitivity) value *= 1024;
  EXPECT_EQ(errors(sensitivity), moved);
  // The mean over a RoPE pair is what counts, so that it does not matter on which side of the
  // rotation it was measured.
  std::vector<float> turned(64, 1.0f);
  std::vector<float> upright(64, 1.0f);
  turned[3] = 9;
  turned[11] = 1;
  upright[3] = upright[11] = 5;
  EXPECT_EQ(errors(turned), errors(upright));
}

TEST(CalibrationTest, DescribesItsGroupsAndDropsCoordinatesThatAreAlwaysZero) {
  const KvGeometry geometry = TestGeometry(4, 1, 32);
  CalibrationOptions options;
  options.group_layers = 3;
  std::shared_ptr<const Profile> profile = MakeTestProfile(geometry, 4, options);
  EXPECT_EQ(profile->group_description(), "3 layers");
  ASSERT_EQ(profile->groups(), 2);
  EXPECT_EQ(profile->group_channels(0), 192);
  EXPECT_EQ(profile->group_channels(1), 64);
  options.steps = {4, 4.0 / 3};
  options.group = Group::kModel;
  profile = MakeTestProfile(geometry, 4, options);
  EXPECT_EQ(profile->group_description(), "model");
  ASSERT_EQ(profile->groups(), 1);
  EXPECT_LT(profile->group_rank(0), 100);
  EXPECT_EQ(profile->coordinates(), profile->group_rank(0));
  options.group = Group::kHead;
  profile = MakeTestProfile(geometry, 4, options);
  EXPECT_EQ(profile->group_description(), "head");
  EXPECT_EQ(profile->groups(), 8);
}

}  // namespace
}  // namespace kvstream

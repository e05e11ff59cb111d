#include "client/cli/query_rms.h"

#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "client/safetensors.h"
#include "codec/float16.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace kvstream::cli {
namespace {

using ::testing::ElementsAre;
using ::testing::FloatEq;
using ::testing::FloatNear;
using ::testing::HasSubstr;

KvGeometry Geometry() {
  KvGeometry geometry;
  geometry.layers = 1;
  geometry.kv_heads = 2;
  geometry.head_size = 2;
  return geometry;
}

// Writes one tensor of layer 0.
std::string Write(const std::string& name, TensorDtype dtype, std::vector<int64_t> shape,
                  const std::vector<float>& values) {
  std::string bytes;
  for (const float value : values) {
    if (dtype == TensorDtype::kF32) {
      bytes.append(reinterpret_cast<const char*>(&value), sizeof(value));
    } else {
      const uint16_t bits =
          dtype == TensorDtype::kF16 ? HalfFromFloat(value) : BfloatFromFloat(value);
      bytes.append(reinterpret_cast<const char*>(&bits), sizeof(bits));
    }
  }
  const std::string path = absl::StrCat(testing::TempDir(), "/queries.safetensors");
  const absl::Status written =
      WriteSafetensors(path, {{name, dtype, std::move(shape), {bytes}}}, {});
  EXPECT_TRUE(written.ok()) << written;
  return path;
}

std::string ErrorOf(const std::string& path) {
  const auto rms = ReadQueryRms(path, Geometry());
  EXPECT_EQ(rms.status().code(), absl::StatusCode::kInvalidArgument);
  return std::string(rms.status().message());
}

TEST(QueryRmsTest, TakesTheRootMeanSquareOverTokensAndTheHeadsOfAGroup) {
  // 2 tokens, 4 query heads: heads 0 and 1 read KV head 0, heads 2 and 3 read KV head 1.
  const std::vector<float> values = {1, 2, 3,  4, 5, 6,  7, 8,  //
                                     0, 1, -1, 0, 2, -2, 0, 4};
  for (const TensorDtype dtype : {TensorDtype::kF32, TensorDtype::kF16, TensorDtype::kBF16}) {
    const auto rms = ReadQueryRms(Write("layers.0.query", dtype, {2, 4, 2}, values), Geometry());
    ASSERT_TRUE(rms.ok()) << rms.status();
    EXPECT_THAT(*rms, ElementsAre(FloatEq(std::sqrt((1 + 9 + 0 + 1) / 4.0f)),
                                  FloatEq(std::sqrt((4 + 16 + 1 + 0) / 4.0f)),
                                  FloatEq(std::sqrt((25 + 49 + 4 + 0) / 4.0f)),
                                  FloatEq(std::sqrt((36 + 64 + 4 + 16) / 4.0f))));
  }
}

TEST(QueryRmsTest, ReadsRootMeanSquaresAsTheyAre) {
  const auto rms = ReadQueryRms(
      Write("layers.0.query_rms", TensorDtype::kF32, {2, 2}, {1, 2, 3, 4}), Geometry());
  ASSERT_TRUE(rms.ok()) << rms.status();
  EXPECT_THAT(*rms, ElementsAre(1, 2, 3, 4));
}

TEST(QueryRmsTest, NamesTheTensorThatIsWrong) {
  EXPECT_THAT(ErrorOf(Write("layers.1.query", TensorDtype::kF32, {1, 2, 2}, {1, 2, 3, 4})),
              HasSubstr("tensor layers.0.query is missing"));
  EXPECT_THAT(ErrorOf(Write("layers.0.query", TensorDtype::kF32, {1, 1, 4}, {1, 2, 3, 4})),
              HasSubstr("layers.0.query must have shape [tokens, a multiple of 2, 2]"));
  EXPECT_THAT(ErrorOf(Write("layers.0.query", TensorDtype::kF32, {0, 2, 2}, {})),
              HasSubstr("layers.0.query must have shape"));
  EXPECT_THAT(ErrorOf(Write("layers.0.query", TensorDtype::kU16, {1, 2, 2}, {1, 2, 3, 4})),
              HasSubstr("layers.0.query is U16"));
  EXPECT_THAT(ErrorOf(Write("layers.0.query", TensorDtype::kF32, {1, 2, 2}, {1, NAN, 3, 4})),
              HasSubstr("not finite"));
  EXPECT_THAT(ErrorOf(Write("layers.0.query_rms", TensorDtype::kF32, {4}, {1, 2, 3, 4})),
              HasSubstr("layers.0.query_rms must be F32 of shape [2, 2]"));
  EXPECT_THAT(ErrorOf(Write("layers.0.query_rms", TensorDtype::kF32, {2, 2}, {1, -2, 3, 4})),
              HasSubstr("negative"));
}

TEST(QueryRmsTest, AnInfiniteHalfIsNotFinite) {
  std::string bytes(8, '\0');
  const uint16_t infinity = 0x7c00;
  std::memcpy(bytes.data() + 2, &infinity, sizeof(infinity));
  const std::string path = absl::StrCat(testing::TempDir(), "/infinite.safetensors");
  ASSERT_TRUE(
      WriteSafetensors(path, {{"layers.0.query", TensorDtype::kF16, {1, 2, 2}, {bytes}}}, {}).ok());
  EXPECT_THAT(ErrorOf(path), HasSubstr("not finite"));
}

}  // namespace
}  // namespace kvstream::cli

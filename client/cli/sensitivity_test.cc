#include "client/cli/sensitivity.h"

#include <cmath>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "client/safetensors.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace kvstream::cli {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

// Reads a file of one layer's two tensors, with two heads of two channels.
absl::StatusOr<std::vector<float>> Read(const std::vector<float>& keys,
                                        const std::vector<float>& values,
                                        std::vector<int64_t> shape = {2, 2}, int layers = 1) {
  const auto bytes = [](const std::vector<float>& v) {
    return std::string(reinterpret_cast<const char*>(v.data()), v.size() * sizeof(float));
  };
  const std::string path = absl::StrCat(testing::TempDir(), "/sensitivity.safetensors");
  const absl::Status written =
      WriteSafetensors(path,
                       {{"layers.0.key_sensitivity", TensorDtype::kF32, shape, {bytes(keys)}},
                        {"layers.0.value_sensitivity", TensorDtype::kF32, shape, {bytes(values)}}},
                       {});
  EXPECT_TRUE(written.ok()) << written;
  KvGeometry geometry;
  geometry.layers = layers;
  geometry.kv_heads = 2;
  geometry.head_size = 2;
  return ReadSensitivity(path, geometry);
}

std::string ErrorOf(const absl::StatusOr<std::vector<float>>& read) {
  EXPECT_EQ(read.status().code(), absl::StatusCode::kInvalidArgument);
  return std::string(read.status().message());
}

TEST(SensitivityTest, ReadsKeysThenValuesOfEveryLayer) {
  const auto read = Read({1, 2, 3, 4}, {5, 6, 7, 0});
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_THAT(*read, ElementsAre(1, 2, 3, 4, 5, 6, 7, 0));
}

TEST(SensitivityTest, ReadsALatentsOwnTensor) {
  const std::vector<float> values = {4, 3, 2};
  const std::string path = absl::StrCat(testing::TempDir(), "/latent.safetensors");
  const absl::Status written =
      WriteSafetensors(path,
                       {{"layers.0.latent_sensitivity",
                         TensorDtype::kF32,
                         {1, 3},
                         {absl::string_view(reinterpret_cast<const char*>(values.data()), 12)}}},
                       {});
  ASSERT_TRUE(written.ok()) << written;
  KvGeometry geometry;
  geometry.layers = geometry.planes = geometry.kv_heads = 1;
  geometry.head_size = 3;
  const auto read = ReadSensitivity(path, geometry);
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(*read, values);
}

TEST(SensitivityTest, NamesTheTensorThatIsWrong) {
  EXPECT_THAT(ErrorOf(Read({1, 2, 3, 4}, {1, 2, 3, 4}, {2, 2}, 2)),
              HasSubstr("tensor layers.1.key_sensitivity is missing"));
  EXPECT_THAT(ErrorOf(Read({1, 2, 3, 4}, {1, 2, 3, 4}, {4, 1})),
              HasSubstr("tensor layers.0.key_sensitivity must be F32 of shape [2, 2]"));
  EXPECT_THAT(ErrorOf(Read({1, 2, 3, 4}, {1, 2, std::nanf(""), 4})),
              HasSubstr("tensor layers.0.value_sensitivity holds values"));
  EXPECT_THAT(ErrorOf(Read({1, -2, 3, 4}, {1, 2, 3, 4})),
              HasSubstr("tensor layers.0.key_sensitivity holds values"));
}

}  // namespace
}  // namespace kvstream::cli

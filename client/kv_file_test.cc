#include "client/kv_file.h"

#include <cstring>
#include <numeric>
#include <string>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace kvstream {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::string TempPath(const std::string& name) {
  return absl::StrCat(testing::TempDir(), "/", name);
}

KvGeometry Geometry() {
  KvGeometry geometry;
  geometry.layers = 2;
  geometry.kv_heads = 3;
  geometry.head_size = 4;
  geometry.dtype = KvDtype::kF16;
  return geometry;
}

// Every value distinct.
KvBuffer Filled(const KvGeometry& geometry, int64_t tokens) {
  auto buffer = KvBuffer::Create(geometry, tokens);
  EXPECT_TRUE(buffer.ok()) << buffer.status();
  uint16_t next = 1;
  for (int layer = 0; layer < geometry.layers; ++layer) {
    for (const auto* tensors : {&buffer->view().keys, &buffer->view().values}) {
      for (int64_t token = 0; token < tokens; ++token) {
        for (int head = 0; head < geometry.kv_heads; ++head) {
          for (int channel = 0; channel < geometry.head_size; ++channel) {
            (*tensors)[layer].at(token, head)[channel] = next++;
          }
        }
      }
    }
  }
  return *std::move(buffer);
}

std::string ErrorOf(const std::string& path, const KvGeometry& geometry) {
  const auto file = KvFile::Open(path, geometry);
  EXPECT_EQ(file.status().code(), absl::StatusCode::kInvalidArgument);
  return std::string(file.status().message());
}

TEST(KvFileTest, ReadsBackWhatItWrote) {
  const KvGeometry geometry = Geometry();
  const KvBuffer buffer = Filled(geometry, 5);
  const std::string path = TempPath("kv.safetensors");
  const std::vector<int32_t> tokens = {7, 8, -9, 10, 11};
  ASSERT_TRUE(WriteKvFile(path, geometry, buffer.const_view(), tokens).ok());
  const auto file = KvFile::Open(path, geometry);
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ((*file)->kv().tokens, 5);
  EXPECT_THAT((*file)->tokens(), ElementsAre(7, 8, -9, 10, 11));
  for (int layer = 0; layer < 2; ++layer) {
    EXPECT_EQ(std::memcmp((*file)->kv().keys[layer].at(0, 0), buffer.view().keys[layer].at(0, 0),
                          5 * 12 * 2),
              0);
    EXPECT_EQ(*(*file)->kv().values[layer].at(4, 2), *buffer.view().values[layer].at(4, 2));
  }
  const auto ids = ReadTokens(path);
  ASSERT_TRUE(ids.ok()) << ids.status();
  EXPECT_EQ(ids->size(), 5);
  EXPECT_EQ(*KvFileDtype(path), KvDtype::kF16);
}

TEST(KvFileTest, LatentsHaveOneTensorALayer) {
  KvGeometry geometry = Geometry();
  geometry.planes = 1;
  geometry.kv_heads = 1;
  auto buffer = KvBuffer::Create(geometry, 5);
  ASSERT_TRUE(buffer.ok());
  EXPECT_TRUE(buffer->view().values.empty());
  for (int i = 0; i < 20; ++i) buffer->view().keys[1].data[i] = static_cast<uint16_t>(i + 1);
  const std::string path = TempPath("latent.safetensors");
  ASSERT_TRUE(WriteKvFile(path, geometry, buffer->const_view(), {}).ok());
  const auto raw = SafetensorsFile::Open(path);
  ASSERT_TRUE(raw.ok()) << raw.status();
  ASSERT_NE((*raw)->Find("layers.1.latent"), nullptr);
  EXPECT_THAT((*raw)->Find("layers.1.latent")->shape, ElementsAre(5, 1, 4));
  EXPECT_EQ(*KvFileDtype(path), KvDtype::kF16);
  const auto file = KvFile::Open(path, geometry);
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_TRUE((*file)->kv().values.empty());
  EXPECT_EQ(*(*file)->kv().keys[1].at(4, 0), 17);
  auto copy = KvBuffer::Create(geometry, 5);
  CopyKv(geometry, (*file)->kv(), copy->view(), 0, 5);
  EXPECT_EQ(*copy->view().keys[1].at(4, 0), 17);

  KvGeometry two = geometry;
  two.planes = 2;
  EXPECT_THAT(ErrorOf(path, two), HasSubstr("tensor layers.0.key is missing"));
  EXPECT_FALSE(WriteKvFile(path, two, buffer->const_view(), {}).ok());
}

TEST(KvFileTest, WritesASliceOfTokens) {
  const KvGeometry geometry = Geometry();
  const KvBuffer buffer = Filled(geometry, 5);
  const std::string path = TempPath("slice.safetensors");
  ASSERT_TRUE(WriteKvFile(path, geometry, buffer.const_view().Slice(1, 2), {}).ok());
  const auto file = KvFile::Open(path, geometry);
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ((*file)->kv().tokens, 2);
  EXPECT_FALSE((*file)->has_tokens());
  EXPECT_EQ(*(*file)->kv().keys[1].at(0, 0), *buffer.view().keys[1].at(1, 0));
  EXPECT_THAT(std::string(ReadTokens(path).status().message()),
              HasSubstr("tensor tokens is missing"));
}

TEST(KvFileTest, NamesTheTensorThatDoesNotFitTheModel) {
  const KvGeometry geometry = Geometry();
  const std::string path = TempPath("misfit.safetensors");
  ASSERT_TRUE(WriteKvFile(path, geometry, Filled(geometry, 2).const_view(), {}).ok());
  KvGeometry other = geometry;
  other.layers = 3;
  EXPECT_THAT(ErrorOf(path, other),
              HasSubstr("misfit.safetensors: tensor layers.2.key is missing"));
  other.layers = 1;
  EXPECT_THAT(ErrorOf(path, other), HasSubstr("tensor layers.1.key is one too many"));
  other = geometry;
  other.kv_heads = 6;
  EXPECT_THAT(ErrorOf(path, other),
              HasSubstr("layers.0.key has shape [2, 3, 4], must be [2, 6, 4]"));
  other = geometry;
  other.dtype = KvDtype::kBF16;
  EXPECT_THAT(ErrorOf(path, other), HasSubstr("layers.0.key is F16, must be BF16"));
}

class RawFileTest : public testing::Test {
 protected:
  // One layer of [2, 1, 1] and what else is given.
  std::string Write(std::vector<TensorToWrite> more, int64_t value_tokens = 2) {
    std::vector<TensorToWrite> tensors = {
        {"layers.0.key", TensorDtype::kF16, {2, 1, 1}, {"abcd"}},
        {"layers.0.value",
         TensorDtype::kF16,
         {value_tokens, 1, 1},
         {absl::string_view("efghij", static_cast<size_t>(value_tokens) * 2)}}};
    for (TensorToWrite& tensor : more) tensors.insert(tensors.begin(), std::move(tensor));
    const std::string path = TempPath("raw.safetensors");
    const absl::Status written = WriteSafetensors(path, tensors, {});
    EXPECT_TRUE(written.ok()) << written;
    return path;
  }
  static KvGeometry Small() {
    KvGeometry geometry = Geometry();
    geometry.layers = geometry.kv_heads = geometry.head_size = 1;
    return geometry;
  }
};

TEST_F(RawFileTest, KeysAndValuesMustHaveEquallyManyTokens) {
  EXPECT_THAT(ErrorOf(Write({}, 3), Small()),
              HasSubstr("layers.0.value has shape [3, 1, 1], must be [2, 1, 1]"));
}

TEST_F(RawFileTest, RefusesOddOffsets) {
  EXPECT_THAT(ErrorOf(Write({{"pad", TensorDtype::kU8, {1}, {"p"}}}), Small()),
              HasSubstr("layers.0.key begins at an odd offset"));
}

TEST_F(RawFileTest, ReadsTokensOf64Bits) {
  const int64_t ids[2] = {5, 2147483647};
  const absl::string_view bytes(reinterpret_cast<const char*>(ids), sizeof(ids));
  const auto file = KvFile::Open(Write({{"tokens", TensorDtype::kI64, {2}, {bytes}}}), Small());
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_THAT((*file)->tokens(), ElementsAre(5, 2147483647));
}

TEST_F(RawFileTest, RefusesTokensThatDoNotFit) {
  const int64_t ids[2] = {5, int64_t{1} << 31};
  const absl::string_view bytes(reinterpret_cast<const char*>(ids), sizeof(ids));
  EXPECT_THAT(ErrorOf(Write({{"tokens", TensorDtype::kI64, {2}, {bytes}}}), Small()),
              HasSubstr("tensor tokens holds an id beyond 32 bits at index 1"));
  EXPECT_THAT(ErrorOf(Write({{"tokens", TensorDtype::kI32, {4}, {bytes}}}), Small()),
              HasSubstr("tensor tokens has 4 ids, but the KV has 2 tokens"));
  EXPECT_THAT(ErrorOf(Write({{"tokens", TensorDtype::kF32, {4}, {bytes}}}), Small()),
              HasSubstr("tensor tokens is F32 of shape [4], must be I32 or I64"));
  EXPECT_THAT(ErrorOf(Write({{"tokens", TensorDtype::kI32, {2, 2}, {bytes}}}), Small()),
              HasSubstr("tensor tokens"));
}

TEST(KvBufferTest, RefusesMoreThanThereIs) {
  KvGeometry geometry = Geometry();
  geometry.layers = geometry.kv_heads = geometry.head_size = 1024;
  EXPECT_EQ(KvBuffer::Create(geometry, int64_t{1} << 40).status().code(),
            absl::StatusCode::kResourceExhausted);
}

TEST(KvBufferTest, CopiesOnlyTheTokensAskedFor) {
  const KvGeometry geometry = Geometry();
  const KvBuffer from = Filled(geometry, 5);
  auto to = KvBuffer::Create(geometry, 5);
  ASSERT_TRUE(to.ok());
  CopyKv(geometry, from.const_view(), to->view(), 2, 2);
  for (int64_t token = 0; token < 5; ++token) {
    const uint16_t expected = token == 2 || token == 3 ? *from.view().values[1].at(token, 2) : 0;
    EXPECT_EQ(*to->view().values[1].at(token, 2), expected) << token;
  }
}

}  // namespace
}  // namespace kvstream

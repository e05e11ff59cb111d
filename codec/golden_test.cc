// Bytes that format version 1 wrote once must stay readable, mean the same KV, and be what the
// encoder writes.
//
// testdata/vN_NAME.kvprofile is a profile of version N, .kvs the encoded context, .input the KV
// that it was encoded from and .kv the KV that it decodes to at the finest level, as uint16 in the
// order [layer][plane][token][head][channel]. The calibrated input lies in the middle of its cells,
// so that no machine's rounding moves it. A new format version gets files of its own, and these
// stay. To write those of the version that this build writes: KVSTREAM_WRITE_GOLDEN=codec/testdata
// bazel-bin/codec/golden_test --gtest_filter='Version2*'
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "absl/strings/escaping.h"
#include "codec/calibration.h"
#include "codec/chunk_file.h"
#include "codec/decoder.h"
#include "codec/encoder.h"
#include "codec/float16.h"
#include "codec/test_kv.h"
#include "gtest/gtest.h"

namespace kvstream {
namespace {

constexpr int kTokens = 40;
constexpr int kChunkTokens = 32;

struct Golden {
  const char* name;  // with the version
  bool calibrated;
  int planes;
  const char* profile_id;  // hexadecimal
};

std::string ReadFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  EXPECT_TRUE(file.good()) << path;
  return std::string(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>());
}

TestKv Decode(const std::shared_ptr<const Profile>& profile, const ChunkFileView& file, int level) {
  TestKv out(profile->geometry(), file.tokens.size());
  auto decoder = *ChunkDecoder::Create(profile);
  for (size_t chunk = 0; chunk < file.chunks.size(); ++chunk) {
    const int64_t first = static_cast<int64_t>(chunk) * file.chunk_tokens;
    const int64_t count = std::min<int64_t>(file.chunk_tokens, file.tokens.size() - first);
    const absl::Status status =
        decoder->Decode(absl::MakeConstSpan(file.chunks[chunk]).first(level + 1),
                        out.mutable_view().Slice(first, count));
    EXPECT_TRUE(status.ok()) << status;
  }
  return out;
}

std::string Encode(const std::shared_ptr<const Profile>& profile, const TestKv& kv,
                   const std::vector<int32_t>& tokens) {
  auto encoder = *ChunkEncoder::Create(profile);
  std::vector<EncodedChunk> chunks;
  for (int64_t first = 0; first < static_cast<int64_t>(tokens.size());
       first += profile->chunk_tokens()) {
    const int64_t count = std::min<int64_t>(profile->chunk_tokens(), tokens.size() - first);
    chunks.push_back(*encoder->Encode(kv.view().Slice(first, count), first));
  }
  return *WriteChunkFile(*profile, tokens, chunks);
}

std::string Bytes(const TestKv& kv) {
  std::string out;
  for (const std::vector<uint16_t>& tensor : kv.tensors())
    out.append(reinterpret_cast<const char*>(tensor.data()), tensor.size() * 2);
  return out;
}

void Write(const Golden& golden, const std::string& directory) {
  const KvDtype dtype = golden.calibrated ? KvDtype::kF16 : KvDtype::kBF16;
  const KvGeometry geometry =
      golden.planes == 2 ? TestGeometry(2, 1, 8, dtype) : TestLatentGeometry(2, 12, 4, dtype);
  CalibrationOptions options;
  options.chunk_tokens = kChunkTokens;
  options.group = CalibrationOptions::Group::kModel;
  options.steps = {0.9, 0.3, 0.1};
  const std::shared_ptr<const Profile> profile = golden.calibrated
                                                     ? MakeTestProfile(geometry, 6, options)
                                                     : *BuildProfile(geometry, {}, {}, options);
  std::vector<int32_t> tokens;
  for (int i = 0; i < kTokens; ++i) tokens.push_back(100 + i * i);
  TestKv input = MakeTestKv(geometry, kTokens, 6, 7);
  // Not without calibration, where the cells themselves follow the input.
  if (golden.calibrated) {
    input = Decode(profile, *ParseChunkFile(Encode(profile, input, tokens)), 2);
  }
  const std::string base = directory + "/" + golden.name;
  const std::string kvs = Encode(profile, input, tokens);
  std::ofstream(base + ".kvprofile", std::ios::binary) << profile->serialized();
  std::ofstream(base + ".kvs", std::ios::binary) << kvs;
  std::ofstream(base + ".input", std::ios::binary) << Bytes(input);
  std::ofstream(base + ".kv", std::ios::binary) << Bytes(Decode(profile, *ParseChunkFile(kvs), 2));
}

class GoldenTest : public testing::TestWithParam<Golden> {
 protected:
  void SetUp() override {
    const char* const directory = std::getenv("KVSTREAM_WRITE_GOLDEN");
    if (directory != nullptr) Write(GetParam(), directory);
    const std::string base = std::string("codec/testdata/") + GetParam().name;
    absl::StatusOr<std::shared_ptr<const Profile>> profile =
        Profile::Parse(ReadFile(base + ".kvprofile"));
    ASSERT_TRUE(profile.ok()) << profile.status();
    profile_ = *profile;
    kvs_ = ReadFile(base + ".kvs");
    kv_ = ReadFile(base + ".kv");
    input_ = ReadFile(base + ".input");
    ASSERT_EQ(input_.size(), kv_.size());
  }

  std::shared_ptr<const Profile> profile_;
  std::string kvs_;
  std::string kv_;
  std::string input_;
};

TEST_P(GoldenTest, ProfileKeepsItsId) {
  const ProfileId& id = profile_->id();
  EXPECT_EQ(absl::BytesToHexString(std::string(id.begin(), id.end())), GetParam().profile_id);
  EXPECT_EQ(profile_->levels(), 3);
  EXPECT_EQ(profile_->calibrated(), GetParam().calibrated);
  EXPECT_EQ(profile_->geometry().planes, GetParam().planes);
  EXPECT_EQ(profile_->geometry().rope.rotary_offset, GetParam().planes == 2 ? 0 : 12);
}

TEST_P(GoldenTest, DecodesToTheStoredKv) {
  const absl::StatusOr<ChunkFileView> file = ParseChunkFile(kvs_);
  ASSERT_TRUE(file.ok()) << file.status();
  ASSERT_EQ(file->tokens.size(), static_cast<size_t>(kTokens));
  EXPECT_EQ(file->tokens[9], 181);
  const TestKv decoded = Decode(profile_, *file, 2);
  const std::string bytes = Bytes(decoded);
  ASSERT_EQ(bytes.size(), kv_.size());
  const KvDtype dtype = profile_->geometry().dtype;
  const float resolution = dtype == KvDtype::kF16 ? 0x1p-10f : 0x1p-7f;
  for (size_t i = 0; i < bytes.size(); i += 2) {
    uint16_t now;
    uint16_t then;
    std::memcpy(&now, &bytes[i], 2);
    std::memcpy(&then, &kv_[i], 2);
    const float expected = FloatFrom16(then, dtype);
    // One unit in the last place: sums are not in the same order on every machine.
    ASSERT_NEAR(FloatFrom16(now, dtype), expected, std::abs(expected) * resolution + 1e-5f)
        << i / 2;
  }
}

TEST_P(GoldenTest, EncodesToTheStoredBytes) {
  TestKv kv(profile_->geometry(), kTokens);
  size_t at = 0;
  for (int layer = 0; layer < profile_->geometry().layers; ++layer) {
    for (int plane = 0; plane < profile_->geometry().planes; ++plane) {
      std::vector<uint16_t>& tensor = plane == 0 ? kv.keys(layer) : kv.values(layer);
      std::memcpy(tensor.data(), &input_[at], tensor.size() * 2);
      at += tensor.size() * 2;
    }
  }
  EXPECT_TRUE(Encode(profile_, kv, ParseChunkFile(kvs_)->tokens) == kvs_);
}

TEST_P(GoldenTest, CoarserLevelsComeCloserWithEachSegment) {
  const ChunkFileView file = *ParseChunkFile(kvs_);
  const std::vector<float> finest = Decode(profile_, file, 2).Floats();
  double last = 1e9;
  for (int level = 0; level < 3; ++level) {
    const std::vector<float> floats = Decode(profile_, file, level).Floats();
    double error = 0;
    for (size_t i = 0; i < floats.size(); ++i) error += std::pow(floats[i] - finest[i], 2);
    EXPECT_LT(error, 0.6 * last);
    last = error;
  }
}

std::string NameOf(const testing::TestParamInfo<Golden>& info) { return info.param.name; }

INSTANTIATE_TEST_SUITE_P(
    Version1, GoldenTest,
    testing::Values(Golden{"v1_klt", true, 2,
                           "0b9423779955c1f68cd524f3e9455ce1fa37c9556b7abb88a8a2f55dc094a6db"},
                    Golden{"v1_identity", false, 2,
                           "04e44bfa4a3dc159d0421512da01ac7d8fa423416f7e1b25311569581d18c08c"}),
    NameOf);

INSTANTIATE_TEST_SUITE_P(
    Version2, GoldenTest,
    testing::Values(Golden{"v2_klt", true, 2,
                           "d18507260fa634b91433922800e2b1ad52a5f20533443e50723664d546592094"},
                    Golden{"v2_latent", true, 1,
                           "0eb6dfc22b9725d4499b7c99bc5d1d5cc6b4dadbb35251aeac4642d41cd5622a"},
                    Golden{"v2_latent_identity", false, 1,
                           "412fd06e55ada67efb015da30668c8fdbcf6546ca1fd363872c9fb67f35fec8e"}),
    NameOf);

}  // namespace
}  // namespace kvstream

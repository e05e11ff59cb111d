#include "codec/chunk_file.h"

#include <numeric>
#include <string>
#include <vector>

#include "codec/byte_io.h"
#include "codec/decoder.h"
#include "codec/format.h"
#include "codec/segment.h"
#include "codec/test_kv.h"
#include "gtest/gtest.h"

namespace kvstream {
namespace {

class ChunkFileTest : public testing::Test {
 protected:
  ChunkFileTest() {
    CalibrationOptions options;
    options.chunk_tokens = 16;
    options.steps = {1.2, 0.4};
    const KvGeometry geometry = TestGeometry(1, 1, 8);
    profile_ = MakeTestProfile(geometry, 4, options);
    const TestKv kv = MakeTestKv(geometry, 40, 4, 8);
    tokens_.resize(40);
    std::iota(tokens_.begin(), tokens_.end(), -3);
    auto encoder = *ChunkEncoder::Create(profile_);
    for (int first = 0; first < 40; first += 16) {
      chunks_.push_back(*encoder->Encode(kv.view().Slice(first, std::min(16, 40 - first)), first));
    }
    bytes_ = *WriteChunkFile(*profile_, tokens_, chunks_);
  }

  template <typename T>
  absl::StatusCode CodeWith(size_t at, T value) {
    std::string bytes = bytes_;
    StoreLe(value, &bytes[at]);
    Reseal(&bytes);
    return ParseChunkFile(bytes).status().code();
  }

  static constexpr absl::StatusCode kInvalid = absl::StatusCode::kInvalidArgument;
  static constexpr absl::StatusCode kLoss = absl::StatusCode::kDataLoss;
  std::shared_ptr<const Profile> profile_;
  std::vector<int32_t> tokens_;
  std::vector<EncodedChunk> chunks_;
  std::string bytes_;
};

TEST_F(ChunkFileTest, ParsesBackToTheSame) {
  const absl::StatusOr<ChunkFileView> view = ParseChunkFile(bytes_);
  ASSERT_TRUE(view.ok()) << view.status();
  EXPECT_EQ(view->profile_id, profile_->id());
  EXPECT_EQ(view->levels, 2);
  EXPECT_EQ(view->chunk_tokens, 16);
  EXPECT_EQ(view->tokens, tokens_);
  ASSERT_EQ(view->chunks.size(), 3u);
  for (int chunk = 0; chunk < 3; ++chunk) {
    for (int level = 0; level < 2; ++level)
      EXPECT_EQ(view->chunks[chunk][level], chunks_[chunk].segments[level]);
  }
}

TEST_F(ChunkFileTest, RefusesChunksThatDoNotFitTheTokens) {
  std::vector<EncodedChunk> two(chunks_.begin(), chunks_.begin() + 2);
  EXPECT_EQ(WriteChunkFile(*profile_, tokens_, two).status().code(), kInvalid);
  EXPECT_EQ(WriteChunkFile(*profile_, {}, {}).status().code(), kInvalid);
  std::vector<EncodedChunk> short_level = chunks_;
  short_level[1].segments.pop_back();
  EXPECT_EQ(WriteChunkFile(*profile_, tokens_, short_level).status().code(), kInvalid);
}

TEST_F(ChunkFileTest, RejectsEveryTruncation) {
  for (size_t size = 0; size < bytes_.size(); ++size) {
    ASSERT_EQ(ParseChunkFile(absl::string_view(bytes_).substr(0, size)).status().code(), kLoss)
        << size;
  }
}

TEST_F(ChunkFileTest, RejectsTrailingBytes) {
  EXPECT_EQ(ParseChunkFile(bytes_ + "x").status().code(), kLoss);
}

TEST_F(ChunkFileTest, RejectsEverySingleBitFlip) {
  for (size_t bit = 0; bit < bytes_.size() * 8; ++bit) {
    std::string bytes = bytes_;
    bytes[bit / 8] ^= static_cast<char>(1 << bit % 8);
    ASSERT_FALSE(ParseChunkFile(bytes).ok()) << bit;
  }
}

TEST_F(ChunkFileTest, RejectsFieldsOutOfRange) {
  EXPECT_EQ(CodeWith<uint32_t>(0, 1), kInvalid);
  EXPECT_EQ(CodeWith<uint16_t>(4, kFormatVersion + 1), kInvalid);
  EXPECT_EQ(CodeWith<uint16_t>(6, 0), kInvalid);
  EXPECT_EQ(CodeWith<uint16_t>(6, 9), kInvalid);
  EXPECT_EQ(CodeWith<uint64_t>(8, 1), kLoss);
  EXPECT_EQ(CodeWith<uint64_t>(48, 0), kInvalid);
  EXPECT_EQ(CodeWith<uint64_t>(48, 41), kInvalid);
  EXPECT_EQ(CodeWith<uint64_t>(48, uint64_t{1} << 30), kInvalid);
  EXPECT_EQ(CodeWith<uint64_t>(48, ~uint64_t{0}), kInvalid);
  EXPECT_EQ(CodeWith<uint32_t>(56, 0), kInvalid);
  EXPECT_EQ(CodeWith<uint32_t>(56, 8), kInvalid);
  EXPECT_EQ(CodeWith<uint32_t>(56, 0xffffffff), kInvalid);
  EXPECT_EQ(CodeWith<uint32_t>(60, 1), kInvalid);
  const size_t sizes_at = 64 + 40 * 4;
  EXPECT_EQ(CodeWith<uint64_t>(sizes_at, 0), kInvalid);
  EXPECT_EQ(CodeWith<uint64_t>(sizes_at, ~uint64_t{0}), kInvalid);
}

}  // namespace
}  // namespace kvstream

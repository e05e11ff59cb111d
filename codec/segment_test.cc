#include "codec/segment.h"

#include <string>
#include <vector>

#include "codec/byte_io.h"
#include "codec/decoder.h"
#include "codec/encoder.h"
#include "codec/format.h"
#include "codec/test_kv.h"
#include "gtest/gtest.h"

namespace kvstream {
namespace {

// Offsets of the header's fields, docs/format.md.
constexpr size_t kVersionAt = 4;
constexpr size_t kLevelAt = 6;
constexpr size_t kFlagsAt = 7;
constexpr size_t kProfileAt = 8;
constexpr size_t kPositionAt = 24;
constexpr size_t kTokensAt = 32;
constexpr size_t kSinksAt = 36;
constexpr size_t kBaseChecksumAt = 40;
constexpr size_t kStatisticsAt = 48;
constexpr size_t kSinkBytesAt = 52;
constexpr size_t kOverrideAt = 56;
constexpr size_t kExceptionsAt = 60;
constexpr size_t kBlocksAt = 64;
constexpr size_t kPayloadAt = 68;

class SegmentTest : public testing::Test {
 protected:
  SegmentTest()
      : chunk_(*(*ChunkEncoder::Create(profile_))->Encode(kv_.view(), 2)),
        segment_(chunk_.segments[0]) {}

  // Code after changing a field and mending the checksum.
  template <typename T>
  absl::StatusCode CodeWith(size_t at, T value) {
    std::string bytes = segment_;
    StoreLe(value, &bytes[at]);
    Reseal(&bytes);
    return ValidateSegment(*profile_, bytes).status().code();
  }
  absl::Status Decode(const std::vector<std::string>& segments) {
    TestKv out(geometry_, 20);
    return (*ChunkDecoder::Create(profile_))
        ->Decode(std::vector<absl::string_view>(segments.begin(), segments.end()),
                 out.mutable_view());
  }

  static constexpr absl::StatusCode kInvalid = absl::StatusCode::kInvalidArgument;
  static constexpr absl::StatusCode kLoss = absl::StatusCode::kDataLoss;
  const KvGeometry geometry_ = TestGeometry(1, 1, 16);
  const std::shared_ptr<const Profile> profile_ = MakeTestProfile(geometry_, 4);
  const TestKv kv_ = MakeTestKv(geometry_, 20, 4, 8);
  const EncodedChunk chunk_;
  const std::string segment_;
};

TEST_F(SegmentTest, TellsLevelTokensAndPosition) {
  for (int level = 0; level < 4; ++level) {
    const absl::StatusOr<SegmentInfo> info = ValidateSegment(*profile_, chunk_.segments[level]);
    ASSERT_TRUE(info.ok()) << info.status();
    EXPECT_EQ(info->level, level);
    EXPECT_EQ(info->tokens, 20);
    EXPECT_EQ(info->first_position, 2);
  }
}

TEST_F(SegmentTest, RejectsEveryTruncation) {
  for (const std::string& segment : chunk_.segments) {
    for (size_t size = 0; size < segment.size(); ++size) {
      ASSERT_EQ(
          ValidateSegment(*profile_, absl::string_view(segment).substr(0, size)).status().code(),
          kLoss)
          << size;
    }
  }
}

TEST_F(SegmentTest, RejectsTrailingBytes) {
  EXPECT_EQ(ValidateSegment(*profile_, segment_ + "x").status().code(), kLoss);
}

TEST_F(SegmentTest, RejectsEverySingleBitFlip) {
  for (const std::string& segment : chunk_.segments) {
    for (size_t bit = 0; bit < segment.size() * 8; ++bit) {
      std::string bytes = segment;
      bytes[bit / 8] ^= static_cast<char>(1 << bit % 8);
      ASSERT_FALSE(ValidateSegment(*profile_, bytes).ok()) << "bit " << bit;
    }
  }
}

TEST_F(SegmentTest, RejectsWrongMagic) { EXPECT_EQ(CodeWith<uint32_t>(0, 0x12345678), kInvalid); }
TEST_F(SegmentTest, RejectsAnotherVersion) {
  EXPECT_EQ(CodeWith<uint16_t>(kVersionAt, kFormatVersion + 1), kInvalid);
}
TEST_F(SegmentTest, RejectsALevelBeyondTheProfile) {
  EXPECT_EQ(CodeWith<uint8_t>(kLevelAt, 4), kInvalid);
  EXPECT_EQ(CodeWith<uint8_t>(kLevelAt, 255), kInvalid);
}
TEST_F(SegmentTest, RejectsUnknownFlags) { EXPECT_EQ(CodeWith<uint8_t>(kFlagsAt, 0x80), kInvalid); }
TEST_F(SegmentTest, RejectsStatisticsThatTheProfileDoesNotWant) {
  EXPECT_EQ(CodeWith<uint8_t>(kFlagsAt, segment_[kFlagsAt] | kSegmentHasStatistics), kInvalid);
}
TEST_F(SegmentTest, RejectsAnOverrideFlagThatContradictsItsSize) {
  EXPECT_EQ(CodeWith<uint8_t>(kFlagsAt, segment_[kFlagsAt] ^ kSegmentHasOverride), kInvalid);
}
TEST_F(SegmentTest, RejectsAnotherProfile) {
  EXPECT_EQ(CodeWith<uint8_t>(kProfileAt + 15, segment_[kProfileAt + 15] ^ 1),
            absl::StatusCode::kFailedPrecondition);
}
TEST_F(SegmentTest, RejectsAPositionOutOfRange) {
  EXPECT_EQ(CodeWith<uint64_t>(kPositionAt, (uint64_t{1} << 40) + 1), kInvalid);
  EXPECT_EQ(CodeWith<uint64_t>(kPositionAt, ~uint64_t{0}), kInvalid);
}
TEST_F(SegmentTest, RejectsTokensOutOfRange) {
  EXPECT_EQ(CodeWith<uint32_t>(kTokensAt, 0), kInvalid);
  EXPECT_EQ(CodeWith<uint32_t>(kTokensAt, 257), kInvalid);
  EXPECT_EQ(CodeWith<uint32_t>(kTokensAt, 0xffffffff), kInvalid);
}
TEST_F(SegmentTest, RejectsSinksThatThePositionDoesNotGive) {
  EXPECT_EQ(CodeWith<uint32_t>(kSinksAt, 1), kInvalid);
  EXPECT_EQ(CodeWith<uint64_t>(kPositionAt, 0), kInvalid);
}
TEST_F(SegmentTest, RejectsABaseChecksumAtLevelZero) {
  EXPECT_EQ(CodeWith<uint64_t>(kBaseChecksumAt, 1), kInvalid);
}
TEST_F(SegmentTest, RejectsEverySizeThatDoesNotAddUp) {
  for (const size_t at :
       {kStatisticsAt, kSinkBytesAt, kOverrideAt, kExceptionsAt, kBlocksAt, kPayloadAt}) {
    EXPECT_EQ(CodeWith<uint32_t>(at, LoadLe<uint32_t>(segment_.data() + at) + 1), kLoss) << at;
    EXPECT_EQ(CodeWith<uint32_t>(at, 0xffffffff), kLoss) << at;
  }
}
TEST_F(SegmentTest, RejectsSizesThatAddUpButShiftTheSections) {
  std::string bytes = segment_;
  StoreLe<uint32_t>(LoadLe<uint32_t>(&bytes[kExceptionsAt]) + 1, &bytes[kExceptionsAt]);
  StoreLe<uint32_t>(LoadLe<uint32_t>(&bytes[kPayloadAt]) - 1, &bytes[kPayloadAt]);
  Reseal(&bytes);
  EXPECT_FALSE(ValidateSegment(*profile_, bytes).ok());
  bytes = segment_;
  StoreLe<uint32_t>(LoadLe<uint32_t>(&bytes[kSinkBytesAt]) + 1, &bytes[kSinkBytesAt]);
  StoreLe<uint32_t>(LoadLe<uint32_t>(&bytes[kPayloadAt]) - 1, &bytes[kPayloadAt]);
  Reseal(&bytes);
  EXPECT_FALSE(Decode({bytes}).ok());
}
TEST_F(SegmentTest, RejectsBlocksThatDoNotFillThePayload) {
  const absl::StatusOr<SegmentView> view = ParseSegment(profile_->data(), segment_);
  ASSERT_TRUE(view.ok());
  const size_t table =
      view->payload.data() - segment_.data() - view->blocks.size() * kBlockEntryBytes;
  EXPECT_EQ(CodeWith<uint32_t>(table, 0), kInvalid);
  EXPECT_EQ(CodeWith<uint32_t>(table, 0x7fffffff), kInvalid);
  EXPECT_EQ(CodeWith<uint32_t>(table + 4, view->blocks[0].bytes + 1), kInvalid);
}

TEST_F(SegmentTest, DecoderRejectsSegmentsOutOfOrder) {
  EXPECT_TRUE(Decode(chunk_.segments).ok());
  EXPECT_EQ(Decode({}).code(), kInvalid);
  EXPECT_EQ(Decode({chunk_.segments[1]}).code(), kInvalid);
  EXPECT_EQ(Decode({chunk_.segments[0], chunk_.segments[2]}).code(), kInvalid);
  EXPECT_EQ(Decode({chunk_.segments[0], chunk_.segments[0]}).code(), kInvalid);
  std::vector<std::string> five = chunk_.segments;
  five.push_back(five[3]);
  EXPECT_EQ(Decode(five).code(), kInvalid);
}

TEST_F(SegmentTest, DecoderRejectsARefinementOfAnotherChunk) {
  const TestKv other = MakeTestKv(geometry_, 20, 4, 9);
  const EncodedChunk chunk = *(*ChunkEncoder::Create(profile_))->Encode(other.view(), 2);
  EXPECT_EQ(Decode({chunk_.segments[0], chunk.segments[1]}).code(), kInvalid);
}

TEST_F(SegmentTest, DecoderRejectsAnOutputOfAnotherShape) {
  auto decoder = *ChunkDecoder::Create(profile_);
  const std::vector<absl::string_view> segments = {segment_};
  TestKv shorter(geometry_, 19);
  EXPECT_EQ(decoder->Decode(segments, shorter.mutable_view()).code(), kInvalid);
  TestKv fits(geometry_, 20);
  MutableKvView no_layers = fits.mutable_view();
  no_layers.keys.clear();
  EXPECT_EQ(decoder->Decode(segments, no_layers).code(), kInvalid);
}

// Damage that a checksum cannot see: an error or finite KV, never a crash.
TEST_F(SegmentTest, ResealedDamageNeverCrashes) {
  TestRandom random(99);
  int failed = 0;
  for (int i = 0; i < 3000; ++i) {
    std::vector<std::string> segments = chunk_.segments;
    std::string& victim = segments[random.Below(4)];
    for (uint64_t n = 1 + random.Below(3); n > 0; --n)
      victim[random.Below(victim.size())] ^= static_cast<char>(1 << random.Below(8));
    Reseal(&victim);
    failed += Decode(segments).ok() ? 0 : 1;
  }
  EXPECT_GT(failed, 2500);  // words and states that do not end where they must give the damage away
}

TEST(UncalibratedSegmentTest, RejectsStatisticsOutOfRange) {
  const KvGeometry geometry = TestGeometry(1, 1, 16);
  const std::shared_ptr<const Profile> profile = *BuildProfile(geometry, {}, {}, {});
  const TestKv kv = MakeTestKv(geometry, 20, 4, 8);
  const EncodedChunk chunk = *(*ChunkEncoder::Create(profile))->Encode(kv.view(), 4);
  auto decoder = *ChunkDecoder::Create(profile);
  TestKv out(geometry, 20);
  const auto code = [&](size_t at, uint32_t value) {
    std::string bytes = chunk.segments[0];
    StoreLe(value, &bytes[at]);
    Reseal(&bytes);
    return decoder->Decode(std::vector<absl::string_view>{bytes}, out.mutable_view()).code();
  };
  EXPECT_EQ(code(kSegmentHeaderBytes, LoadLe<uint32_t>(&chunk.segments[0][kSegmentHeaderBytes])),
            absl::StatusCode::kOk);
  EXPECT_EQ(code(kSegmentHeaderBytes, 0x7fc00000),
            absl::StatusCode::kInvalidArgument);                                // NaN scale
  EXPECT_EQ(code(kSegmentHeaderBytes, 0), absl::StatusCode::kInvalidArgument);  // zero scale
  EXPECT_EQ(code(kSegmentHeaderBytes + 8, 0x7f807f80),
            absl::StatusCode::kInvalidArgument);  // infinite means
  EXPECT_EQ(code(48, 0), absl::StatusCode::kDataLoss);
}

}  // namespace
}  // namespace kvstream

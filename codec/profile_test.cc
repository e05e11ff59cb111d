#include "codec/profile.h"

#include <cmath>
#include <limits>
#include <string>

#include "codec/byte_io.h"
#include "codec/format.h"
#include "codec/profile_data.h"
#include "codec/segment.h"
#include "codec/test_kv.h"
#include "gtest/gtest.h"

namespace kvstream {
namespace {

class ProfileTest : public testing::Test {
 protected:
  static CalibrationOptions Options() {
    CalibrationOptions options;
    options.steps = {1.2, 0.4};
    options.sink_tokens = 2;
    options.chunk_tokens = 128;
    return options;
  }

  template <typename T>
  absl::Status StatusWith(size_t at, T value) {
    std::string bytes = bytes_;
    StoreLe(value, &bytes[at]);
    Reseal(&bytes);
    return Profile::Parse(bytes).status();
  }
  template <typename T>
  void ExpectInvalid(size_t at, T value, const std::string& named) {
    const absl::Status status = StatusWith(at, value);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << named;
    EXPECT_NE(status.message().find(named), absl::string_view::npos) << status;
  }

  const KvGeometry geometry_ = TestGeometry(2, 1, 8, KvDtype::kBF16);
  const std::shared_ptr<const Profile> profile_ = MakeTestProfile(geometry_, 4, Options());
  const std::string bytes_ = profile_->serialized();
  // Offsets of docs/format.md for this geometry: 4 RoPE pairs, 32 channels, 2 groups.
  const size_t geometry_at_ = 16;
  const size_t frequencies_at_ = geometry_at_ + 24;
  const size_t planes_at_ = frequencies_at_ + 4 * 8;
  const size_t options_at_ = planes_at_ + 4;
  const size_t steps_at_ = options_at_ + 8;
  const size_t references_at_ = steps_at_ + 2 * 8;
  const size_t means_at_ = references_at_ + 2;
  const size_t units_at_ = means_at_ + 32 * 4;
  const size_t groups_at_ = units_at_ + 32 * 4;
  const size_t tables_at_ = groups_at_ + 4 + 2 * 8;
};

TEST_F(ProfileTest, ParsesBackToTheSame) {
  const absl::StatusOr<std::shared_ptr<const Profile>> parsed = Profile::Parse(bytes_);
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  EXPECT_EQ((*parsed)->id(), profile_->id());
  EXPECT_EQ((*parsed)->serialized(), bytes_);
  EXPECT_EQ((*parsed)->geometry().layers, 2);
  EXPECT_EQ((*parsed)->geometry().kv_heads, 1);
  EXPECT_EQ((*parsed)->geometry().head_size, 8);
  EXPECT_EQ((*parsed)->geometry().dtype, KvDtype::kBF16);
  EXPECT_EQ((*parsed)->geometry().rope.inverse_frequency, geometry_.rope.inverse_frequency);
  EXPECT_EQ((*parsed)->chunk_tokens(), 128);
  EXPECT_EQ((*parsed)->sink_tokens(), 2);
  EXPECT_EQ((*parsed)->levels(), 2);
  EXPECT_EQ((*parsed)->step(0), 1.2);
  EXPECT_EQ((*parsed)->step(1), 0.4);
  EXPECT_TRUE((*parsed)->calibrated());
  EXPECT_EQ((*parsed)->group_description(), "layer");
  EXPECT_EQ((*parsed)->groups(), 2);
  EXPECT_EQ((*parsed)->group_channels(1), 16);
}

TEST_F(ProfileTest, IdIsTheHashOfTheBytes) {
  const std::shared_ptr<const Profile> other = MakeTestProfile(geometry_, 5, Options());
  EXPECT_NE(other->id(), profile_->id());
  EXPECT_EQ(MakeTestProfile(geometry_, 4, Options())->id(), profile_->id())
      << "calibration is reproducible";
}

TEST_F(ProfileTest, RejectsEveryTruncation) {
  for (size_t size = 0; size < bytes_.size(); ++size) {
    ASSERT_FALSE(Profile::Parse(absl::string_view(bytes_).substr(0, size)).ok()) << size;
  }
}

TEST_F(ProfileTest, RejectsTruncationsThatClaimToBeWhole) {
  for (size_t size = 24; size < bytes_.size(); size += 1 + size / 50) {
    std::string bytes = bytes_.substr(0, size);
    StoreLe<uint64_t>(size, &bytes[8]);
    Reseal(&bytes);
    ASSERT_EQ(Profile::Parse(bytes).status().code(), absl::StatusCode::kInvalidArgument) << size;
  }
}

TEST_F(ProfileTest, RejectsEverySingleBitFlip) {
  for (size_t bit = 0; bit < bytes_.size() * 8; bit += 1 + bit / 4000) {
    std::string bytes = bytes_;
    bytes[bit / 8] ^= static_cast<char>(1 << bit % 8);
    ASSERT_FALSE(Profile::Parse(bytes).ok()) << bit;
  }
}

TEST_F(ProfileTest, RejectsTrailingBytes) {
  EXPECT_EQ(Profile::Parse(bytes_ + "x").status().code(), absl::StatusCode::kDataLoss);
  std::string bytes = bytes_ + "12345678";
  StoreLe<uint64_t>(bytes.size(), &bytes[8]);
  Reseal(&bytes);
  EXPECT_EQ(Profile::Parse(bytes).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(ProfileTest, RejectsHeaderFieldsOutOfRange) {
  ExpectInvalid<uint32_t>(0, 7, "magic");
  ExpectInvalid<uint16_t>(4, kProfileVersion + 1, "version");
  ExpectInvalid<uint16_t>(4, 0, "version");
  ExpectInvalid<uint16_t>(6, 1, "reserved");
  EXPECT_EQ(StatusWith<uint64_t>(8, 5).code(), absl::StatusCode::kDataLoss);
  ExpectInvalid<uint32_t>(geometry_at_, 0, "layers");
  ExpectInvalid<uint32_t>(geometry_at_, 0xffffffff, "dimension");
  ExpectInvalid<uint32_t>(geometry_at_ + 4, 0, "kv_heads");
  ExpectInvalid<uint32_t>(geometry_at_ + 8, 0, "head_size");
  ExpectInvalid<uint8_t>(geometry_at_ + 12, 2, "dtype");
  ExpectInvalid<uint8_t>(geometry_at_ + 13, 3, "layout");
  ExpectInvalid<uint16_t>(geometry_at_ + 14, 65535, "truncated");
  ExpectInvalid<double>(geometry_at_ + 16, 0, "attention_factor");
  ExpectInvalid<double>(frequencies_at_, std::nan(""), "inverse_frequency");
  ExpectInvalid<double>(frequencies_at_ + 8, std::numeric_limits<double>::infinity(),
                        "inverse_frequency");
  ExpectInvalid<uint16_t>(planes_at_, 0, "planes");
  ExpectInvalid<uint16_t>(planes_at_, 3, "planes");
  ExpectInvalid<uint16_t>(planes_at_, 1, "");  // other fields no longer fit
  ExpectInvalid<uint16_t>(planes_at_ + 2, 1, "rotary_offset");
  ExpectInvalid<uint16_t>(options_at_, 0, "chunk_tokens");
  ExpectInvalid<uint16_t>(options_at_, 5000, "chunk_tokens");
  ExpectInvalid<uint16_t>(options_at_ + 2, 65, "sink_tokens");
  ExpectInvalid<uint8_t>(options_at_ + 4, 0, "levels");
  ExpectInvalid<uint8_t>(options_at_ + 4, 9, "levels");
  ExpectInvalid<uint8_t>(options_at_ + 5, 4, "group kind");
  ExpectInvalid<double>(steps_at_, std::nan(""), "step of level 0");
  ExpectInvalid<double>(steps_at_ + 8, 0.6, "step of level 1");
}

TEST_F(ProfileTest, RejectsChannelsAndGroupsOutOfRange) {
  ExpectInvalid<uint8_t>(references_at_, 2, "reference token 0");
  ExpectInvalid<float>(means_at_ + 4, std::nanf(""), "mean of channel 1");
  ExpectInvalid<float>(means_at_, std::numeric_limits<float>::infinity(), "mean of channel 0");
  ExpectInvalid<float>(units_at_ + 8, 0, "unit of channel 2");
  ExpectInvalid<float>(units_at_, -1, "unit of channel 0");
  ExpectInvalid<uint32_t>(groups_at_, 0, "number of groups");
  ExpectInvalid<uint32_t>(groups_at_, 1, "groups cover");
  ExpectInvalid<uint32_t>(groups_at_ + 4, 0, "group 0");
  ExpectInvalid<uint32_t>(groups_at_ + 4, 12, "whole heads");
  ExpectInvalid<uint32_t>(groups_at_ + 4, 0x7fffffff, "group 0");
  ExpectInvalid<uint32_t>(groups_at_ + 8, 17, "rank");
}

TEST_F(ProfileTest, RejectsTablesOutOfRange) {
  ExpectInvalid<uint8_t>(tables_at_, 0, "number of classes");
  ExpectInvalid<uint8_t>(tables_at_ + 1, kMaxShift + 1, "base table 0");
  // The first class that is not null.
  size_t at = tables_at_ + 1;
  while (static_cast<uint8_t>(bytes_[at + 1]) == 0) at += 2;
  ExpectInvalid<uint8_t>(at + 1, 128, "alphabet");
  ExpectInvalid<uint16_t>(at + 2, 0, "frequency");
  ExpectInvalid<uint16_t>(at + 2, 4096, "frequency");
  ExpectInvalid<uint16_t>(at + 2, LoadLe<uint16_t>(&bytes_[at + 2]) + 1, "sum");
}

TEST_F(ProfileTest, RejectsTransformsAndShrinksOutOfRange) {
  const size_t entry = bytes_.size() - kChecksumBytes - 2;
  ExpectInvalid<uint16_t>(entry, 0x7e00, "transform");  // NaN
  ExpectInvalid<uint16_t>(entry, 0xfc00, "transform");  // infinite
  ExpectInvalid<uint16_t>(entry, 0x4000, "transform");  // 2
  const ProfileData& data = profile_->data();
  const size_t classes_at = data.groups[0].matrix_offset - data.coordinates;
  ExpectInvalid<uint8_t>(classes_at, 255, "class");
  ExpectInvalid<float>(classes_at - 4, std::nanf(""), "shrink");
}

TEST_F(ProfileTest, ResealedDamageNeverCrashes) {
  TestRandom random(5);
  for (int i = 0; i < 3000; ++i) {
    std::string bytes = bytes_;
    for (uint64_t n = 1 + random.Below(4); n > 0; --n)
      bytes[random.Below(bytes.size())] = static_cast<char>(random.Next());
    StoreLe<uint64_t>(bytes.size(), &bytes[8]);
    Reseal(&bytes);
    const absl::StatusOr<std::shared_ptr<const Profile>> parsed = Profile::Parse(bytes);
    if (parsed.ok()) {
      ASSERT_EQ((*parsed)->serialized(), bytes);
    }
  }
}

}  // namespace
}  // namespace kvstream

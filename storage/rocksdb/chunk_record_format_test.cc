#include "storage/rocksdb/chunk_record_format.h"

#include <gtest/gtest.h>

#include <limits>
#include <random>
#include <string>

#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "storage/chunk_limits.h"
#include "storage/conformance/test_chunks.h"

namespace kvstream::rocksdb_format {
namespace {

ChunkId CountingId(uint8_t first) {
  ChunkId id;
  for (size_t i = 0; i < id.size(); ++i) id[i] = static_cast<uint8_t>(first + i);
  return id;
}

ChunkInfo GoldenInfo() {
  ChunkInfo info;
  info.parent = CountingId(0x40);
  info.profile_id = CountingId(0x80);
  info.model = "m@r";
  info.first_token = 0x0102030405060708;
  info.tokens = 256;
  info.segment_bytes = {1000, 0, 65536};
  info.created = absl::FromUnixNanos(1700000000123456789);
  return info;
}

ChunkInfo GoldenInfo2() {
  ChunkInfo info = GoldenInfo();
  info.levels_lost = 2;
  info.expires = absl::FromUnixNanos(1700000000123456790);
  return info;
}

ChunkInfo GoldenInfo3() {
  ChunkInfo info = GoldenInfo2();
  info.tenant = "team";
  info.outer_id = CountingId(0);
  info.outer_parent = CountingId(0xc0);
  return info;
}

// As MakeTestChunk, every other one of a tenant.
ChunkInfo MakeTestInfo(uint64_t number) {
  ChunkInfo info = MakeTestChunk(number).info;
  if (number % 2 == 0) return info;
  info.tenant = TestBytes(number, 1 + number % kMaxTenantBytes);
  if (number % 4 == 1) info.outer_id = TestId(number + 1);
  if (number % 8 < 4) info.outer_parent = TestId(number + 2);
  return info;
}

// These bytes are in users' stores: this test changes only together with kChunkRecordVersion, and
// then the older versions stay.
constexpr absl::string_view kGoldenVersion1 =
    "01"
    "01"
    "0300"
    "00010000"
    "0807060504030201"
    "15cd853dfe9c9717"
    "808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9f"
    "0300"
    "404142434445464748494a4b4c4d4e4f505152535455565758595a5b5c5d5e5f"
    "e803000000000000"
    "0000000000000000"
    "0000010000000000"
    "6d4072";

constexpr absl::string_view kGoldenVersion2 =
    "02"
    "01"
    "0300"
    "00010000"
    "0807060504030201"
    "15cd853dfe9c9717"
    "808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9f"
    "0300"
    "0200"
    "16cd853dfe9c9717"
    "404142434445464748494a4b4c4d4e4f505152535455565758595a5b5c5d5e5f"
    "e803000000000000"
    "0000000000000000"
    "0000010000000000"
    "6d4072";

constexpr absl::string_view kGoldenFields3 =
    "010400"
    "7465616d"
    "022000"
    "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"
    "032000"
    "c0c1c2c3c4c5c6c7c8c9cacbcccdcecfd0d1d2d3d4d5d6d7d8d9dadbdcdddedf";

TEST(ChunkRecordFormatTest, GoldenBytesOfVersion3) {
  const std::string golden = absl::StrCat("0303", kGoldenVersion2.substr(4), kGoldenFields3);
  EXPECT_EQ(absl::BytesToHexString(EncodeChunkRecord(GoldenInfo3())), golden);
  const auto decoded = DecodeChunkRecord(absl::HexStringToBytes(golden));
  ASSERT_TRUE(decoded.ok()) << decoded.status();
  EXPECT_TRUE(SameInfo(*decoded, GoldenInfo3()));
}

TEST(ChunkRecordFormatTest, RejectsDamagedFields) {
  const std::string record = EncodeChunkRecord(GoldenInfo3());
  const std::string start = record.substr(0, record.size() - kGoldenFields3.size() / 2);
  const auto expect = [&](absl::string_view hex, absl::string_view why) {
    const auto decoded = DecodeChunkRecord(start + absl::HexStringToBytes(hex));
    EXPECT_TRUE(absl::IsDataLoss(decoded.status())) << decoded.status();
    EXPECT_TRUE(absl::StrContains(decoded.status().message(), why)) << decoded.status();
  };
  expect("", "ends amid a field");
  expect("0104", "ends amid a field");
  expect("010400746561", "ends amid field 1");
  expect("01ffff", "ends amid field 1");
  expect("010000", "a tenant of 0 bytes");
  expect(absl::StrCat("014100", absl::BytesToHexString(std::string(65, 't'))), "of 65 bytes");
  expect("0101007401010074", "field 1 after field 1");
  expect(absl::StrCat("022000", absl::BytesToHexString(std::string(32, 'i'))), "but no tenant");
  expect("0101007402010000", "a field 2 of 1 bytes");
  expect("0101007403010000", "a field 3 of 1 bytes");
  expect("000000", "field 0 after field 0");
  const auto newer = DecodeChunkRecord(start + absl::HexStringToBytes("01010074040000"));
  EXPECT_EQ(newer.status().code(), absl::StatusCode::kFailedPrecondition) << newer.status();
  for (size_t length = 0; length < record.size(); ++length) {
    const auto decoded = DecodeChunkRecord(absl::string_view(record).substr(0, length));
    // Whole fields may be missing.
    EXPECT_TRUE(absl::IsDataLoss(decoded.status()) ||
                EncodeChunkRecord(*decoded) == record.substr(0, length))
        << length << ": " << decoded.status();
  }
}

TEST(ChunkRecordFormatTest, GoldenBytesOfVersion1) {
  const auto decoded = DecodeChunkRecord(absl::HexStringToBytes(kGoldenVersion1));
  ASSERT_TRUE(decoded.ok()) << decoded.status();
  EXPECT_TRUE(SameInfo(*decoded, GoldenInfo()));
}

TEST(ChunkRecordFormatTest, GoldenBytesOfVersion2) {
  EXPECT_EQ(absl::BytesToHexString(EncodeChunkRecord(GoldenInfo2())), kGoldenVersion2);
  const auto decoded = DecodeChunkRecord(absl::HexStringToBytes(kGoldenVersion2));
  ASSERT_TRUE(decoded.ok()) << decoded.status();
  EXPECT_TRUE(SameInfo(*decoded, GoldenInfo2()));
  ChunkInfo never = GoldenInfo2();
  never.expires = absl::InfiniteFuture();
  EXPECT_TRUE(absl::StrContains(absl::BytesToHexString(EncodeChunkRecord(never)),
                                "0200ffffffffffffff7f4041"));
}

TEST(ChunkRecordFormatTest, GoldenKeysAndMeta) {
  EXPECT_EQ(kStoreVersion, 3);
  EXPECT_EQ(absl::BytesToHexString(SegmentKey(CountingId(0), 255)),
            "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1fff");
  EXPECT_EQ(TenantCountersKey("team"), "tenant:team");
  EXPECT_EQ(absl::BytesToHexString(TenantKey("team")), "047465616d");
  EXPECT_EQ(absl::BytesToHexString(TenantKey("team", CountingId(0))),
            "047465616d000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f");
  EXPECT_EQ(ProfileListKey(CountingId('a')), absl::StrCat("profile:", IdKey(CountingId('a'))));
  EXPECT_EQ(absl::BytesToHexString(EncodeVersion(1)), "01000000");
  EXPECT_EQ(absl::BytesToHexString(EncodeCounters({258, 3})), "02010000000000000300000000000000");
  EXPECT_EQ(absl::BytesToHexString(EncodeUsage({1.5, 258})), "000000000000f83f02010000");
  EXPECT_EQ(absl::BytesToHexString(EncodeClock(1.5)), "000000000000f83f");
  EXPECT_EQ(std::string(kChunksFamily) + kSegmentsFamily + kProfilesFamily + kMetaFamily +
                kUsageFamily + kTenantsFamily + kVersionKey + kCountersKey + kClockKey,
            "chunkssegmentsprofilesmetausagetenantsstore_versionstore_countersusage_clock");
}

TEST(ChunkRecordFormatTest, UsageRoundTripsAndRejectsTheRest) {
  const auto usage = DecodeUsage(EncodeUsage({-3.25, 7}));
  ASSERT_TRUE(usage.ok()) << usage.status();
  EXPECT_EQ(usage->clock, -3.25);
  EXPECT_EQ(usage->uses, 7);
  EXPECT_TRUE(absl::IsDataLoss(DecodeUsage("12345678901").status()));
  EXPECT_TRUE(absl::IsDataLoss(DecodeClock("1234567").status()));
  EXPECT_TRUE(
      absl::IsDataLoss(DecodeClock(EncodeClock(std::numeric_limits<double>::infinity())).status()));
}

TEST(ChunkRecordFormatTest, RejectsMoreLevelsLostThanThereCanBe) {
  std::string record = EncodeChunkRecord(GoldenInfo2());
  record[58] = '\xfe';
  EXPECT_TRUE(absl::IsDataLoss(DecodeChunkRecord(record).status()));
  record[58] = '\xfd';
  EXPECT_TRUE(DecodeChunkRecord(record).ok());
}

TEST(ChunkRecordFormatTest, RoundTrips) {
  for (uint64_t i = 0; i < 200; ++i) {
    const ChunkInfo info = MakeTestInfo(i);
    const auto decoded = DecodeChunkRecord(EncodeChunkRecord(info));
    ASSERT_TRUE(decoded.ok()) << decoded.status();
    EXPECT_TRUE(SameInfo(*decoded, info));
  }
}

TEST(ChunkRecordFormatTest, RejectsEveryOtherLength) {
  const std::string record = EncodeChunkRecord(GoldenInfo());
  for (size_t length = 0; length < record.size(); ++length) {
    const auto decoded = DecodeChunkRecord(absl::string_view(record).substr(0, length));
    EXPECT_TRUE(absl::IsDataLoss(decoded.status())) << length << ": " << decoded.status();
  }
  EXPECT_TRUE(absl::IsDataLoss(DecodeChunkRecord(record + "x").status()));
}

// `offset` in the golden record takes `bytes`; the message must say why.
void ExpectRejected(size_t offset, absl::string_view bytes, absl::string_view why) {
  std::string record = EncodeChunkRecord(GoldenInfo());
  record.replace(offset, bytes.size(), bytes.data(), bytes.size());
  const auto decoded = DecodeChunkRecord(record);
  EXPECT_TRUE(absl::IsDataLoss(decoded.status())) << decoded.status();
  EXPECT_TRUE(absl::StrContains(decoded.status().message(), why)) << decoded.status();
}

TEST(ChunkRecordFormatTest, RejectsVersionZero) {
  ExpectRejected(0, absl::string_view("\0", 1), "version 0");
}
TEST(ChunkRecordFormatTest, RejectsUnknownFlags) {
  ExpectRejected(1, "\x05", "unknown flags 5");
  ExpectRejected(1, "\x03", "of version 2 has flags 3");
}
TEST(ChunkRecordFormatTest, RejectsALongModel) {
  ExpectRejected(2, "\x01\x02", "model of 513 bytes");
}
TEST(ChunkRecordFormatTest, RejectsNoLevels) {
  ExpectRejected(56, absl::string_view("\0\0", 2), "0 levels");
}
TEST(ChunkRecordFormatTest, RejectsTooManyLevels) { ExpectRejected(56, "\x01\x01", "257 levels"); }
TEST(ChunkRecordFormatTest, RejectsAMissingParent) {
  ExpectRejected(1, absl::string_view("\0", 1), "announces 95");
}
TEST(ChunkRecordFormatTest, RejectsASegmentBeyondTheLimit) {
  ExpectRejected(100, "\xff\xff\xff\xff\xff\xff\xff\xff", "bytes of segments");
}
TEST(ChunkRecordFormatTest, RejectsASumBeyondTheLimit) {
  ExpectRejected(100, absl::string_view("\0\0\0\x40", 4), "bytes of segments");
}

TEST(ChunkRecordFormatTest, AsksForANewerProgramForANewerRecord) {
  std::string record = EncodeChunkRecord(GoldenInfo());
  record[0] = kChunkRecordVersion + 1;
  const auto decoded = DecodeChunkRecord(record);
  EXPECT_EQ(decoded.status().code(), absl::StatusCode::kFailedPrecondition) << decoded.status();
}

TEST(ChunkRecordFormatTest, MutatedRecordsAreRejectedOrRoundTrip) {
  std::mt19937_64 random(TestSeed());
  int accepted = 0;
  for (int i = 0; i < 200000; ++i) {
    std::string record = EncodeChunkRecord(MakeTestInfo(random() % 1000));
    for (uint64_t edits = 1 + random() % 3; edits-- > 0;) {
      const size_t at = record.empty() ? 0 : random() % record.size();
      switch (random() % 4) {
        case 0:
          if (!record.empty()) record[at] = static_cast<char>(random());
          break;
        case 1:
          if (!record.empty()) record[at] ^= static_cast<char>(1 << random() % 8);
          break;
        case 2:
          record.resize(at);
          break;
        default:
          record.insert(at, 1 + random() % 40, static_cast<char>(random()));
      }
    }
    const auto decoded = DecodeChunkRecord(record);
    if (!decoded.ok()) continue;
    ++accepted;
    // Every accepted record has one encoding, so nothing in it was ignored. (Version 1 is no longer
    // written.)
    ASSERT_TRUE(record[0] == 1 || EncodeChunkRecord(*decoded) == record);
    ASSERT_LE(PayloadBytes(*decoded), kMaxChunkBytes);
    ASSERT_LE(decoded->model.size(), kMaxModelBytes);
  }
  EXPECT_GT(accepted, 1000);
}

TEST(ChunkRecordFormatTest, RandomBytesAreRejectedOrRoundTrip) {
  std::mt19937_64 random(TestSeed());
  for (int i = 0; i < 100000; ++i) {
    std::string bytes = TestBytes(random(), random() % 200);
    if (!bytes.empty() && random() % 2 == 0) bytes[0] = static_cast<char>(1 + random() % 3);
    if (bytes.size() > 1 && random() % 2 == 0) bytes[1] &= 3;
    const auto decoded = DecodeChunkRecord(bytes);
    ASSERT_TRUE(!decoded.ok() || bytes[0] == 1 || EncodeChunkRecord(*decoded) == bytes);
  }
}

TEST(ChunkRecordFormatTest, RejectsWrongSizesOfTheOthers) {
  EXPECT_TRUE(absl::IsDataLoss(DecodeIdKey(std::string(31, 'x')).status()));
  EXPECT_TRUE(absl::IsDataLoss(DecodeIdKey(std::string(33, 'x')).status()));
  EXPECT_TRUE(absl::IsDataLoss(DecodeVersion("123").status()));
  EXPECT_TRUE(absl::IsDataLoss(DecodeVersion("12345").status()));
  EXPECT_TRUE(absl::IsDataLoss(DecodeCounters(std::string(15, 'x')).status()));
  EXPECT_TRUE(absl::IsDataLoss(DecodeCounters("").status()));
}

}  // namespace
}  // namespace kvstream::rocksdb_format

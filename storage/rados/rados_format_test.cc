#include "storage/rados/rados_format.h"

#include <gtest/gtest.h>

#include <random>

#include "absl/strings/escaping.h"
#include "storage/conformance/test_chunks.h"

namespace kvstream::rados_format {
namespace {

DataRecord MakeRecord() {
  DataRecord record;
  for (size_t i = 0; i < record.generation.size(); ++i) record.generation[i] = i + 1;
  record.info.profile_id.fill(0xab);
  record.info.model = "m";
  record.info.first_token = 256;
  record.info.tokens = 128;
  record.info.segment_bytes = {5, 7};
  record.info.created = absl::FromUnixNanos(1'000'000'007);
  record.hashes = {0x1122334455667788, 0x99aabbccddeeff00};
  return record;
}

// Bytes of version 1, which every later program must read.
constexpr char kGoldenRecord[] =
    "01005500"
    "0102030405060708090a0b0c0d0e0f10"
    "02000100800000000001000000000000"
    "07ca9a3b00000000"
    "abababababababababababababababababababababababababababababababab"
    "02000000ffffffffffffff7f"
    "05000000000000000700000000000000"
    "6d"
    "8877665544332211"
    "00ffeeddccbbaa99"
    "f07546045bd654e6";

TEST(RadosFormatTest, GoldenRecordsAreRead) {
  std::string bytes = absl::HexStringToBytes(kGoldenRecord);
  const auto decoded = DecodeData(bytes);
  ASSERT_TRUE(decoded.ok()) << decoded.status();
  const DataRecord record = MakeRecord();
  EXPECT_EQ(decoded->generation, record.generation);
  EXPECT_EQ(decoded->hashes, record.hashes);
  EXPECT_TRUE(SameInfo(decoded->info, record.info));
}

TEST(RadosFormatTest, RecordsComeBack) {
  const DataRecord record = MakeRecord();
  const auto decoded = DecodeData(EncodeData(record));
  ASSERT_TRUE(decoded.ok()) << decoded.status();
  EXPECT_EQ(decoded->generation, record.generation);
  EXPECT_EQ(decoded->hashes, record.hashes);
  EXPECT_TRUE(SameInfo(decoded->info, record.info));
}

TEST(RadosFormatTest, EveryFlippedBitAndEveryCutIsNoticed) {
  const std::string bytes = EncodeData(MakeRecord());
  for (size_t i = 0; i < bytes.size(); ++i) {
    EXPECT_TRUE(absl::IsDataLoss(DecodeData(bytes.substr(0, i)).status())) << i;
    for (int bit = 0; bit < 8; ++bit) {
      std::string damaged = bytes;
      damaged[i] ^= 1 << bit;
      EXPECT_TRUE(absl::IsDataLoss(DecodeData(damaged).status())) << i;
    }
  }
  EXPECT_TRUE(absl::IsDataLoss(DecodeData(bytes + "x").status()));
}

TEST(RadosFormatTest, NonsenseWithAGoodChecksumIsRefused) {
  std::mt19937_64 random(TestSeed());
  const std::string good = EncodeData(MakeRecord());
  for (int round = 0; round < 20000; ++round) {
    std::string bytes = good.substr(0, good.size() - 8);
    for (int flips = 1 + random() % 4; flips-- > 0;) {
      bytes[random() % bytes.size()] = static_cast<char>(random());
    }
    if (random() % 4 == 0) bytes.resize(random() % bytes.size());
    const uint64_t hash = HashBytes(bytes);
    for (int i = 0; i < 8; ++i) bytes.push_back(static_cast<char>(hash >> (8 * i)));
    const auto decoded = DecodeData(bytes);
    if (decoded.ok()) {
      EXPECT_EQ(decoded->hashes.size(), decoded->info.segment_bytes.size());
    }
  }
}

TEST(RadosFormatTest, HeadersAreTheirGoldenBytes) {
  StoreHeader header;
  header.shards = 256;
  const std::string bytes = EncodeHeader(header);
  EXPECT_EQ(absl::BytesToHexString(bytes), "4b5653520100000000010000");
  const auto decoded = DecodeHeader(bytes);
  ASSERT_TRUE(decoded.ok()) << decoded.status();
  EXPECT_EQ(decoded->shards, 256);
  for (size_t i = 0; i < bytes.size(); ++i) EXPECT_FALSE(DecodeHeader(bytes.substr(0, i)).ok());
  EXPECT_TRUE(absl::IsDataLoss(DecodeHeader(bytes + "x").status()));
  for (uint32_t shards : {0u, 3u, 8192u}) {
    header.shards = shards;
    EXPECT_TRUE(absl::IsDataLoss(DecodeHeader(EncodeHeader(header)).status())) << shards;
  }
  header = StoreHeader();
  header.version = kStoreVersion + 1;
  EXPECT_TRUE(absl::IsFailedPrecondition(DecodeHeader(EncodeHeader(header)).status()));
}

TEST(RadosFormatTest, GarbageSortsByTimeAndComesBack) {
  GarbageKey key;
  key.since = absl::FromUnixNanos(0x0102030405060708);
  key.id = TestId(1);
  key.generation.fill(9);
  key.keep_bytes = 77;
  const std::string text = EncodeGarbageKey(key);
  const auto decoded = DecodeGarbageKey(text);
  ASSERT_TRUE(decoded.ok()) << decoded.status();
  EXPECT_EQ(decoded->since, key.since);
  EXPECT_EQ(decoded->id, key.id);
  EXPECT_EQ(decoded->generation, key.generation);
  EXPECT_EQ(decoded->keep_bytes, key.keep_bytes);
  for (size_t i = 0; i < text.size(); ++i) {
    EXPECT_FALSE(DecodeGarbageKey(text.substr(0, i)).ok());
    std::string bad = text;
    bad[i] = 'G';
    EXPECT_FALSE(DecodeGarbageKey(bad).ok());
  }
  key.since += absl::Nanoseconds(1);
  EXPECT_LT(text, EncodeGarbageKey(key));

  const GarbageRecord record = {GarbageState::kRetired, 3, 10};
  const std::string bytes = EncodeGarbage(record);
  EXPECT_EQ(absl::BytesToHexString(bytes), "0203000000000000000a00000000000000");
  EXPECT_EQ(DecodeGarbage(bytes)->keep_bytes, 3);
  EXPECT_FALSE(DecodeGarbage(bytes.substr(1)).ok());
  EXPECT_FALSE(DecodeGarbage(EncodeGarbage({GarbageState{7}, 3, 10})).ok());
  EXPECT_FALSE(DecodeGarbage(EncodeGarbage({GarbageState::kRetired, 11, 10})).ok());
  EXPECT_FALSE(DecodeGarbage(EncodeGarbage({GarbageState::kRetired, 0, ~uint64_t{0}})).ok());
}

TEST(RadosFormatTest, ShardsAreInTheOrderOfIds) {
  for (uint32_t shards : {1u, 2u, 256u, 4096u}) {
    ChunkId id = {};
    EXPECT_EQ(ShardOf(id, shards), 0);
    uint32_t last = 0;
    for (int first = 0; first < 65536; first += 7) {
      id[0] = static_cast<uint8_t>(first >> 8);
      id[1] = static_cast<uint8_t>(first);
      EXPECT_GE(ShardOf(id, shards), last);
      last = ShardOf(id, shards);
    }
    id.fill(0xff);
    EXPECT_EQ(ShardOf(id, shards), shards - 1);
  }
  EXPECT_EQ(*DecodeDataKey(DataKey(TestId(5))), TestId(5));
  EXPECT_FALSE(DecodeDataKey(DataKey(TestId(5)) + "0").ok());
  EXPECT_EQ(IndexObject(255), "index.00ff");
}

}  // namespace
}  // namespace kvstream::rados_format

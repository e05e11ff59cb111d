#include "storage/rados/rados_format.h"

#include <gtest/gtest.h>

#include <limits>
#include <random>

#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "storage/chunk_limits.h"
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

// Bytes of record version 1, which every later program must read.
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
  EXPECT_EQ(absl::BytesToHexString(bytes), "4b5653520300000000010000");
  const auto decoded = DecodeHeader(bytes);
  ASSERT_TRUE(decoded.ok()) << decoded.status();
  EXPECT_EQ(decoded->shards, 256);
  for (size_t i = 0; i < bytes.size(); ++i) EXPECT_FALSE(DecodeHeader(bytes.substr(0, i)).ok());
  EXPECT_TRUE(absl::IsDataLoss(DecodeHeader(bytes + "x").status()));
  for (uint32_t shards : {0u, 3u, 8192u}) {
    header.shards = shards;
    EXPECT_TRUE(absl::IsDataLoss(DecodeHeader(EncodeHeader(header)).status())) << shards;
  }
  for (uint32_t version : {1u, 2u}) {
    header.version = version;
    header.shards = 256;
    const absl::Status old = DecodeHeader(EncodeHeader(header)).status();
    EXPECT_TRUE(absl::IsFailedPrecondition(old)) << old;
    EXPECT_TRUE(absl::StrContains(old.message(), "--rados-namespace")) << "what to do: " << old;
  }
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

  const GarbageRecord named = {GarbageState::kPending, 0, 10, TestId(2)};
  const std::string named_bytes = EncodeGarbage(named);
  EXPECT_EQ(absl::BytesToHexString(named_bytes.substr(0, 17)),
            "0100000000000000000a00000000000000");
  EXPECT_EQ(named_bytes.size(), 49);
  EXPECT_EQ(DecodeGarbage(named_bytes)->parent, TestId(2));
  for (size_t i = 0; i < named_bytes.size(); ++i) {
    EXPECT_EQ(DecodeGarbage(named_bytes.substr(0, i)).ok(), i == 17) << i;
  }

  const GarbageRecord record = {GarbageState::kRetired, 3, 10, absl::nullopt};
  const std::string bytes = EncodeGarbage(record);
  EXPECT_EQ(absl::BytesToHexString(bytes), "0203000000000000000a00000000000000");
  EXPECT_EQ(DecodeGarbage(bytes)->keep_bytes, 3);
  EXPECT_FALSE(DecodeGarbage(bytes)->parent.has_value());
  EXPECT_FALSE(DecodeGarbage(bytes.substr(1)).ok());
  EXPECT_FALSE(DecodeGarbage(EncodeGarbage({GarbageState{7}, 3, 10, {}})).ok());
  EXPECT_FALSE(DecodeGarbage(EncodeGarbage({GarbageState::kRetired, 11, 10, {}})).ok());
  EXPECT_FALSE(DecodeGarbage(EncodeGarbage({GarbageState::kRetired, 0, ~uint64_t{0}, {}})).ok());
}

TEST(RadosFormatTest, TimesSortAlsoBefore1970) {
  std::string last;
  for (int64_t nanos : {std::numeric_limits<int64_t>::min() + 1, int64_t{-1}, int64_t{0},
                        int64_t{7}, std::numeric_limits<int64_t>::max() - 1}) {
    const std::string key = EncodeTimeKey(kExpiryPrefix, {absl::FromUnixNanos(nanos), TestId(3)});
    EXPECT_LT(last, key);
    last = key;
    const auto decoded = DecodeTimeKey(kExpiryPrefix, key);
    ASSERT_TRUE(decoded.ok()) << decoded.status();
    EXPECT_EQ(absl::ToUnixNanos(decoded->time), nanos);
    EXPECT_EQ(decoded->id, TestId(3));
    EXPECT_FALSE(DecodeTimeKey(kExpiryPrefix, key.substr(1)).ok());
    EXPECT_FALSE(DecodeTimeKey(kExpiryPrefix, key + "0").ok());
    EXPECT_FALSE(DecodeTimeKey(kDoomPrefix, key).ok());
  }
}

DataRecord MakePinnedRecord() {
  DataRecord record = MakeRecord();
  record.doomed = absl::FromUnixNanos(3);
  record.pins = {{"a", absl::FromUnixNanos(5)},
                 {std::string(kMaxPinOwnerBytes, 'b'), absl::FromUnixNanos(-7)}};
  return record;
}

TEST(RadosFormatTest, PinsAndPromisesComeBack) {
  DataRecord record = MakePinnedRecord();
  const std::string bytes = EncodeData(record);
  EXPECT_EQ(bytes[0], 2);
  const auto decoded = DecodeData(bytes);
  ASSERT_TRUE(decoded.ok()) << decoded.status();
  EXPECT_TRUE(SameInfo(decoded->info, record.info));
  EXPECT_EQ(decoded->hashes, record.hashes);
  EXPECT_EQ(decoded->doomed, record.doomed);
  ASSERT_EQ(decoded->pins.size(), 2);
  for (size_t i = 0; i < 2; ++i) {
    EXPECT_EQ(decoded->pins[i].owner, record.pins[i].owner);
    EXPECT_EQ(decoded->pins[i].until, record.pins[i].until);
  }
  for (size_t i = 0; i < bytes.size(); ++i) {
    EXPECT_TRUE(absl::IsDataLoss(DecodeData(bytes.substr(0, i)).status())) << i;
  }
  std::swap(record.pins[0], record.pins[1]);
  EXPECT_TRUE(absl::IsDataLoss(DecodeData(EncodeData(record)).status())) << "not in order";
  record.pins.resize(1);
  record.pins[0].owner.clear();
  EXPECT_TRUE(absl::IsDataLoss(DecodeData(EncodeData(record)).status())) << "nobody's";
  record = MakeRecord();
  record.doomed = absl::FromUnixNanos(0);
  EXPECT_EQ(DecodeData(EncodeData(record))->doomed, record.doomed);
}

TEST(RadosFormatTest, AChunkIsDueWhenNeitherItsTimeNorAPinKeepsIt) {
  DataRecord record = MakePinnedRecord();
  EXPECT_EQ(DueTime(record), absl::InfiniteFuture());
  EXPECT_EQ(FirstPinEnd(record), absl::FromUnixNanos(-7));
  record.info.expires = absl::FromUnixNanos(2);
  EXPECT_EQ(DueTime(record), absl::FromUnixNanos(5));
  record.info.expires = absl::FromUnixNanos(9);
  EXPECT_EQ(DueTime(record), absl::FromUnixNanos(9));
  EXPECT_TRUE(Pinned(record, absl::FromUnixNanos(4)));
  EXPECT_FALSE(Pinned(record, absl::FromUnixNanos(5)));
  EXPECT_EQ(FirstPinEnd(MakeRecord()), absl::InfiniteFuture());
}

TEST(RadosFormatTest, StatesAreTheirGoldenBytes) {
  ShardState state;
  EXPECT_TRUE(*DecodeState("") == state) << "of a shard that nothing was done to";
  uint64_t number = 0;
  for (uint64_t* field :
       {&state.chunks, &state.payload_bytes, &state.tenant_chunks, &state.pins, &state.pinned_bytes,
        &state.data_bytes, &state.keeper, &state.allotted_bytes, &state.wanted_bytes}) {
    *field = ++number;
  }
  const std::string bytes = EncodeState(state);
  ASSERT_EQ(bytes.size(), kShardStateBytes);
  EXPECT_EQ(
      absl::BytesToHexString(bytes),
      "02"
      "010000000000000002000000000000000300000000000000040000000000000005000000000000000600000"
      "000000000070000000000000008000000000000000900000000000000");
  EXPECT_TRUE(*DecodeState(bytes) == state);
  for (size_t i = 1; i < bytes.size(); ++i) {
    EXPECT_TRUE(absl::IsDataLoss(DecodeState(bytes.substr(0, i)).status())) << i;
  }
  EXPECT_TRUE(absl::IsDataLoss(DecodeState(bytes + "x").status()));
  EXPECT_TRUE(absl::IsDataLoss(DecodeState(std::string(16, '\0')).status())) << "version 1 of it";
  EXPECT_TRUE(absl::IsDataLoss(DecodeState("\3" + bytes.substr(1)).status()));
}

TEST(RadosFormatTest, NamesOfTenantsAreKeptApart) {
  for (const std::string& name :
       {std::string("a"), std::string("a\0", 2), std::string(64, '\xff')}) {
    EXPECT_EQ(*DecodeTenantKey(TenantKey(name)), name);
    EXPECT_FALSE(DecodeTenantKey(TenantKey(name).substr(1)).ok());
    EXPECT_FALSE(DecodeTenantKey(TenantKey(name) + "z").ok());
    EXPECT_FALSE(DecodeTenantKey(TenantKey(name) + "zz").ok());
  }
  EXPECT_FALSE(DecodeTenantKey(TenantKey(std::string(65, 'x'))).ok());
  // No prefix of one is a prefix of another's.
  EXPECT_EQ(OwnedPrefix("a"), "o61.");
  EXPECT_NE(OwnedPrefix("ab").substr(0, 4), OwnedPrefix("a"));
  EXPECT_EQ(*DecodeIdKey(OwnedPrefix("a"), IdKey(OwnedPrefix("a"), TestId(1))), TestId(1));
  EXPECT_FALSE(DecodeIdKey(OwnedPrefix("a"), IdKey(OwnedPrefix("ab"), TestId(1))).ok());
  EXPECT_EQ(OwnedPinnedPrefix("a"), "r61.");

  const std::string use = EncodeTenantUse({1, 2, 3, 4});
  EXPECT_EQ(absl::BytesToHexString(use),
            "0100000000000000020000000000000003000000000000000400000000000000");
  EXPECT_EQ(DecodeTenantUse(use)->pins, 3);
  EXPECT_EQ(DecodeTenantUse(use)->pinned_bytes, 4);
  EXPECT_TRUE(absl::IsDataLoss(DecodeTenantUse(use.substr(1)).status()));
  EXPECT_TRUE(absl::IsDataLoss(DecodeTenantUse(use + "x").status()));
}

TEST(RadosFormatTest, LeasesAreTheirGoldenBytes) {
  LeaseRecord record;
  record.until = absl::FromUnixNanos(7);
  ChunkId id = {};
  for (size_t i = 0; i < id.size(); ++i) id[i] = static_cast<uint8_t>(i + 1);
  record.chunks = {LeaseName(id), 2};
  const std::string bytes = EncodeLease(record);
  EXPECT_EQ(absl::BytesToHexString(bytes.substr(0, bytes.size() - 8)),
            "01070000000000000002000000"
            "01020304050607080200000000000000");
  const auto decoded = DecodeLease(bytes);
  ASSERT_TRUE(decoded.ok()) << decoded.status();
  EXPECT_EQ(decoded->until, record.until);
  EXPECT_EQ(decoded->chunks, record.chunks);
  for (size_t i = 0; i < bytes.size(); ++i) {
    EXPECT_TRUE(absl::IsDataLoss(DecodeLease(bytes.substr(0, i)).status())) << i;
    for (int bit = 0; bit < 8; ++bit) {
      std::string damaged = bytes;
      damaged[i] ^= 1 << bit;
      EXPECT_TRUE(absl::IsDataLoss(DecodeLease(damaged).status())) << i;
    }
  }
  record.chunks.assign(kMaxLeasedChunks + 1, 0);
  EXPECT_TRUE(absl::IsDataLoss(DecodeLease(EncodeLease(record)).status())) << "too many";
  record.chunks.pop_back();
  EXPECT_EQ(DecodeLease(EncodeLease(record))->chunks.size(), kMaxLeasedChunks);
}

TEST(RadosFormatTest, NamesUnderAParentSortByIdAndComeBack) {
  const ChunkId parent = TestId(1);
  ChildName name = {TestId(2), {}};
  name.generation.fill(7);
  const std::string key = ChildKey(parent, name), prefix = ChildrenPrefix(parent);
  EXPECT_EQ(key.size(), 1 + 64 + 64 + 32);
  const auto decoded = DecodeChildKey(prefix, key);
  ASSERT_TRUE(decoded.ok()) << decoded.status();
  EXPECT_EQ(decoded->id, name.id);
  EXPECT_EQ(decoded->generation, name.generation);
  for (size_t i = 0; i < key.size(); ++i) {
    EXPECT_TRUE(absl::IsDataLoss(DecodeChildKey(prefix, key.substr(0, i)).status())) << i;
  }
  EXPECT_FALSE(DecodeChildKey(prefix, key + "0").ok());
  EXPECT_FALSE(DecodeChildKey(ChildrenPrefix(TestId(3)), key).ok());
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

#include "storage/rocksdb/lifetime_format.h"

#include <gtest/gtest.h>

#include <limits>
#include <string>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "storage/chunk_limits.h"
#include "storage/conformance/test_chunks.h"
#include "storage/rocksdb/chunk_record_format.h"

namespace kvstream::rocksdb_format {
namespace {

ChunkId Counting() {
  ChunkId id;
  for (size_t i = 0; i < id.size(); ++i) id[i] = static_cast<uint8_t>(i);
  return id;
}

constexpr char kCounting[] = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";

TEST(LifetimeFormatTest, HasTheGoldenBytesOfVersion3) {
  const absl::Time time = absl::FromUnixNanos(0x0123456789abcdef);
  EXPECT_EQ(absl::BytesToHexString(ExpiryKey(time, Counting())),
            absl::StrCat("8123456789abcdef", kCounting));
  EXPECT_EQ(absl::BytesToHexString(PinKey(Counting(), "ab")), absl::StrCat(kCounting, "6162"));
  EXPECT_EQ(absl::BytesToHexString(EncodePin(time, 0x0102)), "efcdab89674523010201000000000000");
  EXPECT_EQ(absl::BytesToHexString(ChildKey(Counting(), ChunkId{})),
            absl::StrCat(kCounting, std::string(64, '0')));
}

TEST(LifetimeFormatTest, ExpiryKeysAreInTheOrderOfTimes) {
  const int64_t least = std::numeric_limits<int64_t>::min() + 1;
  const int64_t most = std::numeric_limits<int64_t>::max() - 1;
  std::string before;
  for (const int64_t nanos : {least, int64_t{-1}, int64_t{0}, int64_t{1}, int64_t{256}, most}) {
    const std::string key = ExpiryKey(absl::FromUnixNanos(nanos), TestId(1));
    EXPECT_LT(before, key);
    before = key;
    const auto decoded = DecodeExpiryKey(key);
    ASSERT_TRUE(decoded.ok()) << decoded.status();
    EXPECT_EQ(absl::ToUnixNanos(decoded->at), nanos);
    EXPECT_EQ(decoded->id, TestId(1));
  }
}

TEST(LifetimeFormatTest, RefusesEveryOtherSize) {
  const std::string long_owner(kMaxPinOwnerBytes, 'o');
  for (size_t bytes = 0; bytes < 120; ++bytes) {
    const std::string noise(bytes, 'x');
    EXPECT_EQ(DecodeExpiryKey(noise).ok(), bytes == 40);
    EXPECT_EQ(DecodeChildKey(noise).ok(), bytes == 64);
    EXPECT_EQ(DecodePin(noise, EncodePin(absl::UnixEpoch(), 1)).ok(),
              bytes > 32 && bytes <= 32 + kMaxPinOwnerBytes);
    // 16 bytes of it announce too many.
    EXPECT_FALSE(DecodePin(PinKey(Counting(), "a"), noise).ok());
  }
}

TEST(LifetimeFormatTest, APinComesBack) {
  const absl::Time until = absl::FromUnixNanos(-5);
  const auto pin = DecodePin(PinKey(TestId(3), "somebody"), EncodePin(until, kMaxChunkBytes));
  ASSERT_TRUE(pin.ok()) << pin.status();
  EXPECT_EQ(pin->pin.id, TestId(3));
  EXPECT_EQ(pin->pin.owner, "somebody");
  EXPECT_EQ(pin->pin.until, until);
  EXPECT_EQ(pin->payload_bytes, kMaxChunkBytes);
}

}  // namespace
}  // namespace kvstream::rocksdb_format

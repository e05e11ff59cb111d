#include "codec/exact_tokens.h"

#include <string>
#include <vector>

#include "codec/test_kv.h"
#include "gtest/gtest.h"

namespace kvstream {
namespace {

class ExactTokensTest : public testing::TestWithParam<KvDtype> {
 protected:
  // Size of the section; checks the round trip.
  size_t RoundTrip(const KvGeometry& geometry, const ReferenceTokens& references, int64_t position,
                   const TestKv& kv) {
    std::string bytes;
    EXPECT_TRUE(EncodeExactTokens(geometry, references, position, kv.view(), &bytes).ok());
    TestKv out(geometry, kv.view().tokens);
    const absl::Status status =
        DecodeExactTokens(geometry, references, position, bytes, out.mutable_view());
    EXPECT_TRUE(status.ok()) << status;
    EXPECT_EQ(out.tensors(), kv.tensors());
    for (size_t size = 0; size < bytes.size(); ++size) {
      EXPECT_FALSE(DecodeExactTokens(geometry, references, position,
                                     absl::string_view(bytes).substr(0, size), out.mutable_view())
                       .ok())
          << size;
    }
    EXPECT_FALSE(
        DecodeExactTokens(geometry, references, position, bytes + "x", out.mutable_view()).ok());
    return bytes.size();
  }
};

TEST_P(ExactTokensTest, AnyFiniteBitsSurvive) {
  for (const KvGeometry& geometry :
       {TestGeometry(2, 2, 80, GetParam()),
        TestGeometry(1, 1, 3, GetParam(), RopeParameters::Layout::kNone)}) {
    TestKv kv(geometry, 4);
    TestRandom random(3);
    for (int layer = 0; layer < geometry.layers; ++layer) {
      for (auto* tensor : {&kv.keys(layer), &kv.values(layer)}) {
        for (uint16_t& value : *tensor)
          value = static_cast<uint16_t>(random.Next() & 0xbfff);  // exponent never all ones
      }
    }
    kv.keys(0)[0] = 0x8000;
    kv.keys(0)[1] = 0;
    RoundTrip(geometry, {}, 0, kv);
  }
}

TEST_P(ExactTokensTest, RealisticTokensTakeLessThanRaw) {
  const KvGeometry geometry = TestGeometry(4, 2, 64, GetParam());
  const TestKv kv = MakeTestKv(geometry, 4, 1, 2);
  EXPECT_LT(RoundTrip(geometry, {}, 0, kv), 0.93 * 4 * 2 * geometry.values_per_token());
}

TEST_P(ExactTokensTest, TokensLikeTheReferenceCostNextToNothing) {
  const KvGeometry geometry = TestGeometry(4, 2, 64, GetParam());
  TestKv kv = MakeTestKv(geometry, 1, 1, 2);
  kv.keys(0)[5] = 0x8000;
  const ReferenceTokens references = {{}, TokenValues(geometry, kv.view(), 0)};
  EXPECT_LT(RoundTrip(geometry, references, 1, kv), 40u);
  EXPECT_GT(RoundTrip(geometry, references, 0, kv), 1000u) << "no reference at this position";
  EXPECT_GT(RoundTrip(geometry, references, 2, kv), 1000u);
  TestKv near = kv;
  for (size_t i = 0; i < near.values(2).size(); i += 7)
    near.values(2)[i] ^= 1;  // the last bit, as another kernel might round it
  EXPECT_LT(RoundTrip(geometry, references, 1, near), 150u);
  TestKv far = kv;
  far.values(1)[3] ^= 0x8000;
  EXPECT_GT(RoundTrip(geometry, references, 1, far), 1000u);
  TestKv zero = kv;
  zero.keys(0)[5] = 0;
  EXPECT_GT(RoundTrip(geometry, references, 1, zero), 1000u) << "the sign of a zero is part of it";
}

TEST_P(ExactTokensTest, RejectsFieldsOutOfRangeAndValuesThatAreNotFinite) {
  const KvGeometry geometry = TestGeometry(1, 1, 4, GetParam(), RopeParameters::Layout::kNone);
  TestKv kv(geometry, 1);
  std::string bytes;
  ASSERT_TRUE(EncodeExactTokens(geometry, {}, 0, kv.view(), &bytes).ok());
  ASSERT_EQ(bytes.size(), 17u);
  TestKv out(geometry, 1);
  const auto code = [&] {
    return DecodeExactTokens(geometry, {}, 0, bytes, out.mutable_view()).code();
  };
  EXPECT_EQ(code(), absl::StatusCode::kOk);
  bytes[0] = 3;
  EXPECT_EQ(code(), absl::StatusCode::kInvalidArgument);
  bytes[0] = 1;
  EXPECT_EQ(code(), absl::StatusCode::kInvalidArgument) << "no reference";
  bytes[0] = 0;
  bytes[2] = '\x7f';
  bytes[1] = '\x80';
  EXPECT_EQ(code(), absl::StatusCode::kInvalidArgument);
  kv.values(0)[1] = GetParam() == KvDtype::kF16 ? 0x7c01 : 0xff80;
  EXPECT_EQ(EncodeExactTokens(geometry, {}, 0, kv.view(), &bytes).code(),
            absl::StatusCode::kInvalidArgument);
}

INSTANTIATE_TEST_SUITE_P(Dtypes, ExactTokensTest, testing::Values(KvDtype::kF16, KvDtype::kBF16));

}  // namespace
}  // namespace kvstream

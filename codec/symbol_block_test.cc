#include "codec/symbol_block.h"

#include <string>
#include <vector>

#include "codec/test_kv.h"
#include "gtest/gtest.h"

namespace kvstream {
namespace {

TEST(SymbolBlockTest, RunsOfEveryKindSurvive) {
  TestRandom random(1);
  for (const int size : {1, 2, 511, 512, 5000, 70000}) {
    for (const uint64_t alphabet : {1, 2, 7, 256}) {
      std::vector<uint8_t> symbols(size);
      for (uint8_t& symbol : symbols) symbol = static_cast<uint8_t>(255 - random.Below(alphabet));
      std::string bytes;
      EncodeSymbols(symbols, &bytes);
      std::vector<uint8_t> decoded;
      ASSERT_TRUE(DecodeSymbols(bytes, size, "test", &decoded).ok());
      ASSERT_EQ(decoded, symbols);
      EXPECT_FALSE(DecodeSymbols(bytes.substr(0, bytes.size() - 1), size, "test", &decoded).ok());
      EXPECT_FALSE(DecodeSymbols(bytes + "ab", size, "test", &decoded).ok());
    }
  }
}

TEST(SymbolBlockTest, ARunOfOneSymbolTakesAFewBytes) {
  std::string bytes;
  EncodeSymbols(std::vector<uint8_t>(1000, 0), &bytes);
  EXPECT_LT(bytes.size(), 20u);
}

}  // namespace
}  // namespace kvstream

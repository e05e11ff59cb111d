#include "codec/symbol_block.h"

#include <algorithm>
#include <array>

#include "absl/strings/str_cat.h"
#include "codec/byte_io.h"
#include "codec/class_tables.h"
#include "codec/rans.h"

namespace kvstream {

int SymbolBlockLanes(int64_t symbols) {
  return static_cast<int>(std::min<int64_t>(kLanes, std::max<int64_t>(1, symbols / 512)));
}

void EncodeSymbols(absl::Span<const uint8_t> symbols, std::string* out) {
  std::array<double, 256> count = {};
  for (uint8_t symbol : symbols) count[symbol] += 1;
  // A table needs two entries; the second costs next to nothing.
  if (count[symbols[0]] == static_cast<double>(symbols.size()))
    count[static_cast<uint8_t>(symbols[0] + 1)] = 1e-3;
  std::vector<uint8_t> used;
  std::vector<double> weights;
  for (int symbol = 0; symbol < 256; ++symbol) {
    if (count[symbol] == 0) continue;
    used.push_back(static_cast<uint8_t>(symbol));
    weights.push_back(count[symbol]);
  }
  const std::vector<uint16_t> frequencies = FrequenciesFromWeights(weights);
  std::array<uint16_t, 256> frequency = {};
  std::array<uint16_t, 256> start = {};
  out->push_back(static_cast<char>(used.size() - 1));
  int sum = 0;
  for (size_t i = 0; i < used.size(); ++i) {
    out->push_back(static_cast<char>(used[i]));
    AppendLe(frequencies[i], out);
    frequency[used[i]] = frequencies[i];
    start[used[i]] = static_cast<uint16_t>(sum);
    sum += frequencies[i];
  }
  const int lanes = SymbolBlockLanes(symbols.size());
  RansEncoder rans;
  for (size_t i = symbols.size(); i > 0; --i) {
    const uint8_t symbol = symbols[i - 1];
    rans.Put(static_cast<int>((i - 1) % lanes), start[symbol], frequency[symbol]);
  }
  rans.Finish(lanes, out);
}

absl::Status DecodeSymbols(absl::string_view bytes, int64_t count, const char* what,
                           std::vector<uint8_t>* symbols) {
  ByteReader in(bytes);
  const int entries = in.Read<uint8_t>() + 1;
  std::array<uint8_t, kProbabilityScale> symbol_of;
  std::array<uint16_t, 256> frequency = {};
  std::array<uint16_t, 256> start = {};
  int sum = 0;
  for (int i = 0; i < entries; ++i) {
    const uint8_t symbol = in.Read<uint8_t>();
    const uint16_t value = in.Read<uint16_t>();
    if (!in.ok() || value < 1 || value >= kProbabilityScale || sum + value > kProbabilityScale ||
        frequency[symbol] != 0) {
      return absl::InvalidArgumentError(
          absl::StrCat("segment: table of the ", what, " is out of range"));
    }
    frequency[symbol] = value;
    start[symbol] = static_cast<uint16_t>(sum);
    std::fill(symbol_of.begin() + sum, symbol_of.begin() + sum + value, symbol);
    sum += value;
  }
  if (sum != kProbabilityScale)
    return absl::InvalidArgumentError(
        absl::StrCat("segment: table of the ", what, " does not sum to 4096"));
  const int lanes = SymbolBlockLanes(count);
  RansDecoder rans;
  if (!rans.Init(in.Take(in.remaining()), lanes))
    return absl::DataLossError(absl::StrCat("segment: ", what, " is truncated"));
  symbols->resize(count);
  for (int64_t i = 0; i < count; ++i) {
    const int lane = static_cast<int>(i % lanes);
    const uint32_t x = rans.state[lane];
    const uint32_t slot = x & (kProbabilityScale - 1);
    const uint8_t symbol = symbol_of[slot];
    (*symbols)[i] = symbol;
    rans.state[lane] =
        rans.Renormalise<true>(frequency[symbol] * (x >> kProbabilityBits) + slot - start[symbol]);
  }
  if (!rans.Finished())
    return absl::DataLossError(absl::StrCat("segment: ", what, " does not decode"));
  return absl::OkStatus();
}

}  // namespace kvstream

#include "codec/exact_tokens.h"

#include <cstring>

#include "absl/strings/str_cat.h"
#include "codec/byte_io.h"
#include "codec/float16.h"
#include "codec/symbol_block.h"

namespace kvstream {
namespace {

enum Way : uint8_t { kRaw = 0, kReference = 1, kSplit = 2 };

// Bits below the exponent, and the sign put on top of them.
int MantissaBits(KvDtype dtype) { return dtype == KvDtype::kF16 ? 10 : 7; }

// Order of the floats as integers: neighbouring values differ by 1.
int Ordered(uint16_t bits) {
  return (bits & 0x8000) != 0 ? -static_cast<int>(bits & 0x7fff) : bits;
}
uint16_t FromOrdered(int ordered, bool negative_zero) {
  if (ordered < 0) return static_cast<uint16_t>(0x8000 | -ordered);
  return negative_zero ? 0x8000 : static_cast<uint16_t>(ordered);
}

template <typename View, typename Use>
void ForEachRow(const KvGeometry& geometry, const View& kv, int64_t token, Use use) {
  for (int layer = 0; layer < geometry.layers; ++layer) {
    for (int plane = 0; plane < geometry.planes; ++plane) {
      const auto& tensor = plane == 0 ? kv.keys[layer] : kv.values[layer];
      for (int head = 0; head < geometry.kv_heads; ++head) use(tensor.at(token, head));
    }
  }
}

void AppendSymbolBlock(const std::vector<uint8_t>& symbols, std::string* out) {
  std::string block;
  EncodeSymbols(symbols, &block);
  AppendLe<uint32_t>(static_cast<uint32_t>(block.size()), out);
  *out += block;
}

// Appends sign and mantissa of every value.
void AppendLowBits(const std::vector<uint16_t>& values, KvDtype dtype, std::string* out) {
  const int mantissa = MantissaBits(dtype);
  uint32_t pending = 0;
  int bits = 0;
  for (uint16_t value : values) {
    const uint32_t low = (value & ((1u << mantissa) - 1)) | (value >> 15) << mantissa;
    pending |= low << bits;
    for (bits += mantissa + 1; bits >= 8; bits -= 8, pending >>= 8)
      out->push_back(static_cast<char>(pending));
  }
  if (bits > 0) out->push_back(static_cast<char>(pending));
}

absl::Status DecodeSplit(ByteReader& in, KvDtype dtype, int64_t count,
                         std::vector<uint16_t>* values) {
  std::vector<uint8_t> exponents;
  const uint32_t size = in.Read<uint32_t>();
  absl::Status status = DecodeSymbols(in.Take(size), count, "exact tokens' exponents", &exponents);
  if (!status.ok()) return status;
  const int mantissa = MantissaBits(dtype);
  const absl::string_view bytes = in.Take((static_cast<uint64_t>(count) * (mantissa + 1) + 7) / 8);
  if (!in.ok()) return absl::DataLossError("segment: exact tokens are truncated");
  uint32_t pending = 0;
  int bits = 0;
  size_t next = 0;
  for (int64_t i = 0; i < count; ++i) {
    while (bits < mantissa + 1) {
      pending |= uint32_t{static_cast<uint8_t>(bytes[next++])} << bits;
      bits += 8;
    }
    const uint32_t low = pending & ((2u << mantissa) - 1);
    pending >>= mantissa + 1;
    bits -= mantissa + 1;
    const uint32_t exponent_max = 0x7fffu >> mantissa;
    if (exponents[i] >= exponent_max)
      return absl::InvalidArgumentError("segment: an exact token's value is not finite");
    values->push_back(static_cast<uint16_t>(low >> mantissa << 15 |
                                            uint32_t{exponents[i]} << mantissa |
                                            (low & ((1u << mantissa) - 1))));
  }
  return absl::OkStatus();
}

}  // namespace

std::vector<uint16_t> TokenValues(const KvGeometry& geometry, const KvView& kv, int64_t token) {
  std::vector<uint16_t> values;
  values.reserve(geometry.values_per_token());
  ForEachRow(geometry, kv, token, [&](const uint16_t* row) {
    values.insert(values.end(), row, row + geometry.head_size);
  });
  return values;
}

bool CloseToReference(const std::vector<uint16_t>& values, const std::vector<uint16_t>& reference) {
  for (size_t i = 0; i < values.size(); ++i) {
    // A negative zero has no place of its own in the order.
    if (values[i] == 0x8000 && reference[i] != 0x8000) return false;
    if (values[i] == 0 && reference[i] == 0x8000) return false;
    if (ZigZag(int64_t{Ordered(values[i])} - Ordered(reference[i])) > 255) return false;
  }
  return true;
}

absl::Status EncodeExactTokens(const KvGeometry& geometry, const ReferenceTokens& references,
                               int64_t first_position, const KvView& kv, std::string* out) {
  if (kv.tokens == 0) return absl::OkStatus();
  std::vector<uint8_t> differences;
  std::vector<uint8_t> exponents;
  std::vector<uint16_t> split;
  std::string raw;
  for (int64_t token = 0; token < kv.tokens; ++token) {
    const std::vector<uint16_t> values = TokenValues(geometry, kv, token);
    for (uint16_t value : values) {
      if (!IsFinite16(value, geometry.dtype))
        return absl::InvalidArgumentError("kv: a value is not finite");
    }
    const uint64_t position = static_cast<uint64_t>(first_position + token);
    if (position < references.size() && !references[position].empty() &&
        CloseToReference(values, references[position])) {
      out->push_back(static_cast<char>(kReference));
      for (size_t i = 0; i < values.size(); ++i) {
        differences.push_back(static_cast<uint8_t>(
            ZigZag(int64_t{Ordered(values[i])} - Ordered(references[position][i]))));
      }
    } else if (values.size() >= 256) {
      out->push_back(static_cast<char>(kSplit));
      for (uint16_t value : values)
        exponents.push_back(static_cast<uint8_t>((value & 0x7fff) >> MantissaBits(geometry.dtype)));
      split.insert(split.end(), values.begin(), values.end());
    } else {  // a table would not pay
      out->push_back(static_cast<char>(kRaw));
      raw.append(reinterpret_cast<const char*>(values.data()), values.size() * 2);
    }
  }
  if (!differences.empty()) AppendSymbolBlock(differences, out);
  if (!exponents.empty()) {
    AppendSymbolBlock(exponents, out);
    AppendLowBits(split, geometry.dtype, out);
  }
  *out += raw;
  return absl::OkStatus();
}

absl::Status DecodeExactTokens(const KvGeometry& geometry, const ReferenceTokens& references,
                               int64_t first_position, absl::string_view bytes,
                               const MutableKvView& kv) {
  if (kv.tokens == 0) return absl::OkStatus();
  const int64_t per_token = geometry.values_per_token();
  ByteReader in(bytes);
  const absl::string_view ways = in.Take(kv.tokens);
  if (!in.ok()) return absl::DataLossError("segment: exact tokens are truncated");
  int64_t count[3] = {};
  for (int64_t token = 0; token < kv.tokens; ++token) {
    const uint8_t way = static_cast<uint8_t>(ways[token]);
    if (way > kSplit)
      return absl::InvalidArgumentError(
          absl::StrCat("segment: way of an exact token is ", way, ", must be 0 to 2"));
    const uint64_t position = static_cast<uint64_t>(first_position + token);
    if (way == kReference && (position >= references.size() || references[position].empty())) {
      return absl::InvalidArgumentError("segment: an exact token has no reference in the profile");
    }
    count[way] += per_token;
  }
  std::vector<uint8_t> differences;
  if (count[kReference] > 0) {
    const uint32_t size = in.Read<uint32_t>();
    absl::Status status =
        DecodeSymbols(in.Take(size), count[kReference], "exact tokens' differences", &differences);
    if (!status.ok()) return status;
  }
  std::vector<uint16_t> split;
  if (count[kSplit] > 0) {
    absl::Status status = DecodeSplit(in, geometry.dtype, count[kSplit], &split);
    if (!status.ok()) return status;
  }
  const absl::string_view raw = in.Take(static_cast<uint64_t>(count[kRaw]) * 2);
  if (!in.ok() || in.remaining() != 0)
    return absl::DataLossError("segment: exact tokens do not fill their section");

  const uint8_t* next_difference = differences.data();
  const uint16_t* next_split = split.data();
  const char* next_raw = raw.data();
  std::vector<uint16_t> values(per_token);
  for (int64_t token = 0; token < kv.tokens; ++token) {
    if (ways[token] == kReference) {
      const std::vector<uint16_t>& reference = references[first_position + token];
      for (int64_t i = 0; i < per_token; ++i) {
        const int64_t ordered = Ordered(reference[i]) + UnZigZag(*next_difference++);
        if (ordered < -0x7fff || ordered > 0x7fff)
          return absl::InvalidArgumentError("segment: an exact token's value is not finite");
        values[i] = FromOrdered(static_cast<int>(ordered), reference[i] == 0x8000 && ordered == 0);
      }
    } else if (ways[token] == kSplit) {
      std::memcpy(values.data(), next_split, per_token * 2);
      next_split += per_token;
    } else {
      std::memcpy(values.data(), next_raw, per_token * 2);
      next_raw += per_token * 2;
    }
    for (uint16_t value : values) {
      if (!IsFinite16(value, geometry.dtype))
        return absl::InvalidArgumentError("segment: an exact token's value is not finite");
    }
    const uint16_t* source = values.data();
    ForEachRow(geometry, kv, token, [&](uint16_t* row) {
      std::memcpy(row, source, static_cast<size_t>(geometry.head_size) * 2);
      source += geometry.head_size;
    });
  }
  return absl::OkStatus();
}

}  // namespace kvstream

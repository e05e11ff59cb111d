// Tokens whose KV is kept bit for bit: the first ones of a context ("sinks"), which attention leans
// on most.
//
// Values of a token are numbered [layer][plane: keys, values][head][channel]. A token is stored in
// one of three ways.
//
// 0, raw: its 16-bit values.
//
// 1, reference: differences to the profile's reference token of the same position. Contexts mostly
// start with the same token, whose KV is then the same in all of them.
//
// 2, split: exponents are entropy-coded; sign and mantissa, which have nothing to spare, are kept
// as they are.
//
// Bytes: the way of each token (uint8). Then, if any token has way 1: uint32 size of a symbol block
// (symbol_block.h) and the block, over the values of all those tokens; a symbol is the zigzag, 0 to
// 255, of the difference of ordered bits (sign and magnitude made two's complement). Then, if any
// token has way 2: uint32 size of a symbol block and the block, over the exponents of all those
// tokens; then mantissa with the sign above it of each value, packed from the low bit up (F16: 11
// bits, BF16: 8). Then the raw tokens.
#ifndef KVSTREAM_CODEC_EXACT_TOKENS_H_
#define KVSTREAM_CODEC_EXACT_TOKENS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "codec/geometry.h"
#include "codec/kv_view.h"

namespace kvstream {

// By position: the values of that position's token, or empty where there is no reference.
using ReferenceTokens = std::vector<std::vector<uint16_t>>;

// The values of one token.
std::vector<uint16_t> TokenValues(const KvGeometry& geometry, const KvView& kv, int64_t token);

// True if all differences of the two tokens fit way 1.
bool CloseToReference(const std::vector<uint16_t>& values, const std::vector<uint16_t>& reference);

// Appends all tokens of kv, of which the first stands at first_position, to `out`; nothing if there
// are none. INVALID_ARGUMENT if a value is not finite.
absl::Status EncodeExactTokens(const KvGeometry& geometry, const ReferenceTokens& references,
                               int64_t first_position, const KvView& kv, std::string* out);

// Fills all tokens of kv. DATA_LOSS for bytes that are truncated or do not decode, INVALID_ARGUMENT
// for a field out of range or a value that is not finite.
absl::Status DecodeExactTokens(const KvGeometry& geometry, const ReferenceTokens& references,
                               int64_t first_position, absl::string_view bytes,
                               const MutableKvView& kv);

}  // namespace kvstream

#endif  // KVSTREAM_CODEC_EXACT_TOKENS_H_

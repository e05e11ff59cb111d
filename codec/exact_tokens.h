// Tokens whose KV is kept bit for bit: the first ones of a context ("sinks"), which attention leans
// on most.
//
// Bytes: the raw 16-bit values, [token][layer][keys, values][head][channel], little-endian.
#ifndef KVSTREAM_CODEC_EXACT_TOKENS_H_
#define KVSTREAM_CODEC_EXACT_TOKENS_H_

#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "codec/geometry.h"
#include "codec/kv_view.h"

namespace kvstream {

// Appends all tokens of kv to `out`. INVALID_ARGUMENT if a value is not finite.
absl::Status EncodeExactTokens(const KvGeometry& geometry, const KvView& kv, std::string* out);

// Fills all tokens of kv. DATA_LOSS if the bytes have another size, INVALID_ARGUMENT for a value
// that is not finite.
absl::Status DecodeExactTokens(const KvGeometry& geometry, absl::string_view bytes,
                               const MutableKvView& kv);

}  // namespace kvstream

#endif  // KVSTREAM_CODEC_EXACT_TOKENS_H_

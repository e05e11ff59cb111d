// A run of bytes, coded with a table of its own: for the small sections of a segment.
//
// Bytes: number of the table's entries less one (uint8), the entries (uint8 symbol, uint16
// frequency; 2 to 256 distinct symbols, frequencies of 1 to 4095 that sum to 4096), then one rANS
// block (rans.h) to the end. Symbol i is coded in lane i % lanes.
#ifndef KVSTREAM_CODEC_SYMBOL_BLOCK_H_
#define KVSTREAM_CODEC_SYMBOL_BLOCK_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace kvstream {

// Lanes of a block of so many symbols: one for every 512, 1 to 32, so that the states stay cheap.
int SymbolBlockLanes(int64_t symbols);

// Appends the coded symbols to `out`. Precondition: at least one symbol.
void EncodeSymbols(absl::Span<const uint8_t> symbols, std::string* out);

// Decodes exactly `count` symbols from all of `bytes`. Errors: INVALID_ARGUMENT for an impossible
// table, DATA_LOSS for a block that does not decode; `what` names the section in the message.
absl::Status DecodeSymbols(absl::string_view bytes, int64_t count, const char* what,
                           std::vector<uint8_t>* symbols);

}  // namespace kvstream

#endif  // KVSTREAM_CODEC_SYMBOL_BLOCK_H_

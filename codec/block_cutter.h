// Where a level's coordinates are cut into blocks; internal to the codec.
#ifndef KVSTREAM_CODEC_BLOCK_CUTTER_H_
#define KVSTREAM_CODEC_BLOCK_CUTTER_H_

#include <cstddef>
#include <cstdint>
#include <vector>

namespace kvstream {

// A block's states waste 2 bytes a lane, so that a block should have some 8 KiB; more than twice
// that only delays its decoder. Where symbols cost next to nothing, a block of 8 KiB would have so
// many of them that a GPU, which decodes a block with one warp, would wait milliseconds for it:
// hence kBlockSymbolsMax, at which the states cost 1/256 bit a symbol.
constexpr double kBlockBitsMin = 8 * 8192;
constexpr double kBlockBitsMax = 16 * 8192;
constexpr int64_t kBlockSymbols = 32768;
constexpr int64_t kBlockSymbolsMax = int64_t{1} << 18;

// order: coordinates in coding order; row_bits[coordinate]: its code length, for all tokens. Calls
// cut(first, last, bits) for every block, order[first] to order[last - 1], in order; not for an
// empty order or no tokens.
template <typename RowBits, typename Cut>
void CutBlocks(const std::vector<int32_t>& order, const RowBits& row_bits, int tokens, Cut cut) {
  if (tokens == 0) return;
  double left = 0;
  for (int32_t coordinate : order) left += row_bits[coordinate];
  double bits = 0;
  size_t first = 0;
  for (size_t i = 0; i < order.size(); ++i) {
    bits += row_bits[order[i]];
    left -= row_bits[order[i]];
    const int64_t symbols = static_cast<int64_t>(i + 1 - first) * tokens;
    const bool full = bits >= kBlockBitsMax || (bits >= kBlockBitsMin && symbols >= kBlockSymbols);
    const bool end = (full && left >= kBlockBitsMin / 2) || symbols >= kBlockSymbolsMax;
    if (i + 1 < order.size() && !end) continue;
    cut(first, i + 1, bits);
    first = i + 1;
    bits = 0;
  }
}

}  // namespace kvstream

#endif  // KVSTREAM_CODEC_BLOCK_CUTTER_H_

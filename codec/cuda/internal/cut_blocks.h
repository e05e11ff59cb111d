// Where the device encoder cuts the blocks of a level.
#ifndef KVSTREAM_CODEC_CUDA_INTERNAL_CUT_BLOCKS_H_
#define KVSTREAM_CODEC_CUDA_INTERNAL_CUT_BLOCKS_H_

#include <cstdint>
#include <vector>

#include "codec/cuda/internal/encode_types.h"

namespace kvstream {
namespace cuda {

// As level_encoder.cc cuts blocks: states cost 128 bytes, so that a block has some 8 KiB. But no
// block has more symbols than kBlockSymbolsMax: where symbols cost next to nothing a block of 8 KiB
// would keep one warp busy for milliseconds.
constexpr double kBlockBitsMin = 8 * 8192;
constexpr double kBlockBitsMax = 16 * 8192;
constexpr int64_t kBlockSymbols = 32768;
constexpr int64_t kBlockSymbolsMax = int64_t{1} << 19;

// Appends a task for every block of the coordinates in `order`, of which row_bits[coordinate] is
// the code length; each gets room behind *payload_words, which grows. Nothing for no tokens.
void CutBlocks(const std::vector<int32_t>& order, const float* row_bits, int tokens, uint32_t chunk,
               uint32_t level, uint64_t* payload_words, std::vector<EncodeTaskDev>* tasks);

}  // namespace cuda
}  // namespace kvstream

#endif  // KVSTREAM_CODEC_CUDA_INTERNAL_CUT_BLOCKS_H_

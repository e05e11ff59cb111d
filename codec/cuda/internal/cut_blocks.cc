#include "codec/cuda/internal/cut_blocks.h"

#include <cstddef>

namespace kvstream {
namespace cuda {

void CutBlocks(const std::vector<int32_t>& order, const float* row_bits, int tokens, uint32_t chunk,
               uint32_t level, uint64_t* payload_words, std::vector<EncodeTaskDev>* tasks) {
  if (tokens == 0) return;
  double left = 0;
  for (int32_t coordinate : order) left += row_bits[coordinate];
  double bits = 0;
  std::size_t first = 0;
  for (std::size_t i = 0; i < order.size(); ++i) {
    bits += row_bits[order[i]];
    left -= row_bits[order[i]];
    const int64_t symbols = static_cast<int64_t>(i + 1 - first) * tokens;
    const bool full = bits >= kBlockBitsMax || (bits >= kBlockBitsMin && symbols >= kBlockSymbols);
    const bool cut = (full && left >= kBlockBitsMin / 2) || symbols >= kBlockSymbolsMax;
    if (i + 1 < order.size() && !cut) continue;
    EncodeTaskDev task = {};
    task.chunk = chunk;
    task.level = level;
    task.first = static_cast<uint32_t>(first);
    task.coordinates = static_cast<uint32_t>(i + 1 - first);
    task.offset = *payload_words;
    // The code loses next to nothing against its entropy; a lane's last state may hold a word less.
    task.capacity =
        static_cast<uint32_t>(bits / 16 * 1.01 + static_cast<double>(symbols) / 1024) + 4 * kWarp;
    *payload_words += task.capacity;
    tasks->push_back(task);
    first = i + 1;
    bits = 0;
  }
}

}  // namespace cuda
}  // namespace kvstream

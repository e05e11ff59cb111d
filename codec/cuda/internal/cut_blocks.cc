#include "codec/cuda/internal/cut_blocks.h"

#include <cstddef>

#include "codec/block_cutter.h"

namespace kvstream {
namespace cuda {

void CutBlocks(const std::vector<int32_t>& order, const float* row_bits, int tokens, uint32_t chunk,
               uint32_t level, uint64_t* payload_words, std::vector<EncodeTaskDev>* tasks) {
  kvstream::CutBlocks(order, row_bits, tokens, [&](size_t first, size_t last, double bits) {
    const double symbols = static_cast<double>(last - first) * tokens;
    EncodeTaskDev task = {};
    task.chunk = chunk;
    task.level = level;
    task.first = static_cast<uint32_t>(first);
    task.coordinates = static_cast<uint32_t>(last - first);
    task.offset = *payload_words;
    // The code loses next to nothing against its entropy; a lane's last state may hold a word less.
    task.capacity = static_cast<uint32_t>(bits / 16 * 1.01 + symbols / 1024) + 4 * kWarp;
    *payload_words += task.capacity;
    tasks->push_back(task);
  });
}

}  // namespace cuda
}  // namespace kvstream

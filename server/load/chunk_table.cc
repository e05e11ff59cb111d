#include "server/load/chunk_table.h"

#include <algorithm>

namespace kvstream {

int LevelsOf(absl::Span<const StoredChunkSizes> chunks) {
  size_t levels = 0;
  for (const StoredChunkSizes& chunk : chunks)
    levels = std::max(levels, chunk.segment_bytes.size());
  return static_cast<int>(levels);
}

ChunkTable::ChunkTable(absl::Span<const StoredChunkSizes> chunks)
    : size_(static_cast<uint32_t>(chunks.size())),
      levels_(LevelsOf(chunks)),
      byte_sums_((chunks.size() + 1) * levels_, 0),
      token_sums_(chunks.size() + 1, 0),
      pair_sums_(chunks.size() + 1, 0) {
  const bool unequal = std::any_of(chunks.begin(), chunks.end(), [this](const auto& chunk) {
    return static_cast<int>(chunk.segment_bytes.size()) < levels_;
  });
  if (unequal) {
    finest_.reserve(chunks.size());
    level_counts_.resize((chunks.size() + 1) * levels_, 0);
  }
  for (size_t i = 0; i < chunks.size(); ++i) {
    const StoredChunkSizes& chunk = chunks[i];
    uint64_t upto = 0;
    for (int level = 0; level < levels_; ++level) {
      const bool has = level < static_cast<int>(chunk.segment_bytes.size());
      if (has) upto += chunk.segment_bytes[level];
      if (unequal) {
        level_counts_[(i + 1) * levels_ + level] =
            level_counts_[i * levels_ + level] + (has ? 1 : 0);
      }
      byte_sums_[(i + 1) * levels_ + level] = byte_sums_[i * levels_ + level] + upto;
    }
    if (unequal) finest_.push_back(static_cast<uint8_t>(chunk.segment_bytes.size() - 1));
    const double n = chunk.tokens;
    token_sums_[i + 1] = token_sums_[i] + chunk.tokens;
    pair_sums_[i + 1] = pair_sums_[i] + n * (static_cast<double>(chunk.first_token) + n / 2);
  }
}

double ChunkTable::token_pairs_of_first(uint32_t begin, uint64_t count) const {
  if (count == 0) return 0;
  const uint64_t target = token_sums_[begin] + count;
  if (target >= token_sums_[size_]) return token_pairs(begin, size_);
  const auto it = std::upper_bound(token_sums_.begin() + begin, token_sums_.end(), target);
  const uint32_t chunk = static_cast<uint32_t>(it - token_sums_.begin()) - 1;
  const double part = static_cast<double>(target - token_sums_[chunk]) / tokens(chunk);
  return token_pairs(begin, chunk) + part * token_pairs(chunk, chunk + 1);
}

}  // namespace kvstream

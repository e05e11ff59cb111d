// The chunks of one load as the planner needs them: sums over ranges of chunks in constant time.
#ifndef KVSTREAM_SERVER_LOAD_CHUNK_TABLE_H_
#define KVSTREAM_SERVER_LOAD_CHUNK_TABLE_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "server/load/load_session.h"

namespace kvstream {

// Immutable and thread-safe after construction. Holds only running sums, from which a single value
// is a difference: 8 * (levels + 2) bytes a chunk, and 4 * levels + 1 more where chunks have
// unequal levels. A level that a chunk lacks counts as a segment of no bytes there. The sums cannot
// overflow for a LoadSpec that passed Validate().
class ChunkTable {
 public:
  explicit ChunkTable(absl::Span<const StoredChunkSizes> chunks);

  uint32_t size() const { return size_; }
  int levels() const { return levels_; }  // of the chunk that has most
  // The chunk's own finest level.
  int finest(uint32_t chunk) const { return finest_.empty() ? levels_ - 1 : finest_[chunk]; }
  // Chunks of [begin, end) that have the level.
  uint32_t with_level(uint32_t begin, uint32_t end, int level) const {
    if (finest_.empty()) return end - begin;
    const uint32_t* counts = level_counts_.data() + level;
    return counts[size_t{end} * levels_] - counts[size_t{begin} * levels_];
  }

  uint64_t segment_bytes(uint32_t chunk, int level) const {
    const uint64_t upto = bytes(chunk, chunk + 1, level);
    return level > 0 ? upto - bytes(chunk, chunk + 1, level - 1) : upto;
  }
  // Bytes of the chunks [begin, end) with their segments 0..level.
  uint64_t bytes(uint32_t begin, uint32_t end, int level) const {
    const uint64_t* sums = byte_sums_.data() + level;
    return sums[size_t{end} * levels_] - sums[size_t{begin} * levels_];
  }

  uint32_t tokens(uint32_t chunk) const {
    return static_cast<uint32_t>(token_sums_[chunk + 1] - token_sums_[chunk]);
  }
  uint64_t tokens(uint32_t begin, uint32_t end) const {
    return token_sums_[end] - token_sums_[begin];
  }
  // Token pairs that attention looks at when the chunks [begin, end) are recomputed: the sum of n *
  // (p + n / 2), with n a chunk's tokens and p those before it.
  double token_pairs(uint32_t begin, uint32_t end) const {
    return pair_sums_[end] - pair_sums_[begin];
  }
  // token_pairs of the first `count` tokens from chunk `begin` on; within a chunk by proportion.
  // O(log size).
  double token_pairs_of_first(uint32_t begin, uint64_t count) const;

 private:
  uint32_t size_;
  int levels_;
  // [chunk][level], of all chunks before and all levels up to it, size_ + 1 rows.
  std::vector<uint64_t> byte_sums_;
  // Empty where all chunks have all levels.
  std::vector<uint8_t> finest_;         // [chunk]
  std::vector<uint32_t> level_counts_;  // [chunk][level], of all chunks before; size_ + 1 rows
  std::vector<uint64_t> token_sums_;    // [chunk], size_ + 1
  std::vector<double> pair_sums_;       // [chunk], size_ + 1
};

}  // namespace kvstream

#endif  // KVSTREAM_SERVER_LOAD_CHUNK_TABLE_H_
